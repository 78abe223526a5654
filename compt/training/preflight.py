"""Find before anything is trained what would stop a stage later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.optim import build_optim_wrapper
from mmengine.registry import (
    DATASETS,
    HOOKS,
    LOG_PROCESSORS,
    METRICS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    VISBACKENDS,
    VISUALIZERS,
    DefaultScope,
    Registry,
)
from mmengine.utils import import_modules_from_strings
from torch import nn
from torch.utils.data import TensorDataset

from compt.config import ChainConfig
from compt.config.faults import Faults
from compt.config.keys import listed
from compt.errors import ComptError, ConfigError, DataError, did_you_mean
from compt.growth.models import build_paradigm
from compt.interfaces import fingerprint
from compt.planning.plans import ChainPlan
from compt.training.loader import eval_loader, loader_options, train_loader
from compt.training.performance import Performance
from compt.training.stage_config import stage_config


def preflight(config: ChainConfig, plan: ChainPlan) -> dict[str, dict[str, Any]]:
    """Open the data, and build all parts of every stage's Runner around a model of one weight.

    Returns:
        The fingerprint of each split.

    Raises:
        ConfigError: with all faults found.
    """
    fingerprints = check_data(config)
    faults = Faults(config.where)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for stage, stage_plan in zip(config.stages, plan.stages, strict=True):
        with _noting(faults, f"attention, compile (stage '{stage.name}')"):
            Performance(**stage.performance.to_dict()).try_on(device)
        folder = Path(stage.name)
        runner = stage_config(config, stage, stage_plan, folder, init=None, teacher=None)
        import_modules_from_strings(runner.custom_imports["imports"])
        with DefaultScope.overwrite_default_scope(runner.default_scope):
            _check_runner(runner, faults)
            if (dataset := stage.train_dataloader.get("dataset")) is not None:
                with _noting(faults, "train_dataloader.dataset"):
                    _check_known(DATASETS, dataset)
                    name = f"train of '{stage.name}'"
                    fingerprints[name] = fingerprint(DATASETS.build(dataset))
    faults.raise_if_any()
    return fingerprints


def check_data(config: ChainConfig) -> dict[str, dict[str, Any]]:
    """Open every split once, so that missing or broken data is found before training.

    Returns:
        The fingerprint of each split that is the paradigm's own.

    Raises:
        ConfigError: a split is missing, empty, or has too many samples that cannot be read.
    """
    paradigm = build_paradigm(config.paradigm)
    with torch.device("meta"):
        for stage in config.stages:
            paradigm.build_model(stage.member)  # data depends on what the members read
    own_training = any(stage.train_dataloader.get("dataset") is None for stage in config.stages)
    own_validation = config.val_dataloader.get("dataset") is None
    splits = [*(["train"] if own_training else []), *(paradigm.splits if own_validation else ())]
    fingerprints = {}
    try:
        for split in splits:
            dataset = paradigm.build_dataset(split)
            if not len(dataset):  # type: ignore[arg-type]
                raise DataError(f"The split '{split}' is empty.")
            fingerprints[split] = fingerprint(dataset)
    except DataError as error:
        raise ConfigError(error.what, where=error.where or "paradigm.data", do=error.do) from error
    return fingerprints


def _check_runner(config: Config, faults: Faults) -> None:
    """Build what a Runner would build, each part on its own."""
    _check_optimizer(config, faults)
    _check_loaders(config, faults)
    for metric in listed(config.val_evaluator):
        with _noting(faults, "val_evaluator"):
            _check_known(METRICS, metric)
            Evaluator(metric)
    for hook in (*config.default_hooks.values(), *config.custom_hooks):
        with _noting(faults, "hooks"):
            _check_known(HOOKS, hook)
            if isinstance(hook, Mapping):
                HOOKS.build(hook)
    with _noting(faults, "log_processor"):
        LOG_PROCESSORS.build({"type": "LogProcessor", **config.log_processor})
    with _noting(faults, "visualizer"):
        _check_known(VISUALIZERS, config.visualizer)
        for backend in listed(config.visualizer.get("vis_backends")):
            _check_known(VISBACKENDS, backend)


def _check_optimizer(config: Config, faults: Faults) -> None:
    model = nn.Linear(1, 1)
    with _noting(faults, "optim_wrapper"):
        _check_known(OPTIM_WRAPPERS, config.optim_wrapper)
        _check_known(OPTIMIZERS, config.optim_wrapper["optimizer"])
        build_optim_wrapper(model, config.optim_wrapper)
    optimizer = torch.optim.AdamW(model.parameters())
    for scheduler in config.param_scheduler:
        with _noting(faults, "param_scheduler"):
            _check_known(PARAM_SCHEDULERS, scheduler)
            PARAM_SCHEDULERS.build(scheduler, default_args={"optimizer": optimizer})


def _check_loaders(config: Config, faults: Faults) -> None:
    data = TensorDataset(torch.zeros(config.train_dataloader["batch_size"], 1))
    with _noting(faults, "train_dataloader"):
        _check_known(DATASETS, config.train_dataloader.get("dataset"))
        options = loader_options(config.train_dataloader)
        train_loader(data, _collate, seed=0, start=0, rank=0, world_size=1, **options)
    with _noting(faults, "val_dataloader"):
        _check_known(DATASETS, config.val_dataloader.get("dataset"))
        eval_loader(data, _collate, **loader_options(config.val_dataloader))


@contextmanager
def _noting(faults: Faults, where: str) -> Iterator[None]:
    """Add whatever is raised to the faults, once."""
    try:
        yield
    except ComptError as error:
        faults.add(f"{where}: {error.one_line}")
    except Exception as error:  # a constructor raises what it likes
        first_line = (str(error).splitlines() or [""])[0]
        faults.add(f"{where}: {type(error).__name__}: {first_line}")


def _check_known(registry: Registry, cfg: Any) -> None:
    """Raise ConfigError where mmengine has nothing of the name that a config asks for."""
    kind = cfg.get("type") if isinstance(cfg, Mapping) else None
    if isinstance(kind, str) and registry.get(kind) is None:
        near = did_you_mean(kind, registry.module_dict)
        raise ConfigError(f"mmengine has no {registry.name} '{kind}'.{near}")


def _collate(samples: Sequence[Any]) -> dict[str, Any]:
    return {"samples": samples}
