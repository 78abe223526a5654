"""Measure a member with fresh weights on a batch, so that what watches a metric is judged early."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device

from compt.config import ChainConfig
from compt.config.faults import Faults
from compt.errors import ComptError
from compt.training.evaluation import EvalLoop
from compt.training.hook_effects import early_stopping
from compt.training.schedules import build, watches_metric
from compt.training.stage import StageModel


def check_watchers(config: ChainConfig, stage: Config, faults: Faults) -> None:
    """Note what waits for a metric that is not measured, or takes its worse side for the better.

    Args:
        config: of the chain.
        stage: Runner config of its first stage.
        faults: where to note them.
    """
    schedules = filter(watches_metric, stage.param_scheduler)
    watchers = {"hooks": early_stopping(stage), "param_schedulers": list(map(build, schedules))}
    rules = [(member.name, member.stopping) for member in config.stages if member.stopping]
    if not (rules or stage.val_evaluator or any(watchers.values())):
        return
    try:
        metrics = _rehearse(stage, watchers)
    except ComptError as error:
        faults.add(error.one_line)
        return
    except Exception:  # one batch may be too little for a paradigm's metrics
        return
    for name, rule in rules:
        try:
            rule.reached([{"iter": 0, "metrics": metrics}])
        except ComptError as error:
            faults.add(f"stopping of '{name}': {error.one_line}")


def _rehearse(config: Config, watchers: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Return the metrics of the first stage's student on the first batch of each split."""
    model = StageModel(**{name: value for name, value in config.model.items() if name != "type"})
    runner: Any = SimpleNamespace(
        model=model.to(get_device()),
        call_hook=lambda *_, **__: None,
        train_loop=SimpleNamespace(options=_in_this_process(config.train_dataloader)),
        **watchers,
    )
    loader = _in_this_process(config.val_dataloader)
    return EvalLoop(runner, loader, config.val_evaluator, max_batches=1).run()


def _in_this_process(loader: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dataloader's config without what is for the processes that read samples."""
    of_workers = ("persistent_workers", "prefetch_factor", "timeout", "multiprocessing_context")
    content = {name: value for name, value in loader.items() if name not in of_workers}
    return {**content, "num_workers": 0}
