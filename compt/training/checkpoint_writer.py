"""Write the checkpoints of a stage, beside training if that is wanted.

Beside training, a checkpoint is first copied to memory of the CPU by torch's stager, which takes
the same memory each time. The stage goes on while a thread writes the copy, by the same functions
that write it otherwise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from torch import nn
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from compt.training.checkpoint import PREFIX, save_checkpoint
from compt.training.sharding import is_sharded
from compt.training.shards import KEY, SUFFIX, ShardedTensors, take_out, write_shards


class CheckpointWriter:
    """Writes one checkpoint after the other, and ends with the last one on disk.

    Args:
        folder: of the checkpoints.
        keep: how many to keep.
        asynchronous: whether :meth:`save` returns once the checkpoint is copied.
        warn: told of an error that another one hides.
    """

    def __init__(
        self, folder: Path, *, keep: int, asynchronous: bool, warn: Callable[[str], None]
    ) -> None:
        self.folder, self.keep, self.asynchronous, self.warn = folder, keep, asynchronous, warn
        self._stager: DefaultStager | None = None
        self._group: Any = None
        self._writing: Future[None] | None = None

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for the last checkpoint, unless a second Ctrl-C asked for the end at once."""
        try:
            if kind is None:
                self.wait()
            elif issubclass(kind, Exception):
                self._wait_or_warn()
        finally:
            if self._stager is not None:
                self._stager.close()
                self._stager = None

    def save(self, state: dict[str, Any], stage: nn.Module, iteration: int) -> None:
        """Write a checkpoint, after the one before.

        Of a sharded stage every process has to call it, else the first one alone.

        Raises:
            TrainingError: it, or the one before, cannot be written.
        """
        self.wait()
        sharded = take_out(state, stage) if is_sharded(stage) else None
        if not self.asynchronous:
            self._write(state, sharded, iteration)
            return
        if sharded is not None and self._group is None:
            # What the thread tells other processes must not come between what training tells them.
            self._group = torch.distributed.new_group(backend="gloo")
        copied = self._copied({"state": state, "sharded": sharded})
        self._writing = _begun(lambda: self._write(**copied, iteration=iteration))

    @property
    def is_writing(self) -> bool:
        """Whether a checkpoint is written at the moment."""
        return self._writing is not None and not self._writing.done()

    def wait(self) -> None:
        """Wait until the last checkpoint is written.

        Raises:
            TrainingError: it cannot be.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def check(self) -> None:
        """Raise the error of a checkpoint that could not be written, and do not wait for others."""
        if not self.is_writing:
            self.wait()

    def _wait_or_warn(self) -> None:
        try:
            self.wait()
        except Exception as error:  # what ended the stage says more
            self.warn(f"The last checkpoint is not written: {error}")

    def _copied(self, content: dict[str, Any]) -> dict[str, Any]:
        if self._stager is None:
            is_pinned = torch.cuda.is_available()
            options = StagingOptions(is_pinned, False, False, is_pinned)
            self._stager = DefaultStager(options)
        copied = self._stager.stage(content)
        assert isinstance(copied, dict)
        return copied

    def _write(self, state: dict[str, Any], sharded: ShardedTensors | None, iteration: int) -> None:
        if sharded is not None:
            # Another one after each rollback: until the new checkpoint is complete, the one before
            # needs its own.
            name = f"{PREFIX}{iteration:08d}.r{len(state['rollbacks'])}{SUFFIX}"
            hashes = write_shards(sharded, self.folder / name, self._group)
            state = {**state, KEY: {**state[KEY], "folder": name, "files": hashes}}
        if is_main_process():
            save_checkpoint(state, self.folder, iteration, keep=self.keep)


def _begun(write: Callable[[], None]) -> Future[None]:
    """Call a function in a thread that the end of the process does not wait for."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            write()
            future.set_result(None)
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name="checkpoint").start()
    return future
