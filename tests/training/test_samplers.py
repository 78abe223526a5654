"""Which samples an iteration is trained on: mmengine's samplers, order, and what is refused."""

from __future__ import annotations

import json
from itertools import islice

import pytest
import torch
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import Sampler, TensorDataset

import compt
from compt.errors import ConfigError
from compt.training.loader import eval_loader, loader_options, train_loader
from compt.training.numbered import NumberedDataset

DATA = TensorDataset(torch.arange(20))


@DATA_SAMPLERS.register_module(name="DrawnHalf")
class DrawnHalf(Sampler):
    """Draws half of the samples from the global generators, as many do."""

    def __init__(self, dataset, seed: int | None = None) -> None:
        self.num_all, self.name = len(dataset), getattr(dataset, "name", "")

    def __iter__(self):
        return iter(torch.randperm(self.num_all).tolist()[: len(self)])

    def __len__(self) -> int:
        return self.num_all // 2


def batches(num: int, *, start: int = 0, rank: int = 0, world_size: int = 1, **options):
    """Return the samples of ``num`` iterations."""
    loader = train_loader(
        DATA,
        lambda samples: torch.stack([one for (one,) in samples]).tolist(),
        batch_size=4,
        seed=3,
        start=start,
        rank=rank,
        world_size=world_size,
        **options,
    )
    return list(islice(iter(loader), num))


def test_in_order_without_shuffling():
    expected = [[4 * i + k for k in range(4)] for i in range(5)]
    assert batches(7, shuffle=False) == expected + expected[:2]
    assert batches(5, sampler=dict(type="DefaultSampler", shuffle=False)) == expected


def test_mmengines_default_sampler_is_the_order_without_one():
    assert batches(9, sampler=dict(type="DefaultSampler")) == batches(9)
    assert batches(5) != batches(5, shuffle=False)


@pytest.mark.parametrize("kind", ["DefaultSampler", "InfiniteSampler", "DrawnHalf"])
@pytest.mark.parametrize("start", [1, 4, 11])
def test_a_resumed_stage_sees_the_batches_it_would_have_seen(kind, start):
    whole = batches(16, sampler=dict(type=kind))
    torch.rand(3)  # what else draws changes nothing
    assert batches(16 - start, start=start, sampler=dict(type=kind)) == whole[start:]
    assert len({tuple(batch) for batch in whole}) > 8


def test_a_sampler_that_draws_leaves_the_global_generators_alone():
    loader = iter(
        train_loader(
            DATA,
            list,
            batch_size=4,
            seed=0,
            start=0,
            rank=0,
            world_size=1,
            sampler=dict(type="DrawnHalf"),
        )
    )
    torch.manual_seed(0)
    next(loader)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))


def test_a_sampler_sees_what_a_data_set_says_of_itself():
    class Named(TensorDataset):
        name = "cats"

    numbered = NumberedDataset(Named(torch.arange(8)))
    assert DrawnHalf(numbered).name == "cats"


def test_a_sampler_without_a_batch_is_refused():
    with pytest.raises(ConfigError, match="does not fit"):
        train_loader(
            TensorDataset(torch.arange(6)),
            list,
            batch_size=4,
            seed=0,
            start=0,
            rank=0,
            world_size=1,
            sampler=dict(type="DrawnHalf"),
        )


def test_evaluation_is_in_order_whatever_is_left_out():
    config = dict(
        batch_size=6,
        sampler=dict(type="DefaultSampler", shuffle=False),
        collate_fn=dict(type="default_collate"),
        batch_sampler=None,
    )
    loader = eval_loader(
        DATA, lambda samples: [one.item() for (one,) in samples], **loader_options(config)
    )
    assert [one for batch in loader for one in batch] == list(range(20))


@pytest.mark.parametrize(
    ("sampler", "budget", "fault"),
    [
        (dict(type="Nope"), dict(iters=2), "no data sampler 'Nope'"),
        (dict(type="DefaultSampler", shuffel=True), dict(iters=2), "shuffel"),
        (dict(type="DrawnHalf"), dict(epochs=1), "yields 128 samples an epoch, .* has 256"),
    ],
)
def test_samplers_that_cannot_be_are_found_before_training(toy, tmp_path, sampler, budget, fault):
    toy["train_dataloader"]["sampler"] = sampler
    toy["chain"] = [dict(name="a", model=dict(width=8, depth=1), **budget)]
    with pytest.raises(ConfigError, match=fault):
        compt.train(toy, work_dir=tmp_path)


def test_a_chain_trains_with_a_sampler(toy, tmp_path):
    toy["train_dataloader"]["sampler"] = dict(type="DrawnHalf")
    toy["chain"] = [dict(name="a", model=dict(width=8, depth=1), iters=5)]
    compt.train(toy, work_dir=tmp_path)
    assert json.loads((tmp_path / "01_a" / "manifest.json").read_text())["iters"] == 5
