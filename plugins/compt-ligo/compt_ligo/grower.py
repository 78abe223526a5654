"""The grower ``ligo``, which trains maps of the source's weights on the target's own loss."""

from __future__ import annotations

from collections.abc import Mapping
from math import cos, inf, pi, sqrt
from typing import Literal

import torch
from torch import Tensor, nn

import compt
from compt_ligo.expansion import Bundle, Expansion, Maps, Pair


class Ligo(compt.Grower):
    """Learn linear maps that make the larger model's weights from the smaller one's.

    Every axis that grows from S to T has two learned maps [T, S]: one for what writes the axis, one
    for what reads it. A tensor grows along each of its unfolded axes by the map of its direction,
    so a linear layer becomes W' = M_write W M_read^T; norms and factors follow what is written. In
    a stack of blocks that deepens from L_s to L_t every parameter name has a learned mix [L_t, L_s]
    of the source's blocks. Axes are the layout's, so any model that has one can be grown.

    The maps start as a copy that keeps the function at whole multiples: writers are repeated,
    readers split over the copies in uneven shares, blocks repeated in place, and those that repeat
    write nothing yet. Then AdamW trains the maps, not the weights, for ``steps`` batches; the last
    maps make the weights.

    Source: Wang et al., LiGO, arXiv 2303.00980. Differs: there a layer's in-map is the out-map of
    the layer before, here the two are learned apart, since copies need readers that split; maps of
    features that leave the model start as isometries; depth is mixed only where it grows.

    Args:
        steps: batches to train the maps for; they are charged to the stage. 0 takes the untrained
            maps.
        lr: highest learning rate, the length by which a step moves a row of a map, whatever its
            width: an entry of [T, S] moves by lr / sqrt(S). It rises over the first tenth of the
            steps, then falls as a cosine.
        spread: how unevenly readers are split over the copies, as the standard deviation of the
            shares' logarithms.
    """

    api_version = "1.2"

    def __init__(self, *, steps: int = 100, lr: float = 1e-2, spread: float = 0.5) -> None:
        _check_options(steps, lr, spread)
        self.steps, self.lr, self.spread = steps, lr, spread
        self.objective_calls = steps

    def check(self, source: compt.Architecture, target: compt.Architecture) -> None:
        """Raise GrowthError where an axis shrinks, a fixed axis changes, or a layer is missing.

        Tensors that concatenate axes which grow have no one map, and are refused too.
        """
        compt.check_growable(source, target)
        for param in target.params.values():
            axes = {axis for part in param.sections for axis in part.groups[param.joined]}
            if any(source.size(axis) != target.size(axis) for axis in axes):
                raise compt.GrowthError(
                    f"ligo cannot grow '{param.name}', which concatenates "
                    f"{param.groups[param.joined][0]}.",
                    do="Use grower=dict(type='lossless') or dict(type='clone').",
                )

    def grow(
        self,
        source: nn.Module,
        target: nn.Module,
        *,
        source_arch: compt.Architecture,
        target_arch: compt.Architecture,
        generator: torch.Generator,
        objective: compt.Objective | None = None,
    ) -> compt.Growth:
        """Train the maps on the objective and return the weights that they make.

        Raises:
            GrowthError: there is something to learn and no objective, or its loss is not finite.
        """
        small, large = compt.tensors_of(source), compt.tensors_of(target)
        pair, dtype = Pair(source_arch, target_arch), _dtype(small)
        integers = {name for name, tensor in small.items() if not tensor.is_floating_point()}
        bundles = pair.bundles(integers)
        device = next(iter(small.values())).device
        untrained = pair.maps(bundles, self.spread, generator)
        maps = {key: value.to(device, dtype) for key, value in untrained.items()}
        expansion = Expansion(bundles, small, large, dtype)
        trained = bool(maps) and self.steps > 0
        if trained:
            names = [name for bundle in bundles for name in bundle.names]
            learned = [name for name in names if not target_arch.params[name].buffer]
            self._train(expansion, maps, learned, objective)
        with torch.no_grad():
            tensors = expansion(maps)
        return self._report(pair, bundles, small, tensors, trained=trained)

    def _train(
        self, expansion: Expansion, maps: Maps, names: list[str], objective: compt.Objective | None
    ) -> None:
        """Train the maps in place, one step of AdamW on each of ``steps`` batches.

        Args:
            expansion: makes the target's parameters from the maps.
            maps: what is trained.
            names: parameters to give to the objective.
            objective: the loss of the next batch.
        """
        if objective is None:
            raise compt.GrowthError(
                f"ligo has {self.steps} steps to learn its maps in, and no loss to learn from.",
                do="Use it in a chain, give grow() an objective=, or take the untrained maps with "
                "steps=0.",
            )
        learned = [value.requires_grad_() for value in maps.values()]
        rates = [self.lr / sqrt(value.shape[1]) for value in learned]
        optimizer = torch.optim.AdamW([{"params": [value]} for value in learned], weight_decay=0.0)
        for step in range(self.steps):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * schedule(step, self.steps)
            with torch.enable_grad():
                values = expansion(maps)
                loss = objective({name: values[name] for name in names})
            if not torch.isfinite(loss):
                raise compt.GrowthError(
                    f"ligo: the loss is {loss.item()} at step {step} of {self.steps}, with "
                    f"lr={self.lr:g}.",
                    do="Lower the grower's lr; if it is step 0, look at the data and the source.",
                )
            # the maps alone: loss.backward() would leave gradients in the target
            gradients = torch.autograd.grad(loss, learned, allow_unused=True)
            for value, gradient in zip(learned, gradients, strict=True):
                value.grad = gradient
            optimizer.step()

    def _report(
        self,
        pair: Pair,
        bundles: list[Bundle],
        small: Mapping[str, Tensor],
        tensors: Mapping[str, Tensor],
        *,
        trained: bool,
    ) -> compt.Growth:
        """Report what became of every tensor of the target, and what of the source was not used."""
        used = {name for bundle in bundles for name in bundle.sources}
        params: dict[str, Literal["copied", "expanded", "initialised", "shared"]] = {}
        for name, param in pair.target.params.items():
            match = compt.matching(param, pair.source, pair.target)
            if match is not None and (param.tied_to or param.kind == "constant"):
                used.add(match.name)
            if param.tied_to:
                params[name] = "shared"
            elif match is None or name not in tensors:
                params[name] = "initialised"
            else:
                params[name] = compt.status(tensors[name], small[match.name])
        if trained:
            reasons = [f"the maps were trained for {self.steps} steps"]
        else:
            reasons = pair.why_not_preserving()
        return compt.Growth(
            params=params,
            tensors=tensors,
            dropped=tuple(name for name in pair.source.params if name not in used),
            function_preserving=not reasons,
            reason="; ".join(reasons),
        )


def schedule(step: int, steps: int) -> float:
    """Return the share of the learning rate at a step.

    It rises in a line over the first tenth, and is multiplied by a cosine that falls to 0.
    """
    return min(1.0, (step + 1) / max(1.0, steps / 10)) * (1 + cos(pi * step / steps)) / 2


def _dtype(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """Return the dtype to compute in, float32, or float64 where the model has it."""
    wide = any(tensor.dtype == torch.float64 for tensor in tensors.values())
    return torch.float64 if wide else torch.float32


def _check_options(steps: int, lr: float, spread: float) -> None:
    """Raise ConfigError for an option that cannot be used."""
    faults = []
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        faults.append(f"steps={steps!r} is no whole number from 0 on")
    if not isinstance(lr, int | float) or not 0 < lr < inf:
        faults.append(f"lr={lr!r} is no number above 0")
    if not isinstance(spread, int | float) or not 0 <= spread < inf:
        faults.append(f"spread={spread!r} is no number from 0 on")
    if faults:
        raise compt.ConfigError("; ".join(faults) + ".", where="grower ligo")
