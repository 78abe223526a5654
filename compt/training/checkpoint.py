"""Checkpoints to resume a stage from, and what they hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import Runner

from compt.random_state import random_state
from compt.training.stage import stage_model
from compt.weights import saving

PREFIX = "iter_"


def save_checkpoint(state: Mapping[str, Any], folder: Path, iteration: int, *, keep: int) -> None:
    """Write a checkpoint, then remove all but the newest ``keep``."""
    with saving(folder / f"{PREFIX}{iteration:08d}.pt") as file:
        torch.save(dict(state), file)
    for old in _checkpoints(folder)[keep:]:
        old.unlink()


def load_checkpoint(folder: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """Load the newest checkpoint of a folder that can be read, None if there is none."""
    for path in _checkpoints(folder):
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            return state
        except Exception as error:  # torch raises many types for a damaged file
            warn(f"The checkpoint '{path}' cannot be read ({error}); trying the one before it.")
    return None


def last_saved_iteration(folder: Path) -> int | None:
    """Return the iteration of the newest checkpoint of a folder, None if there is none."""
    for path in _checkpoints(folder):
        return int(path.stem.removeprefix(PREFIX))
    return None


def runner_state(runner: Runner) -> dict[str, Any]:
    """Return what a Runner's next iteration depends on, but for the data and the teacher.

    Batches follow from the seed and the iteration. The teacher is frozen, and read from its
    own stage.
    """
    schedulers = runner.param_schedulers or []
    return {
        "model": stage_model(runner).state_dict(),
        "optimizer": runner.optim_wrapper.state_dict(),
        "schedulers": [scheduler.state_dict() for scheduler in schedulers],
        "random": random_state(),
    }


def restore_runner(runner: Runner, state: Mapping[str, Any]) -> None:
    """Put a Runner back into a state of :func:`runner_state`.

    The random state is left to the caller, who has to restore it last: all that is set up
    after it might draw from it.
    """
    stage_model(runner).load_state_dict(state["model"])
    runner.optim_wrapper.load_state_dict(state["optimizer"])
    schedulers = runner.param_schedulers or []
    for scheduler, saved in zip(schedulers, state["schedulers"], strict=True):
        scheduler.load_state_dict(saved)


def _checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints of a folder, the newest first."""
    return sorted(folder.glob(f"{PREFIX}*.pt"), reverse=True)
