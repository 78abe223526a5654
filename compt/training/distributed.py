"""Several processes: started by torchrun, Slurm or MPI, on GPUs or, for tests, on CPU."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import init_dist


def start(launcher: str) -> None:
    """Join the process group: NCCL where there are GPUs, else gloo, which mmengine would not choose
    itself.
    """
    if torch.cuda.is_available():
        init_dist(launcher, backend="nccl")
    else:
        torch.distributed.init_process_group("gloo")


def stop() -> None:
    """Leave the process group once all is done: a thread of gloo may otherwise abort the exit of a
    finished run.
    """
    torch.distributed.destroy_process_group()


def wrapper() -> dict[str, Any]:
    """The config of the model's wrapper; mmengine's default assumes a GPU."""
    if torch.cuda.is_available():
        return {}
    kind = {"type": "MMDistributedDataParallel", "device_ids": None, "broadcast_buffers": False}
    return {"model_wrapper_cfg": kind}
