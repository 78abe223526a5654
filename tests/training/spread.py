"""Train one small chain of each paradigm over any number of processes on CPU, and compare runs."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.page_folders import clip_model, made, tables
from tests.processes import this_python
from tests.training.test_distributed import variables

GLOBAL_BATCH = 8
EPS = 1e-5
"""Adam makes steps of full length of what is nothing but rounding, such as the gradient of a key's
bias, unless it is small against this."""
SCRIPT = """
import json
import os
import sys

import torch

torch.set_num_threads(1)
import compt
from compt.training import loops
from compt.training.distributed import start

config, folder, launcher, *options = sys.argv[1:]
losses, memory = {}, {}
step, run = loops.TrainLoop._step, loops.TrainLoop.run

def noting(self, batch):
    if "stop" in options and self.runner.work_dir.endswith("02_b") and self._iter == 5:
        self.writer.wait()  # else the checkpoint of iteration 4 may be lost
        raise KeyboardInterrupt
    step(self, batch)
    stage = os.path.basename(self.runner.work_dir)
    loss = self.losses._unread[-1]
    losses.setdefault(stage, []).append(loss.item())

def measuring(self):
    own = lambda tensors: sum(getattr(t, "_local_tensor", t).nbytes for t in tensors)
    optimizer = self.runner.optim_wrapper.optimizer
    params, gradients = list(self.stage.parameters()), []

    def before_step(*_):  # afterwards they are freed
        gradients.append(own(p.grad for p in params if p.grad is not None))

    optimizer.register_step_pre_hook(before_step)
    result = run(self)
    memory[os.path.basename(self.runner.work_dir)] = {
        "params": own(params),
        "gradients": max(gradients, default=0),
        "optimizer": own(v for s in optimizer.state.values() for v in s.values()),
    }
    return result

loops.TrainLoop._step, loops.TrainLoop.run = noting, measuring
if launcher != "none":
    start(launcher)
try:
    with open(config) as file:
        compt.train(
            json.load(file), work_dir=folder, launcher=launcher, resume="resume" in options
        )
except KeyboardInterrupt:
    pass
rank = os.environ.get("RANK", "0")
with open(f"{folder}_{rank}.json", "w") as file:
    json.dump({"losses": losses, "memory": memory}, file)
"""


class Spread:
    """A chain of two members whose global batch is spread over processes.

    Args:
        folder: of its data and runs.
        config: without its batch size, which is a process's.
    """

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder, self.config = folder, config
        (folder / "script.py").write_text(SCRIPT)

    def run(self, name: str, world_size: int = 1, *options: str, **changes: Any) -> dict[str, Any]:
        """Train over so many processes, and return what each noted."""
        config = {**self.config, **changes}
        config.setdefault("train_dataloader", {})
        size = config["train_dataloader"].get("batch_size", GLOBAL_BATCH) // world_size
        config["train_dataloader"] = {**config["train_dataloader"], "batch_size": size}
        file, work = self.folder / f"{name}.json", self.folder / name
        file.write_text(json.dumps(config))
        launcher = "none" if world_size == 1 and "launch" not in options else "pytorch"
        processes(world_size, "script.py", file, work, launcher, *options, cwd=self.folder)
        noted = [json.loads(Path(f"{work}_{rank}.json").read_text()) for rank in range(world_size)]
        return {"losses": noted[0]["losses"], "memory": [one["memory"] for one in noted]}

    def weights(self, name: str, stage: str = "02_b") -> dict[str, torch.Tensor]:
        """Return the delivered weights of a stage."""
        return load_file(self.folder / name / stage / "weights.safetensors")

    def metrics(self, name: str, stage: str = "02_b") -> dict[str, float]:
        """Return the last held-out metrics of a stage."""
        manifest = json.loads((self.folder / name / stage / "manifest.json").read_text())
        return {key: metric["value"] for key, metric in manifest["metrics"].items()}


def processes(world_size: int, *arguments: object, cwd: Path) -> None:
    """Run Python in so many processes to their end, and raise AssertionError if one fails."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = dict(MASTER_ADDR="localhost", MASTER_PORT=str(port), WORLD_SIZE=str(world_size))
    ranks = [
        this_python().start(
            *arguments, cwd=cwd, RANK=str(rank), LOCAL_RANK=str(rank), **shared, **variables(cwd)
        )
        for rank in range(world_size)
    ]
    while any(rank.poll() is None for rank in ranks):
        if any(rank.poll() for rank in ranks):  # the others would wait for it
            time.sleep(1)
            for rank in ranks:
                rank.kill()
        time.sleep(0.01)
    for rank in ranks:
        completed = rank.completed()
        assert completed.returncode == 0, completed.stdout[-3000:] + completed.stderr[-6000:]


def chain(paradigm: dict[str, Any], *models: Any, iters: int = 15, **options: Any) -> dict:
    """Return a chain of two members."""
    members = [dict(name=n, model=m, iters=iters) for n, m in zip("ab", models, strict=True)]
    rest = dict(
        optim_wrapper=dict(
            optimizer=dict(type="AdamW", lr=1e-3, eps=EPS, weight_decay=0.1),
            clip_grad=dict(max_norm=0.5),
        ),
        checkpoint=dict(interval=4, keep=2),
        evaluations=1,
        seed=1,
    )
    return dict(paradigm=paradigm, chain=members, **rest) | options


def clip(folder: Path, **options: Any) -> Spread:
    """Return a chain of CLIP on drawn pairs, with random crops."""
    tables(folder)
    data = dict(type="csv", train=str(folder / "train.csv"), val=str(folder / "val.csv"))
    tokenizer = dict(type="words", size=64)
    paradigm = dict(type="clip", data=data, augment=0.3, tokenizer=tokenizer)
    return Spread(folder, chain(paradigm, clip_model(32, 1), clip_model(48, 2), **options))


def mae(folder: Path, **options: Any) -> Spread:
    """Return a chain of masked autoencoders on drawn images, with random crops and flips."""
    from tests.paradigms.mae_models import mae as model

    made.image_folder(folder / "photos")
    splits = {split: str(folder / "photos" / split) for split in ("train", "val")}
    paradigm = dict(type="mae", data=dict(type="folder", **splits))
    return Spread(folder, chain(paradigm, model(32, 1), model(48, 2), **options))


def lm(folder: Path, **options: Any) -> Spread:
    """Return a chain of language models with tied embeddings."""
    for split in ("train", "val"):
        (folder / f"{split}.txt").write_text("def add(a, b):\n    return a + b\n" * 100)
    files = {split: str(folder / f"{split}.txt") for split in ("train", "val")}
    paradigm = dict(type="causal_lm", context=16, data=dict(type="text", **files))
    sizes = dict(model_type="llama", head_dim=8, tie_word_embeddings=True)
    small = dict(
        sizes, num_attention_heads=4, hidden_size=32, intermediate_size=48, num_hidden_layers=1
    )
    large = dict(
        sizes, num_attention_heads=6, hidden_size=48, intermediate_size=96, num_hidden_layers=2
    )
    return Spread(folder, chain(paradigm, small, large, **options))


def toy(folder: Path, **options: Any) -> Spread:
    """Return a chain of toy models whose second member learns from the first one's features."""
    models = (dict(width=8, depth=1, dropout=0.0), dict(width=16, depth=2, dropout=0.0))
    content = dict(
        custom_imports=dict(imports=["compt.testing.toy"]),
        transfer=dict(type="feature_mse", until=0.6),
    )
    return Spread(folder, chain(dict(type="toy", samples=256), *models, **(content | options)))


CHAINS = {"toy": toy, "clip": clip, "mae": mae, "lm": lm}
