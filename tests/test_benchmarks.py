"""The benchmarks: the whole of a toy family, interrupted and resumed; what counts as reached,
charged and missed.
"""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from filelock import FileLock

from compt.errors import ConfigError, WorkDirError
from compt.files import LOCK
from compt.report.build import report
from compt.report.prediction import RESTART
from compt.report.results import MemberResult
from tests.conftest import config_file
from tests.environments import ROOT
from tests.processes import this_python
from tests.report.records import stage_record

BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import on_gpu
from measuring.baseline import sweep
from measuring.budgets import Budgets, rank
from measuring.family import Plan, Recipe, read_plan
from measuring.outcome import Choice, outcome
from measuring.runs import Bench, Job, OutOfTime
from measuring.show import put_between, spread, write

FAMILY: dict[str, Any] = dict(
    custom_imports=dict(imports=["compt.testing.toy"]),
    paradigm=dict(type="toy", samples=256),
    family=[
        dict(name="a", model=dict(width=8, depth=1), lr=1e-2),
        dict(name="b", model=dict(width=16, depth=2), lr=1e-2),
        dict(name="c", model=dict(width=24, depth=3), lr=1e-2),
    ],
    floor="a tenth is right by chance",
    grower=dict(type="lossless"),
    transfer=dict(type="none"),
    grown=dict(lr_mult=0.5),
    train_dataloader=dict(batch_size=32),
    optim_wrapper=dict(optimizer=dict(type="AdamW")),
    study=[
        dict(grower=dict(type="scratch")),
        dict(grower=dict(type="lossless"), grown=dict(optimizer_state=True), fractions=(0.25,)),
    ],
    presets=dict(
        smoke=dict(
            iters=16,
            seeds=2,
            fractions=(0.25, 0.5, 1.0),
            longest=2.0,
            lr_mults=(1.0, 0.5),
            rates=3,
            evaluations=2,
        ),
        gpu=dict(iters=16, seeds=1, fractions=(0.5,), rates=1),
    ),
)


def run(script: str, *arguments: str | Path, code: int = 0) -> str:
    """Run a benchmark as a user would, on one thread."""
    done = this_python().run(BENCHMARKS / script, *arguments, cwd=ROOT)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def measured(
    tmp_path: Path, script: str = "acceleration.py", *more: str, **changes: Any
) -> tuple[dict[str, Any], str]:
    """The result of the toy family, and what was printed."""
    family, result = (
        config_file(tmp_path, {**FAMILY, **changes}, "toys.py"),
        tmp_path / f"{Path(script).stem}.json",
    )
    printed = run(
        script, family, "--work-dir", tmp_path / "runs", "--workers", "1", "--json", result, *more
    )
    return json.loads(result.read_text()) if result.is_file() else {}, printed


def test_a_family_of_ones_own_by_config_alone(tmp_path: Path) -> None:
    """Every run is charged, budgets are chosen on other seeds than are reported, and a rerun trains
    nothing.
    """
    stopped, printed = measured(tmp_path, "acceleration.py", "--minutes", "0.001")
    assert not stopped and "the same command goes on" in printed
    found, printed = measured(tmp_path)
    assert str(tmp_path / "runs") not in found["command"] and "--workers" not in found["command"]
    assert f"{tmp_path / 'toys.py'} --json" in found["command"], "what anyone can repeat"
    assert found["seeds"] == [1, 2] and [row["name"] for row in found["members"]] == ["a", "b", "c"]
    for row, curves in zip(
        found["members"], zip(*found["curves"]["alone"], strict=True), strict=True
    ):
        assert all(curve[-1][0] == pytest.approx(row["alone_flops"]) for curve in curves)
    chain = found["curves"]["chain"][0]
    assert chain[-1][-1][0] == pytest.approx(found["flops"]["chain"]), (
        "the last member is charged with all before it"
    )
    ratio = sum(r["alone_flops"] for r in found["members"]) / sum(
        r["chain_flops"] for r in found["members"]
    )
    assert found["acceleration_if_none_were_missed"] == pytest.approx(ratio)
    assert (found["acceleration"] is None) == bool(found["missed"])
    for rates in found["sweeps"].values():
        low, *inside, high = (rates[rate] for rate in sorted(rates, key=float))
        assert max(inside) >= max(low, high), "the best rate is inside the sweep"
    assert found["floor"] in printed and (tmp_path / "acceleration.svg").is_file()
    manifests = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("manifest.json")
    }
    seeds = {
        part
        for path in manifests
        for part in path.parts
        if part.startswith("seed_") and "hop" in path.parts
    }
    assert seeds == {"seed_0", "seed_3"}, "budgets are chosen on seeds that are not reported"
    tried = found["searches"]
    assert (
        tried[0]["longer"] == [1, 1, 1]
        and tried[1]["longer"] == [1.5, 1, 1]
        and tried[1]["fractions"][0] == 1.5
    )
    assert all(search["longer"][2] == 1 for search in tried), "nothing grows from the last"
    whole = [search for search in tried if search["acceleration"] is not None]
    cheapest = min(whole, key=lambda search: (search["missed"], -search["acceleration"]))
    assert [row["fraction"] for row in found["members"]] == cheapest["fractions"], (
        "the cheapest chain is trained"
    )
    for search in whole:
        for fraction, gains, longer in zip(
            search["fractions"][1:], search["gains"].values(), search["longer"][1:], strict=True
        ):
            enough = [float(name) for name, gain in gains.items() if gain >= 0]
            assert fraction == longer * (min(enough) if enough else 1.0), (
                "the smallest that suffices"
            )
    assert {mult for search in tried for mult in search["lr_mults"][1:]} == {1.0, 0.5}, (
        "halved, or not"
    )
    (halved, *_), (chain, *_) = (
        [
            json.loads(path.read_text())["config"]["chain"]
            for path in (tmp_path / "runs").rglob(f"{pattern}/chain.json")
        ]
        for pattern in ("hop/b/*_lr_x0.5_*/*", "chain/*/*")
    )
    assert halved[1]["optim_wrapper"]["optimizer"]["lr"] == pytest.approx(
        found["members"][1]["lr"] / 2
    )
    for row, stage in zip(found["members"], chain, strict=True):
        assert stage["optim_wrapper"]["optimizer"]["lr"] == pytest.approx(
            row["lr"] * row["lr_mult"]
        )
        assert stage["iters"] == round(16 * row["fraction"])
    states = [
        path.parent
        for kind in ("hop", "longer")
        for path in (tmp_path / "runs").rglob(f"{kind}/*/*/*/chain.json")
    ]
    charged = sum(one.runs[0].members[-1].flops for one in (report([folder]) for folder in states))
    fourth = [
        report([path.parent]).runs[0].flops
        for path in (tmp_path / "runs").rglob("alone/*/*/seed_3/chain.json")
    ]
    assert found["spent_on_choosing"]["search"] == pytest.approx(charged + sum(fourth)), (
        "every run once"
    )
    kept = [path.parent for path in (tmp_path / "runs").rglob("weights.safetensors")]
    assert kept and not any(
        (stage / left).exists() for stage in kept for left in ("export", "grown.safetensors")
    )
    assert all(json.loads((stage / "manifest.json").read_text())["iters"] for stage in kept), (
        "what was trained, only"
    )
    again, _ = measured(tmp_path)
    assert again["members"] == found["members"]
    known = [
        {"fractions": [1, 1], "lr_mults": [1, 1]},
        {key: cheapest[key] for key in ("fractions", "lr_mults")},
    ]
    presets = {"smoke": {**FAMILY["presets"]["smoke"], "chains": known}}
    given, printed = measured(tmp_path, presets=presets)
    assert (
        given["members"] == found["members"]
        and not given["searches"]
        and "the preset has the chain" in printed
    )
    assert given["spent_on_choosing"]["search"] == 0
    document, plot = tmp_path / "x.md", tmp_path / "x.svg"
    document.write_text("<!-- acceleration -->\n<!-- end -->\n")
    merged = run("merge.py", tmp_path / "acceleration.json", "--plot", plot, "--write", document)
    assert "| toys, " in merged and merged.strip() in document.read_text() and plot.is_file()
    assert (
        measured(tmp_path, "acceleration.py", "--search", presets=presets)[0]["searches"]
        == found["searches"]
    )
    assert manifests == {
        path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("manifest.json")
    }


def test_the_study_shares_the_baseline_and_writes_its_tables(tmp_path: Path) -> None:
    """Every way at its fractions, the source's optimizer state only from a source that was trained
    for it.
    """
    found, printed = measured(tmp_path, "study.py")
    scratch, carried = found["cells"]
    states = [
        json.loads(path.read_text())
        for path in (tmp_path / "runs").glob("*/study/*/*/*/chain.json")
    ]
    assert {tuple(state["config"]["grown"]) for state in states} == {(), ("optimizer_state",)}, (
        "not the family's rule"
    )
    assert [point["fraction"] for point in scratch["points"]] == [0.125, 0.25, 0.5]
    assert [point["fraction"] for point in carried["points"]] == [0.25]
    assert [point["flops"] for point in scratch["points"]] == pytest.approx([0.125, 0.25, 0.5]), (
        "no teacher, no extra"
    )
    assert "| scratch | none | as alone |" in printed and "optimizer_state=True" in printed
    document = tmp_path / "study.md"
    document.write_text(f"before\n<!-- {found['name']} -->\nold\n<!-- end -->\nafter\n")
    run("study.py", "--write", document, tmp_path / "study.json")
    text = document.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| scratch | none | as alone |" in text
    document.write_text("no place")
    assert "Add <!--" in run("study.py", "--write", document, tmp_path / "study.json", code=2)


def test_several_processes_measure_the_same(tmp_path: Path) -> None:
    """Two runs at a time give what one at a time gives, and an error in one of them is told as it
    is.
    """
    plan = read_plan(str(config_file(tmp_path, FAMILY, "toys.py")), 3, "smoke", {})
    one, two = Bench(plan, tmp_path / "one"), Bench(plan, tmp_path / "two", workers=2)
    assert sweep(one, (0,)) == sweep(two, (0,))
    broken = dataclasses.replace(plan, base={**plan.base, "grower": {"type": "losless"}})
    bench = Bench(broken, tmp_path / "broken", workers=2)
    stages = [plan.member(0, 1e-2, 4), plan.member(1, 1e-2, 4)]
    with pytest.raises(ConfigError, match="lossless"):
        bench.run([bench.chain(Path(str(seed)), stages, seed) for seed in (0, 1)])


def test_runs_of_another_plan_are_not_read(tmp_path: Path) -> None:
    """Another budget or other data would be reported as measured; more members and another way to
    grow may share.
    """
    family = str(config_file(tmp_path, FAMILY, "toys.py"))
    Bench(read_plan(family, 3, "smoke", {}), tmp_path).run([])
    Bench(read_plan(family, 3, "smoke", {"transfer.type": "logit_kl"}), tmp_path).run([])
    one = read_plan(family, 3, "smoke", {})
    Bench(dataclasses.replace(one, members=({**one.members[0], "name": "d"},)), tmp_path).run([])
    for options, text in (
        ({"presets.smoke.iters": 8}, "iters: 16 -> 8"),
        ({"paradigm.samples": 512}, "paradigm.samples: 256 -> 512"),
        ({"family.2.model.width": 32}, "members.c.width: 24 -> 32"),
    ):
        with pytest.raises(WorkDirError, match=text):
            Bench(read_plan(family, 3, "smoke", options), tmp_path).run([])


def test_runs_stop_with_the_process_that_started_them(tmp_path: Path) -> None:
    """They save, and let go of their folders."""
    family, runs = config_file(tmp_path, FAMILY, "toys.py"), tmp_path / "runs"
    options = [
        "--workers",
        "2",
        "--work-dir",
        str(runs),
        "--cfg-options",
        "presets.smoke.iters=1000000",
    ]
    command = [sys.executable, str(BENCHMARKS / "acceleration.py"), str(family), *options]
    bench = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 300
    try:
        while len(training := list(runs.rglob("scalars.json"))) < 2:
            assert bench.poll() is None and time.monotonic() < until
            time.sleep(0.2)
    finally:
        bench.kill()
    for stage in (path.parents[2] for path in training):
        with FileLock(stage.parent / LOCK, timeout=60):
            assert list((stage / "checkpoints").glob("*.pt")), stage


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
    plan = read_plan(str(config_file(tmp_path, FAMILY, "toys.py")), 3, "smoke", {})
    before = signal.getsignal(signal.SIGTERM)
    bench = Bench(plan, tmp_path, minutes=0.5 / 60)
    with pytest.raises(OutOfTime):
        bench.run([Careless(bench.root / "under_way", {}), Careless(bench.root / "next", {})])
    assert (bench.root / "under_way").is_dir() and not (bench.root / "next").exists()
    bench = Bench(plan, tmp_path, minutes=5 / 60)
    trains = bench.chain(Path("long"), [plan.member(0, 1e-2, 1_000_000)], 0)
    with pytest.raises(OutOfTime):
        bench.run([trains, Careless(bench.root / "next", {})])
    assert list(trains.stages[0].glob("checkpoints/*.pt")) and not (bench.root / "next").exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_rate_that_diverges_is_the_worst(tmp_path: Path) -> None:
    """A sweep goes on past it."""
    options = {"family.0.lr": 1e15, "presets.smoke.rates": 1}
    plan = read_plan(str(config_file(tmp_path, FAMILY, "toys.py")), 3, "smoke", options)
    bench = Bench(plan, tmp_path / "runs")
    assert sweep(bench, (0,)) == [{1e15: float("-inf")}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paradigm": None}, "lacks paradigm"),
        ({"family": FAMILY["family"][:2]}, "has 2 members"),
        ({"presets": {"smoke": {"iters": 3}}}, "lacks seeds, fractions, rates"),
        ({"presets": {"cpu": {}}}, "no preset 'smoke'"),
        (
            {
                "presets": {
                    "smoke": {**FAMILY["presets"]["smoke"], "chains": [{"fractions": [1, 1]}]}
                }
            },
            "as many `lr_mults`",
        ),
    ],
)
def test_a_family_that_cannot_be_used_is_named(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    """Before anything is trained."""
    with pytest.raises(ConfigError, match=message):
        read_plan(str(config_file(tmp_path, {**FAMILY, **change}, "toys.py")), 3, "smoke", {})


def test_an_unknown_metric_lists_those_there_are(tmp_path: Path) -> None:
    """Once the first member is measured."""
    family = config_file(tmp_path, {**FAMILY, "metric": "val/losss"}, "toys.py")
    assert "val/accuracy" in run(
        "acceleration.py", family, "--work-dir", tmp_path / "runs", "--workers", "1", code=2
    )


def test_pieces_on_a_gpu_go_on_until_all_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On whatever device there is: no piece here needs more than the toy family."""
    assert "nothing was measured" in run("on_gpu.py") or torch.cuda.is_available()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        on_gpu, "torch", SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True))
    )
    monkeypatch.setattr(on_gpu, "FAMILIES", (str(config_file(tmp_path, FAMILY, "toys.py")),))
    monkeypatch.setattr(on_gpu, "MINUTES", 0.001)
    assert on_gpu.main() == 0 and "not finished, run it again" in capsys.readouterr().out
    monkeypatch.setattr(on_gpu, "MINUTES", 8.0)
    assert on_gpu.main() == 0 and "all is there" in (printed := capsys.readouterr().out)
    assert "| toys, " in printed and (on_gpu.WORK_DIR / "acceleration-toys-gpu-3.json").is_file()


@pytest.mark.parametrize("script", ["acceleration.py", "study.py"])
def test_the_gpu_preset_says_that_there_is_no_gpu(tmp_path: Path, script: str) -> None:
    """And is no failure."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert "nothing was measured" in measured(tmp_path, script, "--preset", "gpu")[1]


@pytest.mark.parametrize("paradigm", ["causal_lm", "clip", "mae"])
@pytest.mark.parametrize("preset", ["smoke", "cpu", "gpu"])
def test_the_families_can_be_planned(paradigm: str, preset: str) -> None:
    """Seven members in ascending size, each 1.1 to 3 times the one before; the smaller families
    take from them.
    """
    import compt

    plan = read_plan(paradigm, 7, preset, {})
    chain = [plan.member(i, member["lr"], plan.iters) for i, member in enumerate(plan.members)]
    stages = compt.plan({**plan.base, "chain": chain}).stages
    growth = [after.student_flops / before.student_flops for before, after in pairwise(stages)]
    assert all(1.1 < factor < 3 for factor in growth)
    assert read_plan(paradigm, 3, preset, {}).members == tuple(plan.members[i] for i in (0, 3, 6))
    assert read_plan(paradigm, 4, preset, {"name": "other"}).name == f"other-{preset}"


def member(name: str, value: float, flops: float, before: float = 0.0) -> MemberResult:
    """A member that falls from 4 through 2 * value at half its budget to a loss."""
    points = [
        (i, share * flops, share, loss)
        for i, share, loss in ((1, 0.25, 4.0), (2, 0.5, 2 * value), (4, 1.0, value))
    ]
    record = stage_record(name, points, flops=flops, params=int(flops), seconds=flops)
    return MemberResult(record, before)


def plan_of(*names: str, **changes: Any) -> Plan:
    """A plan of which nothing is trained."""
    keys: dict[str, Any] = dict(
        iters=4,
        seeds=2,
        fractions=(0.2,),
        rates=3,
        longest=1.0,
        metric=None,
        floor="",
        lr_mults=(1.0,),
        recipe=None,
        study=(),
    )
    return Plan("x", tuple({"name": name} for name in names), {}, **{**keys, **changes})


@dataclass(frozen=True)
class ScriptedJob:
    """Nothing is trained; how much longer the smallest was stands for the folder that others start
    from.
    """

    longer: float
    report: MemberResult

    @property
    def stages(self) -> list[float]:
        return [self.longer]


class Scripted(Budgets):
    """Members that cost 1, 4 and 16 alone; the gain of a grown one is its fraction, less what it
    needs.
    """

    needs = {("b", 1.0): 0.5, ("b", 1.5): 0.25, ("c", 1.0): 0.5, ("c", 1.5): 1.0}
    """By member, and how much longer than alone the smallest was trained."""

    def __init__(self) -> None:
        plan = plan_of("a", "b", "c", fractions=(0.25, 0.375, 0.5, 0.75, 1.0), longest=1.5)
        bench = SimpleNamespace(plan=plan, quality=Bench(plan, Path()).quality, say=print)
        super().__init__(
            bench, [1.0] * 3, [[member(n, 1.0, f) for n, f in zip("abc", (1, 4, 16), strict=True)]]
        )

    def _goals(self) -> list[list[float]]:
        return [[-1.0, -1.0]] * 3

    def _first(self, longer: float, seed: int) -> Any:
        return ScriptedJob(longer, member("a", 1.0, longer))

    def _grown(self, hop: Any, fraction: float, mult: float) -> Any:
        name, cost = "abc"[hop.index], 4.0**hop.index
        return [
            ScriptedJob(
                longer, member(name, 1 - (fraction - self.needs[name, longer]), fraction * cost)
            )
            for longer in hop.folders
        ]

    def _trained(self, jobs: Any) -> list[MemberResult]:
        return [job.report for job in jobs]


def test_a_chain_that_cannot_become_cheaper_is_given_up() -> None:
    """By hand: 1 + 2 + 8; with the smallest longer 1.5 + 1 + 16, of which only what is below 11 is
    tried.
    """
    first, longer, *_ = Scripted().search()
    assert first.fractions == (1.0, 0.5, 0.5) and first.flops == pytest.approx(11)
    assert longer.fractions == (1.5, 0.25) and longer.flops == math.inf and longer.missed
    assert set(longer.gains[1]) <= {0.25, 0.375, 0.5} and longer.gains[1][0.5] == pytest.approx(
        -0.5
    )
    assert rank(first) < rank(longer)


def test_one_missed_member_takes_the_familys_ratio_away() -> None:
    """By hand: 10 + 30 alone, 10 + 6 in the chain; the second is worse, with and without noise that
    covers it.
    """
    bench = Bench(plan_of("s", "l"), Path("nowhere"))
    choice = Choice([{}, {}], [1.0, 1.0], Recipe((1.0, 0.2), (1.0, 0.5)), [], 0.0, 0.0)
    alone = [[member("s", 1.5, 10), member("l", value, 30)] for value in (0.9, 1.1)]

    def chains(*values: float) -> list[list[MemberResult]]:
        return [[member("s", 1.5, 10), member("l", value, 6, 10)] for value in values]

    missed = outcome(bench, choice, chains(1.0, 1.2), alone)
    assert missed["missed"] == ["l"] and missed["acceleration"] is None
    assert missed["acceleration_of_the_largest"] is None and missed["members"][1][
        "gain"
    ] == pytest.approx(-0.1)
    assert missed["acceleration_if_none_were_missed"] == pytest.approx(40 / 16)
    noisy = outcome(bench, choice, chains(1.3, 0.9), alone)  # gains -0.4 and 0.2: error 0.3
    assert noisy["missed"] and noisy["members"][1]["standard_error"] == pytest.approx(0.3), (
        "too far from 1.5 - 1.0"
    )
    assert not outcome(bench, choice, chains(1.3, 0.78), alone)["missed"], (
        "0.04 is within a tenth of it, and in the noise"
    )
    assert outcome(bench, choice, chains(0.94, 1.14), alone)["missed"], (
        "and without noise it is not"
    )
    overtrained = [[member("s", 0.8, 20), member("l", value, 6, 20)] for value in (0.85, 0.95)]
    worse = outcome(bench, choice, overtrained, alone)
    assert worse["members"][1]["gain"] > 0 and worse["missed"] == ["l"], (
        "better than alone, and worse than its source"
    )
    reached = outcome(bench, choice, chains(0.9, 0.9), alone)
    assert reached["acceleration"] == pytest.approx(40 / 16)
    assert reached["acceleration_of_the_largest"] == pytest.approx(30 / 16)
    assert reached["members"][1]["reached_flops"] == pytest.approx(10 + 6)
    assert reached["members"][1]["reached_seconds"] == pytest.approx(10 + 1), (
        "a second an evaluation, in this toy"
    )
    assert reached["members"][0]["reached_flops"] == pytest.approx(10)
    fractions = [1 - (2 + (1.8 - 1.5) / 0.9 * 2) / 4, 1 - (2 + (2.2 - 1.5) / 1.1 * 2) / 4]
    assert reached["members"][1]["predicted_fraction"] == pytest.approx(
        sum(fractions) / 2 + RESTART
    )


def test_text_is_put_between_its_own_markers(tmp_path: Path) -> None:
    """Backslashes and all; other parts stay."""
    document = tmp_path / "x.md"
    document.write_text("<!-- a -->\n1\n<!-- end -->\n<!-- b -->\n2\n<!-- end -->\n")
    put_between(document, "b", r"\1 new")
    assert (
        document.read_text()
        == "<!-- a -->\n1\n<!-- end -->\n<!-- b -->\n\n\\1 new\n\n<!-- end -->\n"
    )


def test_what_is_no_number_is_null_in_json(tmp_path: Path) -> None:
    """The deviation of one seed, and a rate that diverged; NaN is not JSON."""
    write({"a": [float("nan"), (1.5, float("-inf"))]}, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text(), parse_constant=pytest.fail) == {
        "a": [None, [1.5, None]]
    }
    assert [spread(2.0, d, "+.1f", "x") for d in (None, float("nan"), 0.25)] == [
        "+2.0x",
        "+2.0x",
        "+2.0x ± 0.2",
    ]
