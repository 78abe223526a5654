"""Which samples are drawn when: by how many processes and workers, and from which source."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from itertools import chain, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch.utils.data import BatchSampler, Dataset, DistributedSampler

from compt.errors import ConfigError
from compt.interfaces.mixture import Mixture
from compt.training.loader import EndlessBatches, train_loader
from compt.training.numbered import NumberedDataset
from compt.training.order import MixtureSampler, Order, Permutations

GLOBAL_BATCH = 8


class Reads(Dataset[int]):
    """Numbers, and how often each was read in this process."""

    def __init__(self, length: int, mixture: Mixture | None = None) -> None:
        self.length, self.counts = length, Counter[int]()
        if mixture is not None:
            self.mixture = mixture

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        self.counts[index] += 1
        return index


def batches(
    dataset: Any, num: int, *, start: int = 0, world_size: int = 1, workers: int = 0, **options: Any
) -> list[list[list[Any]]]:
    """Return the samples of each process in each of ``num`` iterations."""
    drawn = []
    for rank in range(world_size):
        loader = train_loader(
            dataset,
            list,
            batch_size=GLOBAL_BATCH // world_size,
            seed=5,
            start=start,
            rank=rank,
            world_size=world_size,
            num_workers=workers,
            **options,
        )
        drawn.append(list(islice(iter(loader), num)))
    return [list(of_all) for of_all in zip(*drawn, strict=True)]


def together(of_all: list[list[Any]]) -> list[Any]:
    """Put the batches of all processes together, which take its samples by turns."""
    return list(chain.from_iterable(zip(*of_all, strict=True)))


class Captions(Dataset[str]):
    def __init__(self, folder: Path) -> None:
        from compt.data.images.shards import ShardPairs

        self.source = ShardPairs(sorted(folder.glob("*.tar")), cache_dir=folder / "cache")

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> str:
        return self.source.captions(index)[0]


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory) -> Captions:
    """Four shards of 61 samples in all, of which none is as large as another."""
    pytest.importorskip("PIL")
    folder = tmp_path_factory.mktemp("shards")
    number = 0
    for shard, size in enumerate((1, 30, 19, 11)):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for _ in range(size):
                for ending in ("png", "txt"):
                    info = tarfile.TarInfo(f"{number}.{ending}")
                    info.size = len(str(number))
                    tar.addfile(info, io.BytesIO(str(number).encode()))
                number += 1
    return Captions(folder)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_an_epoch_of_shards_is_read_once_by_all_processes(
    captions: Captions, world_size: int, workers: int
) -> None:
    num = len(captions) // GLOBAL_BATCH
    read = batches(captions, num + 1, world_size=world_size, workers=workers)
    epoch = [together(of_all) for of_all in read]
    counts = Counter(chain.from_iterable(epoch[:num]))
    assert set(counts.values()) == {1}
    assert len(counts) == 56  # of 61: 5 fill no batch
    order = Permutations(61, 5)
    assert epoch == [[str(i) for i in order.batch(n, GLOBAL_BATCH)] for n in range(num + 1)]


def test_what_fills_no_batch_changes_with_the_epoch() -> None:
    order = Permutations(61, 5)
    left_out = [
        set(range(61)) - set(np.concatenate([order.batch(7 * e + n, 8) for n in range(7)]).tolist())
        for e in range(3)
    ]
    assert [len(samples) for samples in left_out] == [5, 5, 5]
    assert left_out[0] != left_out[1] != left_out[2]


@pytest.mark.parametrize("length", [20, 23, 32])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_permutations_are_those_of_torchs_sampler(length: int, world_size: int) -> None:
    for rank in range(world_size):
        theirs = DistributedSampler(
            range(length),
            world_size,
            rank,
            shuffle=True,
            seed=7,
            drop_last=True,  # type: ignore
        )
        expected: list[list[int]] = []
        for epoch in range(3):
            theirs.set_epoch(epoch)
            expected += BatchSampler(theirs, 2, drop_last=True)
        ours = EndlessBatches(length, 2, seed=7, rank=rank, world_size=world_size)
        assert [batch[1:] for batch in islice(ours, len(expected))] == expected


MIXTURE = Mixture((40, 7, 100), (6, 3, 1))


@pytest.mark.parametrize("mixture", [None, MIXTURE])
def test_a_resumed_stage_reads_on_without_reading_again(mixture: Mixture | None) -> None:
    length = 147
    whole = batches(Reads(length, mixture), 30)
    before, after = Reads(length, mixture), Reads(length, mixture)
    assert batches(before, 11) + batches(after, 19, start=11) == whole
    assert before.counts.total() == 11 * GLOBAL_BATCH
    assert after.counts.total() == 19 * GLOBAL_BATCH  # nothing of the first 11 again


def test_an_epoch_that_is_interrupted_has_every_sample_once() -> None:
    before, after = Reads(147), Reads(147)
    batches(before, 11)
    batches(after, 18 - 11, start=11)
    assert Counter((before.counts + after.counts).values()) == {1: 18 * GLOBAL_BATCH}


@pytest.mark.parametrize("weights", [(6, 3, 1), (0.61, 0.39, 0), (1e-3, 1, 1e-9)])
def test_every_part_of_a_mixture_has_its_share(weights: tuple[float, ...]) -> None:
    sampler = MixtureSampler(SimpleNamespace(mixture=Mixture((40, 7, 100), weights)), 3)
    draws = np.concatenate([sampler.batch(n, 37) for n in range(300)])
    assert draws.min() >= 0 and draws.max() < 147
    parts = np.searchsorted([40, 47], draws, "right")
    for num in (0, 1, 999, 1000, 5003, len(draws)):
        counts = np.bincount(parts[:num], minlength=3).tolist()
        assert sampler.counts(num) == counts
    for num in range(998, len(draws), 1000):
        for part, weight in enumerate(weights):
            share = weight / sum(weights) * num
            assert abs((parts[:num] == part).sum() - share) <= 3
    assert weights[2] or not sampler.counts(5000)[2]


def test_every_part_is_gone_through_before_it_begins_anew() -> None:
    sampler = MixtureSampler(SimpleNamespace(mixture=MIXTURE), 3)
    draws = np.concatenate([sampler.batch(n, 64) for n in range(40)])
    for first, length in ((0, 40), (40, 7), (47, 100)):
        own = draws[(draws >= first) & (draws < first + length)]
        passes = [sorted(own[i : i + length]) for i in range(0, len(own) - length + 1, length)]
        assert passes == [list(range(first, first + length))] * len(passes)
        assert len(passes) >= 2
    seventh = draws[(draws >= 40) & (draws < 47)]
    assert seventh[:7].tolist() != seventh[7:14].tolist()  # in another order


@pytest.mark.parametrize("world_size", [2, 4])
def test_a_mixture_does_not_depend_on_processes_and_workers(world_size: int) -> None:
    data = NumberedDataset(Reads(147, MIXTURE))  # type: ignore[arg-type]
    one = [together(of_all) for of_all in batches(data, 20)]
    spread = batches(data, 20, world_size=world_size)
    assert [together(of_all) for of_all in spread] == one
    apart = batches(data, 20, world_size=world_size, workers=2 if world_size == 2 else 0)
    assert apart == spread


def test_a_stage_has_weights_of_its_own() -> None:
    data = Reads(147, MIXTURE)
    sampler = dict(type="MixtureSampler", weights=[0, 1, 0])
    drawn = {i for of_all in batches(data, 5, sampler=sampler) for i in together(of_all)}
    assert drawn == set(range(40, 47))
    by_size = dict(type="MixtureSampler")
    assert batches(Reads(147, Mixture((40, 7, 100))), 2, sampler=by_size)
    in_order = dict(type="MixtureSampler", weights=[1, 0, 0], shuffle=False)
    assert together(batches(data, 1, sampler=in_order)[0]) == list(range(8))


@pytest.mark.parametrize(
    "weights", [[1, 1], [1, -1, 1], [0, 0, 0], [1, "2", 3], [1, float("nan"), 1], [True, 1, 1], []]
)
def test_wrong_weights(weights: list[Any]) -> None:
    with pytest.raises(ConfigError, match="are not 3 numbers from 0 on"):
        batches(Reads(147, MIXTURE), 1, sampler=dict(type="MixtureSampler", weights=weights))


def test_data_that_is_no_mixture() -> None:
    with pytest.raises(ConfigError, match="no mixture"):
        batches(Reads(147), 1, sampler=dict(type="MixtureSampler"))


def test_orders_are_endless() -> None:
    for order in (Permutations(10, 0), MixtureSampler(SimpleNamespace(mixture=MIXTURE), 0)):
        assert isinstance(order, Order)
        assert len(order.batch(10**9, 8)) == 8


def test_the_log_says_what_is_left_out_and_how_much_is_of_each_source() -> None:
    epochs = EndlessBatches(61, 4, seed=0, world_size=2)
    assert epochs.summary(8).startswith("5 of 61 samples fill no batch of 8 and are left out")
    assert epochs.summary(7) == "" == EndlessBatches(64, 8, seed=0).summary(99)
    mixture = MixtureSampler(SimpleNamespace(mixture=MIXTURE), 0)
    text = EndlessBatches(147, 8, seed=0, sampler=mixture).summary(250)
    assert text == (
        "Of 2,000 samples that are drawn come 1,200 from source 1 of 40 (30.00 passes), "
        "600 from source 2 of 7 (85.71 passes), 200 from source 3 of 100 (2.00 passes)."
    )
