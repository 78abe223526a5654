"""Judge whether a run may go on with the one in its folder, and put aside what it repeats."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

from compt.config import ChainConfig
from compt.config.resuming import changes, may_change
from compt.errors import WorkDirError, did_you_mean
from compt.files import (
    MANIFEST,
    REPLACED,
    changed_texts,
    check_as_written,
    check_digests,
    check_recorded,
    stage_name,
)
from compt.report.growth import GrowthRecord
from compt.report.record import StageRecord
from compt.report.state import ChainState
from compt.workdir.folder import StageFolder


class Resumption:
    """A run that goes on with another.

    Args:
        path: of the work folder.
        config: of the run that goes on.
        stages: its folders.
        old: state of the run in the folder.
        new: state that the run would have alone.
    """

    def __init__(
        self,
        path: Path,
        config: ChainConfig,
        stages: Sequence[StageFolder],
        old: ChainState,
        new: ChainState,
    ) -> None:
        self.path, self.config, self.stages = path, config, stages
        self.old, self.new = old, new
        self.notes: list[str] = []
        """What was accepted or put aside."""

    def merge(self, from_stage: str | None) -> ChainState:
        """Return the state of the run that goes on, and put aside what it trains anew.

        Raises:
            WorkDirError: the old run and this one do not fit together.
        """
        old, new, num_old = self.old, self.new, len(self.old.members)
        first_anew = None if from_stage is None else self._first_anew(from_stage)
        changed = changes(old.config, new.config)
        refused = [
            str(change)
            for change in changed
            if not may_change(change, num_members=num_old, first_anew=first_anew)
        ]
        going_on = range(len(self.stages) if first_anew is None else first_anew)
        to_train = [index for index in going_on if not self.stages[index].done]
        self._check(refused, [] if refused else [*old.misfits(new, to_train)])
        self._check_optimizer_states(going_on)
        self.notes += [f"appended: '{name}'" for name in new.members[num_old:]]
        self.notes += [str(c) for c in changed if c.member is None or c.member < num_old]
        self.notes += self._put_aside(first_anew)
        self.notes += self._damage(going_on)
        if old.world_size not in (None, new.world_size):
            self.notes.append(f"processes: {old.world_size} -> {new.world_size}")
        entry = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "changes": self.notes}
        return replace(new, history=(*old.history, *([entry] if self.notes else [])))

    def _check(self, changed: list[str], misfits: list[str]) -> None:
        """Raise WorkDirError for changes that may not be, and for what does not fit."""
        if not (changed or misfits):
            return
        lines = "\n".join(f"  - {change}" for change in [*changed, *misfits])
        if changed:
            what = "The config is not the one this run was started with"
            advice = (
                "Put it back, add --from-stage NAME to train that stage and those after it anew, "
                "or choose another --work-dir."
            )
        else:
            what = "What is to be trained is not what this run was started with"
            advice = (
                "Put it back (with other numbers of processes, train_dataloader.batch_size such "
                "that all of them together have as many samples), add --from-stage NAME to train "
                "that stage and those after it anew on what is there now, or choose another "
                "--work-dir."
            )
        raise WorkDirError(f"{what}:\n{lines}", where=str(self.path), do=advice)

    def _check_optimizer_states(self, going_on: range) -> None:
        """Raise WorkDirError where a stage inherits an optimizer's state that was not kept."""
        if self.new.mode != "chain":
            return
        for index, (previous, stage) in enumerate(pairwise(self.config.stages)):
            source, target = self.stages[index : index + 2]
            is_kept = index in going_on and source.done  # others are trained, and then keep it
            inherits = stage.grown.optimizer_state and not target.done
            memory = source.inherited_optimizer(trunk=previous.trunk)
            if inherits and is_kept and not memory.is_file():
                name = previous.name
                raise WorkDirError(
                    f"'{stage.name}' is to inherit the state of the optimizer of '{name}', which "
                    "was not kept.",
                    where=str(memory),
                    do=f"Leave out grown.optimizer_state of '{stage.name}', or train '{name}' "
                    f"again with --from-stage {name}. checkpoint=dict(optimizer=True) keeps the "
                    "last member's.",
                )

    def _damage(self, going_on: range) -> list[str]:
        """Return what is wrong with finished stages, which nothing else may look at any more."""
        notes = []
        for index in going_on:
            stage, name = self.stages[index], self.config.stages[index].member.name
            later = [after.path.name for after in self.stages[index + 1 :] if after.done]
            if stage.done:
                record = StageRecord.read(stage.manifest)  # says what to do where it is damaged
                notes += _damaged_files(stage, name)
                notes += [
                    f"{stage.path.name}/{text} is not what the stage wrote. If nobody changed it, "
                    f"restore it from a copy, or train the stage again with --from-stage {name}."
                    for text in changed_texts(stage.path, record.files)
                ]
            elif later:
                notes.append(
                    f"{stage.path.name}/{MANIFEST} is missing, though {later[0]} is finished: "
                    f"'{name}' is trained again"
                )
        return notes

    def _first_anew(self, name: str) -> int:
        """Return the index of the stage that is to be trained anew.

        Raises:
            WorkDirError: there is no such stage, or one before it is not finished.
        """
        names = [stage.member.name for stage in self.config.stages]
        if name not in names:
            near = did_you_mean(name, names)
            raise WorkDirError(
                f"--from-stage: there is no stage '{name}'.{near}",
                where=str(self.path),
                do=f"One of {', '.join(names)}.",
            )
        index = names.index(name)
        unfinished = [names[i] for i in range(index) if not self.stages[i].done]
        if self.new.mode == "chain" and unfinished:
            raise WorkDirError(
                f"--from-stage {name}: the stage '{unfinished[0]}' before it is not finished.",
                where=str(self.path),
                do=f"--from-stage {unfinished[0]}, or --resume alone.",
            )
        return index

    def _put_aside(self, first_anew: int | None) -> list[str]:
        """Move the folders of stages that are trained anew, and return what was moved where."""
        if first_anew is None:
            return []
        moved = []
        for index, name in enumerate(self.old.members):
            folder = self.path / stage_name(index, name)
            if index >= first_anew and folder.is_dir():
                place = self._free_place(folder.name)
                place.parent.mkdir(exist_ok=True)
                folder.rename(place)
                moved.append(f"{folder.name} is kept as {place.relative_to(self.path)}")
        return moved

    def _free_place(self, name: str) -> Path:
        count = 1
        while (place := self.path / REPLACED / f"{name}.{count}").exists():
            count += 1
        return place


def _damaged_files(stage: StageFolder, name: str) -> list[str]:
    """Return what is wrong with a finished stage's records, and with the files that they name."""
    do = f"Restore the file from a copy, or train the stage again with --from-stage {name}."
    notes = []
    for check in (
        partial(check_as_written, stage.manifest, do),
        partial(check_recorded, stage.path),
        partial(_check_grown, stage, name, do),
    ):
        try:
            check()
        except WorkDirError as error:
            notes.append(error.one_line)
    return notes


def _check_grown(stage: StageFolder, name: str, do: str) -> None:
    if stage.growth.is_file():
        check_as_written(stage.growth, do)
        recorded = GrowthRecord.read(stage.growth, do).files
        check_digests(stage.path, recorded, f"train the stage again with --from-stage {name}")
