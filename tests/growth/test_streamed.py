"""Growth from files to files: the bytes of growth in memory, in the memory of one tensor."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef

transformers = pytest.importorskip("transformers")

from compt.errors import ConfigError, GrowthError, WorkDirError
from compt.growth import outlines, streamed
from compt.growth.convert import grow_checkpoint

VOCABULARY = 301
KINDS: dict[str, Any] = dict(
    llama=lambda width, layers: dict(
        model_type="llama",
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 16,
        num_key_value_heads=width // 32,
        head_dim=16,
        vocab_size=VOCABULARY,
        max_position_embeddings=32,
    ),
    qwen3=lambda width, layers: dict(
        model_type="qwen3",
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 16,
        num_key_value_heads=1,
        head_dim=16,
        vocab_size=VOCABULARY,
        max_position_embeddings=32,
        tie_word_embeddings=True,
    ),
    gpt2=lambda width, layers: dict(
        model_type="gpt2",
        n_embd=width,
        n_layer=layers,
        n_head=width // 16,
        n_positions=32,
        vocab_size=VOCABULARY,
        bos_token_id=0,
        eos_token_id=0,
    ),
)


def saved(folder: Path, kind: str, dtype: torch.dtype, width: int = 32, **options: Any) -> Path:
    """A folder of transformers with a small model."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(**KINDS[kind](width, 2))
    model = transformers.AutoModelForCausalLM.from_config(config).to(dtype)
    for name, param in model.named_parameters():
        if "norm" in name or "ln_" in name or "bias" in name:
            param.data += 0.1 * torch.randn_like(param)
    model.save_pretrained(folder, **options)
    return folder


def larger(folder: Path, kind: str, width: int = 64, layers: int = 3) -> str:
    """The config of a larger model of a kind."""
    path = folder / f"{kind}-{width}-{layers}.json"
    path.write_text(json.dumps(KINDS[kind](width, layers)))
    return str(path)


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture
def small_tensors(monkeypatch):
    """Tensors of a few hundred bytes count as large."""
    monkeypatch.setattr(outlines, "LARGE", 256)


def both(tmp_path: Path, source: Path, to: str, **options: Any) -> list[dict[str, Any]]:
    """The reports of growth from files to files and in memory, which wrote the same bytes."""
    before = hashes(source)
    reports = [
        grow_checkpoint(source, to, tmp_path / name, stream_from=stream_from, **options)
        for name, stream_from in (("streamed", 0), ("whole", 10**12))
    ]
    assert [report["streamed"] for report in reports] == [True, False], reports[0]["whole"]
    assert hashes(tmp_path / "streamed") == hashes(tmp_path / "whole")
    assert hashes(source) == before
    return reports


def test_measuring_holds_a_layer_at_a_time(tmp_path, small_tensors, monkeypatch):
    """Not all of what the files hold, as that may be larger than memory."""
    source = saved(tmp_path / "source", "llama", torch.float32)
    total, most, largest = 0, 0, 0
    alive: dict[StorageWeakRef, int] = {}

    def read(self, name, get=streamed.StoredWeights.__getitem__):
        nonlocal most, total, largest
        tensor = get(self, name)
        for storage in [*alive]:
            if storage.expired():
                del alive[storage]
        alive[StorageWeakRef(tensor.untyped_storage())] = tensor.nbytes
        most, largest = max(most, sum(alive.values())), max(largest, tensor.nbytes)
        total = max(total, 4 * sum(map(math.prod, self.shapes.values())))
        return tensor

    monkeypatch.setattr(streamed.StoredWeights, "__getitem__", read)
    grow_checkpoint(source, larger(tmp_path, "llama", 64, 12), tmp_path / "grown", stream_from=0)
    assert largest <= most <= 2 * largest < total / 10


def test_longer_axes_are_made_tensor_by_tensor(tmp_path, small_tensors):
    config = KINDS["qwen3"](64, 3) | dict(vocab_size=VOCABULARY + 9, num_key_value_heads=2)
    to = tmp_path / "longer.json"
    to.write_text(json.dumps(config))
    source = saved(tmp_path / "source", "qwen3", torch.float32)
    grower = dict(type="extend", axes=dict(vocab="mean", kv_heads="split"))
    report, _ = both(tmp_path, source, str(to), grower=grower)
    assert report["function_preserving"], report["reason"]
    assert report["grower"] == "extend"


def same(reports: list[dict[str, Any]], *keys: str) -> bool:
    return all(reports[0][key] == reports[1][key] for key in keys)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("small_tensors")
def test_the_bytes_and_the_report_are_those_of_growth_in_memory(tmp_path, kind):
    source = saved(tmp_path / "source", kind, torch.float32)
    reports = both(tmp_path, source, larger(tmp_path, kind), seed=3)
    assert same(reports, "params", "dropped", "function_preserving", "reason", "error", "dtype")
    assert reports[0]["function_preserving"] and reports[0]["error"] < 1e-5


@pytest.mark.parametrize("width", [64, 96])
@pytest.mark.usefixtures("small_tensors")
def test_half_precision_and_shards_are_kept(tmp_path, width):
    source = saved(tmp_path / "source", "llama", torch.bfloat16, max_shard_size="40KB")
    assert (source / "model.safetensors.index.json").is_file()
    reports = both(tmp_path, source, larger(tmp_path, "llama", width), max_shard_size=100_000)
    assert len(list((tmp_path / "streamed").glob("*.safetensors"))) > 2
    assert same(reports, "params", "dropped", "function_preserving", "dtype")
    # What it measures is what it wrote. The other rounds the rotary frequencies too.
    rounding = [report["rounding_error"] for report in reports]
    assert reports[0]["error"] == rounding[0] == pytest.approx(rounding[1], rel=0.01)
    assert reports[1]["error"] < 1e-5


@pytest.mark.usefixtures("small_tensors")
def test_a_wider_format_rounds_nothing(tmp_path):
    source = saved(tmp_path / "source", "llama", torch.bfloat16)
    reports = both(tmp_path, source, larger(tmp_path, "llama"), dtype="float64")
    assert same(reports, "function_preserving", "reason", "error", "dtype")
    assert reports[0]["function_preserving"] and "rounding_error" not in reports[0]


GROWERS = ["leading_block", "clone", "stack"]


@pytest.mark.parametrize("grower", GROWERS)
@pytest.mark.usefixtures("small_tensors")
def test_every_grower_of_axes_streams(tmp_path, grower):
    source = saved(tmp_path / "source", "gpt2", torch.float32)
    width = 32 if grower == "stack" else 64
    reports = both(tmp_path, source, larger(tmp_path, "gpt2", width), grower=grower)
    assert same(reports, "params", "function_preserving", "reason", "error")


@pytest.mark.usefixtures("small_tensors")
def test_open_clip_folders_stream(tmp_path):
    pytest.importorskip("open_clip")
    from compt.interfaces import Member
    from compt.paradigms.clip import Clip
    from tests.cli.test_grow_formats import clip_model, written

    paradigm, source = Clip(), tmp_path / "source"
    source.mkdir()
    torch.manual_seed(0)
    paradigm.export(paradigm.build_model(Member("s", clip_model(32, 2))), source)
    reports = both(tmp_path, source, str(written(tmp_path / "to.json", clip_model(64, 3))))
    assert same(reports, "params", "function_preserving", "reason", "error", "notes")
    assert reports[0]["function_preserving"] and reports[0]["error"] < 1e-5


def test_what_works_on_whole_models_is_grown_whole_and_says_why(tmp_path):
    source, to = saved(tmp_path / "source", "llama", torch.float32), larger(tmp_path, "llama")
    report = grow_checkpoint(source, to, tmp_path / "out", grower="scratch", stream_from=0)
    assert not report["streamed"] and "Scratch works on whole models" in report["whole"]
    report = grow_checkpoint(source, to, tmp_path / "small")
    assert (report["streamed"], report["whole"]) == (False, "")


def test_weights_of_another_format_are_grown_whole(tmp_path):
    source, to = saved(tmp_path / "source", "llama", torch.float32), larger(tmp_path, "llama")
    from safetensors.torch import load_file

    torch.save(load_file(source / "model.safetensors"), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    report = grow_checkpoint(source, to, tmp_path / "out", stream_from=0)
    assert not report["streamed"] and "no single set of safetensors" in report["whole"]


def poison(path: Path) -> None:
    """Make the last number in a file of safetensors a NaN."""
    with open(path, "r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(struct.pack("<f", float("nan")))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


@pytest.mark.parametrize(("damage", "words"), [(poison, "not finite"), (cut, "cannot be loaded")])
def test_damaged_sources_are_refused_before_anything_is_written(tmp_path, damage, words):
    source = saved(tmp_path / "source", "llama", torch.float32, max_shard_size="40KB")
    damage(sorted(source.glob("*.safetensors"))[0])
    with pytest.raises(ConfigError, match=words):
        grow_checkpoint(source, larger(tmp_path, "llama"), tmp_path / "out", stream_from=0)
    assert left(tmp_path) == []


def test_a_missing_shard_is_named(tmp_path):
    source = saved(tmp_path / "source", "llama", torch.float32, max_shard_size="40KB")
    lost = sorted(source.glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(ConfigError, match=lost.name):
        grow_checkpoint(source, larger(tmp_path, "llama"), tmp_path / "out", stream_from=0)
    assert left(tmp_path) == []


def test_a_killed_growth_leaves_no_output(tmp_path, monkeypatch):
    source, to = saved(tmp_path / "source", "llama", torch.float32), larger(tmp_path, "llama")
    processes = multiprocessing.get_context("fork")
    begun = processes.Event()

    def hang(*args: Any) -> None:
        begun.set()
        time.sleep(60)

    monkeypatch.setattr(streamed.FilledFiles, "fill", hang)
    child = processes.Process(
        target=grow_checkpoint, args=(source, to, tmp_path / "out"), kwargs={"stream_from": 0}
    )
    child.start()
    assert begun.wait(60)
    child.kill()
    child.join()
    assert [name for name in left(tmp_path) if not name.endswith(".tmp")] == []
    monkeypatch.undo()
    assert grow_checkpoint(source, to, tmp_path / "out", stream_from=0)["streamed"]


def left(tmp_path: Path) -> list[str]:
    return [path.name for path in tmp_path.iterdir() if "out" in path.name]


def test_a_pair_that_cannot_grow_is_refused(tmp_path):
    source = saved(tmp_path / "source", "llama", torch.float32, width=64)
    with pytest.raises(GrowthError, match="would shrink"):
        grow_checkpoint(source, larger(tmp_path, "llama", 32), tmp_path / "out", stream_from=0)
    assert left(tmp_path) == []


def test_values_that_the_format_cannot_hold_are_refused(tmp_path):
    source = saved(tmp_path / "source", "llama", torch.float32)
    from safetensors.torch import load_file, save_file

    state = load_file(source / "model.safetensors")
    state["model.norm.weight"][0] = 1e6
    save_file(state, source / "model.safetensors", metadata={"format": "pt"})
    to = larger(tmp_path, "llama")
    with pytest.raises(ConfigError, match=r"float16 cannot hold .*model\.norm\.weight"):
        grow_checkpoint(source, to, tmp_path / "out", dtype="float16", stream_from=0)
    assert left(tmp_path) == []


def test_a_disk_without_room_is_seen_before_anything_is_grown(tmp_path, monkeypatch):
    source = saved(tmp_path / "source", "llama", torch.float32)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(WorkDirError, match="are free"):
        grow_checkpoint(source, larger(tmp_path, "llama"), tmp_path / "out", stream_from=0)
    assert left(tmp_path) == []


def test_a_disk_that_fills_up_leaves_nothing(tmp_path, monkeypatch):
    source = saved(tmp_path / "source", "llama", torch.float32)

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(streamed.FilledFiles, "fill", full)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(WorkDirError, match="No space left"):
        grow_checkpoint(source, larger(tmp_path, "llama"), out, stream_from=0)
    assert out.is_dir() and not any(out.iterdir())
    monkeypatch.undo()
    assert grow_checkpoint(source, larger(tmp_path, "llama"), out, stream_from=0)["streamed"]
    assert not any(path.name.endswith(".tmp") for path in (*out.iterdir(), *tmp_path.iterdir()))


@pytest.mark.slow
@pytest.mark.usefixtures("small_tensors")
def test_a_narrow_model_of_the_shape_of_1_b_to_7_b_is_exact(tmp_path):
    """Widths 2048 -> 4096 and MLPs 5504 -> 11008 are divided by 16, blocks are 18 -> 32."""

    def config(width: int, mlp: int, layers: int) -> dict[str, Any]:
        heads = width // 8
        sizes = dict(hidden_size=width, intermediate_size=mlp, num_hidden_layers=layers)
        heads_of = dict(num_attention_heads=heads, num_key_value_heads=heads, head_dim=8)
        table = dict(vocab_size=32000 // 16, max_position_embeddings=128)
        return dict(model_type="llama", **sizes, **heads_of, **table)

    torch.manual_seed(0)
    small = transformers.AutoConfig.for_model(**config(128, 344, 18))
    source, to = tmp_path / "source", tmp_path / "to.json"
    transformers.AutoModelForCausalLM.from_config(small).save_pretrained(source)
    to.write_text(json.dumps(config(256, 688, 32)))
    reports = both(tmp_path, source, str(to))
    assert same(reports, "params", "function_preserving", "reason", "error")
    assert reports[0]["function_preserving"] and reports[0]["error"] < 2e-7


PEAK = """
import re, sys, threading, time
from pathlib import Path

import transformers  # noqa: F401
from compt.growth import convert
from compt.paradigms.causal_lm import CausalLm

def held():
    return 1024 * int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

most = before = held()
def watch():
    global most
    while True:
        most = max(most, held())
        time.sleep(0.005)

threading.Thread(target=watch, daemon=True).start()
source, to, out, stream_from = sys.argv[1:]
report = convert.grow_checkpoint(Path(source), to, Path(out), stream_from=int(stream_from))
print(report["streamed"], most - before)
"""


def memory_taken(source: Path, to: str, out: Path, stream_from: int) -> tuple[str, int]:
    arguments = [str(source), to, str(out), str(stream_from)]
    output = subprocess.run(
        [sys.executable, "-c", PEAK, *arguments], check=True, capture_output=True, text=True
    ).stdout
    streamed_it, num_bytes = output.split()[-2:]
    return streamed_it, int(num_bytes)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="it reads Linux's numbers")
def test_the_memory_is_that_of_the_largest_tensor(tmp_path):
    source, width, layers = saved(tmp_path / "source", "llama", torch.bfloat16, 256), 1024, 12
    to = larger(tmp_path, "llama", width, layers)
    streamed_it, num_bytes = memory_taken(source, to, tmp_path / "streamed", 0)
    # In float64 fresh and grown values, the noise and the source. Beside it what libraries load
    # late, and what malloc does not give back of tensors below 32 MB.
    largest = 2 * width * width
    assert streamed_it == "True" and num_bytes < 1.2 * 48 * largest + 400e6
    streamed_it, in_memory = memory_taken(source, to, tmp_path / "whole", 10**12)
    assert streamed_it == "False" and in_memory > 2 * num_bytes
    assert hashes(tmp_path / "streamed") == hashes(tmp_path / "whole")
