"""Checkpoints to resume a stage from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from compt.weights import saving


def save_checkpoint(state: Mapping[str, Any], folder: Path, iteration: int, *, keep: int) -> Path:
    """Write a checkpoint to resume from, then remove all but the newest ``keep``."""
    path = folder / f"iter_{iteration:08d}.pt"
    with saving(path) as file:
        torch.save(dict(state), file)
    for old in checkpoints(folder)[keep:]:
        old.unlink()
    return path


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints of a folder, the newest first."""
    return sorted(folder.glob("iter_*.pt"), reverse=True)


def load_checkpoint(folder: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """Load the newest readable checkpoint of a folder, None if there is none; unreadable ones are
    passed over.
    """
    for path in checkpoints(folder):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many types for a damaged file
            warn(f"The checkpoint '{path}' cannot be read ({error}); trying the one before it.")
    return None
