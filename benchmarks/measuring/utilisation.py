"""Measure how much of a device's matrix multiplication a stage reaches, and what breaks it."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper
from scale_on_gpu import Row
from torch import Tensor

import compt
import compt.training.optim
from compt.interfaces import Member
from compt.planning.flops import FlopCounter
from compt.planning.measure import measure_training, meta_model
from compt.registry import PARADIGMS
from compt.training.loops import TrainLoop
from compt.training.meters import matmul_rate
from compt.training.stage import StageModel
from compt.weights import read_state

GOAL = 50.0
"""Per cent of the measured matmul rate that a step of a large model is to reach."""
OPTIMIZER = {
    "type": "OptimWrapper",
    "constructor": "ComptOptimWrapperConstructor",
    "optimizer": {"type": "AdamW", "lr": 1e-4},
}
SYNCHRONISED = "called a synchronizing CUDA operation"
"""What torch warns of where the host waits for the device."""


@dataclass(frozen=True)
class Trained:
    """A model whose steps are timed."""

    name: str
    paradigm: Mapping[str, Any]
    model: Any
    batch_size: int
    goal: float | None = GOAL
    performance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sizes:
    """What is measured, and how long."""

    models: tuple[Trained, ...]
    matmul: int
    """Rows and columns of the matrices whose multiplication is the measure."""
    steps: int = 20
    warm_up: int = 5


def _clip(name: str, batch_size: int, **performance: Any) -> Trained:
    label = f"CLIP {name}, 224 px, batches of {batch_size}"
    if "compile" in performance and performance["compile"] is not True:
        label += ", CUDA graphs"
    options = {"precision": "bf16", "compile": True, **performance}
    return Trained(label, {"type": "clip"}, name, batch_size, performance=options)


LM = {
    "model_type": "llama",
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
}
"""About 350 million parameters; its vocabulary of bytes needs no download."""
ON_GPU = Sizes(
    models=(
        _clip("ViT-B-16", 256),
        _clip("ViT-L-16", 128),
        Trained(
            "language model of 350 M, context 2,048, batches of 16",
            {"type": "causal_lm", "context": 2048},
            LM,
            16,
            performance={"precision": "bf16", "compile": True},
        ),
        _clip("ViT-B-16", 256, compile={"mode": "reduce-overhead"}),
    ),
    matmul=8192,
)


def rows_of(trained: Trained, sizes: Sizes, rate: float) -> list[Row]:
    """Time the steps of one model, and count what keeps the device from working on.

    Args:
        trained: the model.
        sizes: how many steps.
        rate: at which the device multiplies matrices, in FLOP/s.
    """
    stage = StageModel(
        trained.paradigm,
        {"name": "a", "model": trained.model},
        performance=trained.performance,
        seed=3,
    )
    stage.to(get_device()).train()
    wrapper = build_optim_wrapper(stage, OPTIMIZER)
    stage.max_iters = sizes.warm_up + sizes.steps + 1
    batch = raw_batch(stage, trained)

    def step() -> None:
        stage.train_step(batch, wrapper)
        stage.after_step()
        stage.iteration += 1

    for _ in range(sizes.warm_up):
        step()
    num_graphs = _num_graphs()
    seconds = _timed(step, sizes.steps)
    syncs = num_syncs(step)
    flops = flops_of(trained) * trained.batch_size
    share = 100 * flops / seconds / rate
    is_met = None if trained.goal is None else share >= trained.goal
    goal = "" if trained.goal is None else f">= {trained.goal:g} %"
    recompiled = _num_graphs() - num_graphs
    return [
        Row(trained.name, share, "% MFU", goal, is_met),
        Row("  a step", 1e3 * seconds, "ms", ""),
        Row("  samples", trained.batch_size / seconds, "a second", ""),
        Row("  compiled anew after warm-up", recompiled, "graphs", "0", recompiled == 0),
        Row("  waits of the host in a step", syncs, "", "0", syncs == 0),
    ]


def raw_batch(stage: StageModel, trained: Trained) -> dict[str, Tensor]:
    """Return a batch as a loader would give it, of random values, on the device."""
    example = stage.paradigm.example_batch(stage.student, 1)
    size = trained.batch_size
    random = torch.Generator().manual_seed(0)
    if "image" in example:
        shape, length = example["image"].shape[1:], example["text"].shape[1]
        image = torch.randint(256, (size, *shape), dtype=torch.uint8, generator=random)
        text = torch.randint(1, 400, (size, length), generator=random)
        raw = {"image": image, "text": text}
    else:
        length = example["input_ids"].shape[1]
        raw = {"tokens": torch.randint(256, (size, length + 1), generator=random)}
    return {name: tensor.to(get_device()) for name, tensor in raw.items()}


def flops_of(trained: Trained) -> float:
    """Return the FLOPs of a sample, forward and backward, as compt's plans count them."""
    paradigm, counter = PARADIGMS.build(dict(trained.paradigm)), FlopCounter()
    model = meta_model(paradigm, Member("a", trained.model), counter)
    return measure_training(paradigm, model, 2, counter).flops


def _timed(step: Callable[[], None], count: int) -> float:
    """Return the median seconds of a step, in groups, so that the host may run ahead."""
    group, seconds = max(1, count // 4), []
    for _ in range(4):
        _finish()
        start = time.perf_counter()
        for _ in range(group):
            step()
        _finish()
        seconds.append((time.perf_counter() - start) / group)
    return statistics.median(seconds)


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def num_syncs(step: Callable[[], None]) -> int:
    """Count how often a step lets the host wait for the device, 0 without a GPU."""
    if not torch.cuda.is_available():
        return 0
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum(SYNCHRONISED in str(warning.message) for warning in caught)


def _num_graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


class Interrupted(Exception):
    """Ends a run in the middle of a stage."""


def resumed_alike(folder: Path) -> list[Row]:
    """Compare the weights of a chain that was interrupted and resumed with one that was not."""
    config: dict[str, Any] = {
        "custom_imports": {"imports": ["compt.testing.toy"]},
        "paradigm": {"type": "toy", "samples": 256},
        "transfer": {"type": "feature_mse"},
        "train_dataloader": {"batch_size": 32},
        "checkpoint": {"interval": 3},
        "evaluations": 1,
        "chain": [
            {"name": "a", "model": {"width": 16, "depth": 1}, "iters": 4},
            {"name": "b", "model": {"width": 32, "depth": 2}, "iters": 8},
        ],
    }
    whole, broken = folder / "whole", folder / "broken"
    compt.train(config, work_dir=whole)
    step = TrainLoop._step

    def interrupted(self: TrainLoop, batch: Any) -> None:
        if self.stage.teacher is not None and self._iter == 5:
            raise Interrupted
        step(self, batch)

    TrainLoop._step = interrupted  # type: ignore[method-assign]
    try:
        compt.train(config, work_dir=broken)
    except Interrupted:
        pass
    finally:
        TrainLoop._step = step  # type: ignore[method-assign]
    compt.train(config, work_dir=broken, resume=True)
    states = [read_state(run / "02_b" / "weights.safetensors") for run in (whole, broken)]
    worst = max((states[0][n] - states[1][n]).abs().max().item() for n in states[0])
    return [Row("weights after a resume beside none", worst, "", "0", worst == 0)]


def rate_row(sizes: Sizes) -> tuple[float, Row]:
    """Measure the rate at which the device multiplies matrices in bfloat16."""
    rate = matmul_rate(torch.bfloat16, sizes.matmul)
    what = f"matrices of {sizes.matmul:,} squared, bf16"
    return rate, Row(what, rate / 1e12, "TFLOP/s", "")
