"""Where what is made once is kept."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_dir

from compt.errors import DataError

ENVIRONMENT = "COMPT_CACHE_DIR"


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """The folder given, else that of COMPT_CACHE_DIR, else the user's cache folder; it may not exist yet."""
    return Path(cache_dir or os.environ.get(ENVIRONMENT) or user_cache_dir("compt")).expanduser().absolute()


def unwritable(folder: Path, error: OSError, megabytes: float) -> DataError:
    """The error for a cache folder that is full, read-only or not a folder."""
    return DataError(
        f"The cache cannot be written: {error.strerror or error}.",
        where=str(folder),
        do=f"Make room for {megabytes:.0f} MB there, or set {ENVIRONMENT} to a folder that has it.",
    )
