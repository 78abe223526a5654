"""Say what the programs that are compared train, with data, optimizer and rates alike for all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from compt.config import load_config
from compt.growth.models import build_member
from compt.registry import PARADIGMS
from compt.training.loader import EndlessBatches, SeededFetch
from measuring.contest import DEVICE

LOG_INTERVAL = 10
"""Iterations after which every program reads its loss, as compt does by default."""


@dataclass(frozen=True)
class Task:
    """One member of a chain, without augmentation, and what it is trained on."""

    config: Mapping[str, Any]
    member: int
    iters: int
    """In all, over which the learning rate falls."""
    one_batch: bool
    """Whether every iteration has the same batch, made before, so that no data is loaded."""

    @cached_property
    def chain(self) -> Any:
        """The checked config."""
        return load_config(dict(self.config))

    @property
    def stage(self) -> Any:
        """The member's stage."""
        return self.chain.stages[self.member]

    @cached_property
    def paradigm(self) -> Any:
        """The paradigm, which knows all members."""
        paradigm = PARADIGMS.build(dict(self.chain.paradigm))
        with torch.device("meta"):
            for stage in self.chain.stages:
                paradigm.build_model(stage.member)
        return paradigm

    def model(self, member: int | None = None) -> nn.Module:
        """Return the member, or another, with the weights that compt begins with."""
        stage = self.chain.stages[self.member if member is None else member]
        seed = self.chain.seed + self.member
        return build_member(self.paradigm, stage.member, seed=seed).to(DEVICE)

    def loader(self, collate: Callable[..., Any] | None = None, batches: int = 10**9) -> Any:
        """Return a loader of so many batches, in the order that compt has them."""
        dataset = self.paradigm.build_dataset("train")
        size = self.stage.batch_size
        order = EndlessBatches(len(dataset), size, seed=self.chain.seed + self.member)
        collate = collate or self.paradigm.collate
        # Else each program would draw other captions.
        samples = SeededFetch(dataset)
        if self.one_batch:
            return Repeated(collate(samples.__getitems__(next(iter(order)))), batches)
        options = {k: v for k, v in self.stage.train_dataloader.items() if k != "batch_size"}
        options = {"pin_memory": DEVICE.type == "cuda", **options}
        sampler = Bounded(order, batches)
        return DataLoader(samples, batch_sampler=sampler, collate_fn=collate, **options)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the config's optimizer, fused and with compt's two groups of parameters."""
        options = dict(self.stage.optim_wrapper["optimizer"])
        kind: type[torch.optim.Optimizer] = getattr(torch.optim, options.pop("type"))
        params = [p for p in model.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in params if p.ndim >= 2]},
            {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
        ]
        return kind(groups, **{"fused": True, **options})

    def factor(self, iteration: int) -> float:
        """Return the learning rate by its peak: a linear warm-up over 5 %, then a cosine to 0."""
        warm = round(0.05 * self.iters)
        if iteration < warm:
            return 1e-3 + (1 - 1e-3) * iteration / max(1, warm - 1)
        return 0.5 * (1 + math.cos(math.pi * (iteration - warm) / (self.iters - warm)))

    @property
    def peak(self) -> float:
        """The highest learning rate."""
        return float(self.stage.optim_wrapper["optimizer"]["lr"])

    def autocast(self) -> Any:
        """Return the context of the config's precision."""
        return torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.stage.precision == "bf16")

    def pixels(self) -> tuple[Tensor, Tensor]:
        """Return what is added to a pixel and what it is multiplied by, [3, 1, 1] each."""
        mean, std = (
            torch.tensor(v, device=DEVICE).view(3, 1, 1)
            for v in (self.paradigm.mean, self.paradigm.std)
        )
        return -mean / std, 1 / (255 * std)


class Bounded:
    """Some batches of an endless sampler, each with its seed before the samples' numbers."""

    sampler = None
    """Where mmengine looks for a sampler to be told of epochs."""

    def __init__(self, order: EndlessBatches, batches: int) -> None:
        self.order, self.batches = order, batches

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        yield from islice(self.order, self.batches)


class Repeated:
    """A loader of one batch, again and again."""

    dataset = ()

    def __init__(self, batch: Any, batches: int) -> None:
        self.batch, self.batches = batch, batches

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.batches):
            yield self.batch
