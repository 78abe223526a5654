"""Files of a stage: weights and manifest for the next stage, checkpoints for resuming; all written atomically."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from compt.errors import ConfigError, TrainingError, WorkDirError

FORMAT = 1
WEIGHTS, MANIFEST, GROWN, EXPORT, CHECKPOINTS = (
    "weights.safetensors", "manifest.json", "grown.safetensors", "export", "checkpoints",
)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a file beside ``path`` that takes its name once it is complete and on disk.

    Raises:
        TrainingError: the disk is full or the folder cannot be written; ``path`` is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield beside
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
        _sync(path.parent)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        if isinstance(error, RuntimeError) and "write" not in str(error).lower():
            raise
        free = shutil.disk_usage(path.parent).free / 2**20
        raise TrainingError(
            f"Could not write '{path.name}': {error}.",
            where=f"{path.parent} ({free:.0f} MiB free)",
            do="Make room or choose another --work-dir; what was written before is kept, and --resume continues from it.",
        ) from error
    finally:
        beside.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Make a rename in this folder durable, where the system allows it."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as JSON, atomically."""
    with atomic(path) as file:
        file.write_text(json.dumps(content, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that compt wrote.

    Raises:
        WorkDirError: the file is damaged or from a newer compt.
    """
    try:
        content = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise WorkDirError(f"Cannot read '{path}': {error}.", do="Restore the file, or use another --work-dir.") from error
    if content.get("format") != FORMAT:
        raise WorkDirError(f"'{path}' has format {content.get('format')}, this compt reads {FORMAT}.")
    return content


def save_weights(model: nn.Module, path: Path) -> str:
    """Write a model's state dict as safetensors and return the file's SHA-256; tied tensors are kept once."""
    with atomic(path) as file:
        safetensors.torch.save_model(model, str(file))
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(path)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def load_weights(model: nn.Module, path: Path) -> None:
    """Load safetensors into a model, strictly.

    Raises:
        ConfigError: the file is missing, damaged, or from another model.
    """
    try:
        safetensors.torch.load_model(model, str(path))
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        raise ConfigError(f"Cannot load the weights '{path}': {error}", do="Check the path and the model's config.") from error


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
    with atomic(path) as file:
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


def sweep(folder: Path) -> None:
    """Remove what an interrupted write left behind."""
    for leftover in folder.rglob(".*.tmp"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
