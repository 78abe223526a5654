"""The files of one stage, and where a run's comparison lies."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compt.files import (
    CARD,
    CHECKPOINTS,
    CONFIG,
    EXPORT,
    GROWN,
    GROWN_OPTIMIZER,
    GROWTH,
    MANIFEST,
    NEW,
    OPTIMIZER,
    PLATEAU,
    PLATEAU_OPTIMIZER,
    WEIGHTS,
    individual_dir as individual_dir,
)
from compt.writing import bring_to_disk, share


class StageFolder:
    """The files of one stage."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / CONFIG
        self.growth = path / GROWTH
        self.grown = path / GROWN
        self.new = path / NEW
        self.grown_optimizer = path / GROWN_OPTIMIZER
        self.checkpoints = path / CHECKPOINTS
        self.weights = path / WEIGHTS
        self.optimizer = path / OPTIMIZER
        self.plateau = path / PLATEAU
        self.plateau_optimizer = path / PLATEAU_OPTIMIZER
        self.export = path / EXPORT
        self.manifest = path / MANIFEST

    @property
    def done(self) -> bool:
        """Whether the stage is finished, as its manifest is written last."""
        return self.manifest.is_file()

    @property
    def texts(self) -> tuple[Path, ...]:
        """What people read of a finished stage, but for its logs."""
        return (self.config, self.growth, self.manifest, self.export / CARD)

    def grown_from(self, *, trunk: bool) -> Path:
        """Return the weights that the next member grows from."""
        return self.plateau if trunk else self.weights

    def inherited_optimizer(self, *, trunk: bool) -> Path:
        """Return what the optimizer remembered at those weights."""
        return self.plateau_optimizer if trunk else self.optimizer

    def drop_checkpoints(self) -> str:
        """Remove a finished stage's checkpoints, and return a sentence where that fails."""
        try:
            shutil.rmtree(self.checkpoints)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return (
                f"The checkpoints in '{self.checkpoints}' could not be removed: "
                f"{error.strerror or error}. The stage is finished without them; --resume removes "
                "them."
            )
        return ""

    @contextmanager
    def exporting(self) -> Iterator[Path]:
        """Yield an empty folder that becomes ``export`` once it is complete."""
        beside = self.path / f".{EXPORT}.tmp"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        yield beside
        share(beside)
        # The manifest comes after it: a power cut must not leave a finished stage with empty files.
        bring_to_disk(beside)
        shutil.rmtree(self.export, ignore_errors=True)
        beside.rename(self.export)


def is_begun(folder: Path) -> bool:
    """Return whether a run in a folder has got so far that one of its stages has weights."""
    return any(any(folder.glob(f"*/{name}")) for name in (GROWTH, MANIFEST))
