"""Read what a layout's patterns say of each of a module's own tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from compt.errors import LayoutError
from compt.growth.names import ANY, class_path, matcher, relations
from compt.growth.patterns import TensorAxes, fixed_groups, parse
from compt.growth.said import check_said
from compt.growth.sizes import ParamTensor
from compt.interfaces import Layout, ParamAxes


@dataclass(frozen=True)
class NamedTensor:
    """One parameter or buffer, where it was found."""

    name: str
    tensor: Tensor
    owner: nn.Module
    """The innermost module, by whose class norms are recognised."""
    in_state_dict: bool

    @property
    def is_buffer(self) -> bool:
        """Whether it is no parameter."""
        return not isinstance(self.tensor, nn.Parameter)


def named_tensors(module: nn.Module) -> Iterator[NamedTensor]:
    """Yield every parameter and buffer, tied ones under each of their names."""
    for prefix, owner in module.named_modules(remove_duplicate=False):
        dot = f"{prefix}." if prefix else ""
        for name, param in owner._parameters.items():
            if param is not None:
                yield NamedTensor(dot + name, param, owner, True)
        for name, buffer in owner._buffers.items():
            if buffer is not None:
                in_state_dict = name not in owner._non_persistent_buffers_set
                yield NamedTensor(dot + name, buffer, owner, in_state_dict)


def own_params(
    module: nn.Module, layout: Layout, children: Mapping[str, nn.Module]
) -> Iterator[ParamTensor]:
    """Yield the tensors that the module's own layout describes, without those of children."""
    check_said(layout, module, children)
    patterns, multipliers = layout.patterns_of(module), layout.multipliers(module)
    score_scales = layout.score_scales(module)
    # {block} is any block, so the first has to be tried before it.
    names = sorted(patterns, key=lambda name: "{first}" not in name)
    templates = [
        _Template(
            regex=matcher(name),
            name=name,
            pattern=patterns[name],
            multiplier=multipliers.get(name, 1.0),
            dense=layout.dense.get(name),
            score_scale=score_scales.get(name),
            layout=type(layout).__name__,
        )
        for name in names
    ]
    of_children = tuple(f"{name}." for name in children)
    own = [named for named in named_tensors(module) if not named.name.startswith(of_children)]
    _check_reached(templates, own)
    for named in own:
        yield _match(module, named, templates), named.tensor


@dataclass(frozen=True)
class _Template:
    """What a layout says of all tensors whose names fit one template."""

    regex: re.Pattern[str]
    name: str
    pattern: str
    multiplier: float
    dense: tuple[str, ...] | None
    score_scale: float | None
    layout: str
    """The class of the layout, for errors."""

    def of(self, tensor: str) -> str:
        """Return the template of one tensor, also where the module's name stands for all."""
        if not self.name.endswith(ANY):
            return self.name
        return self.name.removesuffix(ANY) + "." + tensor.rpartition(".")[2]


def _check_reached(templates: Sequence[_Template], tensors: Sequence[NamedTensor]) -> None:
    """Raise LayoutError where a pattern fits tensors that others before it take, and no further.

    A first block may take all that there is of a stack.
    """
    reached: set[str] = set()
    taken: dict[str, str] = {}
    for named in tensors:
        fitting = [template for template in templates if template.regex.match(named.name)]
        reached |= {template.name for template in fitting[:1]}
        if fitting and "{first}" not in fitting[0].name:
            taken |= {template.name: fitting[0].name for template in fitting[1:]}
    for name in taken.keys() - reached:
        raise LayoutError(
            f"The pattern of '{name}' in {templates[0].layout} is never reached: '{taken[name]}' "
            "before it fits the same tensors.",
            do="Put the more special name first.",
        )


def _match(module: nn.Module, named: NamedTensor, templates: Sequence[_Template]) -> ParamAxes:
    """Give a tensor the axes of the first pattern that fits its name."""
    for template in templates:
        if match := template.regex.match(named.name):
            return _param_axes(module, named, match.groupdict(), template)
    if named.is_buffer and not named.in_state_dict:
        # The constructor computes it and no checkpoint holds it, as rotary frequencies.
        groups = fixed_groups(named.tensor)
        return ParamAxes(named.name, "constant", groups, (), (), named.name, buffer=True)
    raise LayoutError(
        f"The layout for '{class_path(type(module))}' does not describe '{named.name}' "
        f"{list(named.tensor.shape)}.",
        do="Use a model without this option, or add the parameter's pattern to the layout.",
    )


def _param_axes(
    module: nn.Module, named: NamedTensor, indices: Mapping[str, str], template: _Template
) -> ParamAxes:
    """Read the pattern of one tensor, with the values of the ``{name}`` in its template."""
    where = f"'{named.name}' in {template.layout}"
    pattern, factor, reader = relations(template.pattern, module, indices, where=where)
    of_module = template.name.endswith(ANY)
    axes = parse(pattern, named.tensor, named.owner, indices, where=where, of_module=of_module)
    if reader and not axes.norm_axis:
        raise LayoutError(
            f"'{named.name}' has a reader ('@ {reader}'), but its pattern does not make it a "
            "norm's."
        )
    name = template.of(named.name)
    scope, *_ = re.split(r"\{(?:block|first)\}", name, maxsplit=1)
    block = indices.get("block", indices.get("first"))
    param = ParamAxes(
        name=named.name,
        kind=axes.kind,
        groups=axes.groups,
        reads=axes.reads,
        writes=axes.writes,
        template=name.format(**{**indices, "block": "{block}"}),
        scope=None if block is None else scope.format(**indices).rstrip("."),
        block=None if block is None else int(block),
        buffer=named.is_buffer,
        scaled_by=factor,
        norm_axis=axes.norm_axis,
        read_by=reader,
        multiplier=template.multiplier,
        joined=axes.joined,
        each=axes.each,
        dense=template.dense,
        score_scale=template.score_scale,
    )
    sections = [_section(param, axes) for axes in axes.sections]
    # queries come first
    sections[1:] = [replace(section, score_scale=None) for section in sections[1:]]
    return replace(param, sections=tuple(sections))


def _section(param: ParamAxes, axes: TensorAxes) -> ParamAxes:
    """Return one section of a parameter as if it were a tensor of its own."""
    return replace(param, groups=axes.groups, reads=axes.reads, writes=axes.writes)
