"""Time a stage of compt against a hand-written PyTorch loop, side by side in one process.

``python benchmarks/framework_cost.py`` trains the first member of ``configs/clip_chain.py`` without
a teacher, in turns of 30 iterations: compt, by hand, by hand, compt, compt, ... so that both get
the same share of whatever else the machine does. A ratio is the time of the hand-written loop by
compt's: 1 means the same speed, 0.95 that compt takes 5 % longer. About two minutes on two cores.

* compt is ``compt.training.runner.run_stage`` as the chain calls it: Runner, loop, default hooks,
  log file, TensorBoard, check of the loss. Evaluations and checkpoints are left out: the config
  says how many there are.
* by hand is ``measuring.by_hand``, written for speed: what does not change is made before the
  loop, the loss is read as often as compt logs it. Model, samples and their order, loader options,
  loss, optimizer (its implementation, too), parameter groups and schedule are the same.

The second row leaves the data out: one batch, made before. There both start from the same weights
and the losses of the first iterations must agree, or the comparison is void and the script fails.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import open_clip
import torch
from measuring.by_hand import DEVICE, SCHEDULE, Batch, ByHand
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, LOOPS
from rich.console import Console
from rich.table import Table

from compt.cli import find_config
from compt.config import ChainConfig, StageConfig, load_config
from compt.planning.planner import plan
from compt.planning.plans import StagePlan
from compt.report.progress import Silent
from compt.report.record import environment
from compt.training.loops import TrainLoop
from compt.training.runner import run_stage
from compt.training.stage_config import stage_config

WARM_UP = 10
NEEDED = 0.95
SAME = 1e-3
"""Relative difference of the losses that rounding may make in the first iterations."""


class OneBatch(list[Any]):
    """A list with as much of a DataLoader as mmengine looks at."""

    dataset = ()


@LOOPS.register_module()
class OneBatchLoop(TrainLoop):
    """compt's loop over one batch made before."""

    batch: Batch

    def _loader(self) -> Any:
        return OneBatch([self.batch] * (self._max_iters - self._iter))


@HOOKS.register_module()
class Turns(Hook):
    """Time compt's turns, and let the hand-written loop have its own in between."""

    priority = "LOWEST"
    order: ClassVar[list[str]]
    clocks: ClassVar[dict[str, list[tuple[float, float]]]]
    losses: ClassVar[list[float]]

    @classmethod
    def prepare(cls, by_hand: ByHand, rounds: int, iters: int) -> None:
        """Say what the hook of the next stage does."""
        cls.by_hand, cls.iters = by_hand, iters
        cls.order = []
        for i in range(rounds):  # who is first changes: the machine may slow down with time
            cls.order += ("compt", "by hand") if i % 2 == 0 else ("by hand", "compt")
        cls.clocks = {"compt": [], "by hand": []}
        cls.losses = []

    def before_train_epoch(self, runner: Any) -> None:
        """Take over what compt chose.

        That is how often the loss is read, and which implementation of the optimizer runs.
        """
        self.log_interval = runner.cfg.log_processor["window_size"]
        chosen = runner.optim_wrapper.optimizer.defaults
        implementation = {k: chosen[k] for k in ("fused", "foreach") if k in chosen}
        self.by_hand.optimizer = self.by_hand.build_optimizer(**implementation)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """End the warm-up, or a turn."""
        done = batch_idx + 1 - WARM_UP
        if done < 0:
            self._warm_up(outputs)
        elif done == 0:
            self._warm_up(outputs)
            self._next(runner)
        elif done % self.iters == 0:
            self._note("compt")
            self._next(runner)

    def _warm_up(self, outputs: Any) -> None:
        self.losses.append(outputs["loss"].item())
        self.by_hand.run(1, 1)

    def _next(self, runner: Any) -> None:
        """Take the hand-written loop's turns until the next one is compt's."""
        while self.order and self.order[0] == "by hand":
            self.order.pop(0)
            self.start = _now()
            self.by_hand.run(self.iters, self.log_interval)
            self._note("by hand")
        if not self.order:
            runner.visualizer.close()
            raise Finished
        self.order.pop(0)
        self.start = _now()

    def _note(self, who: str) -> None:
        wall, processor = (
            1e3 * (b - a) / self.iters for a, b in zip(self.start, _now(), strict=True)
        )
        self.clocks[who].append((wall, processor))


class Finished(Exception):
    """Ends the stage when all turns have been taken."""


def _now() -> tuple[float, float]:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def measure(
    config: ChainConfig,
    stage: StageConfig,
    stage_plan: StagePlan,
    rounds: int,
    iters: int,
    batch: Batch | None,
) -> dict[str, Any]:
    """Take all turns, and return the milliseconds an iteration, by round."""
    total = max(stage_plan.iters, WARM_UP + rounds * iters + 1)
    by_hand = ByHand(config, stage, config.seed + stage_plan.index, total, batch)
    Turns.prepare(by_hand, rounds, iters)
    _run_compt(config, stage, replace(stage_plan, iters=total), batch)
    if batch is not None:
        _compare(Turns.losses, by_hand.losses[:WARM_UP])
    hand, own = Turns.clocks["by hand"], Turns.clocks["compt"]
    ratios, processor = ([h[i] / o[i] for h, o in zip(hand, own, strict=True)] for i in (0, 1))
    return {
        "data": "one batch" if batch is not None else "loaded",
        "compt_ms": [wall for wall, _ in own],
        "by_hand_ms": [wall for wall, _ in hand],
        "ratios": ratios,
        "median_ratio": statistics.median(ratios),
        "processor_ratios": processor,
        "median_processor_ratio": statistics.median(processor),
        "first_losses": Turns.losses if batch is not None else None,
    }


def _run_compt(
    config: ChainConfig, stage: StageConfig, stage_plan: StagePlan, batch: Batch | None
) -> None:
    """Run the stage as a chain does, until all turns have been taken."""
    with tempfile.TemporaryDirectory() as folder:
        run = stage_config(
            config, stage, stage_plan, Path(folder) / "stage", init=None, teacher=None
        )
        run.custom_hooks = [{"type": "Turns"}]
        if batch is not None:
            OneBatchLoop.batch = batch
            run.train_cfg["type"] = "OneBatchLoop"
        with contextlib.suppress(Finished):
            run_stage(run, Silent())


def _compare(own: list[float], hand: list[float]) -> None:
    for i, (a, b) in enumerate(zip(own, hand, strict=True)):
        if abs(a - b) > SAME * abs(b):
            sys.exit(
                f"The two do not train the same: loss {a} in compt, {b} by hand, "
                f"at iteration {i + 1}."
            )


def one_batch(config: ChainConfig, stage: StageConfig, seed: int) -> Batch:
    """Return the first batch of the stage, made once."""
    hand = ByHand(config, stage, seed, 1, None)
    return dict(next(hand.batches))


def read(path: str, member: int) -> tuple[ChainConfig, StageConfig, StagePlan]:
    """Return the config, one of its stages, and the stage's plan.

    There are no evaluations and checkpoints on the way.
    """
    config = load_config(find_config(path), {"evaluations": 1, "checkpoint.interval": 10**9})
    stage = config.stages[member]
    plain = set(stage.optim_wrapper) == {"optimizer"} and stage.param_scheduler == SCHEDULE
    if config.paradigm["type"] != "clip" or not plain:
        sys.exit(
            "The hand-written loop knows CLIP with a plain optimizer and the default schedule only."
        )
    return config, stage, plan(config, individual=True).stages[member]


def machine() -> dict[str, Any]:
    """Return what the times were measured on."""
    return {
        **environment(),
        "open_clip": open_clip.__version__,
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": [round(x, 2) for x in os.getloadavg()]
        if hasattr(os, "getloadavg")
        else None,
    }


def show(result: Mapping[str, Any], command: str) -> None:
    """Print the table and how to repeat it."""
    console = Console(soft_wrap=True, highlight=False)
    table = Table(title=f"{result['member']}, batches of {result['batch_size']}")
    for column in ("data", "by hand, ms", "compt, ms", "ratio", "least", "most", "processor"):
        table.add_column(column, justify="left" if column == "data" else "right", no_wrap=True)
    for row in result["rows"]:
        middle = [f"{statistics.median(row[key]):.2f}" for key in ("by_hand_ms", "compt_ms")]
        ratios = (
            row["median_ratio"],
            min(row["ratios"]),
            max(row["ratios"]),
            row["median_processor_ratio"],
        )
        table.add_row(row["data"], *middle, *(f"{ratio:.3f}" for ratio in ratios))
    console.print(table)
    for row in result["rows"]:
        console.print(
            f"ratio by round, {row['data']}: " + " ".join(f"{x:.3f}" for x in row["ratios"])
        )
    console.print(
        "Times are medians of an iteration. Ratio: by hand / compt, median of "
        f"{result['rounds']} rounds of {result['iters']} iterations each; at least {NEEDED} is "
        "wanted. Processor: the ratio of processor times, which other jobs on the machine disturb "
        "less."
    )
    console.print(", ".join(f"{k} {v}" for k, v in result["machine"].items()))
    console.print(f"Repeat: {command}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Time a stage of compt against a hand-written loop."
    )
    parser.add_argument("--rounds", type=int, default=7, help="turns of each (default 7)")
    parser.add_argument("--iters", type=int, default=30, help="iterations of a turn (default 30)")
    parser.add_argument(
        "--config", default="configs/clip_chain.py", help="a CLIP chain, by path or name"
    )
    parser.add_argument("--member", type=int, default=0, help="which of its members, from 0")
    parser.add_argument("--json", metavar="FILE", help="write all times here")
    arguments = parser.parse_args()
    config, stage, stage_plan = read(arguments.config, arguments.member)
    batch = one_batch(config, stage, config.seed + stage_plan.index)
    state = machine()  # before this raises its load
    rows = [
        measure(config, stage, stage_plan, arguments.rounds, arguments.iters, cached)
        for cached in (None, batch)
    ]
    command = shlex.join(["python", *sys.argv])
    result = {
        "member": stage.name,
        "batch_size": stage_plan.batch_size,
        "rounds": arguments.rounds,
        "iters": arguments.iters,
        "seed": config.seed,
        "rows": rows,
        "machine": state,
        "command": command,
    }
    show(result, command)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
