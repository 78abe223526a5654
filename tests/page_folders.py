"""Make what each page of the documentation takes for granted: data, configs and finished runs.

All of it is tiny, under the names that the pages use.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import compt
from compt.interfaces import Member
from tests.conftest import TOY, config_file
from tests.environments import ROOT
from tests.evaluation import made

COLOURS = {"red": (210, 40, 40), "green": (40, 170, 60), "blue": (50, 70, 220)}
TOY_FOR_CLIP = """
custom_imports = dict(imports=["compt.testing.toy"])
paradigm = dict(type="toy", samples=128)


def clip(width, layers, text_layers):
    return dict(width=width // 8, depth=layers)


chain = [
    dict(name="clip-t", model=clip(64, 1, 1), epochs=1),
    dict(name="clip-s", model=clip(128, 2, 2), epochs=1),
    dict(name="clip-b", model=clip(256, 3, 3), epochs=1),
]
train_dataloader = dict(batch_size=32)
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=1e-3))
"""
"""A config in which toy models stand for CLIP models, which take minutes."""


def pairs(folder: Path, number: int = 48) -> list[tuple[str, str]]:
    """Draw images, each with a text file beside it; return names and captions."""
    folder.mkdir(parents=True)
    drawn = []
    for index, (name, image) in enumerate(made.images(COLOURS, number // len(COLOURS), 0)):
        path, caption = folder / f"{index:03d}.png", f"a {name} disc, number {index}"
        image.save(path)
        path.with_suffix(".txt").write_text(caption)
        drawn.append((str(path), caption))
    return drawn


def tables(folder: Path) -> None:
    """Write ``train.csv`` and ``val.csv`` of drawn pairs."""
    rows = pairs(folder / "pairs")
    for name, part in (("train", rows[:32]), ("val", rows[32:])):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("image", "caption"), *part])


def toy_config(folder: Path, name: str, *members: str) -> Path:
    """Write a config of toy models of these names."""
    stages = [{**stage, "name": member} for stage, member in zip(TOY["chain"], members)]
    return config_file(folder, {**TOY, "chain": stages}, name)


def toy_runs(folder: Path, **kinds: bool) -> None:
    """Train toy chains into these work folders; True stands for members alone."""
    config = toy_config(folder, "my_chain.py", "vit-t", "vit-s")
    for name, alone in kinds.items():
        compt.train(config, work_dir=folder / name, individual=alone)


def chain_of(folder: Path, name: str, paradigm: dict[str, Any], **models: Any) -> None:
    """Train a chain of these models for an iteration each, into ``work_dirs/NAME``."""
    config = dict(
        paradigm=paradigm,
        chain=[
            dict(name=member.replace("_", "-"), model=model, iters=1)
            for member, model in models.items()
        ],
        train_dataloader=dict(batch_size=8),
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=1e-3)),
        evaluations=1,
    )
    compt.train(config, work_dir=folder / "work_dirs" / name)


def clip_model(width: int, layers: int) -> dict[str, Any]:
    """Return a config of open_clip."""
    vision = dict(image_size=16, patch_size=8, width=width, layers=layers, head_width=16)
    text = dict(context_length=12, width=width, layers=layers, heads=width // 16)
    return dict(embed_dim=32, vision_cfg=vision, text_cfg=text)


def clip_run(folder: Path) -> None:
    """Train ``work_dirs/clip_chain``."""
    tables(folder)
    data = dict(type="csv", train=str(folder / "train.csv"), val=str(folder / "val.csv"))
    small, middle, large = clip_model(32, 1), clip_model(48, 2), clip_model(64, 2)
    models = dict(clip_t=small, clip_s=middle, clip_b=large)
    chain_of(folder, "clip_chain", dict(type="clip", data=data), **models)


def mae_run(folder: Path) -> None:
    """Train ``work_dirs/mae_chain``."""
    from tests.paradigms.mae_models import mae

    made.image_folder(folder / "photos")
    splits = {split: str(folder / "photos" / split) for split in ("train", "val")}
    paradigm = dict(type="mae", data=dict(type="folder", **splits))
    chain_of(folder, "mae_chain", paradigm, mae_t=mae(32, 1), mae_s=mae(48, 2))


def lm_run(folder: Path) -> None:
    """Train ``work_dirs/lm_chain``, which reads bytes."""
    from tests.evaluation.exports import LLAMA

    for split in ("train", "val"):
        (folder / f"{split}.txt").write_text("def add(a, b):\n    return a + b\n" * 100)
    files = {split: str(folder / f"{split}.txt") for split in ("train", "val")}
    paradigm = dict(type="causal_lm", context=64, data=dict(type="text", **files))
    chain_of(folder, "lm_chain", paradigm, llama_t=LLAMA)


def begin(folder: Path) -> None:
    pairs(folder / "MY_IMAGES")


def index(folder: Path) -> None:
    pairs(folder / "MY_IMAGES")
    shutil.copytree(ROOT / "configs", folder / "configs")


def clusters(folder: Path) -> None:
    toy_config(folder, "small_chain.py", "vit-t", "vit-s")


def planning(folder: Path) -> None:
    shutil.copytree(ROOT / "configs", folder / "configs")


def report(folder: Path) -> None:
    toy_runs(
        folder,
        **{"work_dirs/icons": False, "work_dirs/icons_individual": True},
        **{"first": False, "second": False, "alone": True},
    )


def resuming(folder: Path) -> None:
    (folder / "my_chain.py").write_text(TOY_FOR_CLIP)


def exporting(folder: Path) -> None:
    toy_runs(folder, **{"work_dirs/icons": False})


def watching(folder: Path) -> None:
    toy_runs(folder, **{"work_dirs/clip_chain": False, "work_dirs/other": True})


def toy_chain(folder: Path) -> None:
    toy_config(folder, "my_chain.py", "vit-t", "vit-s")


def evaluating(folder: Path) -> None:
    for run in (clip_run, mae_run, lm_run):
        run(folder)
    data = folder / "data"
    made.classification(data / "wds_cifar10", number=4)
    made.retrieval(data / "wds_flickr8k")
    (folder / "prompts.txt").write_text("a photo of a {c}.\nan icon of {c}\n")
    made.image_folder(data / "pets", number=4)
    for number in range(1000):
        path = data / "imagenet" / "val" / f"n{number:08d}" / "1.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (16, 16), (number % 256, number // 4, 128)).save(path)
    made.language_tasks(folder / "my_tasks")
    task = folder / "my_tasks" / "sums.yaml"
    task.write_text(task.read_text().replace("made_sums", "my_task"))


def growth(folder: Path) -> None:
    import open_clip
    from transformers import AutoConfig, AutoModelForCausalLM

    from compt.paradigms.clip import Clip
    from tests.evaluation.exports import LLAMA
    from tests.paradigms.mae_models import mae

    clip_run(folder)
    mae_run(folder)
    small, large = clip_model(32, 1), clip_model(64, 2)
    torch.manual_seed(0)
    torch.save(Clip().build_model(Member("s", small)).state_dict(), folder / "epoch_32.pt")
    for name, content in (
        ("small_clip", small),
        ("larger_clip", large),
        ("larger_mae", mae(64, 2)),
    ):
        (folder / f"{name}.json").write_text(json.dumps(content))
    assert open_clip.__version__
    llama = {**LLAMA, "model_type": "qwen3", "head_dim": 16, "vocab_size": 99}
    larger = {**llama, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
    larger["num_key_value_heads"] = 4
    config = AutoConfig.for_model(**llama)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "Qwen3-0.6B")
    AutoConfig.for_model(**larger).save_pretrained(folder / "larger_qwen")


def data(folder: Path) -> None:
    """Write every form of data that the page's tables name."""
    import pyarrow
    import pyarrow.parquet
    from datasets import Dataset, DatasetDict

    tables(folder)
    for split in ("train", "val"):
        pairs(folder / "images" / split / "some", 6)
    names = [*(f"cc3m-{number:03d}.tar" for number in range(332)), "val.tar"]
    for name in names:
        _shard(folder / name)
    rows = [{"text": f"def f{number}(x):\n    return x\n"} for number in range(9)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    for name in ("books", "c4", "fineweb"):
        (folder / name).mkdir()
    (folder / "books" / "one.txt").write_text(lines)
    for name in ("val.txt.gz", "c4/a.jsonl.gz", "c4-val.jsonl.gz"):
        (folder / name).write_bytes(gzip.compress(lines.encode()))
    for name in ("fineweb/a.parquet", "val.parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / name)
    splits = DatasetDict(train=Dataset.from_list(rows), validation=Dataset.from_list(rows))
    splits.save_to_disk(folder / "saved")
    for name in ("train.bin", "val.bin"):
        np.arange(500, dtype=np.uint16).tofile(folder / name)


def _shard(path: Path) -> None:
    """Write a shard of one pair."""
    image = io.BytesIO()
    Image.new("RGB", (16, 16), COLOURS["red"]).save(image, "png")
    with tarfile.open(path, "w") as tar:
        for name, content in (("a.png", image.getvalue()), ("a.txt", b"a red square")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


MADE: dict[str, Callable[[Path], None]] = {
    "begin": begin,
    "clusters": clusters,
    "config": toy_chain,
    "data": data,
    "evaluating": evaluating,
    "exporting": exporting,
    "growth": growth,
    "index": index,
    "planning": planning,
    "report": report,
    "resuming": resuming,
    "trackers": toy_chain,
    "watching": watching,
}
"""What a page's folder holds before its first block."""
