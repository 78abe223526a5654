"""Map a residual stream to a wider one, exactly wherever norms only read it.

Shapes: S units of the smaller stream, T of the larger, of which k S are whole copies
and r = T - k S are pads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt

import torch
from torch import Tensor

from compt.interfaces import Architecture, ParamAxes


@dataclass(frozen=True)
class StreamMap:
    """Make a stream of T units from one of S, as k scaled copies and r = T - k S pads.

    ``x_large = scale * [x, ..., x, pads @ x]``. Under LayerNorm each pad is the mean of
    x, under RMSNorm 0, so that normalised pads are 0. ``scale = sqrt(T / (k S))`` keeps
    the variance (mean square), so the norm's epsilon means the same and no constant of
    the model changes. Where no norm spans the stream, as between batch norms, the scale
    is 1.
    """

    copies: int
    scale: float
    pads: Tensor
    """[r, S]"""
    pad_gains: Tensor
    """[r], which a norm that writes another stream from this one has at the pads."""

    def write(self, value: Tensor, dim: int) -> Tensor:
        """Grow a tensor along an axis through which it writes the stream.

        [.., S, ..] -> [.., T, ..] along ``dim``.
        """
        scaled = value * self.scale
        if not len(self.pads):
            return torch.cat([scaled] * self.copies, dim)
        pads = torch.tensordot(self.pads, value.movedim(dim, 0), dims=1).mul_(self.scale)
        return torch.cat([*[scaled] * self.copies, pads.movedim(0, dim)], dim)

    def read(
        self, value: Tensor, fill: Tensor, dim: int, noise: float, generator: torch.Generator
    ) -> Tensor:
        """Grow a tensor along an axis through which it reads the stream, after a norm.

        [.., S, ..] -> [.., T, ..] along ``dim``. The copies of a column sum to the
        column, and differ by noise of ``noise`` times their rms, without which they
        would stay equal for ever. The columns that read pads read zeros, so they are
        free: they take those of ``fill``, [.., T, ..].
        """
        share = (value / self.copies).unsqueeze(dim)
        shape = [*value.shape[:dim], self.copies, *value.shape[dim:]]
        shares = share.expand(shape)
        if self.copies > 1 and noise:
            # Drawn in float32, in a sixth of the time; sums are exact as they are of float64.
            draw = torch.randn(shape, generator=generator, dtype=torch.float32).to(share.dtype)
            # Less its mean over k copies, a draw has the variance 1 - 1 / k.
            deviation = noise * share.square().mean().sqrt() / sqrt(1 - 1 / self.copies)
            rest = draw.mean(dim, keepdim=True).mul_(-deviation).add_(share)
            shares = draw.mul_(deviation).add_(rest)
        rows = shares.flatten(dim, dim + 1)
        num_rows = rows.shape[dim]
        free = fill.narrow(dim, num_rows, fill.shape[dim] - num_rows)
        return torch.cat([rows, free], dim) if free.shape[dim] else rows

    def repeat(self, value: Tensor, pads: Tensor) -> Tensor:
        """Return a value once for each copy, and then the pads.

        [S, ..], [r, ..] -> [T, ..]; nothing is scaled.
        """
        return torch.cat([*[value] * self.copies, pads])

    def spread_over_pads(self, value: Tensor) -> Tensor:
        """Return a value once for each pad, [1, ..] -> [r, ..]."""
        return value.expand(len(self.pads), *value.shape[1:])


def stream_map(
    axis: str, source_arch: Architecture, target_size: int, source: Mapping[str, Tensor]
) -> StreamMap:
    """Make the map of one stream from the norms that read it.

    Args:
        axis: name of the stream.
        source_arch: the smaller model.
        target_size: T.
        source: the smaller model's tensors, by name.
    """
    small = source_arch.sizes[axis]
    copies = target_size // small
    num_pads = target_size - copies * small
    gains = _gains_over(axis, source_arch)
    centred = carries_mean(axis, source_arch)
    pads = torch.full((num_pads, small), 1 / small if centred else 0.0, dtype=torch.float64)
    pad_gains = torch.ones(num_pads, dtype=torch.float64)
    if num_pads and centred and all(gain.writes for gain in gains):
        pads, pad_gains = _mean_carrying_pads(pads, source[gains[0].name].double())
    scale = sqrt(target_size / (copies * small)) if gains else 1.0
    return StreamMap(copies, scale, pads, pad_gains)


def through_scale(stream: StreamMap, scale: Tensor) -> StreamMap:
    """Return the map of a parameter that writes a stream through a factor [S].

    The factor of a pad is the mean size of all, so before it a pad holds the mean of
    what the stream has after it, divided by that size.
    """
    size = scale.abs().mean()
    return replace(stream, pads=stream.pads * scale / size if size else stream.pads)


def carries_mean(axis: str, arch: Architecture) -> bool:
    """Return whether pads of a stream hold the mean of the others, as a LayerNorm needs them."""
    return any(gain.kind.startswith("layer_norm") for gain in _gains_over(axis, arch))


def _gains_over(axis: str, arch: Architecture) -> Sequence[ParamAxes]:
    """List the gains of all norms over an axis, but not of those of each unit by itself."""
    return [
        param
        for param in arch.params.values()
        if param.norm_axis == axis and "gain" in param.kind and "batch" not in param.kind
    ]


def _mean_carrying_pads(pads_rS: Tensor, gain_S: Tensor) -> tuple[Tensor, Tensor]:
    """Return pads and their gains for a stream that is read by a norm which writes another.

    After the norm, pads must hold nearly the mean of its output. That mean is
    ``u / sigma + mean(bias)`` with ``u = mean(gain * (y - mean(y)))``, linear in y. A
    pad holding ``mean(y) + a u``, with gain 1 / a, carries it through. With coefficients
    a that sum to zero the norm's mean is untouched, and its variance is off only by
    u^2, which is small where gains are alike. One pad alone cannot have a sum of zero:
    its coefficient is 1.
    """
    num_pads, small = pads_rS.shape
    signs_r = torch.ones(num_pads, dtype=torch.float64)
    signs_r[1::2] = -1
    if num_pads % 2 and num_pads > 1:
        signs_r[:3] = torch.tensor([2.0, -1.0, -1.0], dtype=torch.float64)
        signs_r[3::2], signs_r[4::2] = 1, -1
    functional_S = gain_S / small - gain_S.mean() / small
    return pads_rS + signs_r[:, None] * functional_S, 1 / signs_r
