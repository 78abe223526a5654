"""Run commands of compt in processes that are forked off this one, which has imported all of it.

No process shares more with this one than the imported libraries: nothing may have been computed
here before, as threads do not survive a fork.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIBRARIES = (
    "torch",
    "torch._dynamo",
    "torch.distributed.checkpoint",
    "torch.utils.flop_counter",
    "torch.utils.tensorboard",
    "mmengine.runner",
    "mmengine.utils.dl_utils.collect_env",
    "matplotlib.pyplot",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "compt.chain",
    "compt.cli",
    "compt.report.build",
    "compt.training.distributed",
)
OF_PARADIGM: Mapping[str, tuple[str, ...]] = {
    "toy": ("compt.testing.toy",),
    "clip": ("open_clip", "timm", "compt.paradigms.clip", "compt.layouts.open_clip"),
    "mae": ("mmpretrain", "timm", "compt.paradigms.mae", "compt.layouts.mmpretrain"),
    "lm": (
        "transformers.models.llama.modeling_llama",
        "compt.paradigms.causal_lm",
        "compt.layouts.transformers",
    ),
}
IMPORTED = "imported"
"""File in which a run's first process says what it has imported."""
LONGEST = 240.0
"""Seconds after which a run that goes on is called hung."""
OTHERS_END = 60.0
"""Seconds that the other processes of a run have to end in once one has."""


def warm_up(paradigm: str) -> None:
    """Import what runs of a paradigm need."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in (*LIBRARIES, *OF_PARADIGM[paradigm]):
        importlib.import_module(name)
    runner: Any = importlib.import_module("mmengine.runner.runner")
    environment = runner.collect_env()  # asks for compilers, which takes longer than a stage
    runner.collect_env = lambda: environment


def import_what(file: Path) -> None:
    """Import what a run has imported, so that the next ones need not."""
    for name in file.read_text().splitlines():
        with suppress(Exception):  # an extra that is not installed
            importlib.import_module(name)
    gc.freeze()  # or every process would copy what it looks through


@dataclass(frozen=True)
class Ended:
    """How the processes of one command have ended, by rank."""

    codes: tuple[int, ...]
    """Exit codes; minus its number for a signal."""
    out: str
    """What the first process wrote to stdout."""
    errors: tuple[str, ...]
    """What each wrote to stderr."""
    seconds: float
    others_seconds: float
    """From the end of the first that ended to that of the last."""
    is_hung: bool
    """Whether one had to be killed, as it took too long."""

    @property
    def is_done(self) -> bool:
        """Whether all have ended well."""
        return not any(self.codes)


def run(
    arguments: Sequence[str],
    folder: Path,
    *,
    world_size: int = 1,
    arm: Callable[[int], None] | None = None,
    power_cut: bool = False,
) -> Ended:
    """Run a command of compt over so many processes to its end.

    Args:
        arguments: of the command.
        folder: for what the processes write to stdout and stderr.
        world_size: number of processes.
        arm: called with the rank in each process before the command.
        power_cut: whether all are killed as soon as one is.
    """
    start, group = time.monotonic(), 0
    variables = _variables(world_size)
    running: dict[int, int] = {}
    for rank in range(world_size):
        pid = _fork(arguments, folder, {**variables, **_of(rank, world_size)}, rank, group, arm)
        group = group or pid
        running[pid] = rank
    codes, is_hung, first_end = [0] * world_size, False, None
    while running:
        pid, status = os.waitpid(-group, os.WNOHANG)
        now = time.monotonic()
        if pid:
            codes[running.pop(pid)] = os.waitstatus_to_exitcode(status)
            first_end = first_end or now
            if power_cut and os.WIFSIGNALED(status):
                _kill(running)
        elif now - start > LONGEST or (first_end and now - first_end > OTHERS_END):
            is_hung = True
            _kill(running)
        else:
            time.sleep(0.005)
    end = time.monotonic()
    with suppress(ProcessLookupError):  # readers of samples that nobody has waited for
        os.killpg(group, signal.SIGKILL)
    errors = tuple((folder / f"err{rank}").read_text() for rank in range(world_size))
    out = (folder / "out0").read_text()
    return Ended(tuple(codes), out, errors, end - start, end - (first_end or end), is_hung)


def _kill(running: Mapping[int, int]) -> None:
    for pid in running:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _no_report(*_: object, **__: object) -> int:
    return 0


def _variables(world_size: int) -> dict[str, str]:
    variables = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    if world_size == 1:
        return variables
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return {**variables, "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}


def _of(rank: int, world_size: int) -> dict[str, str]:
    if world_size == 1:
        return {}
    return {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}


def _fork(
    arguments: Sequence[str],
    folder: Path,
    variables: Mapping[str, str],
    rank: int,
    group: int,
    arm: Callable[[int], None] | None,
) -> int:
    streams = [folder / f"{name}{rank}" for name in ("out", "err")]
    for stream in streams:
        stream.write_text("")
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        with suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, group or pid)
        return pid
    code = 1
    try:
        # One group, as a terminal's Ctrl-C reaches all of it.
        os.setpgid(0, group)
        for number, stream in enumerate(streams, 1):
            os.dup2(os.open(stream, os.O_WRONLY | os.O_APPEND), number)
        os.environ.update(variables)
        if arm is not None:
            arm(rank)
        code = _main(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            if rank == 0:
                (folder / IMPORTED).write_text("\n".join(sys.modules))
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _main(arguments: Sequence[str]) -> int:
    from compt.__main__ import main
    from compt.report import build

    build.report_command = _no_report  # its plots take longer than all of the training
    sys.argv = ["compt", *arguments]
    return main()
