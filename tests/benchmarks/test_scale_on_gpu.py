"""What is measured on a GPU runs on whatever device there is, in small."""

from __future__ import annotations

import pytest
import scale_on_gpu
import torch

TINY = dict(width=64, layers=2, context=32)
SIZES = scale_on_gpu.Sizes(small=TINY, large=dict(TINY, batch=2), planned=(dict(TINY, batch=2),))


@pytest.mark.slow
def test_all_is_measured_and_alike():
    rows = [row for measurement in scale_on_gpu.measurements(SIZES) for row in measurement()]
    judged = {row.what: row.is_met for row in rows if row.is_met is not None}
    assert len(judged) >= 5 and all(judged.values())
    assert {row.what for row in rows} >= {"a step in one process, fsdp", "its gradients"}


def test_a_difference_is_missed(monkeypatch):
    losses = iter(([1.0, 2.0], [1.0, 2.1]))
    monkeypatch.setattr(scale_on_gpu, "_losses", lambda *_: next(losses))
    monkeypatch.setattr(scale_on_gpu.parallel_cost, "stage", lambda **_: None)
    (row,) = scale_on_gpu.as_on_cpu(TINY)
    assert row.value == pytest.approx(0.05) and row.is_met is False


def test_without_a_gpu_it_says_so(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert scale_on_gpu.main() == 0
    assert "there is none: nothing was measured" in capsys.readouterr().out
