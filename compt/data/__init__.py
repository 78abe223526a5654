"""Public data sets that paradigms share: icons with names, CSV tables, WebDataset shards, folders
of images.

``dict(type='icons')`` needs no download; ``dict(type='csv', train='a.csv', val='b.csv')``,
``dict(type='webdataset', train='a-{000..099}.tar', val='b.tar')`` and ``dict(type='folder',
train='a', val='b')`` name a file, pattern or folder for each split, and any other option of
:class:`~compt.data.images.csv.CsvPairs`, :class:`~compt.data.images.shards.ShardPairs` or
:class:`~compt.data.images.folder.FolderImages` beside them.

A source is a map-style data set of ``dict(image=RGB picture, captions=(str, ...), label=int)``
items, with label -1 where a sample has no class, and the names of the split's own classes in
``classes``: :func:`renumber` brings the labels of two splits together. Folders have no captions,
tables and shards none with ``caption_key=None``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from compt.data._options import files_of, sort_options
from compt.data.icons import Icons
from compt.data.images.broken import Sample, SkipBroken
from compt.data.images.csv import CsvPairs
from compt.data.images.folder import FolderImages
from compt.data.images.shards import ShardPairs

__all__ = [
    "SOURCES",
    "CsvPairs",
    "FolderImages",
    "Icons",
    "Sample",
    "ShardPairs",
    "SkipBroken",
    "open_source",
    "renumber",
    "splits",
]

COMMON = ("num_samples",)
"""Options of every source: for plans made where the data is not, and not read here."""
SOURCES: dict[str, type[Dataset]] = {
    "csv": CsvPairs,
    "folder": FolderImages,
    "icons": Icons,
    "shards": ShardPairs,
    "webdataset": ShardPairs,
}


def open_source(type: str, split: str, **options: Any) -> Any:
    """Open one split of a source.

    Args:
        type: one of ``SOURCES``.
        split: 'train' or one of :func:`splits`.
        options: those of the source's class; for all but icons also the file or folder of each
            split.

    Raises:
        ConfigError: unknown type, split or option.
        DataError: the data is missing or damaged.
    """
    kind, files, settings, _ = sort_options(_without_captions(type, options), SOURCES, COMMON)
    paths = files_of(split, kind, files)
    return Icons(split, **settings) if paths is None else SOURCES[kind](paths, **settings)  # type: ignore[call-arg]


def _without_captions(kind: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Read ``caption_key=None``, as tables have it, in the options of shards as
    ``caption_keys=None``.
    """
    cfg = {"type": kind, **options}
    if (
        SOURCES.get(kind) is ShardPairs
        and "caption_keys" not in cfg
        and cfg.get("caption_key", "") is None
    ):
        cfg["caption_keys"] = cfg.pop("caption_key")
    return cfg


def splits(cfg: Mapping[str, Any]) -> tuple[str, ...]:
    """The held-out splits of a data config ``dict(type=..., ...)``, in its order.

    Raises:
        ConfigError: unknown type or option.
    """
    options = dict(cfg)
    files = sort_options(_without_captions(options.pop("type", None), options), SOURCES, COMMON)[1]
    return tuple(name for name in files if name != "train")


def renumber(
    labels: Sequence[int] | np.ndarray, names: Sequence[str], classes: Sequence[str]
) -> np.ndarray:
    """Turn a split's labels into those of another split, by the names of the classes.

    Args:
        labels: [N] indices into ``names``, -1 for none.
        names: the ``classes`` of the labels' own split.
        classes: those of the other one.

    Returns:
        int64 [N], -1 where ``classes`` has no such name.
    """
    index = {name: i for i, name in enumerate(classes)}
    numbers = np.array(
        [*(index.get(name, -1) for name in names), -1], np.int64
    )  # label -1 reads the last
    return numbers[np.asarray(labels, np.int64)]
