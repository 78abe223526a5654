"""Run a stage in the only file that builds an mmengine Runner."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings
from mmengine.visualization import Visualizer
from torch import Tensor, nn

from compt.config.parallel import Sharded
from compt.interfaces import left_out
from compt.report.outcome import StageOutcome, Usage
from compt.report.progress import StageProgress
from compt.training.failures import say_once
from compt.training.freed_memory import give_memory_back, keep_freed_memory
from compt.training.hook_effects import deliver
from compt.training.hooks import ProgressHook
from compt.training.known_samples import bring_together
from compt.training.loops import TrainLoop
from compt.training.optim import UnreadNorms, named_state
from compt.training.sharding import adapt, is_sharded, shard_stage
from compt.training.stage import StageModel, stage_model
from compt.training.stage_config import LOG_INTERVAL
from compt.training.tracking import Tracking
from compt.training.tracking_guard import guarded
from compt.training.usage import UsageHook


@dataclass(frozen=True)
class StageResult:
    """A trained student, and how its training went."""

    student: nn.Module | None
    """None in all processes but the first, where it is sharded."""
    outcome: StageOutcome
    optimizer: Mapping[str, Tensor]
    """What its optimizer remembers; see :func:`compt.training.optim.named_state`."""


class StageRunner(Runner):
    """mmengine's Runner with its log in files only, as the terminal shows the chain."""

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger without its console handler."""
        logger = super().build_logger(*args, **kwargs)
        for handler in list(logger.handlers):
            if isinstance(handler, logging.FileHandler):
                say_once(handler)
            elif isinstance(handler, logging.StreamHandler):
                logger.removeHandler(handler)
        return logger

    def build_visualizer(self, *args: Any, **kwargs: Any) -> Visualizer:
        """Build the visualizer with back ends whose failures do not end the training."""
        return guarded(super().build_visualizer(*args, **kwargs))

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: nn.Module) -> nn.Module:
        """Shard the model where the config says so, else wrap it as mmengine does."""
        options = self.cfg.get("parallel")
        if options is None or not self.distributed:
            wrapped: nn.Module = super().wrap_model(model_wrapper_cfg, model)
            return wrapped
        assert isinstance(model, StageModel)
        return shard_stage(model, Sharded(**options))

    def build_optim_wrapper(self, optim_wrapper: Any) -> OptimWrapper:
        """Build the optimizer, which may have to step sharded parameters."""
        wrapper = super().build_optim_wrapper(optim_wrapper)
        if is_sharded(self.model):
            adapt(wrapper, self.model.parameters())
        if getattr(wrapper, "clip_grad_kwargs", None):
            UnreadNorms(wrapper)
        return wrapper

    def _init_model_weights(self) -> None:
        """Leave sharded weights as they are, which mmengine would overwrite by the first's."""
        if not is_sharded(self.model):
            super()._init_model_weights()

    def train(self) -> nn.Module:
        """Train, then close the log, as a chain has many stages."""
        try:
            model: nn.Module = super().train()
        finally:
            for handler in list(self.logger.handlers):
                handler.close()
                self.logger.removeHandler(handler)
        return model

    def dump_config(self) -> None:
        """Do nothing, as the chain has written the stage's config.py."""


def run_stage(
    config: Config,
    progress: StageProgress,
    tracking: Tracking | None = None,
    hands_on_optimizer: bool = True,
) -> StageResult:
    """Train one stage, or what is left of it.

    Args:
        config: of :func:`compt.training.stage_config.stage_config`.
        progress: told how it gets on.
        tracking: begins the stage's runs in trackers, and ends them.
        hands_on_optimizer: whether the result needs what the optimizer remembers, which may have
            to be gathered.

    Raises:
        TrainingError: it cannot go on; what it saved is kept.
    """
    # mmengine logs the config four times a stage. Formatting it takes longer than all else at its
    # start, and the copy for people, config.py, is formatted already.
    config = Config(config.to_dict(), format_python_code=False)
    iters = config.train_cfg["max_iters"]
    import_modules_from_strings(config.custom_imports["imports"])
    if tracking is not None:
        config.visualizer = tracking.continued(config.visualizer)
    is_kept = get_device() == "cpu" and keep_freed_memory()
    try:
        runner = StageRunner.from_cfg(config)
        if tracking is not None:
            tracking.take(runner)
        usage = UsageHook()
        runner.register_hook(usage)
        runner.register_hook(ProgressHook(progress, max(1, min(LOG_INTERVAL, iters // 20))))
        runner.train()
        return _result(runner, usage.result(), hands_on_optimizer=hands_on_optimizer)
    finally:
        if is_kept:
            give_memory_back()


def _result(runner: Runner, usage: Usage, *, hands_on_optimizer: bool) -> StageResult:
    """Return what a stage has trained, with the weights that its hooks deliver."""
    loop = runner.train_loop
    assert isinstance(loop, TrainLoop)
    datasets = {"train": loop.dataset, **getattr(runner.val_loop, "datasets", {})}
    for dataset in datasets.values():
        bring_together(dataset)
    broken = getattr(loop.dataset, "broken_count", 0)
    hooks = deliver(runner)
    stage = stage_model(runner)
    memory: Mapping[str, Tensor] = {}
    if hands_on_optimizer:
        memory = stage.whole(named_state(stage.student, runner.optim_wrapper.optimizer))
    outcome = StageOutcome(
        iters=loop.iter,
        seconds=loop.seconds,
        curve=loop.curve,
        broken_samples=broken,
        left_out={split: left_out(dataset).to_json() for split, dataset in datasets.items()},
        stopped=loop.stopped,
        plateau_iter=None if loop.plateau_iter is None else min(loop.plateau_iter, loop.iter),
        delivered=", ".join(hooks) or "last",
        raw_metrics=loop.raw_metrics,
        repeated=loop.repeated,
        spikes=tuple(asdict(spike) for spike in loop.losses.spikes),
        rollbacks=tuple(asdict(rollback) for rollback in loop.rollbacks),
        **usage.usage | loop.teacher_usage(),
    )
    return StageResult(stage.whole_student(), outcome, memory)
