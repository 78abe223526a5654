"""Checks of a paradigm's batches, outputs and loss terms."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compt.interfaces import Batch, Outputs, Paradigm, accepted
from compt.random_state import random_state
from compt.testing._shared import drawn_since, is_finite_scalar, require, some
from compt.testing.paradigms.comparison import close, differences, total


def require_seeded_batch(paradigm: Paradigm, raw: Batch, *, training: bool) -> None:
    """Require that one seed of the generator prepares one batch.

    Args:
        paradigm: what prepares it.
        raw: collated samples.
        training: whether the batch is to be trained on.
    """
    state = random_state()
    generators = [torch.Generator().manual_seed(7) for _ in range(2)]
    arguments = accepted(paradigm.prepare, training=training)
    first, second = (
        paradigm.prepare(copy.deepcopy(raw), generator=g, **arguments) for g in generators
    )
    drawn = drawn_since(state)
    do = (
        "Draw only from the generator that prepare() is given: "
        "torch.randn(shape, generator=generator)."
    )
    require(not drawn, f"prepare() draws from the global random state of {some(drawn)}.", do)
    different = differences(first, second)
    require(
        not different,
        f"With one seed of its generator prepare() makes different {some(different)}.",
        do,
    )


def require_declared_outputs(paradigm: Paradigm) -> None:
    """Require ``outputs`` to be a frozenset that has all of ``features``."""
    require(
        isinstance(paradigm.outputs, frozenset) and set(paradigm.features) <= paradigm.outputs,
        f"outputs is {paradigm.outputs!r} and features is {paradigm.features!r}.",
        "Name in outputs, a frozenset, what forward() returns, and in features those to compare by "
        "default.",
    )


def require_outputs(paradigm: Paradigm, outputs: Outputs, num_samples: int) -> None:
    """Require every output that the paradigm names, and features [batch, ..., width]."""
    missing = paradigm.outputs - set(outputs)
    require(
        not missing,
        f"forward() does not return {some(missing)}, which outputs names.",
        "Return every output under its name, or leave it out of outputs.",
    )
    for name in paradigm.features:
        shape, floating = list(outputs[name].shape), outputs[name].is_floating_point()
        require(
            len(shape) > 1 and shape[0] == num_samples and floating,
            f"Of {num_samples} samples the feature '{name}' is a {outputs[name].dtype} of shape "
            f"{shape}.",
            "Return features as floating-point [batch, ..., width], or leave the output out of "
            "features.",
        )


def require_equal_shapes(example: Outputs, real: Outputs) -> None:
    """Require outputs of the example batch as large as those of a real one."""
    example_shapes, real_shapes = _shapes(example), _shapes(real)
    require(
        example_shapes == real_shapes,
        f"Outputs of example_batch() are of shapes {example_shapes}, those of a real batch "
        f"{real_shapes}.",
        "Override example_batch(): its batch must have the shapes of a prepared batch of real "
        "samples.",
    )


def require_gradients(terms: Mapping[str, Tensor], model: nn.Module) -> None:
    """Require finite loss terms, scalars whose sum has gradients for the model."""
    require(
        isinstance(terms, Mapping) and terms,
        f"loss() returns {terms!r}.",
        "Return a dict of at least one term.",
    )
    wrong = [name for name, term in terms.items() if not is_finite_scalar(term)]
    require(
        not wrong,
        f"loss() returns terms that are no finite scalars: {some(wrong)}.",
        "Reduce every term to one number (.mean()), and guard divisions and logarithms.",
    )
    loss = total(terms)
    if loss.requires_grad:
        loss.backward()
    require(
        any(p.grad is not None and p.grad.any() for p in model.parameters()),
        "The loss has no gradient for any parameter of the model.",
        "Compute loss() from the outputs, without detach() and outside torch.no_grad().",
    )


def require_teacher_outputs(paradigm: Paradigm, model: nn.Module, batch: Batch) -> None:
    """Require the outputs of ``forward`` from a teacher, whichever of them are needed."""
    outputs = paradigm.forward(model, batch)
    singles = [frozenset({name}) for name in sorted(paradigm.outputs)]
    for needs in (frozenset(paradigm.features), *singles):
        taught = paradigm.teacher_forward(model, batch, needs)
        missing = needs - set(taught)
        require(
            not missing,
            f"teacher_forward() does not return {some(missing)}, which is needed.",
            "Return at least the outputs in needs; fall back to forward() for what is not cheaper.",
        )
        different = [name for name in needs if not close(taught[name], outputs[name])]
        require(
            not different,
            f"teacher_forward() returns another {some(different)} than forward() on the same "
            "batch.",
            "Compute in teacher_forward() what forward() computes, or leave teacher_forward() out.",
        )


def _shapes(outputs: Outputs) -> dict[str, list[int]]:
    return {name: list(output.shape) for name, output in outputs.items()}
