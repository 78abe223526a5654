"""Grow one checkpoint in a paradigm's own format to a larger one, outside any chain.

This is what ``compt grow`` does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compt.errors import ComptError, ConfigError, did_you_mean
from compt.files import EXPORT, MANIFEST, check_recorded
from compt.growth.inherited import finish_growth
from compt.growth.measure import output_error
from compt.growth.models import build_member
from compt.growth.output import peak_memory, why_whole
from compt.growth.run import DEFAULT_GROWER, grow
from compt.growth.stored import NotStreamed, overflown
from compt.growth.streamed import STREAM_FROM, Settings, grow_streamed
from compt.interfaces import Member, Paradigm, accepted
from compt.interfaces.paradigm import MAX_SHARD
from compt.registry import PARADIGMS
from compt.registry.registry import short_name
from compt.weights import not_finite, not_finite_error
from compt.writing import atomic_folder, check_output

DTYPES = ("float32", "bfloat16", "float16", "float64")
"""Number formats that weights are kept in."""
SHORT_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "fp64": "float64"}
"""Other names of theirs."""


def grow_checkpoint(
    source: Path,
    target: str,
    out: Path,
    *,
    grower: str | Mapping[str, Any] = DEFAULT_GROWER,
    paradigm: str | None = None,
    source_model: str | None = None,
    seed: int = 0,
    dtype: str | None = None,
    max_shard_size: int = MAX_SHARD,
    stream_from: int = STREAM_FROM,
) -> dict[str, Any]:
    """Grow the model in ``source`` to ``target`` and write it to ``out``, in the same format.

    A large model is grown tensor by tensor, from file to file, where its paradigm and the grower
    can. What is written is the same, bit for bit.

    Args:
        source: a folder or file that a paradigm reads, or the folder of a finished stage.
        target: JSON file of a model config, folder with one, or a name the paradigm knows.
        out: folder to write; must not exist or be empty.
        grower: registered name, or config dict.
        paradigm: registered name; by default the first installed one that recognises the source.
        source_model: the model of the source, given like ``target``, where it is weights alone.
        seed: of fresh weights and of the grower.
        dtype: number format of the weights to write; by default the source's. Growing itself is
            done in float32.
        max_shard_size: bytes of a file of weights, where the library loads several.
        stream_from: bytes that the grown model has in float32 from which on it is streamed.

    Returns:
        The report of the growth with the grower's short name, ``dtype``, ``out``, ``notes`` (what
        of the source is said otherwise or not carried over), ``streamed``, ``whole`` (why a large
        model was not) and ``peak_memory`` of this process in bytes, as JSON types.

    Raises:
        ComptError: nothing reads the source, the pair cannot be grown, or ``out`` is not empty.
    """
    check_output(out)
    if not source.exists():
        raise ConfigError(f"There is no checkpoint '{source}'.", do="Check --from.")
    number_format = named_dtype(dtype)
    checkpoint = source / EXPORT if (source / MANIFEST).is_file() else source
    check_recorded(checkpoint)
    number_format = number_format or reading_paradigm(checkpoint, paradigm).weight_dtype(checkpoint)
    settings = Settings(grower, seed, number_format, max_shard_size, stream_from)
    report = _grow(checkpoint, target, out, paradigm, source_model, settings)
    name = short_name(grower if isinstance(grower, str) else grower["type"])
    return {"grower": name, **report, "out": str(out), "peak_memory": peak_memory()}


def _grow(
    checkpoint: Path,
    target: str,
    out: Path,
    paradigm: str | None,
    source_model: str | None,
    settings: Settings,
) -> dict[str, Any]:
    """Grow from file to file where that can be, else in memory, and return the report."""
    whole = ""
    try:
        if source_model is not None:
            raise NotStreamed("the source is weights alone")
        reader = _following(checkpoint, paradigm)
        build = partial(_build, reader, target, "--to", settings.seed)
        with atomic_folder(out) as folder:
            report = grow_streamed(reader, checkpoint, build, folder, settings)
        streamed = True
    except NotStreamed as error:
        streamed, reader = False, _following(checkpoint, paradigm)
        small = _source(reader, checkpoint, source_model, settings.seed)
        large = _build(reader, target, "--to", settings.seed)
        whole = why_whole(large, error, settings.stream_from)
        report = _grow_whole(reader, small, large, out, settings)
    return {**report, "notes": list(reader.notes), "streamed": streamed, "whole": whole}


def _grow_whole(
    reader: Paradigm, small: nn.Module, large: nn.Module, out: Path, settings: Settings
) -> dict[str, Any]:
    """Grow a model in memory, write it, and return the report."""
    seed = settings.seed
    growth = grow(small, large, settings.grower, seed=seed)
    growth, reset = finish_growth(reader, small, large, growth, seed=seed)
    report = growth.to_dict() | ({"reset": list(reset)} if reset else {})
    report |= rounded(small, large, settings.dtype)
    with atomic_folder(out) as folder:
        sharding = accepted(reader.export, max_shard_size=settings.max_shard_size)
        reader.export(large, folder, **sharding)
    return report


def _following(path: Path, paradigm: str | None) -> Paradigm:
    """Return a paradigm that reads a checkpoint and has taken over what it says."""
    reader = reading_paradigm(path, paradigm)
    with _as_config_error(f"'{path}' cannot be followed", do="Check --from."):
        reader.follow(path)
    return reader


def _source(reader: Paradigm, path: Path, model: str | None, seed: int) -> nn.Module:
    """Load a checkpoint's model, or fill the one that is named."""
    if model is None:
        small = _load(reader, path)
    else:
        small = _build(reader, model, "--source-model", seed)
        reader.load_weights(small, path)
    if poisoned := not_finite(dict(small.named_parameters())):
        raise not_finite_error(path, poisoned)
    return small


def named_dtype(name: str | None) -> torch.dtype | None:
    """Return the number format of a name.

    Raises:
        ConfigError: it is none that weights are kept in.
    """
    name = None if name is None else SHORT_DTYPES.get(name, name)
    if name is not None and name not in DTYPES:
        raise ConfigError(
            f"No number format '{name}'.{did_you_mean(name, DTYPES)}",
            do=f"--dtype is one of {', '.join(DTYPES)}.",
        )
    return None if name is None else getattr(torch, name)


def rounded(small: nn.Module, large: nn.Module, dtype: torch.dtype | None) -> dict[str, Any]:
    """Bring a model to a number format, and report the format and what rounding changed.

    Args:
        small: computes what the model does before it is rounded, in its own format.
        large: the model, which is changed.
        dtype: the format; None for the model's own.
    """
    own = next((param.dtype for param in large.parameters()), torch.float32)
    stored = dtype or own
    content: dict[str, Any] = {"dtype": str(stored).removeprefix("torch.")}
    if stored == own:
        return content
    large.to(stored)
    if names := not_finite(dict(large.named_parameters())):
        raise overflown(content["dtype"], names)
    if stored.itemsize < own.itemsize:
        content["rounding_error"] = output_error(small, deepcopy(large).to(own))
    return content


@contextmanager
def _as_config_error(what: str, do: str) -> Iterator[None]:
    """Say what could not be done with a file, whatever a paradigm's library raises over it."""
    try:
        yield
    except ComptError:
        raise
    except Exception as error:
        raise ConfigError(f"{what}: {type(error).__name__}: {error}", do=do) from error


def _load(paradigm: Paradigm, path: Path) -> nn.Module:
    """Load the source's model, with a hint where the file may hold weights alone."""
    try:
        with _as_config_error(f"The checkpoint '{path}' cannot be loaded", do="Check --from."):
            return paradigm.load(path)
    except ComptError as error:
        if paradigm.recognises(path):
            raise
        do = "If it holds weights alone, name the model that they are of with --source-model."
        raise ConfigError(error.what, where=error.where, do=do) from error


def _build(paradigm: Paradigm, model: str, option: str, seed: int) -> nn.Module:
    """Build the model that an option of the command line names, with fresh weights."""
    with _as_config_error(f"The model '{model}' cannot be built", do=f"Check {option}."):
        member = Member(Path(model).stem, _model_config(model, option))
        return build_member(paradigm, member, seed=seed)


def reading_paradigm(path: Path, name: str | None) -> Paradigm:
    """Return the paradigm of a name, or the first installed one that recognises a path."""
    if name is not None:
        named: Paradigm = PARADIGMS.build({"type": name})
        return named
    for paradigm in _installed():
        if paradigm.recognises(path):
            return paradigm
    raise ConfigError(
        f"No installed paradigm recognises '{path}'.",
        do="Name the one that reads it with --paradigm, and for a file of weights alone also "
        '--source-model; or install it: pip install "compt[all]".',
    )


def _installed() -> Iterator[Paradigm]:
    """Yield every paradigm that can be built without arguments.

    Those that cannot be loaded are passed over, as one that is broken must not stand in
    the way of another that reads the file.
    """
    for name in PARADIGMS.names():
        try:
            yield PARADIGMS.build({"type": name})
        except ComptError:
            continue


def _model_config(model: str, option: str) -> Any:
    """Return the content of a JSON file, else the name or folder itself, as the paradigm reads it.

    Raises:
        ConfigError: the file cannot be read, or holds no JSON object.
    """
    path = Path(model)
    if path.suffix != ".json":
        return model
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"Cannot read the model config '{path}': {error}.", do=f"Check {option}."
        ) from error
    return content
