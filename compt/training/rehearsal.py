"""Measure a member with fresh weights, so that what watches a metric is judged before training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device

from compt.config import ChainConfig
from compt.config.faults import Faults
from compt.config.keys import listed
from compt.errors import ComptError
from compt.training.evaluation import EvalLoop
from compt.training.hook_effects import check_watched, early_stopping
from compt.training.schedules import build, in_iterations, watches_metric
from compt.training.stage import StageModel

Metrics = Mapping[str, Mapping[str, Any]]


def check_watchers(config: ChainConfig, stage: Config, faults: Faults) -> None:
    """Note what waits for a metric that is not measured, or takes its worse side for the better.

    One batch of each split tells it. Only where something is at fault there, the whole splits are
    measured, as some metrics need more samples.

    Args:
        config: of the chain.
        stage: Runner config of its first stage.
        faults: where to note them.
    """
    plans = [plan for member in config.stages for plan in listed(member.param_scheduler)]
    schedules = [build(plan) for plan in in_iterations(filter(watches_metric, plans), 1)]
    watchers = [*early_stopping(stage), *schedules]
    if not (watchers or stage.val_evaluator or any(member.stopping for member in config.stages)):
        return
    problems: list[str] = []
    for max_batches in (1, None):
        try:
            problems = list(_problems(config, watchers, _rehearse(stage, max_batches)))
        except ComptError as error:
            problems = [error.one_line]
        except Exception:  # one batch may be too little for a paradigm's metrics
            return
        if not problems:
            return
    for problem in problems:
        faults.add(problem)


def _problems(config: ChainConfig, watchers: list[Any], metrics: Metrics) -> Iterator[str]:
    """Yield what is wrong with each rule, hook and schedule that watches one of these metrics."""
    for member in config.stages:
        if member.stopping is None:
            continue
        try:
            member.stopping.reached([{"iter": 0, "metrics": metrics}])
        except ComptError as error:
            yield f"stopping of '{member.name}': {error.one_line}"
    for watcher in watchers:
        try:
            check_watched(watcher, metrics)
        except ComptError as error:
            yield error.one_line


def _rehearse(config: Config, max_batches: int | None) -> Metrics:
    """Return the metrics of the first stage's student, on so many batches of each split."""
    model = StageModel(**{name: value for name, value in config.model.items() if name != "type"})
    runner: Any = SimpleNamespace(
        model=model.to(get_device()),
        hooks=[],
        param_schedulers=[],
        call_hook=lambda *_, **__: None,
        train_loop=SimpleNamespace(options=_in_this_process(config.train_dataloader)),
    )
    loader = _in_this_process(config.val_dataloader)
    return EvalLoop(runner, loader, config.val_evaluator, max_batches=max_batches).run()


def _in_this_process(loader: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dataloader's config without what is for the processes that read samples."""
    of_workers = ("persistent_workers", "prefetch_factor", "timeout", "multiprocessing_context")
    content = {name: value for name, value in loader.items() if name not in of_workers}
    return {**content, "num_workers": 0}
