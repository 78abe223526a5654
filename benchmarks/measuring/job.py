"""Train one run in a work folder of compt, and read what it came to."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import compt
from compt.errors import DivergedError
from compt.files import STATE, stage_name
from compt.report.build import report
from compt.report.results import MemberResult
from compt.workdir import StageFolder
from measuring.records import Known

DIVERGED = "diverged.txt"
"""What says, in a run's folder, that it cannot be finished."""


@dataclass(frozen=True)
class Job:
    """One run, as a config and where it is kept."""

    folder: Path
    config: Mapping[str, Any]
    alone: bool = False
    source: Job | None = None
    """The run that it grows from."""
    known: Known | None = None
    """What another machine has made of it."""

    def run(self) -> str:
        """Train what is not done yet, and return how training diverged, '' where it did not."""
        if self.diverged or self.has_weights:
            return self.diverged
        resume = (self.folder / STATE).is_file()
        try:
            compt.train(
                deepcopy(dict(self.config)),
                work_dir=self.folder,
                resume=resume,
                individual=self.alone,
            )
        except DivergedError as error:
            (self.folder / DIVERGED).write_text(str(error))
            return str(error)
        self._tidy()
        return ""

    @property
    def diverged(self) -> str:
        """How training diverged, '' where it did not."""
        path = self.folder / DIVERGED
        if path.is_file():
            return path.read_text()
        return self.known.diverged if self.known else ""

    def _tidy(self) -> None:
        """Keep no more than others start from, which is the weights of what was trained."""
        for member, path in zip(self.config["chain"], self.stages, strict=True):
            stage = StageFolder(path)
            shutil.rmtree(stage.export, ignore_errors=True)
            stage.grown.unlink(missing_ok=True)
            if member.get("iters") == 0:
                stage.weights.unlink(missing_ok=True)

    @property
    def stages(self) -> list[Path]:
        """Their folders, from one of which another chain can start once it is finished."""
        names = [member["name"] for member in self.config["chain"]]
        return [self.folder / stage_name(i, name) for i, name in enumerate(names)]

    @property
    def done(self) -> bool:
        """Whether it is known what all members came to."""
        return self.known is not None or self.has_weights

    @property
    def has_weights(self) -> bool:
        """Whether all members are there, for others to start from."""
        begun = (self.folder / STATE).is_file()
        return begun and not report([self.folder]).runs[0].unfinished

    @property
    def result(self) -> MemberResult:
        """What the member that the run is about cost and reached."""
        if self.known is not None and self.known.result is not None:
            return self.known.result
        return self.own_result

    @property
    def own_result(self) -> MemberResult:
        """The same, from its folder."""
        return report([self.folder]).runs[0].members[-1]

    @property
    def flops(self) -> float:
        """Of that member's stage; 0 where it diverged."""
        return 0.0 if self.diverged else self.result.flops
