"""Train over two processes on one machine.

Both end with the same weights and share one work folder, and CLIP's loss is that of both batches.
"""

from __future__ import annotations

import copy
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import TOY
from tests.environments import ROOT
from tests.processes import this_python

STAGES = ("01_a", "02_b", "03_c")

HOOKS = '''
"""Save the weights that each process ends with, and send it a signal if it is the receiver."""
import os
import signal

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from safetensors.torch import save_file

from compt.training.stage import stage_model


@HOOKS.register_module(force=True)
class EachProcess(Hook):
    def __init__(self, folder):
        self.folder = folder

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        is_first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        is_receiver = is_first and os.environ.get("RECEIVER") == str(runner.rank)
        if is_receiver and runner.work_dir.endswith("02_b") and batch_idx == 4:
            os.kill(os.getpid(), signal.Signals[os.environ["SIGNAL"]])

    def after_train(self, runner):
        stage = os.path.basename(runner.work_dir)
        path = f"{self.folder}/{stage}_{runner.rank}.safetensors"
        save_file(stage_model(runner).student.state_dict(), path)
'''

CLIP = '''
"""Save one step's loss and gradients, of a whole batch or of each process's half of it."""
import os
import sys

import torch
from compt.training.distributed import start, wrapper
from compt.training.stage import StageModel
from mmengine.model import MMDistributedDataParallel

MODEL = dict(
    embed_dim=16,
    vision_cfg=dict(image_size=16, patch_size=8, width=32, layers=2, head_width=16),
    text_cfg=dict(context_length=6, vocab_size=64, width=32, layers=2, heads=2),
)
torch.set_num_threads(1)
stage = StageModel(paradigm=dict(type="clip"), member=dict(name="tiny", model=MODEL), seed=3)
generator = torch.Generator().manual_seed(4)
batch = {
    "image": torch.randint(0, 256, (8, 3, 16, 16), generator=generator, dtype=torch.uint8),
    "text": torch.randint(1, 64, (8, 6), generator=generator),
}
model, process = stage, os.environ.get("RANK", "alone")
if "RANK" in os.environ:
    start("pytorch")
    options = wrapper()["model_wrapper_cfg"]
    assert options.pop("type") == "MMDistributedDataParallel"
    model = MMDistributedDataParallel(stage, **options)
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    batch = {name: value.chunk(world)[rank] for name, value in batch.items()}
loss = model(mode="loss", **batch)["loss"]
loss.backward()
gradients = {name: p.grad for name, p in stage.student.named_parameters()}
torch.save({"loss": loss.detach(), "gradients": gradients}, f"{sys.argv[1]}_{process}.pt")
'''


def python(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    return this_python().run(*arguments, cwd=cwd, **variables(cwd), **environment)


def variables(cwd: Path) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT), str(cwd), os.environ.get("PYTHONPATH"))))
    return {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path}


def two_processes(*arguments: object, cwd: Path) -> list[subprocess.CompletedProcess]:
    """Run Python twice, with the variables that torchrun gives its processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = dict(MASTER_ADDR="localhost", MASTER_PORT=str(port), WORLD_SIZE="2")
    ranks = [
        this_python().start(
            *arguments, cwd=cwd, RANK=rank, LOCAL_RANK=rank, **shared, **variables(cwd)
        )
        for rank in "01"
    ]
    while any(rank.poll() is None for rank in ranks):
        if any(rank.poll() for rank in ranks):  # the other would wait for it
            for rank in ranks:
                rank.kill()
        time.sleep(0.01)
    return [rank.completed() for rank in ranks]


def torchrun(
    *arguments: object, cwd: Path, restarts: int = 0, **environment: str
) -> subprocess.CompletedProcess:
    options = (
        "-m",
        "torch.distributed.run",
        "--max-restarts",
        restarts,
        "--nnodes",
        1,
        "--nproc_per_node",
        2,
        "--rdzv_backend",
        "c10d",
    )
    return python(*options, "--rdzv_endpoint", "localhost:0", *arguments, cwd=cwd, **environment)


class Run:
    """A toy chain over two processes, by the command line."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.work, self.ends = folder, folder / "work", folder / "ends"
        self.ends.mkdir()
        toy = copy.deepcopy(TOY)
        toy["custom_imports"] = dict(imports=["compt.testing.toy", "each_process"])
        toy["custom_hooks"] = [dict(type="EachProcess", folder=str(self.ends))]
        toy["train_dataloader"] = dict(batch_size=16)
        (folder / "each_process.py").write_text(HOOKS)
        (folder / "toy.py").write_text("\n".join(f"{k} = {v!r}" for k, v in toy.items()) + "\n")

    def train(
        self, *arguments: object, restarts: int = 0, **environment: str
    ) -> subprocess.CompletedProcess:
        command = (
            "-m",
            "compt",
            "train",
            "toy.py",
            "--work-dir",
            self.work,
            "--launcher",
            "pytorch",
        )
        return torchrun(*command, *arguments, cwd=self.folder, restarts=restarts, **environment)

    def weights(self, stage: str) -> bytes:
        return (self.work / stage / "weights.safetensors").read_bytes()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """An uninterrupted run."""
    finished = Run(tmp_path_factory.mktemp("distributed"))
    result = finished.train()
    assert result.returncode == 0, result.stdout + result.stderr
    finished.said = result.stdout
    return finished


def test_both_processes_end_with_the_same_weights(run):
    for stage in STAGES:
        first, second = (load_file(run.ends / f"{stage}_{rank}.safetensors") for rank in (0, 1))
        saved = load_file(run.work / stage / "weights.safetensors")
        assert first.keys() == second.keys() == saved.keys()
        for name in saved:
            assert torch.equal(first[name], second[name]), (
                f"{stage}: {name} differs between the processes"
            )
            assert torch.equal(first[name], saved[name]), f"{stage}: {name} is not what was saved"


def test_both_processes_share_one_work_folder(run):
    assert {p.name for p in run.folder.iterdir()} - {"__pycache__"} == {
        "each_process.py",
        "toy.py",
        "ends",
        "work",
    }
    assert {p.name for p in run.work.iterdir() if p.is_dir()} == set(STAGES)
    for stage in STAGES:
        assert (run.work / stage / "manifest.json").is_file()
        assert len(list((run.work / stage).rglob("events.out.tfevents*"))) == 1, (
            f"{stage}: not one TensorBoard log"
        )
    assert not list(run.work.rglob("*.tmp"))


def test_only_the_first_process_speaks(run):
    assert run.said.count("stage=a event=done") == 1, run.said


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("name", "saved_iteration"), [("SIGKILL", 3), ("SIGTERM", 5)])
def test_a_signal_to_one_process_ends_both_and_resuming_gives_the_same_bytes(
    name, saved_iteration, rank, run, tmp_path
):
    """A killed process leaves the checkpoint before; one asked to stop makes both save first."""
    other = Run(tmp_path)
    ended = other.train(SIGNAL=name, RECEIVER=str(rank))
    assert ended.returncode != 0
    assert (other.work / "01_a" / "manifest.json").is_file()
    saved = sorted(path.name for path in (other.work / "02_b" / "checkpoints").glob("iter_*.pt"))
    assert saved[-1:] == [f"iter_{saved_iteration:08d}.pt"], ended.stderr
    resumed = other.train("--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    for stage in STAGES:
        assert other.weights(stage) == run.weights(stage), stage


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_torchrun_goes_on_by_itself_after_a_killed_process(rank, run, tmp_path):
    other = Run(tmp_path)
    ended = other.train("--resume", restarts=1, SIGNAL="SIGKILL", RECEIVER=str(rank))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "there is nothing to resume: the chain begins" in ended.stdout
    assert all(other.weights(stage) == run.weights(stage) for stage in STAGES)
    resumed = [log.read_text() for log in (other.work / "02_b").glob("*/*.log")]
    assert sum("Resumed at iteration 3 of 8" in log for log in resumed) == 1


def test_clip_over_two_processes_has_the_loss_and_gradients_of_the_whole_batch(tmp_path):
    (tmp_path / "clip.py").write_text(CLIP)
    alone = python("clip.py", "step", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    for done in two_processes("clip.py", "step", cwd=tmp_path):
        assert done.returncode == 0, done.stderr
    whole, first, second = (
        torch.load(tmp_path / f"step_{name}.pt") for name in ("alone", "0", "1")
    )
    assert (first["loss"] + second["loss"]).item() / 2 == pytest.approx(
        whole["loss"].item(), abs=1e-6
    )
    assert whole["gradients"].keys() == first["gradients"].keys()
    for name, gradient in whole["gradients"].items():
        largest = gradient.abs().max().item()
        assert largest > 0, f"{name} has no gradient to compare"
        for half in (first, second):
            error = (half["gradients"][name] - gradient).abs().max().item()
            assert error <= 1e-6 * max(1.0, largest), f"{name}: {error}"
