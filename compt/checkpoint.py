"""Checkpoints for resuming, and the state of random generators."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compt.weights import saving


def random_state() -> dict[str, Any]:
    """The state of torch's, numpy's and Python's random number generators, as plain types and tensors."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "python": random.getstate(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Put the random number generators back into a state of :func:`random_state`."""
    torch.set_rng_state(state["torch"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


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
    """Load the newest readable checkpoint of a folder, None if there is none; unreadable ones are passed over."""
    for path in checkpoints(folder):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many types for a damaged file
            warn(f"The checkpoint '{path}' cannot be read ({error}); trying the one before it.")
    return None
