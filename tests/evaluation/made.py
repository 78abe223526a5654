"""Small data sets of generated images and text, in the forms that suites read."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {"red_thing": (210, 40, 40), "green_thing": (40, 170, 60), "blue_thing": (50, 70, 220)}
OTHERS = {"cyan": (40, 200, 200), "magenta": (200, 50, 190), "yellow": (220, 210, 60)}
PROMPTS = ("a photo of a {c}.", "an icon of {c}")


def image(colour: tuple[int, int, int], seed: int) -> Image.Image:
    """A disc of about this colour on a noisy ground, 40 x 36 pixels."""
    rng = np.random.default_rng(seed)
    ground = Image.fromarray(rng.integers(0, 256, (36, 40, 3), dtype=np.uint8))
    shade = tuple(int(np.clip(c + rng.normal(0, 70), 0, 255)) for c in colour)
    left, top = rng.integers(0, 16, 2).tolist()
    ImageDraw.Draw(ground).ellipse((left, top, left + 20, top + 20), fill=shade)
    return ground


def images(
    colours: Mapping[str, tuple[int, int, int]], number: int, seed: int
) -> Iterator[tuple[str, Image.Image]]:
    """Class and image, ``number`` of each class."""
    for index in range(number * len(colours)):
        name = list(colours)[index % len(colours)]
        yield name, image(colours[name], seed + index)


def image_folder(
    root: Path,
    *,
    number: int = 12,
    colours: Mapping[str, tuple[int, int, int]] = COLOURS,
) -> Path:
    """``root/{train,val}/CLASS/image``."""
    for seed, split in enumerate(("train", "val")):
        for index, (name, picture) in enumerate(images(colours, number, 1000 * seed)):
            path = root / split / name / f"{index:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    return root


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "png")
    return stream.getvalue()


def classification(root: Path, *, number: int = 12) -> Path:
    """A WebDataset of six classes in two shards, as ``clip_benchmark_export_wds`` writes it."""
    (root / "test").mkdir(parents=True)
    colours = {**COLOURS, **OTHERS}
    names = list(colours)
    (root / "classnames.txt").write_text("\n".join(n.replace("_", " ") for n in names) + "\n")
    (root / "zeroshot_classification_templates.txt").write_text("\n".join(PROMPTS) + "\n")
    (root / "test" / "nshards.txt").write_text("2\n")
    for shard in range(2):
        with tarfile.open(root / "test" / f"{shard}.tar", "w") as tar:
            for index, (name, picture) in enumerate(images(colours, number, 5000 + 999 * shard)):
                key = f"s{shard}{index:05d}"
                _add(tar, f"{key}.png", _png(picture))
                _add(tar, f"{key}.cls", str(names.index(name)).encode())
    return root


def several_labels(root: Path, *, number: int = 12) -> Path:
    """A WebDataset whose images have any of three labels, and some two of them."""
    (root / "test").mkdir(parents=True)
    (root / "dataset_type.txt").write_text("multilabel\n")
    (root / "classnames.txt").write_text("\n".join(COLOURS) + "\n")
    (root / "zeroshot_classification_templates.txt").write_text("\n".join(PROMPTS) + "\n")
    (root / "test" / "nshards.txt").write_text("1\n")
    with tarfile.open(root / "test" / "0.tar", "w") as tar:
        for index, (name, picture) in enumerate(images(COLOURS, number, 7000)):
            labels = np.array([name == other for other in COLOURS], dtype=np.int64)
            labels[0] |= index % 4 == 0
            stream = io.BytesIO()
            np.save(stream, labels)
            _add(tar, f"s{index:05d}.png", _png(picture))
            _add(tar, f"s{index:05d}.npy", stream.getvalue())
    return root


def retrieval(root: Path, *, number: int = 8) -> Path:
    """A WebDataset of images with one to three captions."""
    (root / "test").mkdir(parents=True)
    (root / "dataset_type.txt").write_text("retrieval\n")
    (root / "test" / "nshards.txt").write_text("1\n")
    with tarfile.open(root / "test" / "0.tar", "w") as tar:
        for index, (name, picture) in enumerate(images(COLOURS, number, 9000)):
            captions = [f"{name} number {index}", f"a {name}", f"disc {index}"][: 1 + index % 3]
            _add(tar, f"s{index:05d}.png", _png(picture))
            _add(tar, f"s{index:05d}.txt", "\n".join(captions).encode())
    return root


def language_tasks(root: Path) -> Path:
    """Two tasks of lm-evaluation-harness: a multiple choice, and the perplexity of a text."""
    root.mkdir(parents=True)
    questions = [
        {
            "question": f"{a} + {b} =",
            "choices": [str(a + b + shift) for shift in range(4)],
            "gold": 0,
        }
        for a in range(4)
        for b in range(3)
    ]
    texts = [{"text": f"def f{index}(x):\n    return x + {index}\n"} for index in range(6)]
    for name, rows in (("sums", questions), ("code", texts)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (root / f"{name}.jsonl").write_text(lines)
    data = f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {root}/NAME.jsonl\n"
    (root / "sums.yaml").write_text(
        f"task: made_sums\n{data.replace('NAME', 'sums')}output_type: multiple_choice\n"
        "test_split: test\ndoc_to_text: '{{question}}'\ndoc_to_target: gold\n"
        "doc_to_choice: choices\nmetric_list:\n  - metric: acc\n  - metric: acc_norm\n"
    )
    (root / "code.yaml").write_text(
        f"task: made_code\n{data.replace('NAME', 'code')}output_type: loglikelihood_rolling\n"
        "test_split: test\ndoc_to_text: ''\ndoc_to_target: '{{text}}'\n"
        "metric_list:\n  - metric: bits_per_byte\n  - metric: byte_perplexity\n"
    )
    return root
