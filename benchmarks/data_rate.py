"""Measure how fast samples are loaded, from disk and from object storage, beside the train step.

``python benchmarks/data_rate.py`` packs photographs of noise into WebDataset shards, as
img2dataset does at 256 pixels, and loads them as ``compt train`` does for a CLIP model: decoded,
cropped at random to the model's size, with tokens of their captions. A row is samples a second of
the loader alone, with no, one and two workers, and what it is by the step's rate: above 1 the step
waits for nothing. Without workers it says the processor's milliseconds a sample too, which do not
depend on what else the machine does.

Shards lie on disk, in fsspec's memory, and where moto and s3fs are installed (``pip install
"compt[test-s3]"``) on a server that answers as S3 does, in a process of its own on this machine.
Its answers take the same processors as the loader: a real one does not, and has a latency, which
``--latency`` adds to every request. The step is that of ``--model`` on a GPU where there is one.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import platform
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from fsspec.core import url_to_fs
from PIL import Image
from rich.console import Console
from rich.table import Table

from compt.interfaces import Member
from compt.interfaces.nested import map_tensors
from compt.paradigms.clip import Clip
from compt.training.loader import train_loader

TINY = {
    "model_cfg": {
        "embed_dim": 128,
        "vision_cfg": {"image_size": 224, "layers": 4, "width": 192, "patch_size": 32},
        "text_cfg": {"context_length": 32, "width": 128, "heads": 2, "layers": 2},
    }
}
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def write_shards(folder: Path, num_shards: int, num_samples: int, size: int) -> None:
    """Write shards of JPEGs of about 20 kB with captions and metadata."""
    generator = np.random.default_rng(0)
    for shard in range(num_shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for number in range(num_samples):
                coarse = generator.integers(0, 255, (size // 4, size // 4, 3), np.uint8)
                out = io.BytesIO()
                Image.fromarray(coarse).resize((size, size)).save(out, "JPEG", quality=90)
                name = f"{shard:05d}{number:04d}"
                metadata = json.dumps({"caption": name, "width": size, "exif": "x" * 500})
                members = {"jpg": out.getvalue(), "txt": name.encode(), "json": metadata.encode()}
                for ending, data in members.items():
                    info = tarfile.TarInfo(f"{name}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def upload(folder: Path, url: str) -> str:
    """Copy shards to a file system, and return their pattern there."""
    system, path = url_to_fs(url)
    system.makedirs(path, exist_ok=True)
    for file in sorted(folder.glob("*.tar")):
        system.pipe_file(f"{path}/{file.name}", file.read_bytes())
    system.invalidate_cache()
    return f"{url}/*.tar"


def serve(port: Any, latency: float) -> None:
    """Run a server that answers as S3 does, as long as the process lives."""
    import logging

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = DomainDispatcherApplication(create_backend_app)

    def delayed(environ: Any, respond: Any) -> Any:
        time.sleep(latency)
        return application(environ, respond)

    server = make_server("127.0.0.1", 0, delayed, threaded=True)
    port.send(server.server_port)
    server.serve_forever()


@contextmanager
def s3(latency: float) -> Iterator[bool]:
    """Run a server, and yield whether there is one."""
    try:
        import moto.server  # noqa: F401
        import s3fs  # noqa: F401
    except ImportError:
        yield False
        return
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, latency))
    process.start()
    try:
        os.environ.update(CREDENTIALS, AWS_ENDPOINT_URL=f"http://127.0.0.1:{ours.recv()}")
        yield True
    finally:
        process.terminate()
        process.join()


def paradigm_of(shards: str, model: Any, cache: Path) -> tuple[Clip, torch.nn.Module]:
    data = {"type": "webdataset", "train": shards, "cache_dir": str(cache)}
    paradigm = Clip(data=data, augment=0.5)
    return paradigm, paradigm.build_model(Member("model", model)).to(DEVICE)


class Rate(NamedTuple):
    """How fast something goes through samples."""

    samples_per_s: float
    processor_ms: float
    """Of this process a sample, its threads with it; it does not see what else the machine does."""


def loader_rate(paradigm: Clip, batch_size: int, num_workers: int, num_batches: int) -> Rate:
    """Return how fast a loader is, without the start of its workers."""
    loader = train_loader(
        paradigm.build_dataset("train"),
        paradigm.collate,
        batch_size=batch_size,
        seed=0,
        start=0,
        rank=0,
        world_size=1,
        num_workers=num_workers,
    )
    warm_up = 1 + 2 * num_workers  # what workers have fetched ahead is not counted
    batches = islice(iter(loader), warm_up + num_batches)
    for _ in range(warm_up):
        next(batches)
    return timed(lambda: sum(1 for _ in batches) * batch_size)


def step_rate(paradigm: Clip, model: torch.nn.Module, batch_size: int, num_steps: int) -> Rate:
    """Return how fast forward, backward and AdamW are, on one batch made before."""
    dataset = paradigm.build_dataset("train")
    raw = dict(paradigm.collate([dataset[index] for index in range(batch_size)]))
    raw = map_tensors(lambda tensor: tensor.to(DEVICE), raw)
    optimizer = torch.optim.AdamW(model.parameters())
    generator = torch.Generator(DEVICE).manual_seed(0)
    model.train()

    def steps(num: int) -> int:
        for _ in range(num):
            step()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        return num * batch_size

    def step() -> None:
        batch = paradigm.prepare(raw, generator=generator)
        sum(paradigm.loss(paradigm.forward(model, batch), batch).values()).backward()  # type: ignore[union-attr]
        optimizer.step()
        optimizer.zero_grad()

    steps(2)
    return timed(lambda: steps(num_steps))


def timed(run: Callable[[], int]) -> Rate:
    """Time what returns how many samples it went through."""
    start, processor = time.perf_counter(), time.process_time()
    num_samples = run()
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    return Rate(num_samples / seconds, 1e3 * processor / num_samples)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure all rows."""
    (folder / "shards").mkdir()
    write_shards(folder / "shards", options.shards, options.samples, options.size)
    model = TINY if options.model is None else options.model
    rows: list[dict[str, Any]] = []
    with s3(options.latency) as has_server:
        places = {"disk": str(folder / "shards/*.tar")}
        places["memory"] = upload(folder / "shards", "memory://shards")
        if has_server:
            places["S3"] = upload(folder / "shards", "s3://shards/train")
        step: Rate | None = None
        for place, shards in places.items():
            start = time.perf_counter()
            paradigm, built = paradigm_of(shards, model, folder / "cache")
            paradigm.build_dataset("train")
            opening = time.perf_counter() - start
            step = step or step_rate(paradigm, built, options.batch_size, options.steps)
            for workers in options.workers:
                rate = loader_rate(paradigm, options.batch_size, workers, options.batches)
                rows.append({"place": place, "workers": workers, **rate._asdict()})
            print(f"{place}: opened in {opening:.1f} s", flush=True)
    assert step is not None
    return {"step": step._asdict(), "rows": rows}


def show(result: dict[str, Any]) -> None:
    """Print the rows, with what they are to the step and to the disk."""
    names = ("shards on", "workers", "samples/s", "by the step's", "by disk's", "processor ms")
    table, step = Table(*names), result["step"]
    disk = {row["workers"]: row for row in result["rows"] if row["place"] == "disk"}
    for row in result["rows"]:
        rate, own = row["samples_per_s"], f"{row['processor_ms']:.2f}"
        figures = [f"{rate:,.0f}", f"{rate / step['samples_per_s']:.1f}"]
        figures.append(f"{rate / disk[row['workers']]['samples_per_s']:.2f}")
        # Workers have a time of their own, which this process does not see.
        table.add_row(row["place"], str(row["workers"]), *figures, "" if row["workers"] else own)
    Console().print(
        f"step: {step['samples_per_s']:,.0f} samples/s, {step['processor_ms']:.2f} processor ms a "
        f"sample, on {result['device']}",
        table,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="open_clip model name, by default a ViT of 4 layers")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--samples", type=int, default=250, help="of a shard")
    parser.add_argument("--size", type=int, default=256, help="height and width of the images")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--batches", type=int, default=12, help="timed, of the loader")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--latency", type=float, default=0.0, help="seconds of a request to S3")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options, Path(folder))
    result |= {"processor": platform.processor() or platform.machine(), "device": str(DEVICE)}
    show(result)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
