"""Ask for the end of the first job in the middle of its second stage, as Slurm does."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

ASKED_AT = 4
"""Iteration of the second stage."""


@HOOKS.register_module()
class LimitIsNear(Hook):
    """Send SIGUSR1 to the batch script, then go on slowly until the signal has come through."""

    def __init__(self, script: str) -> None:
        self.script = Path(script)
        """Holds the process id of the batch script, as long as it has not been signalled."""
        self.is_asked = False

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        is_there = runner.work_dir.endswith("02_b") and batch_idx >= ASKED_AT
        if runner.rank == 0 and is_there and self.script.exists():
            os.kill(int(self.script.read_text()), signal.SIGUSR1)
            self.script.unlink()
            self.is_asked = True
        if self.is_asked:
            time.sleep(0.5)
