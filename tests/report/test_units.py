"""What a metric says it counts decides how it is written."""

from __future__ import annotations

import pytest

from compt.interfaces import Metric
from compt.report.format import is_share, metric_text
from compt.report.metrics import MetricValue


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        (Metric(0.312, chance=0.011, unit="share"), "31.2 % (chance 1.1)"),
        (Metric(0.312, unit="share"), "31.2 %"),
        (Metric(0.312, chance=0.9, higher_is_better=False, unit="nats"), "0.312 (chance 0.9)"),
        (Metric(0.312, chance=0.9), "0.312 (chance 0.9)"),
        (Metric(12.0, unit="count"), "12"),
    ],
)
def test_the_unit_decides(metric, text):
    assert metric_text(MetricValue.from_json(metric.to_json())) == text


@pytest.mark.parametrize(
    ("content", "share"),
    [
        ({"value": 0.312, "chance": 0.011}, True),
        ({"value": 0.312, "chance": None}, False),
        ({"value": 3.2, "chance": 5.5}, False),
        ({"value": None, "chance": 0.5}, False),
        ({"value": 0.312, "chance": 0.011, "unit": ""}, False),
    ],
)
def test_records_without_a_unit_are_guessed_at(content, share):
    assert is_share(MetricValue.from_json(content)) is share


def test_a_metric_is_json():
    assert Metric(0.5, chance=0.1, unit="share").to_json() == dict(
        value=0.5, chance=0.1, higher_is_better=True, unit="share"
    )
