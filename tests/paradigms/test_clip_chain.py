"""Kill and resume a CLIP chain on a CSV file, and expect the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compt.cli import main

open_clip = pytest.importorskip("open_clip")

CONFIG = """
paradigm = dict(type="clip", data=dict(type="csv", train={csv!r}, val={csv!r}, label_key="colour"))

def clip(width, layers):
    return dict(
        embed_dim=16,
        vision_cfg=dict(image_size=16, patch_size=8, width=width, layers=layers, head_width=16),
        text_cfg=dict(context_length=8, width=width, layers=layers, heads=width // 16),
    )

chain = [dict(name="a", model=clip(16, 1), iters=30), dict(name="b", model=clip(32, 2), iters=20)]
grower = dict(type="lossless")
checkpoint = dict(interval=3)
evaluations = 2
train_dataloader = dict(batch_size=16, num_workers=2)
"""


@pytest.fixture
def config(tmp_path) -> Path:
    """A chain over 64 noisy pictures of four colours."""
    random = np.random.default_rng(0)
    lines = ["image,caption,colour"]
    for i in range(64):
        colour = ["red", "green", "blue", "grey"][i % 4]
        pixels = random.integers(0, 80, (20 + i % 5, 24, 3))
        pixels[..., range(3) if colour == "grey" else i % 4] += 150
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,a {colour} thing number {i},{colour}")
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
    path = tmp_path / "chain.py"
    path.write_text(CONFIG.format(csv=str(tmp_path / "pairs.csv")))
    return path


def train(config: Path, folder: Path) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "compt",
        "train",
        str(config),
        "--work-dir",
        str(folder),
        "--resume",
    ]
    return subprocess.Popen(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    )


def short(options: list[str]) -> list[str]:
    """Options that make the chain end in seconds."""
    return [
        *options,
        "chain.0.iters=2",
        "chain.1.iters=1",
        "evaluations=1",
        "train_dataloader.num_workers=0",
    ]


@pytest.mark.slow
def test_killed_at_checkpoints_it_resumes_to_the_same_bytes(config, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert train(config, whole).wait(120) == 0
    for wanted in ("01_a/checkpoints/iter_00000009.pt", "02_b/checkpoints/iter_00000006.pt"):
        process = train(config, broken)
        while not (broken / wanted).is_file() and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
    last = train(config, broken)
    assert last.wait(120) == 0, last.stderr.read()
    for stage in ("01_a", "02_b"):
        names = {p.relative_to(whole / stage) for p in (whole / stage / "export").iterdir()}
        card = Path("export", "README.md")  # says how long it took, and the chain's name
        assert card in names
        for name in ("weights.safetensors", *(names - {card})):
            assert (whole / stage / name).read_bytes() == (broken / stage / name).read_bytes(), name
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{broken / '02_b' / 'export'}")
    assert sum(p.numel() for p in model.parameters()) > 1e6


def test_broken_images_are_skipped_counted_and_told(config, tmp_path, capsys):
    (tmp_path / "7.png").write_bytes(b"no picture")
    options = ["paradigm.data.max_broken=0.05"]
    assert (
        main(
            [
                "train",
                str(config),
                "--work-dir",
                str(tmp_path / "run"),
                "--cfg-options",
                *short(options),
            ]
        )
        == 0
    )
    manifest = json.loads((tmp_path / "run" / "01_a" / "manifest.json").read_text())
    assert manifest["broken_samples"] == 1
    broken = {"whose image cannot be decoded": 1}
    for split in ("train", "val"):
        assert manifest["left_out"][split]["samples"] == broken
        assert manifest["left_out"][split]["total"] == 64
    out = capsys.readouterr().out
    assert "unreadable_samples=1 " in out
    said = "data of 'train': 1 of 64 left out or replaced: 1 whose image cannot be decoded"
    assert f'note="{said}"' in out.partition("stage=a")[0], "before the first stage"
    assert f"chain: {said}" in out, "in the report"
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["runs"][0]["members"][0]["left_out"]["val"]["samples"] == broken


def test_too_many_broken_images_stop_before_training(config, tmp_path, capsys):
    (tmp_path / "7.png").write_bytes(b"no picture")
    assert (
        main(
            ["train", str(config), "--work-dir", str(tmp_path / "run"), "--cfg-options", *short([])]
        )
        == 2
    )
    assert "7.png" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
