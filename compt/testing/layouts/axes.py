"""Checks of the axes that a layout describes."""

from __future__ import annotations

import re

import torch
from torch import nn

from compt.errors import ComptError
from compt.growth.axes import describe
from compt.growth.operators import tensors_of
from compt.interfaces import Architecture, Layout
from compt.testing._shared import Violation, require, some


def described_by(module: nn.Module) -> Architecture:
    """Return a module's architecture.

    Raises:
        Violation: the layout does not fit the module.
    """
    try:
        return describe(module)
    except ComptError as error:
        raise Violation(f"{error.what} {error.where}".rstrip(), advice(error)) from error


def advice(error: ComptError) -> str:
    """Return what an error says to do, or where to look."""
    return error.do or (
        "Check the layout's patterns, sizes() and roles; docs/plugins.md explains the notation."
    )


def require_every_tensor(module: nn.Module) -> None:
    """Require axes of every parameter and buffer, whose sizes make its shape."""
    arch = described_by(module)
    for name, tensor in tensors_of(module).items():
        require(
            name in arch.params
            and torch.Size(arch.shape(arch.params[name])).numel() == tensor.numel(),
            f"'{name}' {list(tensor.shape)} has no axes of its size.",
            "Give it a pattern in the layout's patterns.",
        )


def require_growing_axes(small: Architecture, large: Architecture) -> None:
    """Require the same axes and stacks of two members, and sizes that their roles allow."""
    require(
        dict(small.roles) == dict(large.roles) and small.depths.keys() == large.depths.keys(),
        f"Two sizes of the class have different axes: {sorted(small.roles)} and "
        f"{sorted(large.roles)}.",
        "Let patterns, roles and axis_aliases() depend on the design alone, not on its sizes.",
    )
    for axis, role in large.roles.items():
        if axis not in small.sizes or axis not in large.sizes:
            continue
        source, target = small.sizes[axis], large.sizes[axis]
        require(
            source == target or (role != "fixed" and source < target),
            f"The axis '{axis}', whose role is '{role}', has {source} units in the smaller model "
            f"and {target} in the larger.",
            f"Say in roles how '{axis}' may grow ('stream', 'hidden' or 'output'), or give pair() "
            "models that do not differ in it.",
        )


def require_known_roles(layout: Layout, modules: tuple[nn.Module, ...]) -> None:
    """Require that ``roles``, ``whole`` and ``chosen`` speak of axes that there are.

    An axis that is misspelt there would grow as its name says.
    """
    aliases = [alias for m in modules for alias in layout.axis_aliases(m).values()]
    patterns = [pattern for m in modules for pattern in layout.patterns_of(m).values()]
    axes = set(re.findall(r"[\w.{}]+", " ".join([*layout.patterns.values(), *patterns, *aliases])))
    axes |= {re.sub(r"_(\d+|\{\w+\})\Z", "", axis) for axis in axes}  # a role for all numbers
    for attribute in ("roles", "whole", "chosen"):
        named = getattr(layout, attribute)
        unknown = {axis for axis in named if axis not in axes and not _is_numbered(axis, axes)}
        require(
            not unknown,
            f"{attribute} has {some(unknown)}, and no pattern has such an axis.",
            f"Name in {attribute} the axes that patterns or axis_aliases() name.",
        )


def _is_numbered(axis: str, known: set[str]) -> bool:
    """Return whether a pattern with ``{name}`` makes an axis, as 'embed_{stage}' does 'embed_0'."""
    numbered = [re.sub(r"\\\{\w+\\\}", r"\\d+", re.escape(name)) for name in known if "{" in name]
    return any(re.fullmatch(pattern, axis) for pattern in numbered)
