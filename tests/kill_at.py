"""Train the toy chain and die by SIGKILL at a named point.

``python -m tests.kill_at POINT WORK_DIR [resume] [switched]``, the last for a chain with all
performance options on.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

import compt
from compt import chain, files
from compt.report.record import StageRecord
from compt.training import initial_weights, loops
from tests.conftest import TOY


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_a_step() -> None:
    step = loops.TrainLoop._step

    def dying_step(self, batch):
        if self.runner.work_dir.endswith("02_b") and self._iter == 5:
            die()
        step(self, batch)

    loops.TrainLoop._step = dying_step


def in_a_checkpoint() -> None:
    save = torch.save

    def dying_save(state, file, **options):
        if isinstance(state, dict) and state.get("iter") == 6 and "01_a" in str(file):
            Path(file).write_bytes(b"half a checkpoint")
            die()
        save(state, file, **options)

    torch.save = dying_save


def after_a_manifest() -> None:
    write = StageRecord.write

    def dying_write(self, path):
        write(self, path)
        if path.parent.name == "01_a":
            die()

    StageRecord.write = dying_write


def before_a_manifest() -> None:
    StageRecord.of_stage = die


def before_grown_weights() -> None:
    initial_weights.hand_over_weights = die


def after_growth() -> None:
    run = chain.run_stage

    def dying_run(config, *arguments):
        if config.work_dir.endswith("02_b"):
            die()
        return run(config, *arguments)

    chain.run_stage = dying_run


def in_weights() -> None:
    replace = os.replace

    def dying_replace(source, target):
        if str(target).endswith("02_b/weights.safetensors"):
            die()
        replace(source, target)

    files.os.replace = dying_replace


POINTS = {
    "in the middle of a stage": in_a_step,
    "while a checkpoint is written": in_a_checkpoint,
    "between two stages": after_a_manifest,
    "after growing, before the weights are written": before_grown_weights,
    "after growth": after_growth,
    "before the manifest": before_a_manifest,
    "while weights are written": in_weights,
}


def arm(point: str) -> None:
    """Patch what compt calls at this point, if it is one, so that the process dies there."""
    if point != "never":
        POINTS[point]()


OPTIMISED = dict(
    TOY,
    precision="bf16",
    attention="math",
    grad_checkpointing=True,
    compile=dict(backend="aot_eager"),
    optim_wrapper=dict(accumulative_counts=2),
    checkpoint=dict(interval=3, keep=2, asynchronous=True),
)

if __name__ == "__main__":
    torch.set_num_threads(1)
    arm(sys.argv[1])
    config = OPTIMISED if "switched" in sys.argv[3:] else TOY
    compt.train(config, work_dir=sys.argv[2], resume="resume" in sys.argv[3:])
