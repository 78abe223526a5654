"""Checks of a layout's probe."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compt.growth.axes import evaluating, find_layout
from compt.growth.measure import output_error
from compt.interfaces import Outputs
from compt.random_state import random_state
from compt.testing._shared import (
    Violation,
    changed,
    drawn_since,
    randomised,
    require,
    seeded,
    snapshot,
    some,
    traces,
)


def probed(module: nn.Module, generator: torch.Generator) -> Outputs:
    """Return what the layout probes of a module in eval mode.

    Raises:
        Violation: the layout has no probe.
    """
    with seeded(0), evaluating(module):
        outputs = find_layout(module).probe(module, generator)
    if not outputs:
        raise Violation(
            "The layout cannot probe the module, so nothing tells whether growth keeps its "
            "function.",
            "Write probe(module, generator): run the module on small random input and return its "
            "outputs by name.",
        )
    return outputs


def require_repeatable(module: nn.Module) -> None:
    """Require a probe that depends on the generator's seed, and on nothing else."""
    first, again, other = (_plain(probed(module, _generator(seed))) for seed in (3, 3, 4))
    different = changed(first, again)
    require(
        not different,
        f"With one seed of its generator probe() returns different {some(different)}.",
        "Draw the input of probe() from the generator that it is given.",
    )
    require(
        changed(first, other),
        "probe() returns the same for every seed of its generator.",
        "Draw a random input from the generator: constant input hides errors of growth.",
    )


def require_no_traces(module: nn.Module, *, training: bool) -> None:
    """Require that a probe changes neither the module nor a global random state.

    Args:
        module: the module to probe.
        training: the mode that it is put into. In training mode dropout may draw, and batch norms
            may learn.
    """
    for child in module.modules():
        child.training = training
    values, state, marks = snapshot(module), random_state(), traces(module)
    with torch.no_grad():
        find_layout(module).probe(module, _generator(0))
    drawn = [] if training else drawn_since(state)
    require(
        not drawn,
        f"probe() draws from the global random state of {some(drawn)}.",
        "Draw the input from the generator that probe() is given.",
    )
    now = traces(module)
    left = [kind for kind, mark in marks.items() if now[kind] != mark]
    touched = [] if training else changed(values, module)
    require(
        not touched and not left,
        f"probe() changes {some([*left, *touched])} of the module.",
        "Put everything back (try ... finally); the core sets eval mode and turns gradients off.",
    )


def require_comparable(modules: Sequence[nn.Module]) -> None:
    """Require input that no width changes, and an output of one shape at every width."""
    states, shapes = [], []
    for module in modules:
        generator = _generator(5)
        outputs = probed(module.double(), generator)
        states.append(generator.get_state())
        shapes.append({name: output.shape for name, output in outputs.items()})
    require(
        torch.equal(*states),
        "probe() draws more for a larger model.",
        "Let the input depend on fixed sizes alone (image size, vocabulary): both models must see "
        "the same.",
    )
    require(
        set(shapes[0].items()) & set(shapes[1].items()),
        f"No output of probe() has the same shape in both models: {shapes[0]} and {shapes[1]}.",
        "Return logits, or how alike features are (cosines), which no width changes.",
    )


def require_sight(module: nn.Module) -> None:
    """Require other outputs of other weights."""
    probed(module, _generator(0))
    other = randomised(copy.deepcopy(module), scale=0.1, seed=1)
    require(
        (output_error(module, other) or 0.0) > 1e-6,
        "Other weights do not change what probe() returns.",
        "Return outputs of the module itself on a random input.",
    )


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _plain(outputs: Outputs) -> dict[str, Tensor]:
    """Return the outputs without their gradients."""
    return {name: output.detach() for name, output in outputs.items()}
