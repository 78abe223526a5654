"""Keep what finished runs came to in one file, from which another machine goes on.

It has a line of JSON for the family and one for every run, by name. Weights are not in it: a run
that another one grows from is trained again where its folder is missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compt.errors import WorkDirError
from compt.report.record import StageRecord
from compt.report.results import MemberResult
from compt.writing import atomic

KEPT = (
    *("name", "index", "mode", "paradigm", "grower", "transfer", "params", "samples", "iters"),
    *("batch_size", "flops", "seconds", "growth_seconds", "evaluation_seconds", "metrics"),
    *("main_metric", "environment"),
)
"""Of a stage's record, what a line has."""
ENVIRONMENT = ("python", "torch", "machine", "device")
"""Of its environment."""


@dataclass(frozen=True)
class Known:
    """What a run came to."""

    result: MemberResult | None
    """None where it diverged."""
    diverged: str = ""
    """How."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        if self.result is None:
            return {"diverged": self.diverged.partition("\n")[0]}  # not where, which is here
        record = self.result.record.to_json()
        record["metrics"] = {
            name: {key: metric[key] for key in ("value", "higher_is_better")}
            for name, metric in record["metrics"].items()
        }
        record["environment"] = {key: record["environment"].get(key, "") for key in ENVIRONMENT}
        return {key: record[key] for key in KEPT}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Known:
        """Read it from JSON types.

        Raises:
            KeyError, TypeError, ValueError: something is missing or of another type.
        """
        if diverged := content.get("diverged"):
            return cls(None, str(diverged))
        return cls(MemberResult(StageRecord.from_json(content), ancestor_flops=0.0))


class Records:
    """What is known of runs by name, in a file if there is one.

    Args:
        path: of the file, which may not exist yet; None keeps nothing.

    Raises:
        WorkDirError: a line cannot be read.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.family: Mapping[str, Any] | None = None
        """The family of the runs, None where there are none yet."""
        self._known: dict[str, Known] = {}
        if path is not None and path.is_file():
            self._read(path)

    def find(self, name: str) -> Known | None:
        """Return what a run came to, None where that is not known."""
        return self._known.get(name)

    def add(self, name: str, known: Known) -> None:
        """Keep what a run came to."""
        if self.path is not None:
            self._known[name] = known

    def write(self) -> None:
        """Write the file."""
        if self.path is None:
            return
        lines: list[dict[str, Any]] = [{"family": self.family}]
        lines += [{"run": name, **self._known[name].to_json()} for name in sorted(self._known)]
        with atomic(self.path) as file:
            file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    def _read(self, path: Path) -> None:
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            try:
                content = json.loads(line)
                if "family" in content:
                    self.family = content["family"]
                else:
                    self._known[content["run"]] = Known.from_json(content)
            except (ValueError, KeyError, TypeError) as error:
                raise WorkDirError(
                    f"A line of the records cannot be read: {error!r}.",
                    where=f"{path}:{number}",
                    do="Remove it: the run is then made again.",
                ) from error
