"""The notation in which layouts say what the axes of a tensor are.

The notation of a pattern, one per parameter, in the tensor's own memory order::

    "embed 3 patch patch"                 a convolution; without an arrow the first axis is written,
    "(3 heads head_dim) embed"            the others are read, as in torch.nn.Linear and Conv2d
    "(3 heads head_dim) <- embed"         the same with the arrow: from the axis read to the axis written
    "embed -> feature"                    stored [in, out]
    "vocab -> embed", "1 position embed"  tables; position and vocab in front are always looked up
    "embed"                               a bias or a token: written; a norm's gain where a norm owns it
    "scale: embed"                        a factor on what is written (layer scale)
    "embed <- mlp * ls2.gamma"            written through the factor ls2.gamma, in models that have it
    "(4 embed)"                           a norm's gain over the units of four tokens at once
    "layer_norm_gain: embed"              a norm that torch.nn.LayerNorm or RMSNorm does not tell
    "layer_norm_gain: a -> embed"         a norm over ``a`` whose result is itself the residual stream
    "embed @ lm_head.weight"              a norm whose result only lm_head.weight reads, or else the next name there:
                                          if that is tied to an embedding, the norm makes up for
                                          what the tie forbids
    ""                                    a single number
    "constant:"                           leave it as the target's constructor made it

Parentheses fold several axes into one dimension, slowest first. ``{block}`` in a parameter's name
counts the blocks of a stack; any other ``{name}`` in it can be used in axis names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from compt.errors import LayoutError
from compt.interfaces import Group

NORM_KINDS = frozenset(
    f"{norm}_{part}"
    for norm in ("layer_norm", "rms_norm")
    for part in ("gain", "bias", "gain_offset")
)

KINDS = NORM_KINDS | {"weight", "scale", "constant"}

LOOKED_UP = frozenset({"position", "vocab"})

_GROUP = re.compile(r"\(([^)]*)\)|(\S+)")


def parse(
    pattern: str, tensor: Tensor, owner: nn.Module, indices: Mapping[str, str], *, where: str
) -> tuple[str, tuple[Group, ...], tuple[int, ...], tuple[int, ...], str | None]:
    """Read one pattern: kind, groups, indices of the groups read and written, axis normalised
    over.
    """
    text = pattern.format(**indices) if "{" in pattern else pattern
    kind, colon, rest = text.partition(":")
    kind, rest = (kind.strip(), rest) if colon else ("weight", text)
    if kind not in KINDS:
        raise LayoutError(
            f"Unknown kind '{kind}' in the pattern '{pattern}'.",
            where=where,
            do=f"One of {sorted(KINDS)}.",
        )
    if kind == "constant" or (not rest.strip() and tensor.numel() == 1):
        return kind, tuple((str(n),) for n in tensor.shape), (), (), None
    arrow = next((a for a in ("<-", "->") if a in rest), None)
    left, _, right = rest.partition(arrow) if arrow else (rest, "", "")
    first, second = _groups(left), _groups(right)
    if kind == "weight" and len(first) == 1 and not second:
        kind = _norm_kind(owner, tensor) or kind
    if kind in NORM_KINDS:  # one dimension, whatever the arrow says
        return (
            kind,
            second or first,
            (),
            (0,) if arrow else (),
            "+".join(axis for axis in first[0] if not axis.isdigit()),
        )
    groups = first + second
    if len(groups) != tensor.ndim:
        raise LayoutError(
            f"The pattern '{pattern}' has {len(groups)} dimensions, the tensor has shape {list(tensor.shape)}.",
            where=where,
        )
    if arrow:
        reads, writes = (range(len(first)), range(len(first), len(groups)))
        if arrow == "<-":
            reads, writes = writes, reads
    else:
        reads, writes = _default_direction(groups)
    if kind == "scale":
        reads, writes = range(0), range(0)
    return kind, groups, tuple(reads), tuple(writes), None


def matcher(name: str) -> re.Pattern[str]:
    """Turn a layout's parameter name into an expression with one group for each ``{name}`` in
    it.
    """
    return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\d+)", re.escape(name)) + r"\Z")


def relations(
    pattern: str, module: nn.Module, indices: Mapping[str, str]
) -> tuple[str, str | None, str | None]:
    """Split a pattern into its axes, the factor after ``*`` and the reader after ``@``; None where
    there is none.
    """
    pattern, _, readers = pattern.partition("@")
    pattern, _, factor = pattern.partition("*")

    def first(names: str) -> str | None:
        return next((n for n in names.format(**indices).split() if _has(module, n)), None)

    return pattern, first(factor), first(readers)


def _has(module: nn.Module, name: str) -> bool:
    """Whether the module has a parameter of this name."""
    try:
        module.get_parameter(name)
    except AttributeError:
        return False
    return True


def _groups(text: str) -> tuple[Group, ...]:
    return tuple(tuple((folded or single).split()) for folded, single in _GROUP.findall(text))


def _default_direction(groups: tuple[Group, ...]) -> tuple[range, range]:
    """Directions without an arrow: tables and tokens write their last axis, the rest are out, in,
    in, ...
    """
    named = [i for i, group in enumerate(groups) if not all(axis.isdigit() for axis in group)]
    last = len(groups) - 1
    if len(named) == 1 or (named and groups[named[0]][0] in LOOKED_UP):
        return range(last), range(last, last + 1)
    return range(1, len(groups)), range(0, 1)


def _norm_kind(owner: nn.Module, tensor: Tensor) -> str | None:
    """Tell a norm's gain and bias by the class of the module that owns them."""
    for cls, norm in ((nn.LayerNorm, "layer_norm"), (nn.RMSNorm, "rms_norm")):
        if isinstance(owner, cls):
            return f"{norm}_gain" if tensor is owner._parameters.get("weight") else f"{norm}_bias"
    return None
