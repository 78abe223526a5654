"""Let a process keep the memory that it frees, in large pages, for training on a CPU."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from pathlib import Path

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Of glibc's mallopt, as malloc.h numbers them."""
NEVER = 2**31 - 1
"""Bytes above which memory goes back to the system, more than a step frees at once."""
MOST_OF_OLD = 2**25
"""Bytes that glibc before 2.35 takes at most as the threshold of mmap."""
HUGE_PAGES = 14
"""Of Linux's madvise, as mman.h numbers it."""
LARGE_PAGE = 2**21
"""Bytes of a large page on most machines; others take the part that fits theirs."""
RESERVED = 2**31 - 2 * LARGE_PAGE
"""Bytes of addresses that get large pages. What a process takes beyond has small ones."""
OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")
"""What Linux says of how many addresses all processes may have."""
NONE_BEYOND_MEMORY = "2"
OWN_SETTINGS = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
"""Beginnings of variables by which people set the allocator themselves."""


def keep_freed_memory() -> bool:
    """Let glibc's allocator keep what is freed from now on, and return whether it does.

    Each step frees its activations and allocates the same anew. By default glibc returns such
    memory to the system, which hands it out again page by page. What was freed before goes back
    first, so that the peaks of two stages can be told, and with :func:`give_memory_back` the rest.

    The first 2 GB that are taken from now on lie in large pages where the system offers them
    (Linux's transparent huge pages): they cost fewer misses of the processor's table of
    addresses. They are only addresses until they are used; nothing is reserved where the process
    may have a limited number of them.

    Nothing is changed where there is another C library, or a person has set the allocator by
    variables of the environment.
    """
    if any(name.startswith(OWN_SETTINGS) for name in os.environ):
        return False
    if platform.libc_ver()[0] != "glibc":
        return False
    give_memory_back()
    library = ctypes.CDLL(None)
    mallopt = library.mallopt
    # The threshold of mmap too: without, it would no longer adapt, and stay at 128 kB.
    is_set = mallopt(MMAP_THRESHOLD, NEVER) or mallopt(MMAP_THRESHOLD, MOST_OF_OLD)
    is_kept = bool(is_set and mallopt(TRIM_THRESHOLD, NEVER))
    if is_kept and not _addresses_are_limited():
        _take_large_pages(library)
    return is_kept


def give_memory_back() -> None:
    """Return to the system what glibc's allocator has kept, addresses too."""
    ctypes.CDLL(None).malloc_trim(0)


def _addresses_are_limited() -> bool:
    import resource  # not on Windows

    limits = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
    if any(resource.getrlimit(one)[0] != resource.RLIM_INFINITY for one in limits):
        return True
    try:
        return OVERCOMMIT.read_text().strip() == NONE_BEYOND_MEMORY
    except OSError:
        return False


def _take_large_pages(library: ctypes.CDLL) -> None:
    if sys.platform != "linux":
        return
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    start = library.malloc(RESERVED)
    if start is None:  # no addresses left: small pages do
        return
    first = -(-start // LARGE_PAGE) * LARGE_PAGE
    last = (start + RESERVED) // LARGE_PAGE * LARGE_PAGE
    library.madvise(first, last - first, HUGE_PAGES)  # refused, the pages stay small
    library.free(start)  # kept by the allocator, which hands it out piece by piece
