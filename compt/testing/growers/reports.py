"""Checks of what a grower reports, against what it did."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compt.growth.axes import describe
from compt.growth.measure import TOLERANCE
from compt.growth.operators import tensors_of
from compt.interfaces import Growth, ParamAxes
from compt.testing._shared import Violation, changed, require, same, some
from compt.testing.growers.samples import noisy
from compt.testing.growers.trial import Trial
from compt.testing.growers.watched import Grown


def require_complete_report(claim: Growth, source: nn.Module, target: nn.Module) -> None:
    """Require that a report names every tensor once, with values that fit.

    Args:
        claim: the grower's report.
        source: the module that was grown.
        target: a module of the target's shapes.
    """
    tensors = tensors_of(target)
    named, known = set(claim.params), set(tensors)
    require(
        named == known,
        f"Growth.params lacks {some(known - named) or 'nothing'} and has "
        f"{some(named - known) or 'nothing'} that the target has not.",
        "List every name of target_arch.params in Growth.params, and no other.",
    )
    unlisted = set(claim.tensors) - known
    require(
        not unlisted,
        f"Growth.tensors has {some(unlisted)}, which the target has not.",
        "Name the values in Growth.tensors as target_arch.params does.",
    )
    misshapen = [name for name, v in claim.tensors.items() if v.shape != tensors[name].shape]
    require(
        not misshapen,
        f"Growth.tensors has other shapes than the target at {some(misshapen)}.",
        "Return each value in the shape of the target's tensor.",
    )
    infinite = [name for name, v in claim.tensors.items() if not torch.isfinite(v).all()]
    require(
        not infinite,
        f"Growth.tensors has values that are not finite at {some(infinite)}.",
        "Guard divisions and logarithms in grow().",
    )
    dropped = list(claim.dropped)
    foreign = set(dropped) - set(tensors_of(source))
    require(
        not foreign and len(dropped) == len(set(dropped)),
        "Growth.dropped is no list of different tensors of the source: "
        f"{some(foreign) or dropped}.",
        "List there, once each, the names of source_arch.params that were not used.",
    )


def require_true_dropped(trial: Trial, source: nn.Module, target: nn.Module) -> None:
    """Require that what is reported as dropped does not matter, and all else of the source does."""
    first = trial.grow(source, copy.deepcopy(target))
    dropped = set(first.claim.dropped)
    other = trial.grow(noisy(source, dropped), copy.deepcopy(target))
    require(
        not changed(tensors_of(first.target), other.target),
        f"Growth.dropped names {some(dropped)}, and the grown weights depend on them.",
        "List in Growth.dropped only what grow() does not read; compt.AxisGrower does so.",
    )
    params = describe(source).params
    constant = {name for name, p in params.items() if p.buffer or p.kind == "constant"}
    for name in sorted(set(tensors_of(source)) - dropped - constant):
        other = trial.grow(noisy(source, {name}), copy.deepcopy(target))
        require(
            changed(tensors_of(first.target), other.target),
            f"The grown weights do not depend on '{name}' of the source, which is not reported as "
            "dropped.",
            f"List '{name}' in Growth.dropped, or use it.",
        )


def require_true_report(grown: Grown) -> None:
    """Require that every status of the report says what became of its tensor."""
    values = tensors_of(grown.source)
    arch = describe(grown.target)
    for name, tensor in tensors_of(grown.target).items():
        status, param = grown.claim.params[name], arch.params[name]
        said = f"'{name}' is reported as '{status}'"
        twins = [source for source, value in values.items() if same(value, tensor)]
        unchanged = same(tensor, grown.fresh[name])
        if param.tied_to or status == "shared":
            _require_shared(param, status, said)
        elif status == "copied":
            require(
                twins,
                f"{said}, and equals no tensor of the source.",
                "Report it as 'expanded' in Growth.params; compt.status tells a grown value's "
                "status.",
            )
        elif status == "initialised":
            require(
                unchanged or not tensor.any(),
                f"{said}, and is neither as the target had it nor zero.",
                "Report what holds values of the source, or was learned, as 'expanded' in "
                "Growth.params.",
            )
        else:
            _require_expanded(param, status, said, twins, unchanged)


def _require_shared(param: ParamAxes, status: str, said: str) -> None:
    """Require 'shared' of further names of tied tensors, and of nothing else."""
    if not param.tied_to:
        raise Violation(
            f"{said}, and is no other parameter.",
            "Keep 'shared' for names with ParamAxes.tied_to.",
        )
    require(
        status == "shared",
        f"{said}, and is the tensor '{param.tied_to}' under another name.",
        "Report all but the first name of a tied tensor as 'shared' in Growth.params "
        "(ParamAxes.tied_to).",
    )


def _require_expanded(
    param: ParamAxes, status: str, said: str, twins: list[str], unchanged: bool
) -> None:
    """Require 'expanded' of a tensor that is neither a copy nor what the target had."""
    require(
        status == "expanded",
        f"{said}.",
        "The statuses of Growth.params are 'copied', 'expanded', 'initialised' and 'shared'.",
    )
    require(
        not twins,
        f"{said}, and equals the source's '{twins[:1]}'.",
        "Report it as 'copied'.",
    )
    # a buffer may well have grown to what the target computes by itself
    require(
        param.buffer or not unchanged,
        f"{said}, and is as the target had it.",
        "Put its grown value into Growth.tensors, or report it as 'initialised' in Growth.params.",
    )


def require_claim(grown: Grown, error: float, dtype: torch.dtype) -> None:
    """Require equal outputs where the grower claims to keep the function, else a reason.

    Args:
        grown: the growth.
        error: the largest relative difference of the outputs.
        dtype: the modules' number format, which says how much is rounding.
    """
    if not grown.claim.function_preserving:
        require(
            grown.claim.reason,
            "Growth.function_preserving is False, without a reason.",
            "Say in Growth.reason why the function is not kept.",
        )
        return
    largest = max(error, grown.report.error or 0.0)
    require(
        largest <= TOLERANCE[dtype],
        f"The grower reports that the function is kept, and outputs in {dtype} differ by "
        f"{largest:.1e}.",
        "Return Growth(function_preserving=False, reason=...) for such pairs.",
    )


def require_one_value(grown: Grown) -> None:
    """Require that the names of one tensor have one value in ``Growth.tensors``."""
    values = grown.claim.tensors
    for name, param in describe(grown.target).params.items():
        if param.tied_to and name in values:
            require(
                same(values[name], values.get(param.tied_to, grown.fresh[name])),
                f"Growth.tensors has other values for '{name}' than for '{param.tied_to}', which "
                "is the same tensor.",
                "Give a tied tensor's values once, under its first name (ParamAxes.tied_to of the "
                "others).",
            )


def require_number_format(values: Mapping[str, Tensor], target: nn.Module) -> None:
    """Require that grown values have the number format of the target's tensors."""
    tensors = tensors_of(target)
    wrong = [name for name, value in values.items() if value.dtype != tensors[name].dtype]
    require(
        not wrong,
        f"Growth.tensors of a float32 target are of another number format: {some(wrong)}.",
        "Return them in the target's: value.to(tensor.dtype).",
    )
