"""Hold what large runs rest on against one GPU, in under 9 minutes.

``python benchmarks/scale_on_gpu.py`` needs no arguments, and installs and downloads nothing. It
checks that a stage trains alike on the CPU, on the GPU, wrapped for several processes, sharded and
in mini-batches. Then it measures what these cost, how long training waits for a checkpoint, and by
how much the plan's memory misses the peak. The table comes last, and is in
``work_dirs/scale_on_gpu.json`` too. Without a GPU it says so.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import checkpoint_cost
import parallel_cost
import torch
from mmengine.device import get_device
from torch import Tensor

from compt.config import load_config
from compt.planning.devices import Device
from compt.planning.estimate import estimate
from compt.planning.planner import plan
from compt.report.software import environment
from compt.training.stage import StageModel

OUTPUT = Path("work_dirs/scale_on_gpu.json")
MINUTES = 8.0
"""After which no further measurement begins."""
STEPS = 10
VOCABULARY = 257


@dataclass(frozen=True)
class Sizes:
    """How large the models are."""

    small: Mapping[str, int]
    """``width``, ``layers`` and ``context`` of the language model that ways are compared on."""
    large: Mapping[str, int]
    """The same of the one that costs are measured on, with ``batch``."""
    planned: Sequence[Mapping[str, int]]
    """The same of those whose memory is planned."""


ON_GPU = Sizes(
    small=dict(width=256, layers=4, context=256),
    large=dict(width=1024, layers=16, context=1024, batch=8),
    planned=(
        dict(width=512, layers=8, context=1024, batch=8),
        dict(width=1024, layers=16, context=1024, batch=8),
        dict(width=2048, layers=16, context=1024, batch=4),
    ),
)


@dataclass(frozen=True)
class Row:
    """One thing that was measured."""

    what: str
    value: float
    unit: str
    goal: str
    """What it is held against, '' for nothing."""
    is_met: bool | None = None


def main() -> int:
    """Measure until the time is over, and print the table."""
    if not torch.cuda.is_available():
        print("This needs a GPU, and there is none: nothing was measured.")
        return 0
    end = time.time() + 60 * MINUTES
    rows: list[Row] = []
    for measurement in measurements(ON_GPU):
        if time.time() > end:
            print("The time is over: what follows was not measured.")
            break
        rows += measurement()
        gc.collect()
        torch.cuda.empty_cache()
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    content = {"environment": environment(), "rows": [asdict(row) for row in rows]}
    OUTPUT.write_text(json.dumps(content, indent=1) + "\n")
    show(rows)
    return 0 if all(row.is_met is not False for row in rows) else 1


def measurements(sizes: Sizes) -> list[Callable[[], list[Row]]]:
    """Return what is measured, correctness first."""
    return [
        lambda: as_on_cpu(sizes.small),
        lambda: wrapped_alike(sizes.small),
        mini_batches_alike,
        lambda: costs(sizes.large),
        lambda: checkpoints(sizes.large),
        lambda: memory(sizes.planned),
    ]


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    for row in rows:
        verdict = {True: "met", False: "MISSED", None: ""}[row.is_met]
        print(f"{row.what:58} {row.value:12.4g} {row.unit:10} {row.goal:22} {verdict}")


def as_on_cpu(size: Mapping[str, int]) -> list[Row]:
    """Compare the losses of some steps on the CPU and on the device."""
    losses = [
        _losses(parallel_cost.stage(**size), _batches(size["context"], device), device)
        for device in ("cpu", get_device())
    ]
    pairs = zip(*losses, strict=True)
    worst = max(abs(own - other) / abs(own) for own, other in pairs)
    return [Row("losses on the device beside the CPU's", worst, "relative", "< 1e-3", worst < 1e-3)]


def wrapped_alike(size: Mapping[str, int]) -> list[Row]:
    """Compare the weights after some steps with those of a stage that nothing is wrapped around."""
    rows = []
    with _process_group():
        weights = {}
        for way in ("none", "ddp", "fsdp"):
            model = parallel_cost.stage(**size)
            step = parallel_cost.step_of(way, model)
            for batch in _batches(size["context"], get_device()):
                step(batch)
            student = model.whole_student()
            assert student is not None
            weights[way] = {name: p.detach().cpu() for name, p in student.named_parameters()}
        for way in ("ddp", "fsdp"):
            worst = max(
                (weights[way][name] - weight).abs().max().item()
                for name, weight in weights["none"].items()
            )
            rows.append(
                Row(f"weights after {STEPS} steps, {way}", worst, "", "< 1e-4", worst < 1e-4)
            )
    return rows


def mini_batches_alike(batch_size: int = 64) -> list[Row]:
    """Compare a contrastive loss, its gradients and its memory with those of mini-batches."""
    paradigm = {"type": "clip"}
    model = {
        "embed_dim": 64,
        "vision_cfg": {"image_size": 64, "patch_size": 8, "width": 128, "layers": 4},
        "text_cfg": {"context_length": 16, "vocab_size": 512, "width": 128, "layers": 4},
    }
    torch.manual_seed(0)
    batch = {
        "image": torch.randint(256, (batch_size, 3, 64, 64), dtype=torch.uint8),
        "text": torch.randint(512, (batch_size, 16)),
        "label": torch.arange(batch_size),
    }
    batch = {name: tensor.to(get_device()) for name, tensor in batch.items()}
    losses, gradients, peaks = [], [], []
    for size in (None, batch_size // 8):
        member = {"name": "a", "model": model}
        stage = StageModel(paradigm, member, performance={"mini_batch_size": size}, seed=3)
        stage.to(get_device()).train()
        with _peak() as peak:
            loss = stage(mode="loss", **batch)["loss"]
            loss.backward()
        losses.append(loss.item())
        gradients.append(_flat([p.grad for p in stage.parameters() if p.grad is not None]))
        peaks.append(peak())
    difference = ((gradients[0] - gradients[1]).norm() / gradients[0].norm()).item()
    apart = abs(losses[0] - losses[1])
    rows = [
        Row("contrastive loss in mini-batches", apart, "nats", "< 1e-4", apart < 1e-4),
        Row("its gradients", difference, "relative", "< 1e-3", difference < 1e-3),
    ]
    if peaks[0]:
        rows.append(Row("memory of a step in an eighth at a time", peaks[1] / peaks[0], "x", ""))
    return rows


def costs(size: Mapping[str, int]) -> list[Row]:
    """Measure a step wrapped for several processes and sharded beside a plain one."""
    options = argparse.Namespace(**size, warmup=3, steps=10)
    with _process_group():
        result = parallel_cost.measure(options)
    seconds = result["none"]["seconds"]
    ratios = [
        Row(f"a step in one process, {way}", result[way]["ratio"], "x", "")
        for way in ("ddp", "fsdp")
    ]
    return [Row("a step", 1000 * seconds, "ms", ""), *ratios]


def checkpoints(size: Mapping[str, int]) -> list[Row]:
    """Measure how long training waits for a checkpoint."""
    options = argparse.Namespace(**size, saves=4, interval=10)
    rows = []
    for name, asynchronous in (("at once", False), ("beside training", True)):
        with tempfile.TemporaryDirectory() as folder:
            row = checkpoint_cost.measure(options, asynchronous=asynchronous, folder=Path(folder))
        rows.append(Row(f"waiting for a checkpoint, {name}", row["share"], "steps", ""))
    return rows


def memory(sizes: Sequence[Mapping[str, int]]) -> list[Row]:
    """Compare the plan's memory of a stage with the peak of a step."""
    rows = []
    for size in sizes:
        for recompute in (False, True):
            planned = _planned(size, recompute=recompute)
            measured = _measured(size, recompute=recompute)
            name = f"planned memory, {size['width']}x{size['layers']}"
            name += " recomputed" if recompute else ""
            error = planned / measured - 1 if measured else float("nan")
            goal = "within 15 %" if measured else ""
            is_met = abs(error) <= 0.15 if measured else None
            rows.append(Row(name, 100 * error, "% off", goal, is_met))
    return rows


def _planned(size: Mapping[str, int], *, recompute: bool) -> float:
    """Return the bytes that a plan says a stage takes."""
    model = {
        "model_type": "llama",
        "hidden_size": size["width"],
        "intermediate_size": 3 * size["width"],
        "num_hidden_layers": size["layers"],
        "num_attention_heads": max(1, size["width"] // 64),
        "vocab_size": VOCABULARY,
    }
    config = load_config(
        {
            "paradigm": {
                "type": "causal_lm",
                "context": size["context"],
                "data": {"type": "stdlib"},
            },
            "chain": [{"name": "a", "model": model, "iters": 10}],
            "train_dataloader": {"batch_size": size["batch"]},
            "optim_wrapper": {"optimizer": {"type": "AdamW", "lr": 1e-3}},
            "grad_checkpointing": recompute,
        }
    )
    gpu = Device("this", 1.0, 1.0, 1.0)
    return float(estimate(config, plan(config), gpu, devices=1, mfu=1.0).stages[0].chosen.peak)


def _measured(size: Mapping[str, int], *, recompute: bool) -> float:
    """Return the bytes that a stage takes at its peak."""
    start = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
    shape = {key: size[key] for key in ("width", "layers", "context")}
    with _peak() as peak:
        stage = parallel_cost.stage(**shape)
        stage.performance = type(stage.performance)(grad_checkpointing=recompute)
        stage.performance.prepare(stage.student)
        step = parallel_cost.step_of("none", stage)
        for batch in _batches(size["context"], get_device(), count=3, batch_size=size["batch"]):
            step(batch)
    return max(0.0, peak() - start)


def _losses(model: StageModel, batches: Iterable[Mapping[str, Tensor]], device: str) -> list[float]:
    """Train a step a batch on a device, and return the losses."""
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss: Tensor = model(mode="loss", **batch)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def _batches(
    context: int, device: str, *, count: int = STEPS, batch_size: int = 4
) -> Iterator[dict[str, Tensor]]:
    """Yield the same random tokens everywhere."""
    random = torch.Generator().manual_seed(0)
    for _ in range(count):
        tokens = torch.randint(VOCABULARY, (batch_size, context + 1), generator=random)
        yield {"tokens": tokens.to(device)}


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().double().flatten().cpu() for tensor in tensors])


@contextmanager
def _process_group() -> Iterator[None]:
    """Make a process group of this process alone."""
    with tempfile.TemporaryDirectory() as folder:
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        torch.distributed.init_process_group(
            backend, init_method=f"file://{folder}/store", rank=0, world_size=1
        )
        try:
            yield
        finally:
            torch.distributed.destroy_process_group()


@contextmanager
def _peak() -> Iterator[Callable[[], float]]:
    """Yield what returns the most bytes allocated within, 0 where that is not counted."""
    if not torch.cuda.is_available():
        yield lambda: 0.0
        return
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    yield lambda: float(torch.cuda.max_memory_allocated())


if __name__ == "__main__":
    sys.exit(main())
