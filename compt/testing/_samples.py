"""Reads and checks samples of data sources for their contract."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from compt.files import sha256
from compt.interfaces import Images, LeftOut, Text, Tokens
from compt.testing._shared import random_state_kept


def is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def is_numbered(opened: Any) -> bool:
    """Whether samples have a number, as data loaders need it."""
    return hasattr(opened, "__len__") and hasattr(opened, "__getitem__")


def read(opened: Any, count: int) -> list[Any]:
    """Read the first samples, as something that can be compared."""
    if isinstance(opened, Tokens):
        return [_tokens(opened, i)[:count].tolist() for i in range(len(opened.spans))]
    if is_numbered(opened):
        return [_comparable(opened[i]) for i in range(min(count, len(opened)))]
    return list(islice(opened, count))


def _tokens(tokens: Tokens, index: int) -> np.ndarray:
    span = tokens.spans[index]
    return np.memmap(span.file, span.dtype, "r", span.offset, (span.count,))


def _comparable(sample: Any) -> Any:
    """Turn a sample into pixels, strings and numbers, which can be compared."""
    if isinstance(sample, Mapping):
        return {key: _comparable(value) for key, value in sample.items()}
    if isinstance(sample, (list, tuple)):
        return [_comparable(value) for value in sample]
    if isinstance(sample, str | int | float | None):
        return sample
    if hasattr(sample, "tobytes") and hasattr(sample, "size"):
        return str(sample.size), sample.tobytes()
    return pickle.dumps(sample)


def _as_it_is(sample: Any) -> Any:
    return sample


def read_by_workers(opened: Dataset[Any], count: int, method: str, workers: int = 1) -> list[Any]:
    """Read the first samples in processes that are started by a method."""
    numbers = range(min(count, len(opened)))  # type: ignore[arg-type]
    loader: DataLoader[Any] = DataLoader(
        opened,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        collate_fn=_as_it_is,
        multiprocessing_context=method,
        timeout=120,
    )
    with random_state_kept():
        return [_comparable(sample) for sample in loader]


def sample_faults(opened: Any, provides: frozenset[str], count: int) -> list[str]:
    """List what is wrong with the first samples of a split."""
    if isinstance(opened, Images):
        return _image_faults(opened, provides, count)
    if isinstance(opened, Text):
        return _text_faults(opened, count)
    if isinstance(opened, Tokens):
        return _token_faults(opened)
    return []


def _image_faults(images: Images, provides: frozenset[str], count: int) -> list[str]:
    classes, broken = images.classes, images.check()
    faults = []
    if not len(images):
        faults.append("there is no sample")
    if not isinstance(classes, tuple) or not all(map(is_name, classes)):
        faults.append(f"classes is {classes!r}, not a tuple of names")
    if not isinstance(broken, int) or broken < 0:
        faults.append(f"check() returns {broken!r}, not a number of samples")
    for index in range(min(count, len(images))):
        faults += _item_faults(images[index], f"of sample {index}", provides, len(classes))
    return faults[:3]


def left_out_faults(left_out: Any, num_samples: int) -> list[str]:
    """List what is wrong with the count of what is left out of a split."""
    if not isinstance(left_out, LeftOut):
        return [f"left_out is {left_out!r}, no LeftOut"]
    faults = []
    counts = [*left_out.samples.items(), *left_out.parts.items()]
    if not all(
        is_name(reason) and isinstance(count, int) and count > 0 for reason, count in counts
    ):
        faults.append(f"left_out counts {counts}, not reasons by numbers above 0")
    elif num_samples and not max(num_samples, left_out.num_samples) <= left_out.total:
        faults.append(f"left_out.total is {left_out.total}, with {num_samples} samples")
    return faults


def _item_faults(
    sample: Any, where: str, provides: frozenset[str], num_classes: int
) -> Iterator[str]:
    if not isinstance(sample, Mapping) or not {"image", "captions", "label"} <= set(sample):
        yield f"the item {where} is no dict(image=..., captions=..., label=...): {sample!r}"
        return
    image, captions, label = (sample[key] for key in ("image", "captions", "label"))
    if getattr(image, "mode", None) != "RGB":
        yield f"the image {where} is no PIL image in RGB: {image!r}"
    if not isinstance(captions, tuple) or not all(isinstance(c, str) for c in captions):
        yield f"the captions {where} are no tuple of texts: {captions!r}"
    elif "captions" in provides and not captions:
        yield f"the captions {where} are none, and the source provides 'captions'"
    if not isinstance(label, int) or not -1 <= label < num_classes:
        yield f"the label {where} is {label!r}, with {num_classes} classes"


def _text_faults(text: Text, count: int) -> list[str]:
    documents = list(islice(text, count))
    if not all(isinstance(document, str) for document in documents):
        return [f"the documents are no texts: {documents!r}"]
    filled = [document for document in documents if document.strip()]
    if not filled:
        return ["there is no text"]
    pieces = islice(_documents(text.pieces()), len(filled))
    return [] if list(pieces) == filled else ["pieces() do not add up to the documents"]


def _documents(pieces: Iterator[tuple[str, bool]]) -> Iterator[str]:
    """Put pieces together again."""
    parts: list[str] = []
    for text, ends in pieces:
        parts.append(text)
        if ends:
            yield "".join(parts)
            parts = []


def _token_faults(tokens: Tokens) -> list[str]:
    faults = [] if tokens.num_tokens else ["there is no token"]
    for span in tokens.spans:
        kind = np.dtype(span.dtype)
        end = span.offset + span.count * kind.itemsize
        if kind.kind not in "iu":
            faults.append(f"the tokens of '{span.file}' are of type {span.dtype}")
        if isinstance(span.file, Path) and span.file.stat().st_size < end:
            faults.append(f"'{span.file}' ends before byte {end}")
    if tokens.num_bytes is not None and tokens.num_bytes < 1:
        faults.append(f"num_bytes is {tokens.num_bytes}")
    return faults


def contents(paths: Sequence[Path]) -> dict[str, str]:
    """Return the hash of every file of some paths."""
    below = [path for root in paths for path in ([root] if root.is_file() else root.rglob("*"))]
    return {str(path): sha256(path) for path in below if path.is_file()}
