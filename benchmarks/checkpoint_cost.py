"""Measure how long training waits for a checkpoint, written at once or beside training.

``python benchmarks/checkpoint_cost.py`` trains a small language model on this machine's device, and
saves it as a stage does. It needs no data and no network.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper
from parallel_cost import OPTIMIZER, VOCABULARY, stage

from compt.training.checkpoint_writer import CheckpointWriter


def measure(arguments: argparse.Namespace, *, asynchronous: bool, folder: Path) -> dict[str, Any]:
    """Return the seconds of a step, of a step while a checkpoint is written, and of waiting."""
    model = stage(arguments.width, arguments.layers, arguments.context)
    model.to(get_device()).train()
    wrapper = build_optim_wrapper(model, copy.deepcopy(OPTIMIZER))
    shape = (arguments.batch, arguments.context + 1)
    batch = {"tokens": torch.randint(VOCABULARY, shape, device=get_device())}
    steps: dict[bool, list[float]] = {False: [], True: []}
    waits = []
    with CheckpointWriter(folder, keep=2, asynchronous=asynchronous, warn=print) as writer:
        for number in range(arguments.saves * arguments.interval):
            is_writing = writer.is_writing
            start = time.perf_counter()
            model.train_step(batch, optim_wrapper=wrapper)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            steps[is_writing].append(time.perf_counter() - start)
            if number % arguments.interval == arguments.interval - 1:
                state = {"state_dict": model.state_dict(), "optimizer": wrapper.state_dict()}
                start = time.perf_counter()
                writer.save({**state, "rollbacks": []}, model, number)
                waits.append(time.perf_counter() - start)
    alone = statistics.median(steps[False][1:])
    row = {"step": alone, "first_wait": waits[0], "wait": statistics.median(waits[1:])}
    row["share"] = row["wait"] / alone
    if steps[True]:
        row["step_while_written"] = statistics.median(steps[True])
        row["steps_while_written"] = len(steps[True]) / len(waits)
    return row


def main() -> None:
    """Measure in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--interval", type=int, default=5, help="steps between two checkpoints")
    parser.add_argument("--json", type=Path, help="file to write")
    arguments = parser.parse_args()
    result = {}
    for name, asynchronous in (("at once", False), ("beside", True)):
        with tempfile.TemporaryDirectory() as folder:
            row = measure(arguments, asynchronous=asynchronous, folder=Path(folder))
        result[name] = row
        print(f"{name:8}" + "  ".join(f"{key} {value:.4f}" for key, value in row.items()))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
