"""Train the same model on the same batches by the loops of other libraries."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from measuring.contenders import passing
from measuring.contest import DEVICE, Baton
from measuring.task import LOG_INTERVAL, Task


def open_clip_loop(task: Task, baton: Baton) -> None:
    """Train by open_clip's own ``train_one_epoch``."""
    import open_clip
    from open_clip_train.train import train_one_epoch

    shift, scale = (value.cpu() for value in task.pixels())

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
    from mmengine.runner import Runner

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
            custom_hooks=[passing(baton)],
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
        # Its loss views labels flat, which slices of a batch are not.
        inputs, labels = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
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
