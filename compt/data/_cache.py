"""Where what is made once is kept, and how it is written: whole or not at all."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from platformdirs import user_cache_dir

from compt.errors import DataError

ENVIRONMENT = "COMPT_CACHE_DIR"


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """The folder given, else that of COMPT_CACHE_DIR, else the user's cache folder; it may not exist yet."""
    return Path(cache_dir or os.environ.get(ENVIRONMENT) or user_cache_dir("compt")).expanduser().absolute()


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> str:
    """Write a file through a temporary one beside it, so that no reader ever sees half of it.

    Returns:
        The SHA-256 of what is on the disk, read back, in hexadecimal.
    """
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        digest = sha256(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return digest


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def unwritable(folder: Path, error: OSError, megabytes: float) -> DataError:
    """The error for a cache folder that is full, read-only or not a folder."""
    return DataError(
        f"The cache cannot be written: {error.strerror or error}.",
        where=str(folder),
        do=f"Make room for {megabytes:.0f} MB there, or set {ENVIRONMENT} to a folder that has it.",
    )
