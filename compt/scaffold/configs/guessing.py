"""Tell from what lies at a path which data source reads it."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from glob import glob
from itertools import islice
from pathlib import Path
from typing import Any

from compt.errors import ComptError, ConfigError
from compt.interfaces import DataSource
from compt.registry import DATA

MAX_FILES = 20_000
"""Files of a folder that are looked at to tell what it holds."""
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
TABLES = (".csv", ".tsv")
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
TYPES: Mapping[str, str] = {
    **dict.fromkeys(IMAGES, "folder"),
    **dict.fromkeys(TABLES, "csv"),
    ".tar": "webdataset",
    ".jsonl": "jsonl",
    ".parquet": "parquet",
    ".txt": "text",
    ".md": "text",
    ".npy": "tokens",
}
"""Data sources by what the names of their files end in."""
HELD_OUT = ("val", "valid", "validation", "dev", "test")
"""Names of folders and files that hold what is not trained on."""


@dataclass(frozen=True)
class Found:
    """What lies at a path, as a data source reads it."""

    type: str
    """Of the data source, or 'pairs' for images with their captions in files beside them."""
    splits: Mapping[str, str]
    """What holds each split; 'train' alone where nothing is held out yet."""
    why: str
    """What it was told from, for people."""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def noun(self) -> str:
        """What people call it."""
        if self.type == "pairs":
            return "images with captions beside them"
        return f"read as '{self.type}'"

    @property
    def config(self) -> dict[str, Any]:
        """The data of a config."""
        return {"type": self.type, **self.splits, **self.options}


def guess(path: str | None, data_type: str | None = None, *, example: str = "") -> Found:
    """Tell what lies at a path.

    Args:
        path: file, folder or pattern, or the name of a source without files; None for ``example``.
        data_type: the data source, where it is not to be guessed.
        example: a source without files that the paradigm can begin with, '' for none.

    Raises:
        ConfigError: there is nothing at the path, or nothing that a source reads.
    """
    do = "Give a file, a folder or a quoted pattern"
    do += f", or '{example}', which needs no files of your own." if example else "."
    if path is None and not example:
        raise ConfigError("No data is named.", where="--data", do=do)
    if path is None:
        return Found(example, {}, "no data was named, and this needs none of your own")
    if not _exists(path):
        if _needs_no_files(path):
            return Found(path, {}, "it is a source that needs no files")
        raise ConfigError(f"There is nothing at '{path}'.", where="--data", do=do)
    if any(sign in path for sign in "*?[{"):
        kind = data_type or _type_of(path)
        why = "it was named" if data_type else f"the pattern ends in {_ending(path)}"
        return Found(_known(kind, path), _named_pattern(path), why)
    absolute = Path(path).expanduser().absolute()
    if absolute.is_dir():
        return _in_folder(absolute, data_type)
    kind = data_type or _type_of(absolute.name)
    why = "it was named" if data_type else f"the file's name ends in {_ending(absolute.name)}"
    return Found(_known(kind, path), _beside(absolute), why)


def files_of(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and those below it, in order, without hidden ones."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(root, name)


def _exists(path: str) -> bool:
    if any(sign in path for sign in "*?[{"):
        return True  # the source says which of the files it names are missing
    return Path(path).expanduser().exists()


def _needs_no_files(name: str) -> bool:
    """Tell whether a data source has splits without being told of any files."""
    if name not in DATA:
        return False
    try:
        source: DataSource = DATA.build({"type": name})
    except ComptError:  # of a source that needs options
        return False
    return bool(source.splits)


def _in_folder(folder: Path, data_type: str | None) -> Found:
    """Tell what a folder holds, in sub-folders of its splits or all in one."""
    held_out = [name for name in HELD_OUT if (folder / name).is_dir()]
    train = folder / "train"
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return _saved_dataset(folder)
    if train.is_dir() and held_out:
        inner = _one_folder(train, data_type)
        splits = {name: str(folder / name) for name in ("train", *held_out)}
        if inner.type != "pairs" and Path(inner.splits["train"]) == train:
            why = f"{inner.why}; its sub-folders are named like splits: {', '.join(splits)}"
            return Found(inner.type, splits, why)
    return _one_folder(folder, data_type)


def _one_folder(folder: Path, data_type: str | None) -> Found:
    """Tell what a folder holds that is one split, or all data."""
    if data_type is not None:
        return Found(data_type, {"train": str(folder)}, "it was named")
    files = list(islice(files_of(folder), MAX_FILES))
    endings = Counter(_ending(file.name) for file in files)
    kinds = Counter(TYPES[ending] for ending in endings.elements() if ending in TYPES)
    if not kinds:
        raise ConfigError(
            f"No file in '{folder}' is data that compt reads.",
            where="--data",
            do=f"Names may end in {', '.join(sorted(TYPES))}, text also in those with "
            f"{', '.join(COMPRESSED)}; or name the source with --data-type.",
        )
    why = _most_common(endings)
    if kinds["folder"]:
        return _images(folder, files, why)
    kind = "csv" if kinds["csv"] else kinds.most_common(1)[0][0]
    options = {"pattern": "*.md"} if kind == "text" and not endings[".txt"] else {}
    return Found(kind, _splits_in(folder, files, kind), why, options)


def _most_common(endings: Counter[str]) -> str:
    """Say what the names of a folder's files end in."""
    counts = ", ".join(f"{count:,} {ending}" for ending, count in endings.most_common(3))
    if endings.total() < MAX_FILES:
        return f"the folder holds {counts}"
    return f"of {MAX_FILES:,} files {counts} are there"


def _splits_in(folder: Path, files: Iterable[Path], kind: str) -> dict[str, str]:
    """Return what holds the splits of files of one kind, all of them where none is named so."""
    of_kind = [file for file in files if TYPES.get(_ending(file.name)) == kind]
    train = [file for file in of_kind if "train" in file.name]
    if kind == "csv":
        return _beside((train or of_kind)[0])
    if len(train) == 1:
        return _beside(train[0])
    return {"train": str(folder / "*.tar") if kind == "webdataset" else str(folder)}


def _images(folder: Path, files: list[Path], why: str) -> Found:
    """Tell whether a folder of images has captions, in a table or in files beside the images."""
    images = [file for file in files if file.suffix.lower() in IMAGES]
    tables = [file for file in files if file.suffix in (*TABLES, ".jsonl")]
    if tables:
        return Found("pairs", {"train": str(folder)}, f"{why}; captions in {tables[0].name}")
    beside = {file.with_suffix("") for file in files if file.suffix in (".txt", ".caption")}
    captioned = sum(image.with_suffix("") in beside for image in images)
    if captioned:
        text = f"{why}; {captioned:,} images have a text file of the same name"
        return Found("pairs", {"train": str(folder)}, text)
    return Found("folder", {"train": str(folder)}, why)


def _saved_dataset(folder: Path) -> Found:
    why = "the folder is what save_to_disk of Hugging Face datasets writes"
    names = [name for name in HELD_OUT if (folder / name / "state.json").is_file()]
    if (folder / "dataset_dict.json").is_file():
        splits = {name: str(folder / name) for name in ("train", *names[:1])}
        return Found("datasets", splits, why)
    return Found("datasets", {"train": str(folder)}, why)


def _beside(file: Path) -> dict[str, str]:
    """Return a file as the training split, with those of its kind that are named as held out."""
    ending = _ending(file.name)
    others = (path for path in file.parent.iterdir() if _ending(path.name) == ending)
    return _named(others, file) if "train" in file.name else {"train": str(file)}


def _named(files: Iterable[Path], train: Path) -> dict[str, str]:
    """Return a training file, and files beside it whose names say that they are held out."""
    splits = {"train": str(train)}
    prefix = train.name.partition("train")[0]
    for file in sorted(files):
        match = re.fullmatch(rf"({'|'.join(HELD_OUT)})(\w*)\..*", file.name.removeprefix(prefix))
        if match and file.name.startswith(prefix):
            splits.setdefault(match[1] + match[2], str(file))
    return splits


def _named_pattern(pattern: str) -> dict[str, str]:
    """Return the splits of files that a pattern names, the pattern as one where they have none."""
    files = [Path(file).absolute() for file in glob(pattern)]
    train = [file for file in files if "train" in file.name]
    return _named(files, train[0]) if len(train) == 1 else {"train": pattern}


def _ending(name: str) -> str:
    """Return what a file's name ends in, without what says how it is compressed."""
    path = Path(name)
    inner = Path(path.stem) if path.suffix in COMPRESSED else path
    return inner.suffix.lower()


def _type_of(name: str) -> str | None:
    return TYPES.get(_ending(name))


def _known(kind: str | None, path: str) -> str:
    if kind is None or kind == "folder":
        raise ConfigError(
            f"What '{path}' holds cannot be told from its name.",
            where="--data",
            do="Name its source with --data-type, such as text, jsonl, csv or webdataset.",
        )
    return kind
