"""Describes a module as an Architecture of named axes, from the layouts of its parts."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from compt.errors import LayoutError
from compt.growth.patterns import matcher, parse, relations
from compt.interfaces import Architecture, Layout, ParamAxes, Role
from compt.registry import LAYOUTS

ROLES: Mapping[str, Role] = {
    "embed": "stream",
    "heads": "hidden",
    "kv_heads": "hidden",
    "mlp": "hidden",
    "feature": "output",
    "head_dim": "fixed",
    "vocab": "fixed",
    "position": "fixed",
    "patch": "fixed",
    "classes": "fixed",
}


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
    modes = {m: m.training for m in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for m, mode in modes.items():
            m.training = mode


def describe(module: nn.Module) -> Architecture:
    """Describe a module, on any device, as named axes.

    Raises:
        LayoutError: no layout is registered for the module's class or for one of its parts, or a
            layout does not fit the tensors it describes.
    """
    module = unwrap(module)
    params, axes = _walk(module)
    sizes = _solve(params, axes.sizes)
    return Architecture(
        module=class_path(type(module)),
        sizes=sizes,
        roles=axes.roles,
        depths=_depths(params),
        params={p.name: p for p, _ in params},
        whole=frozenset(axes.whole & sizes.keys()),  # a variant may lack one
    )


def class_path(cls: type) -> str:
    """The name a layout for this class is registered under."""
    return f"{cls.__module__}.{cls.__qualname__}"


def find_layout(module: nn.Module) -> Layout:
    """Find the layout of a module by its class or the nearest base class that has one."""
    for cls in type(module).__mro__:
        if cls is nn.Module:
            break
        found = LAYOUTS.find(class_path(cls))
        if found is not None:
            return found()
    name = class_path(type(module))
    raise LayoutError(
        f"No layout describes the module class '{name}', so its weights cannot be grown.",
        do="Install a package that has a layout for it, or write one: subclass compt.Layout and register it with "
        f"@compt.LAYOUTS.register_module(name='{name}') or as an entry point '{name}' in the group "
        "'compt.layouts'. See docs/plugins.md.",
    )


class _Axes:
    """What the layouts of one module tree say beyond patterns: given sizes and roles, by axis, and
    whole axes.
    """

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.roles: dict[str, Role] = {}
        self.whole: set[str] = set()


def _walk(module: nn.Module) -> tuple[list[tuple[ParamAxes, Tensor]], _Axes]:
    """Collect the described tensors of a module and its parts, with axis names as seen from the
    module.
    """
    layout, axes = find_layout(module), _Axes()
    same = layout.axis_aliases(module)
    params: list[tuple[ParamAxes, Tensor]] = []
    children = {part: module._modules.get(part) for part in layout.parts}
    parts = [part for part, child in children.items() if child is not None and any(_tensors(child))]
    for part in parts:
        inner, inner_axes = _walk(module._modules[part])  # type: ignore[arg-type]
        names = {a: same.get(f"{part}.{a}", f"{part}.{a}") for a in inner_axes.roles}
        params += [(_renamed(p, part, names), t) for p, t in inner]
        axes.sizes |= {names.get(a, f"{part}.{a}"): size for a, size in inner_axes.sizes.items()}
        axes.roles |= {names[a]: role for a, role in inner_axes.roles.items()}
        axes.whole |= {names.get(a, f"{part}.{a}") for a in inner_axes.whole}
    matchers = [(matcher(name), name, pattern) for name, pattern in layout.patterns.items()]
    for name, tensor, owner, persistent in _tensors(module):
        if any(name.startswith(f"{part}.") for part in parts):
            continue
        param = _match(module, name, tensor, owner, persistent, matchers)
        params.append((_renamed(param, "", same), tensor))
    axes.sizes |= {same.get(a, a): size for a, size in layout.sizes(module).items()}
    axes.whole |= {same.get(a, a) for a in layout.whole}
    for param, _ in params:
        named = {*param.axes} | ({param.norm_axis} if param.norm_axis else set())
        for axis in named:
            if not axis.isdigit() and axis not in axes.roles:
                axes.roles[axis] = _role(axis, layout, param)
    axes.roles |= {a: r for a, r in layout.roles.items() if a in axes.roles}
    return _tie(params), axes


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor, nn.Module, bool]]:
    """Yield name, tensor, owning module and whether the state dict holds it, for parameters and
    buffers.
    """
    for prefix, owner in module.named_modules(remove_duplicate=False):
        dot = f"{prefix}." if prefix else ""
        for name, param in owner._parameters.items():
            if param is not None:
                yield dot + name, param, owner, True
        for name, buffer in owner._buffers.items():
            if buffer is not None:
                yield dot + name, buffer, owner, name not in owner._non_persistent_buffers_set


def _match(
    module: nn.Module,
    name: str,
    tensor: Tensor,
    owner: nn.Module,
    persistent: bool,
    matchers: list[tuple[re.Pattern[str], str, str]],
) -> ParamAxes:
    """Give a tensor the axes of the pattern that fits its name."""
    buffer = not isinstance(tensor, nn.Parameter)
    for regex, template, pattern in matchers:
        if match := regex.match(name):
            indices = match.groupdict()
            pattern, factor, reader = relations(pattern, module, indices)
            kind, groups, reads, writes, norm_axis = parse(
                pattern, tensor, owner, indices, where=name
            )
            if reader and not norm_axis:
                raise LayoutError(
                    f"'{name}' has a reader ('@ {reader}'), but its pattern does not make it a norm's."
                )
            head, block, _ = template.partition("{block}")
            return ParamAxes(
                name=name,
                kind=kind,
                groups=groups,
                reads=reads,
                writes=writes,
                template=template.format(**{**indices, "block": "{block}"}),
                scope=head.format(**indices).rstrip(".") if block else None,
                block=int(indices["block"]) if block else None,
                buffer=buffer,
                scaled_by=factor,
                norm_axis=norm_axis,
                read_by=reader,
            )
    if buffer and not persistent:
        return ParamAxes(
            name, "constant", tuple((str(n),) for n in tensor.shape), (), (), name, buffer=True
        )
    raise LayoutError(
        f"The layout for '{class_path(type(module))}' does not describe '{name}' {list(tensor.shape)}.",
        do="Use a model without this option, or add the parameter's pattern to the layout.",
    )


def _role(axis: str, layout: Layout, param: ParamAxes) -> Role:
    base = axis.rpartition(".")[2]
    role = layout.roles.get(axis) or ROLES.get(base) or ROLES.get(re.sub(r"_\d+\Z", "", base))
    if role is None:
        if "+" in axis:
            return "hidden"  # a norm over folded axes
        raise LayoutError(
            f"The axis '{axis}' of '{param.name}' has no role.",
            do="Say in the layout's `roles` whether it is a 'stream', 'hidden', 'output' or 'fixed' axis.",
        )
    return role


def _renamed(param: ParamAxes, part: str, names: Mapping[str, str]) -> ParamAxes:
    """The same parameter with its axes, and its own name, as seen from the module around it."""
    dot = f"{part}." if part else ""
    groups = tuple(
        tuple(a if a.isdigit() else names.get(a, dot + a) for a in group) for group in param.groups
    )
    return replace(
        param,
        name=dot + param.name,
        template=dot + param.template,
        scope=None if param.scope is None else dot + param.scope,
        groups=groups,
        scaled_by=None if param.scaled_by is None else dot + param.scaled_by,
        read_by=None if param.read_by is None else dot + param.read_by,
        norm_axis=None
        if param.norm_axis is None
        else names.get(param.norm_axis, dot + param.norm_axis),
    )


def _tie(params: list[tuple[ParamAxes, Tensor]]) -> list[tuple[ParamAxes, Tensor]]:
    """Mark every further name of a tensor as tied to the first."""
    first: dict[int, str] = {}
    tied = []
    for param, tensor in params:
        owner = first.setdefault(id(tensor), param.name)
        tied.append((param if owner == param.name else replace(param, tied_to=owner), tensor))
    return tied


def _depths(params: list[tuple[ParamAxes, Tensor]]) -> dict[str, int]:
    depths: dict[str, int] = {}
    for param, _ in params:
        if param.scope is not None and param.block is not None:
            depths[param.scope] = max(depths.get(param.scope, 0), param.block + 1)
    return depths


def _solve(params: list[tuple[ParamAxes, Tensor]], given: Mapping[str, int]) -> dict[str, int]:
    """Find every axis's size from the tensors' shapes and the sizes the layouts gave."""
    sizes = dict(given)
    dims = [
        (p.name, group, n) for p, t in params for group, n in zip(p.groups, t.shape, strict=True)
    ]
    progress = True
    while progress:
        progress = False
        for name, group, length in dims:
            unknown = [a for a in group if not a.isdigit() and a not in sizes]
            known = math.prod(
                int(a) if a.isdigit() else sizes[a] for a in group if a not in unknown
            )
            if len(unknown) == 1 and length % known == 0:
                sizes[unknown[0]], progress = length // known, True
            elif len(unknown) == 1 or (not unknown and known != length):
                told = {a: sizes[a] for a in group if a in sizes}
                raise LayoutError(
                    f"'{name}': a dimension of length {length} does not fit its axes {' '.join(group)} ({told}).",
                    do="The layout does not fit this variant of the model.",
                )
    for name, group, _ in dims:
        if left := [a for a in group if not a.isdigit() and a not in sizes]:
            raise LayoutError(
                f"'{name}': the sizes of {left} cannot be told from shapes.",
                do="Give them in the layout's sizes().",
            )
    return sizes
