"""Write a config that fits some data, once it has been planned."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import Any

from compt.config import load_config
from compt.errors import ConfigError, WorkDirError
from compt.files import atomic
from compt.interfaces import Text
from compt.planning.planner import plan
from compt.planning.plans import ChainPlan
from compt.registry import PARADIGMS
from compt.scaffold.configs.dividing import divide_archives, divide_text
from compt.scaffold.configs.fitting import SHARES, SIZES, Fit, Size, fit
from compt.scaffold.configs.guessing import NEEDED, Found, guess
from compt.scaffold.configs.keys import text_key
from compt.scaffold.configs.looking import Look, look, look_at_text, source_of
from compt.scaffold.configs.page import write_page
from compt.scaffold.configs.tables import needs_tables, options_of, pairs, write_tables

TEMPLATES = Path(__file__).parent / "templates"
LEARNING_RATES: Mapping[str, tuple[float, float]] = {
    "clip": (5e-4, 3e-4),
    "mae": (4e-3, 1.5e-3),
    "causal_lm": (2e-3, 1e-3),
}
"""Of members up to 256 wide, as the shipped examples have them, and of wider ones."""
WITH_KEYS = ("jsonl", "parquet", "datasets")
"""Sources whose rows have their text in a column."""
WIDE = 256
WIDTH = 98
"""Characters of a line of comment."""


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
    """None where the paradigm's models are not known here, so that nothing could be planned."""


def check(wish: Wish) -> None:
    """Raise ComptError for what cannot be written, before anything is looked at.

    Raises:
        ConfigError: there is no such paradigm, or no Python file is named.
        WorkDirError: files are there that would be replaced.
    """
    PARADIGMS.get(wish.paradigm)  # raises with the nearest names
    if wish.file.suffix != ".py":
        raise ConfigError(
            f"'{wish.file}' does not end in .py, and a config is a Python file.",
            where="-o",
            do=f"For example -o {wish.file.with_suffix('.py')}.",
        )
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
    found = guess(wish.data, wish.paradigm, wish.data_type)
    captions = wish.paradigm == "clip"
    notes = [f"data: {found.noun}, as {found.why}"]
    if found.type in WITH_KEYS and (key := text_key(found)):
        found = replace(found, options={**found.options, "key": key})
        notes.append(f"the text is taken from '{key}', the column with most of it")
    with _made(wish.data_folder):
        config, done = _held_out(found, wish.data_folder, captions=captions)
        if done:
            notes.append(done)
        _check_provides(config, wish.paradigm)
        return Prepared(config, tuple(notes), look(config, captions=captions))


def write(wish: Wish, prepared: Prepared) -> Written:
    """Write the config and a page of samples, if what the config says can be planned.

    Raises:
        ComptError: it cannot; then nothing is written.
    """
    if wish.paradigm not in SIZES:
        names = {"paradigm": wish.paradigm, "supported": ", ".join(SIZES), "file": wish.file.name}
        data = as_code(prepared.config)
        _write(wish.file, _filled("other", {**names, "data": data}))
        return Written((wish.file, *_write_page(wish, prepared.look)), None)
    chosen = fit(wish.paradigm, prepared.look, sizes=wish.sizes, epochs=wish.epochs)
    text = config_text(wish, prepared, chosen)
    planned = _planned(text)
    if wish.flops is not None:
        text = config_text(wish, prepared, chosen.times(wish.flops / planned.flops))
        planned = _planned(text)
    _write(wish.file, text)
    return Written((wish.file, *_write_page(wish, prepared.look)), planned)


def config_text(wish: Wish, prepared: Prepared, chosen: Fit) -> str:
    """Return the config, with comments."""
    widest, reasons = chosen.sizes[-1].width, chosen.reasons or {}
    shares = [f"{share:.0%}" for share in SHARES[1:]]
    names = {
        "title": f"A chain of {len(chosen.sizes)} on {_data_name(wish)}, small to large.",
        "file": wish.file.name,
        "data": as_code(prepared.config),
        "data_why": "; ".join(note.removeprefix("data: ") for note in prepared.notes),
        "embed": min(512, max(64, widest // 2)),
        "image_size": chosen.image_size,
        "patch": chosen.patch,
        "num_patches": (chosen.image_size // (chosen.patch or 1)) ** 2,
        "decoder": 64 if widest <= WIDE else 128,
        "head": chosen.head,
        "context": chosen.context,
        "members": "\n".join(
            _member(wish.paradigm, size, epochs)
            for size, epochs in zip(chosen.sizes, chosen.epochs, strict=True)
        ),
        "shares": f"{' and '.join(shares)} of it, as in arXiv 2604.12391",
        "first_epochs": _number(chosen.epochs[0]),
        "batch": chosen.batch_size,
        "lr": LEARNING_RATES[wish.paradigm][widest > WIDE],
        **{f"{name}_why": reason for name, reason in reasons.items()},
        "samples": reasons.get("samples", ""),
    }
    if wish.flops is not None:
        names["epochs_why"] = "as long as the hours allow"
    return _filled(wish.paradigm, names)


def as_code(config: Mapping[str, Any]) -> str:
    """Write the data of a config as Python, a key a line."""
    lines = [f"        {key}={_literal(value)},\n" for key, value in config.items()]
    return f"dict(\n{''.join(lines)}    )"


def _held_out(found: Found, folder: Path, *, captions: bool) -> tuple[dict[str, Any], str]:
    """Return the data of a config that has a held-out split, and what was done for it."""
    if found.type == "folder" and captions:
        raise ConfigError(
            "The images have no captions, and CLIP learns from pairs.",
            where="--data",
            do="Put a text file of the same name beside each image, or a table metadata.csv with "
            "the columns image and caption into the folder; mae learns from images alone.",
        )
    if needs_tables(found):
        config, counts = write_tables(pairs(found, captions=captions), folder, captions=captions)
        return config, f"listed in {folder}: {counts}"
    if len(found.splits) != 1:
        extra = {}
        if found.type == "csv":
            extra = options_of(Path(found.splits["train"]), captions=captions)
        return {**found.config, **extra}, ""
    if found.type == "webdataset":
        return divide_archives(found)
    source = source_of(found.config)
    if "text" not in source.provides:
        raise ConfigError(
            f"Nothing is held out of the data, and '{found.type}' cannot be divided here.",
            where="--data",
            do="Put what is held out beside it: files named train and val.",
        )
    text: Text = source.open("train")
    num_documents = look_at_text(text).num_samples
    config, counts = divide_text(text, folder, num_documents)
    return config, f"divided into {folder}: {counts}"


def _check_provides(config: Mapping[str, Any], paradigm: str) -> None:
    """Raise ConfigError where the data is not of the kind that a paradigm learns from."""
    provides = source_of(config).provides
    wanted = {"causal_lm": ({"text"}, {"tokens"}), "clip": ({"image", "captions"},)}
    alternatives = wanted.get(paradigm, ({"image"},) if paradigm == "mae" else (set(),))
    if not any(provides >= needed for needed in alternatives):
        raise ConfigError(
            f"'{paradigm}' learns from {NEEDED[paradigm]}; data of type '{config['type']}' holds "
            f"{' and '.join(sorted(provides))}.",
            where="--data",
            do="Name other data, or another paradigm with --paradigm.",
        )


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Remove a folder that was made, where an error follows."""
    existed = folder.exists()
    try:
        yield
    except BaseException:
        if not existed:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _planned(text: str) -> ChainPlan:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.py")
        file.write_text(text, encoding="utf-8")
        return plan(load_config(file))


def _member(paradigm: str, size: Size, epochs: float) -> str:
    prefix, function = {"causal_lm": ("lm", "llama")}.get(paradigm, (paradigm, paradigm))
    text_layers = f", {max(1, round(2 * size.layers / 3))}" if paradigm == "clip" else ""
    model = f"{function}({size.width}, {size.layers}{text_layers})"
    return f'    dict(name="{prefix}-{size.name}", model={model}, epochs={_number(epochs)}),'


def _filled(name: str, names: Mapping[str, Any]) -> str:
    """Return a template with its places filled, and long comments wrapped."""
    text = Template((TEMPLATES / f"{name}.py.txt").read_text("utf-8")).substitute(names)
    return "\n".join(itertools.chain.from_iterable(map(_wrapped, text.split("\n"))))


def _wrapped(line: str) -> list[str]:
    comment = line.lstrip()
    if len(line) <= WIDTH or not comment.startswith("# "):
        return [line]
    start = f"{line[: -len(comment)]}# "
    return textwrap.wrap(comment[2:], WIDTH, initial_indent=start, subsequent_indent=start)


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


def _data_name(wish: Wish) -> str:
    return os.path.basename(wish.data.rstrip("/")) if wish.data else "data that ships with compt"


def _number(value: float) -> str:
    return f"{value:g}"


def _literal(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str | list) else repr(value)
