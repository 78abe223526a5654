"""Say in every error what is wrong, where, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from typing import Any

CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class ComptError(Exception):
    """Base of all errors that compt raises on purpose.

    Args:
        what: what is wrong, as one sentence.
        where: file, config key, tensor or plug-in it is wrong in.
        do: what the reader can do about it.

    ``exit_code`` is what the command line ends with: 1 for training or data that failed, 2 for a
    bad config, argument or plug-in.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", do: str = "") -> None:
        what, where, do = map(visible, (what, where, do))  # names in them are of strangers' files
        self.what, self.where, self.do = what, where, do
        lines = [what, where and f"  where: {where}", do and f"  do: {do}"]
        super().__init__("\n".join(filter(None, lines)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how the error goes from one process to another."""
        # An exception is pickled with what its own constructor had, which is the message, and
        # would lose where and do.
        return partial(type(self), where=self.where, do=self.do), (self.what,)

    @property
    def one_line(self) -> str:
        """What is wrong, where, and what to do, on one line."""
        where = f"({self.where})" if self.where else ""
        return " ".join(f"{self.what} {where} {self.do}".split())


def visible(text: str) -> str:
    """Return a text with control characters as their escapes, but for tabs and ends of lines.

    A terminal obeys them: a name with some in it could hide or rewrite what stands above it.
    """
    return CONTROLS.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def some(faults: Sequence[str], most: int = 4) -> str:
    """Return the first few of many faults, in one clause."""
    more = f", and {len(faults) - most} more" if len(faults) > most else ""
    return visible(f"{'; '.join(faults[:most])}{more}")


@contextmanager
def located(where: str) -> Iterator[None]:
    """Say where in errors that do not say it themselves."""
    try:
        yield
    except ComptError as error:
        error.__init__(error.what, where=error.where or where, do=error.do)  # type: ignore[misc]
        raise


class ConfigError(ComptError):
    """A config or a command-line argument that cannot be used."""

    exit_code = 2


class PluginError(ComptError):
    """A plug-in that is unknown, ambiguous, broken, or does not keep its contract."""

    exit_code = 2


class LayoutError(PluginError):
    """A module whose parameters no layout describes."""


class GrowthError(ComptError):
    """Two architectures between which a grower cannot grow."""

    exit_code = 2


class WorkDirError(ConfigError):
    """A work folder that is foreign, locked, unwritable, or holds another run."""


class DataError(ComptError):
    """Data that is missing, empty or unreadable."""


class TrainingError(ComptError):
    """A stage that had to stop, as over a loss that is not finite or an interruption."""


class DivergedError(TrainingError):
    """The loss is no longer finite."""


def did_you_mean(name: Any, options: Iterable[str], cutoff: float = 0.6) -> str:
    """Return a sentence with the nearest of some names, '' where none is near.

    It begins with a space, to stand behind another.
    """
    folded = {str(option).lower(): option for option in options}
    matches = get_close_matches(str(name).lower(), folded, cutoff=cutoff)
    near = [f"'{folded[match]}'" for match in matches]
    return f" Did you mean {' or '.join(near)}?" if near else ""
