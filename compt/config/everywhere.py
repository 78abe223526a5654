"""Hold what is true of every value of a config, whichever part it goes to.

Keys and the arguments of plug-ins have ranges of their own. What goes to a library as it stands,
such as a model's config, has none: these rules keep out what no library is ready for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from compt.config.faults import Faults
from compt.registry.arguments import shown

MAX_DEPTH = 100
"""Dicts and lists in one another, beyond which a config holds itself."""
MAX_WHOLE = 2**63 - 1
"""What torch and NumPy count with."""
MAX_SIZE = 10**8
"""Largest whole number in a member's model, of which each is a size or a count."""
MODEL = re.compile(r"chain\.\d+\.model\b")


def check_everywhere(content: Mapping[str, Any], faults: Faults) -> None:
    """Note every value that cannot be, wherever it stands, unless a fault names it already."""
    for path, value, problem in _problems(content, "", depth=0):
        if not faults.names(path):
            faults.add(f"{path}: {shown(value)} {problem}")


def _is_key(name: Any, *, like: Any) -> bool:
    """Tell whether the key of a dict is a string or a number, as its first one is."""
    numbers = (int, float)
    return type(name) is str if type(like) is str else type(name) in numbers


def _problems(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any, str]]:
    """Yield the dotted path of each value that cannot be, the value, and why."""
    if depth > MAX_DEPTH:
        yield path, type(value), f"lies more than {MAX_DEPTH} dicts and lists deep."
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            inside = f"{path}.{name}" if path else str(name)
            if not _is_key(name, like=next(iter(value))):
                yield inside, name, "is a key of a dict whose keys are not all strings or numbers."
            yield from _problems(inner, inside, depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _problems(inner, f"{path}.{index}", depth + 1)
    elif problem := _value_problem(value, in_model=bool(MODEL.match(path))):
        yield path, value, problem


def _value_problem(value: Any, *, in_model: bool) -> str:
    """Say what is wrong with a value wherever it stands, '' where nothing is."""
    if isinstance(value, str):
        return _text_problem(value)
    if isinstance(value, type):
        return "is a class; write its name, which a resumed run can read."
    if isinstance(value, float):
        # Some models have an open interval, such as a step size from 0 to infinity.
        is_sound = math.isfinite(value) or (in_model and not math.isnan(value))
        return "" if is_sound else "is not a finite number."
    if not isinstance(value, int):
        return ""
    if in_model and abs(value) > MAX_SIZE:
        return f"is no size of a model, which goes to {MAX_SIZE:,}; what is no size is a float."
    return "" if abs(value) <= MAX_WHOLE else "does not fit into 64 bits."


def _text_problem(text: str) -> str:
    if "\0" in text:
        return "holds a NUL character."
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "is no Unicode text: it holds half of a surrogate pair."
    return ""
