"""Grow a dense model into one with experts, which begin as copies of its MLPs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import Annotated, Any

import torch
from torch import Tensor

from compt.errors import GrowthError
from compt.growers.extend import Extend, RuleName
from compt.growth.options import advice, changed_options, fault_text
from compt.interfaces import Architecture, Growth, ParamAxes, Status
from compt.registry import GROWERS


class Upcycle(Extend):
    """Make every expert a copy of the source's MLP, with a fresh router, and grow the rest.

    The weights that a router gives to the experts of a token sum to 1, so that the average of
    copies is the MLP, whichever it chooses. Tokens then train the experts that they are given to.
    The target's layout says which tensors of a dense model its experts hold (``Layout.dense``).
    Source: Komatsuzaki et al., Sparse Upcycling, arXiv 2212.05055.
    Differs: every layer that has experts in the target gets them, and no optimizer state.

    Args:
        grower: name or config of the grower of widths, the experts' own and others, and of depth.
        axes: rules for further axes, as of 'extend'.
        experts: the axis of experts.
    """

    label = "upcycle"

    def __init__(
        self,
        *,
        grower: str | Annotated[Mapping[str, Any], GROWERS] = "lossless",
        axes: Mapping[str, RuleName] | None = None,
        experts: str = "experts",
    ) -> None:
        super().__init__(axes={experts: "copy", **(axes or {})}, grower=grower)
        self.experts = experts

    def longer(self, source: Architecture, target: Architecture) -> Architecture:
        """Return what the source is with as many experts as the target."""
        if self.experts not in source.roles:
            source = self.with_one_expert(source, target)
        return super().longer(source, target)

    def check(self, source: Architecture, target: Architecture) -> None:
        """Raise GrowthError where MLPs cannot become experts, or the rest cannot grow."""
        super().check(self.with_one_expert(source, target), target)

    def grow_tensors(
        self,
        source: Mapping[str, Tensor],
        target: Mapping[str, Tensor],
        *,
        source_arch: Architecture,
        target_arch: Architecture,
        generator: torch.Generator,
        take: Callable[[str, Tensor], None],
    ) -> Growth:
        """Turn MLPs into one expert each, copy it, and grow all else, tensor by tensor."""
        single = self.with_one_expert(source_arch, target_arch)
        growth = super().grow_tensors(
            _Singles(source, single),
            target,
            source_arch=single,
            target_arch=target_arch,
            generator=generator,
            take=take,
        )
        routers = [name for name, param in target_arch.params.items() if param.dense == ()]
        held = {name for param in single.params.values() for name in _held(param)}
        unused = tuple(name for name in source_arch.params if name not in held)
        fresh: dict[str, Status] = dict.fromkeys(routers, "initialised")
        params = {**growth.params, **fresh}
        return replace(growth, params=params, dropped=growth.dropped + unused)

    def with_one_expert(self, source: Architecture, target: Architecture) -> Architecture:
        """Return a dense model seen as one with a single expert in each layer.

        Raises:
            GrowthError: the target has no experts that a dense model could become, or the source
                has experts already.
        """
        singles = {
            name: replace(param, name=name, block=block)
            for param in target.params.values()
            if param.dense is not None
            for block in range(source.depths.get(str(param.scope), 0))
            for name in [param.template.format(block=block)]
        }
        held = {name for param in singles.values() for name in _held(param)}
        changed = changed_options(source, target)
        if missing := sorted(held - source.params.keys()):
            raise GrowthError(
                f"The source has no '{missing[0]}' that could become an expert ({source.module} -> "
                f"{target.module}).{fault_text(changed)}",
                do=advice(
                    changed,
                    "Grow a dense model of the same design; one with experts grows by "
                    "'lossless', or by 'extend' into more of them.",
                ),
            )
        if not held:
            raise GrowthError(
                f"{target.module} has no experts of which its layout says what they are in a dense "
                "model.",
                do="Take a target with experts, or say it in its layout: `dense`.",
            )
        params = {name: param for name, param in source.params.items() if name not in held}
        known = {axis for param in singles.values() for axis in param.axes if not axis.isdigit()}
        renamed = {axis for name in held for axis in source.params[name].axes} - known
        new = known - source.sizes.keys() - {self.experts}
        if len(new) != len(renamed) or len(new) > 1:
            raise GrowthError(
                f"The axes {sorted(renamed)} of the source's MLPs are not {sorted(new)} of the "
                f"target's experts.{fault_text(changed)}",
                do=advice(changed, "Take a target whose experts are MLPs of the source's design."),
            )
        of_experts = dict(zip(new, map(source.sizes.__getitem__, renamed), strict=True))
        counts = [self.experts, target.chosen.get(self.experts)]
        return replace(
            source,
            params={**params, **singles},
            sizes={**source.sizes, **of_experts, **{name: 1 for name in counts if name}},
            roles={**source.roles, **target.roles},
            chosen=target.chosen,
        )


def _held(param: ParamAxes) -> tuple[str, ...]:
    """Return the tensors of the dense model that a parameter holds, by name."""
    if param.dense is None:
        return (param.name,)
    return tuple(name.format(block=param.block) for name in param.dense)


class _Singles(Mapping[str, Tensor]):
    """The tensors of a model with one expert, made of a dense model's as they are asked for."""

    def __init__(self, dense: Mapping[str, Tensor], arch: Architecture) -> None:
        self.dense, self.arch = dense, arch

    def __getitem__(self, name: str) -> Tensor:
        param = self.arch.params[name]
        if param.dense is None:
            return self.dense[name]
        shape = [prod(map(self.arch.size, group)) for group in param.groups]
        values = [self.dense[held] for held in _held(param)]
        return torch.cat(values).reshape(shape) if values else torch.zeros(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.arch.params)

    def __len__(self) -> int:
        return len(self.arch.params)
