"""Write weights as safetensors, read what trainers write, and load it strictly or not at all."""

from __future__ import annotations

import json
import pickle
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from compt.errors import ConfigError, some
from compt.files import sha256
from compt.shards import (
    MAX_SHARD,
    SUFFIX,
    index_of,
    shard_name,
    tensor_files,
    weight_files,
    weights_of,
)
from compt.writing import atomic, atomic_weights, not_written, refusal

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DistributedDataParallel and torch.compile put before every name."""
HOLDERS = ("state_dict", "model", "module")
"""Keys under which trainers put the weights, beside an optimizer and counters."""


@contextmanager
def saving(path: Path) -> Iterator[Path]:
    """Yield a file that becomes ``path`` once torch or safetensors has written it completely.

    Raises:
        TrainingError: the disk is full or the folder cannot be written; ``path`` is then as it was.
    """
    with _told(path), atomic(path) as file:
        yield file


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Tell what the system refuses to whoever writes a file; errors of other kinds pass.

    Raises:
        TrainingError: the system has refused something.
    """
    try:
        yield
    except Exception as error:
        refused = refusal(error)
        if refused is None:
            raise
        raise not_written(path, refused) from error


def save_weights(model: nn.Module, path: Path) -> str:
    """Write a model's state dict as safetensors, and return the file's SHA-256.

    Tied tensors are written once, under one of their names. The same weights are the same bytes.
    """
    with saving(path) as file:
        write_weights(model, file)
    return sha256(path)


def write_weights(model: nn.Module, file: Path) -> None:
    """Write what :func:`save_weights` does, in place."""
    safetensors.torch.save_model(model, str(file))
    _order_metadata(file)


def hand_over_weights(
    model: nn.Module, path: Path, *, max_shard_size: int | None = None
) -> list[Path]:
    """Write the weights that a stage hands on, above a size in shards.

    Whatever reads weights (:func:`read_state` and all above it) takes ``path`` for either. The same
    weights are the same bytes.

    Args:
        model: whose they are.
        path: that stands for them.
        max_shard_size: bytes of a file, None for ``MAX_SHARD``.

    Returns:
        The files: the one of :func:`save_weights`, or the index and the shards.

    Raises:
        TrainingError: the disk is full or the folder cannot be written; what was there before is
            there still.
    """
    with _told(path), atomic_weights(path) as folder:
        lay_out_weights(model, folder / path.name, max_shard_size)
    return weight_files(path)


def lay_out_weights(model: nn.Module, path: Path, max_shard_size: int | None = None) -> None:
    """Write what :func:`hand_over_weights` does into an empty folder, one shard at a time."""
    state: dict[str, Tensor] = model.state_dict()
    tied: dict[str, list[str]] = safetensors.torch._remove_duplicate_names(state)
    left_out = {name for names in tied.values() for name in names}
    kept_state = {name: value for name, value in state.items() if name not in left_out}
    shards = _shards(kept_state, MAX_SHARD if max_shard_size is None else max_shard_size)
    if len(shards) < 2:
        write_weights(model, path)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = path.with_name(shard_name(path, number, len(shards)))
        metadata = {name: kept for kept in shard for name in tied.get(kept, ())}
        values = {name: value.contiguous() for name, value in shard.items()}
        safetensors.torch.save_file(values, str(file), metadata=metadata or None)
        _order_metadata(file)
        weight_map |= dict.fromkeys(shard, file.name)
    total = sum(value.nbytes for shard in shards for value in shard.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    index_of(path).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _shards(state: Mapping[str, Tensor], max_shard_size: int) -> list[dict[str, Tensor]]:
    """Split tensors, in their order, into shards of so many bytes, or of one tensor."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, value in state.items():
        if shards[-1] and size + value.nbytes > max_shard_size:
            shards.append({})
            size = 0
        shards[-1][name] = value
        size += value.nbytes
    return shards


def _order_metadata(path: Path) -> None:
    """Put the names of tied tensors in a safetensors header in order.

    safetensors writes them in another order each time.
    """
    with open(path, "r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        if "__metadata__" not in header:
            return
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:  # else it was written otherwise than is known here
            file.seek(8)
            file.write(text.ljust(length))


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors by name as safetensors."""
    with saving(path) as file:
        safetensors.torch.save_file(
            {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, str(file)
        )


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a file of weights, or weights in shards, into a model.

    Raises:
        ConfigError: the file is missing, damaged, or another model's; the model is then as it was.
    """
    load_state(model, read_state(path), path)


def read_checkpoint(path: Path) -> Any:
    """Read a file of torch.save on the CPU, if it holds only tensors and plain types.

    Raises:
        ConfigError: the file is missing or damaged, holds other objects, or unpacks to more than
            its size.
    """
    check_unpacked(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises what it likes
        if foreign := re.search(r"GLOBAL (\w+(\.\w+)*)", str(error)):
            raise ConfigError(
                f"'{path}' holds objects that are no tensors ({foreign[1]}), "
                "and reading those could run code.",
                do="Save its state dict alone: torch.save(checkpoint['state_dict'], 'weights.pt').",
            ) from error
        raise _unreadable(path, error) from error


def check_unpacked(path: Path) -> None:
    """Raise ConfigError for an archive that holds more than its size, which torch never writes.

    A few bytes could fill the memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            num_bytes = sum(entry.file_size for entry in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile):  # reading it says what is wrong, if anything
        return
    if num_bytes > path.stat().st_size:
        raise ConfigError(
            f"'{path}' unpacks to {num_bytes / 1e9:.1f} GB from {path.stat().st_size / 1e9:.1f}.",
            do="Where you trust it, write it anew, as torch.save packs nothing: "
            "torch.save(torch.load(path), 'weights.pt').",
        )


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from safetensors, or from a file of torch.save.

    The latter holds it alone, or in a trainer's checkpoint.

    Args:
        path: of a file; of weights in shards, the one that stands for them or their index.

    Raises:
        ConfigError: a file is missing or damaged, or holds no state dict.
    """
    if weights_of(path).suffix != SUFFIX:
        return plain_state(read_checkpoint(path), path)
    state: dict[str, Tensor] = {}
    for file in tensor_files(path):
        try:
            state |= safetensors.torch.load_file(file)
        except (OSError, KeyError, safetensors.SafetensorError) as error:
            raise _unreadable(file, error) from error
    return state


def plain_state(content: Any, path: Path) -> dict[str, Tensor]:
    """Find the state dict in a checkpoint, and take off what wrappers put before its names."""
    for key in HOLDERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    entries = content if isinstance(content, Mapping) else {}
    state = {str(name): value for name, value in entries.items() if isinstance(value, Tensor)}
    if not state:
        raise ConfigError(
            f"'{path}' holds no state dict.",
            do=f"Give a state dict, alone or under one of {HOLDERS}.",
        )
    # As often as there is one: training may be compiled and distributed, in either order.
    while prefix := next((p for p in WRAPPERS if all(name.startswith(p) for name in state)), ""):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


@torch.no_grad()
def load_state(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Copy a state dict into a model.

    Of tied tensors it may name any one: safetensors keeps one, torch.save all of them.

    Raises:
        ConfigError: names or shapes differ, or values are not finite; the model is then as it was.
    """
    own = model.state_dict(keep_vars=True)  # the parameters themselves, so that tied ones are one
    faults = [*_name_faults(own, state), *_shape_faults(own, state)]
    # Values come last: a tensor of any shape takes a few bytes of a file, and for ever to look at.
    faults = faults or [*_tie_faults(own, state)]
    params = dict(model.named_parameters()) if not faults else {}
    poisoned = not_finite({name: value for name, value in state.items() if name in params})
    if poisoned:
        raise ConfigError(
            f"The weights '{path}' are not finite (NaN or infinite): {some(poisoned)}.",
            do="Take an earlier checkpoint: they come from a training that diverged.",
        )
    if faults:
        raise ConfigError(
            f"The weights '{path}' are not of this model: {some(faults)}.",
            do="Check the path and the model's config.",
        )
    for name, value in state.items():
        own[name].detach().copy_(value)


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Name the tensors that hold a value which is NaN or infinite."""
    named = {
        name: tensor.detach() for name, tensor in tensors.items() if tensor.is_floating_point()
    }
    if not named:
        return []
    # One answer for all of them first: to read one a tensor makes a GPU wait each time. A sum may
    # overflow though all of its terms are finite.
    sums = torch.stack([tensor.sum(dtype=torch.float32) for tensor in named.values()])
    if torch.isfinite(sums).all():
        return []
    return [name for name, tensor in named.items() if not torch.isfinite(tensor).all()]


def not_finite_error(path: Path, names: Sequence[str]) -> ConfigError:
    """Return the error for a checkpoint with tensors that are not finite."""
    return ConfigError(
        f"The weights in '{path}' are not finite (NaN or infinite): {some(names)}.",
        do="Take an earlier checkpoint: they come from a training that diverged.",
    )


def _name_faults(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Iterator[str]:
    """Name the tensors that no name of the state fills, and the names that the model lacks."""
    filled = {id(tensor) for name, tensor in own.items() if name in state}
    for name, tensor in own.items():
        if id(tensor) not in filled:
            yield f"it lacks '{name}'"
    for name in state:
        if name not in own:
            yield f"'{name}' is unknown to the model"


def _shape_faults(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Iterator[str]:
    """Name the tensors of other shapes, which copying might broadcast."""
    for name, tensor in own.items():
        if name in state and state[name].shape != tensor.shape:
            shapes = f"{list(state[name].shape)} in it and {list(tensor.shape)} in the model"
            yield f"'{name}' is {shapes}"


def _tie_faults(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Iterator[str]:
    """Name the tensors that are one in the model and differ in the state.

    The last one copied would win, and the model would compute what the file's does not.
    """
    first_names: dict[int, str] = {}
    for name, tensor in own.items():
        if name not in state:
            continue
        first = first_names.setdefault(id(tensor), name)
        if first != name and not torch.equal(state[name], state[first]):
            yield f"'{name}' and '{first}' differ in it, and are one tensor in the model"


def _unreadable(path: Path, error: Exception) -> ConfigError:
    why = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
    if isinstance(error, pickle.UnpicklingError):  # torch says only how to read it all the same
        why = "it is no whole file of torch.save"
    return ConfigError(
        f"Cannot load the weights '{path}': {why}.",
        do="Check the path and that the file is complete.",
    )
