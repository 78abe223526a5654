"""The interface of suites, which measure finished models with benchmarks of other tools."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from compt.interfaces.paradigm import Metric
from compt.interfaces.plugin import Plugin


class Suite(Plugin, ABC):
    """Measure models in the format that they are exported in.

    Options are arguments of the constructor, of plain types or ``Path``: an evaluation is recorded
    with all of them. The constructor refuses what cannot be evaluated (data that is not there, a
    package that is not installed) with a ComptError, before any model is read.
    """

    tool: ClassVar[str] = ""
    """The package whose version is recorded beside the metrics; '' for none but compt."""
    without_effect: ClassVar[frozenset[str]] = frozenset()
    """Options that change no metric, such as a number of workers, which are not recorded."""
    runs_code: ClassVar[frozenset[str]] = frozenset()
    """Options that name programs, such as tasks of one's own.

    They are run where the user names them, and not because a work folder says that it was measured
    with them.
    """

    @classmethod
    @abstractmethod
    def recognises(cls, export: Path) -> bool:
        """Tell whether ``evaluate`` can read this path."""

    @abstractmethod
    def evaluate(self, export: Path) -> Mapping[str, Metric]:
        """Measure an exported model, and return its metrics by ``data/name``.

        What the tool prints on standard output goes to standard error.

        Args:
            export: a folder or file that ``recognises`` accepts.
        """
