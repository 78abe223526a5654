"""Train one stage of CLIP in a loop as a user would write it around open_clip."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import open_clip
import torch
from torch.utils.data import DataLoader, DistributedSampler

from compt.config import ChainConfig, StageConfig
from compt.growth.models import build_member
from compt.paradigms.clip import Clip
from compt.registry import PARADIGMS

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

SCHEDULE = [
    {"type": "LinearLR", "start_factor": 1e-3, "begin": 0.0, "end": 0.05},
    {"type": "CosineAnnealingLR", "eta_min": 0.0, "begin": 0.05, "end": 1.0},
]
"""compt's default, the one that :meth:`ByHand.rate` knows."""

Batch = Mapping[str, torch.Tensor]


class ByHand:
    """The loop a user would write around open_clip for this one stage."""

    def __init__(
        self, config: ChainConfig, stage: StageConfig, seed: int, iters: int, batch: Batch | None
    ) -> None:
        paradigm: Clip = PARADIGMS.build(dict(config.paradigm))
        self.model: Any = build_member(paradigm, stage.member, seed=seed).to(DEVICE).train()
        self.batches = self._loaded(paradigm, stage, seed) if batch is None else repeated(batch)
        self.loss = open_clip.ClipLoss(cache_labels=True)
        self.options = dict(stage.optim_wrapper["optimizer"])
        self.peak: float = self.options["lr"]
        self.iters, self.warm = iters, round(0.05 * iters)
        self.optimizer = self.build_optimizer()
        mean, std = (
            torch.tensor(v, device=DEVICE).view(3, 1, 1) for v in (paradigm.mean, paradigm.std)
        )
        self.shift, self.scale = -mean / std, 1 / (255 * std)
        self.iteration = 0
        self.losses: list[float] = []

    def build_optimizer(self, **implementation: Any) -> torch.optim.Optimizer:
        """Return the config's optimizer, with compt's two groups of parameters."""
        params = list(self.model.parameters())
        groups: list[dict[str, Any]] = [
            {"params": [p for p in params if p.ndim >= 2]},
            {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
        ]
        options = {**self.options, **implementation}
        kind: type[torch.optim.Optimizer] = getattr(torch.optim, options.pop("type"))
        return kind(groups, **options)

    def _loaded(self, paradigm: Clip, stage: StageConfig, seed: int) -> Iterator[Batch]:
        dataset = paradigm.build_dataset("train")
        sampler: DistributedSampler[Any] = DistributedSampler(
            dataset, 1, 0, shuffle=True, seed=seed, drop_last=True
        )
        options = {
            "num_workers": 0,
            "pin_memory": DEVICE.type == "cuda",
            **stage.train_dataloader,
        }
        options.setdefault("persistent_workers", options["num_workers"] > 0)
        loader = DataLoader(dataset, sampler=sampler, drop_last=True, **options)
        epoch = 0
        while True:
            sampler.set_epoch(epoch)
            yield from loader
            epoch += 1

    def rate(self) -> float:
        """Return the learning rate, a linear warm-up over the first 5 %, then a cosine to 0."""
        if self.iteration < self.warm:
            return self.peak * (1e-3 + (1 - 1e-3) * self.iteration / max(1, self.warm - 1))
        progress = (self.iteration - self.warm) / (self.iters - self.warm)
        return self.peak * 0.5 * (1 + math.cos(math.pi * progress))

    def run(self, iterations: int, log_interval: int) -> None:
        """Train some more."""
        model, optimizer = self.model, self.optimizer
        for _ in range(iterations):
            batch = next(self.batches)
            image = batch["image"].to(DEVICE, non_blocking=True)
            text = batch["text"].to(DEVICE, non_blocking=True)
            rate = self.rate()
            for group in optimizer.param_groups:
                group["lr"] = rate
            image = torch.addcmul(self.shift, image.float(), self.scale)
            loss = self.loss(*model(image, text))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            with torch.no_grad():
                model.logit_scale.clamp_(0, math.log(100))
            self.iteration += 1
            if self.iteration % log_interval == 0:
                self.losses.append(loss.item())


def repeated(batch: Batch) -> Iterator[Batch]:
    while True:
        yield batch
