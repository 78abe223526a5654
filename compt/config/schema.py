"""Declare what a chain says, what a stage says, and what must hold between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from compt.config.averages import AVERAGES, Average
from compt.config.faults import Faults
from compt.config.file import ConfigFile
from compt.config.freezing import Freeze, as_freeze, check_freeze
from compt.config.grown_faults import check_hop
from compt.config.keys import key
from compt.config.mmengine_keys import RunnerKeys, StageRunnerKeys
from compt.config.options import (
    BUDGET_UNITS,
    Budget,
    CardOptions,
    CheckpointOptions,
    CustomImports,
    GrownOptions,
    GuardOptions,
    IndividualBudget,
    PerformanceOptions,
    Published,
    sub_chain_names,
)
from compt.config.parallel import PARALLELS, Parallel, Replicated, Sharded
from compt.config.rates import decay_begin, plateau_fault, with_warmup, without_decay
from compt.config.rates_by_width import RatesByWidth, check_rates_by_width
from compt.config.stopping import RULES, StoppingRule
from compt.config.teachers import TeacherOptions
from compt.files import MAX_NAME, NAME
from compt.interfaces import Member
from compt.registry import GROWERS, PARADIGMS, TRANSFERERS


@dataclass(frozen=True, kw_only=True)
class StageDefaults(PerformanceOptions, StageRunnerKeys):
    """What a chain says for all of its stages, and a stage may override."""

    grower: Mapping[str, Any] = key(
        {"type": "compt:lossless"},
        help="how a member's weights come from the one before it",
        shown_default="`dict(type='lossless')`",
        registry=GROWERS,
    )
    transfer: Mapping[str, Any] = key(
        {"type": "compt:none"},
        help="what a member learns from the features of the one before it",
        shown_default="`dict(type='none')`: in our [study](study.md) none paid",
        registry=TRANSFERERS,
    )
    teacher: TeacherOptions = key(
        TeacherOptions(),
        help="how the teacher of that transfer is run: `dict(precision='bf16')`, "
        "`dict(compile=True)`, `dict(every=4)` or `dict(cache=True)`; see "
        "[below](#what-a-teacher-costs)",
        shown_default="as the student, at every iteration",
    )
    grown: GrownOptions = key(
        GrownOptions(),
        help="how grown members are trained otherwise than from scratch; see "
        "[below](#learning-rates-of-grown-members)",
        shown_default="as from scratch",
    )

    rates_by_width: RatesByWidth | None = key(
        None,
        help="`dict(base='NAME')`: `optim_wrapper.optimizer.lr` is that member's (by default the "
        "first's), and what reads a width has a rate that falls as the width grows, so that one "
        "rate serves all sizes; see [below](#one-rate-for-all-sizes)",
        shown_default="every parameter has the rate as written",
    )

    trunk: bool = key(
        False,
        help="`True`: the next member grows from this one's plateau, the weights where the last "
        "entry of `param_scheduler` begins, while the decayed ones are delivered; see "
        "[below](#growing-from-the-plateau)",
    )

    average: Average | None = key(
        None,
        help="an average of the weights that is delivered in the place of the last ones: "
        "`dict(type='ema', half_life=0.05)` or `dict(type='mean', begin=0.6)`, in fractions of the "
        "stage or in iterations; see [below](#averages)",
        variants=AVERAGES,
    )

    guard: GuardOptions = key(
        GuardOptions(),
        help="what a stage does about losses that leap or are not finite: `dict(retries=3)` goes "
        "back to the last checkpoint and skips the batches since; see [below](#guard)",
        shown_default="spikes are reported, what is not finite ends the stage",
        resumable=True,
    )

    @property
    def performance(self) -> PerformanceOptions:
        """The performance options alone."""
        names = [one.name for one in fields(PerformanceOptions)]
        return PerformanceOptions(**{name: getattr(self, name) for name in names})


def _check_name(value: str, name: str, faults: Faults) -> None:
    if not NAME.fullmatch(value):
        faults.add(
            f"{name}: {value!r} is not a name of letters, digits, '.', '_' and '-', at most "
            f"{MAX_NAME} of them."
        )


@dataclass(frozen=True, kw_only=True)
class StageConfig(Budget, StageDefaults):
    """One member and its stage."""

    name: str = key(help=f"letters, digits, `.`, `_`, `-`, at most {MAX_NAME}", check=_check_name)
    model: Any = key(
        help="as the paradigm reads it: for `clip` an open_clip config dict, model name or folder; "
        "for `mae` an mmpretrain config dict or file; for `causal_lm` a Hugging Face config dict, "
        "folder or name"
    )
    stopping: StoppingRule | None = key(
        None,
        help="a rule that may end the stage before its budget, judged at every evaluation: "
        "`dict(type='until', metric='val/loss', target=1.9)`, or `dict(type='gain', metric=..., "
        "minimum=0.1, patience=1)`, which stops when the metric gains less than that share of the "
        "stage's mean gain a FLOP. `metric` is the main one by default. Learning rates still fall "
        "towards the end of the whole budget",
        variants=RULES,
        old_name="budget",
    )
    init: str | None = key(
        None,
        help="first member only: what you have already, as its library wrote it: an open_clip "
        "folder or checkpoint, an mmpretrain or timm folder or checkpoint (an encoder alone fills "
        "the encoder), a Hugging Face folder, a finished stage's folder, or a file of weights. "
        "With a budget of 0 it is not trained. All members prepare their input as it says",
    )

    freeze: str | Sequence[str] | Freeze | None = key(
        None,
        help="what is not trained: `'old'` for all parameters that were carried over whole from "
        "the member before (which none are of a tensor that grew), or names of the model's "
        "parameters with `*` for any text, one or a list; `dict(params=..., until=0.3)` trains "
        "them too after that share of the stage. Alone, a member is trained whole; see "
        "[below](#frozen-parameters)",
        shown_default="all is trained",
    )

    @property
    def frozen(self) -> Freeze | None:
        """What is not trained, None where all is."""
        return None if self.freeze is None else as_freeze(self.freeze)

    @property
    def member(self) -> Member:
        """The member as the paradigm sees it."""
        return Member(self.name, self.model)

    @property
    def as_grown(self) -> StageConfig:
        """The stage with the schedule and the average of a grown member.

        Rates stay the member's own, as those of a grown one depend on the length of its stage.
        """
        schedules = self.param_scheduler
        if self.grown.warmup is not None:
            schedules = with_warmup(schedules, self.grown.warmup)
        if not self.grown.decay:
            schedules = without_decay(schedules)
        return replace(self, param_scheduler=schedules, average=self.grown.average or self.average)

    @property
    def batch_size(self) -> int:
        """Training samples an iteration and process."""
        batch_size: int = self.train_dataloader["batch_size"]
        return batch_size

    def check(self, faults: Faults, where: str, at_fault: frozenset[str]) -> None:
        """Note a budget that is none, and several."""
        super().check(faults, where, at_fault)
        self._check_trunk(faults, where, at_fault)
        units = list(self.amounts)
        if len(units) != 1 and not at_fault.intersection(BUDGET_UNITS):
            faults.add(
                f"{where.rstrip('.')} needs exactly one of epochs, iters, samples; "
                f"it has {units or 'none'}."
            )
        for unit, number in self.amounts.items():
            if not number and not self.init:
                faults.add(f"{where}{unit}: {number!r} is not a positive number.")
            elif unit != "epochs" and 0 < number < 1:
                faults.add(f"{where}{unit}: {number!r} is not a positive whole number.")

    def _check_trunk(self, faults: Faults, where: str, at_fault: frozenset[str]) -> None:
        """Note that there is no plateau to grow the next member from.

        Stages that are to have no decay once they are grown are judged with their hop.
        """
        is_judged = self.trunk and self.grown.decay
        if is_judged and not at_fault & {"trunk", "param_scheduler"}:
            self.check_plateau(faults, where)

    def check_plateau(self, faults: Faults, where: str) -> None:
        """Note that the stage, as it is, has no plateau, if it is trained."""
        if not self.amount[1]:
            return
        if self.average is not None and decay_begin(self.param_scheduler) is None:
            return  # the average is delivered, and the plateau is all of the stage
        if fault := plateau_fault(self.param_scheduler):
            faults.add(
                f"{where}trunk: there is no plateau to grow from, as {fault}. Let the rate stay "
                "for a while, dict(type='LinearLR', start_factor=1e-3, begin=0.0, end=0.05), "
                "dict(type='CosineAnnealingLR', eta_min=0.0, begin=0.8, end=1.0), or leave out "
                "trunk."
            )


def _check_published(value: Published, name: str, faults: Faults) -> None:
    for sub_chain, number in value.relative_compute.items():
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 < number < 1e9:
            fault = f"{sub_chain!r} is {number!r}, not a positive number."
            faults.add(f"{name}.relative_compute: {fault}")


@dataclass(frozen=True, kw_only=True)
class ChainConfig(StageDefaults, RunnerKeys):
    """A checked config, from which every file after this one works."""

    paradigm: Mapping[str, Any] = key(
        help="`dict(type=..., ...)`: what is trained, on what, with which loss",
        registry=PARADIGMS,
    )
    chain: Sequence[Any] = key(help="the members, small to large; see below")
    individual: IndividualBudget | None = key(
        None,
        help="budget of every member under `--individual`: `dict(epochs=)`, `dict(iters=)`, "
        "`dict(samples=)`, or `dict(budget='chain')` for the member's own in the chain",
        shown_default="the first member's budget",
    )
    parallel: Parallel = key(
        Replicated(),
        help="how several processes share a model: `dict(type='ddp')` replicates it, "
        "`dict(type='fsdp')` shards weights, gradients and optimizer state; see "
        "[below](#sharding)",
        shown_default="`dict(type='ddp')`",
        variants=PARALLELS,
        resumable=True,
    )
    compare: bool = key(
        False,
        help="`True`: after the chain, also train every member alone, with the `individual` "
        "budget, into `WORK_DIR_individual`, and report both; the first member is taken over where "
        "its budget is the same",
        resumable=True,
    )
    published: Published = key(
        Published(),
        help="what a paper reports for this chain, shown in the plan beside our own count: "
        "`dict(source='arXiv 2604.12391', relative_compute={'a->b->c': 0.28, 'b->c': 0.36})`, by "
        "the sub-chains that end with the largest member",
        shown_default="none",
        resumable=True,
        check=_check_published,
    )
    card: CardOptions = key(
        CardOptions(),
        help="what [model cards](exporting.md#model-cards) say beside what compt knows: "
        "`dict(license='apache-2.0', datasets=[...], language='en', title=..., tags=[...], "
        "base_model=...)`",
        shown_default="no licence",
        resumable=True,
    )
    evaluations: int = key(
        4,
        help="evaluations a stage, at equal distances, the last at its end",
        minimum=1,
        maximum=1_000_000,
    )
    checkpoint: CheckpointOptions = key(
        CheckpointOptions(),
        help="`dict(interval=iterations, keep=number)`; with `asynchronous=True` they are written "
        "[beside training](resuming.md#checkpoints-beside-training)",
        shown_default="500, 2",
        resumable=True,
    )
    log_interval: int | None = key(
        None,
        help="iterations between two lines of the log",
        minimum=1,
        shown_default="a tenth of the stage, at most 10",
        resumable=True,
    )
    seed: int = key(
        0,
        help="of weights, order of samples and everything else that is random",
        minimum=0,
        maximum=2**31 - 1,
    )
    work_dir: Path | None = key(
        None, help="where results go", shown_default="`work_dirs/CONFIG_NAME`", resumable=True
    )
    layouts: Mapping[str, Any] = key(
        {},
        help="which layout describes a class of modules, where several packages have one: "
        "`{'open_clip.model.CLIP': 'compt-other:open_clip.model.CLIP'}`",
        shown_default="compt's own",
    )
    custom_imports: CustomImports = key(
        CustomImports(),
        help="`dict(imports=[...])`: modules to import first, such as your own plug-ins",
        shown_default="none",
        treatment="translated",
    )
    file: ConfigFile = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """Name of the config file."""
        return self.file.name

    @property
    def where(self) -> str:
        """Path of the config file, for messages."""
        return self.file.where

    @property
    def where_init(self) -> str:
        """What the first member starts from, for messages, '' where it starts from scratch."""
        first = self.stages[0]
        return f"init of member '{first.name}'" if first.init else ""

    @property
    def stages(self) -> tuple[StageConfig, ...]:
        """The members and their stages, small to large."""
        return tuple(self.chain or ())

    def hands_on_optimizer(self, index: int) -> bool:
        """Return whether the next member takes over what a member's optimizer remembers."""
        following = self.stages[index + 1 :][:1]
        if not following:  # a member may be appended later
            return self.checkpoint.optimizer
        return following[0].grown.optimizer_state

    @property
    def folder(self) -> Path:
        """The work folder, where the command line names none."""
        return Path(self.work_dir or Path("work_dirs") / self.name)

    @property
    def raw(self) -> Mapping[str, Any]:
        """The config as it was given, as plain types, without what is left out."""
        return {name: value for name, value in self.file.content.items() if name in self.all_keys()}

    def check(self, faults: Faults, where: str, at_fault: frozenset[str]) -> None:
        """Note faults between members."""
        super().check(faults, where, at_fault)
        names = Counter(stage.name for stage in self.stages)
        for name, count in sorted((n, c) for n, c in names.items() if c > 1 and n is not None):
            faults.add(
                f"chain: the name '{name}' is used {count} times; members need names of their own."
            )
        for index, stage in enumerate(self.stages):
            if index and stage.init:
                faults.add(
                    f"chain.{index}.init: only the first member can start from a checkpoint; the "
                    "others are grown."
                )
            check_freeze(index, stage, faults)
            if not index and stage.trunk and not stage.grown.decay:
                stage.check_plateau(faults, "chain.0.")
            if index:
                has_alone = self.individual is not None
                check_hop(index, self.stages[index - 1], stage, faults, has_alone=has_alone)
        check_rates_by_width(self.stages, faults)
        self._check_parallel(faults)
        self._check_sub_chains(faults)

    def _check_parallel(self, faults: Faults) -> None:
        """Note another wrapper of a model that is sharded."""
        if isinstance(self.parallel, Sharded) and self.model_wrapper_cfg is not None:
            faults.add(
                "parallel, model_wrapper_cfg: type='fsdp' wraps the model itself: leave out "
                "model_wrapper_cfg."
            )
        has_cache = any(stage.teacher.cache for stage in self.stages)
        if has_cache and isinstance(self.parallel, Sharded) and self.parallel.teacher == "sharded":
            faults.add(
                "parallel.teacher, teacher.cache: a sharded teacher is run by all processes "
                "together, and each looks into the cache for itself; give parallel.teacher='whole'."
            )

    def _check_sub_chains(self, faults: Faults) -> None:
        known = sub_chain_names([stage.name or "?" for stage in self.stages])
        for name in self.published.relative_compute:
            if name not in known:
                ends = ", ".join(map(repr, known)) or "nothing: it has one member"
                faults.add(
                    f"published.relative_compute: {name!r} is no end of this chain, which has "
                    f"{ends}."
                )
