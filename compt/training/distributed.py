"""Start and end several processes, on GPUs or, for tests, on CPU.

Torchrun, Slurm or MPI starts them.
"""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce, init_dist


def start(launcher: str) -> None:
    """Join the process group.

    NCCL where there are GPUs, else gloo, which mmengine would not choose itself.
    """
    if torch.cuda.is_available():
        init_dist(launcher, backend="nccl")
    else:
        torch.distributed.init_process_group("gloo")


def stop() -> None:
    """Leave the process group once all is done.

    A thread of gloo may otherwise abort the exit of a finished run.
    """
    torch.distributed.destroy_process_group()


def wrapper() -> dict[str, Any]:
    """Return the config of the model's wrapper, as mmengine's default assumes a GPU."""
    if torch.cuda.is_available():
        return {}
    config = {"type": "MMDistributedDataParallel", "device_ids": None, "broadcast_buffers": False}
    return {"model_wrapper_cfg": config}


def largest_of_all(*values: int) -> list[int]:
    """Return the largest of each value over all processes.

    Every process has to call it, or those that do wait for ever.
    """
    tensor = torch.tensor(values)
    all_reduce(tensor, op="max")
    return tensor.tolist()
