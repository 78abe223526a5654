"""FLOPs of the toy chain worked out by hand, refusals, and a limit on memory."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import compt
from compt.errors import ComptError

# One sample through ToyNet, two FLOPs a multiply-add. Forward: embedding, blocks of two layers,
# head.
#   a (8 wide, 1 block):    2*8*8  + 1 * 2*(2*8*16)  + 2*8*10  =   128 +   512 + 160 =   800
#   b (16 wide, 2 blocks):  2*8*16 + 2 * 2*(2*16*32) + 2*16*10 =   256 +  4096 + 320 =  4672
#   c (24 wide, 3 blocks):  2*8*24 + 3 * 2*(2*24*48) + 2*24*10 =   384 + 13824 + 480 = 14688
# Backward: as much again for the weights, and for the inputs of all layers but the embedding.
FORWARD = {"a": 800, "b": 4672, "c": 14688}


BOTH = {"a": 3 * 800 - 128, "b": 3 * 4672 - 256, "c": 3 * 14688 - 384}


def stages(config: Any, **options: Any) -> tuple[compt.planning.planner.StagePlan, ...]:
    return compt.plan(config, **options).stages


def refused(config: Any, kind: type[ComptError], *words: str) -> str:
    """Plan what cannot be; the message has to name both members and the words."""
    with pytest.raises(kind) as caught:
        compt.plan(config)
    message = str(caught.value)
    for word in ("'a'", "'b'", *words):
        assert word in message
    assert caught.value.exit_code == 2
    return message


@contextmanager
def little_memory(size: int) -> Iterator[None]:
    """Let this process take at most ``size`` bytes more."""
    status = Path("/proc/self/statm")
    if not status.is_file():
        pytest.skip("needs /proc")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(status.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
