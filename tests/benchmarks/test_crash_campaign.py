"""A short campaign of crashes, and that it would notice what is lost."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
from crashing import judge
from crashing.chains import STAGES
from crashing.processes import Ended
from crashing.trial import FAULTS, damage, draw, followed, is_clear

from tests.environments import ROOT
from tests.processes import this_python

COUNTS = {1: [dict(step=18, access=400)], 2: [dict(step=18, access=400), dict(step=18, access=9)]}


def campaign(folder: Path, *options: object) -> dict:
    """Run one on the toy family, and return what it wrote."""
    file = folder / "crashes.json"
    command = ("benchmarks/crash_campaign.py", "--json", file, *options)
    ended = this_python().run(*command, cwd=ROOT, timeout=1800)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads(file.read_text())


def test_nothing_is_lost_over_one_process(tmp_path):
    in_folder = ("--processes", 1, "--folder", tmp_path / "runs")
    result = campaign(tmp_path, "--trials", 12, *in_folder)
    struck = [trial["drawn"]["fault"] for trial in result["trials"].values() if trial["is_struck"]]
    assert struck == [
        "Ctrl-C",
        "data worker killed",
        "disk full",
        "folder moved",
        "read-only folder",
        "clock jump",
    ]
    assert result["verdicts"] == {"alike": 6}
    assert result["unclear"] == 0
    again = campaign(tmp_path, "--trials", 0, *in_folder)
    assert again["trials"] == result["trials"]


@pytest.mark.slow
def test_nothing_is_lost_over_one_and_two_processes(tmp_path):
    result = campaign(tmp_path, "--trials", 30)
    assert len(result["trials"]) == 30
    assert result["verdicts"].get("lost", 0) == 0
    assert result["unclear"] == 0


def test_a_trial_is_the_same_each_time():
    trials = [draw(number, "toy", COUNTS) for number in range(24)]
    assert trials == [draw(number, "toy", COUNTS) for number in range(24)]
    assert [trial.fault for trial in trials] == [*FAULTS, *FAULTS]
    for trial in trials:
        counted = COUNTS[trial.world_size][trial.rank][trial.moment.kind]
        assert 1 <= trial.moment.number <= counted
    alone = [draw(number, "toy", {1: COUNTS[1]}) for number in range(24)]
    assert alone == [trial if trial.world_size == 1 else None for trial in trials]


@pytest.fixture
def finished(tmp_path) -> Path:
    """The results of a run that has trained nothing."""
    run = tmp_path / "run"
    for stage in STAGES:
        (run / stage / "export").mkdir(parents=True)
        (run / stage / "now" / "vis_data").mkdir(parents=True)
        (run / stage / "weights.safetensors").write_bytes(b"weights")
        (run / stage / "export" / "config.json").write_text("{}")
        (run / stage / "manifest.json").write_text('{"iters": 2, "seconds": 1.5}')
        (run / stage / "growth.json").write_text('{"growth": null}')
        lines = [dict(step=step, loss=0.5 * step, time=0.1) for step in (1, 2)]
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (run / stage / "now" / "vis_data" / "scalars.json").write_text(text)
    (run / "chain.json").write_text('{"mode": "chain", "members": [], "config": {}, "data": {}}')
    (run / "status.json").write_text('{"state": "finished"}')
    return run


@pytest.mark.parametrize(
    ("file", "content", "difference"),
    [
        ("02_b/manifest.json", '{"iters": 2, "seconds": 9.9}', None),
        ("02_b/manifest.json", '{"iters": 1, "seconds": 1.5}', "02_b/manifest.json says"),
        ("02_b/weights.safetensors", "weight5", "02_b/weights.safetensors has other bytes"),
        ("01_a/new.safetensors", "", "01_a/new.safetensors is in one of them only"),
        ("03_c/export/config.json", "{ }", "03_c/export/config.json has other bytes"),
        ("01_a/later/vis_data/scalars.json", '{"step": 2, "loss": 1.0, "time": 5}\n{"st', None),
        ("01_a/later/vis_data/scalars.json", '{"step": 2, "loss": 1.1}', "iteration 2 has another"),
        ("01_a/now/vis_data/scalars.json", '{"step": 2, "loss": 1.0}', "iteration 1 is not in"),
        ("01_a/checkpoints/iter_1.pt", "", "01_a/checkpoints is left over"),
        (".weights.tmp", "", ".weights.tmp is left over"),
        ("status.json", '{"state": "failed"}', "status.json says failed"),
        ("chain.json", '{"mode": "chain", "members": [], "config": {}, "data": 1}', "of data"),
    ],
)
def test_what_differs_is_named(finished, tmp_path, file, content, difference):
    run = shutil.copytree(finished, tmp_path / "other")
    assert judge.differences(run, finished) == []
    (run / file).parent.mkdir(parents=True, exist_ok=True)
    (run / file).write_text(content)
    found = judge.differences(run, finished)
    assert len(found) == (difference is not None)
    assert difference is None or difference in found[0]


@pytest.mark.parametrize(
    ("said", "damaged", "options"),
    [
        ("compt: 'a.bin' is damaged: x.\n  where: a\n  do: ... --from-stage c.", "01/a.bin", ["c"]),
        ("note: 'b.bin' is damaged\nnote: 'a.bin' is damaged --from-stage c-d", "a.bin", ["c-d"]),
        ("compt: 'a.bin' is damaged.\n  do: remove g.json beside it: so", "01/a.bin", []),
        ("compt: Cannot read 'g.json'.\n  where: {}/01/g.json\n  do: remove it.", "01/g.json", []),
        ("compt: 'other' is damaged.\n  do: ... --from-stage c.", "01/a.bin", None),
        ("compt: 'a.bin' is damaged.\n  do: Restore it.", "01/a.bin", None),
        ("all is well", "01/a.bin", None),
    ],
)
def test_advice_is_followed_only_where_the_damaged_file_is_named(tmp_path, said, damaged, options):
    record = tmp_path / "01" / "g.json"
    record.parent.mkdir()
    record.write_text("{")
    step = followed(said.format(tmp_path), damaged, tmp_path)
    assert (step and [option for option in step[1] if option != "--from-stage"]) == options
    assert record.exists() == (options != [])


def test_one_file_is_cut_or_has_one_bit_turned(finished):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    drawn = draw(FAULTS.index("file damaged"), "toy", COUNTS)
    named = damage(finished, drawn, random.Random(3))
    changed = [path for path, content in before.items() if path.read_bytes() != content]
    assert [finished / named] == changed


@pytest.mark.parametrize(
    ("fault", "codes", "errors", "clear"),
    [
        ("disk full", (1,), ("compt: Could not write",), True),
        ("disk full", (1,), ("",), False),
        ("disk full", (1,), ("Traceback (most recent call last)",), False),
        ("rank killed", (-9, 1), ("", "compt: Another process"), True),
        ("SIGKILL", (-9,), ("",), True),
    ],
)
def test_a_run_that_could_speak_has_to(fault, codes, errors, clear):
    assert is_clear(fault, Ended(codes, "", errors, 1.0, 0.0, is_hung=False)) == clear
