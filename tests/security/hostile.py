"""Make files that would run something if they were read as their makers hope."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any


class Trap:
    """A program that leaves a file behind where it runs, in each of the forms that files take."""

    def __init__(self, folder: Path) -> None:
        self.mark = folder / "it_ran"

    @property
    def has_run(self) -> bool:
        """Whether anything of it was run."""
        return self.mark.exists()

    @property
    def code(self) -> str:
        """As Python."""
        return f"open({str(self.mark)!r}, 'w').close()\n"

    @property
    def object(self) -> Any:
        """As what pickle runs when it is read."""
        return _Runs(self.mark)

    @property
    def config(self) -> dict[str, Any]:
        """As a config of mmengine, which calls what its type names."""
        return dict(type="os.mkdir", path=str(self.mark))

    def pickled(self) -> bytes:
        """Return it as a pickle."""
        return pickle.dumps(self.object)

    def script(self, file: Path) -> Path:
        """Write it as a program that a shell finds."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\ntouch '{self.mark}'\nexit 1\n")
        file.chmod(0o755)
        return file


class _Runs:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)
