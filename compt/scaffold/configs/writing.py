"""Write a config that fits some data, once it has been planned."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compt.config import load_config
from compt.errors import ConfigError, WorkDirError
from compt.interfaces import Paradigm, Starter, Text
from compt.planning.planner import plan
from compt.planning.plans import ChainPlan
from compt.registry import PARADIGMS
from compt.scaffold.configs.dividing import divide_archives, divide_text
from compt.scaffold.configs.filling import config_text, frame
from compt.scaffold.configs.fitting import Fit, fit, parse_sizes
from compt.scaffold.configs.guessing import Found, guess
from compt.scaffold.configs.keys import text_key
from compt.scaffold.configs.looking import Look, look, look_at_text, source_of
from compt.scaffold.configs.page import write_page
from compt.scaffold.configs.tables import needs_tables, options_of, pairs, write_tables
from compt.writing import atomic

WITH_KEYS = ("jsonl", "parquet", "datasets")
"""Sources whose rows have their text in a column."""


@dataclass(frozen=True)
class Wish:
    """What a config is to be for."""

    paradigm: str
    file: Path
    """To write."""
    data: str | None = None
    """Path, pattern or the name of a source without files; None for data that ships with compt."""
    data_type: str | None = None
    """The data source, where it is not to be guessed."""
    sizes: str | None = None
    epochs: float | None = None
    flops: float | None = None
    """What the whole chain may cost, where that is what decides its length."""
    force: bool = False
    """Whether files that are there may be replaced."""

    @property
    def starter(self) -> Starter | None:
        """What the paradigm writes of itself, None where it has none."""
        paradigm: type[Paradigm] = PARADIGMS.get(self.paradigm)
        return paradigm.starter

    @property
    def member_prefix(self) -> str:
        """What members are called before their size."""
        own = self.starter.member_prefix if self.starter else ""
        return own or self.paradigm.rpartition(":")[2]

    @property
    def needs_captions(self) -> bool:
        """Whether the paradigm learns from images with captions alone."""
        starter = self.starter
        return starter is not None and all("captions" in needed for needed in starter.needs)

    @property
    def data_folder(self) -> Path:
        """Where tables and divided text are written."""
        return self.file.absolute().with_name(f"{self.file.stem}_data")

    @property
    def page(self) -> Path:
        """The page of samples, without its ending."""
        return self.file.with_name(f"{self.file.stem}_samples")


@dataclass(frozen=True)
class Prepared:
    """Data that a config names, and how it was come by."""

    config: Mapping[str, Any]
    notes: tuple[str, ...]
    """What was guessed and made, a line each."""
    look: Look


@dataclass(frozen=True)
class Written:
    """A config that was written."""

    files: tuple[Path, ...]
    plan: ChainPlan | None
    """None where the paradigm has no starter, so that nothing could be planned."""


def check(wish: Wish) -> None:
    """Raise ComptError for what cannot be written, before anything is looked at.

    Raises:
        ConfigError: there is no such paradigm, or no Python file is named.
        WorkDirError: files are there that would be replaced.
    """
    starter = wish.starter  # raises with the nearest names
    if wish.file.suffix != ".py":
        raise ConfigError(
            f"'{wish.file}' does not end in .py, and a config is a Python file.",
            where="-o",
            do=f"For example -o {wish.file.with_suffix('.py')}.",
        )
    if starter and wish.sizes is not None and wish.sizes not in starter.sizes:
        parse_sizes(wish.sizes, starter)
    there = [path for path in (wish.file, wish.data_folder) if path.exists()]
    if there and not wish.force:
        raise WorkDirError(
            f"'{there[0]}' exists already.",
            do="Choose another name with -o, or replace it with --force.",
        )


def prepare(wish: Wish) -> Prepared:
    """Tell what the data is, hold a part of it out where none is, and look at it.

    Raises:
        ComptError: the data is missing, damaged or not what the paradigm needs.
    """
    starter = wish.starter
    guessed = guess(wish.data, wish.data_type, example=starter.example_data if starter else "")
    notes = [f"data: {guessed.noun}, as {guessed.why}"]
    if guessed.type in WITH_KEYS and (key := text_key(guessed)):
        guessed = replace(guessed, options={**guessed.options, "key": key})
        notes.append(f"the text is taken from '{key}', the column with most of it")
    config, done = _held_out(guessed, wish)
    if done:
        notes.append(done)
    if starter is not None:
        _check_provides(config, wish.paradigm, starter)
    return Prepared(config, tuple(notes), look(config, captions=wish.needs_captions))


def write(wish: Wish, prepared: Prepared) -> Written:
    """Write the config and a page of samples, if what the config says can be planned.

    Raises:
        ComptError: it cannot; then nothing is written.
    """
    starter = wish.starter
    if starter is None:
        _write(wish.file, frame(wish.paradigm, file=wish.file.name, data=prepared.config))
        return Written((wish.file, *_write_page(wish, prepared.look)), None)
    chosen = fit(starter, prepared.look, sizes=wish.sizes, epochs=wish.epochs)
    text, planned = _planned(wish, prepared, chosen)
    if wish.flops is not None:
        chosen = chosen.times(wish.flops / planned.flops, "as long as the hours allow")
        text, planned = _planned(wish, prepared, chosen)
    _write(wish.file, text)
    return Written((wish.file, *_write_page(wish, prepared.look)), planned)


def _held_out(guessed: Found, wish: Wish) -> tuple[dict[str, Any], str]:
    """Return the data of a config that has a held-out split, and what was done for it."""
    captions, folder = wish.needs_captions, wish.data_folder
    if guessed.type == "folder" and captions:
        raise ConfigError(
            f"The images have no captions, and '{wish.paradigm}' learns from both.",
            where="--data",
            do="Put a text file of the same name beside each image, or a table metadata.csv with "
            "the columns image and caption into the folder; or name a paradigm that learns from "
            "images alone.",
        )
    if needs_tables(guessed):
        config, counts = write_tables(pairs(guessed, captions=captions), folder, captions=captions)
        return config, f"listed in {folder}: {counts}"
    if len(guessed.splits) != 1:
        extra = {}
        if guessed.type == "csv":
            extra = options_of(Path(guessed.splits["train"]), captions=captions)
        return {**guessed.config, **extra}, ""
    if guessed.type == "webdataset":
        return divide_archives(guessed)
    source = source_of(guessed.config)
    if "text" not in source.provides:
        raise ConfigError(
            f"Nothing is held out of the data, and '{guessed.type}' cannot be divided here.",
            where="--data",
            do="Put what is held out beside it: files named train and val.",
        )
    text: Text = source.open("train")
    num_documents = look_at_text(text).num_samples
    config, counts = divide_text(text, folder, num_documents)
    return config, f"divided into {folder}: {counts}"


def _check_provides(config: Mapping[str, Any], paradigm: str, starter: Starter) -> None:
    """Raise ConfigError where the data is not of the kind that a paradigm learns from."""
    provides = source_of(config).provides
    if not any(provides >= set(needed) for needed in starter.needs):
        raise ConfigError(
            f"'{paradigm}' learns from {starter.data_noun}; data of type '{config['type']}' holds "
            f"{' and '.join(sorted(provides))}.",
            where="--data",
            do="Name other data, or another paradigm with --paradigm.",
        )


@contextmanager
def undone_on_error(wish: Wish) -> Iterator[None]:
    """Remove the folder of divided data where an error follows, if it was not there before.

    Else the next try would be refused, as it exists.
    """
    existed = wish.data_folder.exists()
    try:
        yield
    except BaseException:
        if not existed:
            shutil.rmtree(wish.data_folder, ignore_errors=True)
        raise


def _planned(wish: Wish, prepared: Prepared, chosen: Fit) -> tuple[str, ChainPlan]:
    """Return a config's text and its plan."""
    text = config_text(
        wish.paradigm,
        chosen,
        prefix=wish.member_prefix,
        file=wish.file.name,
        on=Path(wish.data).name if wish.data else "data that ships with compt",
        data=prepared.config,
        why="; ".join(note.removeprefix("data: ") for note in prepared.notes),
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.py")
        file.write_text(text, encoding="utf-8")
        return text, plan(load_config(file))


def _write(file: Path, text: str) -> None:
    with atomic(file) as beside:
        beside.write_text(text, encoding="utf-8")


def _write_page(wish: Wish, seen: Look) -> list[Path]:
    """Write what shows samples: an image of images, or lines of text."""
    if seen.shown:
        page = wish.page.with_name(f"{wish.page.name}.png")
        write_page(seen.shown, page)
        return [page]
    if seen.lines:
        page = wish.page.with_name(f"{wish.page.name}.txt")
        _write(page, "\n".join(seen.lines))
        return [page]
    return []
