"""Fill templates of configs."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from string import Template
from typing import Any

from compt.errors import visible
from compt.scaffold.configs.fitting import SHARES, Fit

TEMPLATES = Path(__file__).parent / "templates"
WIDTH = 98
"""Characters of a line of comment."""


def config_text(
    paradigm: str, fit: Fit, *, prefix: str, file: str, on: str, data: Mapping[str, Any], why: str
) -> str:
    """Return a config, with comments.

    Args:
        paradigm: its name.
        fit: what it says beside its data.
        prefix: what members are called before their size.
        file: its name.
        on: what people call the data.
        data: as a config has it.
        why: how the data was come by.
    """
    draft = fit.draft
    members = zip(fit.sizes, draft.models, fit.epochs, strict=True)
    num_iterations = draft.num_samples // fit.batch_size
    names = {
        "title": f"A chain of {len(fit.sizes)} on {prose(on)}, small to large.",
        "file": prose(file),
        "paradigm": paradigm,
        "data": as_code(data),
        "data_why": prose(why),
        "options": textwrap.indent(f"{draft.options}\n", "    ") if draft.options else "",
        "definitions": f"{draft.definitions}\n\n\n" if draft.definitions else "",
        "members": "\n".join(
            f'    dict(name="{prefix}-{size.name}", model={model}, epochs={epochs:g}),'
            for size, model, epochs in members
        ),
        "epochs_why": fit.epochs_why,
        "shares": f"{' and '.join(f'{s:.0%}' for s in SHARES[1:])} of it, as in arXiv 2604.12391",
        "first_epochs": f"{fit.epochs[0]:g}",
        "transfer": draft.transfer,
        "batch_why": f"{num_iterations:,} iterations an epoch with {draft.num_samples:,} "
        f"{draft.sample_noun}",
        "batch": fit.batch_size,
        "optimizer": draft.optimizer,
    }
    return _filled("fitted", names)


def frame(paradigm: str, *, file: str, data: Mapping[str, Any]) -> str:
    """Return a config of a paradigm without a starter, whose models are to be filled in."""
    return _filled("frame", {"paradigm": paradigm, "file": prose(file), "data": as_code(data)})


def prose(text: str) -> str:
    """Return a text that ends neither the comment nor the docstring that it is put into.

    Names of files and columns come from the data, and a config is run.
    """
    line = visible(" ".join(text.split())).encode("utf-8", "backslashreplace").decode()
    return line.replace("\\", "/").replace('"', "'")


def as_code(config: Mapping[str, Any]) -> str:
    """Write the data of a config as Python, a key a line."""
    lines = [f"        {key}={_literal(value)},\n" for key, value in config.items()]
    return f"dict(\n{''.join(lines)}    )"


def _filled(name: str, names: Mapping[str, Any]) -> str:
    """Return a template with its places filled, and long comments wrapped."""
    text = Template((TEMPLATES / f"{name}.py.txt").read_text("utf-8")).substitute(names)
    return "\n".join(chain.from_iterable(map(_wrapped, text.split("\n"))))


def _wrapped(line: str) -> list[str]:
    comment = line.lstrip()
    if len(line) <= WIDTH or not comment.startswith("# "):
        return [line]
    start = f"{line[: -len(comment)]}# "
    return textwrap.wrap(comment[2:], WIDTH, initial_indent=start, subsequent_indent=start)


def _literal(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str | list) else repr(value)
