"""What a stage takes of the machine, across interruptions and returns to a checkpoint."""

from __future__ import annotations

import pytest

from compt.training import usage as module
from compt.training.meters import EnergyCounter, rapl_counters
from compt.training.usage import KEY, UsageHook


class Readings:
    """A meter that is read by the test."""

    def __init__(self, joules=0.0):
        self.joules = joules

    def __call__(self):
        return self.joules


@pytest.fixture
def meter(monkeypatch):
    """What the machine's only meter of energy shows."""
    readings = Readings(100.0)
    monkeypatch.setattr(module, "energy_counters", lambda: [EnergyCounter("rapl:host:0", readings)])
    return readings


def begun(checkpoint=None):
    """A hook as a stage calls it, anew or from a checkpoint."""
    hook = UsageHook()
    hook.before_train(None)
    if checkpoint is not None:
        hook.after_load_checkpoint(None, checkpoint)
    hook.before_train_epoch(None)
    return hook


def saved(hook):
    checkpoint = {}
    hook.before_save_checkpoint(None, checkpoint)
    return checkpoint


def test_a_resumed_stage_adds_to_what_it_took_before(meter):
    first = begun()
    meter.joules = 107.0
    first.before_val(None)
    first.after_val(None)
    checkpoint = saved(first)
    meter.joules = 200.0
    second = begun(checkpoint)
    meter.joules = 203.0
    result = second.result()
    assert (result.energy_joules, result.energy_meters) == (10.0, ("rapl",))
    assert result.evaluation_seconds == checkpoint[KEY]["evaluation_seconds"] > 0
    assert result.peak_memory_bytes > 10 * 2**20


def test_a_stage_that_goes_back_has_taken_what_it_took(meter):
    hook = begun()
    checkpoint = saved(hook)
    meter.joules = 150.0
    hook.after_load_checkpoint(None, checkpoint)
    assert hook.result().energy_joules == 50


def test_what_was_not_measured_before_is_not_known_after(meter, monkeypatch):
    assert begun({}).result().energy_joules is None, "a checkpoint of an older version"
    checkpoint = saved(begun())
    monkeypatch.setattr(module, "energy_counters", list)
    result = begun(checkpoint).result()
    assert (result.energy_joules, result.energy_meters) == (None, ()), "another machine"


def test_processors_are_counted_beyond_the_end_of_their_counters(tmp_path):
    for zone, name in {"intel-rapl:0": "package-0", "intel-rapl:0:0": "core"}.items():
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "name").write_text(name)
        (tmp_path / zone / "energy_uj").write_text("900000000\n")
        (tmp_path / zone / "max_energy_range_uj").write_text("1000000000\n")
    (tmp_path / "intel-rapl:1").mkdir()  # whose counter may not be read
    (counter,) = rapl_counters(tmp_path)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("50000000\n")
    assert counter.joules() == 150
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("60000000\n")
    assert counter.joules() == 160
