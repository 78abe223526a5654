"""What is freed stays with the process, where nobody has set the allocator."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from compt.training.freed_memory import OWN_SETTINGS

FAULTS = """
import resource, torch
from compt.training.freed_memory import keep_freed_memory
print(keep_freed_memory())
def step():
    tensors = [torch.ones(2**20) for _ in range(16)]
for _ in range(10):  # the allocator finds its places
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
RETURNED = """
from pathlib import Path
import torch
from compt.training.freed_memory import keep_freed_memory
def held():
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])
keep_freed_memory()
before = held()
[torch.ones(2**18) for _ in range(200)]
print(held() - before)
keep_freed_memory()
print(held() - before)
"""
LARGE = """
import resource, sys, torch
from pathlib import Path
if len(sys.argv) > 1:
    resource.setrlimit(resource.RLIMIT_AS, (2**36, 2**36))
from compt.training.freed_memory import keep_freed_memory
keep_freed_memory()
held = [torch.ones(2**20) for _ in range(16)]
keep_freed_memory()  # as the next stage does
held += [torch.ones(2**20) for _ in range(16)]
lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
print(*(line.split()[1] for line in lines if line.startswith("AnonHugePages")))
"""
ADDRESSES = """
from pathlib import Path
import torch
from compt.training.freed_memory import give_memory_back, keep_freed_memory
def addresses():
    return 4096 * int(Path("/proc/self/statm").read_text().split()[0])
give_memory_back()
before = addresses()
keep_freed_memory()
print(addresses() - before)
held = [torch.ones(2**20) for _ in range(16)]
give_memory_back()
print(addresses() - before)
"""
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
PAGES = 5 * 16 * 4 * 2**20 // 4096
"""That the five steps write."""

only_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")


def said(code: str, *arguments: str, **variables: str) -> list[str]:
    """Return the words that a process prints, for which nobody else has set the allocator."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(OWN_SETTINGS)}
    command = [sys.executable, "-c", code, *arguments]
    result = subprocess.run(
        command, env={**clean, **variables}, capture_output=True, text=True, check=True
    )
    return result.stdout.split()


def faults(**variables: str) -> tuple[bool, int]:
    """Return whether a process keeps its memory, and its page faults in five steps."""
    is_kept, number = said(FAULTS, **variables)
    return is_kept == "True", int(number)


@only_glibc
def test_a_step_gets_the_memory_of_the_step_before() -> None:
    is_kept, number = faults()
    assert is_kept
    assert number < PAGES / 100


@only_glibc
def test_who_sets_the_allocator_is_left_alone() -> None:
    is_kept, number = faults(MALLOC_TRIM_THRESHOLD_="131072")
    assert not is_kept
    # Without, every page comes from the system anew: so the test above can fail.
    assert number > PAGES / 2


@only_glibc
def test_the_next_stage_begins_without_what_the_one_before_has_freed() -> None:
    kept, returned = map(int, said(RETURNED))
    assert kept > 150 * 2**20
    assert returned < 20 * 2**20


@only_glibc
@pytest.mark.skipif(
    not SETTING.exists() or "[never]" in SETTING.read_text(), reason="no large pages here"
)
def test_what_a_stage_takes_lies_in_large_pages() -> None:
    (kilobytes,) = map(int, said(LARGE))
    assert kilobytes > 0.8 * 32 * 4 * 2**10


@only_glibc
@pytest.mark.skipif(
    not SETTING.exists() or "[madvise]" not in SETTING.read_text(), reason="all pages are large"
)
def test_limited_addresses_are_not_reserved() -> None:
    assert said(LARGE, "limited") == ["0"]


@only_glibc
def test_no_addresses_are_held_once_a_stage_has_ended() -> None:
    during, after = map(int, said(ADDRESSES))
    assert during > 1.9 * 2**30
    assert after < 16 * 4 * 2**20 + 2**26
