"""Keep the sharded tensors of a checkpoint in a folder beside it, a file of safetensors a process.

torch's distributed checkpoints write and read them: any number of processes reads what any other
number has written, and none of them holds a whole tensor.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import barrier, get_rank, get_world_size, is_main_process
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from compt.files import sha256
from compt.training.sharding import agreed
from compt.writing import not_written

SUFFIX = ".shards"
KEY = "shards"
"""Where a checkpoint says what of it is in the folder."""
ShardedTensors = dict[str, DTensor]
"""The sharded tensors of a checkpoint, by a name each."""


STATES = {"model": ("state_dict", ""), "average": ("ema_state_dict", "module.")}
"""Where a checkpoint has states of the stage's model, and what stands before each name there.

The second is where mmengine's EMAHook puts one.
"""


def take_out(checkpoint: dict[str, Any], stage: nn.Module) -> ShardedTensors:
    """Take the sharded tensors of model and optimizer out of a checkpoint, by a name each.

    Of tied tensors it is the first name.
    """
    taken: ShardedTensors = {}
    checkpoint[KEY] = {"tied": tied_names(stage), "optimizer": []}
    for kind, (place, prefix) in STATES.items():
        state = checkpoint.get(place, {})
        names = [name for name, tensor in state.items() if isinstance(tensor, DTensor)]
        first = _first_of(names, checkpoint[KEY]["tied"], prefix)
        taken |= {f"{kind}.{name}": state[name] for name in first}
        checkpoint[KEY][kind] = names
        if names:
            checkpoint[place] = {n: t for n, t in state.items() if not isinstance(t, DTensor)}
    rest = {}
    for index, own in checkpoint["optimizer"]["state"].items():
        rest[index] = {key: value for key, value in own.items() if not isinstance(value, DTensor)}
        for key, value in own.items():
            if isinstance(value, DTensor):
                taken[f"optimizer.{index}.{key}"] = value
                dtype = str(value.dtype).removeprefix("torch.")
                checkpoint[KEY]["optimizer"].append([index, key, dtype])
    checkpoint["optimizer"] = {**checkpoint["optimizer"], "state": rest}
    return taken


def tied_names(model: nn.Module) -> list[str]:
    """Return all but the first name of every tensor that has several."""
    seen: set[int] = set()
    tied = []
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in seen:
            tied.append(name)
        seen.add(id(tensor))
    return tied


def _first_of(names: Iterable[str], tied: Iterable[str], prefix: str) -> list[str]:
    others = {f"{prefix}{name}" for name in tied}
    return [name for name in names if name not in others]


def write_shards(
    tensors: ShardedTensors, folder: Path, group: ProcessGroup | None = None
) -> dict[str, str]:
    """Write a file for each process, and return the hashes of all files by name.

    Every process has to call it.

    Args:
        tensors: by name.
        folder: to write.
        group: of all processes, by which they agree; the default one where it is None.

    Raises:
        TrainingError: the disk is full or the folder cannot be written.
    """
    if is_main_process():
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed as it wrote
    barrier(group)
    try:
        save(
            dict(tensors),
            process_group=group,
            storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True),
        )
    except CheckpointException as error:
        raise not_written(folder, OSError(str(error))) from error
    barrier(group)
    own = {path.name: sha256(path) for path in _own_share(sorted(folder.iterdir()))}
    of_all: list[dict[str, str]] = [{}] * get_world_size()
    torch.distributed.all_gather_object(of_all, own, group)
    return {name: digest for hashes in of_all for name, digest in sorted(hashes.items())}


def check_shards(hashes: Mapping[str, str], folder: Path) -> None:
    """Raise ValueError unless all files are there as they were written; every process asks."""
    damaged = any(
        not (folder / name).is_file() or sha256(folder / name) != hashes[name]
        for name in _own_share(sorted(hashes))
    )
    if agreed(damaged):
        raise ValueError(f"a file in '{folder.name}' is missing or not what was written")


def _own_share(every: list[Any]) -> Iterable[Any]:
    return every[get_rank() :: get_world_size()]


def read_shards(
    checkpoint: dict[str, Any], folder: Path, model: nn.Module, params: list[nn.Parameter]
) -> None:
    """Fill a model from a folder of shards, and put its optimizer's state into the checkpoint.

    Every process has to call it, sharded or alone.
    """
    own, memory, kept = model.state_dict(), checkpoint["optimizer"]["state"], checkpoint[KEY]
    targets: dict[str, Tensor] = {}
    for kind, (place, prefix) in STATES.items():
        names = kept.get(kind)  # folders of older versions have no average
        if not names:
            continue
        state = _targets(model, prefix) if prefix else own
        first = _first_of(names, kept["tied"], prefix)
        targets |= {f"{kind}.{name}": state[name] for name in first}
        checkpoint[place] |= {name: state[name] for name in names}
    for index, key, dtype in kept["optimizer"]:
        target = torch.zeros_like(params[index], dtype=getattr(torch, dtype)).detach()
        memory[index][key] = targets[f"optimizer.{index}.{key}"] = target
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*assuming the intent is to load.*")
        load(dict(targets), storage_reader=HuggingFaceStorageReader(str(folder)))


def _targets(model: nn.Module, prefix: str) -> Mapping[str, Tensor]:
    """Return tensors like the model's, and sharded as they are, with ties between them too."""
    like = model.state_dict(keep_vars=True)
    empty = {id(tensor): torch.zeros_like(tensor).detach() for tensor in like.values()}
    return {f"{prefix}{name}": empty[id(tensor)] for name, tensor in like.items()}


def remove_stale(folder: Path, kept: Iterable[str], current: str) -> None:
    """Remove folders of shards that no checkpoint of these stems has.

    Args:
        folder: of the checkpoints.
        kept: stems of the checkpoints that stay.
        current: name of the newest one's folder, or an empty one.
    """
    stems = {*kept}
    for path in folder.glob(f"*{SUFFIX}"):
        stem = path.name.partition(".")[0]
        is_old = stem == current.partition(".")[0] and path.name != current
        if stem not in stems or is_old:
            shutil.rmtree(path, ignore_errors=True)
