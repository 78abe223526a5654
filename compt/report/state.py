"""What a work folder says of its run, chain.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from compt.files import FORMAT, read_record, write_json

Mode = Literal["chain", "individual"]

ADVICE = "Restore the file from a copy."


@dataclass(frozen=True)
class ChainState:
    """The content of chain.json, which is written before anything is trained."""

    mode: Mode
    members: tuple[str, ...]
    """Names, small to large."""
    config: Mapping[str, Any]
    """The config that the run was started with, as JSON types."""

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
        }
        write_json(path, content)

    @classmethod
    def read(cls, path: Path) -> ChainState:
        """Read chain.json.

        Raises:
            WorkDirError: the file is damaged or of another format.
        """
        return read_record(path, cls._from_json, ADVICE)

    @classmethod
    def _from_json(cls, content: Mapping[str, Any]) -> ChainState:
        mode, members = content.get("mode"), content.get("members")
        named = isinstance(members, list) and all(isinstance(name, str) for name in members)
        if mode not in ("chain", "individual") or not members or not named:
            raise ValueError("it must have a mode and the names of its members")
        return cls(mode, tuple(members), content.get("config") or {})
