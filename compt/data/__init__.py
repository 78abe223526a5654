"""Public data sets that paradigms share: icons with names, CSV tables, WebDataset shards.

``dict(type='icons')`` needs no download; ``dict(type='csv', train='a.csv', val='b.csv')`` and
``dict(type='webdataset', train='a-{000..099}.tar', val='b.tar')`` name a file or pattern for each split, and
any other option of :class:`~compt.data.csv.CsvPairs` or :class:`~compt.data.shards.ShardPairs` beside them.

A source is a map-style data set of ``dict(image=RGB picture, captions=(str, ...), label=int)`` items, with
label -1 where a sample has no class, and the names of the classes in ``classes``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from compt.data.broken import Sample, SkipBroken
from compt.data.csv import CsvPairs
from compt.data.icons import SPLITS as ICON_SPLITS
from compt.data.icons import Icons
from compt.data.shards import ShardPairs
from compt.errors import ConfigError, did_you_mean

__all__ = ["SOURCES", "CsvPairs", "Icons", "Sample", "ShardPairs", "SkipBroken", "open_source", "splits"]

SOURCES: dict[str, type[Dataset]] = {
    "csv": CsvPairs,
    "icons": Icons,
    "shards": ShardPairs,
    "webdataset": ShardPairs,
}


def open_source(type: str, split: str, **options: Any) -> Any:
    """Open one split of a source.

    Args:
        type: one of ``SOURCES``.
        split: 'train' or one of :func:`splits`.
        options: those of the source's class; for tables and shards also the file of each split.

    Raises:
        ConfigError: unknown type, split or option.
        DataError: the data is missing or damaged.
    """
    files, settings = _sort_options(type, options)
    if type == "icons":
        return Icons(split, **settings)
    if split not in files:
        raise ConfigError(
            f"The data has no split '{split}'." + did_you_mean(split, files),
            where=f"data of type '{type}'",
            do=f"Splits: {', '.join(files) or 'none'}. Give it a file: dict(type='{type}', {split}=...).",
        )
    return SOURCES[type](files[split], **settings)  # type: ignore[call-arg]


def splits(cfg: Mapping[str, Any]) -> tuple[str, ...]:
    """The held-out splits of a data config ``dict(type=..., ...)``, in its order.

    Raises:
        ConfigError: unknown type or option.
    """
    options = dict(cfg)
    files, _ = _sort_options(options.pop("type", None), options)
    return tuple(name for name in files if name != "train")


def _sort_options(type: Any, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tell the splits (name -> files) from the options of the source's class."""
    if type not in SOURCES:
        what = (
            "The data has no type." if type is None else f"No data source named '{type}'." + did_you_mean(type, SOURCES)
        )
        raise ConfigError(what, where="data", do=f"Available: {', '.join(SOURCES)}.")
    known = [p.name for p in inspect.signature(SOURCES[type]).parameters.values() if p.kind is p.KEYWORD_ONLY]
    settings = {key: value for key, value in options.items() if key in known}
    files = {key: value for key, value in options.items() if key not in known}
    rest = "." if type == "icons" else "; any other key is a split and its file."
    for key, value in files.items():
        if type == "icons" or did_you_mean(key, known, cutoff=0.75) or not _is_files(value):
            raise ConfigError(
                f"Data of type '{type}' has no option '{key}'." + did_you_mean(key, known, cutoff=0.75),
                where=f"data.{key}",
                do=f"Options: {', '.join(known)}{rest}",
            )
    return dict.fromkeys(ICON_SPLITS) if type == "icons" else files, settings


def _is_files(value: Any) -> bool:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return bool(value) and all(isinstance(item, str | Path) for item in value)
    return isinstance(value, str | Path) and bool(str(value))
