"""The files of a run as records: what is written is read, whatever is damaged is named."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from compt.errors import WorkDirError
from compt.planning.plans import StagePlan
from compt.report.growth import GrowthRecord, GrowthReport, LearnedGrowth
from compt.report.metrics import CurvePoint, MetricValue
from compt.report.outcome import StageOutcome, Usage
from compt.report.record import Flops, StageRecord, WeightsFile
from compt.report.results import read_run, read_state
from compt.report.state import ChainState
from tests.report.records import stage_record

# As format 1 has them, key by key.

CHAIN = """{
 "format": 1,
 "mode": "chain",
 "members": ["a", "b"],
 "config": {"seed": 0, "chain": [{"name": "a", "iters": 4}, {"name": "b", "iters": 8}]}
}"""

GROWTH = """{
 "format": 1,
 "growth": {
  "grower": "lossless",
  "counts": {"copied": 1, "expanded": 1, "initialised": 0, "shared": 0},
  "params": {"head.weight": "expanded", "head.bias": "copied"},
  "dropped": ["scale"],
  "function_preserving": true,
  "reason": "",
  "error": 1.5e-07,
  "objective": {"calls": 5, "first_loss": 2.5, "last_loss": 2.0}
 },
 "seconds": 0.25
}"""

MANIFEST = """{
 "format": 1,
 "name": "b",
 "index": 1,
 "mode": "chain",
 "paradigm": "toy",
 "grower": "lossless",
 "transfer": "feature_mse",
 "params": 2554,
 "samples": 256,
 "iters": 8,
 "batch_size": 32,
 "flops": {
  "student_per_sample": 13760.0,
  "teacher_per_sample": 800.0,
  "growth": 100.0,
  "total": 3727460.0
 },
 "seconds": 0.5,
 "growth_seconds": 0.25,
 "broken_samples": 1,
 "stopped": "val/loss has reached 2.2",
 "metrics": {
  "val/accuracy": {"value": 0.2, "chance": 0.1, "higher_is_better": true},
  "val/loss": {"value": NaN, "chance": null, "higher_is_better": false}
 },
 "main_metric": "val/accuracy",
 "curve": [
  {
   "iter": 8, "seconds": 0.5, "samples": 256, "flops": 3727460.0,
   "metrics": {"val/accuracy": {"value": 0.2, "chance": 0.1, "higher_is_better": true}}
  },
  {
   "iter": 4, "seconds": 0.375, "samples": 128, "flops": 1863780.0,
   "metrics": {"val/accuracy": 0.1}
  }
 ],
 "growth": {"grower": "lossless", "function_preserving": false, "reason": "of its norms"},
 "weights": {"file": "weights.safetensors", "sha256": "a212"},
 "environment": {"python": "3.11.7", "torch": "2.14.1", "machine": "x86_64", "device": "cpu"}
}"""

RECORD = StageRecord(
    name="b",
    index=1,
    mode="chain",
    paradigm="toy",
    grower="lossless",
    transfer="feature_mse",
    params=2554,
    samples=256,
    iters=8,
    batch_size=32,
    flops=Flops(3727460.0, 13760.0, 800.0, 100.0),
    seconds=0.5,
    growth_seconds=0.25,
    broken_samples=1,
    stopped="val/loss has reached 2.2",
    metrics={"val/accuracy": MetricValue(0.2, 0.1), "val/loss": MetricValue(None, None, False)},
    main_metric="val/accuracy",
    curve=(
        CurvePoint(4, 128, 1863780.0, 0.375, {"val/accuracy": MetricValue(0.1)}),
        CurvePoint(8, 256, 3727460.0, 0.5, {"val/accuracy": MetricValue(0.2, 0.1)}),
    ),
    growth=GrowthReport("lossless", False, "of its norms"),
    weights=WeightsFile("weights.safetensors", "a212"),
    environment={"python": "3.11.7", "torch": "2.14.1", "machine": "x86_64", "device": "cpu"},
)

USAGE = Usage(
    evaluation_seconds=0.5,
    data_seconds=0.0625,
    checkpoint_seconds=0.125,
    peak_memory_bytes=2**30,
    peak_device_memory_bytes=2**20,
    energy_joules=12.5,
    energy_meters=("nvml", "rapl"),
    processes=2,
    precision="bf16",
)
MEASURED = replace(RECORD, **USAGE.usage)

GROWN = GrowthRecord(
    GrowthReport(
        grower="lossless",
        function_preserving=True,
        error=1.5e-07,
        counts={"copied": 1, "expanded": 1, "initialised": 0, "shared": 0},
        params={"head.weight": "expanded", "head.bias": "copied"},
        dropped=("scale",),
        objective=LearnedGrowth(5, 2.5, 2.0),
    ),
    seconds=0.25,
)

PLAN = StagePlan(
    name="b",
    index=1,
    params=50,
    grower="compt:lossless",
    transfer="other:kl",
    batch_size=4,
    iters=10,
    samples=40,
    teacher_iters=6,
    student_flops=100.0,
    teacher_flops=10.0,
    alone_samples=40,
    expansion=2.0,
    growth_iters=9,
)


@pytest.fixture
def folder(tmp_path):
    """A work folder of format 1, its second stage finished."""
    for path, text in {
        "chain.json": CHAIN,
        "01_a/manifest.json": MANIFEST.replace('"name": "b"', '"name": "a"'),
        "02_b/manifest.json": MANIFEST,
        "02_b/growth.json": GROWTH,
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def test_format_1_is_read(folder):
    assert StageRecord.read(folder / "02_b" / "manifest.json") == RECORD
    assert GrowthRecord.read(folder / "02_b" / "growth.json") == GROWN
    state = read_state(folder)
    assert (state.mode, state.members, state.config["seed"]) == ("chain", ("a", "b"), 0)
    run = read_run(folder, state, "chain")
    assert [member.record for member in run.members] == [replace(RECORD, name="a"), RECORD]


def test_a_record_of_before_what_is_optional_is_read(folder):
    path = folder / "02_b" / "manifest.json"
    content = json.loads(MANIFEST)
    for key in ("growth_seconds", "broken_samples", "stopped", "weights", "growth", "main_metric"):
        del content[key]
    del content["curve"], content["flops"]["growth"]
    path.write_text(json.dumps(content))
    record = StageRecord.read(path)
    assert (record.stopped, record.growth, record.weights) == ("", None, None)
    assert record.main_metric == "val/accuracy", "the first"
    (end,) = record.curve
    assert (end.iteration, end.flops, end.seconds) == (8, 3727460.0, 0.5)


@pytest.mark.parametrize(
    "record",
    [
        RECORD,
        MEASURED,
        GROWN,
        GrowthRecord(None, 0.5),
        ChainState("individual", ("a",), {"seed": 3}),
    ],
    ids=lambda record: type(record).__name__,
)
def test_what_is_written_is_read(record, tmp_path):
    record.write(tmp_path / "file.json")
    assert type(record).read(tmp_path / "file.json") == record
    assert "NaN" not in (tmp_path / "file.json").read_text(), "which is not JSON"


def test_the_keys_of_format_1_are_written(tmp_path):
    """An older compt reads them."""
    RECORD.write(tmp_path / "manifest.json")
    written, expected = (
        json.loads((tmp_path / "manifest.json").read_text()),
        json.loads(MANIFEST),
    )
    assert written.keys() >= expected.keys(), "what is new is optional"
    assert written["flops"] == expected["flops"]
    assert written["curve"][1] == expected["curve"][0]
    assert written["growth"].items() >= expected["growth"].items()
    assert written["metrics"]["val/loss"]["value"] is None
    GROWN.write(tmp_path / "growth.json")
    growth = json.loads((tmp_path / "growth.json").read_text())
    assert growth.items() >= json.loads(GROWTH).items()
    ChainState.read(_written(tmp_path / "old.json", CHAIN)).write(tmp_path / "chain.json")
    assert json.loads((tmp_path / "chain.json").read_text()).items() >= json.loads(CHAIN).items()


def _written(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "old", "new", "fault"),
    [
        ("02_b/manifest.json", '"params": 2554,', "", r"damaged: 'params' is missing\."),
        ("02_b/manifest.json", '"total"', '"totl"', r"damaged: .*totl"),
        ("02_b/manifest.json", '"seconds": 0.5', '"seconds": "long"', r"damaged: .*'long'"),
        ("02_b/manifest.json", '"samples": 128,', "", r"damaged: 'samples' is missing\."),
        ("02_b/manifest.json", '"weights"', '"energy_joules": "?", "weights"', r"damaged: .*'\?'"),
        ("02_b/manifest.json", '"weights"', '"processes": "many", "weights"', r"damaged: .*many"),
        ("02_b/manifest.json", "256", "[256]", r"damaged: .*list"),
        ("02_b/manifest.json", '"name": "b"', '"name": "c"', r"it is of member 'c', not 'b'\."),
        ("02_b/manifest.json", '"format": 1', '"format": 3', r"of format 3; this compt reads 1"),
        ("02_b/manifest.json", "{", "", r"Cannot read 'manifest\.json'"),
        ("chain.json", '"mode": "chain"', '"mode": "x"', r"it must have a mode and the names of"),
        ("chain.json", '["a", "b"]', "[1]", r"it must have a mode and the names of its members\."),
        ("chain.json", '"format": 1', '"format": 2', r"of format 2; this compt reads 1"),
    ],
)
def test_what_is_damaged_is_named(folder, name, old, new, fault):
    path = folder / name
    text = path.read_text()
    path.write_text(text.replace(old, new, 1))
    assert path.read_text() != text
    with pytest.raises(WorkDirError, match=fault) as caught:
        read_run(folder, read_state(folder), "chain")
    assert caught.value.where == str(path)
    assert caught.value.do.startswith("Restore the file from a copy")


@pytest.mark.parametrize(("old", "new"), [('"growth"', '"grwth"'), ("true", "[]"), ("{", "")])
def test_a_damaged_growth_record_is_named(folder, old, new):
    path = folder / "02_b" / "growth.json"
    path.write_text(GROWTH.replace(old, new, 1).replace('"function_preserving": [],', ""))
    with pytest.raises(WorkDirError, match=r"growth\.json") as caught:
        GrowthRecord.read(path)
    assert caught.value.where == str(path)


def test_a_stage_is_recorded_as_it_ran():
    """By hand: stopped after 8 of 10 iterations of 4 samples, 6 of them with the teacher, and the
    grower asked 5 times.
    """
    metrics = {
        "val/loss": {"value": float("inf"), "chance": None, "higher_is_better": False},
        "val/top1": {"value": 0.5, "chance": 0.1, "higher_is_better": True},
    }
    curve = [
        {"iter": 4, "seconds": 1.0, "metrics": metrics},
        {"iter": 8, "seconds": 2.0, "repeated": 3, "metrics": metrics},
    ]
    record = StageRecord.of_stage(
        PLAN,
        mode="chain",
        paradigm="compt:clip",
        outcome=StageOutcome(
            iters=8,
            seconds=2.0,
            curve=curve,
            stopped="enough",
            repeated=3,
            rollbacks=({"at": 5},),
            **USAGE.usage,
        ),
        growth=GROWN,
        weights=WeightsFile("w", "0"),
        files={},
    )
    assert (record.grower, record.transfer, record.paradigm) == ("lossless", "other:kl", "clip")
    assert (record.samples, record.iters, record.batch_size) == (32, 8, 4)
    growth = 5 * 4 * 100
    lost = 3 * 4 * 110
    assert record.flops == Flops(growth + 4 * (8 * 100 + 6 * 10) + lost, 100.0, 10.0, growth)
    assert [point.flops for point in record.curve] == [growth + 4 * 4 * 110, record.flops.total]
    assert (record.repeated, record.rollbacks) == (3, ({"at": 5},))
    assert [point.seconds for point in record.curve] == [1.25, 2.25]
    assert record.usage == USAGE.usage
    assert (record.seconds, record.growth_seconds) == (2.25, 0.25)
    assert record.main_metric == "val/loss"
    assert record.metrics["val/loss"] == MetricValue(None, None, False)
    assert record.main is None, "it is not finite"
    assert record.growth == GROWN.report


def test_speed_and_the_teachers_share_follow_from_what_is_recorded():
    """By hand: 8 iterations and 3 lost ones of 4 samples in 2 seconds, beside growth."""
    student, teacher = (8 + 3) * 4 * 100, 6 * 4 * 10
    ran = dict(iters=8, batch_size=4, repeated=3, seconds=2.25, growth_seconds=0.25)
    record = replace(RECORD, **ran, flops=Flops(student + teacher + 500, 100.0, 10.0, 500.0))
    assert record.samples_per_second == 22
    assert record.teacher_share == pytest.approx(teacher / (student + teacher + 500))
    assert replace(record, flops=Flops(student, 100.0)).teacher_share == 0
    assert replace(record, flops=Flops(5.0)).teacher_share is None, "an older version's"
    assert replace(record, iters=0, repeated=0).samples_per_second is None


@pytest.mark.parametrize(("higher", "values"), [(True, (0.5, 0.6, 0.4)), (False, (0.5, 0.4, 0.6))])
def test_a_goal_is_reached_by_what_is_as_good(higher, values):
    goal = MetricValue(0.5, None, higher)
    assert [goal.reached_by(value) for value in values] == [True, True, False]
    assert not goal.reached_by(None)


def test_a_curve_is_asked_for_any_metric():
    (point,) = stage_record("a", [(1, 2.0, 3.0, 4.0)]).curve
    assert (point.value("val/loss"), point.value("val/other")) == (4.0, None)
