"""Growth that keeps the function: at any width and depth wherever norms only read the residual
stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod, sqrt
from typing import Literal

import torch
from torch import Tensor

from compt.errors import ConfigError
from compt.growers._ties import tie_reasons
from compt.growth.operators import AxisGrower, ParamPair, reads_for_table, writes_stream
from compt.interfaces import Architecture


@dataclass(frozen=True)
class StreamMap:
    """How a residual stream of S units becomes one of T: k scaled copies, then r = T - k S pads.

    ``x_large = scale * [x, ..., x, pads @ x]``. Under LayerNorm each pad is the mean of x, under
    RMSNorm 0, so that normalised pads are 0; ``scale = sqrt(T / (k S))`` keeps the variance (mean
    square), so the norm's epsilon means the same and no constant changes.
    """

    copies: int
    scale: float
    pads: Tensor
    """[r, S]"""
    pad_gains: Tensor
    """[r]: for a stream whose only norm writes another stream, the gains that recover that stream's
    mean.
    """

    def write(self, value: Tensor, dim: int) -> Tensor:
        """Grow a tensor along an axis through which it writes the stream: [.., S, ..] -> [.., T,
        ..].
        """
        value = value.movedim(dim, 0)
        pads = torch.tensordot(self.pads, value, dims=1)
        return (torch.cat([*[value] * self.copies, pads]) * self.scale).movedim(0, dim)

    def read(
        self, value: Tensor, fill: Tensor, dim: int, noise: float, generator: torch.Generator
    ) -> Tensor:
        """Grow along an axis through which a tensor reads the (normalised) stream.

        The copies of a column sum to the column, and differ by noise of ``noise`` times their rms;
        the columns that read pads read zeros, so they take the target's own initialisation from
        ``fill``.
        """
        value, fill = value.movedim(dim, 0), fill.movedim(dim, 0)
        parts = value / self.copies
        split = parts.expand(self.copies, *parts.shape).clone()
        if self.copies > 1 and noise:
            draw = torch.randn(split.shape, generator=generator, dtype=split.dtype)
            draw -= draw.mean(0)
            split += draw * (noise * parts.square().mean().sqrt() / sqrt(1 - 1 / self.copies))
        return torch.cat([split.flatten(0, 1), fill[self.copies * len(value) :]]).movedim(0, dim)


class Lossless(AxisGrower):
    """Grow width and depth so that the larger model computes the same function.

    Residual streams become scaled copies plus pads (:class:`StreamMap`); their readers split each
    column over the copies, unevenly, so that copies learn different things. New hidden units and
    heads start as the target's own initialisation with zero weight on what they write. New blocks
    are copies of their predecessor that write nothing yet. Feature widths that leave the model grow
    by a random isometry, which keeps lengths and dot products. A head tied to an embedding grows as
    the embedding does; the norm that the layout names as all it reads makes up for the copies.

    Exact at any width where norms only read a stream. A norm that writes one (open_clip's
    ``ln_pre``) cannot give its pads the mean of its own output: exact at whole multiples, otherwise
    close, and ``Growth.function_preserving`` says so.

    Source: LEMON, arXiv 2310.07999 (copies, mean pads, uneven split); HyperCloning, arXiv
    2409.12903 (noise).
    Differs: the stream is rescaled instead of the epsilon, so exports need no changed constant.

    Args:
        noise: of the split between copies, in units of their rms; 0 leaves copies equal for ever.
        fill: what is free to choose: rows of new units and heads, and columns that read pads.
            'init' takes the target's own initialisation, 'copy' tiles the source's.
        blocks: what new blocks are, apart from what they write, which is 0: 'copy' of their
            predecessor, or 'fresh'.
    """

    function_preserving = True

    def __init__(
        self,
        *,
        noise: float = 1.0,
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
        self.noise, self.fill, self.blocks = noise, fill, blocks

    def prepare(
        self,
        source: Mapping[str, Tensor],
        archs: Mapping[str, Architecture],
        generator: torch.Generator,
    ) -> dict[str, StreamMap | Tensor]:
        """Make one map per axis: a StreamMap for each stream, an isometry [T, S] for each output.

        A parameter that writes through a layer scale gets a map of its own, under its name.
        """
        small, large = archs["source"], archs["target"]
        maps: dict[str, StreamMap | Tensor] = {}
        for axis, role in large.roles.items():
            if axis not in large.sizes or axis not in small.sizes:
                continue
            sizes = small.sizes[axis], large.sizes[axis]
            if role == "stream":
                maps[axis] = _stream_map(axis, sizes, small, source)
            elif role == "output" and sizes[0] != sizes[1]:
                normal = torch.randn(sizes[1], sizes[0], generator=generator, dtype=torch.float64)
                maps[axis] = torch.linalg.qr(normal).Q
        for name, param in small.params.items():
            stream = maps.get(param.groups[param.writes[0]][0]) if param.writes else None
            if param.scaled_by is not None and isinstance(stream, StreamMap):
                maps[name] = _through_scale(stream, source[param.scaled_by].double())
        return maps

    def expand(self, source: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Apply the maps of the streams and outputs, then put the result into the corner of the
        hidden axes.
        """
        target = self._filling(source, target, pair)
        if "norm" in pair.param.kind:
            return self._norm(source, target, pair)
        if pair.param.kind == "scale":
            return self._scale(source, target, pair)
        return self._linear(source, target, pair)

    def init_new_block(self, value: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """New blocks write nothing yet."""
        if writes_stream(pair.param, pair.target):
            return torch.zeros_like(value)
        return target if self.blocks == "fresh" else value

    def without_noise(self) -> Lossless:
        """The same maps, with each column shared out evenly."""
        return Lossless(noise=0.0, fill="init", blocks=self.blocks)

    def _filling(self, source: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """What the free parts of a grown tensor hold: of the target's shape."""
        if self.fill == "copy":
            for dim in range(source.ndim):
                source = source.index_select(
                    dim, torch.arange(target.shape[dim]) % source.shape[dim]
                )
            return source
        return target

    def _linear(self, source: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        value = source
        hidden_reads = []
        for dim, (axis, direction) in enumerate(pair.param.directions):
            grown = pair.maps.get(axis)
            if isinstance(grown, StreamMap) and direction == "writes":
                value = pair.maps.get(pair.source_param.name, grown).write(value, dim)
            elif isinstance(grown, StreamMap):
                fill = target[
                    tuple(
                        slice(None) if d == dim else slice(0, n) for d, n in enumerate(value.shape)
                    )
                ]
                value = grown.read(value, fill, dim, self.noise, pair.generator)
            elif isinstance(grown, Tensor):
                value = torch.tensordot(grown, value.movedim(dim, 0), dims=1).movedim(0, dim)
            elif direction == "reads":
                hidden_reads.append((dim, value.shape[dim]))
        for dim, length in hidden_reads:
            target.narrow(dim, length, target.shape[dim] - length).zero_()
        target[tuple(slice(0, n) for n in value.shape)] = value
        return target

    def _norm(self, source: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Grow a norm's gain or bias: copies see scaled input, and what only reads gives zeros at
        the pads.
        """
        read = pair.maps.get(pair.param.norm_axis)
        if not isinstance(read, StreamMap):
            target[pair.corner] = source
            return target
        offset = 1.0 if pair.param.kind.endswith("offset") else 0.0
        if not pair.param.writes:
            share = (
                1 / (read.copies * read.scale) if reads_for_table(pair.param, pair.target) else 1.0
            )
            dim = pair.param.axes.index(
                pair.param.norm_axis
            )  # not 0 where several tokens are normalised at once
            value = source.movedim(dim, 0) * share
            if pair.param.kind.endswith("bias"):
                pads = torch.zeros(len(read.pads), *value.shape[1:], dtype=source.dtype)
                return torch.cat([*[value] * read.copies, pads]).movedim(0, dim)
            gain = (value + offset * share) / read.scale
            pads = gain.mean(0, keepdim=True).expand(len(read.pads), *gain.shape[1:])
            pads = (
                pads if gain.ndim == 1 else 0 * pads
            )  # tokens differ in their means, so their pads are not 0
            return torch.cat([*[gain] * read.copies, pads]).movedim(0, dim) - offset
        written = pair.maps[pair.param.axes[0]]
        if pair.param.kind.endswith("bias"):
            return written.write(source, 0)
        gain = torch.cat([*[source + offset] * read.copies, read.pad_gains.to(source)])
        return gain * (written.scale / read.scale) - offset

    def _scale(self, source: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Repeat a factor for each copy; the pads take its mean size."""
        for dim, axis in enumerate(pair.param.axes):
            grown = pair.maps.get(axis)
            if isinstance(grown, StreamMap):
                value = source.movedim(dim, 0)
                pads = value.abs().mean(0, keepdim=True).expand(len(grown.pads), *value.shape[1:])
                source = torch.cat([*[value] * grown.copies, pads]).movedim(0, dim)
        target[tuple(slice(0, n) for n in source.shape)] = source
        return target

    def why_not_preserving(self, source: Architecture, target: Architecture) -> list[str]:
        """Name every norm and factor that the maps cannot pass exactly for this pair."""
        compensated = {param.scaled_by for param in target.params.values()}
        found: dict[str, None] = {
            f"'{axis}' passes through weights all units share: exact at multiples of {source.sizes[axis]} only": None
            for axis in sorted(target.whole)
            if target.sizes[axis] % source.sizes.get(axis, 1)
        }
        for param in target.params.values():
            axis = param.norm_axis or next(iter(param.axes if param.kind == "scale" else ()), "")
            small, large = (
                prod(arch.size(a) for a in axis.split("+") if a) for arch in (source, target)
            )
            if param.tied_to:
                found |= dict.fromkeys(tie_reasons(param, source, target))
            if "bias" in param.kind or small == large:
                continue
            stream, whole = target.roles[axis] == "stream", large % small == 0
            if param.norm_axis and not stream:
                found[f"'{param.template}' normalises over '{axis}', which grows"] = None
            elif param.norm_axis and param.writes and not whole:
                found[
                    f"'{param.template}' writes the residual stream through a norm: exact at multiples of {small} only"
                ] = None
            elif param.norm_axis and len(param.axes) > 1 and not whole:
                found[
                    f"'{param.template}' normalises several tokens: exact at multiples of {small} only"
                ] = None
            elif param.kind == "scale" and stream and not whole and param.name not in compensated:
                found[
                    f"'{param.template}' scales the residual stream: exact at multiples of {small} only"
                ] = None
        return list(found)


def _stream_map(
    axis: str, sizes: tuple[int, int], arch: Architecture, source: Mapping[str, Tensor]
) -> StreamMap:
    """Make the map of one stream from the norms that read it."""
    small, large = sizes
    copies = large // small
    count = large - copies * small
    norms = [p for p in arch.params.values() if p.norm_axis == axis and "gain" in p.kind]
    centred = any(p.kind.startswith("layer_norm") for p in norms)
    pads = torch.full((count, small), 1 / small if centred else 0.0, dtype=torch.float64)
    gains = torch.ones(count, dtype=torch.float64)
    if count and centred and norms and all(p.writes for p in norms):
        pads, gains = _mean_carrying_pads(pads, source[norms[0].name].double())
    return StreamMap(copies, sqrt(large / (copies * small)), pads, gains)


def _through_scale(stream: StreamMap, scale: Tensor) -> StreamMap:
    """The map of what writes a stream through a factor: pads then hold the stream's mean after the
    factor.
    """
    size = scale.abs().mean()
    pads = stream.pads * scale / size if size else stream.pads
    return replace(stream, pads=pads)


def _mean_carrying_pads(pads: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """Pads before a norm that writes a stream, such that after it they hold nearly the mean of its
    output.

    That mean is u / sigma + mean(bias) with u = mean(gain * (y - mean(y))), linear in y. A pad
    holding mean(y) + a u, with gain 1 / a, carries it through; with coefficients a that sum to zero
    the norm's mean is untouched, and its variance is off only by u^2, which is small where gains
    are alike.
    """
    count, small = pads.shape
    signs = torch.ones(count, dtype=torch.float64)
    signs[1::2] = -1
    if count % 2 and count > 1:
        signs[:3] = torch.tensor([2.0, -1.0, -1.0], dtype=torch.float64)
        signs[3::2], signs[4::2] = 1, -1
    functional = gain / small - gain.mean() / small
    return pads + signs[:, None] * functional, 1 / signs
