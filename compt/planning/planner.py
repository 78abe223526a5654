"""Plan order, sizes, growth, transfer and compute of a chain, on the meta device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from compt.config import ChainConfig, StageConfig, load_config
from compt.config.entries import behind_the_end, unmatched_keys
from compt.config.taken_over import left_out
from compt.errors import ComptError, ConfigError, located, some
from compt.growth.models import build_paradigm
from compt.growth.width_rates import width_rates
from compt.interfaces import Architecture, Batch, Grower, Transferer, warn_renamed
from compt.interfaces.paradigm import FOLLOW
from compt.planning.flops import FlopCounter
from compt.planning.freezing import plan_frozen
from compt.planning.hops import check_hop, hop_warnings
from compt.planning.length import TrainingLength
from compt.planning.measure import (
    Measured,
    count_parameters,
    measure_teacher,
    measure_training,
    meta_model,
)
from compt.planning.plans import ChainPlan, Frozen, StagePlan
from compt.planning.plateau import plateau_iter
from compt.planning.teaching import count_asked, count_not_cached
from compt.registry import LAYOUTS
from compt.registry.registry import short_name


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
    checked = config if isinstance(config, ChainConfig) else load_config(config)
    with LAYOUTS.choosing(checked.layouts):
        planner = _Planner(checked, individual, world_size)
        for stage in checked.stages:
            planner.add(stage)
        return planner.result()


class _Planner:
    """Plan a chain stage by stage, small to large, and collect faults until the end."""

    def __init__(self, config: ChainConfig, individual: bool, world_size: int) -> None:
        self.config, self.individual, self.world_size = config, individual, world_size
        with located(config.where_init):
            self.paradigm = build_paradigm(config.paradigm, missing_ok=True)
            readers = self.paradigm.reads_like([stage.member for stage in config.stages])
        self.readers = {s.name: r for s, r in zip(config.stages, readers, strict=True)}
        self.lengths: dict[str, TrainingLength] = {}
        """By the name of a member that reads the data in its own way."""
        self.counter = FlopCounter()
        self.stages: list[StagePlan] = []
        self.warnings = _left_out(config)
        self.faults: list[ComptError] = []
        self.source: tuple[Architecture, nn.Module] | None = None
        """The member before, and its model on the meta device."""
        self.architectures: dict[str, Architecture] = {}
        """Of the members so far, by name."""

    def length(self, stage: StageConfig) -> TrainingLength:
        """Return the length of the data as a stage's member reads it."""
        reader = self.readers[stage.name]
        if reader.name not in self.lengths:
            paradigm = self.paradigm
            if reader != self.config.stages[0].member:
                paradigm = build_paradigm(self.config.paradigm, missing_ok=True)
                meta_model(paradigm, reader, self.counter)  # data depends on what the member reads
            scope = self.config.default_scope
            self.lengths[reader.name] = TrainingLength(paradigm, scope, self.world_size)
        return self.lengths[reader.name]

    def add(self, stage: StageConfig) -> None:
        """Plan the next stage."""
        index = len(self.stages)
        grows = bool(index) and not self.individual
        stage = stage.as_grown if grows else stage
        model = meta_model(self.paradigm, stage.member, self.counter)
        with located(f"chain, member '{stage.name}'"):
            measured = measure_training(self.paradigm, model, stage.batch_size, self.counter)
        num_params = count_parameters(model)
        grower, transferer = self._hop(stage, measured.arch, num_params)
        iters, alone_iters = self._iters(stage)
        late = behind_the_end(stage.param_scheduler, iters)
        self.warnings += [f"'{stage.name}': {line}." for line in late]
        for key in unmatched_keys(stage.optim_wrapper, (n for n, _ in model.named_parameters())):
            text = f"paramwise_cfg.custom_keys: {key!r} is in no parameter's name"
            self.warnings.append(f"'{stage.name}': {text}.")
        teacher_iters = self._teacher_iters(transferer, stage, iters)
        teacher_flops = 0.0
        if transferer is not None and teacher_iters:
            teacher_flops = self._teacher_flops(transferer, measured.batch, stage.batch_size)
        batch_size = stage.batch_size * self.world_size
        self.stages.append(
            StagePlan(
                name=stage.name,
                index=index,
                params=num_params,
                grower=short_name(stage.grower["type"]) if grows else None,
                transfer=short_name(stage.transfer["type"]) if teacher_iters else None,
                batch_size=batch_size,
                iters=iters,
                samples=iters * batch_size,
                teacher_iters=teacher_iters,
                student_flops=measured.flops,
                teacher_flops=teacher_flops,
                alone_samples=alone_iters * batch_size,
                expansion=num_params / self.stages[-1].params if index else None,
                growth_iters=grower.objective_calls if grower else 0,
                lr_mult=stage.grown.rate(iters / (alone_iters or 1)) if grows else 1.0,
                plateau_iter=self._plateau_iter(stage, iters),
                first_samples=self.stages[0].first_samples if index else iters * batch_size,
                frozen=self._frozen(stage, model, measured, grower, iters),
            )
        )
        self._compare_samples()
        self.source = measured.arch, model
        self.architectures[stage.name] = measured.arch

    def result(self) -> ChainPlan:
        """Return the plan, or raise all faults as one error."""
        if len(self.faults) == 1:
            raise self.faults[0]
        if self.faults:
            raise ConfigError("\n".join(f"  - {fault}" for fault in self.faults))
        published = self.config.published.to_dict()
        warnings = (*self.warnings, *self._followed())
        warnings = (*warnings, *self._unused_teachers())
        stages = tuple(map(self._with_width_rates, self.stages, self.config.stages))
        return ChainPlan(stages, warnings, self.individual, published)

    def _unused_teachers(self) -> list[str]:
        """Say whose options of a teacher have no effect, as none is run."""
        if self.individual:
            return []
        pairs = zip(self.stages[1:], self.config.stages[1:], strict=True)
        options = [(stage.name, plan, stage.teacher.to_dict()) for plan, stage in pairs]
        names = [name for name, plan, given in options if given and not plan.transfer]
        transfers = "their transfers have no weight"
        return [f"teacher=... of {some(names)} is not used: {transfers}."] if names else []

    def _with_width_rates(self, plan: StagePlan, stage: StageConfig) -> StagePlan:
        """Return a stage's plan with its rates by width, whose base may be a later member."""
        if stage.rates_by_width is None:
            return plan
        base = stage.rates_by_width.base or self.config.stages[0].name
        member = self.architectures[stage.name]
        return replace(plan, width_rates=width_rates(member, self.architectures[base], base))

    def _followed(self) -> list[str]:
        """Say what of the checkpoint that the chain starts from is not taken over."""
        path = self.config.paradigm.get(FOLLOW)
        if path is None:
            return []
        if not Path(path).exists():
            return [f"init: there is no '{path}' here, so what it says of inputs is not known."]
        dtype, notes = self.paradigm.weight_dtype(Path(path)), list(self.paradigm.notes)
        if dtype not in (None, torch.float32):
            stored = str(dtype).removeprefix("torch.")
            notes.append(f"'{path}' holds {stored}; members are trained and exported in float32.")
        return notes

    def _hop(
        self, stage: StageConfig, arch: Architecture, num_params: int
    ) -> tuple[Grower | None, Transferer | None]:
        """Check the hop from the member before, and return its grower and transferer, if any."""
        if self.source is None or self.individual:
            return None, None
        source, previous = self.source[0], self.stages[-1]
        self.warnings += hop_warnings(stage, source, arch, previous, num_params)
        reads_alike = self.readers[stage.name] == self.readers[previous.name]
        if not reads_alike and short_name(stage.grower["type"]) != "scratch":
            self.warnings.append(
                f"'{previous.name}' -> '{stage.name}': the two read the data in different ways, so "
                "that what grows was trained on other inputs, such as ids of another tokenizer."
            )
        try:
            return check_hop(stage, self.paradigm, source, arch, previous, num_params)
        except ComptError as fault:
            self.faults.append(fault)
            return None, None

    def _frozen(
        self,
        stage: StageConfig,
        model: nn.Module,
        measured: Measured,
        grower: Grower | None,
        iters: int,
    ) -> Frozen | None:
        """Plan what a stage does not train; alone, and where the hop is at fault, it trains all."""
        if self.individual or (self.stages and grower is None):
            return None
        hop = (self.source[0], grower) if self.source is not None and grower else None
        try:
            return plan_frozen(stage, self.paradigm, model, measured, hop, iters, self.counter)
        except ComptError as fault:
            self.faults.append(fault)
            return None

    def _plateau_iter(self, stage: StageConfig, iters: int) -> int | None:
        if self.individual:
            return None
        try:
            return plateau_iter(stage, iters)
        except ComptError as fault:
            self.faults.append(fault)
            return None

    def _iters(self, stage: StageConfig) -> tuple[int, int]:
        """Return the iterations of the stage, and of the same member trained alone."""
        dataset = stage.train_dataloader.get("dataset")
        length = self.length(stage)
        alone = length.iters(_alone_budget(self.config, stage), stage.batch_size, dataset)
        if not self.individual:
            return length.iters(stage.amount, stage.batch_size, dataset), alone
        if not alone:
            raise ConfigError(
                "The members have no budget to be trained alone with: the first one's is 0.",
                where="individual",
                do="Give one, for example individual=dict(epochs=10).",
            )
        return alone, alone

    def _teacher_iters(self, transferer: Transferer | None, stage: StageConfig, iters: int) -> int:
        """Count the iterations at which the teacher is run, less those that a cache answers."""
        asked = count_asked(transferer, iters, stage.teacher.every)
        if not (asked and stage.teacher.cache):
            return asked
        global_batch = stage.batch_size * self.world_size
        dataset = stage.train_dataloader.get("dataset")
        try:
            num_samples = self.length(stage).num_samples(dataset)
        except ComptError:  # where the data is not: at most as often as without a cache
            return asked
        return count_not_cached(asked, num_samples, global_batch)

    def _teacher_flops(self, transferer: Transferer, batch: Batch, batch_size: int) -> float:
        assert self.source is not None
        source, needs = self.source[1], transferer.needs
        return measure_teacher(self.paradigm, source, batch, batch_size, needs, self.counter)

    def _compare_samples(self) -> None:
        """Warn where a member sees more samples than the one before it."""
        if len(self.stages) < 2 or self.individual:
            return
        previous, stage = self.stages[-2:]
        if stage.samples > previous.samples > 0:
            self.warnings.append(
                f"'{stage.name}' sees more samples than the member before it; "
                "the paper lets them fall along the chain."
            )


def _left_out(config: ChainConfig) -> list[str]:
    """Say which keys of base files, and which default hooks, the chain does not take over."""
    names, notes = config.file.left_out, left_out(config.default_hooks)
    if not names:
        return notes
    keys = "1 key of base files is" if len(names) == 1 else f"{len(names)} keys of base files are"
    return [f"{keys} left out, as a chain says them otherwise: {', '.join(names)}.", *notes]


def _alone_budget(config: ChainConfig, stage: StageConfig) -> tuple[str, float]:
    """Return the budget of a member trained alone, as unit and number."""
    if config.individual is None:
        return config.stages[0].amount
    return stage.amount if config.individual.budget == "chain" else config.individual.amount
