"""Checkpoints to resume a stage from, and what they hold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import Runner
from torch import Tensor

from compt.errors import TrainingError, some
from compt.random_state import random_state
from compt.training.hook_state import hook_states, restore_hook_states
from compt.training.sharding import load_shared, share_entries
from compt.training.shards import KEY, check_shards, read_shards, remove_stale
from compt.training.stage import stage_model
from compt.weights import saving

PREFIX = "iter_"
DIGEST = "sha256"
"""Key under which a checkpoint has the hash of all else in it."""
OLD_NAMES = {"model": "state_dict", "schedulers": "param_schedulers"}
"""What versions up to 0.1 called the parts of a checkpoint."""


def save_checkpoint(state: Mapping[str, Any], folder: Path, iteration: int, *, keep: int) -> None:
    """Write a checkpoint, then remove all but the newest ``keep``.

    Those of later iterations could not be read when the stage was resumed, and would be taken for
    the newest.
    """
    with saving(folder / f"{PREFIX}{iteration:08d}.pt") as file:
        torch.save({**state, DIGEST: _digest(state)}, file)
        _check_readable(file)
    last = f"{PREFIX}{iteration:08d}"
    newest = [path for path in _checkpoints(folder) if path.stem <= last]
    for old in {*_checkpoints(folder)} - {*newest[:keep]}:
        old.unlink()
    current = state.get(KEY, {}).get("folder", "")
    remove_stale(folder, [path.stem for path in newest[:keep]], current)


def _check_readable(file: Path) -> None:
    """Raise TrainingError for what a resumed run would refuse to read."""
    if unsafe := torch.serialization.get_unsafe_globals_in_checkpoint(file):
        raise TrainingError(
            f"A checkpoint holds {some(unsafe)}, which --resume could not read.",
            do="Let hooks put tensors, numbers, text, lists and dicts into it "
            "(before_save_checkpoint).",
        )


def load_checkpoint(folder: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """Load the newest checkpoint of a folder that can be read, None if there is none."""
    for path in _checkpoints(folder):
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            # torch notices a file that is cut off, and no other damage.
            digest = state.pop(DIGEST, None)
            if digest is not None and digest != _digest(state):
                raise ValueError("its content is not what was written")
            if KEY in state:
                check_shards(state[KEY]["files"], folder / state[KEY]["folder"])
                state[KEY]["path"] = str(folder / state[KEY]["folder"])
            return state
        except MemoryError:  # the file may be as good as ever
            raise
        except Exception as error:  # torch raises many types for a damaged file
            warn(f"The checkpoint '{path}' cannot be read ({error}); trying the one before it.")
    return None


def last_saved_iteration(folder: Path) -> int | None:
    """Return the iteration of the newest checkpoint of a folder, None if there is none."""
    for path in _checkpoints(folder):
        return int(path.stem.removeprefix(PREFIX))
    return None


def runner_state(runner: Runner) -> dict[str, Any]:
    """Return what a Runner's next iteration depends on, but for the data and the teacher.

    Batches follow from the seed and the iteration. The teacher is frozen, and read from its
    own stage.
    """
    schedulers = runner.param_schedulers or []
    checkpoint = {
        "meta": {"iter": runner.iter, "epoch": runner.epoch},
        "state_dict": stage_model(runner).state_dict(),
        "optimizer": runner.optim_wrapper.state_dict(),
        "param_schedulers": [_plain(scheduler.state_dict()) for scheduler in schedulers],
        "hooks": hook_states(runner),
    }
    # mmengine's names, as here hooks put what they have to remember. EMAHook puts its average in
    # the place of the weights, and takes it out again.
    runner.call_hook("before_save_checkpoint", checkpoint=checkpoint)
    return {**checkpoint, "random": random_state()}


def restore_runner(runner: Runner, state: Mapping[str, Any]) -> None:
    """Put a Runner back into a state of :func:`runner_state`.

    The random state is left to the caller, who has to restore it last: all that is set up
    after it might draw from it.
    """
    checkpoint = {OLD_NAMES.get(name, name): value for name, value in state.items()}
    params = [p for group in runner.optim_wrapper.param_groups for p in group["params"]]
    if KEY in checkpoint:
        read_shards(checkpoint, Path(checkpoint[KEY]["path"]), stage_model(runner), params)
    runner._resume = True  # hooks look there
    runner.call_hook("after_load_checkpoint", checkpoint=checkpoint)
    restore_hook_states(runner, checkpoint.get("hooks", {}))
    load_shared(stage_model(runner), checkpoint["state_dict"])
    optimizer = checkpoint["optimizer"]
    memory = {index: share_entries(own, params[index]) for index, own in optimizer["state"].items()}
    runner.optim_wrapper.load_state_dict({**optimizer, "state": memory})
    schedulers = runner.param_schedulers or []
    for scheduler, saved in zip(schedulers, checkpoint["param_schedulers"], strict=True):
        scheduler.load_state_dict(saved)


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a scheduler's state without its functions, which no checkpoint may hold."""
    return {name: value for name, value in state.items() if not callable(value)}


def _checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints of a folder, the newest first."""
    return sorted(folder.glob(f"{PREFIX}*.pt"), reverse=True)


def _digest(state: Any) -> str:
    """Return the SHA-256 of nested mappings and lists of tensors and plain values."""
    digest = hashlib.sha256()
    for part in _parts(state):
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[Any]:
    """Yield everything in a nested value as bytes, in its order."""
    if isinstance(value, Tensor):
        yield f"{value.dtype}{tuple(value.shape)}".encode()
        if not value.numel():  # one that was NumPy's has a stride of 0, which no view takes
            return
        # As bytes, since numpy has no bfloat16.
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield repr(name).encode()
            yield from _parts(inner)
    elif isinstance(value, (list, tuple)):
        yield f"{len(value)}".encode()
        for inner in value:
            yield from _parts(inner)
    else:
        yield repr(value).encode()
