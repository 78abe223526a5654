"""What ends a stage from outside, in one line."""

from __future__ import annotations

import errno
import os
import signal

import pytest
import torch
from safetensors import SafetensorError
from torch.utils.data import DataLoader, Dataset

from compt.errors import DataError, TrainingError
from compt.training.failures import explained


class Broken(Dataset):
    """Ends the process that reads it, or raises there."""

    def __init__(self, error=None):
        self.error = error

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if self.error is not None:
            raise self.error
        os.kill(os.getpid(), signal.SIGKILL)


def read(dataset):
    with explained("the stage"):
        list(DataLoader(dataset, num_workers=1))


def test_a_killed_worker_is_named_with_what_to_do():
    with pytest.raises(TrainingError) as caught:
        read(Broken())
    assert "has died" in caught.value.what
    assert caught.value.where == "the stage"
    assert "num_workers" in caught.value.do
    assert caught.value.exit_code == 1


def test_an_error_of_a_worker_is_told_without_the_workers_traceback():
    with pytest.raises(DataError) as caught:
        read(Broken(DataError("The row is cut.", where="a.csv:3")))
    assert str(caught.value) == "The row is cut.\n  where: a.csv:3"


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (MemoryError("no room"), "Out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "Out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "Out of memory"),
        (RuntimeError("can't start new thread"), "Out of memory"),
        (RuntimeError("could not create a primitive"), "Out of memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Out of memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "Could not write 'x'"),
        (OSError(errno.ENOSPC, "No space left on device", "x/a.json"), "Could not write 'a.json'"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "Could not write"),
        (Exception("No space left on device (os error 28)"), "Could not write"),  # of tokenizers
        (RuntimeError("[enforce fail] PytorchStreamWriter failed writing file"), "Could not write"),
        (RuntimeError("Connection closed by peer [127.0.0.1]"), "Another process"),
        (RuntimeError("Read error [127.0.0.1]:61630: Connection reset by peer"), "Another process"),
        (RuntimeError("[gloo/transport/tcp/pair.cc:9] Timed out"), "Another process"),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "it exited unexp"),
    ],
)
def test_errors_of_the_machine(error, word):
    with pytest.raises(TrainingError, match=word), explained("x"):
        raise error


def test_a_folder_of_the_run_that_cannot_be_written_is_told_from_data_that_cannot_be_read(tmp_path):
    def forbidden(path):
        return PermissionError(errno.EACCES, "Permission denied", str(path))

    with pytest.raises(TrainingError, match="Could not write 'log'"), explained(str(tmp_path)):
        raise forbidden(tmp_path / "01_a" / "log")
    file = tmp_path / "01_a" / ".tmpX"
    with pytest.raises(TrainingError, match=r"Could not write '\.tmpX'"), explained(str(tmp_path)):
        raise SafetensorError(f'I/O error: Permission denied (os error 13) at path "{file}"')
    with pytest.raises(PermissionError), explained(str(tmp_path)):
        raise forbidden("data.csv")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes"),
        KeyError("k"),
        EOFError("own"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),  # of whoever reads the output
        FileNotFoundError(errno.ENOENT, "No such file or directory", "data.csv"),
        SafetensorError("header too small"),
    ],
)
def test_all_else_stands_for_itself(error):
    with pytest.raises(type(error)) as caught, explained("x"):
        raise error
    assert caught.value is error
