"""Fill templates of configs."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from string import Template
from typing import Any

from compt.scaffold.configs.fitting import SHARES, SIZES, Fit, Size

TEMPLATES = Path(__file__).parent / "templates"
LEARNING_RATES: Mapping[str, tuple[float, float]] = {
    "clip": (5e-4, 3e-4),
    "mae": (4e-3, 1.5e-3),
    "causal_lm": (2e-3, 1e-3),
}
"""Of members up to 256 wide, as the shipped examples have them, and of wider ones."""
NAMES: Mapping[str, tuple[str, str]] = {
    "clip": ("clip", "clip"),
    "mae": ("mae", "mae"),
    "causal_lm": ("lm", "llama"),
}
"""What members are called, and the function of the template that makes their models."""
WIDE = 256
WIDTH = 98
"""Characters of a line of comment."""


def config_text(
    paradigm: str, chosen: Fit, *, file: str, on: str, data: Mapping[str, Any], data_why: str
) -> str:
    """Return a config, with comments.

    Args:
        paradigm: one of ``SIZES``.
        chosen: what it says beside its data.
        file: its name.
        on: what people call the data.
        data: as a config has it.
        data_why: how it was come by.
    """
    widest, reasons = chosen.sizes[-1].width, chosen.reasons or {}
    shares = " and ".join(f"{share:.0%}" for share in SHARES[1:])
    members = zip(chosen.sizes, chosen.epochs, strict=True)
    names = {
        "title": f"A chain of {len(chosen.sizes)} on {on}, small to large.",
        "file": file,
        "data": as_code(data),
        "data_why": data_why,
        "embed": min(512, max(64, widest // 2)),
        "image_size": chosen.image_size,
        "patch": chosen.patch,
        "num_patches": (chosen.image_size // (chosen.patch or 1)) ** 2,
        "decoder": 64 if widest <= WIDE else 128,
        "head": chosen.head,
        "context": chosen.context,
        "members": "\n".join(_member(paradigm, size, epochs) for size, epochs in members),
        "shares": f"{shares} of it, as in arXiv 2604.12391",
        "first_epochs": f"{chosen.epochs[0]:g}",
        "batch": chosen.batch_size,
        "lr": LEARNING_RATES[paradigm][widest > WIDE],
        **{f"{name}_why": reason for name, reason in reasons.items()},
        "samples": reasons.get("samples", ""),
    }
    return _filled(paradigm, names)


def frame(paradigm: str, *, file: str, data: Mapping[str, Any]) -> str:
    """Return a config of another paradigm, whose models are to be filled in."""
    supported = ", ".join(SIZES)
    names = {"paradigm": paradigm, "supported": supported, "file": file, "data": as_code(data)}
    return _filled("other", names)


def as_code(config: Mapping[str, Any]) -> str:
    """Write the data of a config as Python, a key a line."""
    lines = [f"        {key}={_literal(value)},\n" for key, value in config.items()]
    return f"dict(\n{''.join(lines)}    )"


def _member(paradigm: str, size: Size, epochs: float) -> str:
    prefix, function = NAMES[paradigm]
    text_layers = f", {max(1, round(2 * size.layers / 3))}" if paradigm == "clip" else ""
    model = f"{function}({size.width}, {size.layers}{text_layers})"
    return f'    dict(name="{prefix}-{size.name}", model={model}, epochs={epochs:g}),'


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
