"""Checks of the terms that a transferer returns, and of what it reads and changes."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compt.interfaces import Batch, Outputs, Transferer, accepted
from compt.testing._shared import (
    Violation,
    changed,
    is_finite_scalar,
    must_work,
    require,
    same,
    some,
)
from compt.testing.paradigms.comparison import differences

Terms = Mapping[str, Tensor]
"""Loss terms, scalars by name."""


class Reads(Mapping[str, Tensor]):
    """Outputs that note which of them are read."""

    def __init__(self, outputs: Outputs) -> None:
        self.outputs, self.read = outputs, set[str]()

    def __getitem__(self, name: str) -> Tensor:
        self.read.add(name)
        return self.outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)


def plain(outputs: Outputs) -> dict[str, Tensor]:
    """Return the outputs without gradients, as a teacher gives them."""
    return {name: tensor.detach() for name, tensor in outputs.items()}


def different_terms(first: Terms, second: Terms) -> set[str]:
    """Return the names of the terms that are not the same in two answers."""
    return {
        name
        for name in {*first, *second}
        if name not in first or name not in second or not same(first[name], second[name])
    }


def not_finite(terms: Terms) -> list[str]:
    """Return the names of the terms that are no finite scalars."""
    return [name for name, term in terms.items() if not is_finite_scalar(term)]


def terms_of(
    transferer: Transferer,
    student: Outputs,
    teacher: Outputs,
    batch: Batch,
    *,
    progress: float = 0.5,
) -> Terms:
    """Return the terms of one call, with the arguments that the core gives."""
    arguments = accepted(transferer.forward, batch=batch)
    terms: Terms = transferer(student, teacher, progress=progress, **arguments)
    return terms


def backward(transferer: Transferer, student: Outputs, teacher: Outputs, batch: Batch) -> bool:
    """Compute the gradients of all terms, and return whether there are terms."""
    terms = terms_of(transferer, student, teacher, batch)
    loss = sum(terms.values())
    if isinstance(loss, Tensor) and loss.requires_grad:
        loss.backward()
    return bool(terms)


def require_finite_terms(terms: Any, progress: float) -> None:
    """Require a dict of terms, each one finite number."""
    require(
        isinstance(terms, Mapping),
        f"forward() returns {terms!r}.",
        "Return a dict of terms by name.",
    )
    wrong = not_finite(terms)
    require(
        not wrong,
        f"At progress {progress} forward() returns terms that are no finite scalars: "
        f"{some(wrong)}.",
        "Reduce every term to one number (.mean()), and guard divisions, roots and logarithms.",
    )


def require_student_gradients(
    transferer: Transferer, student: Outputs, teacher: Outputs, batch: Batch
) -> None:
    """Require gradients for the student's outputs and all parameters of the transferer."""
    if not backward(transferer, student, teacher, batch):
        return
    require(
        any(output.grad is not None and output.grad.any() for output in student.values()),
        "No gradient reaches the student's outputs.",
        "Compute the terms of forward() from them, without detach() and outside torch.no_grad().",
    )
    unused = [n for n, p in transferer.named_parameters() if p.requires_grad and p.grad is None]
    require(
        not unused,
        f"No gradient reaches the transferer's own {some(unused)}.",
        "Make in bind() only what forward() uses, or turn requires_grad off.",
    )


def require_untouched_teacher(
    transferer: Transferer, student: Outputs, teacher: Outputs, batch: Batch
) -> None:
    """Require no gradients for the teacher's outputs, and no change of either side's."""
    sides = (student, teacher)
    values = [{name: output.detach().clone() for name, output in side.items()} for side in sides]
    with must_work(
        "forward() writes into the outputs that it is given",
        "Use no in-place operations on them.",
    ):
        backward(transferer, student, teacher, batch)
    graded = [name for name, output in teacher.items() if output.grad is not None]
    require(
        not graded,
        f"The teacher's {some(graded)} gets a gradient.",
        "Detach what forward() reads of the teacher: teacher[name].detach().",
    )
    touched = [
        name for side, old in zip(sides, values, strict=True) for name in changed(old, plain(side))
    ]
    require(
        not touched,
        f"forward() changes {some(touched)}.",
        "Use no in-place operations on outputs.",
    )


def require_true_needs(
    transferer: Transferer, other: Transferer, student: Outputs, teacher: Outputs, batch: Batch
) -> None:
    """Require that ``needs`` names what ``forward`` reads of the teacher, and no more.

    Args:
        transferer: bound to the two models.
        other: another of its kind, made and bound under the same seed.
        student: outputs of the larger model.
        teacher: outputs of the smaller model, more than needed.
        batch: what both were computed from.
    """
    needs = transferer.needs
    needed = Reads({name: output for name, output in teacher.items() if name in needs})
    do = (
        "Name every output that forward() reads of the teacher: self.needs = frozenset(...), at "
        "last in bind()."
    )
    try:
        terms = terms_of(transferer, student, needed, batch)
    except KeyError as error:
        raise Violation(
            f"forward() reads the teacher's {error}, which needs ({set(needs)}) does not name.",
            do,
        ) from error
    require(
        not different_terms(terms, terms_of(other, student, teacher, batch)),
        f"The terms change if the teacher gives more than needs ({set(needs)}).",
        do,
    )
    require(
        needs <= needed.read,
        f"needs names {some(needs - needed.read)}, which forward() does not read of the teacher.",
        "Leave it out of needs: the teacher computes it for nothing.",
    )


def require_half_precision(
    transferer: Transferer, student: Outputs, teacher: Outputs, batch: Batch
) -> None:
    """Require finite terms and gradients of large bfloat16 outputs under autocast."""
    wide = {name: 30 * output.detach().bfloat16() for name, output in teacher.items()}
    leaves = {
        name: (30 * output.detach().bfloat16()).requires_grad_() for name, output in student.items()
    }
    do = (
        "Compare in float32: student[name].float(), teacher[name].float(); guard exponentials and "
        "powers."
    )
    with (
        must_work("forward() fails on bfloat16 outputs under autocast", do),
        torch.autocast("cpu", dtype=torch.bfloat16),
    ):
        terms = terms_of(transferer, leaves, wide, batch)
        if terms:
            torch.stack([term.float() for term in terms.values()]).sum().backward()
    gradients = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    infinite = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
    wrong = [*not_finite(terms), *(f"gradient of {name}" for name in infinite)]
    require(not wrong, f"Under autocast to bfloat16 {some(wrong)} is not finite.", do)


def require_on_meta(transferer: nn.Module) -> None:
    """Require that all tensors of a transferer are on the meta device."""
    tensors = (*transferer.named_parameters(), *transferer.named_buffers())
    real = [name for name, tensor in tensors if not tensor.is_meta]
    require(
        not real,
        f"Under torch.device('meta') bind() makes {some(real)} on another device.",
        "Do not name a device in bind(): the core moves the transferer with the student.",
    )


def require_untouched_batch(
    transferer: Transferer, student: Outputs, teacher: Outputs, batch: Batch
) -> None:
    """Require that the batch stays as it is."""
    original = copy.deepcopy(dict(batch))
    with must_work(
        f"forward() fails on a batch of {some(batch)}",
        "Override batch() of the contract where it reads something else.",
    ):
        terms_of(transferer, student, teacher, batch)
    different = differences(original, batch)
    require(
        not different,
        f"forward() changes {some(different)} of the batch.",
        "Use no in-place operations on it: the paradigm reads it too.",
    )


def require_state_saved(
    transferer: Transferer, resumed: Transferer, step: Callable[[Transferer, int], Terms]
) -> None:
    """Require that what a transferer remembers of the steps before is in its state.

    Args:
        transferer: bound to the two models.
        resumed: another of its kind, made and bound under the same seed.
        step: calls a transferer on the outputs of a step, by number.
    """
    for number in range(3):
        step(transferer, number)
    file = io.BytesIO()
    with must_work(
        "The state of a transferer that was in use cannot be saved and loaded into a new one",
        "Register buffers with their final shapes in bind(), and write into them in place; "
        "get_extra_state() may return tensors, numbers and strings.",
    ):
        torch.save(transferer.state_dict(), file)
        file.seek(0)
        resumed.load_state_dict(torch.load(file, weights_only=True))
    for number in range(3, 5):
        different = different_terms(step(transferer, number), step(resumed, number))
        require(
            not different,
            f"After resuming, a transferer gives another {some(different)}.",
            "Keep what forward() remembers from step to step in buffers (register_buffer in "
            "bind(), persistent), as checkpoints hold nothing else of a transferer.",
        )
