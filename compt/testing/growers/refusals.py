"""Checks of how a grower refuses what it cannot do."""

from __future__ import annotations

from torch import nn

from compt.errors import GrowthError
from compt.growth.axes import describe
from compt.growth.run import grow
from compt.testing._shared import Violation, changed, described, randomised, require, snapshot, some
from compt.testing.growers.trial import Trial
from compt.testing.toy import ToyNet


def misfits() -> list[tuple[str, nn.Module, nn.Module]]:
    """Return pairs that hardly any grower can grow, each with what is wrong with the target."""
    pairs = (
        ("fewer units and blocks", ToyNet(32, 4), ToyNet(16, 2)),
        ("fewer blocks", ToyNet(16, 4), ToyNet(16, 2)),
        ("more classes, which are fixed", ToyNet(16, 2), ToyNet(32, 4, classes=12)),
        ("biases that the source lacks", ToyNet(16, 2, rms=True), ToyNet(32, 4)),
    )
    return [
        (fault, randomised(source.double()), target.double()) for fault, source, target in pairs
    ]


def require_growth_errors(trial: Trial) -> None:
    """Require that misfits are grown completely or refused with GrowthError, by name."""
    for fault, source, target in misfits():
        error = trial.error(source, target)
        require(
            error is None or isinstance(error, GrowthError),
            f"A target with {fault} ends in {described(error) if error else ''}.",
            "Raise compt.GrowthError in check(); compt.check_growable(source, target) does it for "
            "most growers.",
        )
        if isinstance(error, GrowthError):
            require_named(error, source, target)


def require_named(error: GrowthError, source: nn.Module, target: nn.Module) -> None:
    """Require that a refusal names a tensor, an axis or a stack of blocks."""
    names = set()
    for arch in (describe(source), describe(target)):
        names |= {*arch.params, *arch.sizes, *arch.depths}
    require(
        any(name in str(error) for name in names),
        f"A refusal does not say which tensor or axis is wrong: {described(error)}.",
        "Name the tensor, the axis and its sizes in the GrowthError, as compt.check_growable does.",
    )


def require_no_traces(trial: Trial) -> None:
    """Require that a refusal leaves both modules as they were."""
    for fault, source, target in misfits():
        modules = {"source": source, "target": target}
        values = {role: snapshot(module) for role, module in modules.items()}
        if trial.error(source, target) is None:
            continue
        for role, module in modules.items():
            touched = changed(values[role], module)
            require(
                not touched,
                f"A target with {fault} is refused, and {some(touched)} of the {role} has changed "
                "before.",
                "Refuse in check(), and write nothing into the modules: return values in "
                "Growth.tensors.",
            )


def require_early_refusals(trial: Trial) -> None:
    """Require that ``check`` refuses the misfits that cannot be grown."""
    for fault, source, target in misfits():
        try:
            trial.build().check(describe(source), describe(target))
        except Exception:
            continue
        error = trial.error(source, target)
        require(
            error is None,
            f"check() accepts a target with {fault}, and growing it fails: "
            f"{described(error) if error else ''}.",
            "Raise the GrowthError in check(), which plans call before anything is trained.",
        )


def require_alone(trial: Trial, source: nn.Module, target: nn.Module) -> None:
    """Require that growing without an objective works, or ends in GrowthError."""
    try:
        grow(source, target, trial.grower)
    except GrowthError:
        return
    except Exception as error:
        raise Violation(
            f"Without an objective grow() ends in {described(error)}.",
            "Do without where objective is None, or raise compt.GrowthError that says to train in "
            "a chain.",
        ) from error
