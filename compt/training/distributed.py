"""Start and end several processes, on GPUs or, for tests, on CPU.

Torchrun, Slurm or MPI starts them.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size, init_dist
from torch import Tensor

from compt.errors import ConfigError, some
from compt.registry.loading import first_line
from compt.training.signals import by_default

VARIABLES: Mapping[str, Mapping[str, str]] = {
    "pytorch": {"RANK": "RANK", "WORLD_SIZE": "WORLD_SIZE", "LOCAL_RANK": "LOCAL_RANK"},
    "slurm": {
        "RANK": "SLURM_PROCID",
        "WORLD_SIZE": "SLURM_NTASKS",
        "LOCAL_RANK": "SLURM_LOCALID",
    },
    "mpi": {
        "RANK": "OMPI_COMM_WORLD_RANK",
        "WORLD_SIZE": "OMPI_COMM_WORLD_SIZE",
        "LOCAL_RANK": "OMPI_COMM_WORLD_LOCAL_RANK",
    },
}
"""What each launcher calls what torch wants to know."""
STARTERS: Mapping[str, str] = {
    "pytorch": "torchrun --nproc-per-node=N -m compt train ...",
    "slurm": "srun compt train ...",
    "mpi": "mpirun -x MASTER_ADDR=HOST compt train ...",
}
DEFAULT_PORT = 29500


def start(launcher: str) -> None:
    """Join the process group.

    NCCL where there are GPUs, else gloo, which mmengine would not choose itself.

    Raises:
        ConfigError: the launcher has not started this process, or the processes do not meet.
    """
    _check_environment(launcher)
    try:
        with by_default():  # waits for the others for half an hour, deaf to Python's handlers
            options = _restarted()
            if torch.cuda.is_available():
                init_dist(launcher, backend="nccl", **options)
            else:
                torch.distributed.init_process_group("gloo", **options)
    except Exception as error:  # torch and mmengine each have their own
        address = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
        raise ConfigError(
            f"The processes do not meet: {first_line(error)}",
            where=f"MASTER_ADDR:MASTER_PORT, {address}",
            do=f"Start every process by the launcher ({STARTERS[launcher]}), and choose a free "
            "port.",
        ) from error


def _restarted() -> dict[str, Any]:
    """Return how processes meet that torchrun has started once more, nothing for the first ones.

    Its store still holds the addresses of those before. Some releases of torch, 2.14 among them,
    read them there, and look for processes that have ended.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt == "0" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return {}
    store = torch.distributed.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False
    )
    return {
        "store": torch.distributed.PrefixStore(  # type: ignore[attr-defined]
            f"restart_{attempt}", store
        ),
        "rank": int(os.environ["RANK"]),
        "world_size": int(os.environ["WORLD_SIZE"]),
    }


def _check_environment(launcher: str) -> None:
    """Set what torch wants to know, or raise ConfigError with all that is wrong with it."""
    faults = []
    for name, own in VARIABLES[launcher].items():
        value = os.environ.get(own)
        if value is None or not value.isdecimal():
            faults.append(f"{own} is not set" if value is None else f"{own}={value!r} is no number")
        else:
            os.environ[name] = value
    port = os.environ.setdefault("MASTER_PORT", str(DEFAULT_PORT))
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        faults.append(f"MASTER_PORT={port!r} is no port")
    is_found = launcher == "slurm" and torch.cuda.is_available()  # mmengine asks Slurm
    if not is_found and "MASTER_ADDR" not in os.environ:
        faults.append("MASTER_ADDR is not set")
    if address := os.environ.get("MASTER_ADDR"):
        try:
            socket.getaddrinfo(address, None)
        except OSError as error:
            faults.append(f"MASTER_ADDR={address!r} is not found ({error.strerror})")
    if not faults and int(os.environ["RANK"]) >= int(os.environ["WORLD_SIZE"]):
        faults.append(f"{VARIABLES[launcher]['RANK']} is not below the number of processes")
    if faults:
        raise ConfigError(
            f"--launcher {launcher}: {some(faults)}.",
            where="environment",
            do=f"Start the command by the launcher: {STARTERS[launcher]}",
        )


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


def mean_over_processes(losses: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the mean of every loss over all processes, which have to have the same ones.

    It is one message, and no process waits for its device.
    """
    if get_world_size() == 1:
        return losses
    means = torch.stack([loss.detach().float() for loss in losses.values()])
    all_reduce(means, op="mean")
    return dict(zip(losses, means, strict=True))


def largest_of_all(*values: int) -> list[int]:
    """Return the largest of each value over all processes.

    Every process has to call it, or those that do wait for ever.
    """
    tensor = torch.tensor(values)
    all_reduce(tensor, op="max")
    return tensor.tolist()
