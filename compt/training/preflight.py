"""Find before anything is trained what would stop a stage later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size, is_distributed
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    LOG_PROCESSORS,
    METRICS,
    MODEL_WRAPPERS,
    OPTIM_WRAPPERS,
    PARAM_SCHEDULERS,
    VISBACKENDS,
    VISUALIZERS,
    DefaultScope,
)
from mmengine.utils import import_modules_from_strings
from torch.utils.data import TensorDataset

from compt.config import ChainConfig, StageConfig
from compt.config.faults import Faults
from compt.config.keys import listed
from compt.config.parallel import Sharded
from compt.config.taken_over import DEFAULT_HOOKS
from compt.errors import ComptError, ConfigError, DataError, located
from compt.growth.models import build_paradigm
from compt.interfaces import Paradigm, fingerprint, left_out
from compt.planning.plans import ChainPlan, StagePlan
from compt.registry.loading import first_line, raised_at
from compt.training.averaging import AverageHook
from compt.training.cache_check import check_cache
from compt.training.evaluation import validation_splits
from compt.training.evaluators import build_evaluator
from compt.training.hook_effects import (
    averaging,
    check_averages,
    check_effects,
    check_monitored,
)
from compt.training.loader import (
    EndlessBatches,
    eval_loader,
    loader_options,
    open_dataset,
    train_loader,
)
from compt.training.performance import Performance
from compt.training.rehearsal import check_watchers
from compt.training.schedules import check_schedule, watches_metric
from compt.training.sharding import check_processes, try_step
from compt.training.stage_config import stage_config
from compt.training.trial import (
    check_entrywise,
    check_hook,
    check_memory,
    check_optimizer,
    check_part,
    check_rates_by_width,
    check_scope,
    noting,
)

SCOPED = (DATASETS, METRICS, MODEL_WRAPPERS, VISUALIZERS)
"""Registries of mmengine, each of which knows the scopes of the libraries that are imported."""


@dataclass(frozen=True)
class CheckedData:
    """What was found of each split, by its name, as JSON types."""

    fingerprints: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What else the user has to know."""

    def add(self, name: str, dataset: Any) -> None:
        """Add an opened split.

        Raises:
            DataError: more of it is left out than may be.
        """
        lacks = left_out(dataset)
        lacks.check(name)
        self.left_out[name] = lacks.to_json()
        self.fingerprints[name] = fingerprint(dataset)


def preflight(config: ChainConfig, plan: ChainPlan) -> CheckedData:
    """Open the data, and build all parts of every stage's Runner around a model of one weight.

    Returns:
        What was found of each split.

    Raises:
        ConfigError: with all faults found.
    """
    faults = Faults(config.where)
    check_memory(plan, faults)
    with noting(faults, "default_scope"):
        check_scope(config.default_scope, SCOPED)
    faults.raise_if_any()
    checked = check_data(config)
    paradigm = build_paradigm(config.paradigm)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for stage, stage_plan in zip(config.stages, plan.stages, strict=True):
        with noting(faults, f"attention, compile (stage '{stage.name}')"):
            Performance(**stage.performance.to_dict()).try_on(device)
        _check_teacher(config, stage_plan, checked, faults)
        folder = Path(stage.name)
        runner = stage_config(config, stage, stage_plan, folder, init=None, teacher=None)
        import_modules_from_strings(runner.custom_imports["imports"])
        with DefaultScope.overwrite_default_scope(runner.default_scope):
            if stage.train_dataloader.get("sampler") is not None:
                with noting(faults, "train_dataloader.sampler"):
                    _check_sampler(stage, _of_stage(config, stage_plan.index))
            splits = validation_splits(paradigm, config.val_dataloader)
            _check_runner(runner, splits, faults)
            if stage_plan.grower and stage.grown.has_rate_of_new and not faults.sentences:
                with noting(faults, f"optim_wrapper (stage '{stage.name}')"):
                    check_entrywise(runner.optim_wrapper)
            if stage_plan.width_rates is not None and not faults.sentences:
                with noting(faults, f"optim_wrapper (stage '{stage.name}')"):
                    check_rates_by_width(runner.optim_wrapper)
            if stage is config.stages[0] and not faults.sentences:
                check_watchers(config, runner, faults)
            if (dataset := stage.train_dataloader.get("dataset")) is not None:
                with noting(faults, "train_dataloader.dataset"):
                    check_part(DATASETS, dataset)
                    checked.add(f"train of '{stage.name}'", DATASETS.build(dataset))
    faults.raise_if_any()
    return checked


def _check_teacher(
    config: ChainConfig,
    plan: StagePlan,
    checked: CheckedData,
    faults: Faults,
) -> None:
    """Note what keeps a stage's teacher from being run as its options say."""
    if plan.transfer is None:
        return
    options = config.stages[plan.index].teacher
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.compile:
        with noting(faults, f"teacher.compile (stage '{plan.name}')"):
            Performance(compile=options.compile).try_on(device)
    if options.cache:
        with noting(faults, f"teacher.cache (stage '{plan.name}')"):
            checked.notes.extend(check_cache(config, plan, _of_stage(config, plan.index)))


def _of_stage(config: ChainConfig, index: int) -> Paradigm:
    """Return a paradigm that knows what a stage has to read, as its student was built first."""
    paradigm = build_paradigm(config.paradigm)
    with torch.device("meta"):
        paradigm.build_model(config.stages[index].member)
    return paradigm


def check_data(config: ChainConfig) -> CheckedData:
    """Open every split once, so that missing or broken data is found before training.

    Returns:
        What was found of each split that is the paradigm's own.

    Raises:
        ConfigError: a split is missing, empty, or too much of it is left out or cannot be read.
    """
    with located(config.where_init):
        paradigm = build_paradigm(config.paradigm)
    with torch.device("meta"):
        for stage in config.stages:
            paradigm.build_model(stage.member)  # data depends on what the members read
    checked = CheckedData()
    _open_splits(config, paradigm, checked)
    members = [stage.member for stage in config.stages]
    readers = {member.name for member in paradigm.reads_like(members)}
    for index, member in enumerate(members[1:], start=1):
        if member.name in readers:
            own = _of_stage(config, index)
            _open_splits(config, own, checked, f" of '{member.name}'")
    return checked


def _open_splits(
    config: ChainConfig, paradigm: Paradigm, checked: CheckedData, owner: str = ""
) -> None:
    """Open every split that is the paradigm's own, and note what was found.

    Args:
        config: of the chain.
        paradigm: which has built what reads the data.
        checked: to add it to.
        owner: whose data it is, behind the name of a split.
    """
    own_training = any(stage.train_dataloader.get("dataset") is None for stage in config.stages)
    own_validation = config.val_dataloader.get("dataset") is None
    splits = [*(["train"] if own_training else []), *(paradigm.splits if own_validation else ())]
    try:
        for split in splits:
            dataset = paradigm.build_dataset(split)
            if not len(dataset):  # type: ignore[arg-type]
                raise DataError(f"The split '{split}' is empty.")
            checked.add(f"{split}{owner}", dataset)
            if split == "train" and not owner:
                checked.notes.extend(_other_size(config, len(dataset)))  # type: ignore[arg-type]
    except DataError as error:
        raise ConfigError(error.what, where=error.where or "paradigm.data", do=error.do) from error
    except ComptError:
        raise
    except Exception as error:  # a paradigm raises what it likes
        raise ConfigError(
            f"The split '{split}' cannot be opened: {first_line(error)}", where=raised_at(error)
        ) from error


def _other_size(config: ChainConfig, num_samples: int) -> list[str]:
    """Say that the config declares another size of the training split than it has."""
    data = config.paradigm.get("data")
    declared = data.get("num_samples") if isinstance(data, Mapping) else None
    if declared in (None, num_samples):
        return []
    return [
        f"data of 'train': num_samples={declared} in the config, {num_samples:,} in the data; "
        "lengths in epochs are those of the config's"
    ]


def _check_runner(config: Config, splits: Sequence[str], faults: Faults) -> None:
    """Build what a Runner would build, each part on its own."""
    _check_optimizer(config, splits, faults)
    _check_loaders(config, faults)
    for evaluator in config.val_evaluator:
        with noting(faults, "val_evaluator"):
            for metric in listed(evaluator.get("metrics", evaluator)):
                check_part(METRICS, metric)
            build_evaluator(evaluator)
    _check_hooks(config, splits, faults)
    if config.get("parallel") is not None and is_distributed() and not faults.sentences:
        with noting(faults, "parallel"):
            _check_sharding(config)
    with noting(faults, "log_processor"):
        log_processor = {"type": "LogProcessor", **config.log_processor}
        check_part(LOG_PROCESSORS, log_processor)
        LOG_PROCESSORS.build(log_processor)
    with noting(faults, "visualizer"):
        check_part(VISUALIZERS, config.visualizer, unbuilt=True)
        for backend in listed(config.visualizer.get("vis_backends")):
            check_part(VISBACKENDS, backend, unbuilt=True)
    if config.get("model_wrapper_cfg") is not None:
        with noting(faults, "model_wrapper_cfg"):
            check_part(MODEL_WRAPPERS, config.model_wrapper_cfg, unbuilt=True)
            _check_wrapper(config.model_wrapper_cfg["type"])


def _check_wrapper(kind: Any) -> None:
    """Raise ConfigError for a wrapper that leaves no process with the whole model."""
    wrapper = MODEL_WRAPPERS.get(kind) if isinstance(kind, str) else kind
    if not issubclass(wrapper, MMDistributedDataParallel):
        raise ConfigError(
            f"{wrapper.__name__} does not keep the whole model in each process.",
            do="Give MMDistributedDataParallel, or a class of your own that is one.",
        )


def _check_sharding(config: Config) -> None:
    """Raise ConfigError for what a stage cannot do with weights of which it has a share."""
    check_processes(Sharded(**config.parallel))
    hooks = averaging([*filter(None, config.default_hooks.values()), *config.custom_hooks])
    for hook in (hook for hook in hooks if not issubclass(hook, AverageHook)):
        raise ConfigError(
            f"{hook.__name__} copies the model, and needs all of it in each process.",
            do="Give average=dict(type='ema', half_life=...) in its place, or "
            "parallel=dict(type='ddp').",
        )
    kind = config.optim_wrapper["type"]
    if issubclass(OPTIM_WRAPPERS.get(kind) if isinstance(kind, str) else kind, AmpOptimWrapper):
        raise ConfigError(
            "AmpOptimWrapper scales the loss, which sharded gradients do not follow.",
            do="Give precision='bf16' in its place.",
        )
    try_step(Sharded(**config.parallel), config.optim_wrapper)


def _check_hooks(config: Config, splits: Sequence[str], faults: Faults) -> None:
    iters = config.train_cfg["max_iters"]
    for name, hook in config.default_hooks.items():
        if hook is not None:  # None switches one of mmengine's off
            with noting(faults, f"default_hooks.{name}"):
                check_hook(hook)
                is_default = name in DEFAULT_HOOKS
                check_effects(hook, iters=iters, splits=splits, is_default=is_default)
    for hook in config.custom_hooks:
        with noting(faults, "custom_hooks"):
            check_hook(hook)
            check_effects(hook, iters=iters, splits=splits)
    with noting(faults, "custom_hooks"):
        check_averages([*filter(None, config.default_hooks.values()), *config.custom_hooks])


def _check_optimizer(config: Config, splits: Sequence[str], faults: Faults) -> None:
    with noting(faults, "optim_wrapper"):
        check_optimizer(config.optim_wrapper)
    for scheduler in config.param_scheduler:
        with noting(faults, "param_scheduler"):
            check_part(PARAM_SCHEDULERS, scheduler)
            check_schedule(scheduler, config.train_cfg["max_iters"])
            if watches_metric(scheduler):
                check_monitored(scheduler.get("monitor", "loss"), splits, scheduler["type"])


def _check_loaders(config: Config, faults: Faults) -> None:
    data = TensorDataset(torch.zeros(config.train_dataloader["batch_size"], 1))
    with noting(faults, "train_dataloader"):
        options = {**loader_options(config.train_dataloader), "sampler": None}
        train_loader(data, _collate, seed=0, start=0, rank=0, world_size=1, **options)
    with noting(faults, "val_dataloader"):
        if (dataset := config.val_dataloader.get("dataset")) is not None:
            check_part(DATASETS, dataset)
        eval_loader(data, _collate, **loader_options(config.val_dataloader))


def _check_sampler(stage: StageConfig, paradigm: Paradigm) -> None:
    """Raise ConfigError where a sampler cannot be made, or has epochs of another length."""
    options = loader_options(stage.train_dataloader)
    check_part(DATA_SAMPLERS, options["sampler"])
    dataset = open_dataset(paradigm, stage.train_dataloader, "train")
    place = {"rank": get_rank(), "world_size": get_world_size()}
    batches = train_loader(dataset, _collate, seed=0, start=0, **place, **options).batch_sampler
    assert isinstance(batches, EndlessBatches)
    num_samples = len(dataset)  # type: ignore[arg-type]
    num_sampled = len(batches.order) * get_world_size()
    if stage.amount[0] == "epochs" and abs(num_sampled - num_samples) >= get_world_size():
        raise ConfigError(
            f"It yields {num_sampled} samples an epoch, and the data set has {num_samples}.",
            do="Give the stage iters or samples, not epochs.",
        )


def _collate(samples: Sequence[Any]) -> dict[str, Any]:
    return {"samples": samples}
