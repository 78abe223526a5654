"""The files of a run: their names, how they are read and compared; and the folder of caches.

Imports nothing heavy.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

from compt.errors import WorkDirError, visible
from compt.shards import weight_files, weights_of
from compt.writing import atomic, not_written

FORMAT = 1
"""Of every JSON file of a run; it rises when an older compt can no longer read one."""

STATE = "chain.json"
STATE_COPY = f".{STATE}"
"""What a resumed run reads where the other is damaged or gone."""
STATUS = "status.json"
LOCK = ".chain.lock"
MANIFEST = "manifest.json"
# Of the names of weights, WEIGHTS, GROWN and PLATEAU may stand for several files: compt/shards.py.
WEIGHTS = "weights.safetensors"
GROWN = "grown.safetensors"
GROWTH = "growth.json"
NEW = "new.safetensors"
OPTIMIZER = "optimizer.safetensors"
GROWN_OPTIMIZER = "grown_optimizer.safetensors"
PLATEAU = "plateau.safetensors"
PLATEAU_OPTIMIZER = "plateau_optimizer.safetensors"
CONFIG = "config.py"
EXPORT = "export"
CARD = "README.md"
CHECKSUM = "checksum"
"""Key of a record."""
OF_ONE_RUN = frozenset(
    (
        *("seconds", "growth_seconds", "evaluation_seconds", "data_seconds", "checkpoint_seconds"),
        *("teacher_seconds", "energy_joules", "memory_bytes", "device_memory_bytes"),
        *("peak_memory_bytes", "peak_device_memory_bytes", "environment", "mode"),
    )
)
"""Keys of records, and of what is in them, whose values differ between runs that come to the same.
A checksum leaves them out."""
CARD_MARK = "<!-- Written by compt, from the manifests of the chain. -->"
"""The line of a model card that tells it from those of others."""
CHECKPOINTS = "checkpoints"
REPLACED = "replaced"
"""Where a run keeps the stages that it has trained anew."""

CACHE_ENVIRONMENT = "COMPT_CACHE_DIR"
"""The variable that moves the folder of what is made once."""
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
"""Of the files of an export that hold weights; the others are text, which people may edit."""

MAX_NAME = 100
"""Longest name of a member: file systems take names of 255 bytes, and files are named after it."""
NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME - 1}}}")
"""Of a member, which is a part of the name of its stage's folder."""

Record = TypeVar("Record")


def stage_name(index: int, member: str) -> str:
    """Return the name of a stage's folder, '02_vit-s' for the second."""
    return f"{index + 1:02d}_{member}"


def individual_dir(chain: Path) -> Path:
    """Return the folder of members trained alone that belongs to a chain's folder."""
    return Path(f"{chain}_individual")


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """Return the folder of what is made once, which may not exist yet.

    It is ``cache_dir``, else that of COMPT_CACHE_DIR, else the user's cache folder.
    """
    from platformdirs import user_cache_dir

    folder = cache_dir or os.environ.get(CACHE_ENVIRONMENT) or user_cache_dir("compt")
    return Path(folder).expanduser().absolute()


def damaged(path: Path, fault: str, do: str) -> WorkDirError:
    """Return the error for a file of a run whose content cannot be used."""
    return WorkDirError(f"'{path.name}' is damaged: {fault}.", where=str(path), do=do)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as JSON, atomically.

    Raises:
        TrainingError: the disk is full or the folder cannot be written; ``path`` is then as it was.
    """
    try:
        with atomic(path) as file:
            file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise not_written(path, error) from error


def read_json(
    path: Path, do: str = "Restore the file from a copy, or use another --work-dir."
) -> dict[str, Any]:
    """Read a JSON file that compt wrote.

    Raises:
        WorkDirError: the file is damaged or of another format; ``do`` is the advice it gives.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WorkDirError(
            f"Cannot read '{path.name}': {error}.", where=str(path), do=do
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        version = content.get("format") if isinstance(content, dict) else "no format at all"
        raise WorkDirError(
            f"'{path.name}' is of format {version}; this compt reads {FORMAT}.",
            where=str(path),
            do=do,
        )
    return content


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with a checksum of what is read back of it, by which a change is seen."""
    return {**content, CHECKSUM: _checksum(json.loads(json.dumps(content)))}


def check_as_written(path: Path, do: str) -> None:
    """Compare a record with its checksum, if it has one.

    Raises:
        WorkDirError: it was changed since, or cannot be read; ``do`` is the advice it gives.
    """
    content = read_json(path, do)
    recorded = content.pop(CHECKSUM, None)
    if recorded is not None and recorded != _checksum(content):
        raise damaged(path, "it is not what was written", do)


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(_of_every_run(content), sort_keys=True).encode()).hexdigest()


def _of_every_run(value: Any) -> Any:
    """Return nested JSON types without what other runs have otherwise."""
    if isinstance(value, dict):
        return {k: _of_every_run(inner) for k, inner in value.items() if k not in OF_ONE_RUN}
    return list(map(_of_every_run, value)) if isinstance(value, list) else value


def read_record(
    path: Path,
    parse: Callable[[dict[str, Any]], Record],
    do: str,
    *,
    exact: Collection[str] = (),
) -> Record:
    """Read a JSON file that compt wrote as what ``parse`` makes of its content.

    Args:
        path: of the file.
        parse: makes a record of its content, whose texts can be shown on a terminal.
        do: the advice that errors give.
        exact: keys whose values are compared, and so stay as they are.

    Raises:
        WorkDirError: the file is damaged or of another format.
    """
    content = read_json(path, do)
    try:
        shown = {
            key: value if key in exact else _visible_texts(value) for key, value in content.items()
        }
        return parse(shown)
    except KeyError as error:
        raise damaged(path, f"{error} is missing", do) from error
    except (TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise damaged(path, str(error), do) from error


def _visible_texts(value: Any) -> Any:
    """Return nested JSON types whose texts hold no control characters."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(key): _visible_texts(inner) for key, inner in value.items()}
    return list(map(_visible_texts, value)) if isinstance(value, list) else value


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def digests(folder: Path, names: Iterable[str], *, texts: bool = False) -> dict[str, str]:
    """Return the SHA-256 of those files that are there, by their path in the folder.

    Args:
        folder: of a stage.
        names: of files, of weights in shards, or of folders.
        texts: whether files of folders that hold no weights count too, but for cards.
    """
    hashes = {}
    for name in names:
        path = folder / name
        if path.is_dir():
            inside = [
                file
                for file in sorted(path.rglob("*"))
                if file.suffix in WEIGHT_SUFFIXES or (texts and file.name != CARD)
            ]
        else:
            inside = weight_files(path)
        for file in filter(Path.is_file, inside):
            hashes[file.relative_to(folder).as_posix()] = sha256(file)
    return hashes


def check_recorded(path: Path) -> None:
    """Compare weights with the hashes that the manifest of their stage has of them.

    Does nothing for files that are of no finished stage, and for texts, which people may edit.

    Args:
        path: a stage's folder, or a file or folder in it, which alone is then compared; of weights
            in shards, all files are.

    Raises:
        WorkDirError: a file is damaged or missing.
    """
    path = path.absolute()
    for folder in (path, *path.parents[:2]):
        if (folder / MANIFEST).is_file():
            break
    else:
        return
    content = read_json(folder / MANIFEST)
    weights = content.get("weights") or {}
    recorded = dict(content.get("files") or {})
    if "file" in weights:
        recorded[weights["file"]] = weights.get("sha256")
    wanted = {
        name: value
        for name, value in recorded.items()
        if _is_within(folder / name, path) and not _is_text(name)
    }
    check_digests(folder, wanted, f"train the stage again with --from-stage {content.get('name')}")


def changed_texts(stage: Path, recorded: Mapping[str, str]) -> list[str]:
    """Return which texts of an export are not those that the stage wrote, by path in its folder.

    Args:
        stage: its folder.
        recorded: the files of its record.
    """
    return [
        name
        for name, digest in recorded.items()
        if _is_text(name) and not _is_same(stage / name, digest)
    ]


def _is_text(name: str) -> bool:
    """Tell texts of an export from weights, by path in the stage's folder."""
    path = PurePosixPath(name)
    is_in_export = path.parts[:1] == (EXPORT,) and not leaves_folder(name)
    return is_in_export and path.suffix not in WEIGHT_SUFFIXES


def _is_same(file: Path, digest: str) -> bool:
    return file.is_file() and sha256(file) == digest


def check_digests(folder: Path, recorded: Mapping[str, str], otherwise: str) -> None:
    """Compare files with their recorded SHA-256.

    Args:
        folder: that the files are in.
        recorded: hashes by path in the folder.
        otherwise: what to do where there is no copy to restore.

    Raises:
        WorkDirError: a file is damaged or missing.
    """
    for name, digest in recorded.items():
        file = folder / name
        if leaves_folder(name):
            raise damaged(
                folder / MANIFEST,
                f"it names the file {name!r}, outside of its folder",
                f"Restore it from a copy, or {otherwise}.",
            )
        fault = "it is missing"
        if file.is_file():
            fault = "" if sha256(file) == digest else "its SHA-256 is not the recorded one"
        if fault:
            raise damaged(file, fault, f"Restore the file from a copy, or {otherwise}.")


def leaves_folder(name: str) -> bool:
    """Return whether a name of a file leads out of the folder that it is to be in."""
    paths = PurePosixPath(name), PureWindowsPath(name)
    return any(path.is_absolute() or path.drive or ".." in path.parts for path in paths)


def _is_within(file: Path, path: Path) -> bool:
    return weights_of(file) == weights_of(path) or path in file.parents
