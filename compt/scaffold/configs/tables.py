"""Turn images whose captions lie beside them, or that nothing is held out of, into tables."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compt.errors import ConfigError, DataError
from compt.interfaces.foreign import MOST_LINE, lines, parse_json
from compt.scaffold.configs.guessing import IMAGES, TABLES, Found, files_of
from compt.writing import atomic

HELD_OUT, FEW = 20, 2000
"""One in so many samples is held out, one in half as many where there are few."""
IMAGE_KEYS = ("image", "filepath", "file_name", "filename", "path", "image_path", "file")
CAPTION_KEYS = ("caption", "captions", "title", "text", "description", "prompt")
LABEL_KEYS = ("label", "class", "category")


@dataclass(frozen=True)
class Row:
    """One image, by its path, with what is known of it."""

    image: str
    caption: str = ""
    label: str = ""


def columns(names: Iterable[str], path: Path, *, captions: bool) -> dict[str, str]:
    """Tell which columns of a table hold images, captions and labels.

    Raises:
        ConfigError: none of them does, where it is needed.
    """
    names = list(names)
    chosen = {}
    wanted = {"image_key": IMAGE_KEYS, "caption_key": CAPTION_KEYS, "label_key": LABEL_KEYS}
    for key, known in wanted.items():
        matching = [name for name in known if name in names]
        if matching:
            chosen[key] = matching[0]
    needed = ("image_key", "caption_key") if captions else ("image_key",)
    for key in needed:
        if key not in chosen:
            raise ConfigError(
                f"No column of the table is known to hold "
                f"{'image paths' if key == 'image_key' else 'captions'}: {', '.join(names)}.",
                where=str(path),
                do=f"Name it one of {', '.join(wanted[key])}.",
            )
    return chosen


def options_of(path: Path, *, captions: bool) -> dict[str, Any]:
    """Return the options by which the source 'csv' reads a table."""
    with _opened(path) as file, _read_as_table(path):
        header = next(csv.reader(lines(file, path), delimiter=_separator(path)), [])
    chosen = columns(header, path, captions=captions)
    options: dict[str, Any] = {
        key: value for key, value in chosen.items() if value not in ("image", "caption")
    }
    if not captions and "caption_key" not in chosen:
        options["caption_key"] = None
    return options


def pairs(found: Found, *, captions: bool) -> Iterator[Row]:
    """Yield the images of a folder, with the captions that lie beside them.

    Args:
        found: a folder, or a table.
        captions: whether an image needs one; those without are left out by the source, and said.

    Raises:
        ConfigError: a table has no column of images or captions.
        DataError: a file cannot be read.
    """
    path = Path(found.splits["train"])
    if path.is_file():
        yield from _of_table(path, captions=captions)
        return
    files = list(files_of(path))
    tables = [file for file in files if file.suffix in (*TABLES, ".jsonl")]
    if found.type == "pairs" and tables:
        for table in tables:
            yield from _of_table(table, captions=captions)
        return
    for file in files:
        if file.suffix.lower() in IMAGES:
            label = file.relative_to(path).parts[0] if file.parent != path else ""
            yield Row(str(file), _caption_beside(file), label)


def write_tables(
    rows: Iterable[Row], folder: Path, *, captions: bool
) -> tuple[dict[str, Any], str]:
    """Write one table of each split, and return the data of a config, and what was done.

    Args:
        rows: of all splits; which are held out depends on their captions or paths alone.
        folder: to write to.
        captions: whether the tables have captions.
    """
    split_rows = _divided(list(rows))
    if not split_rows["train"]:
        raise DataError("There are no images to train on.", where=str(folder))
    has_labels = len({row.label for row in split_rows["train"]} - {""}) > 1
    is_written = {"image": True, "caption": captions, "label": has_labels}
    keys = [key for key, is_column in is_written.items() if is_column]
    config: dict[str, Any] = {"type": "csv"}
    for split, chosen in split_rows.items():
        config[split] = str(folder / f"{split}.csv")
        _write_table(Path(config[split]), keys, chosen)
    if not captions:
        config["caption_key"] = None
    if has_labels:
        config["label_key"] = "label"
    num_train, num_val = len(split_rows["train"]), len(split_rows["val"])
    return config, f"{num_train:,} for training and {num_val:,} held out"


def _write_table(path: Path, keys: Sequence[str], rows: Iterable[Row]) -> None:
    """Write these columns of some rows as CSV."""
    with atomic(path) as beside, beside.open("w", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(keys)
        writer.writerows([getattr(row, key) for key in keys] for row in rows)


def _divided(rows: list[Row]) -> dict[str, list[Row]]:
    """Return the rows of each split, one at least held out."""
    split_rows: dict[str, list[Row]] = {"train": [], "val": []}
    one_in = HELD_OUT if len(rows) > FEW else HELD_OUT // 2
    for row in rows:
        split_rows["val" if _number(row) % one_in == 0 else "train"].append(row)
    if not split_rows["val"] and len(rows) > 1:
        split_rows["val"].append(split_rows["train"].pop())
    return split_rows


def _number(row: Row) -> int:
    """Return a number by a row's caption, so that images with equal ones are held out together."""
    digest = hashlib.sha256((row.caption or row.image).encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:4], "big")


def _of_table(path: Path, *, captions: bool) -> Iterator[Row]:
    """Yield the rows of a table, CSV, TSV or JSON lines, with absolute paths."""
    rows = list(_rows(path))
    keys = columns(rows[0] if rows else (), path, captions=captions)
    for row in rows:
        caption = row.get(keys.get("caption_key", ""), "")
        texts = caption if isinstance(caption, list) else [caption]
        label = str(row.get(keys.get("label_key", ""), "") or "")
        image = Path(path.parent, str(row.get(keys["image_key"], "") or "").strip())
        cell = json.dumps(texts) if len(texts) > 1 else str(texts[0] or "")
        yield Row(str(image), cell, label)


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    with _opened(path) as file:
        if path.suffix == ".jsonl":
            for number, line in enumerate(lines(file, path), 1):
                if line.strip():
                    yield _row(line, f"{path}, line {number}")
            return
        with _read_as_table(path):
            yield from csv.DictReader(lines(file, path), delimiter=_separator(path))


@contextmanager
def _read_as_table(path: Path) -> Iterator[None]:
    """Name the table in errors of what reads it."""
    try:
        yield
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(
            f"The table cannot be read: {error}.", where=str(path), do="Correct the table."
        ) from error


def _row(line: str, where: str) -> Mapping[str, Any]:
    """Return the object in a line of JSON.

    Raises:
        DataError: it holds none.
    """
    try:
        row = parse_json(line)
        if isinstance(row, dict):
            return row
        fault = "it is no object"
    except ValueError as error:
        fault = str(error)
    raise DataError(f"The line is no JSON: {fault}.", where=where, do="Correct or remove it.")


def _separator(path: Path) -> str:
    return "\t" if path.suffix == ".tsv" else ","


def _opened(path: Path) -> Any:
    try:
        return path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise DataError(f"The table cannot be read: {error.strerror}.", where=str(path)) from error


def _caption_beside(image: Path) -> str:
    """Return the text of the file that is named like an image, '' where there is none."""
    for ending in (".txt", ".caption"):
        file = image.with_suffix(ending)
        if file.is_file():
            with file.open(encoding="utf-8", errors="replace") as text:
                return " ".join(text.read(MOST_LINE).split())
    return ""


def needs_tables(found: Found) -> bool:
    """Tell whether images have to be listed in tables before a source can read their splits."""
    return found.type == "pairs" or (found.type in ("folder", "csv") and len(found.splits) == 1)
