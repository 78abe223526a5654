"""Ask the system about processes, locks and memory, with nothing but the standard library."""

from __future__ import annotations

import os
import platform
from pathlib import Path

PROC = Path("/proc")


def host_name() -> str:
    """Return what this machine, or container, calls itself."""
    return platform.node()


def boot_id() -> str:
    """Return what tells this start of the machine from others, '' where the system has none.

    Containers of one machine share it.
    """
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def process_started(pid: int) -> str:
    """Return what tells a running process from a later one with its number.

    '' where there is none, or the system has no /proc. A process that was killed and that nobody
    has waited for is none.
    """
    try:
        # The second field is the program's name in brackets, which may hold blanks and brackets.
        state, *rest = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state in "ZX" else rest[18]


def is_locked(path: Path) -> bool | None:
    """Return whether a process holds a lock on a file, None where that cannot be told.

    The lock is asked for, to be shared, and given back at once; nothing is written.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


def memory_bytes() -> int | None:
    """Return the memory that this process holds now (its resident set), None where unknown."""
    try:
        pages = int((PROC / "self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return None
