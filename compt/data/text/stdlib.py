"""The source text of Python's standard library, for first runs and tests without a download."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from compt.data._storage import File, reading
from compt.data.text._pieces import pieces
from compt.data.text.files import Read, Skipped, TextReader
from compt.errors import ConfigError, DataError
from compt.interfaces.left_out import LeftOut

HELD_OUT = 4
"""Per cent of the files."""
FOREIGN = frozenset({"site-packages", "dist-packages", "__pycache__"})
TESTS = frozenset({"test", "tests", "idle_test"})
MAX_BROKEN = 0.05
"""More than elsewhere: one of few files in val may be an example of another encoding."""
NOT_UTF8 = "that are not UTF-8"
BLANK = "blank files"


class Stdlib(TextReader):
    """The .py files of the standard library of the Python that runs, one document each.

    Python 3.11.7 has 1,786 of them, 31.5 MB: 1,721 (30.6 MB) in train and 65 (0.9 MB) in val, told
    apart by a hash of their path below the library, so that versions agree. Files that are not
    UTF-8 are left out.

    Args:
        tests: whether the library's own tests, 62 % of the text, count.
        max_broken: share of the files that may be left out.
        num_samples: size of 'train' in blocks, for plans.
        cache_dir: where tokens are kept.

    Raises:
        ConfigError: no such split, or an option that cannot be.
        DataError: on opening, this Python has no source text.
    """

    format = "stdlib"
    options = {}  # the files say all
    licence = "PSF-2.0"
    splits = ("train", "val")

    def __init__(
        self,
        *,
        tests: bool = True,
        max_broken: float = MAX_BROKEN,
        num_samples: int | None = None,
        cache_dir: str | Path | None = None,
    ) -> None:
        super().__init__(num_samples=num_samples, max_broken=max_broken)
        if not isinstance(tests, bool):
            raise ConfigError(f"tests={tests!r} is not True or False.")
        self.passed_over = FOREIGN if tests else FOREIGN | TESTS
        self.cache_dir = cache_dir

    def find(self, split: str, left_out: LeftOut) -> Sequence[File]:
        """Return the library's files that are in a split."""
        self.check_split(split)
        root = Path(sysconfig.get_path("stdlib"))
        chosen = [path for path in _sources(root, self.passed_over) if split_of(path) == split]
        if not chosen:
            raise DataError(
                "The source text of Python's standard library is not on this machine.",
                where=str(root),
                do="Use a Python that was installed with it, or "
                "data=dict(type='text', train=..., val=...).",
            )
        with reading(str(root), "Check its permissions."):
            return [_file(root / path) for path in sorted(chosen)]

    def read(self, file: File) -> Read:
        """Read a file whole, if it is UTF-8."""
        with reading(file.name):
            try:
                text = Path(file.name).read_text("utf-8")
            except UnicodeDecodeError:
                yield Skipped(NOT_UTF8, file.name), file.size
                return
            if not text.strip():
                yield Skipped(BLANK, file.name, is_document=False), file.size
            for piece in pieces([text]):
                yield piece, file.size


def split_of(path: str) -> str:
    """Return the split of a file, by its path below the library, with forward slashes."""
    digest = hashlib.sha256(path.encode()).digest()
    return "val" if int.from_bytes(digest[:4], "big") % 100 < HELD_OUT else "train"


def _sources(root: Path, passed_over: frozenset[str]) -> Iterator[str]:
    """Yield the paths of .py files below a folder, without some folders."""
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in passed_over]
        for name in names:
            if name.endswith(".py"):
                yield Path(folder, name).relative_to(root).as_posix()


def _file(path: Path) -> File:
    stat = path.stat()
    return File(str(path), stat.st_size, str(stat.st_mtime_ns))
