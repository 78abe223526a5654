"""What a stage takes on a device: memory measured on the meta device, hours by data sheets."""

from __future__ import annotations

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

import compt
from compt.config import load_config
from compt.errors import ConfigError
from compt.planning.devices import DEVICES, device, hours
from compt.planning.memory import memory
from compt.testing.toy import INPUTS


def estimated(toy):
    config = load_config(toy)
    return memory(config, compt.plan(config))


def test_weights_gradients_and_optimizer_are_counted(toy):
    toy["optim_wrapper"] = dict(optimizer=dict(type="AdamW", lr=1e-3))
    params = [stage.params for stage in compt.plan(toy).stages]
    parts = estimated(toy)
    assert [part.weights for part in parts] == [4 * count for count in params]
    assert [part.gradients for part in parts] == [4 * count for count in params]
    assert [part.teacher for part in parts] == [0, 4 * params[0], 4 * params[1]]
    for part, count in zip(parts, params):
        assert 8 * count <= part.optimizer < 8 * count + 1000  # two numbers each, and steps
    toy["optim_wrapper"]["optimizer"] = dict(type="SGD", lr=1e-3)
    assert [part.optimizer for part in estimated(toy)] == [0, 0, 0]


def test_activations_are_those_that_a_real_step_keeps(toy):
    config = load_config(toy)
    paradigm = compt.PARADIGMS.build(dict(config.paradigm))
    for stage, part in zip(config.stages, memory(config, compt.plan(config))):
        model = paradigm.build_model(stage.member)
        weights = {t.untyped_storage()._cdata for t in model.parameters()}
        kept = {}

        def keep(tensor, kept=kept):
            kept[tensor.untyped_storage()._cdata] = tensor
            return tensor

        batch = paradigm.example_batch(model, stage.batch_size)
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            sum(paradigm.loss(paradigm.forward(model, batch), batch).values())
        real = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in weights)
        assert part.activations == pytest.approx(real, rel=0.1)
        assert part.activations > 4 * stage.batch_size * INPUTS


def test_activations_grow_with_the_batch_and_halve_in_16_bits(toy):
    once = estimated(toy)
    toy["train_dataloader"]["batch_size"] *= 2
    twice = estimated(toy)
    assert twice[2].kept == pytest.approx(2 * once[2].kept, rel=0.01)
    toy["optim_wrapper"] = dict(type="AmpOptimWrapper", dtype="bfloat16")
    half = estimated(toy)
    assert half[2].kept == twice[2].kept // 2 and half[2].fixed == twice[2].fixed


def test_estimates_leave_the_random_state_alone(toy):
    state = torch.get_rng_state()
    estimated(toy)
    assert torch.equal(torch.get_rng_state(), state)


# Devices


def test_hours_are_compute_by_what_is_reached_of_the_peak(toy):
    plan = compt.plan(toy)
    assert hours(plan, [1e6] * 3, 0.5) == [stage.flops / 5e5 / 3600 for stage in plan.stages]
    for share in (0, 1.1, -1):
        with pytest.raises(ConfigError, match="no share"):
            hours(plan, [1e6] * 3, share)


@pytest.mark.parametrize("name", ["rtx 4090", "RTX4090", "rtx-4090"])
def test_a_device_is_found_however_it_is_written(name):
    assert device(name).name == "RTX-4090"


def test_an_unknown_device_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"Did you mean 'H100-"):
        device("H100-SX")


def test_data_sheets_are_in_the_units_that_they_should_be():
    for known in DEVICES:
        assert 1 < known.half / known.single < 20, known
        assert 10 <= known.memory <= 300
