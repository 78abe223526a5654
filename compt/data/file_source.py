"""Sources whose config names what holds each split."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from compt.errors import ConfigError, did_you_mean
from compt.interfaces import DataSource


class FileSource(DataSource):
    """A source whose config names a file, folder or pattern for each split, beside its options.

    ``dict(type=..., train='a.csv', night='b.csv', sep=';')`` has the splits 'train' and 'night'.
    The constructor of a subclass takes its options as keyword-only parameters and ends with
    ``**files``, which it hands on; it derives from ImageSource or TextSource too::

        class Mine(FileSource, ImageSource):
            def __init__(self, *, sep=",", num_samples=None, **files):
                super().__init__(files, num_samples=num_samples)

    Args:
        files: split -> what holds it.
        options: those of the other base classes.

    Raises:
        ConfigError: a key that is nearly an option, or whose value can be no file.
    """

    split_noun: ClassVar[str] = "files"
    """What messages call what holds a split, such as 'file' or 'folder'."""
    takes_lists: ClassVar[bool] = True
    """Whether a list of them may hold a split."""

    def __init__(self, files: Mapping[str, Any], **options: Any) -> None:
        super().__init__(**options)
        for key, value in files.items():
            self._check_file(key, value)
        self.files = dict(files)
        self.splits = tuple(files)

    def path(self, split: str) -> Any:
        """Return what the config names for a split, or raise ConfigError where that is nothing."""
        self.check_split(split)
        return self.files[split]

    def check_split(self, split: str) -> None:
        """Raise ConfigError, with the nearest names, unless the config names this split."""
        try:
            super().check_split(split)
        except ConfigError as error:
            do = f"{error.do} Name what holds it: data=dict(..., {split}=...)."
            raise ConfigError(error.what, do=do) from None

    def _check_file(self, key: str, value: Any) -> None:
        parameters = inspect.signature(type(self)).parameters.values()
        own = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        near = did_you_mean(key, own, cutoff=0.75)
        if near or not _is_files(value):
            others = f"any other key is a split and its {self.split_noun}."
            raise ConfigError(
                f"The data has no option '{key}'.{near}",
                where=f"data.{key}",
                do=f"Options: {', '.join(own)}; {others}",
            )
        if not self.takes_lists and not isinstance(value, str | Path):
            raise ConfigError(
                f"A split of this data is one {self.split_noun}, no list.",
                where=f"data.{key}",
                do=f"Make one {self.split_noun} of them.",
            )


def _is_files(value: Any) -> bool:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return bool(value) and all(isinstance(item, str | Path) for item in value)
    return isinstance(value, str | Path) and bool(str(value))
