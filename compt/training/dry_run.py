"""Try what a chain will do, on fresh weights and one batch, and leave nothing behind."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from mmengine.registry import DefaultScope

from compt.config import ChainConfig
from compt.errors import ComptError, TrainingError, located
from compt.growth.models import build_member, build_paradigm
from compt.growth.run import grow
from compt.interfaces import Batch, Growth, Paradigm
from compt.interfaces.plugin import accepted
from compt.planning.plans import ChainPlan
from compt.registry import LAYOUTS
from compt.registry.loading import first_line, raised_at
from compt.training.loader import open_dataset

MOST_PARAMETERS = 100_000_000
"""Of models that are built and grown for a trial; larger ones take minutes."""


@dataclass(frozen=True)
class Tried:
    """One trial, or why it was left out."""

    name: str
    result: str


def dry_run(config: ChainConfig, plan: ChainPlan) -> Iterator[Tried]:
    """Run the first member on one batch, and grow every member from the one before.

    The data has been opened and the plan made before. Weights are fresh ones.

    Args:
        config: of a chain.
        plan: of the same chain.

    Raises:
        ComptError: a batch cannot be read or trained on, or a member cannot be grown.
    """
    with LAYOUTS.choosing(config.layouts):
        paradigm = build_paradigm(config.paradigm)
        for stage in config.stages:
            with torch.device("meta"):
                paradigm.build_model(stage.member)  # data depends on what the members read
        yield _first_batch(config, plan, paradigm)
        for index in range(1, len(plan.stages)):
            yield _hop(config, plan, paradigm, index)


def _first_batch(config: ChainConfig, plan: ChainPlan, paradigm: Paradigm) -> Tried:
    """Read one training batch, and run forward and backward on it."""
    stage, planned = config.stages[0], plan.stages[0]
    name = f"one batch through '{planned.name}'"
    if planned.params > MOST_PARAMETERS:
        return Tried(name, f"not tried, as it has {planned.params:,} parameters")
    try:
        with DefaultScope.overwrite_default_scope(config.default_scope):
            dataset = open_dataset(paradigm, stage.train_dataloader, "train")
        batch = _batch(paradigm, dataset, stage.batch_size)
        model = build_member(paradigm, stage.member, seed=config.seed).train()
        loss = sum(paradigm.loss(paradigm.forward(model, batch), batch).values())
        loss.backward()  # type: ignore[union-attr]
    except ComptError:
        raise
    except Exception as error:  # whatever data, paradigms and libraries raise
        raise TrainingError(
            f"The first batch cannot be trained on: {first_line(error)}", where=raised_at(error)
        ) from error
    value = float(loss.detach())  # type: ignore[union-attr]
    if not math.isfinite(value):
        raise TrainingError(
            f"The loss of the first batch is {value}.",
            where=f"member '{planned.name}'",
            do="Look at the data and its pre-processing.",
        )
    return Tried(name, f"loss {value:.4g} on {stage.batch_size:,} samples")


def _batch(paradigm: Paradigm, dataset: object, batch_size: int) -> Batch:
    """Return the first samples of a data set as a batch that is ready for the model."""
    samples = [dataset[index] for index in range(batch_size)]  # type: ignore[index]
    batch = dict(paradigm.collate(samples))
    if paradigm.sample_index:
        batch["index"] = torch.arange(batch_size)
    generator = torch.Generator().manual_seed(0)
    prepared = dict(
        paradigm.prepare(batch, generator=generator, **accepted(paradigm.prepare, training=True))
    )
    if paradigm.sample_index:
        prepared["index"] = batch["index"]
    return prepared


def _hop(config: ChainConfig, plan: ChainPlan, paradigm: Paradigm, index: int) -> Tried:
    """Grow one member from the one before."""
    source, target = config.stages[index - 1 : index + 1]
    name, planned = f"growth '{source.name}' -> '{target.name}'", plan.stages[index]
    if planned.growth_iters:
        return Tried(name, f"not tried, as it learns on {planned.growth_iters:,} batches")
    if planned.params > MOST_PARAMETERS:
        return Tried(name, f"names and sizes fit; not tried with {planned.params:,} parameters")
    smaller = build_member(paradigm, source.member, seed=config.seed)
    larger = build_member(paradigm, target.member, seed=config.seed + 1)
    with located(name):
        growth = grow(smaller, larger, target.grower, seed=config.seed)
    return Tried(name, _kept(growth))


def _kept(growth: Growth) -> str:
    if growth.function_preserving:
        return "keeps the function"
    return f"does not keep the function: {growth.reason}"
