"""Hold out a part of text and of archives that come in one piece."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from glob import glob
from pathlib import Path
from typing import Any, TextIO

from compt.errors import ConfigError
from compt.interfaces import Text
from compt.scaffold.configs.guessing import Found
from compt.writing import atomic

HELD_OUT = 20
"""One document in so many is held out; of a few documents the last part of the text."""
FEW = 40
"""Below so many documents the text is cut, as whole ones held out would say little."""
MOST_COPIED = 4 * 2**30
"""Bytes of text that are divided by copying."""


def divide_text(text: Text, folder: Path, num_documents: int) -> tuple[dict[str, Any], str]:
    """Write training and held-out text, and return the data of a config, and what was done.

    Args:
        text: all of it.
        folder: to write to.
        num_documents: how many there are, FEW or more where they were not counted to the end.

    Raises:
        ConfigError: it is too much to be copied.
    """
    if text.num_bytes > MOST_COPIED:
        raise ConfigError(
            f"There are {text.num_bytes / 2**30:.1f} GiB of text without a held-out part, too many "
            "to be copied.",
            where="--data",
            do="Move some files into a folder 'val' beside one called 'train', and name the folder "
            "of both.",
        )
    if num_documents < FEW:
        return _cut(text, folder)
    names = {"train": folder / "train.jsonl", "val": folder / "val.jsonl"}
    counts = {"train": 0, "val": 0}
    with ExitStack() as files:
        write = {split: _writer(files, path) for split, path in names.items()}
        for index, document in enumerate(text):
            if not document.strip():
                continue
            split = "val" if index % HELD_OUT == HELD_OUT - 1 else "train"
            counts[split] += 1
            write[split](json.dumps({"text": document}, ensure_ascii=False) + "\n")
    config = {"type": "jsonl", **{split: str(path) for split, path in names.items()}}
    return config, f"{counts['train']:,} documents for training and {counts['val']:,} held out"


def divide_archives(found: Found) -> tuple[dict[str, Any], str]:
    """Hold out the last of several archives.

    Raises:
        ConfigError: there is one alone.
    """
    archives = _archives(found.splits["train"])
    if len(archives) < 2:
        raise ConfigError(
            "One archive cannot be divided into a part to train on and one that is held out.",
            where="--data",
            do="Put a second one beside it, or name one 'train' and the other 'val'.",
        )
    config = {"type": "webdataset", "train": archives[:-1], "val": archives[-1]}
    return config, f"the last of {len(archives):,} archives is held out"


def _archives(pattern: str) -> list[str]:
    """Return the archives of a pattern; one with braces is left to the source."""
    if "{" in pattern:
        raise ConfigError(
            "A pattern in braces names archives to train on, and none to hold out.",
            where="--data",
            do="Name their folder, or give the config val=... yourself.",
        )
    return sorted(glob(pattern)) or [pattern]


def _writer(files: ExitStack, path: Path) -> Callable[[str], Any]:
    beside = files.enter_context(atomic(path))
    out: TextIO = files.enter_context(beside.open("w", encoding="utf-8"))
    return out.write


def _cut(text: Text, folder: Path) -> tuple[dict[str, Any], str]:
    """Hold out the last of the text, from the end of a line on."""
    num_characters = sum(len(piece) for piece, _ in text.pieces())
    start, position = num_characters * (HELD_OUT - 1) // HELD_OUT, 0
    names = {"train": folder / "train.txt", "val": folder / "val.txt"}
    with ExitStack() as files:
        write = {split: _writer(files, path) for split, path in names.items()}
        for piece, is_last in text.pieces():
            line_end = piece.find("\n", max(0, start - position)) + 1 or len(piece)
            cut = line_end if start > position else 0
            write["train"](piece[:cut])
            write["val"](piece[cut:])
            if is_last:
                write["train" if cut == len(piece) else "val"]("\n")
            position += len(piece)
    config = {"type": "text", **{split: str(path) for split, path in names.items()}}
    return config, f"the last twentieth of {num_characters:,} characters is held out"
