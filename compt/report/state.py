"""What a work folder says of its run, chain.json."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from compt.files import FORMAT, NAME, read_record, write_json

Mode = Literal["chain", "individual"]

ADVICE = "Restore the file from a copy."


@dataclass(frozen=True)
class PlannedStage:
    """What a stage was planned to be when the run began."""

    name: str
    iters: int
    batch_size: int
    """Samples an iteration, over all processes."""


@dataclass(frozen=True)
class ChainState:
    """The content of chain.json, which is written before anything is trained."""

    mode: Mode
    members: tuple[str, ...]
    """Names, small to large."""
    config: Mapping[str, Any]
    """The config that the run was started with, or last resumed with, as JSON types."""
    stages: tuple[PlannedStage, ...] = ()
    """Empty in folders of older versions, as what follows."""
    data: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What tells the data of each split from other data; see :mod:`compt.interfaces`."""
    world_size: int | None = None
    """Number of processes."""
    history: tuple[Mapping[str, Any], ...] = ()
    """Every resumption that changed something, with ``time`` and ``changes``."""

    def write(self, path: Path) -> None:
        """Write chain.json, atomically.

        Raises:
            TrainingError: the file cannot be written.
        """
        content = {
            "format": FORMAT,
            "mode": self.mode,
            "members": list(self.members),
            "config": self.config,
            "stages": [asdict(stage) for stage in self.stages],
            "data": self.data,
            "world_size": self.world_size,
            "history": list(self.history),
        }
        write_json(path, content)

    def misfits(self, now: ChainState, to_train: Collection[int]) -> Iterator[str]:
        """Yield what a resumed run would train otherwise than this one was planned to.

        Args:
            now: the same of the resumed run.
            to_train: indices of the stages that are still to be trained.
        """
        if not to_train:
            return
        yield from _data_differences(self.data, now.data)
        for index, (was, planned) in enumerate(zip(self.stages, now.stages, strict=False)):
            if index not in to_train:
                continue
            if was.batch_size != planned.batch_size:
                yield (
                    f"stage '{was.name}': {was.batch_size} -> {planned.batch_size} samples an "
                    f"iteration over all processes ({self.world_size} -> {now.world_size})"
                )
            if was.iters != planned.iters:
                yield f"stage '{was.name}': {was.iters} -> {planned.iters} iterations"

    @classmethod
    def read(cls, path: Path) -> ChainState:
        """Read chain.json.

        Raises:
            WorkDirError: the file is damaged or of another format.
        """
        return read_record(path, cls._from_json, ADVICE, exact=["config", "data"])

    @classmethod
    def _from_json(cls, content: Mapping[str, Any]) -> ChainState:
        mode, members = content.get("mode"), content.get("members")
        named = isinstance(members, list) and all(isinstance(name, str) for name in members)
        if mode not in ("chain", "individual") or not members or not named:
            raise ValueError("it must have a mode and the names of its members")
        if foreign := [name for name in members if not NAME.fullmatch(name)]:
            raise ValueError(f"{foreign[0]!r} is no name of a member")
        config = content.get("config") or {}
        chain = config.get("chain") or []
        history = content.get("history") or []
        entries = [*chain, *history, *(content.get("data") or {}).values()]
        if not all(isinstance(entry, Mapping) for entry in entries):
            raise ValueError("its config, history or data is of no chain")
        return cls(
            mode,
            tuple(members),
            config,
            tuple(PlannedStage(**stage) for stage in content.get("stages") or ()),
            content.get("data") or {},
            content.get("world_size"),
            tuple(history),
        )


def _data_differences(
    old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """Yield how the data of each split has changed; splits of one side only are other keys'."""
    for split in old.keys() & new.keys():
        was, is_now = old[split], new[split]
        differing = [name for name in {**was, **is_now} if was.get(name) != is_now.get(name)]
        if differing:
            shown = ", ".join(f"{name} {was.get(name)} -> {is_now.get(name)}" for name in differing)
            yield f"data of the split '{split}': {shown}"
