"""Grow in several ways, train each for a few steps, and keep the one with the least loss."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from compt.errors import ConfigError, GrowthError
from compt.growth.operators import tensors_of
from compt.growth.run import build_grower
from compt.interfaces import Architecture, Grower, Growth, Objective
from compt.registry import GROWERS, Range
from compt.registry.registry import short_name

GrowerConfig = Annotated[Mapping[str, Any], GROWERS]
WARMUP = 0.1
"""Share of the steps over which the rate rises."""


@dataclass(frozen=True)
class Tried:
    """One way to grow, and what it came to."""

    grower: str
    first_loss: float
    """On the first batch, as grown."""
    held_out_loss: float
    """After the steps, on batches that none was trained on; inf where it is no number."""
    function_preserving: bool
    """Whether the grower says so of this pair."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types, where no number is None."""
        losses = {"first_loss": self.first_loss, "held_out_loss": self.held_out_loss}
        finite = {key: loss if math.isfinite(loss) else None for key, loss in losses.items()}
        return {**vars(self), **finite}


class Probe(Grower):
    """Try several growers for a few steps on the stage's own batches, and grow by the best.

    Each is grown with the same seed, trained by AdamW on the same ``steps`` batches, and
    measured on the same ``held_out`` batches after them, on which none was trained. What the
    best made is handed on as it was before those steps, so that the stage begins as with that
    grower alone. All batches are charged to the stage, measured ones as much as trained ones;
    the table of all is in the growth's report.

    Right after growth the loss says little of the final one, which a few hundred steps later it
    does (arXiv 2406.02469).

    Args:
        growers: names or configs, two or more.
        steps: batches that each is trained on.
        held_out: batches that each is measured on.
        lr: learning rate, which rises over the first tenth; give the stage's.
    """

    def __init__(
        self,
        *,
        growers: Sequence[GrowerConfig | str],
        steps: Annotated[int, Range(minimum=1)] = 50,
        held_out: Annotated[int, Range(minimum=1)] = 8,
        lr: Annotated[float, Range(positive=True)] = 1e-3,
    ) -> None:
        if len(growers) < 2:
            raise ConfigError(
                f"{len(growers)} growers leave nothing to choose from.",
                where="grower probe",
                do="Give growers=['lossless', dict(type='clone', noise=0.5)], or use one alone.",
            )
        self.growers = {_name(config): build_grower(config) for config in growers}
        if len(self.growers) < len(growers):
            raise ConfigError("A grower stands twice in growers.", where="grower probe")
        self.steps, self.held_out, self.lr = steps, held_out, lr
        learning = sum(grower.objective_calls for grower in self.growers.values())
        self.objective_calls = len(self.growers) * (steps + held_out) + learning

    def check(self, source: Architecture, target: Architecture) -> None:
        """Raise GrowthError where one of the growers cannot grow the pair."""
        for name, grower in self.growers.items():
            try:
                grower.check(source, target)
            except GrowthError as error:
                raise GrowthError(
                    f"{name} of probe: {error.what}", where=error.where, do=error.do
                ) from error

    def grow(
        self,
        source: nn.Module,
        target: nn.Module,
        *,
        source_arch: Architecture,
        target_arch: Architecture,
        generator: torch.Generator,
        objective: Objective | None = None,
    ) -> Growth:
        """Return what the grower makes whose steps led to the least held-out loss.

        Raises:
            GrowthError: there is no objective, or no grower has a loss that is a number.
        """
        if objective is None:
            raise GrowthError(
                "probe has growers to train, and no loss to train them by.",
                do="Use it in a chain, or give grow() an objective=.",
            )
        tried: list[Tried] = []
        best: Growth | None = None
        for name, grower in self.growers.items():
            _restart(objective)
            pair = (source, target) if grower.objective_calls else _on_cpu(source, target)
            seeded = torch.Generator().manual_seed(generator.initial_seed())
            growth = grower.grow(
                *pair,
                source_arch=source_arch,
                target_arch=target_arch,
                generator=seeded,
                objective=objective,
            )
            _restart(objective)
            first, held_out = self._try(growth, target, objective)
            least = min((other.held_out_loss for other in tried), default=math.inf)
            if held_out < least:
                best = growth
            tried.append(Tried(name, first, held_out, growth.function_preserving))
        if best is None:
            raise GrowthError(
                f"probe: no grower has a finite loss after {self.steps} steps at lr={self.lr:g}.",
                do="Lower the grower's lr.",
            )
        return replace(best, details={**best.details, "probe": [row.to_dict() for row in tried]})

    def _try(self, growth: Growth, target: nn.Module, objective: Objective) -> tuple[float, float]:
        """Train what a grower made, and return the first loss and the held-out one."""
        params = {
            name: growth.tensors.get(name, param).detach().to(param, copy=True).requires_grad_()
            for name, param in target.named_parameters()
            if param.requires_grad
        }
        optimizer = torch.optim.AdamW(params.values(), lr=self.lr, weight_decay=0.0)
        losses = []
        for step in range(self.steps):
            for group in optimizer.param_groups:
                group["lr"] = self.lr * min(1.0, (step + 1) / (WARMUP * self.steps))
            losses.append(_step(params, optimizer, objective))
        with torch.no_grad():
            measured = [objective(params).item() for _ in range(self.held_out)]
        mean = sum(measured) / len(measured)
        return losses[0], mean if math.isfinite(mean) else math.inf


@torch.enable_grad()
def _step(
    params: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, objective: Objective
) -> float:
    """Take one step on the next batch, and return the loss before it."""
    loss = objective(params)
    # Of these alone: loss.backward() would leave gradients in the target.
    gradients = torch.autograd.grad(loss, [*params.values()], allow_unused=True)
    for param, gradient in zip(params.values(), gradients, strict=True):
        param.grad = gradient
    optimizer.step()
    return loss.item()


def _on_cpu(source: nn.Module, target: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return both on the CPU, where growers that do not learn find them."""
    source, target = (
        module if _is_on_cpu(module) else copy.deepcopy(module).cpu() for module in (source, target)
    )
    return source, target


def _is_on_cpu(module: nn.Module) -> bool:
    return all(tensor.device.type == "cpu" for tensor in tensors_of(module).values())


def _restart(objective: Objective) -> None:
    """Let the batches come again from the first, where an objective can."""
    restart = getattr(objective, "restart", None)
    if restart is not None:
        restart()


def _name(config: str | Mapping[str, Any]) -> str:
    """Return a grower as the report's table has it."""
    if isinstance(config, str):
        return short_name(config)
    options = ", ".join(f"{key}={value!r}" for key, value in config.items() if key != "type")
    name = short_name(str(config["type"]))
    return f"{name}({options})" if options else name
