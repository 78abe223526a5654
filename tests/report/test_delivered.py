"""What a record says of delivered weights, and of metrics whose better side is not known."""

from __future__ import annotations

from compt.report.format import incident_lines
from compt.report.metrics import MetricValue
from compt.report.record import StageRecord
from tests.report.records import stage_record

POINTS = [(8, 1.0, 1.0, 0.5)]


def test_an_average_is_said_and_the_last_weights_are_not():
    assert incident_lines(stage_record("a", POINTS)) == []
    (line,) = incident_lines(stage_record("a", POINTS, delivered="EMAHook"))
    assert line == "the weights that EMAHook measures are delivered, not the last"


def test_what_is_delivered_is_written_and_of_older_records_the_last(tmp_path):
    record = stage_record("a", POINTS, delivered="EMAHook")
    record.write(tmp_path / "manifest.json")
    assert StageRecord.read(tmp_path / "manifest.json").delivered == "EMAHook"
    content = record.to_json()
    del content["delivered"]
    assert StageRecord.from_json(content).delivered == "last"


def test_a_metric_without_a_known_side_is_never_reached():
    unknown = MetricValue.from_json(dict(value=0.5, higher_is_better=None))
    assert unknown.higher_is_better is None
    assert not unknown.reached_by(0.1)
    assert not unknown.reached_by(0.9)
    assert MetricValue.from_json(dict(value=0.5)).reached_by(0.9)
    assert MetricValue.from_json(dict(value=0.5, higher_is_better=False)).reached_by(0.1)


def test_the_main_metric_is_the_first_that_can_be_compared():
    content = stage_record("a", POINTS).to_json()
    del content["main_metric"]
    unknown = dict(value=0.5, chance=None, higher_is_better=None)
    content["metrics"] = {"val/unknown": unknown, "val/loss": dict(unknown, higher_is_better=False)}
    assert StageRecord.from_json(content).main_metric == "val/loss"
