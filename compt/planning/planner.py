"""ChainConfig -> ChainPlan on the meta device: order, sizes, growth and transfer checks,
compute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compt.config import ChainConfig, StageConfig, load_config
from compt.errors import ComptError, ConfigError, DataError, located
from compt.growth.models import architecture
from compt.interfaces import Architecture, Grower, Outputs, Paradigm, Transferer, warn_renamed
from compt.planning.plans import ChainPlan, StagePlan
from compt.registry import GROWERS, PARADIGMS, TRANSFERERS

EXPANSION = (2.0, 4.0)
"""Neighbours should differ by this factor in parameters: PAPER rule (ii), arXiv 2604.12391."""


def plan(
    config: ChainConfig | Config | Mapping[str, Any] | str,
    *,
    individual: bool = False,
    world_size: int = 1,
    world: int | None = None,
) -> ChainPlan:
    """Check a chain and count its compute, without training and without weights.

    Args:
        config: checked or not, or the path of one.
        individual: plan every member alone, from scratch, with the individual budget.
        world_size: number of processes that share each iteration.
        world: its old name, which goes with the next minor version.

    Raises:
        ComptError: with all faults found in sizes, growth and transfer.
    """
    if world is not None:
        warn_renamed("plan(world=...)", "world_size")
        world_size = world
    planner = _Planner(
        config if isinstance(config, ChainConfig) else load_config(config), individual, world_size
    )
    for stage in planner.config.stages:
        planner.add(stage)
    return planner.result()


class _Planner:
    """Plans a chain stage by stage, small to large; faults are collected until the end."""

    def __init__(self, config: ChainConfig, individual: bool, world_size: int) -> None:
        self.config, self.individual, self.world_size = config, individual, world_size
        self.paradigm: Paradigm = PARADIGMS.build(dict(config.paradigm))
        self.length = _Length(self.paradigm, config.raw.get("default_scope") or "mmengine")
        self.stages: list[StagePlan] = []
        self.warnings: list[str] = []
        self.faults: list[ComptError] = []
        self.before: tuple[Architecture, nn.Module] | None = None
        """The member before, and its model on the meta device."""

    def add(self, stage: StageConfig) -> None:
        """Plan the next stage."""
        model = _meta_model(self.paradigm, stage)
        batch_size = stage.runner["train_dataloader"]["batch_size"]
        with located(f"chain, member '{stage.member.name}'"):
            arch, both = _measure(self.paradigm, model, batch_size)
        params = sum(p.numel() for p in model.parameters())
        grower, taught = self._hop(stage, arch, params)
        iters, alone = self._iters(stage, batch_size)
        teacher_iters = (
            sum(taught.strength(i / iters) > 0 for i in range(iters)) if taught and iters else 0
        )
        samples, index = iters * batch_size * self.world_size, len(self.stages)
        if index and not self.individual and samples > self.stages[-1].samples > 0:
            self.warnings.append(
                f"'{stage.member.name}' sees more samples than the member before it; "
                "the paper lets them fall along the chain."
            )
        self.stages.append(
            StagePlan(
                name=stage.member.name,
                index=index,
                params=params,
                grower=None if self.individual or not index else stage.grower["type"],
                transfer=stage.transfer["type"] if teacher_iters else None,
                batch_size=batch_size * self.world_size,
                iters=iters,
                samples=samples,
                teacher_iters=teacher_iters,
                student_flops=both,
                teacher_flops=self._teacher_flops(taught, batch_size)
                if taught and teacher_iters
                else 0.0,
                alone_samples=alone * batch_size * self.world_size,
                expansion=params / self.stages[-1].params if index else None,
                growth_iters=grower.objective_calls if grower else 0,
                first_samples=self.stages[0].first_samples if index else samples,
            )
        )
        self.before = arch, model

    def _teacher_flops(self, transferer: Transferer, batch_size: int) -> float:
        """Of the teacher's forward pass a sample, for no more than the transferer reads."""
        assert self.before is not None
        model = self.before[1]
        batch = self.paradigm.example_batch(model, batch_size)
        with torch.no_grad():
            flops, _ = _counted(
                lambda: self.paradigm.teacher_forward(model, batch, transferer.needs)
            )
        return flops / batch_size

    def _hop(
        self, stage: StageConfig, arch: Architecture, params: int
    ) -> tuple[Grower | None, Transferer | None]:
        """Check the hop from the member before; return its grower and transferer, None where there
        is no hop.
        """
        if self.before is None or self.individual:
            return None, None
        source, previous = self.before[0], self.stages[-1]
        self.warnings += _hop_warnings(stage, source, arch, previous, params)
        try:
            return _check_hop(stage, self.paradigm, source, arch, previous, params)
        except ComptError as fault:
            self.faults.append(fault)
            return None, None

    def _iters(self, stage: StageConfig, batch_size: int) -> tuple[int, int]:
        """Iterations of the stage, and of the same member trained alone."""
        dataset = stage.runner["train_dataloader"].get("dataset")
        alone = self.length.iters(
            _alone_budget(self.config, stage), batch_size, self.world_size, dataset
        )
        if not self.individual:
            return self.length.iters(stage.budget, batch_size, self.world_size, dataset), alone
        if not alone:
            raise ConfigError(
                "The members have no budget to be trained alone with: the first one's is 0.",
                where="individual",
                do="Give one, for example individual=dict(epochs=10).",
            )
        return alone, alone

    def result(self) -> ChainPlan:
        """The plan, or all faults as one error."""
        if self.faults:
            lines = "\n".join(f"  - {fault}" for fault in self.faults)
            raise self.faults[0] if len(self.faults) == 1 else ConfigError(lines)
        return ChainPlan(
            tuple(self.stages), tuple(self.warnings), self.individual, self.config.published
        )


def _alone_budget(config: ChainConfig, stage: StageConfig) -> tuple[str, float]:
    """The budget of a member trained alone: its own, the configured one, or the first member's."""
    if config.individual is None:
        return config.stages[0].budget
    return stage.budget if config.individual[0] == "chain" else config.individual


class _Length:
    """The number of training samples, looked up only if an epoch has to be turned into
    iterations.
    """

    def __init__(self, paradigm: Paradigm, scope: str) -> None:
        self.paradigm, self.scope = paradigm, scope
        self.known: list[tuple[Any, int]] = []

    def iters(
        self, budget: tuple[str, float], batch_size: int, world_size: int, dataset: Any
    ) -> int:
        """Iterations of a budget; an epoch has no short batch at its end."""
        unit, number = budget
        if unit == "iters" or not number:
            return int(number)
        if unit == "samples":
            return max(1, round(number / (batch_size * world_size)))
        samples = self._samples(dataset)
        if samples < batch_size * world_size:
            raise ConfigError(
                f"A batch of {batch_size} x {world_size} process(es) is larger than the {samples} training samples.",
                where="train_dataloader.batch_size",
                do=f"Use at most {samples // world_size}.",
            )
        return max(1, round(number * (samples // (batch_size * world_size))))

    def _samples(self, dataset: Any) -> int:
        """The length of an mmengine data set, or of the paradigm's own where the config names
        none.
        """
        for known, samples in self.known:
            if known == dataset:
                return samples
        try:
            samples = (
                self.paradigm.num_samples("train")
                if dataset is None
                else len(self._mmengine(dataset))
            )
        except DataError as error:
            do = f"{error.do} To plan without the data, give its num_samples, or budgets in iters or samples."
            raise ConfigError(error.what, where=error.where, do=do) from error
        self.known.append((dataset, samples))
        return samples

    def _mmengine(self, config: Any) -> Any:
        """Open a data set of mmengine; raise DataError with whatever stopped it."""
        try:
            with DefaultScope.overwrite_default_scope(self.scope):
                return DATASETS.build(config)
        except Exception as error:  # a data set raises what it likes
            raise DataError(
                f"The data set cannot be opened: {type(error).__name__}: {error}.",
                where="train_dataloader.dataset",
                do="Check its type and paths.",
            ) from error


def _meta_model(paradigm: Paradigm, stage: StageConfig) -> nn.Module:
    try:
        with torch.device("meta"):
            return paradigm.build_model(stage.member)
    except ComptError:
        raise
    except Exception as error:
        raise ConfigError(
            f"The model of member '{stage.member.name}' cannot be built: {type(error).__name__}: {error}",
            where=f"chain, member '{stage.member.name}'",
        ) from error


def _measure(paradigm: Paradigm, model: nn.Module, batch_size: int) -> tuple[Architecture, float]:
    """Describe a meta model and count its FLOPs a sample, forward and backward."""
    model.train()  # in eval mode torch fuses attention into an operator without a count
    batch = paradigm.example_batch(model, batch_size)

    def step() -> Outputs:
        outputs = paradigm.forward(model, batch)
        sum(paradigm.loss(outputs, batch).values()).backward()  # type: ignore[union-attr]
        return outputs

    try:
        flops, outputs = _counted(step)
    except ComptError:
        raise
    except Exception as error:  # whatever a library raises over parts that do not fit each other
        raise ConfigError(
            f"The model cannot be run: {type(error).__name__}: {error}",
            do="Check that its sizes fit each other.",
        ) from error
    return architecture(paradigm, model, outputs), flops / batch_size


def _counted(run: Callable[[], Any]) -> tuple[float, Any]:
    with FlopCounterMode(display=False) as counter:
        result = run()
    return float(counter.get_total_flops()), result


def _check_hop(
    stage: StageConfig,
    paradigm: Paradigm,
    source: Architecture,
    target: Architecture,
    before: StagePlan,
    params: int,
) -> tuple[Grower, Transferer]:
    """Check order, growth and transfer of one hop; return grower and transferer."""
    where = f"chain, '{before.name}' -> '{stage.member.name}'"
    if params <= before.params:
        raise ConfigError(
            f"The members are not in ascending size: '{stage.member.name}' has {params:,} parameters, "
            f"'{before.name}' before it {before.params:,}.",
            where=where,
            do="Order the chain from small to large.",
        )
    with located(where):
        grower: Grower = GROWERS.build(dict(stage.grower))
        grower.check(source, target)
        stage.grown.check(grower, stage.grower["type"])
        transferer: Transferer = TRANSFERERS.build(dict(stage.transfer))
        missing = sorted(transferer.needs - paradigm.outputs)
        if missing:
            raise ConfigError(
                f"The transfer '{stage.transfer['type']}' needs {missing}, the paradigm has {sorted(paradigm.outputs)}."
            )
        try:
            with torch.device("meta"):
                transferer.bind(source, target)
        except KeyError as error:
            raise ConfigError(
                f"The transfer '{stage.transfer['type']}' found no output {error}."
            ) from error
    return grower, transferer


def _hop_warnings(
    stage: StageConfig, source: Architecture, target: Architecture, before: StagePlan, params: int
) -> list[str]:
    hop = f"'{before.name}' -> '{stage.member.name}'"
    found = []
    ratio = round(params / before.params, 1)  # as it is shown
    if not EXPANSION[0] <= ratio <= EXPANSION[1]:
        found.append(
            f"{hop} grows {ratio:.1f}x in parameters; the paper's chains stay between 2x and 4x."
        )
    for axis, size in source.sizes.items():
        if axis.endswith("head_dim") and target.sizes.get(axis, size) != size:
            found.append(
                f"{hop}: '{axis}' changes from {size} to {target.sizes[axis]}; attention cannot be inherited."
            )
    return found
