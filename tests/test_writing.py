"""Files and folders are whole or not there, and whatever a library raises is known as a refusal."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

from compt.errors import DataError, WorkDirError
from compt.scaffold import new_plugin
from compt.writing import FULL, atomic, atomic_folder, check_output, refusal


@pytest.mark.parametrize(
    ("error", "number", "file"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), errno.ENOSPC, "a/b"),
        (
            SafetensorError(
                "Error while serializing: I/O error: Permission denied (os error 13) "
                'at path "/run/01_a/.tmpX"'
            ),
            errno.EACCES,
            "/run/01_a/.tmpX",
        ),
        # tokenizers raises no type of its own
        (Exception("No space left on device (os error 28)"), errno.ENOSPC, None),
        (RuntimeError("[enforce fail] . unexpected pos 576 vs 534"), errno.ENOSPC, None),
    ],
)
def test_what_the_system_refuses_is_told_from_any_library(error, number, file):
    refused = refusal(error)
    assert refused.errno == number
    assert refused.filename == file


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("header too small"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        DataError("No space left on device (os error 28)"),  # which has said it in its own words
    ],
)
def test_other_errors_are_no_refusals(error):
    assert refusal(error) is None


@pytest.mark.parametrize(
    "write",
    [
        lambda path: save_file({"a": torch.zeros(1)}, path),
        lambda path: Tokenizer(models.BPE()).save(str(path)),
        lambda path: torch.save({"a": torch.zeros(1)}, path),
        lambda path: torch.save({"a": torch.zeros(1)}, Path("/proc") / path.name),
    ],
    ids=["safetensors", "tokenizers", "torch", "torch, no file"],
)
def test_libraries_say_what_is_refused_as_they_did(write, tmp_path):
    """No folder is there, as for root no file is forbidden; the form of the message is the same."""
    with pytest.raises(Exception, match=r"os error|exist|strerror") as caught:
        write(tmp_path / "missing" / "file")
    assert refusal(caught.value).errno == errno.ENOENT


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_torch_says_that_a_disk_is_full_as_it_did():
    with pytest.raises(RuntimeError) as caught:
        torch.save({"a": torch.zeros(100_000)}, "/dev/full")
    assert refusal(caught.value).errno == errno.ENOSPC


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_is_written_whole_or_stays_as_it_was(exists, tmp_path):
    out = tmp_path / "out"
    if exists:
        out.mkdir()

    def fill() -> None:
        with atomic_folder(out) as folder:
            (folder / "half").write_text("half")
            raise RuntimeError("PytorchStreamWriter failed writing file")

    with pytest.raises(WorkDirError, match="'out' could not be written") as caught:
        fill()
    assert "MiB free" in caught.value.where
    assert [path.name for path in tmp_path.rglob("*")] == (["out"] if exists else [])
    with atomic_folder(out) as folder:
        (folder / "whole").write_text("whole")
    assert [path.name for path in out.iterdir()] == ["whole"]


def test_other_errors_pass_and_leave_nothing(tmp_path):
    with pytest.raises(KeyError), atomic_folder(tmp_path / "out"):
        raise KeyError("k")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match=r"No space.*a\.json") as caught, atomic(tmp_path / "a.json"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno in FULL
    assert caught.value.filename == str(tmp_path / "a.json")
    assert not list(tmp_path.iterdir())


def test_an_output_that_is_there_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkDirError, match="is not empty"):
        check_output(tmp_path)
    with pytest.raises(WorkDirError, match="a file already"):
        check_output(tmp_path / "file")
    check_output(tmp_path / "new")


def test_a_plug_in_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path, monkeypatch):
    written = Path.write_text

    def full(self, *args, **options):
        if self.suffix == ".toml":
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(self, *args, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(WorkDirError, match=r"'foo' could not be written.*No space"):
        new_plugin("foo", "grower", tmp_path / "foo")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("command", [["list"], ["list", "--json"]])
def test_output_that_cannot_be_written_is_one_line(command):
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "compt", *command],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert ended.returncode == 1
    assert ended.stderr == "compt: No space left on device\n"
