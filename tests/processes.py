"""Run Python in processes of its own, without paying for the import of torch in each of them.

A process is forked off one that has imported the libraries, see ``tests/fork_server.py``; it shares
no more with its parents than that. What is about the start of Python itself, or about what it
imports, starts Python with :mod:`subprocess`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

NOT_INHERITED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""Variables that would change which packages another Python finds."""
SERVER = Path(__file__).with_name("fork_server.py")
LIBRARIES = (
    "torch",
    "torch._dynamo",
    "torch.utils.flop_counter",
    "torch.utils.tensorboard",
    "torchvision",
    "mmengine.runner",
    "mmengine.utils.dl_utils.collect_env",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "bokeh.plotting",
    "bokeh.embed",
)
"""What every command that trains imports."""


class Process:
    """A running Python, as :class:`subprocess.Popen` has it."""

    def __init__(self, server: Server, args: list[str], pid: int, folder: Path) -> None:
        self.server, self.args, self.pid, self.folder = server, args, pid, folder
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        if self.returncode is None:
            self.returncode = self.server.ask(pid=self.pid)["code"]
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(9)

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """Wait for its end, and return what it wrote to stdout and stderr."""
        until = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > until:
                self.kill()
                raise subprocess.TimeoutExpired(self.args, timeout, *self._written())
            time.sleep(0.01)
        return self._written()

    def completed(self, timeout: float = 300) -> subprocess.CompletedProcess:
        """Wait for its end, and return what it left."""
        written = self.communicate(timeout)
        return subprocess.CompletedProcess(self.args, self.returncode, *written)

    def _written(self) -> tuple[str, str]:
        out, err = ((self.folder / name).read_text() for name in ("out", "err"))
        return out, err


class Server:
    """An interpreter that has imported the libraries, and forks off what it is asked to run.

    Args:
        python: the interpreter.
        modules: what it imports before the first process.
        installed_since: packages may be installed for it between one process and the next.
    """

    def __init__(self, python: str | Path, *modules: str, installed_since: bool = False) -> None:
        self.installed_since = installed_since
        self.is_own = str(python) == sys.executable
        self.folder = tempfile.TemporaryDirectory(prefix="compt-tests-")
        self.count = 0
        self.server = subprocess.Popen(
            [str(python), str(SERVER), *modules],
            cwd=self.folder.name,
            # A path that one test sets is for its own processes: they find it at their start.
            env={k: v for k, v in self._variables().items() if k != "PYTHONPATH"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _variables(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if self.is_own or k not in NOT_INHERITED}
        return {**kept, "OMP_NUM_THREADS": "1"}

    def ask(self, **request: object) -> dict:
        print(json.dumps(request), file=self.server.stdin, flush=True)
        return json.loads(self.server.stdout.readline())

    def start(self, *arguments: object, cwd: Path, **environment: str) -> Process:
        """Start ``python ARGUMENTS`` with more variables than this process has."""
        self.count += 1
        folder = Path(self.folder.name, str(self.count))
        folder.mkdir()
        streams = {name: str(folder / name) for name in ("out", "err")}
        for path in streams.values():
            Path(path).touch()
        args = [str(argument) for argument in arguments]
        request = dict(
            arguments=args,
            cwd=str(cwd),
            environment={**self._variables(), **environment},
            installed_since=self.installed_since,
            **streams,
        )
        return Process(self, args, self.ask(**request)["pid"], folder)

    def run(
        self, *arguments: object, cwd: Path, timeout: float = 300, **environment: str
    ) -> subprocess.CompletedProcess:
        """Run ``python ARGUMENTS`` to its end."""
        return self.start(*arguments, cwd=cwd, **environment).completed(timeout)


@cache
def this_python() -> Server:
    """Return the server of this interpreter, which starts at the first call."""
    return Server(sys.executable, *LIBRARIES, "open_clip")
