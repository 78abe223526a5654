"""Fresh virtual environments with compt in them, which see the libraries of this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import pytest
from filelock import FileLock

from tests.processes import LIBRARIES, NOT_INHERITED, Server

ROOT = Path(__file__).parents[1]
BIN = "Scripts" if os.name == "nt" else "bin"


def call(
    *command: object, cwd: Path, code: int | None = 0, **environment: str
) -> subprocess.CompletedProcess:
    """Run a command outside this checkout, and check its exit code (None: anything but 0)."""
    clean = {k: v for k, v in os.environ.items() if k not in NOT_INHERITED}
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**clean, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return checked(result, code)


def checked(result: subprocess.CompletedProcess, code: int | None) -> subprocess.CompletedProcess:
    """Return the result if the exit code is this one; None for anything but 0."""
    assert result.returncode == code if code is not None else result.returncode, (
        result.stdout + result.stderr
    )
    return result


def libraries() -> list[str]:
    """Where the packages of this environment are."""
    return [p for p in sys.path if Path(p).name in ("site-packages", "dist-packages")]


def copy_of(folder: Path, to: Path) -> Path:
    """A copy of a folder of the checkout: what git knows, and what it does not ignore."""
    listed = call(
        "git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=folder
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (folder / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(folder / name, to / name)
    return to


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Path]) -> Path:
    """Make something in a new folder the first time that any of the processes asks; return it.

    The processes of pytest-xdist have folders of their own in one of the whole run.
    """
    own = factory.getbasetemp()
    root = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder, done = root / name, root / f"{name}.done"
    with FileLock(root / f"{name}.lock"):
        if not done.is_file():
            folder.mkdir(exist_ok=True)
            done.write_text(str(make(folder)))
    return Path(done.read_text())


def build_wheel(folder: Path, to: Path) -> Path:
    """The wheel of a package, built with what this environment has."""
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", to, folder, cwd=to)
    (built,) = to.glob("*.whl")
    return built


class Environment:
    """A fresh virtual environment with compt in it, and a folder to work in that is no checkout.

    Args:
        root: where to make both.
        libraries: what its tests import besides what every training imports.
    """

    def __init__(self, root: Path, *libraries: str) -> None:
        self.root, self.elsewhere = root / "env", root / "elsewhere"
        self.libraries = libraries
        self.elsewhere.mkdir()
        call(sys.executable, "-m", "venv", "--without-pip", self.root, cwd=root)
        self.python, self.compt = self.root / BIN / "python", self.root / BIN / "compt"

    def install(self, *what: object) -> None:
        """Install packages alone; what they need comes from this environment, after the new one's
        own.
        """
        pip = (
            sys.executable,
            "-m",
            "pip",
            "--python",
            self.python,
            "install",
            "--no-deps",
            "--no-index",
            "--quiet",
        )
        call(*pip, *what, cwd=self.elsewhere, PYTHONPATH=os.pathsep.join(libraries()))
        purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
        site = Path(call(self.python, "-c", purelib, cwd=self.elsewhere).stdout.strip())
        (site / "zz_libraries.pth").write_text("\n".join(libraries()) + "\n")

    def uninstall(self, package: str) -> None:
        call(
            sys.executable,
            "-m",
            "pip",
            "--python",
            self.python,
            "uninstall",
            "--yes",
            package,
            cwd=self.elsewhere,
        )

    def run(
        self, *command: object, code: int | None = 0, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess:
        return call(*command, cwd=cwd or self.elsewhere, code=code, **variables)

    def fork(
        self, *arguments: object, code: int | None = 0, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess:
        """Run this environment's Python, with the libraries imported already."""
        result = self.server.run(*arguments, cwd=cwd or self.elsewhere, **variables)
        return checked(result, code)

    @cached_property
    def server(self) -> Server:
        return Server(self.python, *LIBRARIES, "pytest", *self.libraries, installed_since=True)

    def origin(self) -> Path:
        """The folder that ``import compt`` finds."""
        found = self.run(self.python, "-c", "import compt; print(compt.__file__)").stdout
        return Path(found.strip()).parent
