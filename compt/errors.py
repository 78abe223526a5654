"""Errors of compt: every message says what is wrong, where, and what to do."""

from __future__ import annotations


class ComptError(Exception):
    """Base of all errors that compt raises on purpose.

    Args:
        what: what is wrong, as one sentence.
        where: file, config key, tensor or plug-in it is wrong in.
        do: what the reader can do about it.

    ``exit_code`` is what the command line ends with: 1 for training or data that failed, 2 for a bad
    config, argument or plug-in.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", do: str = "") -> None:
        self.what, self.where, self.do = what, where, do
        super().__init__(
            "\n".join(part for part in (what, where and f"  where: {where}", do and f"  do: {do}") if part)
        )

    @property
    def one_line(self) -> str:
        """What is wrong, where, and what to do, on one line."""
        where = f"({self.where})" if self.where else ""
        return " ".join(f"{self.what} {where} {self.do}".split())


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
    """A stage that had to stop: a loss that is not finite, an interruption."""
