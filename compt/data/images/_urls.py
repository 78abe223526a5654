"""Turns what a config names into archives, on this machine or on servers."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from compt.data._storage import CHECK_PATH, File, find, is_remote
from compt.errors import ConfigError, DataError
from compt.interfaces.left_out import LeftOut

PATTERN = "*.tar"
"""Names of archives in folders on servers."""
AT_A_TIME = 16
"""URLs that are looked up at a time."""


def expand(urls: str | Path | Sequence[str | Path], left_out: LeftOut) -> tuple[File, ...]:
    """Turn a path, a URL, a pattern with braces or wildcards, or a list of these into archives.

    Args:
        urls: local, or URLs of fsspec.
        left_out: where files of other names are counted, as in folders on servers.

    Raises:
        ConfigError: it names nothing, or something that is neither path nor URL.
        DataError: an archive is missing, or its server cannot be asked.
    """
    names: list[str] = []
    for url in (urls,) if isinstance(urls, str | Path) else urls:
        text = str(url)
        if "::" in text or text.startswith("pipe:"):
            raise ConfigError(
                f"'{text}' is neither a local path nor a URL.",
                where="webdataset",
                do="Give a path or one URL (s3://, gs://, https://), with braces or wildcards, or "
                "a list.",
            )
        names += _braces(text) if "{" in text else [text]
    if not names:
        raise ConfigError("The list of shards is empty.", where="webdataset")
    counts = [LeftOut() for _ in names]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        archives = list(pool.map(_archives, names, counts))
    for count in counts:
        for reason, number in count.parts.items():
            left_out.part(reason, number)
    return tuple(archive for several in archives for archive in several)


def _archives(name: str, left_out: LeftOut) -> Sequence[File]:
    """Find the archives of a path or URL, sorted."""
    if is_remote(name):
        return find(name, PATTERN, left_out)
    path = Path(name).expanduser()
    if path.exists() or not glob.has_magic(name):
        return [_local(path)]
    matches = sorted(glob.glob(str(path), recursive=True))
    if not matches:
        raise DataError("No shard has such a name.", where=str(path), do=CHECK_PATH)
    return [_local(Path(match)) for match in matches]


def _local(path: Path) -> File:
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(
            f"The shard cannot be read: {error.strerror}.", where=str(path), do=CHECK_PATH
        ) from error
    return File(str(path), stat.st_size, str(stat.st_mtime_ns))


def _braces(pattern: str) -> list[str]:
    try:
        import braceexpand
    except ImportError as error:
        raise ConfigError(
            f"'{pattern}' needs the package braceexpand.", do="pip install braceexpand"
        ) from error
    try:
        return list(braceexpand.braceexpand(pattern))
    except ValueError as error:
        raise ConfigError(
            f"'{pattern}' is no brace pattern: {error}.", where="webdataset"
        ) from error
