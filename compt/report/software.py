"""Say on which machine and with which versions of packages and project a run is made."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version

COMMAND = ("git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
PATIENCE = 10.0
"""Seconds that git may take, whose look for changes is slow on a network's files."""
TOOLS = ("dev", "test")
"""Extras whose packages train nothing."""


@cache
def revision() -> str:
    """Return the git revision of the folder that the process runs in, '-dirty' if it is changed.

    '' where that is no git repository, or git is missing or too slow.
    """
    try:
        result = subprocess.run(COMMAND, capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def note_revision() -> None:
    """Look at the revision as a run begins, as files may change while it trains."""
    revision.cache_clear()
    revision()


def environment() -> dict[str, str]:
    """Return what a metric was measured on, as versions, machine and device.

    With the git revision of the folder that the run was started in, where it has one.
    """
    import torch  # not above: a report opens without it

    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"cpu, {torch.get_num_threads()} threads"
    )
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "device": device,
        "packages": packages(),
    }
    return {**versions, "git": commit} if (commit := revision()) else versions


@cache
def packages() -> str:
    """Return the versions of compt and of those packages that are installed of what it builds on.

    As in 'compt 1.2, numpy 2.1'.
    """
    from packaging.requirements import Requirement

    try:
        lines = requires("compt") or []
    except PackageNotFoundError:  # a checkout that is not installed
        lines = []
    needed = [Requirement(line) for line in lines]
    names = sorted(
        {package.name for package in needed if not _is_of_tools(str(package.marker or ""))}
    )
    versions = {name: _version(name) for name in ("compt", *names)}
    return ", ".join(f"{name} {number}" for name, number in versions.items() if number)


def _is_of_tools(marker: str) -> bool:
    return any(f'extra == "{extra}"' in marker for extra in TOOLS)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
