"""The interface of trackers, which say how a stage becomes a run of another tool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from compt.interfaces.plugin import Plugin

TFLOPS = "compute/cumulated_tflops"
"""Scalar of every record, what the chain has cost until then."""
SAMPLES = "compute/cumulated_samples"
"""Scalar of every record, what the chain was trained on until then."""


@dataclass(frozen=True)
class RunLabels:
    """What a stage is called in a tracker."""

    chain: str
    """The group, the work folder's name."""
    member: str
    """The run."""
    mode: str
    """'chain' or 'individual', the type of job."""
    paradigm: str
    folder: Path
    """Of the stage."""


class Tracker(Plugin):
    """Say how the runs of one of mmengine's visualization back ends are called, go on and end.

    It is registered under the ``type`` of the back end, which does the logging itself. All methods
    have defaults, which fit a back end that needs no more than records. What ``begin``,
    ``scalars``, ``attach`` and ``close`` raise loses records, which are counted, and ends no
    training.
    """

    package: ClassVar[str] = ""
    """The module that has to be installed, '' where mmengine brings all."""
    imports: ClassVar[tuple[str, ...]] = ()
    """Modules that register the back end, where mmengine does not."""
    takes_files: ClassVar[bool] = False
    """Whether ``attach`` does something, so that a report is written for it."""

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse what the tracker does not take, before anything is trained.

        Args:
            options: config of the back end.

        Raises:
            ConfigError: it has an option that is none.
        """

    def labelled(self, options: Mapping[str, Any], labels: RunLabels) -> dict[str, Any]:
        """Return the back end's config with what it leaves out of the labels.

        What the user wrote stays. The values are plain, as the config is written to a file.
        """
        return dict(options)

    def continued(self, options: Mapping[str, Any], run_id: str | None) -> dict[str, Any]:
        """Return the config for a new run, or for the one of this id that is to go on."""
        return dict(options)

    def config(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return the stage's config, with its lineage, as the tracker takes it."""
        return dict(content)

    def begin(self, backend: Any, content: Mapping[str, Any], run_id: str | None) -> str | None:
        """Start or go on with a run, log its config, and return its id, None without one.

        Args:
            backend: the back end, built from what ``continued`` returned.
            content: config of the stage, before ``config``.
            run_id: of the run that is to go on.
        """
        from mmengine.config import Config

        backend.add_config(Config(self.config(content), format_python_code=False))
        return None

    def scalars(self, scalars: Mapping[str, Any], step: int) -> Mapping[str, Any]:
        """Return the scalars of an iteration as the tracker takes them."""
        return scalars

    def attach(self, backend: Any, files: Sequence[Path]) -> None:
        """Attach files to the run: report, plots, manifest and config."""

    def close(self, backend: Any, *, failed: bool) -> None:
        """End the run, as failed where the stage did."""
        backend.close()
