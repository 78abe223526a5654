"""Read the notation in which layouts say what the axes of a tensor are.

The notation of a pattern, one per parameter, in the tensor's own memory order::

    "embed 3 patch patch"         a convolution; without an arrow the first axis is
                                  written, the others are read, as in torch.nn.Linear
                                  and Conv2d
    "(3 heads head_dim) embed"    likewise, with three axes folded into the first
    "(3 heads head_dim) <- embed" the same with the arrow: from the axis read to the
                                  axis written
    "embed -> feature"            stored [in, out]
    "vocab -> embed",             tables; position and vocab in front are always
    "1 position embed"            looked up
    "embed"                       a bias or a token: written; a norm's gain where a
                                  norm owns it
    "scale: embed"                a factor on what is written (layer scale)
    "embed <- mlp * ls2.gamma"    written through the factor ls2.gamma, in models that
                                  have it
    "(q | k | v) <- embed"        q, k and v concatenated, each of whose axes may again be
                                  several: "(heads head_dim | kv_heads head_dim | ...)"
    "(kv_heads / group d | d | d) <- embed"
                                  the same anew for each of kv_heads: its queries, its
                                  key, its value
    "scale: (6 embed) <- cond"    a layer that makes factors, as a diffusion
                                  transformer's modulation
    "(4 embed)"                   a norm's gain over the units of four tokens at once
    "layer_norm_gain: embed"      a norm whose class is neither torch.nn.LayerNorm nor
                                  RMSNorm
    "layer_norm_gain: a -> embed" a norm over ``a`` whose result is itself the residual
                                  stream, or is added to it; "a -> embed" where the
                                  class tells the rest
    "embed @ lm_head.weight"      a norm whose result only lm_head.weight reads, or else
                                  the next name there: if that is tied to an embedding,
                                  the norm makes up for what the tie forbids
    ""                            a single number
    "constant:"                   leave it as the target's constructor made it

Parentheses fold several axes into one dimension, slowest first; ``|`` concatenates,
for each unit of what stands before a ``/``.

The names of parameters may hold::

    "blocks.{block}.fc.weight"    any block of a stack
    "blocks.{first}.fc.weight"    the first block of a stack, where it differs. Further
                                  blocks then never grow from it, and those that the
                                  source has no other block for start anew
    "layers.{stage}.norm.weight"  any other number, which axis names can use
    "blocks.{block}.fc.*"         every tensor of one module by the pattern of its
                                  weight: a bias is what that writes, and gain, bias and
                                  running statistics of torch's norms are known by
                                  their class

A pattern is tried in the order of the layout, and one that no tensor has is passed
over: variants of a model may lack what others have. Where the variants differ in
more, the layout's ``patterns_of`` chooses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from compt.errors import LayoutError
from compt.growth.names import filled
from compt.interfaces import Group

NORM_KINDS = frozenset(
    f"{norm}_{suffix}"
    for norm in ("layer_norm", "rms_norm")
    for suffix in ("gain", "bias", "gain_offset")
) | frozenset(f"batch_norm_{suffix}" for suffix in ("gain", "bias", "mean", "variance"))
"""What a norm's tensors are; an offset gain multiplies by 1 + w, as Gemma's does."""

KINDS = NORM_KINDS | {"weight", "scale", "constant"}
"""Everything that may stand before the colon of a pattern."""

LOOKED_UP = frozenset({"position", "vocab"})
"""Axes whose units are looked up in a table, not multiplied."""

BATCH_NORM = {
    "weight": "batch_norm_gain",
    "bias": "batch_norm_bias",
    "running_mean": "batch_norm_mean",
    "running_var": "batch_norm_variance",
}
"""What the tensors of torch's batch and instance norms are, by the names torch gives them."""

_GROUP = re.compile(r"\(([^)]*)\)|(\S+)")
"""One dimension of a pattern: several axes in parentheses, or a single one."""

_AXIS = re.compile(r"[\w.]+")
"""An axis, which is a number where it has always that length."""


@dataclass(frozen=True)
class TensorAxes:
    """A pattern, read for one tensor, in the terms of ParamAxes."""

    kind: str
    groups: tuple[Group, ...]
    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()
    norm_axis: str | None = None
    sections: tuple[TensorAxes, ...] = ()
    joined: int = 0
    each: Group = ()


def parse(
    pattern: str,
    tensor: Tensor,
    owner: nn.Module,
    indices: Mapping[str, str],
    *,
    where: str,
    of_module: bool = False,
) -> TensorAxes:
    """Read one pattern for the tensor that it describes.

    Args:
        pattern: axes alone, without factor and reader (see :func:`relations`).
        tensor: what is described; its shape must have one dimension per group.
        owner: the module that holds the tensor, by which norms are recognised.
        indices: values of the ``{name}`` in the parameter's name.
        where: the parameter's name, for errors.
        of_module: whether the pattern is that of all tensors of the owner.

    Raises:
        LayoutError: an unknown kind, a concatenation that cannot be read, or another
            number of dimensions than the tensor has.
    """
    text = filled(pattern, indices, where)
    if of_module:
        text = _of_one(text, tensor, owner, where)
    sections, joined, each = _split_sections(text, where)
    axes = [_parse_section(section, tensor, owner, where) for section in sections]
    return axes[0] if len(axes) == 1 else _join(axes, joined, each, where)


def _of_one(pattern: str, tensor: Tensor, owner: nn.Module, where: str) -> str:
    """Return the pattern of one tensor of a module, given that of its weight."""
    kind, axes = _split_kind(pattern)
    if not tensor.ndim:
        return ""
    if kind in NORM_KINDS and len([*owner.parameters(recurse=False)]) > 1:
        raise LayoutError(
            f"The pattern '{pattern}' makes all tensors of a module the same part of a norm.",
            where=where,
            do="Give gain and bias a pattern each.",
        )
    left, arrow, right = (part.strip() for part in re.split(r"(<-|->|\Z)", axes, maxsplit=1))
    num_groups = len(_GROUP.findall(f"{left} {right}"))
    if num_groups == tensor.ndim or _norm_kind(owner, tensor) or kind in NORM_KINDS:
        return pattern
    written = [match[0] for match in _GROUP.finditer(right if arrow == "->" else left)]
    if not arrow:
        written, kind = written[:1], "weight"
    if len(written) != tensor.ndim:
        return pattern  # which does not fit
    return f"{kind}: {' '.join(written)}"


def _parse_section(pattern: str, tensor: Tensor, owner: nn.Module, where: str) -> TensorAxes:
    """Read a pattern, or that of one section, in which nothing is concatenated."""
    kind, axes = _split_kind(pattern)
    if kind not in KINDS:
        raise LayoutError(
            f"Unknown kind '{kind}' in the pattern '{pattern}'.",
            where=where,
            do=f"One of {sorted(KINDS)}.",
        )
    if kind == "constant" or (not axes.strip() and tensor.numel() == 1):
        return TensorAxes(kind, fixed_groups(tensor))
    left, arrow, right = _split_arrow(axes)
    groups = left + right
    _check_axes(pattern, groups, where)
    if kind == "weight" and len(left) == 1 and len(right) < 2:
        kind = _norm_kind(owner, tensor) or kind
    is_norm = kind in NORM_KINDS
    # A norm's tensors have the dimensions of its result, whatever stands before the arrow.
    _check_dimensions(pattern, right if is_norm and right else groups, tensor, where)
    if is_norm:
        return _norm_axes(kind, left, arrow, right)
    if kind == "scale" and arrow is None:
        return TensorAxes(kind, groups)  # a factor neither reads nor writes
    reads, writes = _directions(len(left), arrow, groups)
    return TensorAxes(kind, groups, tuple(reads), () if kind == "scale" else tuple(writes))


def _check_dimensions(pattern: str, groups: Sequence[Group], tensor: Tensor, where: str) -> None:
    """Raise LayoutError unless a pattern has as many dimensions as its tensor."""
    if len(groups) != tensor.ndim:
        raise LayoutError(
            f"The pattern '{pattern}' has {len(groups)} dimensions, "
            f"the tensor has shape {list(tensor.shape)}.",
            where=where,
            do="Name one axis for each dimension, or several in parentheses.",
        )


def _check_axes(pattern: str, groups: Sequence[Group], where: str) -> None:
    """Raise LayoutError unless every axis of a pattern is a name or a number."""
    axes = [axis for group in groups for axis in group or [""]]
    if wrong := [axis for axis in axes if not _AXIS.fullmatch(axis)]:
        raise LayoutError(
            f"'{wrong[0]}' in the pattern '{pattern}' is no name of an axis.",
            where=where,
            do="Write axes like '(3 heads head_dim) <- embed'.",
        )


def _split_sections(pattern: str, where: str) -> tuple[list[str], int, Group]:
    """Return the patterns of what a pattern concatenates, along which dimension, and for each what.

    One that concatenates nothing is its own only section.
    """
    concatenated = [match for match in _GROUP.finditer(pattern) if "|" in match[0]]
    if not concatenated:
        return [pattern], 0, ()
    each, _, rest = (concatenated[0][1] or "").rpartition("/")
    sections = rest.split("|")
    if len(concatenated) > 1 or not all(map(str.strip, sections)):
        raise LayoutError(
            f"The pattern '{pattern}' does not concatenate inside one pair of parentheses.",
            where=where,
            do="Write it like '(heads head_dim | kv_heads head_dim) <- embed'.",
        )
    before, after = pattern[: concatenated[0].start()], pattern[concatenated[0].end() :]
    joined = len(_GROUP.findall(re.sub(r"<-|->", "", _split_kind(before)[1])))
    patterns = [f"{before}({each} {section}){after}" for section in sections]
    return patterns, joined, tuple(each.split())


def _join(sections: Sequence[TensorAxes], joined: int, each: Group, where: str) -> TensorAxes:
    """Return the axes of a tensor that concatenates sections along a dimension."""
    first = sections[0]
    if first.norm_axis is not None or first.kind == "constant":
        raise LayoutError(
            "A norm over concatenated axes, or a constant of them, has no notation.",
            where=where,
            do="Fold the axes that it normalises over, as '(heads head_dim)'.",
        )
    name = " | ".join(" ".join(section.groups[joined]) for section in sections)
    groups = (*first.groups[:joined], (name,), *first.groups[joined + 1 :])
    return replace(first, groups=groups, sections=tuple(sections), joined=joined, each=each)


def fixed_groups(tensor: Tensor) -> tuple[Group, ...]:
    """Name each dimension of a tensor by its own length, so that none of them may grow."""
    return tuple((str(length),) for length in tensor.shape)


def _split_kind(text: str) -> tuple[str, str]:
    """Return the kind before the colon, 'weight' where there is none, and the axes after it."""
    kind, colon, axes = text.partition(":")
    return (kind.strip(), axes) if colon else ("weight", text)


def _split_arrow(text: str) -> tuple[tuple[Group, ...], str | None, tuple[Group, ...]]:
    """Return the groups left of the arrow, the arrow, and those right of it."""
    arrow = next((sign for sign in ("<-", "->") if sign in text), None)
    if arrow is None:
        return _groups(text), None, ()
    left, _, right = text.partition(arrow)
    return _groups(left), arrow, _groups(right)


def _groups(text: str) -> tuple[Group, ...]:
    return tuple(tuple((folded or single).split()) for folded, single in _GROUP.findall(text))


def _norm_axes(
    kind: str, left: tuple[Group, ...], arrow: str | None, right: tuple[Group, ...]
) -> TensorAxes:
    """Read a norm's gain or bias, which has one dimension whatever the arrow says.

    Left of an arrow stands the axis that is normalised over, right of it that of the
    result, where this is a stream of its own. Both name the tensor's one dimension.
    Running statistics are of what is normalised.
    """
    if kind.endswith(("mean", "variance")):
        arrow, right = None, ()
    return TensorAxes(
        kind,
        groups=right or left,
        writes=(0,) if arrow else (),
        norm_axis="+".join(axis for group in left for axis in group if not axis.isdigit()),
    )


def _directions(
    num_left: int, arrow: str | None, groups: tuple[Group, ...]
) -> tuple[Sequence[int], Sequence[int]]:
    """Return the indices of the groups that are read, and of those that are written."""
    if arrow is None:
        return _default_directions(groups)
    left, right = range(num_left), range(num_left, len(groups))
    return (left, right) if arrow == "->" else (right, left)


def _default_directions(groups: tuple[Group, ...]) -> tuple[Sequence[int], Sequence[int]]:
    """Return the indices of the groups read and written where no arrow says it.

    Tables and tokens write their last axis; all else is stored [out, in, in, ...].
    """
    named = [group for group in groups if not all(axis.isdigit() for axis in group)]
    last = len(groups) - 1
    if len(named) == 1 or (named and named[0][0] in LOOKED_UP):
        return range(last), range(last, last + 1)
    return range(1, len(groups)), range(0, 1)


def _norm_kind(owner: nn.Module, tensor: Tensor) -> str | None:
    """Tell a norm's gain and bias by the class of the module that owns them."""
    for cls, norm in ((nn.LayerNorm, "layer_norm"), (nn.RMSNorm, "rms_norm")):
        if isinstance(owner, cls):
            is_gain = tensor is owner._parameters.get("weight")
            return f"{norm}_gain" if is_gain else f"{norm}_bias"
    if isinstance(owner, _NormBase) and tensor.ndim:
        names = {id(getattr(owner, name)): kind for name, kind in BATCH_NORM.items()}
        return names.get(id(tensor))
    return None
