"""Measure what DDP and FSDP cost with one process, as ratios to a step without either.

``python benchmarks/parallel_cost.py`` trains a small language model on this machine's device, each
way in turns, and prints the median step of each and its ratio. It needs no data and no network.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper

import compt.training.optim  # noqa: F401  (registers the constructor)
from compt.config.parallel import Sharded
from compt.training.sharding import adapt, shard_stage
from compt.training.stage import StageModel

SEED = 3
VOCABULARY = 257
OPTIMIZER = {
    "type": "OptimWrapper",
    "constructor": "ComptOptimWrapperConstructor",
    "optimizer": {"type": "AdamW", "lr": 1e-3},
    "clip_grad": {"max_norm": 1.0},
}


def stage(width: int, layers: int, context: int) -> StageModel:
    """Return the model of a stage of a small Llama on bytes."""
    model = {
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // 64),
    }
    paradigm = {"type": "causal_lm", "context": context}
    return StageModel(paradigm, {"name": "a", "model": model}, seed=SEED)


def step_of(way: str, model: StageModel) -> Callable[[dict[str, Any]], None]:
    """Return a step of training, one of three ways."""
    if way == "fsdp":
        trained: Any = shard_stage(model, Sharded())
    else:
        trained = model.to(get_device())
        if way == "ddp":
            trained = MMDistributedDataParallel(module=trained, broadcast_buffers=False)
    wrapper = build_optim_wrapper(trained, copy.deepcopy(OPTIMIZER))
    if way == "fsdp":
        adapt(wrapper, trained.parameters())
    trained.train()

    def step(batch: dict[str, Any]) -> None:
        trained.train_step(batch, optim_wrapper=wrapper)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return step


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the median seconds of a step of each way, and its ratio to the plain one."""
    ways = ("none", "ddp", "fsdp")
    size = (arguments.width, arguments.layers, arguments.context)
    steps = {way: step_of(way, stage(*size)) for way in ways}
    shape = (arguments.batch, arguments.context + 1)
    batch = {"tokens": torch.randint(VOCABULARY, shape, device=get_device())}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(arguments.warmup + arguments.steps):
        for way, step in steps.items():
            start = time.perf_counter()
            step(batch)
            if number >= arguments.warmup:
                seconds[way].append(time.perf_counter() - start)
    medians = {way: statistics.median(times) for way, times in seconds.items()}
    return {way: {"seconds": s, "ratio": s / medians["none"]} for way, s in medians.items()}


def main() -> None:
    """Measure in a process group of this process alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path, help="file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        torch.distributed.init_process_group(
            backend, init_method=f"file://{folder}/store", rank=0, world_size=1
        )
        result = measure(arguments)
        torch.distributed.destroy_process_group()
    for way, row in result.items():
        print(f"{way:5} {1000 * row['seconds']:9.1f} ms a step   x {row['ratio']:.3f}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
