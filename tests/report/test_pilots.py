"""What is read of pilots, and what of them is left out or refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from compt.config import load_config
from compt.config.resuming import plain
from compt.errors import ConfigError
from compt.report.pilots import read_pilots
from compt.report.state import ChainState
from tests.report.records import stage_record

VALUES = (2.0, 1.8, 1.7, 1.65, 1.6)


@pytest.fixture
def family(toy):
    toy["chain"] = toy["chain"][:2]
    return toy


def pilot(
    folder: Path,
    config: dict[str, Any],
    values: tuple[float | None, ...] = VALUES,
    *,
    lr: float | None = None,
    clip: float | None = None,
    mode: str = "individual",
    done: int = 2,
    batch: int = 32,
    **record: Any,
) -> Path:
    """Write the folder of a run of all members, each with the same curve of 10 iterations a point.

    It warms up for 20 iterations, so that the first point is left out.
    """
    checked = load_config(config)
    folder.mkdir()
    names = tuple(stage.name for stage in checked.stages)
    ChainState(mode, names, plain(checked.raw)).write(folder / "chain.json")
    for index, stage in enumerate(checked.stages[:done]):
        path = folder / f"{index + 1:02d}_{stage.name}"
        path.mkdir()
        points = [(10 * (i + 1), 10.0 * i, 1.0, value) for i, value in enumerate(values)]
        made = stage_record(stage.name, points, batch_size=batch, index=index, **record)
        made.write(path / "manifest.json")
        wrapper = plain(stage.optim_wrapper)
        if lr is not None:
            wrapper["optimizer"]["lr"] = lr
        if clip is not None:
            wrapper["clip_grad"] = {"max_norm": clip}
        saved = {
            "train_cfg": {"max_iters": 10 * len(values)},
            "optim_wrapper": {"type": "OptimWrapper", "constructor": "X", **wrapper},
            "param_scheduler": [dict(type="LinearLR", start_factor=0.1, begin=0, end=20)],
        }
        (path / "config.py").write_text("".join(f"{k} = {v!r}\n" for k, v in saved.items()))
    return folder


def test_curves_without_warm_up(family, tmp_path):
    folders = [pilot(tmp_path / "x", family), pilot(tmp_path / "y", family, VALUES[:4])]
    read = read_pilots([*folders, folders[0]], load_config(family))
    assert (read.metric, read.is_error) == ("val/loss", False)
    for name in "ab":
        first, second = read.curves[name]
        assert (first.length, second.length) == (50, 40)
        assert first.iterations.tolist() == [20, 30, 40, 50]
        assert first.losses.tolist() == list(VALUES[1:])
    assert read.flops == 400, "a folder named twice is charged once"
    assert read.notes() == ["left out of the pilots: 4 evaluation(s) during warm-up"]


def test_one_member_a_folder_will_do(family, tmp_path):
    """As where pilots are trained one by one, and members that have not finished are elsewhere."""
    folders = [pilot(tmp_path / "x", family, done=1), pilot(tmp_path / "y", family)]
    read = read_pilots(folders, load_config(family))
    assert [len(read.curves[name]) for name in "ab"] == [2, 1]
    assert "1 member(s) that have not finished" in " ".join(read.notes())


def test_a_rate_that_was_computed_is_the_one_that_is_written(family, tmp_path):
    computed = math.nextafter(0.001, 1)
    read = read_pilots([pilot(tmp_path / "x", family, lr=computed)], load_config(family))
    assert [len(curves) for curves in read.curves.values()] == [1, 1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (dict(lr=0.5), "1 run(s) of 'b' with the learning rate 0.5, not 0.001"),
        (dict(clip=3.0), "2 run(s) with another optimizer"),
        (dict(batch=16), "2 run(s) with other batches"),
        (dict(values=(2.0, 1.8, None, None, None)), "2 run(s) that diverged"),
    ],
)
def test_runs_that_tell_nothing_are_left_out_and_charged(family, tmp_path, changes, reason):
    folders = [pilot(tmp_path / "x", family), pilot(tmp_path / "y", family, **changes)]
    read = read_pilots(folders, load_config(family))
    assert [len(curves) for curves in read.curves.values()] == [1, 1] and read.flops == 400
    assert f"left out of the pilots: {reason}" in "\n".join(read.notes())
    with pytest.raises(ConfigError, match=r"(?s)'a' has 0 evaluation.*left out of the pilots: "):
        read_pilots(folders[1:], load_config(family))


def test_points_that_are_not_finite_are_left_out(family, tmp_path):
    folder = pilot(tmp_path / "x", family, (2.0, 1.9, None, 1.8, 1.7, 1.6))
    read = read_pilots([folder], load_config(family))
    assert read.curves["a"][0].iterations.tolist() == [20, 40, 50, 60]
    assert "2 evaluation(s) that were not finite" in " ".join(read.notes())


def test_a_share_that_rises_is_fitted_as_what_it_lacks(family, tmp_path):
    shares = (0.2, 0.5, 0.6, 0.7, 0.8)
    options = dict(metric="val/accuracy", higher_is_better=True, unit="share")
    read = read_pilots([pilot(tmp_path / "x", family, shares, **options)], load_config(family))
    assert read.is_error and read.curves["a"][0].losses == pytest.approx([0.5, 0.4, 0.3, 0.2])
    assert read.value(0.2) == pytest.approx(0.8) and "a share that rises" in read.notes()[0]


def test_what_rises_without_an_end_is_refused(family, tmp_path):
    options = dict(metric="val/reward", higher_is_better=True)
    folder = pilot(tmp_path / "x", family, (10.0, 20.0, 30.0, 40.0), **options)
    with pytest.raises(ConfigError, match="rises and is no share"):
        read_pilots([folder], load_config(family))


def test_a_metric_must_be_measured(family, tmp_path):
    folder = pilot(tmp_path / "x", family)
    with pytest.raises(ConfigError, match=r"measured val/los.*Did you mean 'val/loss'"):
        read_pilots([folder], load_config(family), "val/los")


def test_few_points_are_refused(family, tmp_path):
    folder = pilot(tmp_path / "x", family, VALUES[:4])
    with pytest.raises(ConfigError, match=r"'a' has 3 evaluation\(s\) in 1 pilot\(s\)"):
        read_pilots([folder], load_config(family))
    with pytest.raises(ConfigError, match="No pilot of a member has finished"):
        read_pilots([pilot(tmp_path / "y", family, done=0)], load_config(family))


def test_pilots_of_something_else_are_refused(family, tmp_path):
    folder = pilot(tmp_path / "x", family)
    config = load_config(family)
    with pytest.raises(ConfigError, match="this is a chain's"):
        read_pilots([pilot(tmp_path / "y", family, mode="chain")], config)
    for change, words in [
        ({"paradigm": {**family["paradigm"], "samples": 64}}, "another paradigm, or other data"),
        ({"chain": [{**one, "name": f"{one['name']}2"} for one in family["chain"]]}, "member 'a'"),
        (
            {"chain": [{**one, "model": dict(width=40, depth=4)} for one in family["chain"]]},
            "another model under the name 'a'",
        ),
    ]:
        with pytest.raises(ConfigError, match=words):
            read_pilots([folder], load_config({**family, **change}))


def test_folders_without_their_stages_configs(family, tmp_path):
    """Nobody knows their rates; folders of old versions without the chain's config are read."""
    folders = [pilot(tmp_path / "x", family), pilot(tmp_path / "y", family)]
    state = json.loads((folders[0] / "chain.json").read_text())
    (folders[0] / "chain.json").write_text(json.dumps({**state, "config": {}}))
    (folders[1] / "01_a" / "config.py").unlink()
    shutil.rmtree(folders[1] / "02_b")
    read = read_pilots(folders, load_config(family))
    assert "left out of the pilots: 1 run(s) without config.py" in read.notes()
