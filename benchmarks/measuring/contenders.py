"""Programs that train the same model on the same batches, as users of each library would."""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from compt.config import load_config
from compt.growth.models import build_member
from compt.planning.planner import plan
from compt.registry import PARADIGMS
from compt.training.loader import EndlessBatches
from compt.weights import save_weights
from measuring.contest import DEVICE, Baton

LOG_INTERVAL = 10
"""Iterations after which every program reads its loss, as compt does by default."""


@dataclass(frozen=True)
class Task:
    """One member of a chain, without augmentation, and what it is trained on."""

    config: Mapping[str, Any]
    member: int
    iters: int
    """In all, over which the learning rate falls."""
    one_batch: bool
    """Whether every iteration has the same batch, made before, so that no data is loaded."""

    @cached_property
    def chain(self) -> Any:
        """The checked config."""
        return load_config(dict(self.config))

    @property
    def stage(self) -> Any:
        """The member's stage."""
        return self.chain.stages[self.member]

    @cached_property
    def paradigm(self) -> Any:
        """The paradigm, which knows all members."""
        paradigm = PARADIGMS.build(dict(self.chain.paradigm))
        with torch.device("meta"):
            for stage in self.chain.stages:
                paradigm.build_model(stage.member)
        return paradigm

    def model(self, member: int | None = None) -> nn.Module:
        """Return the member, or another, with the weights that compt begins with."""
        stage = self.chain.stages[self.member if member is None else member]
        seed = self.chain.seed + self.member
        return build_member(self.paradigm, stage.member, seed=seed).to(DEVICE)

    def loader(self, collate: Callable[..., Any] | None = None, batches: int = 10**9) -> Any:
        """Return a loader of so many batches, in the order that compt has them."""
        dataset = self.paradigm.build_dataset("train")
        size = self.stage.batch_size
        order = EndlessBatches(len(dataset), size, seed=self.chain.seed + self.member)
        collate = collate or self.paradigm.collate
        if self.one_batch:
            _, *numbers = next(iter(order))
            return Repeated(collate([dataset[i] for i in numbers]), batches)
        options = {k: v for k, v in self.stage.train_dataloader.items() if k != "batch_size"}
        options = {"pin_memory": DEVICE.type == "cuda", **options}
        sampler = Bounded(order, batches)
        return DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, **options)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the config's optimizer, fused and with compt's two groups of parameters."""
        options = dict(self.stage.optim_wrapper["optimizer"])
        kind: type[torch.optim.Optimizer] = getattr(torch.optim, options.pop("type"))
        params = [p for p in model.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in params if p.ndim >= 2]},
            {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
        ]
        return kind(groups, **{"fused": True, **options})

    def factor(self, iteration: int) -> float:
        """Return the learning rate by its peak: a linear warm-up over 5 %, then a cosine to 0."""
        warm = round(0.05 * self.iters)
        if iteration < warm:
            return 1e-3 + (1 - 1e-3) * iteration / max(1, warm - 1)
        return 0.5 * (1 + math.cos(math.pi * (iteration - warm) / (self.iters - warm)))

    @property
    def peak(self) -> float:
        """The highest learning rate."""
        return float(self.stage.optim_wrapper["optimizer"]["lr"])

    def autocast(self) -> Any:
        """Return the context of the config's precision."""
        return torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.stage.precision == "bf16")


class Bounded:
    """Some batches of an endless sampler, without the seeds of their samples."""

    sampler = None
    """Where mmengine looks for a sampler to be told of epochs."""

    def __init__(self, order: EndlessBatches, batches: int) -> None:
        self.order, self.batches = order, batches

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        for _seed, *numbers in islice(self.order, self.batches):
            yield numbers


class Repeated:
    """A loader of one batch, again and again."""

    dataset = ()

    def __init__(self, batch: Any, batches: int) -> None:
        self.batch, self.batches = batch, batches

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.batches):
            yield self.batch


def compt(task: Task, baton: Baton, *, teacher: bool = False) -> None:
    """Train by compt, as a chain does: Runner, hooks, log files, guard; without evaluations."""
    from mmengine.hooks import Hook

    from compt.report.progress import Silent
    from compt.training.loops import TrainLoop
    from compt.training.runner import run_stage
    from compt.training.stage_config import stage_config

    class Pass(Hook):
        priority = "LOWEST"

        def after_train_iter(self, runner: Any, *args: Any, outputs: Any, **kwargs: Any) -> None:
            baton.step(outputs["loss"])

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
        run.custom_hooks = [Pass()]
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
    shift, scale = _pixels(task)

    def compute(model: nn.Module, batch: Mapping[str, Tensor], teacher: Any) -> Tensor:
        image = torch.addcmul(shift, _sent(batch["image"]).float(), scale)
        text = _sent(batch["text"])
        if teacher is not None:
            with torch.no_grad():
                teacher(image, text)
        result: Tensor = loss(*model(image, text))
        return result

    return compute


def _pixels(task: Task) -> tuple[Tensor, Tensor]:
    mean, std = (
        torch.tensor(v, device=DEVICE).view(3, 1, 1)
        for v in (task.paradigm.mean, task.paradigm.std)
    )
    return -mean / std, 1 / (255 * std)


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


def open_clip_loop(task: Task, baton: Baton) -> None:
    """Train by open_clip's own ``train_one_epoch``."""
    import open_clip
    from open_clip_train.train import train_one_epoch

    shift, scale = (value.cpu() for value in _pixels(task))

    def collate(samples: Any) -> tuple[Tensor, Tensor]:
        batch = task.paradigm.collate(samples)  # open_clip's transforms give normalised pixels
        return torch.addcmul(shift, batch["image"].float(), scale), batch["text"]

    losses: list[Tensor] = []

    class Loss(open_clip.ClipLoss):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            result = super().forward(*args, **kwargs)
            losses[:] = [result["contrastive_loss"].detach()]
            return result

    class Loader:
        def __init__(self) -> None:
            self.inner = task.loader(collate, task.iters)
            self.num_batches, self.batch_size = task.iters, task.stage.batch_size
            self.num_samples = self.num_batches * self.batch_size

        def __iter__(self) -> Iterator[Any]:
            for batch in self.inner:
                yield batch
                baton.step(losses[0])  # the loop asks for the next batch when it is done

    model: Any = task.model()
    model.output_dict = True
    optimizer = task.optimizer(model)

    def rate(step: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = task.peak * task.factor(step)

    arguments = SimpleNamespace(
        device=str(DEVICE),
        precision="amp_bf16" if task.stage.precision == "bf16" else "fp32",
        distill=False,
        accum_freq=1,
        skip_scheduler=False,
        horovod=False,
        grad_clip_norm=None,
        rank=0,
        local_rank=0,
        world_size=1,
        batch_size=task.stage.batch_size,
        log_every_n_steps=LOG_INTERVAL,
        wandb=False,
    )
    data = {"train": SimpleNamespace(dataloader=Loader(), set_epoch=lambda epoch: None)}
    train_one_epoch(model, data, Loss(cache_labels=True), 0, optimizer, None, rate, None, arguments)


def mmpretrain_runner(task: Task, baton: Baton) -> None:
    """Train by mmengine's Runner, as mmpretrain's ``tools/train.py`` does."""
    from mmengine.hooks import Hook
    from mmengine.runner import Runner

    class Pass(Hook):
        priority = "LOWEST"

        def after_train_iter(self, runner: Any, *args: Any, outputs: Any, **kwargs: Any) -> None:
            baton.step(outputs["loss"])

    warm, end = round(0.05 * task.iters), task.iters
    bf16 = {"type": "AmpOptimWrapper", "dtype": "bfloat16"}
    wrapper = bf16 if task.stage.precision == "bf16" else {"type": "OptimWrapper"}
    with tempfile.TemporaryDirectory() as folder:
        model = task.model()
        model.init_weights = lambda: None  # type: ignore[assignment]
        runner = Runner(
            model=model,
            work_dir=folder,
            train_dataloader=task.loader(batches=task.iters),
            train_cfg={"type": "IterBasedTrainLoop", "max_iters": task.iters},
            optim_wrapper={**wrapper, "optimizer": task.optimizer(model)},
            param_scheduler=[
                {"type": "LinearLR", "start_factor": 1e-3, "by_epoch": False, "end": warm},
                {
                    "type": "CosineAnnealingLR",
                    "eta_min": 0.0,
                    "by_epoch": False,
                    "begin": warm,
                    "end": end,
                },
            ],
            default_hooks={
                "logger": {"type": "LoggerHook", "interval": LOG_INTERVAL},
                "checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 10**9},
            },
            custom_hooks=[Pass()],
            default_scope="mmpretrain",
            log_level="WARNING",
            experiment_name="contender",
        )
        runner.train()


def hugging_face_trainer(task: Task, baton: Baton) -> None:
    """Train by the Trainer of transformers."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    losses: list[Tensor] = []

    class Contender(Trainer):
        def get_train_dataloader(self) -> Any:
            return self.accelerator.prepare(task.loader(collate, task.iters))

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss: Any = super().compute_loss(*args, **kwargs)
            losses[:] = [loss.detach()]
            return loss

    class Pass(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            baton.step(losses[0])

    def collate(samples: Any) -> dict[str, Tensor]:
        tokens = task.paradigm.collate(samples)["tokens"]
        # transformers would shift labels by itself, and leave the last position without one.
        inputs, labels = tokens[:, :-1], tokens[:, 1:]
        return {"input_ids": inputs, "labels": inputs, "shift_labels": labels}

    model = task.model()
    optimizer = task.optimizer(model)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=task.iters,
            per_device_train_batch_size=task.stage.batch_size,
            logging_steps=LOG_INTERVAL,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            max_grad_norm=0.0,
            bf16=task.stage.precision == "bf16",
            use_cpu=DEVICE.type == "cpu",
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, task.factor)
        trainer = Contender(
            model=model,
            args=arguments,
            train_dataset=task.paradigm.build_dataset("train"),
            data_collator=collate,
            optimizers=(optimizer, schedule),
            callbacks=[Pass()],
        )
        logging.getLogger("transformers").setLevel(logging.ERROR)
        with contextlib.redirect_stdout(None):
            trainer.train()


PEERS: Mapping[str, Mapping[str, Callable[..., None]]] = {
    "clip": {"open_clip": open_clip_loop},
    "mae": {"mmpretrain": mmpretrain_runner},
    "lm": {"Hugging Face": hugging_face_trainer},
}
"""The loops that a paradigm's users would pick instead."""
