"""Grow weights that are larger than memory, from files to files, one tensor at a time.

How a tensor goes: its source is read from a memory-mapped file (:mod:`compt.growth.stored`), the
fresh values that it grows into are drawn (:mod:`compt.growth.deferred`), the grower makes it, and
it is written to its place in a file that the library itself has laid out. The bits are those of
:func:`compt.growth.run.grow` on whole models.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from compt.growth.axes import describe
from compt.growth.deferred import DEVICE_OF
from compt.growth.models import build_member
from compt.growth.operators import AxisGrower, tensors_of
from compt.growth.outlines import Looked, Outline, Read, placeholders
from compt.growth.run import build_grower, check_growth, check_value, judged, seeded
from compt.growth.stored import (
    FilledFiles,
    NotStreamed,
    StoredWeights,
    overflown,
    without_values,
)
from compt.interfaces import Architecture, Grower, Growth, Member, Paradigm, accepted
from compt.interfaces.paradigm import MAX_SHARD
from compt.weights import lay_out_weights, not_finite, not_finite_error
from compt.writing import atomic_weights, not_written

STREAM_FROM = 10**9
"""Bytes of a target in float32 from which on it is streamed.

Smaller ones are grown whole, which is quicker, and measured before they are rounded.
"""

Build = Callable[[], nn.Module]
"""Builds a model with fresh weights."""


@dataclass(frozen=True)
class Settings:
    """How a checkpoint is grown."""

    grower: str | Mapping[str, Any]
    seed: int = 0
    dtype: torch.dtype | None = None
    """Number format to write, None for that of the constructor."""
    max_shard_size: int = MAX_SHARD
    stream_from: int = STREAM_FROM
    """Bytes of the target in float32 from which on it is streamed."""


def grow_streamed(
    reader: Paradigm, path: Path, build: Build, folder: Path, settings: Settings
) -> dict[str, Any]:
    """Grow a checkpoint into an empty folder, tensor by tensor, and return the report.

    Args:
        reader: the paradigm, which follows the checkpoint.
        path: folder of the checkpoint.
        build: builds the target with fresh weights.
        folder: to write into.
        settings: how it is grown.

    Raises:
        NotStreamed: it can be grown as a whole only; the folder may then hold anything.
        GrowthError: the pair cannot be grown.
        ConfigError: weights are not finite, or the number format cannot hold them.
        OSError: there is no room for the weights.
    """
    grower = _axis_grower(reader, settings.grower)
    if not reader.streams_weights:
        raise NotStreamed(f"{type(reader).__name__} does not say that it can do with files alone")
    check_large(build, settings.stream_from)
    build_source = partial(build_member, reader, Member(path.name, str(path)), seed=0)
    pair = _Pair.of(grower, build_source, path, build)
    sharding = accepted(reader.export, max_shard_size=settings.max_shard_size)
    _lay_out(pair.target, folder, settings.dtype, partial(reader.export, **sharding))
    files = FilledFiles.within(folder)
    growth = pair.fill(files, settings.seed)
    own = next((param.dtype for param in pair.target.model.parameters()), torch.float32)
    written = settings.dtype or own
    rounded = written if written.itemsize < own.itemsize else None
    growth = pair.judge(growth, files, rounded)
    report = growth.to_dict() | {"dtype": str(written).removeprefix("torch.")}
    # What was measured is what was written.
    return report | ({"rounding_error": growth.error} if rounded else {})


def grow_file(
    paradigm: Paradigm,
    grower: str | Mapping[str, Any] | Grower,
    build_source: Build,
    weights: Path,
    build: Build,
    out: Path,
    *,
    seed: int = 0,
    stream_from: int = STREAM_FROM,
) -> Growth:
    """Grow a model's file of weights into a larger one's, tensor by tensor, and return the report.

    Either may be in shards. The bytes are those of :func:`compt.weights.hand_over_weights` after
    growth in memory.

    Args:
        paradigm: of both models.
        grower: as of :func:`compt.grow`.
        build_source: builds the smaller model.
        weights: its file, or the path that stands for its shards.
        build: builds the target with fresh weights.
        out: path of the weights to write, which are there once they are complete.
        seed: of the grower.
        stream_from: bytes of the target in float32 from which on it is streamed.

    Raises:
        NotStreamed: it can be grown as a whole only.
        GrowthError: the pair cannot be grown.
        ConfigError: weights are not finite.
        TrainingError: there is no room for the weights.
    """
    operator = _axis_grower(paradigm, grower)
    check_large(build, stream_from)
    pair = _Pair.of(operator, build_source, weights, build)
    try:
        with atomic_weights(out) as folder:
            _lay_out(pair.target, folder / out.name, None, lay_out_weights)
            files = FilledFiles.within(folder)
            growth = pair.fill(files, seed)
            growth = pair.judge(growth, files)
    except (OSError, safetensors.SafetensorError) as error:
        raise not_written(out, error) from error
    return growth


def check_large(build: Build, stream_from: int) -> None:
    """Raise NotStreamed for a model that is small enough to be grown as a whole."""
    try:
        with torch.device("meta"):
            tensors = tensors_of(build())
    except Exception as error:  # to build it whole says what is wrong
        raise NotStreamed(f"it cannot be built on the meta device: {error}") from error
    if sum(tensor.nbytes for tensor in tensors.values()) < stream_from:
        raise NotStreamed("")


def _axis_grower(paradigm: Paradigm, grower: str | Mapping[str, Any] | Grower) -> AxisGrower:
    """Return the grower, if it and the paradigm can do with a tensor at a time."""
    operator = build_grower(grower)
    if not isinstance(operator, AxisGrower) or type(operator).grow is not AxisGrower.grow:
        raise NotStreamed(f"the grower {type(operator).__name__} works on whole models")
    if type(paradigm).after_growth is not Paradigm.after_growth:
        raise NotStreamed(f"{type(paradigm).__name__} sets what must not be inherited")
    return operator


@dataclass(frozen=True)
class _Pair:
    """Two models without their large tensors, of which one grows into the other."""

    grower: AxisGrower
    source: Outline
    target: Outline
    archs: tuple[Architecture, Architecture]
    read_source: Mapping[int, Read]
    """Read the source's tensors from files, by their ids."""

    @classmethod
    def of(cls, grower: AxisGrower, build_source: Build, path: Path, build: Build) -> _Pair:
        """Build both, and check what can be known before anything is written.

        Args:
            grower: for both.
            build_source: builds the smaller model.
            path: its weights, a file or a folder.
            build: builds the larger model.
        """
        stored = StoredWeights(path)
        source = Outline.without_weights(build_source)
        read_source = source.readers(stored)
        target = Outline.of(build)
        archs = describe(source.model), describe(target.model)
        grower.check(*archs)
        _check_finite(source, read_source, path)
        return cls(grower, source, target, archs, read_source)

    def fill(self, files: FilledFiles, seed: int) -> Growth:
        """Grow every tensor into its place in the files, and return the report."""
        names, tensors = self.target.names_in(files.shapes), self.target.tensors
        label, value_of = type(self.grower).__name__, self.target.deferral.value

        def put(name: str, value: Tensor) -> None:
            tensor = tensors[name]
            if id(tensor) not in names:  # no checkpoint holds it
                tensor.copy_(value)
                return
            key = names[id(tensor)]
            files.fill(key, _rounded(name, value, files.entries[key].dtype))

        def take(name: str, value: Tensor) -> None:
            check_value(name, value, label)
            put(name, value)

        def read(tensor: Tensor) -> Tensor:
            reader = self.read_source.get(id(tensor))
            return tensor if reader is None else reader()

        with seeded(seed) as generator:
            growth = self.grower.grow_tensors(
                Looked(self.source.tensors, read),
                Looked(tensors, value_of),
                source_arch=self.archs[0],
                target_arch=self.archs[1],
                generator=generator,
                take=take,
            )
            for name, tensor in tensors.items():
                if names.get(id(tensor)) in files.missing:  # nothing grows into it
                    put(name, value_of(tensor).detach())
        files.finish()
        check_growth(growth, self.target.model, self.archs[1], label)
        return growth

    def judge(self, growth: Growth, files: FilledFiles, dtype: torch.dtype | None = None) -> Growth:
        """Return the report with its claim measured on what the files hold.

        Args:
            growth: the report.
            files: of the target.
            dtype: number format that its weights are rounded to, None for their own.
        """
        readers = self.target.readers(StoredWeights.of(files))
        with torch.no_grad(), _Filling({**self.read_source, **readers}):
            return judged(growth, self.source.model, self.target.model, self.archs, dtype=dtype)


def _check_finite(source: Outline, read: Mapping[int, Read], path: Path) -> None:
    """Raise ConfigError where a parameter of the source is not finite."""
    params = dict(source.model.named_parameters())
    names = [name for name, param in params.items() if not_finite({name: read[id(param)]()})]
    if names:
        raise not_finite_error(path, names)


def _rounded(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a value in a number format, which must hold it."""
    if value.is_floating_point() and value.numel():
        # As rounding keeps the order, all are finite where the extremes are.
        extremes = torch.stack(torch.aminmax(value)).to(dtype)
        if not_finite({name: extremes}):
            raise overflown(str(dtype).removeprefix("torch."), [name])
    return value.to(dtype)


def _lay_out(
    target: Outline, path: Path, dtype: torch.dtype | None, write: Callable[[nn.Module, Path], Any]
) -> None:
    """Let a library write all of a model but the values of its tensors.

    It gets memory that was never touched, which takes none, and writes no values. So all room on
    the disk is taken before the first tensor is grown.

    Args:
        target: the model.
        path: for ``write``.
        dtype: number format to write, None for the model's own.
        write: writes a model to the path.
    """
    with placeholders(target.model, dtype) as num_bytes, without_values():
        free = shutil.disk_usage(path.parent).free
        if num_bytes > free:
            words = f"the weights take {num_bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
            raise OSError(errno.ENOSPC, words)
        write(target.model, path)


# The measurement


class _Filling(TorchFunctionMode):
    """Read tensors from files wherever a function of torch gets them.

    So a model runs whose weights are nowhere in memory, but for those of the layer that runs.

    Args:
        readers: of the tensors, by their ids.
    """

    def __init__(self, readers: Mapping[int, Read]) -> None:
        super().__init__()
        self.readers = readers

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a function of torch with the tensors that its arguments stand for."""
        options = kwargs or {}
        if func == DEVICE_OF and id(args[0]) in self.readers:
            return torch.device("cpu")
        name = getattr(func, "__name__", "")
        if name in SHAPES or (name == "__get__" and func not in VIEWS):
            return func(*args, **options)
        return func(*tree_map(self._filled, args), **tree_map(self._filled, options))

    def _filled(self, value: Any) -> Any:
        return self.readers[id(value)]() if id(value) in self.readers else value


VIEWS = tuple(getattr(Tensor, name).__get__ for name in ("T", "mT", "H", "mH", "data", "real"))
"""Attributes that are tensors of the same values."""
SHAPES = frozenset({"size", "dim", "numel", "stride", "is_floating_point", "is_complex", "type"})
"""Methods whose results do not depend on values."""
