"""Advanced knowledge initialisation keeps its contract, and takes new units from the next block."""

from __future__ import annotations

import pytest
import torch

from compt import grow
from compt.growers.aki import Aki
from compt.testing import GrowerContract
from compt.testing.contracts import randomised
from compt.testing.toy import ToyNet


class TestAki(GrowerContract):
    grower = "aki"


def grown(source_depth: int, small: int = 4, large: int = 8, **options):
    source = randomised(ToyNet(small, source_depth).double())
    target = ToyNet(large, source_depth).double()
    return source, target, grow(source, target, dict(type="aki", **options))


def test_new_units_are_the_next_blocks():
    """By hand: rows beyond the source's own are the next block's, columns are shared evenly."""
    source, target, growth = grown(3)
    for block in (0, 1):
        own, above = source.blocks[block].fc1, source.blocks[block + 1].fc1
        weight, bias = target.blocks[block].fc1.weight, target.blocks[block].fc1.bias
        tiled = [torch.cat([layer.weight, layer.weight], 1) / 2 for layer in (own, above)]
        assert torch.allclose(weight, torch.cat(tiled))
        assert torch.equal(bias, torch.cat([own.bias, above.bias]))
    gains = [source.blocks[block].norm.weight for block in (0, 1)]
    assert torch.equal(target.blocks[0].norm.weight, torch.cat(gains))
    assert not growth.function_preserving
    assert growth.reason.startswith("new units are those of the next block")


def test_the_last_block_and_the_rest_are_tiled():
    source, target, _ = grown(3)
    table = source.embed.weight
    assert torch.equal(target.embed.weight, torch.cat([table, table]))
    last, small = target.blocks[2], source.blocks[2]
    assert torch.equal(last.fc1.weight[:8], last.fc1.weight[8:])
    # What reads the units of the last block is split unevenly, so that they part ways.
    halves = last.fc2.weight[:, :8], last.fc2.weight[:, 8:]
    assert not torch.allclose(*halves)
    assert torch.allclose(sum(halves), torch.cat([small.fc2.weight] * 2))


def test_units_that_differ_already_get_no_noise():
    """Noise that sums to 0 over copies does not cancel where units are not copies."""
    source, target, _ = grown(2)
    own = source.blocks[0].fc2.weight
    assert torch.allclose(target.blocks[0].fc2.weight[:4], torch.cat([own, own], 1) / 2)
    head = source.head.weight
    assert torch.allclose(target.head.weight, torch.cat([head, head], 1) / 2)


def test_a_single_block_grows_as_a_clone_does():
    _, _, growth = grown(1)
    assert growth.function_preserving
    assert growth.error < 1e-12


def test_the_optimizers_state_grows_too():
    assert Aki(noise=0.5).without_noise().uneven.noise == 0


@pytest.mark.parametrize("make", ["gpt2", "llama", "neox"])
def test_real_models_with_fused_tensors_take_each_part_from_the_next_block(make):
    models = pytest.importorskip("tests.layouts.language_models")
    sizes = {
        "gpt2": ((48, 2), (96, 2)),
        "llama": ((48, 2, 4, 2, 64), (96, 2, 8, 4, 128)),
        "neox": ((48, 2, 64), (96, 2, 128)),
    }[make]
    source, target = (getattr(models, make)(*size) for size in sizes)
    growth = grow(randomised(source), target, "aki")
    assert growth.counts["expanded"]
    if make != "gpt2":
        return
    qkv, above = (block.attn.c_attn for block in source.transformer.h)
    value = target.transformer.h[0].attn.c_attn.weight
    for part in range(3):  # [in, 3 out]
        own, new = value[:48, 96 * part : 96 * part + 96].chunk(2, dim=1)
        assert torch.allclose(own, qkv.weight[:, 48 * part : 48 * part + 48] / 2)
        assert torch.allclose(new, above.weight[:, 48 * part : 48 * part + 48] / 2)
