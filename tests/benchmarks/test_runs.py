"""Runs of the toy family that really train: what is charged, kept, read again, and stopped."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from measuring.job import Job
from measuring.runs import Bench, OutOfTime

from compt.errors import ConfigError, DivergedError, WorkDirError
from compt.files import LOCK, MANIFEST
from tests.benchmarks.toys import FAMILY, family_file, toys
from tests.environments import ROOT


def manifests(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("manifest.json")}


def rate_of(job: Job) -> float:
    """The peak learning rate that the last stage of a finished run was given."""
    config = json.loads((job.folder / "chain.json").read_text())["config"]
    rate = config["chain"][-1]["optim_wrapper"]["optimizer"]["lr"]
    assert isinstance(rate, float)
    return rate


def test_a_grown_member_is_charged_with_its_own_stage_and_its_teacher(tmp_path: Path) -> None:
    """And nothing is trained twice."""
    bench = Bench(toys(tmp_path), tmp_path / "runs")
    source = bench.alone(0, 8, 1e-2, 1)
    alone = bench.alone(1, 4, 5e-3, 1)
    bench.run([source, alone])
    grown = bench.grown(1, source, 4, 5e-3, 1)
    ways = {"grower": {"type": "leading_block"}, "transfer": {"type": "feature_mse"}}
    taught = bench.grown(1, source, 4, 5e-3, 1, ways)
    bench.run([grown, taught])
    assert grown.flops == alone.flops > source.flops / 2 > 0
    assert taught.flops > grown.flops and taught.folder != grown.folder
    assert bench.quality_of(grown) == bench.value_of(grown) != bench.value_of(alone)
    assert bench.metric(grown.result) == "val/accuracy" and bench.sign(grown.result) == 1
    assert rate_of(grown) == 5e-3
    before = manifests(tmp_path)
    again = Bench(toys(tmp_path), tmp_path / "runs")
    again.run([again.alone(0, 8, 1e-2, 1), again.grown(1, source, 4, 5e-3, 1)])
    assert manifests(tmp_path) == before


def test_another_machine_goes_on_from_records(tmp_path: Path) -> None:
    """It trains what is new, and what that grows from, and comes to the same."""
    records = tmp_path / "records.jsonl"

    def on(machine: str) -> tuple[Bench, Job, Job, Job]:
        bench = Bench(toys(tmp_path), tmp_path / machine, records=records)
        return bench, *(bench.alone(0, 8, rate, 1) for rate in (1e-2, 5e-3, 1e15))

    bench, *jobs = on("one")
    bench.run(jobs)
    values = [bench.value_of(job) for job in jobs]
    grown = bench.grown(1, jobs[0], 4, 5e-3, 1)
    bench.run([grown])
    flops = [job.flops for job in (*jobs, grown)]
    expected = bench.value_of(grown)

    other, *again = on("other")
    other.run(again)
    assert not manifests(tmp_path / "other"), "all was known"
    assert [other.value_of(job) for job in again] == pytest.approx(values, nan_ok=True)
    longer = other.grown(1, again[0], 8, 5e-3, 1)
    known = other.grown(1, again[0], 4, 5e-3, 1)
    other.run([known, longer])
    assert [job.flops for job in (*again, known)] == flops
    assert other.value_of(known) == expected
    trained = {path.parents[1].relative_to(other.root) for path in other.root.rglob("weights.*")}
    assert trained == {job.folder.relative_to(other.root) for job in (again[0], longer)}

    lines = records.read_text().splitlines()
    assert len(lines) == 1 + 5, "the family, and every run once"
    assert str(tmp_path / "one") not in "".join(lines)
    changed = toys(tmp_path, {"paradigm.samples": 512})
    with pytest.raises(WorkDirError, match=r"paradigm.samples: 256 -> 512"):
        Bench(changed, tmp_path / "third", records=records).run([])
    records.write_text("\n".join([*lines, '{"run": "half']))
    with pytest.raises(WorkDirError, match=r"cannot be read"):
        on("fourth")


def test_a_machine_that_comes_to_something_else_says_so(tmp_path: Path, capsys: Any) -> None:
    records = tmp_path / "records.jsonl"
    bench = Bench(toys(tmp_path), tmp_path / "one", records=records)
    bench.run([bench.alone(0, 8, 1e-2, 1)])
    value = bench.value_of(bench.alone(0, 8, 1e-2, 1))
    records.write_text(records.read_text().replace(f'"value": {value}', '"value": 0.987'))
    other = Bench(toys(tmp_path), tmp_path / "other", records=records)
    source = other.alone(0, 8, 1e-2, 1)
    assert other.value_of(source) == 0.987
    other.run([other.grown(1, source, 4, 5e-3, 1)])
    assert "where the records have 0.987" in capsys.readouterr().out


def test_runs_are_where_others_look_for_them(tmp_path: Path) -> None:
    """What was measured before is found under the same names."""
    bench = Bench(toys(tmp_path), tmp_path)
    source = bench.alone(0, 8, 2**0.5 / 100, 1)
    assert source.folder == tmp_path / "toys-smoke" / "alone" / "a" / "8_lr_0.0141" / "seed_1"
    averaged = bench.alone(0, 8, 1e-2, 1, average={"type": "ema"})
    assert averaged.folder.parent.name == "8_lr_0.01_f040d7d7"
    grown = bench.grown(1, source, 4, 5e-3, 1)
    assert grown.folder == (
        tmp_path / "toys-smoke" / "grown" / "b" / "4_lr_0.005_from_898c92b8" / "seed_1"
    )
    assert bench.source(0, 8, 1e-2, 1).folder == bench.alone(0, 8, 1e-2, 1).folder


def test_no_more_is_kept_than_others_start_from(tmp_path: Path) -> None:
    bench = Bench(toys(tmp_path), tmp_path / "runs")
    source = bench.alone(0, 4, 1e-2, 1)
    bench.run([source])
    grown = bench.grown(1, source, 4, 1e-2, 1)
    bench.run([grown])
    weights = {path.parent for path in tmp_path.rglob("weights.safetensors")}
    assert weights == {source.stages[-1], grown.stages[-1]}, "not that of the source once more"
    for name in ("export", "grown.safetensors", "*.pt"):
        assert not list(tmp_path.rglob(name))


def test_sources_keep_their_plateau_and_optimizer_where_a_way_needs_them(tmp_path: Path) -> None:
    bench = Bench(toys(tmp_path), tmp_path / "runs")
    ways = {"grower": {"type": "lossless"}, "trunk": True, "grown": {"optimizer_state": True}}
    source = bench.source(0, 8, 1e-2, 1, ways)
    bench.run([source])
    grown = bench.grown(1, source, 4, 1e-2, 1, ways)
    bench.run([grown], diverging=False)
    manifest = json.loads((grown.stages[-1] / "manifest.json").read_text())
    assert "plateau" in json.dumps(manifest["growth"]["grown_from"])
    plain = bench.alone(0, 8, 1e-2, 1)
    bench.run([plain])
    assert bench.value_of(plain) == bench.value_of(source), "delivered as if it were none"
    assert plain.flops == source.flops


def test_a_chain_may_never_decay_though_its_members_alone_do(tmp_path: Path) -> None:
    """From plateau to plateau, with what optimizers remember, over several runs of one stage."""
    warm_up = dict(type="LinearLR", start_factor=1e-3, begin=0.0, end=0.2)
    in_chain = dict(
        trunk=True,
        average=dict(type="ema", half_life=0.1),
        param_scheduler=[warm_up],
        grown=dict(warmup=0.0, optimizer_state=True),
    )
    members = [*FAMILY["family"], dict(name="c", model=dict(width=32, depth=2), lr=1e-2)]
    bench = Bench(toys(tmp_path, family=members, in_chain=in_chain), tmp_path)
    first = bench.source(0, 8, 1e-2, 1)
    second = bench.grown(1, first, 8, 1e-2, 1)
    third = bench.grown(2, second, 4, 1e-2, 1)
    alone = bench.alone(0, 8, 1e-2, 1)
    bench.run([third, alone])
    schedules = [len(job.config["param_scheduler"]) for job in (first, second, third, alone)]
    assert schedules == [1, 1, 1, 2] and first.folder != alone.folder
    for job in (second, third):
        manifest = json.loads((job.stages[-1] / MANIFEST).read_text())
        assert manifest["delivered"] == "average" and manifest["plateau_iter"] == manifest["iters"]
        assert (job.stages[-1] / "grown_optimizer.safetensors").is_file(), "carried over"


def test_a_hop_may_grow_from_the_plateau_or_the_end_of_one_source(tmp_path: Path) -> None:
    """Sources keep their plateau for any choice, and deliver what they would without."""
    plateau = dict(
        trunk=True,
        grown=dict(
            decay=False, average=dict(type="ema", half_life=0.1), warmup=0.0, optimizer_state=True
        ),
    )
    members = [*FAMILY["family"], dict(name="c", model=dict(width=32, depth=2), lr=1e-2)]
    bench = Bench(toys(tmp_path, family=members, choices=[dict(trunk=False), plateau]), tmp_path)
    from_end, from_plateau = bench.family.hop_ways
    first = bench.source(0, 8, 1e-2, 1)
    second = bench.grown(1, first, 8, 1e-2, 1, from_end)
    thirds = [bench.grown(2, second, 4, 1e-2, 1, way) for way in (from_end, from_plateau)]
    bench.run([*thirds, bench.grown(1, first, 8, 1e-2, 1, from_plateau)], diverging=False)
    told = []
    for job in (second, *thirds):
        manifest = json.loads((job.stages[-1] / MANIFEST).read_text())
        is_from_plateau = "plateau" in manifest["growth"].get("grown_from", "")
        told.append((is_from_plateau, manifest["delivered"]))
    assert told == [(False, "last"), (False, "last"), (True, "average")]
    alone = bench.alone(0, 8, 1e-2, 1)
    bench.run([alone])
    assert bench.value_of(alone) == bench.value_of(first)
    plain = Bench(toys(tmp_path, family=members, name="plain"), tmp_path)
    grown = plain.grown(1, plain.source(0, 8, 1e-2, 1), 8, 1e-2, 1)
    plain.run([grown])
    assert plain.value_of(grown) == bench.value_of(second), "as if there were no other choice"


def test_a_run_that_diverges_is_the_worst_and_not_tried_again(tmp_path: Path) -> None:
    bench = Bench(toys(tmp_path), tmp_path / "runs")
    job = bench.alone(0, 8, 1e15, 1)
    bench.run([job])
    assert job.diverged and bench.quality_of(job) == -math.inf and job.flops == 0
    assert math.isnan(bench.value_of(job))
    noted = (job.folder / "diverged.txt").stat().st_mtime_ns
    bench.run([job])
    assert (job.folder / "diverged.txt").stat().st_mtime_ns == noted
    with pytest.raises(DivergedError):
        bench.run([job], diverging=False)


def test_an_unknown_metric_lists_those_there_are(tmp_path: Path) -> None:
    """Once the first member is measured."""
    bench = Bench(toys(tmp_path, metric="val/losss"), tmp_path / "runs")
    with pytest.raises(ConfigError, match=r"One of: .*val/accuracy"):
        bench.run([bench.alone(0, 4, 1e-2, 1)])


def test_runs_of_another_family_are_not_read(tmp_path: Path) -> None:
    """Other data would be reported as measured; more members and other ways to grow may share."""
    Bench(toys(tmp_path), tmp_path).run([])
    Bench(toys(tmp_path, {"transfer.type": "logit_kl", "trunk": True}), tmp_path).run([])
    family = toys(tmp_path)
    third = {**family.members[0], "name": "third"}
    Bench(replace(family, members=(*family.members, third)), tmp_path).run([])
    Bench(toys(tmp_path, {"presets.smoke.lengths": (16,)}), tmp_path).run([])
    Bench(toys(tmp_path, _own="a helper of the file"), tmp_path).run([])
    for options, text in (
        ({"paradigm.samples": 512}, "paradigm.samples: 256 -> 512"),
        ({"family.1.model.width": 32}, "members.b.width: 16 -> 32"),
    ):
        with pytest.raises(WorkDirError, match=text):
            Bench(toys(tmp_path, options), tmp_path).run([])


@pytest.mark.slow
def test_other_processes_measure_the_same_and_tell_errors_as_they_are(tmp_path: Path) -> None:
    """Two runs at a time give what one at a time gives."""
    bench = Bench(toys(tmp_path), tmp_path / "one")
    here = bench.alone(0, 4, 1e-2, 1)
    bench.run([here])
    bench = Bench(toys(tmp_path), tmp_path / "two", workers=2)
    there = bench.alone(0, 4, 1e-2, 1)
    broken = bench.alone(0, 4, 1e-2, 2)
    broken = replace(broken, config={**broken.config, "paradigm": {"type": "toyy"}})
    with pytest.raises(ConfigError, match="Did you mean 'toy'"):
        bench.run([there, broken])
    assert there.done and bench.quality_of(there) == bench.quality_of(here)


STARTER = """
import sys
from pathlib import Path

from measuring.family import read_family
from measuring.runs import Bench

if __name__ == "__main__":
    bench = Bench(read_family(sys.argv[1], "smoke", {}), Path(sys.argv[2]), workers=2)
    bench.run([bench.alone(0, 1_000_000, 1e-2, 1)])
"""


@pytest.mark.slow
def test_runs_stop_with_the_process_that_started_them(tmp_path: Path) -> None:
    """They save, and let go of their folders."""
    (tmp_path / "starter.py").write_text(STARTER)
    runs = tmp_path / "runs"
    command = [sys.executable, tmp_path / "starter.py", family_file(tmp_path), runs]
    path = {"PYTHONPATH": str(ROOT / "benchmarks")}
    bench = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, **path})
    until = time.monotonic() + 300
    try:
        while not (training := list(runs.rglob("scalars.json"))):
            assert bench.poll() is None and time.monotonic() < until
            time.sleep(0.2)
    finally:
        bench.kill()
    stage = training[0].parents[2]
    with FileLock(stage.parent / LOCK, timeout=60):
        assert list((stage / "checkpoints").glob("*.pt"))


class Careless(Job):
    """Takes whatever is raised for its own failure, as libraries do."""

    done = False

    def run(self) -> str:
        self.folder.mkdir()
        until = time.monotonic() + 1
        try:
            while time.monotonic() < until:
                pass
        except BaseException as error:
            raise SyntaxError from error
        return "ended"


def test_the_end_of_the_time_breaks_into_nothing(tmp_path: Path) -> None:
    """It stops what trains, as the system would; all else ends by itself, and nothing more is
    begun.
    """
    family = toys(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    bench = Bench(family, tmp_path, minutes=0.5 / 60)
    with pytest.raises(OutOfTime):
        bench.run([Careless(bench.root / "under_way", {}), Careless(bench.root / "next", {})])
    assert (bench.root / "under_way").is_dir() and not (bench.root / "next").exists()
    bench = Bench(family, tmp_path, minutes=5 / 60)
    trains = bench.alone(0, 1_000_000, 1e-2, 1)
    with pytest.raises(OutOfTime):
        bench.run([trains, Careless(bench.root / "next", {})])
    assert list(trains.stages[0].glob("checkpoints/*.pt")) and not (bench.root / "next").exists()
    assert signal.getsignal(signal.SIGTERM) is before
