"""Chains of three members that train in a second or two, one a paradigm, and their data."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

GLOBAL_BATCH = 8
NUM_SAMPLES = 32
IMAGE_SIZE, PATCH = 16, 8
WORDS = ("red", "green", "blue", "disc", "square", "small", "large", "left", "right")
STAGES = ("01_a", "02_b", "03_c")


def config(paradigm: str, folder: Path, world_size: int = 1) -> dict[str, Any]:
    """Return a chain's config, and write its data into a folder.

    The members between them have what a checkpoint must not lose: an average, an accumulation of
    gradients, a plateau, an inherited optimizer's state, and what a transfer trains.
    """
    options, models, transfer = CHAINS[paradigm](folder)
    members = [
        {"name": name, "model": model, "iters": iters}
        for name, model, iters in zip("abc", models, (8, 8, 6), strict=True)
    ]
    members[0]["average"] = {"type": "ema", "half_life": 0.2}
    members[1]["optim_wrapper"] = {"accumulative_counts": 2}
    members[2]["grown"] = {"optimizer_state": True}
    return {
        "paradigm": options,
        "chain": members,
        "grower": {"type": "lossless"},
        "transfer": {"type": transfer},
        "train_dataloader": {"batch_size": GLOBAL_BATCH // world_size},
        "optim_wrapper": {
            "optimizer": {"type": "AdamW", "lr": 1e-3},
            "clip_grad": {"max_norm": 1.0},
        },
        "checkpoint": {"interval": 3, "keep": 2},
        "evaluations": 2,
        "log_interval": 1,
        "seed": 1,
        **({"custom_imports": {"imports": ["compt.testing.toy"]}} if paradigm == "toy" else {}),
    }


def write(content: Mapping[str, Any], file: Path) -> Path:
    """Write a config as a Python file, and return its path."""
    file.write_text("".join(f"{key} = {value!r}\n" for key, value in content.items()))
    return file


Chain = tuple[dict[str, Any], list[Any], str]
"""The paradigm's config, three models, small to large, and the name of a transfer."""


def _toy(folder: Path) -> Chain:
    models = [{"width": 8 * size, "depth": size} for size in (1, 2, 3)]
    return {"type": "toy", "samples": 64}, models, "feature_mse"


def _clip(folder: Path) -> Chain:
    images = _images(folder / "images")
    for split in ("train", "val"):
        with (folder / f"{split}.csv").open("w", newline="") as file:
            rows = [(str(path), _sentence(path.stem)) for path in images[split]]
            csv.writer(file).writerows([("image", "caption"), *rows])
    data = {"type": "csv", **{s: str(folder / f"{s}.csv") for s in ("train", "val")}}
    tokenizer = {"type": "words", "size": 64}
    vision = {"image_size": IMAGE_SIZE, "patch_size": PATCH, "head_width": 16}
    models = [
        {
            "embed_dim": 16,
            "vision_cfg": {**vision, "width": width, "layers": layers},
            "text_cfg": {
                "context_length": 8,
                "width": width,
                "layers": layers,
                "heads": width // 16,
            },
        }
        for width, layers in ((16, 1), (32, 1), (48, 2))
    ]
    options = {"type": "clip", "data": data, "augment": 0.3, "tokenizer": tokenizer}
    return options, models, "feature_mse"


def _mae(folder: Path) -> Chain:
    _images(folder / "images")
    data = {"type": "folder", **{s: str(folder / "images" / s) for s in ("train", "val")}}
    models = [_autoencoder(width, layers) for width, layers in ((16, 1), (32, 1), (48, 2))]
    return {"type": "mae", "data": data}, models, "feature_mse"


def _autoencoder(width: int, layers: int) -> dict[str, Any]:
    arch = {
        "embed_dims": width,
        "num_layers": layers,
        "num_heads": width // 16,
        "feedforward_channels": 2 * width,
    }
    return {
        "type": "mmpretrain.MAE",
        "backbone": {
            "type": "mmpretrain.MAEViT",
            "arch": arch,
            "img_size": IMAGE_SIZE,
            "patch_size": PATCH,
        },
        "neck": {
            "type": "mmpretrain.MAEPretrainDecoder",
            "num_patches": (IMAGE_SIZE // PATCH) ** 2,
            "patch_size": PATCH,
            "embed_dim": width,
            "decoder_embed_dim": 16,
            "decoder_depth": 1,
            "decoder_num_heads": 1,
        },
        "head": {
            "type": "mmpretrain.MAEPretrainHead",
            "norm_pix": True,
            "patch_size": PATCH,
            "loss": {"type": "mmpretrain.PixelReconstructionLoss", "criterion": "L2"},
        },
    }


def _lm(folder: Path) -> Chain:
    for number, split in enumerate(("train", "val")):
        text = "\n".join(_sentence(f"{number}{line}") for line in range(200))
        (folder / f"{split}.txt").write_text(text)
    files = {split: str(folder / f"{split}.txt") for split in ("train", "val")}
    data = {"type": "text", "cache_dir": str(folder / "cache"), **files}
    shared = {"model_type": "llama", "head_dim": 8, "tie_word_embeddings": True}
    models = [
        {
            **shared,
            "num_attention_heads": width // 8,
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": layers,
        }
        for width, layers in ((16, 1), (32, 1), (48, 2))
    ]
    return {"type": "causal_lm", "context": 16, "data": data}, models, "logit_kl"


CHAINS: Mapping[str, Callable[[Path], Chain]] = {
    "toy": _toy,
    "clip": _clip,
    "mae": _mae,
    "lm": _lm,
}


def _images(folder: Path) -> dict[str, list[Path]]:
    """Draw noise for two splits of two classes each, and return the files."""
    files: dict[str, list[Path]] = {"train": [], "val": []}
    generator = np.random.default_rng(0)
    for split, paths in files.items():
        for index in range(NUM_SAMPLES):
            path = folder / split / "ab"[index % 2] / f"{split}{index:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
            paths.append(path)
    return files


def _sentence(key: str) -> str:
    return " ".join(random.Random(key).sample(WORDS, 5))
