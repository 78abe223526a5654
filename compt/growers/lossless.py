"""Grow a model so that it computes the same function.

It does so at any width and depth wherever norms only read the residual stream. Shapes:
S units of a smaller axis, T of the larger.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from copy import copy
from typing import Annotated, Literal

import torch
from torch import Tensor

from compt.errors import ConfigError
from compt.growers._new_blocks import adding_nothing
from compt.growers._noise import NoiseScale, noise_factor
from compt.growers._norms import copied_axes, norm_reasons, scale_reasons
from compt.growers._streams import StreamMap, stream_map, through_scale
from compt.growers._ties import tie_reasons
from compt.growth.operators import AxisGrower, ParamPair, reads_for_table
from compt.interfaces import Architecture
from compt.registry import Range

Maps = dict[str, StreamMap | Tensor]
"""A StreamMap for each stream, an isometry [T, S] for each output, by axis."""


class Lossless(AxisGrower):
    """Grow width and depth so that the larger model computes the same function.

    Residual streams become scaled copies plus pads
    (:class:`~compt.growers._streams.StreamMap`); their readers split each column over
    the copies, unevenly, so that copies learn different things. New hidden units and
    heads start as the target's own initialisation with zero weight on what they write;
    those that a norm spans are copies like a stream's, at whole multiples.
    New blocks are copies of their predecessor that write nothing yet. Feature widths
    that leave the model grow by a random isometry, which keeps lengths and dot
    products. A head tied to an embedding grows as the embedding does; the norm that the
    layout names as all it reads makes up for the copies.

    Exact at any width where norms only read a stream. A norm that writes one
    (open_clip's ``ln_pre``) cannot give its pads the mean of its own output: exact at
    whole multiples, otherwise close, and ``Growth.function_preserving`` says so.

    Source: LEMON, arXiv 2310.07999 (copies, mean pads, uneven split); HyperCloning,
    arXiv 2409.12903 (noise).
    Differs: the stream is rescaled instead of the epsilon, so exports need no changed
    constant.

    Args:
        noise: of the split between copies, in units of ``noise_scale``; 0 leaves copies
            equal for ever.
        noise_scale: 'shares', their rms; 'mup', that of weights at the larger width, as of
            :class:`~compt.growers.clone.Clone`.
        fill: what is free to choose: rows of new units and heads, and columns that read
            pads. 'init' takes the target's own initialisation, 'copy' tiles the
            source's.
        blocks: what new blocks are, apart from what they write, which is 0: 'copy' of
            their predecessor, or 'fresh'.
    """

    function_preserving = True

    def __init__(
        self,
        *,
        noise: Annotated[float, Range(minimum=0)] = 1.0,
        noise_scale: NoiseScale = "shares",
        fill: Literal["init", "copy"] = "init",
        blocks: Literal["copy", "fresh"] = "copy",
    ) -> None:
        for key, value, known in (
            ("fill", fill, ("init", "copy")),
            ("blocks", blocks, ("copy", "fresh")),
        ):
            if value not in known:
                raise ConfigError(
                    f"{key}={value!r} is not known.", where="grower lossless", do=f"One of {known}."
                )
        if not noise:
            warnings.warn(
                "lossless with noise=0 makes copies that stay equal for ever: the new width is "
                "wasted. Try noise=1.0.",
                UserWarning,
                stacklevel=2,
            )
        self.noise, self.fill, self.blocks = noise, fill, blocks
        self.noise_scale = noise_scale
        self.needs_life = True
        """Whether what is free to choose must not be 0, as for weights but not for moments."""

    def prepare(
        self,
        source: Mapping[str, Tensor],
        archs: Mapping[str, Architecture],
        generator: torch.Generator,
    ) -> Maps:
        """Make one map per axis, and one for each parameter that writes through a layer scale.

        Those of streams are StreamMaps, those of outputs isometries [T, S]; a
        parameter's own is listed under its name.
        """
        small, large = archs["source"], archs["target"]
        copied = copied_axes(small, large)
        maps: Maps = {}
        for axis, role in large.roles.items():
            if axis not in large.sizes or axis not in small.sizes:
                continue
            small_size, large_size = small.sizes[axis], large.sizes[axis]
            if role == "stream" or axis in copied:
                maps[axis] = stream_map(axis, small, large_size, source)
            elif role == "output" and small_size != large_size:
                maps[axis] = _isometry(small_size, large_size, generator)
        return maps | _through_factors(maps, small, source)

    def expand(self, source: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Apply the maps of streams and outputs, and fill the corner of the hidden axes."""
        target = self._filling(source, target, pair.generator)
        if pair.param.kind.startswith("batch_norm"):
            return _grow_batch_norm(source, target, pair)
        if "norm" in pair.param.kind:
            return _grow_norm(source, target, pair)
        if pair.param.kind == "scale":
            source = _repeat_factors(source, pair)
        return self._grow_linear(source, target, pair)

    def init_new_block(self, value: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Let new blocks write nothing yet."""
        values = (target, value) if self.blocks == "fresh" else (value, target)
        return adding_nothing(*values, pair)

    def without_noise(self) -> Lossless:
        """Return a grower of the same maps that shares each column out evenly."""
        even = copy(self)  # the constructor would warn of copies that stay equal
        even.noise, even.fill, even.needs_life = 0.0, "init", False
        return even

    def _filling(self, source: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
        """Return what the free entries of a grown tensor hold, in the target's shape."""
        # The rows of new units that a constructor leaves at 0 would never learn, behind
        # columns that read nothing from them yet.
        lifeless = self.needs_life and target.ndim > 1 and not target.any()
        if self.fill == "init" and not lifeless:
            return target
        rms = source.square().mean().sqrt()
        for dim, length in enumerate(source.shape):
            copy_T = torch.arange(target.shape[dim]) // length
            source = source.index_select(dim, torch.arange(target.shape[dim]) % length)
            if source.ndim > 1 and copy_T[-1] > 1:
                # Nothing reads any new copy: those of one unit would stay alike for ever.
                repeated = source.movedim(dim, 0)[copy_T > 1]
                draw = torch.randn(repeated.shape, generator=generator, dtype=source.dtype)
                source.movedim(dim, 0)[copy_T > 1] = repeated + self.noise * rms * draw
        return source

    def _grow_linear(self, source: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Grow a weight, table or bias along one axis after the other."""
        value = source
        hidden_reads: list[tuple[int, int]] = []
        for dim, (axis, direction) in enumerate(pair.param.directions):
            axis_map = pair.maps.get(axis)
            if isinstance(axis_map, StreamMap) and direction == "writes":
                # A parameter that writes through a layer scale has a map of its own.
                value = pair.maps.get(pair.source_param.name, axis_map).write(value, dim)
            elif isinstance(axis_map, StreamMap) and direction == "reads":
                fill = target[_corner(value, without=dim)]
                noise = self.noise * noise_factor(self.noise_scale, axis_map.copies, pair)
                value = axis_map.read(value, fill, dim, noise, pair.generator)
            elif isinstance(axis_map, Tensor):
                value = torch.tensordot(axis_map, value.movedim(dim, 0), dims=1).movedim(0, dim)
            elif direction == "reads":
                hidden_reads.append((dim, value.shape[dim]))
        if value.shape == target.shape:
            return value
        # What reads new hidden units is 0, and their own rows are not: with both at 0
        # neither would ever get a gradient.
        for dim, length in hidden_reads:
            target.narrow(dim, length, target.shape[dim] - length).zero_()
        target[_corner(value)] = value
        return target

    def why_not_preserving(self, source: Architecture, target: Architecture) -> list[str]:
        """Name every norm and factor that the maps cannot pass exactly for this pair."""
        reasons = [
            f"'{axis}' grows from {source.sizes[axis]} to {target.sizes[axis]}: exact at whole "
            "multiples only, as its layout says"
            for axis in sorted(target.whole)
            if target.sizes[axis] % source.sizes.get(axis, 1)
        ]
        compensated = {param.scaled_by for param in target.params.values()}
        for param in target.params.values():
            if param.tied_to:
                reasons += tie_reasons(param, source, target)
            if param.norm_axis:
                reasons += norm_reasons(param, source, target)
            elif param.kind == "scale" and param.name not in compensated:
                reasons += scale_reasons(param, source, target)
        return list(dict.fromkeys(reasons))  # blocks of one template have one reason


def _through_factors(maps: Maps, arch: Architecture, source: Mapping[str, Tensor]) -> Maps:
    """Return a map for each parameter that writes a stream through a factor on each unit."""
    own: Maps = {}
    for name, param in arch.params.items():
        stream = maps.get(param.groups[param.writes[0]][0]) if param.writes else None
        factor = arch.params.get(param.scaled_by or "")
        # A norm, a gate or a single number behind a weight leaves its pads alone.
        one_a_unit = factor and factor.kind == "scale" and not factor.reads and factor.axes
        if factor and one_a_unit and isinstance(stream, StreamMap):
            own[name] = through_scale(stream, source[factor.name].double())
    return own


def _grow_norm(source: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
    """Grow a norm's gain or bias, given that it sees scaled copies."""
    read = pair.maps.get(pair.param.norm_axis)
    if not isinstance(read, StreamMap):
        source = _repeat_factors(source, pair)
        target[_corner(source)] = source
        return target
    if pair.param.writes:
        return _grow_writing_norm(source, read, pair)
    return _grow_reading_norm(source, read, pair)


def _grow_reading_norm(source: Tensor, read: StreamMap, pair: ParamPair) -> Tensor:
    """Grow gain or bias of a norm that only reads its stream."""
    # A reader that is tied to a table has scaled copies of its columns, not shares of
    # them. The norm then gives it less by as much.
    tied = reads_for_table(pair.param, pair.target)
    share = 1 / (read.copies * read.scale) if tied else 1.0
    # Not 0 where several tokens are normalised at once.
    dim = pair.param.axes.index(pair.param.norm_axis)
    value = source.movedim(dim, 0) * share
    if pair.param.kind.endswith("bias"):
        # Normalised pads are 0, and have to stay so: new columns read them.
        pads = torch.zeros(len(read.pads), *value.shape[1:], dtype=source.dtype)
        return read.repeat(value, pads).movedim(0, dim)
    offset = pair.param.gain_offset
    # The variance is the source's and the copies are larger by the scale: so they leave
    # the norm, and the gain takes that back.
    gain = (value + offset * share) / read.scale
    pads = read.spread_over_pads(gain.mean(0, keepdim=True))
    if gain.ndim > 1:
        # Each token's pads hold its own mean, which a norm over several does not make 0.
        pads = 0 * pads
    return read.repeat(gain, pads).movedim(0, dim) - offset


def _grow_writing_norm(source: Tensor, read: StreamMap, pair: ParamPair) -> Tensor:
    """Grow gain or bias of a norm whose result is itself a residual stream."""
    written: StreamMap = pair.maps[pair.param.axes[0]]
    if pair.param.kind.endswith("bias"):
        return written.write(source, 0)
    offset = pair.param.gain_offset
    gain = read.repeat(source + offset, read.pad_gains.to(source))
    return gain * (written.scale / read.scale) - offset


def _repeat_factors(source: Tensor, pair: ParamPair) -> Tensor:
    """Repeat a factor for each copy of a stream that it multiplies, and its mean size for pads."""
    for dim, (axis, direction) in enumerate(pair.param.directions):
        stream = pair.maps.get(axis)
        if isinstance(stream, StreamMap) and not direction:
            value = source.movedim(dim, 0)
            pads = stream.spread_over_pads(value.abs().mean(0, keepdim=True))
            source = stream.repeat(value, pads).movedim(0, dim)
    return source


def _grow_batch_norm(source: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
    """Grow a tensor of a norm of each unit by itself, over a stream whose pads hold 0."""
    for dim, axis in enumerate(pair.param.axes):
        stream = pair.maps.get(axis)
        if isinstance(stream, StreamMap):
            value = source.movedim(dim, 0)
            if pair.param.kind.endswith(("gain", "variance")):
                pads = stream.spread_over_pads(value.abs().mean(0, keepdim=True))
                source = stream.repeat(value, pads).movedim(0, dim)
            else:
                source = stream.write(source, dim)
    target[_corner(source)] = source
    return target


def _isometry(small: int, large: int, generator: torch.Generator) -> Tensor:
    """Draw a map [T, S] that keeps lengths and dot products."""
    normal = torch.randn(large, small, generator=generator, dtype=torch.float64)
    isometry: Tensor = torch.linalg.qr(normal).Q
    return isometry


def _corner(value: Tensor, *, without: int | None = None) -> tuple[slice, ...]:
    """Return the index of a larger tensor's leading part that has a value's shape.

    Args:
        value: whose shape is meant.
        without: a dimension along which all of the larger tensor is taken.
    """
    return tuple(
        slice(None) if dim == without else slice(0, length)
        for dim, length in enumerate(value.shape)
    )
