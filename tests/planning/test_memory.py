"""What a stage takes on a device: memory measured on the meta device, hours by data sheets."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from torch import nn

import compt
from compt.config import load_config
from compt.config.parallel import Replicated, Sharded
from compt.errors import ConfigError, LayoutError
from compt.planning.as_on_gpu import as_on_gpu
from compt.planning.devices import DEVICES, device, hours
from compt.planning.live import Change, LiveBytes
from compt.planning.memory import StageMemory, Step, memory
from compt.planning.sharing import Spread
from compt.planning.volume import volume
from compt.training import checkpoint
from tests.environments import ROOT


def clip(**options):
    """The first member of the CLIP chain that ships: 17 patches and 12 tokens, 3 + 2 layers."""
    config = Config.fromfile(ROOT / "configs" / "clip_chain.py")
    config.chain = config.chain[:1]
    return load_config(config.to_dict() | options)


GB = 10**9


def estimated(toy, devices=1):
    config = load_config(toy)
    return memory(config, compt.plan(config), devices)


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


def test_blocks_and_the_rest_make_up_the_weights(toy):
    widths = [member["model"]["width"] for member in toy["chain"]]
    for part, width, depth in zip(estimated(toy), widths, (1, 2, 3)):
        block = 4 * (2 * width + (width + 1) * 2 * width + (2 * width + 1) * width)
        assert part.largest_block == block
        assert part.rest == part.weights - depth * block


def test_activations_grow_with_the_batch_and_shrink_where_they_are_recomputed(toy):
    toy["train_dataloader"]["batch_size"] = 256
    once = estimated(toy)[2].steps
    toy["train_dataloader"]["batch_size"] *= 2
    twice = estimated(toy)[2].steps
    assert twice[False].activations == pytest.approx(2 * once[False].activations, rel=0.01)
    assert twice[True].activations < 0.5 * twice[False].activations


@pytest.mark.parametrize(
    "options",
    [dict(precision="bf16"), dict(optim_wrapper=dict(type="AmpOptimWrapper", dtype="bfloat16"))],
)
def test_autocast_halves_what_matrices_are_multiplied_of(toy, options):
    toy["train_dataloader"]["batch_size"] = 256
    whole = estimated(toy)[2]
    half = estimated(toy | options)[2]
    assert (whole.is_half, half.is_half) == (False, True)
    step, other = half.steps[False], whole.steps[False]
    assert 0.5 < step.activations / other.activations < 0.9
    matrices = 24 * 8 + 3 * 2 * 24 * 48 + 24 * 10  # and biases, which autocast copies too
    assert 2 * matrices < step.weight_copies < 2.1 * (matrices + 24 + 3 * (24 + 48) + 10)
    assert other.weight_copies == 0


def test_gradients_come_while_activations_go():
    changes = (Change(100, 0), Change(10, 1), Change(-100, 0), Change(50, 2))
    step = Step(100, 0, changes, gradients=frozenset({1, 2}), copies=frozenset())
    assert step.peak() == 110
    assert step.peak(gradients=0.1) == 101
    assert Step(100, 0, changes, copies=frozenset({0})).peak(copies=0) == 60


def test_what_is_freed_before_the_end_is_not_counted_twice():
    with torch.device("meta"):
        weight = torch.zeros(1000)
        with LiveBytes([weight]) as live:
            first = weight + 1
            first.add_(1)  # no memory of its own
            view = first[:10]
            assert live.num_bytes == 4000
            del first
            assert live.num_bytes == 4000  # the view holds it
            del view
            assert live.num_bytes == 0
            again = weight * 2
            assert live.num_bytes == 4000
            assert len(live.pieces([again, weight])) == 1


def test_gradients_of_a_weight_that_is_used_thrice_are_added_up_in_place():
    """The weight's gradient and one more are there at once, where a mode would see three."""
    with torch.device("meta"):
        weight = torch.zeros(1000, requires_grad=True)
        scales = [torch.tensor(1.0) for _ in range(3)]
        with LiveBytes([weight, *scales]) as live:
            loss = sum((weight * scale).sum() for scale in scales)
            before = live.num_bytes
            loss.backward()
            gradients = live.pieces([weight.grad])
        step = Step(0, 0, tuple(live.changes), gradients)
        in_place = Step(0, 0, tuple(live.added_in_place(gradients)), gradients)
    assert step.peak() - before >= 12_000
    assert 8_000 <= in_place.peak() - before < 8_100
    assert sum(change.num_bytes for change in in_place.changes) == live.num_bytes
    assert {change.piece for change in in_place.changes} >= gradients
    # All of it is a gradient, which several devices share, but for the one that is added.
    assert 4_000 <= in_place.peak(gradients=0) - before < 4_100


def test_activations_are_those_of_a_mini_batch_and_outputs_those_of_all(toy):
    def step(batch_size, **options):
        toy["train_dataloader"]["batch_size"] = batch_size
        return estimated(toy | options)[2].steps[False]

    whole, part = step(512), step(64)
    divided = step(512, mini_batch_size=64)
    assert part.peak() < divided.peak() < 0.3 * whole.peak()
    # Of each sample the inputs and label, logits and their softmax, and the teacher's features.
    rows = 512 * ((4 * 8 + 8) + 2 * 4 * 10 + 4 * 16)
    assert rows <= divided.activations < 1.15 * rows
    assert step(64, mini_batch_size=64) == part


def test_a_loss_over_the_global_batch_takes_more_on_more_devices():
    pytest.importorskip("open_clip")
    config = clip()
    plan = compt.plan(config)
    one, many = (memory(config, plan, devices)[0].steps[False] for devices in (1, 64))
    # two matrices of logits [128, 64 x 128], and their log-softmax, at least
    assert many.peak() - one.peak() > 2 * 2 * 4 * 128 * 63 * 128
    assert not torch.distributed.is_initialized()


def test_attention_is_one_kernel_unless_the_config_takes_it_apart():
    pytest.importorskip("open_clip")
    fused, apart = (
        memory(config, compt.plan(config))[0].steps[False].activations
        for config in (clip(), clip(attention="math"))
    )
    # 17 patches and 12 tokens attend to each other, in 3 + 2 layers of 2 heads
    assert apart - fused > 4 * 128 * 2 * (3 * 17**2 + 2 * 12**2)


def test_dropout_keeps_a_byte_for_each_number_and_attention_no_scores():
    heads = torch.zeros(1, 2, 100, 5, device="meta", requires_grad=True)
    functional = nn.functional
    with as_on_gpu(is_half=False, is_fused=True):
        assert functional.dropout(heads, 0.1, training=False) is heads
        for dropped, num_bytes in (
            (lambda: functional.dropout(heads, 0.1), 4 * 1000 + 1000),
            (
                lambda: functional.scaled_dot_product_attention(heads, heads, heads, dropout_p=0.1),
                4 * (1000 + 2 * 100),
            ),
        ):
            with LiveBytes([heads]) as live:
                output = dropped()
                assert num_bytes <= live.num_bytes < num_bytes + 100
                del output


def test_without_layouts_nothing_is_recomputed(toy, monkeypatch):
    def unknown(model):
        raise LayoutError("no layout")

    monkeypatch.setattr("compt.planning.memory.describe", unknown)
    config = load_config(toy)
    plan = compt.plan(config)
    assert [[*part.steps] for part in memory(config, plan)] == [[False]] * 3


# Ways to share a stage


def stage_memory(**changes):
    step = Step(8 * GB, 1 * GB, (Change(8 * GB, 0), Change(1 * GB, 1)), copies=frozenset({1}))
    parts = dict(
        weights=4 * GB,
        gradients=4 * GB,
        optimizer=8 * GB,
        teacher=2 * GB,
        largest_block=GB // 2,
        rest=GB,
        batch_size=4,
        is_half=True,
        is_accumulating=False,
        is_divided=False,
        steps={False: step},
    )
    return StageMemory(**(parts | changes))


def test_replicas_hold_all_of_it_and_send_gradients_from_a_second_place():
    (one,) = Spread.of(Replicated(), 1).ways(stage_memory())
    assert (one.way, one.gradients, one.peak) == ("one", 4 * GB, (4 + 8 + 2 + 9) * GB)
    ddp, _ = Spread.of(Replicated(), 8).ways(stage_memory())
    assert (ddp.way, ddp.gradients, ddp.peak) == ("ddp", 8 * GB, (4 + 8 + 2 + 4 + 9) * GB)


def test_gradients_of_several_iterations_stay():
    (one,) = Spread.of(Replicated(), 1).ways(stage_memory(is_accumulating=True))
    assert one.peak == (4 + 8 + 2 + 4 + 9) * GB


def test_sharded_mini_batches_keep_their_gradients_whole():
    """By hand: 4 GB of gradients in place of their eighth."""
    changes = (Change(8 * GB, 0), Change(4 * GB, 1))
    steps = {False: Step(8 * GB, 0, changes, gradients=frozenset({1}))}
    once, divided, added_up = (
        Spread.of(Sharded(), 8).ways(stage_memory(steps=steps, **options))[1]
        for options in (
            dict(),
            dict(is_divided=True),
            dict(is_divided=True, is_accumulating=True),
        )
    )
    assert divided.gathered == once.gathered
    assert divided.peak - once.peak == 4 * GB * 7 // 8
    assert added_up.peak - divided.peak == 4 * GB // 8


@pytest.mark.parametrize(
    ("options", "held", "gathered", "step"),
    [
        (dict(), 12 / 8 + 2, 1 + 3 * 0.5 + 2 * 0.5, 9),
        (dict(processes=4), 12 / 4 + 2, 3.5, 9),
        (dict(teacher="sharded"), 12 / 8 + 2 / 8, 3.5, 9),
        (dict(gather="bf16"), 12 / 8 + 2, 1 + 3 * 0.25 + 1, 8),
        (dict(reshard=False), 12 / 8 + 2, 1 + 3 + 0.5 + 1, 9),
    ],
)
def test_shards_are_shares_and_what_is_gathered(options, held, gathered, step):
    spread = Spread.of(Sharded(**options), 8)
    ways = spread.ways(stage_memory())
    fsdp = spread.chosen(ways, recomputed=False)
    assert fsdp is ways[1] and fsdp.way == "fsdp"
    assert fsdp.gathered == pytest.approx(gathered * GB)
    assert fsdp.peak == pytest.approx((held + gathered + step) * GB)


def test_a_device_fits_with_a_fifth_in_reserve():
    (one,) = Spread.of(Replicated(), 1).ways(stage_memory())
    assert one.fits(1.2 * one.peak) and not one.fits(1.19 * one.peak)


# What is written


def test_checkpoints_are_counted_as_they_are_written(toy, tmp_path, monkeypatch):
    toy["chain"][0]["model"] = dict(width=64, depth=8)
    del toy["chain"][1:]
    config = load_config(toy)
    plan = compt.plan(config)
    (part,) = memory(config, plan)
    written = volume(config, plan.stages[0], part)  # 8 iterations, one every 3, keep 2
    sizes = []
    save = checkpoint.save_checkpoint

    def watched(state, folder, iteration, **options):
        save(state, folder, iteration, **options)
        sizes.append((folder / f"iter_{iteration:08d}.pt").stat().st_size)

    monkeypatch.setattr("compt.training.checkpoint_writer.save_checkpoint", watched)
    compt.train(toy, work_dir=tmp_path / "run")
    assert len(sizes) == written.num_written == 3
    assert sum(sizes) == pytest.approx(written.written, rel=0.1)
    assert written.at_once == 3 * written.checkpoint
    weights = [*(tmp_path / "run").glob("01_a/*.safetensors")]
    exported = [*(tmp_path / "run").glob("01_a/export/*.safetensors")]
    left = sum(path.stat().st_size for path in (*weights, *exported))
    assert left == pytest.approx(written.left, rel=0.1)


def test_estimates_leave_the_random_state_alone(toy):
    state = torch.get_rng_state()
    estimated(toy)
    assert torch.equal(torch.get_rng_state(), state)


# Devices


def test_hours_are_compute_by_what_is_reached_of_the_peak(toy):
    plan = compt.plan(toy)
    assert hours(plan, [1e6] * 3, 0.5) == [stage.flops / 5e5 / 3600 for stage in plan.stages]
    again = hours(plan, [1e6] * 3, 0.5, recomputed=True)
    assert again[0] == pytest.approx(4 / 3 * plan.stages[0].flops / 5e5 / 3600)  # no teacher
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
