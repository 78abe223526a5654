"""Growth by the grower that a contract tries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from compt.errors import GrowthError
from compt.growth.axes import describe
from compt.growth.run import build_grower
from compt.interfaces import Grower, Growth, Objective
from compt.registry import GROWERS
from compt.testing._shared import Violation, require, skip
from compt.testing.growers.watched import Grown, Watched, grow_watched


class Trial:
    """Grow by one grower, with a Violation where it fails.

    Args:
        grower: name, config or instance.
        objective: returns the objective for a target, None where there is none.
    """

    def __init__(self, grower: Any, objective: Callable[[nn.Module], Objective | None]) -> None:
        self.grower, self.objective = grower, objective

    def build(self) -> Grower:
        """Return the grower itself, a new one unless it is an instance."""
        return build_grower(self.grower)

    def grow(
        self, source: nn.Module, target: nn.Module, *, seed: int = 0, refusable: bool = False
    ) -> Grown:
        """Grow a target in place, and turn a refusal into a Violation unless it is ``refusable``.

        Raises:
            GrowthError: the grower itself refuses the pair, which is ``refusable``.
        """
        watched = Watched(self.build())
        try:
            return self._run(watched, source, target, seed=seed)
        except GrowthError as error:
            if refusable and not watched.claims:
                raise
            raise _not_grown(source, target, error) from error

    def claim(self, source: nn.Module, target: nn.Module) -> Growth:
        """Grow a target in place, and return the grower's own report, whatever is wrong with it."""
        watched = Watched(self.build())
        try:
            self._run(watched, source, target)
        except GrowthError as error:
            # compt refuses a report that is incomplete, and the contract says more of it
            if not watched.claims:
                raise _not_grown(source, target, error) from error
        return watched.claims[-1]

    def error(self, source: nn.Module, target: nn.Module) -> Exception | None:
        """Return what growing raises, None where all goes well."""
        try:
            self._run(Watched(self.build()), source, target)
        except Exception as error:
            return error
        return None

    def config(self) -> dict[str, Any]:
        """Return the grower's config, of an instance its class if that needs no arguments."""
        if isinstance(self.grower, str):
            return dict(type=self.grower)
        if isinstance(self.grower, Mapping):
            return dict(self.grower)
        config = dict(type=type(self.grower))
        if faults := GROWERS.signature_faults(config):
            skip(
                "a chain builds its grower from a config, and this is an instance: "
                f"{' '.join(faults)}"
            )
        return config

    def _run(
        self, watched: Watched, source: nn.Module, target: nn.Module, *, seed: int = 0
    ) -> Grown:
        """Grow a target in place, with an objective where there is one."""
        objective = self.objective(target)
        require(
            objective is not None or not watched.inner.objective_calls,
            f"The grower learns, and the contract has no objective for {type(target).__name__}.",
            "Override objective(target): return a function of parameters by name that returns a "
            "loss.",
        )
        return grow_watched(watched, source, target, seed=seed, objective=objective)


def _not_grown(source: nn.Module, target: nn.Module, error: GrowthError) -> Violation:
    """Return the Violation of a pair that was to be grown."""
    small, large = (dict(describe(module).sizes) for module in (source, target))
    reason = f"{error.what} {error.where}".rstrip()
    return Violation(
        f"The pair {small} -> {large} of pairs() cannot be grown: {reason}",
        error.do or "Override pairs() with pairs that this grower can grow.",
    )
