"""Checks of what a paradigm keeps in a model beside what is trained."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from compt.errors import PluginError
from compt.growth.inherited import reset_inherited
from compt.growth.operators import tensors_of
from compt.interfaces import Batch, Paradigm, accepted, map_tensors
from compt.testing._shared import Violation, changed, must_work, require, same, seeded, some
from compt.testing.paradigms.comparison import total

NUM_STEPS = 3


def take_step(
    paradigm: Paradigm, model: nn.Module, read: Callable[[Paradigm], Batch], step: int
) -> None:
    """Train a model for one step of a stage of three, as the core does.

    Args:
        paradigm: of the model.
        model: it is trained in place.
        read: returns a batch that is prepared for training.
        step: which of the steps, from 0 on.
    """
    model.train()
    with seeded(step):
        batch = read(paradigm)
        with must_work(
            "A step of training fails", "Mend what other tests say of forward and loss."
        ):
            outputs = paradigm.forward(model, batch)
            total(paradigm.loss(outputs, batch)).backward()
    with torch.no_grad():
        for param in model.parameters():
            if param.requires_grad and param.grad is not None:
                param.sub_(0.01 * param.grad)
            param.grad = None
        progress = (step + 1) / NUM_STEPS
        plain = map_tensors(Tensor.detach, outputs)
        arguments = {"outputs": plain, "batch": batch, "progress": progress}
        with must_work(
            "after_step() fails after a step of the optimizer",
            "Use what it is given: model, outputs (without gradients), batch and progress.",
        ):
            paradigm.after_step(model, **accepted(paradigm.after_step, **arguments))


def require_state_in_model(
    make: Callable[[], tuple[Paradigm, nn.Module]], read: Callable[[Paradigm], Batch]
) -> None:
    """Require that training goes on in the same way with another paradigm after every step.

    Args:
        make: returns a new paradigm and a model with the same fresh weights at every call.
        read: returns a batch that is prepared for training, the same under one seed.
    """
    paradigm, model = make()
    marks = trained_marks(model)
    for step in range(NUM_STEPS):
        take_step(paradigm, model, read, step)
    require(
        trained_marks(model) == marks,
        "Training changes which parameters are marked as not trained (requires_grad=False).",
        "Mark them in build_model() and nowhere else: the optimizer is built once.",
    )
    _, resumed = make()
    for step in range(NUM_STEPS):
        another, loaded = make()
        loaded.load_state_dict(resumed.state_dict())
        take_step(another, resumed := loaded, read, step)
    different = changed(tensors_of(model), resumed)
    require(
        not different,
        f"Resumed after every step, with a new paradigm and model, {some(different)} is another.",
        "Keep what steps change in buffers of the model (register_buffer, persistent), or compute "
        "it from progress, and not in attributes of model or paradigm.",
    )


def trained_marks(model: nn.Module) -> dict[str, bool]:
    """Return of every parameter whether it is marked as trained."""
    return {name: param.requires_grad for name, param in model.named_parameters()}


def require_equal_marks(meta: nn.Module, real: nn.Module) -> None:
    """Require that plans and training mark the same parameters as not trained."""
    on_meta, on_cpu = trained_marks(meta), trained_marks(real)
    different = [name for name, mark in on_cpu.items() if on_meta.get(name) != mark]
    require(
        not different,
        f"Under torch.device('meta') build_model() marks other parameters as trained: "
        f"{some(different)}.",
        "Call requires_grad_(False) on the same parameters on every device: plans leave out what "
        "is not trained.",
    )


def require_true_reset(paradigm: Paradigm, model: nn.Module, other: nn.Module) -> None:
    """Require that ``after_growth`` sets state to what does not depend on the state before.

    Args:
        paradigm: of the models.
        model: any model.
        other: one with the same trained parameters.
    """
    disturb(other)
    results = []
    for module in (model, other):
        try:
            with must_work(
                "after_growth() fails",
                "Write the values that training begins with into the model's own tensors.",
            ):
                results.append(reset_inherited(paradigm, module))
        except Violation as violation:
            cause = violation.__cause__
            if isinstance(cause, PluginError):
                raise Violation(cause.what, cause.do) from cause
            raise
    tensors = tensors_of(model), tensors_of(other)
    dependent = [
        name for name in {*results[0], *results[1]} if not same(tensors[0][name], tensors[1][name])
    ]
    require(
        not dependent,
        f"after_growth() leaves in {some(dependent)} something of what was inherited.",
        "Overwrite the whole tensor: model.queue.zero_(), or teacher.load_state_dict(...) with the "
        "student's.",
    )


@torch.no_grad()
def disturb(model: nn.Module) -> None:
    """Change all that is not trained."""
    untrained = [param for param in model.parameters() if not param.requires_grad]
    for tensor in (*untrained, *model.buffers()):
        tensor.copy_(_another(tensor))


def _another(tensor: Tensor) -> Tensor:
    return ~tensor if tensor.dtype == torch.bool else tensor + 1
