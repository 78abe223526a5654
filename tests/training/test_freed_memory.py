"""What is freed stays with the process, where nobody has set the allocator."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from compt.training.freed_memory import keep_freed_memory
print(keep_freed_memory())
def step():
    tensors = [torch.ones(2**20) for _ in range(16)]
step(), step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 5 * 16 * 4 * 2**20 // 4096
"""That the five steps write."""

only_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")


def faults(**variables: str) -> tuple[bool, int]:
    """Return whether a process keeps its memory, and its page faults in five steps."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "LD_PRELOAD"))}
    command = [sys.executable, "-c", FAULTS]
    result = subprocess.run(
        command, env={**clean, **variables}, capture_output=True, text=True, check=True
    )
    is_kept, number = result.stdout.split()
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
