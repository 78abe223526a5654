"""What a stage takes of the machine, across interruptions and returns to a checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import AmpOptimWrapper

from compt.training import meters, usage as module
from compt.training.meters import EnergyCounter, rapl_counters
from compt.training.performance import number_format
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


def begun(checkpoint=None, precision="fp32"):
    """A hook as a stage calls it, anew or from a checkpoint."""
    hook = UsageHook()
    stage = SimpleNamespace(performance=SimpleNamespace(precision=precision))
    loop = SimpleNamespace(data_seconds=0.25, checkpoint_seconds=0.5, stage=stage)
    hook.before_train(SimpleNamespace(train_loop=loop, optim_wrapper=None))
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
    assert (result.data_seconds, result.checkpoint_seconds) == (0.5, 1.0)
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


def test_processes_and_number_format_are_known_where_they_stayed(meter, monkeypatch):
    checkpoint = saved(begun())
    for again in (begun(), begun(checkpoint)):
        assert (again.result().processes, again.result().precision) == (1, "fp32")
    assert begun(checkpoint, precision="bf16").result().precision is None
    monkeypatch.setattr(module, "get_world_size", lambda: 2)
    monkeypatch.setattr(module, "all_gather_object", lambda own: [own])
    assert begun().result().processes == 2
    assert begun(checkpoint).result().processes is None
    assert begun({}).result().processes is None, "a checkpoint of an older version"


def test_a_number_format_is_that_of_autocast_or_what_a_gpu_rounds_to(monkeypatch):
    def autocast(dtype):
        wrapper = AmpOptimWrapper.__new__(AmpOptimWrapper)  # which asks for a GPU
        wrapper.cast_dtype = dtype
        return wrapper

    assert number_format("bf16", None) == "bf16"
    assert number_format("fp32", autocast(torch.float16)) == "fp16"
    assert number_format("fp32", autocast(torch.bfloat16)) == "bf16"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert number_format("fp32", None) == "fp32"
    torch.set_float32_matmul_precision("high")
    try:
        assert number_format("fp32", None) == "tf32"
        assert number_format("bf16", None) == "bf16"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_processes_of_a_machine_count_its_processors_once(meter, monkeypatch):
    def gathered(own):
        return [own, {"rapl:host:0": 7.5, "nvml:GPU-1": 30.0}, {"nvml:GPU-2": 20.0}]

    monkeypatch.setattr(module, "get_world_size", lambda: 3)
    monkeypatch.setattr(module, "all_gather_object", gathered)
    hook = begun()
    meter.joules = 107.0
    result = hook.result()
    assert (result.energy_joules, result.energy_meters) == (57.5, ("nvml", "rapl"))
    resumed = begun(saved(hook))
    assert resumed.result().energy_joules is None, "a checkpoint has one process's share"


def test_a_gpu_is_counted_by_its_own_meter(monkeypatch):
    readings = {"GPU-ab": 5_000}
    fake = SimpleNamespace(
        NVMLError=KeyError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: readings[uuid] and uuid,
        nvmlDeviceGetTotalEnergyConsumption=lambda device: readings[device],
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(meters, "RAPL", Path("/none"))
    assert meters.energy_counters() == [], "torch has no GPU"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for uuid, names in (("ab", ["nvml:GPU-ab"]), ("cd", [])):
        device = SimpleNamespace(uuid=uuid)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device=device: device)
        counters = meters.energy_counters()
        assert [counter.name for counter in counters] == names
        readings["GPU-ab"] += 2_500
        assert [counter.joules() for counter in counters] == [2.5] * len(names)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert meters.energy_counters() == [], "its library is not installed"


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
