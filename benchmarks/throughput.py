"""Time a stage of compt against the loops that its users would pick instead, in turns.

``python benchmarks/throughput.py clip --json FILE`` trains one member of the chain that compt
ships for a paradigm (``clip``, ``mae``, ``lm``), in compt, in a PyTorch loop by hand, and in the
loop of the paradigm's own library: open_clip's ``train_one_epoch``, mmengine's Runner as
mmpretrain's ``tools/train.py`` builds it, the Trainer of transformers. Model, first weights,
batches and their order, precision, optimizer (fused), parameter groups and learning rates are the
same; so are the losses of the first iterations, or the comparison is void and fails. Each has a
process of its own, and they take turns of some iterations, so that all get the same share of
whatever else the machine does; then all are started anew, as processes of one loop differ. A ratio
is the time of the other loop that is fastest in the median by compt's: 1 means the same speed.

The last row has a teacher: compt's stage with feature transfer, against a loop by hand that runs
the student forward and backward and the teacher forward, and does nothing with what it says.

compt trains as in a chain: loop, hooks, guard, log files and TensorBoard. Evaluations and
checkpoints are left out, as the config says how many there are. ``--one-batch`` leaves the loading
of data out too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from measuring import contenders
from measuring.contest import WARM_UP, Turns, fastest, hold, medians, ratios
from measuring.peers import PEERS
from measuring.task import Task
from rich.table import Table

from compt.cli import find_config
from compt.config import load_config
from compt.report.format import plain_console
from compt.report.software import environment

CONFIGS = {"clip": "clip_chain", "mae": "mae_chain", "lm": "lm_chain"}
WITHOUT_AUGMENTATION: Mapping[str, Mapping[str, Any]] = {
    "clip": {"augment": None},
    "mae": {"pipeline": [{"type": "Resize", "scale": 32}, {"type": "PackInputs"}]},
    "lm": {},
}
SAME = {"clip": 2e-3, "mae": 0.1, "lm": 2e-3}
"""Relative difference of the losses of the first iterations that rounding may make, and with mae
the masks, which each library draws for itself."""
SHORTEST = 40
"""Iterations over which rates fall at least: after a warm-up of one, mmengine's LinearLR keeps
the low rate for ever."""


def task_of(paradigm: str, member: int, iters: int, options: Mapping[str, Any]) -> Task:
    """Return what all programs train."""
    content = dict(load_config(find_config(CONFIGS[paradigm])).raw)
    content["paradigm"] = {**content["paradigm"], **WITHOUT_AUGMENTATION[paradigm]}
    precision = {"precision": options["precision"]}
    content |= {"transfer": {"type": "feature_mse"}, "evaluations": 1, **precision}
    content["checkpoint"] = {"interval": 10**9}
    content.pop("compare", None)
    return Task(content, member, iters, options["one_batch"])


def compared(turns: Mapping[str, Turns], tolerance: float) -> None:
    """End the program where two of the loops do not train the same."""
    first_name, first = next(iter(turns.items()))
    for name, other in turns.items():
        for i, (a, b) in enumerate(zip(first.losses, other.losses, strict=True)):
            if abs(a - b) > tolerance * abs(a):
                sys.exit(
                    f"{first_name} and {name} do not train the same: losses {a} and {b} at "
                    f"iteration {i + 1}."
                )


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Let all programs take their turns, without a teacher and with one."""
    iters = max(SHORTEST, WARM_UP + arguments.rounds * arguments.iters + 1)
    options = {"precision": arguments.precision, "one_batch": arguments.one_batch}
    task = task_of(arguments.paradigm, arguments.member, iters, options)
    loops = {"compt": contenders.compt, "by hand": contenders.bare, **PEERS[arguments.paradigm]}
    pair = {
        "compt, with teacher": contenders.compt_with_teacher,
        "student and teacher by hand": contenders.bare_with_teacher,
    }
    length = {key: getattr(arguments, key) for key in ("starts", "rounds", "iters")}
    turns, failed = hold(loops, task, **length)
    compared(turns, SAME[arguments.paradigm])
    taught, taught_failed = hold(pair, task, **length) if arguments.member else ({}, {})
    others = [name for name in turns if name != "compt"]
    rows = [row(turns, "compt", fastest(turns, others), arguments.starts)]
    if len(taught) == 2:
        stage, by_hand = pair
        rows.append(row(taught, stage, by_hand, arguments.starts))
    return {
        "paradigm": arguments.paradigm,
        "member": task.stage.name,
        "batch_size": task.stage.batch_size,
        **options,
        **length,
        "turns": {name: vars(one) for name, one in {**turns, **taught}.items()},
        "ratios": rows,
        "left_out": {**failed, **taught_failed},
    }


def row(turns: Mapping[str, Turns], name: str, other: str, starts: int) -> dict[str, Any]:
    """Return the ratios of a program and another."""
    values = ratios(turns, name, other)
    pairs = zip(turns[name].processor, turns[other].processor, strict=True)
    return {
        "name": name,
        "other": other,
        "ratios": values,
        "median": statistics.median(values),
        "medians_of_starts": medians(values, starts),
        "processor_median": statistics.median(b / a for a, b in pairs),
    }


def machine() -> dict[str, Any]:
    """Return what the times were measured on."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else ()
    return {
        **environment(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": [round(x, 2) for x in load],
    }


def show(result: Mapping[str, Any]) -> None:
    """Print the table, and how to repeat it."""
    console = plain_console()
    title = f"{result['member']}, batches of {result['batch_size']}, {result['precision']}"
    data = "one batch" if result["one_batch"] else "data loaded"
    table = Table(title=f"{title}, {data}")
    for column in ("loop", "ms an iteration", "least", "most", "processor, ms", "page faults"):
        table.add_column(column, justify="left" if column == "loop" else "right", no_wrap=True)
    for name, turns in result["turns"].items():
        times = (statistics.median(turns["wall"]), min(turns["wall"]), max(turns["wall"]))
        processor, faults = (statistics.median(turns[key]) for key in ("processor", "faults"))
        table.add_row(name, *(f"{time:.2f}" for time in (*times, processor)), f"{faults:,.0f}")
    console.print(table)
    for one in result["ratios"]:
        starts = one["medians_of_starts"]
        console.print(
            f"{one['name']}: {one['median']:.3f}x as fast as {one['other']}, median of "
            f"{len(one['ratios'])} rounds; {min(starts):.3f} to {max(starts):.3f} in "
            f"{len(starts)} starts; by processor time {one['processor_median']:.3f}x",
            soft_wrap=True,
        )
    for name, reason in result["left_out"].items():
        console.print(f"left out: {name}: {reason}", soft_wrap=True, highlight=False)
    console.print(", ".join(f"{k} {v}" for k, v in result["machine"].items()), soft_wrap=True)
    console.print(f"Repeat: {result['command']}", soft_wrap=True)


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="Time compt against other training loops.")
    parser.add_argument("paradigm", choices=CONFIGS)
    parser.add_argument("--starts", type=int, default=5, help="starts of each (default 5)")
    parser.add_argument("--rounds", type=int, default=4, help="turns after a start (default 4)")
    parser.add_argument("--iters", type=int, default=10, help="iterations of a turn (default 10)")
    parser.add_argument("--member", type=int, default=1, help="which of the chain, from 0")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--one-batch", action="store_true", help="leave the loading of data out")
    parser.add_argument("--json", metavar="FILE", help="write all times here")
    arguments = parser.parse_args()
    state = machine()  # before this raises its load
    result = measure(arguments)
    command = shlex.join(["python", *sys.argv])
    result |= {"machine": state, "command": command}
    show(result)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
