"""Grow along axes that width and depth leave alone, such as vocabulary, positions and experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from torch import Tensor

from compt.errors import ConfigError, GrowthError, did_you_mean
from compt.growers._around import Around, GrowerConfig
from compt.growers._rules import RULES, Rule
from compt.growth.operators import ParamPair
from compt.interfaces import Architecture
from compt.registry import Range

if TYPE_CHECKING:
    from typing_extensions import Self

RuleName = Literal["fresh", "mean", "interpolate", "copy", "split", "pad"]


class Extend(Around):
    """Make some axes of the source longer by a rule for each, then grow it by another grower.

    What is made longer has the target's number of units, and the source's widths and depth. So a
    rule and a grower need not know each other, and either may keep the function or not.

    Args:
        axes: rule by axis. 'fresh' appends the target's own initial values (positions behind the
            last); 'mean' appends entries near the mean of the others (a vocabulary: the odds of
            old tokens hardly move, tied or not); 'interpolate' stretches the entries (positions);
            'copy' repeats units that are averaged (experts); 'split' repeats key/value heads and
            shares their queries out; 'pad' gives heads further channels (without rotary
            positions).
        grower: name or config of the grower of widths and depth.
        noise: of copies, in units of the rms of what they write; it sums to 0 over the copies.
    """

    def __init__(
        self,
        *,
        axes: Mapping[str, RuleName],
        grower: str | GrowerConfig = "lossless",
        noise: Annotated[float, Range(minimum=0)] = 1.0,
    ) -> None:
        if not axes:
            raise ConfigError(
                "axes names none that grows.",
                where=f"grower {self.label}",
                do="For example axes=dict(vocab='mean').",
            )
        for axis, rule in axes.items():
            if rule not in RULES:
                raise ConfigError(
                    f"axes.{axis}={rule!r} is no rule.{did_you_mean(str(rule), RULES)}",
                    where=f"grower {self.label}",
                    do=f"One of {', '.join(RULES)}.",
                )
        self.rules = {axis: RULES[rule]() for axis, rule in axes.items()}
        super().__init__(grower, self.label)
        self.noise = noise

    label = "extend"
    """The grower's name, for errors."""

    def check(self, source: Architecture, target: Architecture) -> None:
        """Raise GrowthError where an axis is missing, or the other grower cannot do the rest."""
        self.grower.check(self.longer(source, target), target)

    def longer(self, source: Architecture, target: Architecture) -> Architecture:
        """Return what the source is once its axes are longer.

        Raises:
            GrowthError: a model lacks one of the axes, or a rule cannot make it as long.
        """
        for axis in self.rules:
            if axis not in source.roles or axis not in target.roles:
                raise GrowthError(
                    f"There is no axis '{axis}' to extend in {target.module}."
                    f"{did_you_mean(axis, target.roles)}",
                    do=f"Its axes are {', '.join(sorted(target.roles))}.",
                )
        steps = self._steps(source, target)
        return steps[-1][2] if steps else source

    def _steps(
        self, source: Architecture, target: Architecture
    ) -> list[tuple[str, Rule, Architecture]]:
        """Return each axis that becomes longer, its rule, and what the source then is."""
        steps = []
        for axis, rule in self.rules.items():
            if target.sizes[axis] > source.sizes[axis]:
                changed = rule.sizes(axis, source, target)
                source = replace(source, sizes={**source.sizes, **changed})
                steps.append((axis, rule, source))
        return steps

    def prepare(
        self,
        source: Mapping[str, Tensor],
        archs: Mapping[str, Architecture],
        generator: torch.Generator,
    ) -> Any:
        """Make what the other grower shares between parameters."""
        longer = self.longer(archs["source"], archs["target"])
        return self.grower.prepare(source, {**archs, "source": longer}, generator)

    def expand(self, source: Tensor, target: Tensor, pair: ParamPair) -> Tensor:
        """Return what the other grower makes of the tensor with longer axes."""
        values = [source, *pair.others]
        for axis, rule, longer in self._steps(pair.source, pair.target):
            if axis in pair.param.axes:
                step = replace(pair, target=longer)
                values = [self._lengthened(value, target, axis, rule, step) for value in values]
            pair = replace(pair, source=longer)
        return self.grower.expand(values[0], target, replace(pair, others=tuple(values[1:])))

    def _lengthened(
        self, value: Tensor, target: Tensor, axis: str, rule: Rule, pair: ParamPair
    ) -> Tensor:
        """Return a tensor with a longer axis, given the whole of the target's."""
        fresh = target
        for dim, length in enumerate(pair.target.shape(pair.param)):
            fresh = fresh.narrow(dim, 0, length)
        return rule.lengthen(value, fresh, pair.param.axes.index(axis), axis, pair, self.noise)

    def without_noise(self) -> Self:
        """Return this grower with nothing random in what is inherited."""
        even = super().without_noise()
        even.noise = 0.0
        return even

    def why_not_preserving(self, source: Architecture, target: Architecture) -> list[str]:
        """List what rules change, and then what the other grower cannot keep."""
        reasons = [
            reason
            for axis, rule, _ in self._steps(source, target)
            for reason in rule.reasons(axis, source, target)
        ]
        longer = self.longer(source, target)
        if (longer.sizes, longer.depths) == (target.sizes, target.depths):
            return reasons
        return reasons + self.grower.why_not_preserving(longer, target)
