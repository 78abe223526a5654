"""Finds files by path, folder, pattern or URL, on any file system that fsspec knows."""

from __future__ import annotations

import errno
import fnmatch
import importlib
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from compt.errors import DataError, did_you_mean
from compt.interfaces.left_out import LeftOut

T = TypeVar("T")

TWICE = "files that are named, and read, more than once"
INSTALL = 'pip install "compt[lm]"'
PACKAGES = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "http", "https": "http"}
"""Protocol of a URL -> the extra of compt with the package that reads it."""
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
CHANGES = (
    *("mtime", "LastModified", "last_modified", "updated", "ETag", "created"),
    *("Last-Modified", "Content-MD5", "etag", "md5Hash", "generation"),
)
"""Where file systems tell that a file has changed."""
LASTING = (
    *(DataError, FileNotFoundError, PermissionError),
    *(NotImplementedError, TypeError, ValueError),  # of what a file system cannot do
)
"""Failures that another try does not mend."""
WAITS = (1, 5, 30, 60)
"""Seconds before each new try to read from a server that failed."""
FETCH_AGAIN = "If it was cut short, fetch it again."
CHECK_PATH = "Check the path."
CREDENTIALS = "Check the credentials, which may have expired; --resume goes on afterwards."
SERVER = (
    "Check that it is there, that its server can be reached (AWS_ENDPOINT_URL, for example) and "
    "the credentials; --resume goes on afterwards."
)


@dataclass(frozen=True)
class File:
    """A file, by what its file system says of it."""

    name: str
    size: int
    """In bytes."""
    stamp: str
    """Another one after every change."""
    system: Any = field(default=None, repr=False)
    path: str = ""

    @property
    def local(self) -> bool:
        """Whether it is a file of this machine."""
        return self.system is None or "file" in _protocols(self.system)

    @property
    def place(self) -> Path | str:
        """Its path, or the URL of one that is not local."""
        return Path(self.path or self.name) if self.local else self.name


def is_remote(url: str | Path) -> bool:
    """Tell whether something is the URL of a file system, and no local path."""
    return "://" in str(url) and not isinstance(url, Path)


def name_of(files: Sequence[File]) -> str:
    """Name the first of some files, and how many there are."""
    return f"{files[0].name} and {len(files) - 1} more" if len(files) > 1 else files[0].name


def package(name: str) -> Any:
    """Import a module of an optional package.

    Raises:
        DataError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DataError(
            f"This text is read with {name.split('.')[0]}, which cannot be loaded: {error}.",
            do=INSTALL,
        ) from error


def locate(url: str | Path) -> tuple[Any, str]:
    """Find the file system of a path or URL, and the path on it.

    Raises:
        DataError: no such file system, or the package for it is missing.
    """
    core = package("fsspec.core")
    try:
        with reading(str(url), "Check the URL."):
            located: tuple[Any, str] = core.url_to_fs(str(url))
    except DataError as error:
        extra = PACKAGES.get(str(url).partition("://")[0])
        if extra is None or not isinstance(error.__cause__, ImportError):
            raise
        do = f'pip install "compt[{extra}]"'
        raise DataError(error.what, where=str(url), do=do) from error.__cause__
    return located


def find(
    paths: str | Path | Sequence[str | Path], pattern: str, left_out: LeftOut
) -> tuple[File, ...]:
    """Find all files of a path, folder, glob pattern or list of these.

    They come in the order of the list, and those of each entry sorted.

    Args:
        paths: local, or URLs of fsspec.
        pattern: of the names of files in folders.
        left_out: where files of other names are counted.

    Raises:
        DataError: a path or a file in a folder is missing.
    """
    files: list[File] = []
    for url in (paths,) if isinstance(paths, str | Path) else paths:
        system, path = locate(url)
        with reading(str(url), SERVER if is_remote(url) else CHECK_PATH):
            matches = _files(system, path, pattern, left_out)
        if not matches:
            raise _nothing(system, path, str(url), pattern)
        files += matches
    left_out.part(TWICE, len(files) - len({file.name for file in files}))
    return tuple(files)


def _files(system: Any, path: str, pattern: str, left_out: LeftOut) -> list[File]:
    """Find the files of one path, sorted, or none where it leads nowhere."""
    if system.isfile(path):
        return [_describe(system, path, system.info(path))]
    if system.isdir(path):
        below = system.find(path, detail=True)
        counted = {name: info for name, info in below.items() if _counts(name, path, pattern)}
        left_out.part(
            f"files in folders whose names are not '{pattern}'", len(below) - len(counted)
        )
        return described(system, counted)
    if not re.search(r"[*?\[]", path):
        return []
    matches = {
        name: info
        for name, info in system.glob(path, detail=True).items()
        if "/." in path or "/." not in name
    }
    files = described(system, matches)
    return files or [
        file for folder in sorted(matches) for file in _files(system, folder, pattern, left_out)
    ]


def described(system: Any, listed: Mapping[str, dict[str, Any]]) -> list[File]:
    """Pick the files among what a file system lists, sorted, and of links what they lead to."""
    resolved = {
        path: system.info(path) if info.get("islink") else info
        for path, info in sorted(listed.items())
    }
    return [
        _describe(system, path, info) for path, info in resolved.items() if info["type"] == "file"
    ]


def _describe(system: Any, path: str, info: dict[str, Any]) -> File:
    """Describe a file by what its file system says of it."""
    is_local = "file" in _protocols(system)
    stamps = [str(info[key]) for key in CHANGES if info.get(key)]
    # On servers times are whole seconds: one alone would not tell two uploads apart.
    stamp = " ".join(stamps[:1] if is_local else stamps)
    name = path if is_local else system.unstrip_protocol(path)
    return File(name, int(info.get("size") or 0), stamp, system, path)


def _protocols(system: Any) -> tuple[str, ...]:
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)


def _counts(path: str, folder: str, pattern: str) -> bool:
    """Whether a file below a folder has such a name, compressed or not, and is not hidden."""
    parts = path[len(folder.rstrip("/")) :].strip("/").split("/")
    name = parts[-1]
    plain = name.rpartition(".")[0] if name.endswith(COMPRESSED) else name
    hidden = any(name.startswith(".") for name in parts)
    return not hidden and (fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(plain, pattern))


def _nothing(system: Any, path: str, url: str, pattern: str) -> DataError:
    """Make the error for a path without files."""
    if system.isdir(path):
        return DataError(
            f"The folder has no files '{pattern}'.", where=url, do="Name them with pattern='...'."
        )
    folder, _, name = path.rstrip("/").rpartition("/")
    beside = (
        [entry.rpartition("/")[2] for entry in system.ls(folder, detail=False)]
        if system.isdir(folder)
        else []
    )
    return DataError(
        f"There is no file '{name}'.{did_you_mean(name, beside)}", where=url, do=CHECK_PATH
    )


@contextmanager
def opened(file: File) -> Iterator[tuple[Any, Any]]:
    """Open a file, decompressed by its name, as a reader of its text and the raw file below it.

    Raises:
        DataError: it cannot be read, or what is read within is damaged or not UTF-8.
    """
    core = package("fsspec.core")
    if file.path.endswith(".zst") and package("fsspec.utils").infer_compression(file.path) is None:
        raise DataError(
            "zstandard is needed to read .zst files.", where=file.name, do="pip install zstandard"
        )
    with reading(file.name):
        handle = core.OpenFile(
            file.system, file.path, "rt", compression="infer", encoding="utf-8-sig"
        )
        with handle as text:
            yield text, handle.fobjects[0]


def tried(read: Callable[[], T], where: str) -> T:
    """Return what reading from a server returns, which is tried again where it fails for a while.

    Those of ``LASTING`` are raised at once.

    Raises:
        DataError: it fails at every try.
    """
    for wait in WAITS:
        try:
            return read()
        except LASTING:
            break
        except Exception as error:  # file systems raise what they like
            if getattr(error, "errno", None) == errno.EINVAL:  # such as a range behind the end
                break
            warnings.warn(
                f"{where}: {type(error).__name__}: {error}. Trying again in {wait} s.", stacklevel=2
            )
            time.sleep(wait)
    with reading(where, SERVER):
        return read()


@contextmanager
def reading(where: str, do: str = FETCH_AGAIN) -> Iterator[None]:
    """Turn whatever goes wrong within into a DataError that names the file."""
    try:
        yield
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(
            f"The file is not UTF-8 text: {error.reason}, 0x{error.object[error.start]:02x}.",
            where=where,
            do="Convert it: iconv -f LATIN1 -t UTF-8. If it is no text, leave it out by a pattern.",
        ) from error
    except Exception as error:  # file systems and decompressors raise what they like
        raise DataError(
            f"It cannot be read: {type(error).__name__}: {error}.",
            where=where,
            do=CREDENTIALS if isinstance(error, PermissionError) and is_remote(where) else do,
        ) from error
