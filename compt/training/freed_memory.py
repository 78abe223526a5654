"""Let a process keep the memory that it frees, for training on a CPU."""

from __future__ import annotations

import ctypes
import os
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Of glibc's mallopt, as malloc.h numbers them."""
NEVER = 2**31 - 1
"""Bytes above which memory goes back to the system, more than a step frees at once."""
MOST_OF_OLD = 2**25
"""Bytes that glibc before 2.35 takes at most as the threshold of mmap."""
OWN_SETTINGS = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
"""Beginnings of variables by which people set the allocator themselves."""


def keep_freed_memory() -> bool:
    """Let glibc's allocator keep what is freed from now on, and return whether it does.

    Each step frees its activations and allocates the same anew. By default glibc returns such
    memory to the system, which hands it out again page by page. Kept, the process holds the peak
    of a stage until the next one begins, with which what was freed before goes back, so that the
    peaks of both can be told.

    Nothing is changed where there is another C library, or a person has set the allocator by
    variables of the environment.
    """
    if any(name.startswith(OWN_SETTINGS) for name in os.environ):
        return False
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    library.malloc_trim(0)
    mallopt = library.mallopt
    # The threshold of mmap too: without, it would no longer adapt, and stay at 128 kB.
    is_set = mallopt(MMAP_THRESHOLD, NEVER) or mallopt(MMAP_THRESHOLD, MOST_OF_OLD)
    return bool(is_set and mallopt(TRIM_THRESHOLD, NEVER))
