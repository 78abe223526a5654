"""Write a folder whole or not at all, and say what it took."""

from __future__ import annotations

import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors
from torch import nn

from compt.errors import WorkDirError
from compt.files import share


def check_output(out: Path) -> None:
    """Raise WorkDirError unless a folder to write to is empty or not there."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise WorkDirError(
            "The output exists and is no empty folder.",
            where=str(out),
            do="Choose another with -o.",
        )


@contextmanager
def writing(out: Path) -> Iterator[Path]:
    """Yield a folder whose content is in ``out`` once all of it is written.

    Whatever ends the work before, ``out`` is not there, or empty as it was.

    Raises:
        WorkDirError: the disk is full, or the folder cannot be written.
    """
    # Beside a new folder, which one rename then makes whole. One that is there may be a place
    # where something is mounted, of which nothing beside it knows.
    parent = out if out.exists() else out.absolute().parent
    folder = parent / f".{out.name}.{uuid.uuid4().hex[:12]}.tmp"
    try:
        folder.mkdir(parents=True)
        yield folder
        share(folder)
        if parent == out:
            for path in sorted(folder.iterdir(), key=lambda path: path.suffix == ".json"):
                path.rename(out / path.name)
        else:
            folder.rename(out)
    except (OSError, safetensors.SafetensorError) as error:
        free = shutil.disk_usage(parent).free / 2**20 if parent.is_dir() else 0
        raise WorkDirError(
            f"The grown model could not be written: {error}.",
            where=f"{parent} ({free:.0f} MiB free)",
            do="Make room, or choose another place with -o.",
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def num_bytes(model: nn.Module) -> int:
    """Return the bytes of all parameters and buffers."""
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


def why_whole(model: nn.Module, reason: Exception, stream_from: int) -> str:
    """Say why a large model was grown as a whole, and how large it is, '' for a small one."""
    size = num_bytes(model)
    return "" if size < stream_from else f"{reason} (the grown model takes {size / 1e9:.1f} GB)"


def peak_memory() -> int | None:
    """Return the most bytes that this process has held, None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
