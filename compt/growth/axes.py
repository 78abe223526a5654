"""Describe a module as an Architecture of named axes, from the layouts of its parts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast, get_args

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from compt.errors import LayoutError
from compt.growth.names import class_path
from compt.growth.sizes import ParamTensor, solve
from compt.growth.tensors import named_tensors, own_params
from compt.interfaces import Architecture, Layout, ParamAxes, Role, Unit
from compt.interfaces.architecture import RESIZED
from compt.registry import LAYOUTS

ROLES: Mapping[str, Role | Unit] = {
    "embed": "stream",
    "heads": "hidden",
    "kv_heads": "hidden",
    "alibi_heads": "fixed",  # the slope of each depends on how many there are
    "mlp": "hidden",
    "feature": "output",
    "head_dim": "channels",
    "vocab": "fixed",
    "position": "fixed",
    "height": "places",
    "width": "places",
    "patch": "pixels",
    "classes": "fixed",
}
"""How an axis may grow by its name, also with a number behind it (``embed_2``)."""

UNITS: frozenset[str] = frozenset(get_args(Unit))
"""Roles of fixed axes that say what they count."""

CHOSEN = "chosen_"
"""What the name of a size begins with that counts the chosen units of an axis."""


def unwrap(module: nn.Module) -> nn.Module:
    """Return the model inside DataParallel, DistributedDataParallel and torch.compile wrappers."""
    while True:
        if isinstance(module, (DataParallel, DistributedDataParallel)):
            module = module.module
        elif "_orig_mod" in module._modules:
            module = module._modules["_orig_mod"]  # type: ignore[assignment]
        else:
            return module


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in eval mode, and every submodule back as it was."""
    modes = {submodule: submodule.training for submodule in module.modules()}
    module.eval()
    try:
        yield
    finally:
        # Not module.train(): a frozen submodule may have been in eval mode, and stays.
        for submodule, mode in modes.items():
            submodule.training = mode


def describe(module: nn.Module) -> Architecture:
    """Describe a module, on any device, as named axes.

    Raises:
        LayoutError: no layout is registered for the module's class or for one of its
            parts, or a layout does not fit the tensors it describes.
    """
    module = unwrap(module)
    description = _walk(module)
    sizes, depths = solve(description.params, description.sizes), _depths(description.params)
    if unknown := sorted(description.periods.keys() - depths.keys()):
        raise LayoutError(
            f"periods() of the layout for '{class_path(type(module))}' names {unknown}, and the "
            f"stacks are {sorted(depths)}.",
            do="Name stacks as patterns do, by what stands before '.{block}'.",
        )
    return Architecture(
        module=class_path(type(module)),
        sizes=sizes,
        roles={
            axis: "fixed" if role in UNITS else cast(Role, role)
            for axis, role in description.roles.items()
        },
        depths=depths,
        params={param.name: param for param, _ in description.params},
        whole=frozenset(description.multiples_only & sizes.keys()),  # a variant may lack one
        periods=description.periods,
        units=_units(description.roles),
        chosen={axis: of for axis, of in description.chosen.items() if of in sizes},
        options=description.options,
    )


def find_layout(module: nn.Module) -> Layout:
    """Find the layout of a module by its class or the nearest base class that has one."""
    for cls in type(module).__mro__:
        if cls is nn.Module:
            break
        layout = LAYOUTS.find(class_path(cls))
        if layout is not None:
            instance: Layout = layout()
            return instance
    name = class_path(type(module))
    raise LayoutError(
        f"No layout describes the module class '{name}', so its weights cannot be grown.",
        do="Install a package that has a layout for it, or write one: subclass compt.Layout and "
        f"register it with @compt.LAYOUTS.register_module(name='{name}') or as an entry point "
        f"'{name}' in the group 'compt.layouts'. See docs/plugins.md.",
    )


@dataclass
class _Description:
    """Collects what the layouts of one module tree say, in the outermost module's names."""

    params: list[ParamTensor] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    """Those that the layouts give, as shapes alone cannot tell them."""
    roles: dict[str, Role | Unit] = field(default_factory=dict)
    """By axis, for every axis that a tensor has."""
    multiples_only: set[str] = field(default_factory=set)
    """Axes that keep the function at whole multiples only, as ``Layout.whole`` says."""
    periods: dict[str, int] = field(default_factory=dict)
    """By scope, as ``Layout.periods`` says."""
    chosen: dict[str, str] = field(default_factory=dict)
    """The name of a size by axis, as ``Layout.chosen`` says."""
    options: dict[str, Any] = field(default_factory=dict)
    """By name, as ``Layout.options`` says."""

    def add_child(self, child: str, inner: _Description, aliases: Mapping[str, str]) -> None:
        """Take over what is known of a child module, with its axes as this module names them."""
        names = {
            axis: "+".join(f"{child}.{folded}" for folded in axis.split("+"))
            for axis in (*inner.sizes, *inner.multiples_only, *inner.roles)
        }
        # Only axes of tensors have aliases. A size that no tensor has, as the feature
        # width of a tower without a projection, would otherwise be taken for that of
        # this module's own axis.
        names |= {axis: _rename(names[axis], aliases) for axis in inner.roles}
        self.params += [(_renamed(param, child, names), tensor) for param, tensor in inner.params]
        self.sizes |= {names[axis]: size for axis, size in inner.sizes.items()}
        self.roles |= {names[axis]: role for axis, role in inner.roles.items()}
        self.multiples_only |= {names[axis] for axis in inner.multiples_only}
        self.periods |= {f"{child}.{scope}": period for scope, period in inner.periods.items()}
        self.chosen |= {names[axis]: names[size] for axis, size in inner.chosen.items()}
        self.options |= {f"{child}.{name}": value for name, value in inner.options.items()}

    def add_layout(self, module: nn.Module, layout: Layout, aliases: Mapping[str, str]) -> None:
        """Add all that the module's layout says of sizes, whole multiples and periods."""
        sizes = layout.sizes(module)
        self.sizes |= {aliases.get(axis, axis): size for axis, size in sizes.items()}
        by_name = {size.removeprefix(CHOSEN): size for size in sizes if size.startswith(CHOSEN)}
        self.chosen |= {
            aliases.get(axis, axis): aliases.get(size, size)
            for axis, size in (by_name | dict(layout.chosen)).items()
        }
        self.multiples_only |= {aliases.get(axis, axis) for axis in layout.whole}
        self.periods |= layout.periods(module)
        # A module's own config holds those of its parts.
        self.options = dict(layout.options(module)) or self.options

    def add_roles(self, layout: Layout) -> None:
        """Give a role to every axis that a tensor has.

        The outer layout's word is the last: it alone knows how its parts are joined.
        """
        for param, _ in self.params:
            # In the order of the axes, not of a set: growers draw random maps in the
            # order of the roles, and the same seed must give the same bytes.
            norm_axes = (param.norm_axis,) if param.norm_axis else ()
            for axis in (*param.axes, *norm_axes):
                if not axis.isdigit() and axis not in self.roles:
                    self.roles[axis] = _role(axis, layout, param)
        self.roles |= {axis: role for axis, role in layout.roles.items() if axis in self.roles}


def _walk(module: nn.Module) -> _Description:
    """Describe a module and its child modules, by their layouts."""
    layout = find_layout(module)
    aliases = layout.axis_aliases(module)
    description = _Description()
    children = _described_children(module, layout)
    for name, child in children.items():
        description.add_child(name, _walk(child), aliases)
    for param, tensor in own_params(module, layout, children):
        description.params.append((_renamed(param, "", aliases), tensor))
    description.add_layout(module, layout, aliases)
    description.add_roles(layout)
    description.params = _tie(description.params)
    return description


def _described_children(module: nn.Module, layout: Layout) -> dict[str, nn.Module]:
    """Return the child modules that have layouts of their own, by name.

    A variant may lack one, or have an empty one in its place, which needs no layout.
    """
    children = {name: module._modules.get(name) for name in layout.parts}
    return {
        name: child
        for name, child in children.items()
        if child is not None and any(named_tensors(child))
    }


def _role(axis: str, layout: Layout, param: ParamAxes) -> Role | Unit:
    """Return how an axis may grow, by the layout or else by its name."""
    role = (
        layout.roles.get(axis)
        or layout.roles.get(re.sub(r"_\d+\Z", "", axis))
        or _role_by_name(axis)
    )
    if role is not None:
        return role
    if "+" in axis:
        return "hidden"  # a norm over folded axes
    raise LayoutError(
        f"The axis '{axis}' of '{param.name}' has no role.",
        do="Say in the layout's `roles` whether it is a 'stream', 'hidden', 'output' or 'fixed' "
        "axis.",
    )


def _role_by_name(axis: str) -> Role | Unit | None:
    """Return the role that an axis has by its name, behind that of a module."""
    base = axis.rpartition(".")[2]
    return ROLES.get(base) or ROLES.get(re.sub(r"_\d+\Z", "", base))


def _units(roles: Mapping[str, Role | Unit]) -> dict[str, Unit]:
    """Return what fixed axes count, of those of which it is known.

    A layout may say no more of an image's axis than that it is fixed, as it had to before there
    were units: what it counts is then told by its name.
    """
    units: dict[str, Unit] = {}
    for axis, role in roles.items():
        by_name = _role_by_name(axis)
        unit = by_name if role == "fixed" and by_name in RESIZED else role
        if unit in UNITS:
            units[axis] = cast(Unit, unit)
    return units


def _renamed(param: ParamAxes, child: str, names: Mapping[str, str]) -> ParamAxes:
    """Return a parameter of a child module as the module around it sees it.

    Args:
        param: as its own module sees it.
        child: the child that holds it, '' for the module itself.
        names: new names of axes; others stay.
    """
    dot = f"{child}." if child else ""

    def inside(name: str | None) -> str | None:
        return None if name is None else dot + name

    def renamed(axis: str) -> str:
        if "|" not in axis:
            return names.get(axis, axis)
        return " ".join(names.get(word, word) for word in axis.split(" "))

    return replace(
        param,
        name=dot + param.name,
        template=dot + param.template,
        scope=inside(param.scope),
        groups=tuple(tuple(map(renamed, group)) for group in param.groups),
        sections=tuple(_renamed(section, child, names) for section in param.sections),
        each=tuple(names.get(axis, axis) for axis in param.each),
        dense=None if param.dense is None else tuple(dot + held for held in param.dense),
        scaled_by=inside(param.scaled_by),
        read_by=inside(param.read_by),
        norm_axis=None if param.norm_axis is None else _rename(param.norm_axis, names),
    )


def _rename(axis: str, names: Mapping[str, str]) -> str:
    """Return the new name of an axis, or of several that are folded (``heads+head_dim``)."""
    if axis in names:
        return names[axis]
    return "+".join(names.get(folded, folded) for folded in axis.split("+"))


def _tie(params: Sequence[ParamTensor]) -> list[ParamTensor]:
    """Mark every further name of a tensor as tied to the first."""
    first_names: dict[int, str] = {}
    marked = []
    for param, tensor in params:
        owner = first_names.setdefault(id(tensor), param.name)
        marked.append((param if owner == param.name else replace(param, tied_to=owner), tensor))
    return marked


def _depths(params: Sequence[ParamTensor]) -> dict[str, int]:
    """Count the blocks of each stack, by scope."""
    depths: dict[str, int] = {}
    for param, _ in params:
        if param.scope is not None and param.block is not None:
            depths[param.scope] = max(depths.get(param.scope, 0), param.block + 1)
    return depths
