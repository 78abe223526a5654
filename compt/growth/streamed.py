"""Grow a checkpoint that is larger than memory, from files to files, one tensor at a time.

How a tensor goes: its source is read from a memory-mapped file (:mod:`compt.growth.stored`), the
fresh values that it grows into are drawn (:mod:`compt.growth.deferred`), the grower makes it, and
it is written to its place in a file that the library itself has laid out. The bits are those of
:func:`compt.growth.run.grow` on whole models.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from compt.errors import WorkDirError
from compt.growth.axes import describe
from compt.growth.deferred import DEVICE_OF
from compt.growth.models import build_member
from compt.growth.operators import AxisGrower, tensors_of
from compt.growth.outlines import Looked, Outline, Read, placeholders
from compt.growth.run import build_grower, check_growth, check_value, judged, seeded
from compt.growth.stored import FilledFiles, NotStreamed, StoredWeights, overflown
from compt.interfaces import Architecture, Growth, Member, Paradigm, accepted
from compt.interfaces.paradigm import MAX_SHARD
from compt.weights import not_finite, not_finite_error

STREAM_FROM = 10**9
"""Bytes of a target in float32 from which on it is streamed.

Smaller ones are grown whole, which is quicker, and measured before they are rounded.
"""


@dataclass(frozen=True)
class Settings:
    """How a checkpoint is grown."""

    grower: str
    seed: int = 0
    dtype: torch.dtype | None = None
    """Number format to write, None for that of the constructor."""
    max_shard_size: int = MAX_SHARD
    stream_from: int = STREAM_FROM
    """Bytes of the target in float32 from which on it is streamed."""


def grow_streamed(
    reader: Paradigm,
    path: Path,
    build: Callable[[], nn.Module],
    folder: Path,
    settings: Settings,
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
        WorkDirError: there is no room for the weights.
    """
    grower = _axis_grower(reader, settings.grower)
    _check_size(build, settings)
    stored = StoredWeights(path)
    member = Member(path.name, str(path))
    source = Outline.of(lambda: build_member(reader, member, seed=0), draws=False)
    read_source = source.readers(stored)
    target = Outline.of(build, draws=True)
    archs = describe(source.model), describe(target.model)
    grower.check(*archs)
    _check_finite(source, read_source, path)
    files = _laid_out(reader, target, folder, settings)
    growth = _fill(grower, source, target, archs, read_source, files, settings)
    own = next((param.dtype for param in target.model.parameters()), torch.float32)
    written = settings.dtype or own
    rounded = written if written.itemsize < own.itemsize else None
    with torch.no_grad(), _Filling(read_source | target.readers(StoredWeights.of(files))):
        growth = judged(growth, source.model, target.model, archs, dtype=rounded)
    report = growth.to_dict() | {"dtype": str(written).removeprefix("torch.")}
    # What was measured is what was written.
    return report | ({"rounding_error": growth.error} if rounded else {})


def _axis_grower(reader: Paradigm, name: str) -> AxisGrower:
    """Return the grower, if it and the paradigm can do with a tensor at a time."""
    grower = build_grower(name)
    if not isinstance(grower, AxisGrower) or type(grower).grow is not AxisGrower.grow:
        raise NotStreamed(f"the grower {type(grower).__name__} works on whole models")
    if not reader.streams_weights:
        raise NotStreamed(f"{type(reader).__name__} does not say that it can do with files alone")
    if type(reader).after_growth is not Paradigm.after_growth:
        raise NotStreamed(f"{type(reader).__name__} sets what must not be inherited")
    return grower


def _check_size(build: Callable[[], nn.Module], settings: Settings) -> None:
    """Raise NotStreamed for a model that is small enough to be grown as a whole."""
    try:
        with torch.device("meta"):
            tensors = tensors_of(build())
    except Exception as error:  # to build it whole says what is wrong
        raise NotStreamed(f"it cannot be built on the meta device: {error}") from error
    if sum(tensor.nbytes for tensor in tensors.values()) < settings.stream_from:
        raise NotStreamed("")


def _check_finite(source: Outline, read: Mapping[int, Read], path: Path) -> None:
    """Raise ConfigError where a parameter of the source is not finite."""
    params = dict(source.model.named_parameters())
    names = [name for name, param in params.items() if not_finite({name: read[id(param)]()})]
    if names:
        raise not_finite_error(path, names)


def _fill(
    grower: AxisGrower,
    source: Outline,
    target: Outline,
    archs: tuple[Architecture, Architecture],
    read_source: Mapping[int, Read],
    files: FilledFiles,
    settings: Settings,
) -> Growth:
    """Grow every tensor into its place in the files, and return the report."""
    names, tensors, label = target.names_in(files.shapes), target.tensors, type(grower).__name__

    def put(tensor: Tensor, name: str, value: Tensor) -> None:
        if id(tensor) not in names:  # no checkpoint holds it
            tensor.copy_(value)
            return
        key = names[id(tensor)]
        rounded = value.to(files.entries[key].dtype)
        if not_finite({name: rounded}):
            raise overflown(str(rounded.dtype).removeprefix("torch."), [name])
        files.fill(key, rounded)

    def take(name: str, value: Tensor) -> None:
        check_value(name, value, label)
        put(tensors[name], name, value)

    def read(tensor: Tensor) -> Tensor:
        return read_source[id(tensor)]() if id(tensor) in read_source else tensor

    with seeded(settings.seed) as generator:
        growth = grower.grow_tensors(
            Looked(source.tensors, read),
            Looked(tensors, target.deferral.value),
            source_arch=archs[0],
            target_arch=archs[1],
            generator=generator,
            take=take,
        )
        for name, tensor in tensors.items():
            if names.get(id(tensor)) in files.missing:  # nothing grows into it
                put(tensor, name, target.deferral.value(tensor).detach())
    files.finish()
    check_growth(growth, target.model, archs[1], label)
    return growth


# The files


def _laid_out(reader: Paradigm, target: Outline, folder: Path, settings: Settings) -> FilledFiles:
    """Let the library write all of an export but the values of its tensors.

    It writes memory that was never touched, which takes none: the system reads it as zeros. So all
    room on the disk is taken before the first tensor is grown.
    """
    sharding = accepted(reader.export, max_shard_size=settings.max_shard_size)
    with placeholders(target.model, settings.dtype) as num_bytes:
        free = shutil.disk_usage(folder).free
        if num_bytes > free:
            raise WorkDirError(
                f"The grown weights take {num_bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free.",
                where=str(folder.parent),
                do="Make room, or choose another place with -o.",
            )
        reader.export(target.model, folder, **sharding)
    files = FilledFiles(folder)
    target.names_in(files.shapes)
    return files


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
