"""Name what weights do not carry from one model to another, so that growth may change the function.

They are rules, for the claim where nothing can be measured and for its reason elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from compt.growth.names import class_path
from compt.growth.new_blocks import new_block_reasons
from compt.growth.options import Changed, changed_options, options_text
from compt.interfaces import Architecture, Growth

MOST_NAMED = 3
"""How many tensors or constants a reason names."""


def obstacles(
    growth: Growth,
    source: nn.Module,
    target: nn.Module,
    archs: tuple[Architecture, Architecture],
) -> list[str]:
    """List why the target may compute something else than the source, whatever the grower.

    Args:
        growth: the grower's report.
        source: the smaller model.
        target: the larger one.
        archs: of the source and of the target.
    """
    source_arch, target_arch = archs
    constants = {name for name, param in source_arch.params.items() if param.kind == "constant"}
    dropped = [name for name in growth.dropped if name not in constants]
    templates = {param.template for param in source_arch.params.values()}
    unmatched = [
        name
        for name, param in target_arch.params.items()
        if param.template not in templates
        and growth.params[name] == "initialised"  # a grower may know of another source
        and param.kind != "constant"
        and not param.tied_to
    ]
    changed = changed_options(source_arch, target_arch)
    reasons = []
    if changed:
        reasons.append(f"options differ, which are to be set alike: {options_text(changed)}")
    reasons += new_block_reasons(source_arch, target_arch)
    if dropped:
        reasons.append(f"nothing of the target is made from {named(dropped)} of the source")
    if unmatched:
        reasons.append(f"the source has nothing for {named(unmatched)} of the target")
    return [
        *reasons,
        *differences(source, target, changed),
        *_changed_constants(source, target, archs, changed),
    ]


def differences(source: nn.Module, target: nn.Module, changed: Changed | None = None) -> list[str]:
    """List the constants, functions and norms of two models that no weight makes up for.

    Args:
        source: the smaller model.
        target: the larger one.
        changed: options in which they differ. What follows from them is left out, as they are
            what can be changed: classes, and constants of the same values.
    """
    source_modules = dict(source.named_modules())
    places: dict[str, list[str]] = {}
    for name, module in target.named_modules():
        counterpart = source_modules.get(name)
        if counterpart is None:
            continue
        for template, reason in _module_differences(counterpart, module, changed or {}):
            places.setdefault(reason, []).append(f"{name}.{template}".strip("."))
    return [f"{named(names)}: {reason}" for reason, names in places.items()]


def named(names: Sequence[str]) -> str:
    """Return the first names of many, quoted, with the number of the others."""
    text = ", ".join(f"'{name}'" for name in names[:MOST_NAMED])
    num_others = len(names) - MOST_NAMED
    return f"{text} and {num_others} more" if num_others > 0 else text


def _module_differences(
    source: nn.Module, target: nn.Module, changed: Changed
) -> Iterator[tuple[str, str]]:
    """Yield attributes of two modules that differ, each with a reason that says how.

    The attribute is '' where the modules differ as a whole.
    """
    # By name, as torch's parametrizations make a class for each module.
    if class_path(type(source)) != class_path(type(target)):
        if not changed:
            yield "", _change(type(source), type(target))
        return
    if isinstance(source, _DropoutNd):
        return  # they do nothing once a model is trained
    if _normalises_apart(source, target):
        yield (
            "",
            f"normalises an axis that grows, and {_described(type(source))} has no gain for it",
        )
    for key, value in vars(target).items():
        source_value = vars(source).get(key)
        constant = isinstance(value, CONSTANTS) and isinstance(source_value, CONSTANTS)
        is_told = (source_value, value) in changed.values()
        if constant and value != source_value and key != "training" and not is_told:
            yield key, _change(source_value, value)


CONSTANTS = (float, str, bool, FunctionType, BuiltinFunctionType)
"""Attributes that say what a module computes; integers follow sizes."""


def _change(source: Any, target: Any) -> str:
    return f"{_described(source)} in the source, {_described(target)} in the target"


def _described(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return getattr(value, "__name__", None) or repr(value)


def _normalises_apart(source: nn.Module, target: nn.Module) -> bool:
    """Return whether a norm over units that grow has no gain, or groups of its own."""
    if isinstance(source, nn.GroupNorm) and isinstance(target, nn.GroupNorm):
        return source.num_channels != target.num_channels
    if isinstance(source, (nn.LayerNorm, nn.RMSNorm)):
        return source.weight is None and source.normalized_shape != target.normalized_shape
    return False


def _changed_constants(
    source: nn.Module,
    target: nn.Module,
    archs: tuple[Architecture, Architecture],
    options: Changed,
) -> list[str]:
    """Name the tensors that constructors compute and that hold other values in the target."""
    names = {name for name, param in archs[1].params.items() if param.kind == "constant"}
    # Not of all tensors: where weights are in files, each that is touched is read.
    pairs = ((name, _tensor(source, name), _tensor(target, name)) for name in sorted(names))
    changed = [
        name
        for name, small, large in pairs
        if small is not None and large is not None and not _equal(small, large)
    ]
    from_what = "the size or from options" if options else "the size"
    return [f"{named(changed)}: computed from {from_what}"] if changed else []


def _tensor(module: nn.Module, name: str) -> Tensor | None:
    """Return the parameter or buffer of a name, None where there is none."""
    owner, _, own = name.rpartition(".")
    try:
        holder = module.get_submodule(owner)
    except AttributeError:
        return None
    value = holder._parameters.get(own)
    return holder._buffers.get(own) if value is None else value


def _equal(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    return bool(torch.isclose(first.double(), second.double(), rtol=1e-3, equal_nan=True).all())
