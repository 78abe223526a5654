"""Say in one line what ended a stage from outside, such as a killed worker process."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from compt.errors import ComptError, TrainingError
from compt.registry.loading import first_line

DEATH = re.compile(r"DataLoader worker \(pid.*?\d+\) (.*)")
"""How torch says that a process which reads samples has died."""
IN_WORKER = "in DataLoader worker process"
"""What torch's message of an error in such a process has; the process's own traceback follows."""
NO_MEMORY = "can't allocate memory"


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Raise TrainingError where a process has died or memory is out, and pass on all else.

    Args:
        where: folder of the stage.
    """
    try:
        yield
    except ComptError as error:
        if IN_WORKER not in error.what:
            raise
        own = error.what.rpartition(f"{type(error).__name__}: ")[2]
        raise type(error)(own.strip()) from error
    except (RuntimeError, MemoryError) as error:
        explanation = _explanation(error)
        if explanation is None:
            raise
        what, do = explanation
        raise TrainingError(what, where=where, do=do) from error


def _explanation(error: Exception) -> tuple[str, str] | None:
    """Return what has happened and what to do, None for an error that stands for itself."""
    text = str(error)
    if death := DEATH.search(text):
        return (
            f"A process that reads samples has died: it {death[1].rstrip('. ')}.",
            "The system kills processes when memory runs out. Lower train_dataloader.num_workers "
            "or batch_size, and go on with --resume.",
        )
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or NO_MEMORY in text:
        return f"Out of memory: {first_line(error)}", "Lower train_dataloader.batch_size."
    if isinstance(error, torch.distributed.DistError) or "closed by peer" in text:
        return (
            f"Another process of the run has ended: {first_line(error)}",
            "See what that process says, and go on with --resume.",
        )
    return None
