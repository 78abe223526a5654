"""Read what checkpoints hold beside the weights, carry it over, and name what stays behind."""

from __future__ import annotations

import shutil
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from compt.errors import ConfigError, some
from compt.files import CARD, CARD_MARK
from compt.shards import tensor_files
from compt.weights import read_state

WEIGHT_PATTERNS = (
    "*.safetensors",
    "*.safetensors.index.json",
    "*.bin",
    "*.bin.index.json",
    "*.pt",
    "*.pth",
    "*.ckpt",
    "*.h5",
    "*.msgpack",
)
"""Files that hold weights or what a trainer remembers, which the new weights take the place of."""
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""Number formats of weights by safetensors' names."""


def most_used_dtype(state: Mapping[str, Any]) -> torch.dtype | None:
    """Return the number format of most values in a state dict, None where it has no floats."""
    return _most(_counted(state))


def dtype_in_files(paths: Iterable[Path]) -> torch.dtype | None:
    """Return the number format of most values in files of weights, without those of safetensors.

    Of safetensors only the headers are read. None where a file cannot be read: loading it says why.
    """
    values: Counter[torch.dtype] = Counter()
    for path in chain.from_iterable(map(tensor_files, paths)):
        try:
            is_header = path.suffix == ".safetensors"
            values.update(_header(path) if is_header else _counted(read_state(path)))
        except Exception:  # safetensors and torch each have their own
            return None
    return _most(values)


def _header(path: Path) -> Counter[torch.dtype]:
    values: Counter[torch.dtype] = Counter()
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 (it is no dict)
            tensor = file.get_slice(name)
            if tensor.get_dtype() in _DTYPES:
                shape = torch.Size(tensor.get_shape())
                values[_DTYPES[tensor.get_dtype()]] += shape.numel()
    return values


def _counted(state: Mapping[str, Any]) -> Counter[torch.dtype]:
    values: Counter[torch.dtype] = Counter()
    for tensor in state.values():
        if isinstance(tensor, Tensor) and tensor.is_floating_point():
            values[tensor.dtype] += tensor.numel()
    return values


def _most(values: Counter[torch.dtype]) -> torch.dtype | None:
    return values.most_common(1)[0][0] if values else None


def refuse_torchscript(path: Path) -> None:
    """Raise ConfigError where a file is an archive of TorchScript, as OpenAI's CLIP is published.

    It holds a program, and reading it runs that.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        names = {name.partition("/")[2] for name in archive.namelist()}
    if "constants.pkl" in names:
        raise ConfigError(
            f"'{path}' is an archive of TorchScript: a program, and no weights alone.",
            do="Save its weights: torch.save(torch.jit.load(path).state_dict(), 'weights.pt').",
        )


def copy_files(source: Path, folder: Path, patterns: Sequence[str]) -> list[str]:
    """Copy the files and folders of a checkpoint that match, and return their names.

    Of links to files, which the Hub's cache is made of, the files are copied.
    """
    names = matching(source, patterns)
    for name in names:
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / name, ignore=_not_copied, dirs_exist_ok=True)
        else:
            shutil.copyfile(source / name, folder / name)
    return names


def matching(source: Path, patterns: Sequence[str]) -> list[str]:
    """Return the names in a checkpoint's folder that match, none where it is no folder.

    What is neither a file nor a folder in it, such as a link to a device or to another folder, does
    not count.
    """
    if not source.is_dir():
        return []
    paths = {path for pattern in patterns for path in source.glob(pattern)}
    return sorted(path.name for path in paths if _is_own(path))


def _is_own(path: Path) -> bool:
    """Tell whether a path is a file, a link to one, or a folder that lies where it seems to lie.

    A link to a folder may lead anywhere, and a whole disk could be copied through it.
    """
    return path.is_file() or (path.is_dir() and not path.is_symlink())


def _not_copied(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not _is_own(Path(folder, name))]


def left_behind(source: Path, carried: Sequence[str]) -> list[str]:
    """Say which files of a checkpoint's folder an export does not hold."""
    if not source.is_dir():
        return []
    known = {*matching(source, carried), *matching(source, WEIGHT_PATTERNS)}
    others = [p.name for p in sorted(source.iterdir()) if p.name not in known and not _is_card(p)]
    names = [name for name in others if not name.startswith(".")]
    if not names:
        return []
    count = "1 file" if len(names) == 1 else f"{len(names)} files"
    return [f"{count} of '{source}' not carried over: {some(names)}."]


def _is_card(path: Path) -> bool:
    """Return whether a file is a model card of compt's, in whose place a new one is written."""
    if path.name != CARD:
        return False
    try:
        return CARD_MARK in path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


def said_otherwise(
    owner: str, own: Mapping[str, Any], other: str, theirs: Mapping[str, Any]
) -> list[str]:
    """Name the keys that two sides say otherwise, with both values.

    The owner's are those that are used.
    """
    return [
        f"{owner} has {key}={own[key]!r}, {other} {theirs[key]!r}; {own[key]!r} is used."
        for key in sorted(own.keys() & theirs.keys())
        if plain(own[key]) != plain(theirs[key])
    ]


def plain(value: Any) -> Any:
    """Return a value in which tuples and lists are alike."""
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value
