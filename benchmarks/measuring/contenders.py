"""Train the same model on the same batches by compt, and in a loop by hand."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compt.planning.planner import plan
from compt.weights import save_weights
from measuring.contest import DEVICE, Baton
from measuring.task import LOG_INTERVAL, Task


def passing(baton: Baton) -> Any:
    """Return a hook of mmengine that passes the baton after each iteration."""
    from mmengine.hooks import Hook

    class Pass(Hook):
        priority = "LOWEST"

        def after_train_iter(self, runner: Any, *args: Any, outputs: Any, **kwargs: Any) -> None:
            baton.step(outputs["loss"])

    return Pass()


def compt(task: Task, baton: Baton, *, teacher: bool = False) -> None:
    """Train by compt, as a chain does: Runner, hooks, log files, guard; without evaluations."""
    from compt.report.progress import Silent
    from compt.training.loops import TrainLoop
    from compt.training.runner import run_stage
    from compt.training.stage_config import stage_config

    stage_plan = replace(plan(task.chain).stages[task.member], iters=task.iters)
    with tempfile.TemporaryDirectory() as folder:
        weights = None
        if teacher:
            smaller = task.chain.stages[task.member - 1]
            path = Path(folder) / "teacher.safetensors"
            save_weights(task.model(task.member - 1), path)
            weights = {"name": smaller.name, "model": smaller.model, "weights": str(path)}
        run = stage_config(
            task.chain, task.stage, stage_plan, Path(folder) / "01_x", init=None, teacher=weights
        )
        run.custom_hooks = [passing(baton)]
        if task.one_batch:
            repeated = task.loader()
            TrainLoop._loader = lambda self: repeated  # type: ignore[method-assign]
        run_stage(run, Silent())


def compt_with_teacher(task: Task, baton: Baton) -> None:
    """Train by compt, with the member before as a teacher."""
    compt(task, baton, teacher=True)


def bare(task: Task, baton: Baton, *, teacher: bool = False) -> None:
    """Train in a loop by hand, written for speed."""
    model = task.model().train()
    smaller = task.model(task.member - 1).eval().requires_grad_(False) if teacher else None
    optimizer, loss_of = task.optimizer(model), LOSSES[task.chain.paradigm["type"]](task)
    for iteration, batch in enumerate(task.loader()):
        for group in optimizer.param_groups:
            group["lr"] = task.peak * task.factor(iteration)
        with task.autocast():
            loss = loss_of(model, batch, smaller)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if hasattr(model, "logit_scale"):
            with torch.no_grad():
                scale: Any = model.logit_scale
                scale.clamp_(0, math.log(100))
        if (iteration + 1) % LOG_INTERVAL == 0:
            loss.item()
        baton.step(loss.detach())


def bare_with_teacher(task: Task, baton: Baton) -> None:
    """Train by hand, and run the member before on every batch, for nothing."""
    bare(task, baton, teacher=True)


def _sent(tensor: Tensor) -> Tensor:
    return tensor.to(DEVICE, non_blocking=True)


def _clip_loss(task: Task) -> Callable[..., Tensor]:
    import open_clip

    loss = open_clip.ClipLoss(cache_labels=True)
    shift, scale = task.pixels()

    def compute(model: nn.Module, batch: Mapping[str, Tensor], teacher: Any) -> Tensor:
        image = torch.addcmul(shift, _sent(batch["image"]).float(), scale)
        text = _sent(batch["text"])
        if teacher is not None:
            with torch.no_grad():
                teacher(image, text)
        result: Tensor = loss(*model(image, text))
        return result

    return compute


def _mae_loss(task: Task) -> Callable[..., Tensor]:
    def compute(model: Any, batch: Mapping[str, Any], teacher: Any) -> Tensor:
        ready = model.data_preprocessor(batch, True)
        if teacher is not None:
            with torch.no_grad():
                teacher.backbone(ready["inputs"])
        result: Tensor = model.loss(ready["inputs"], ready["data_samples"])["loss"]
        return result

    return compute


def _lm_loss(task: Task) -> Callable[..., Tensor]:
    def compute(model: Any, batch: Mapping[str, Tensor], teacher: Any) -> Tensor:
        tokens = _sent(batch["tokens"])
        inputs, labels = tokens[:, :-1], tokens[:, 1:]
        if teacher is not None:
            with torch.no_grad():
                teacher.get_decoder()(input_ids=inputs, use_cache=False)
        logits = model(input_ids=inputs, use_cache=False).logits
        return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten())

    return compute


LOSSES = {"clip": _clip_loss, "mae": _mae_loss, "causal_lm": _lm_loss}
