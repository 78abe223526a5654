"""Read what came with a checkpoint or data set, as data and never as a program.

Whoever made such a file decides what is in it: how long and how deep it is, which files it names,
and what it asks to be imported. Whatever reads one goes through here; weights are read by
:mod:`compt.weights`. ``SECURITY.md`` says what is promised.
"""

from __future__ import annotations

import ast
import json
import stat
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from compt.errors import ConfigError, DataError
from compt.files import leaves_folder

MOST_TEXT = 2**28
"""Bytes of a file that is read whole: the largest tokenizers and indexes have a tenth of it."""
MOST_LINE = 2**26
"""Characters of a line of a table or of JSON lines: more is no row, but what fills the memory."""


def check_regular(path: Path, most: int = MOST_TEXT) -> None:
    """Raise OSError or ValueError for what cannot be read whole.

    A device has no end, and a pipe waits for somebody who writes.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no regular file")
    if status.st_size > most:
        raise ValueError(f"it has {status.st_size / 1e6:.0f} MB, above {most / 1e6:.0f} MB")


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: it is not UTF-8, or larger than ``MOST_TEXT``.
    """
    check_regular(path)
    return path.read_text(encoding="utf-8")


def parse_json(text: str | bytes) -> Any:
    """Return what JSON says.

    Raises:
        ValueError: it is no JSON, or nested deeper than Python can follow.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    except UnicodeDecodeError as error:
        raise ValueError("it is no text in UTF-8") from error


def read_json(path: Path) -> Any:
    """Return what a file of JSON says.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: it is no JSON in UTF-8, nested too deep, or larger than ``MOST_TEXT``.
    """
    return parse_json(read_text(path))


def lines(file: TextIO, where: Path | str) -> Iterator[str]:
    """Yield the lines of an open file of text.

    Raises:
        DataError: one is longer than ``MOST_LINE``, as in a small archive that unpacks to a large
            one.
    """
    for number, line in enumerate(iter(lambda: file.readline(MOST_LINE), ""), 1):
        if len(line) == MOST_LINE:
            raise DataError(
                f"The line has {MOST_LINE:,} characters or more, which is no row.",
                where=f"{where}, line {number}",
                do="Write each row on a line of its own.",
            )
        yield line


def assignments(text: str) -> dict[str, ast.expr]:
    """Return the expressions that a Python file assigns to names, without running it.

    Raises:
        ValueError: it is no Python, or nested too deep.
    """
    return dict(named for step in _steps(text) if (named := _assignment(step)))


def _steps(text: str) -> list[ast.stmt]:
    try:
        return ast.parse(text).body
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"it is no Python: {error}") from error


def _assignment(step: ast.stmt) -> tuple[str, ast.expr] | None:
    """Return the name and the expression of an assignment, None for any other statement."""
    if not isinstance(step, ast.Assign) or not isinstance(step.targets[0], ast.Name):
        return None
    return step.targets[0].id, step.value


def literal(node: ast.expr) -> Any:
    """Return the value of an expression of literals and ``dict(...)``.

    Raises:
        ValueError: there is more to it.
    """
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        merged: dict[str, Any] = {}
        for argument in node.args:
            merged.update(literal(argument))
        merged.update({str(keyword.arg): literal(keyword.value) for keyword in node.keywords})
        return merged
    if isinstance(node, ast.Dict):
        items = zip(node.keys, node.values, strict=True)
        return {literal(key): literal(value) for key, value in items if key is not None}
    if isinstance(node, (ast.List, ast.Tuple)):
        values = [literal(value) for value in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    return ast.literal_eval(node)


def read_literals(path: Path) -> dict[str, Any]:
    """Return the values of a Python file of nothing but literals, as compt writes beside weights.

    Raises:
        ConfigError: it cannot be read, or there is more to it, which would have to be run.
    """
    try:
        steps = _steps(read_text(path))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The config cannot be read: {error}.",
            where=str(path),
            do="Give a folder that compt exported, complete.",
        ) from error
    values: dict[str, Any] = {}
    for step in steps:
        try:
            name, node = _assignment(step) or ("", ast.Name(""))
            values[name] = literal(node)
        except (ValueError, TypeError, RecursionError) as error:
            raise ConfigError(
                "The config is more than literals, and nothing that lies beside weights is run.",
                where=f"{path}, line {step.lineno}",
                do="Give a folder that compt exported. Where you trust the file, name it in a "
                "config of your own, as _base_ or as a member's model.",
            ) from error
    return values


def tar_members(tar: tarfile.TarFile, size: int) -> Iterator[tarfile.TarInfo]:
    """Yield the members of an archive, of which nothing is kept.

    Args:
        tar: opened without compression.
        size: of the archive, in bytes.

    Raises:
        OSError, tarfile.TarError: it cannot be read. Also where a member does not lie between the
            one before it and the end: with a size below 0, Python's reader goes round for ever.
    """
    last_offset = -1
    while (member := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # or it keeps them all in memory
        is_within = 0 <= member.size <= size - member.offset_data
        if member.isreg() and not is_within:
            raise tarfile.ReadError(f"'{member.name}' has {member.size} bytes, beyond its end")
        if member.offset <= last_offset or member.size < 0:
            raise tarfile.ReadError(f"'{member.name}' lies before the member that it follows")
        last_offset = member.offset
        yield member


def mappings(content: Any) -> Iterator[Mapping[str, Any]]:
    """Yield all mappings in nested mappings and lists, the outer ones first."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            yield value
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value


def file_in(folder: Path, name: Any, where: Path | str) -> Path:
    """Return the path of a file that another file names, in a folder or below it.

    Raises:
        ConfigError: it is no name of a file there: '/etc/passwd', '../x', a number.
    """
    text = name if isinstance(name, str) else ""
    if not text or "\0" in text or leaves_folder(text):
        raise ConfigError(
            f"It names the file {name!r}, which is outside of its folder.",
            where=str(where),
            do="Put all files into the folder, and name them by their names alone.",
        )
    return folder / text


def shard_files(index: Path) -> list[Path]:
    """Return the files of weights that an index of shards names, each once.

    Raises:
        OSError, ValueError: it cannot be read, or is no such index.
        ConfigError: it names a file outside of its folder.
    """
    content = read_json(index)
    names = content.get("weight_map") if isinstance(content, Mapping) else None
    if not isinstance(names, Mapping):
        raise ValueError("it has no weight_map")
    return [file_in(index.parent, name, index) for name in sorted(set(map(str, names.values())))]
