"""What every transferer is held to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from compt.growth.axes import describe
from compt.interfaces import Outputs, Transferer
from compt.registry import TRANSFERERS
from compt.testing._chains import by_name, require_results, toy_chain, trained
from compt.testing._shared import (
    Violation,
    changed,
    described,
    is_finite_scalar,
    must_work,
    require,
    require_signatures,
    same,
    seeded,
    some,
)
from compt.testing.toy import Toy, ToyNet

STUDENT, TEACHER = 20, 12
"""Widths of what the contract compares; the student is the larger model."""
Terms = Mapping[str, Tensor]


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


class TransfererContract:
    """A transferer returns finite scalars with gradients for the student, and none for the teacher.

    Usage, in a plug-in's own tests::

        class TestMine(compt.testing.TransfererContract):
            transfer = dict(type="mine", weight=0.5)
    """

    transfer: ClassVar[Mapping[str, Any]]
    features: ClassVar[tuple[str, ...]] = ("features",)
    """Outputs to offer, ``[batch, width]`` each."""
    tokens: ClassVar[bool] = True
    """Whether outputs may have tokens, ``[batch, tokens, width]``, as those of paradigms may."""

    def make(self, teacher: int = TEACHER, student: int = STUDENT) -> Transferer:
        """The transferer, bound to a teacher and a student of these widths: override it where they
        must be equal.
        """
        transferer: Transferer = TRANSFERERS.build(dict(self.transfer))
        archs = []
        for width in (teacher, student):
            widths = dict.fromkeys(self.features, width)
            archs.append(replace(describe(ToyNet(width, 1)), features=widths, outputs=widths))
        with must_work(
            f"bind() fails between {teacher} units in the teacher and {student} in the student",
            "Make a projection where widths differ; override make() and outputs() where they must be equal.",
        ):
            transferer.bind(*archs)
        return transferer

    def outputs(self, width: int, seed: int) -> dict[str, Tensor]:
        """Random outputs of every name in ``features``."""
        generator = torch.Generator().manual_seed(seed)
        return {
            n: torch.randn(8, width, generator=generator).requires_grad_() for n in self.features
        }

    def chain(self) -> dict[str, Any]:
        """Config of the chain to try the transferer in: a toy that has outputs of every name in
        ``features``.
        """
        narrow, wide = self.outputs(TEACHER, 0), self.outputs(STUDENT, 0)
        alike = {
            n: "logits" if narrow[n].shape == wide[n].shape else "features" for n in self.features
        }
        return toy_chain(aliases={n: output for n, output in alike.items() if n not in Toy.outputs})

    # What is checked

    def test_methods_take_what_the_core_gives(self) -> None:
        """Signatures are those of the interface."""
        require_signatures(TRANSFERERS.build(dict(self.transfer)), Transferer)

    def test_terms_are_finite_scalars(self) -> None:
        """Every term is one finite number, from the beginning of a stage to its end."""
        for progress in (0.0, 0.5, 1.0):
            terms = self._terms(progress=progress)
            require(
                isinstance(terms, Mapping),
                f"forward() returns {terms!r}.",
                "Return a dict of terms by name.",
            )
            wrong = [name for name, term in terms.items() if not is_finite_scalar(term)]
            require(
                not wrong,
                f"At progress {progress} forward() returns terms that are no finite scalars: {some(wrong)}.",
                "Reduce every term to one number (.mean()), and guard divisions, roots and logarithms.",
            )

    def test_terms_are_unweighted(self) -> None:
        """The core multiplies the terms by ``strength``; ``weight`` has no part in them."""
        light, heavy = self._seeded_make(), self._seeded_make()
        heavy.weight = 7.0 * light.weight + 1.0
        require(
            not _different(self._terms(light), self._terms(heavy)),
            "The terms of forward() change with weight.",
            "Return them unweighted: the core multiplies by strength(progress).",
        )

    def test_strength_is_a_weight(self) -> None:
        """The weight is a finite number, not negative, all along the stage, and a limit is a
        positive share.
        """
        transferer = self.make()
        for progress in (i / 10 for i in range(11)):
            strength = transferer.strength(progress)
            require(
                isinstance(strength, (int, float)) and 0 <= strength < math.inf,
                f"strength({progress}) is {strength!r}.",
                "Return a finite number of at least 0; at 0 the teacher is not run.",
            )
        require(
            transferer.limit is None or transferer.limit > 0,
            f"limit is {transferer.limit!r}.",
            "Set limit to the largest share of the task loss that the terms may reach, or None.",
        )

    def test_the_student_learns(self) -> None:
        """Gradients reach the student's outputs and every trainable parameter of the transferer."""
        transferer, student = self.make(), self.outputs(STUDENT, 0)
        teacher = {n: t.detach() for n, t in self.outputs(TEACHER, 1).items()}
        if not self._backward(transferer, student, teacher):
            return
        require(
            any(t.grad is not None and t.grad.any() for t in student.values()),
            "No gradient reaches the student's outputs.",
            "Compute the terms of forward() from them, without detach() and outside torch.no_grad().",
        )
        unused = [n for n, p in transferer.named_parameters() if p.requires_grad and p.grad is None]
        require(
            not unused,
            f"No gradient reaches the transferer's own {some(unused)}.",
            "Make in bind() only what forward() uses, or turn requires_grad off.",
        )

    def test_the_teacher_does_not(self) -> None:
        """No gradient flows into the teacher's outputs, and neither side's outputs are changed."""
        transferer, student, teacher = (
            self.make(),
            self.outputs(STUDENT, 0),
            self.outputs(TEACHER, 1),
        )
        before = {
            side: {n: t.detach().clone() for n, t in o.items()}
            for side, o in (("s", student), ("t", teacher))
        }
        with must_work(
            "forward() writes into the outputs that it is given",
            "Use no in-place operations on them.",
        ):
            self._backward(transferer, student, teacher)
        graded = [n for n, t in teacher.items() if t.grad is not None]
        require(
            not graded,
            f"The teacher's {some(graded)} gets a gradient.",
            "Detach what forward() reads of the teacher: teacher[name].detach().",
        )
        touched = [*changed(before["s"], _plain(student)), *changed(before["t"], _plain(teacher))]
        require(
            not touched,
            f"forward() changes {some(touched)}.",
            "Use no in-place operations on outputs.",
        )

    def test_needs_are_what_it_reads(self) -> None:
        """The teacher gives no more than ``needs``, which is complete once ``bind`` has run."""
        transferer, student, teacher = (
            self._seeded_make(),
            self.outputs(STUDENT, 0),
            _plain(self.outputs(TEACHER, 1)),
        )
        needs = transferer.needs
        require(
            isinstance(needs, frozenset) and needs <= set(self.features),
            f"needs is {needs!r} after bind(), and the contract offers {self.features}.",
            "Set self.needs = frozenset(...) in bind(); name in the contract's features what it can be.",
        )
        given = Reads({n: t for n, t in teacher.items() if n in needs})
        do = "Name every output that forward() reads of the teacher: self.needs = frozenset(...), at last in bind()."
        try:
            terms = transferer(student, given, progress=0.5)
        except KeyError as error:
            raise Violation(
                f"forward() reads the teacher's {error}, which needs ({set(needs)}) does not name.",
                do,
            ) from error
        require(
            not _different(terms, self._seeded_make()(student, teacher, progress=0.5)),
            f"The terms change if the teacher gives more than needs ({set(needs)}).",
            do,
        )
        require(
            needs <= given.read,
            f"needs names {some(needs - given.read)}, which forward() does not read of the teacher.",
            "Leave it out of needs: the teacher computes it for nothing.",
        )

    def test_same_seed_same_terms(self) -> None:
        """Two that were bound and run under one seed give the same terms."""
        first, second = (self._terms(self._seeded_make()) for _ in range(2))
        different = _different(first, second)
        require(
            not different,
            f"Under one seed, {some(different)} has two values.",
            "Draw only from the global random states, which resuming puts back; keep nothing outside the transferer.",
        )

    def test_heads_are_saved(self) -> None:
        """A second transferer with the first one's state gives the same terms."""
        one, two = self._seeded_make(0), self._seeded_make(1)
        with must_work(
            "The state of one transferer cannot be loaded into another of the same widths",
            "Make the same parameters in every bind() between the same two Architectures.",
        ):
            two.load_state_dict(one.state_dict())
        different = _different(self._terms(one), self._terms(two))
        require(
            not different,
            f"With the state of another, a transferer gives another {some(different)}.",
            "Keep what bind() makes in parameters or buffers (nn.Parameter, register_buffer, nn.ModuleDict).",
        )

    def test_binds_on_meta(self) -> None:
        """The planner binds without memory."""
        self.make()
        try:
            with torch.device("meta"):
                transferer = self.make()
        except Exception as error:
            raise Violation(
                f"bind() fails under torch.device('meta'), where plans call it: {described(error.__cause__ or error)}",
                "Read no values of tensors in bind(), and do not name a device.",
            ) from error
        real = [
            n
            for n, t in (*transferer.named_parameters(), *transferer.named_buffers())
            if not t.is_meta
        ]
        require(
            not real,
            f"Under torch.device('meta') bind() makes {some(real)} on another device.",
            "Do not name a device in bind(): the core moves the transferer with the student.",
        )

    def test_works_on_tokens(self) -> None:
        """Outputs [batch, tokens, width] are as good as [batch, width]."""
        if not self.tokens:
            return
        student, teacher = (
            {n: torch.stack([t, 2 * t, t + 1], dim=1) for n, t in o.items()} for o in self._both()
        )
        do = "Work on the last dimension alone (.mean(-1)); set tokens = False in the contract if it cannot be."
        with must_work("forward() fails on outputs [batch, tokens, width]", do):
            terms = self.make()(student, teacher, progress=0.5)
        wrong = [name for name, term in terms.items() if not is_finite_scalar(term)]
        require(
            not wrong, f"Of outputs [batch, tokens, width] {some(wrong)} is no finite scalar.", do
        )

    def test_works_in_half_precision(self) -> None:
        """Under autocast to bfloat16, terms and gradients of large outputs are finite."""
        transferer = self.make()
        student, teacher = (
            {n: 30 * t.detach().bfloat16() for n, t in o.items()} for o in self._both()
        )
        student = {n: t.requires_grad_() for n, t in student.items()}
        do = "Compare in float32: student[name].float(), teacher[name].float(); guard exponentials and powers."
        with (
            must_work("forward() fails on bfloat16 outputs under autocast", do),
            torch.autocast("cpu", dtype=torch.bfloat16),
        ):
            terms = transferer(student, teacher, progress=0.5)
            if terms:
                torch.stack([term.float() for term in terms.values()]).sum().backward()
        wrong = [name for name, term in terms.items() if not is_finite_scalar(term)]
        wrong += [
            f"gradient of {n}"
            for n, t in student.items()
            if t.grad is not None and not t.grad.isfinite().all()
        ]
        require(not wrong, f"Under autocast to bfloat16 {some(wrong)} is not finite.", do)

    def test_trains_a_chain(self, tmp_path: Path) -> None:
        """A chain of three small members is trained with it, in seconds."""
        do = "Mend what it says; override chain() if the transferer is not for the toy's outputs."
        with by_name(TRANSFERERS, self.transfer) as transfer:
            config = {**self.chain(), "transfer": transfer}
            trained(config, tmp_path / "chain", do)
            require_results(config, tmp_path / "chain")

    # How it is done

    def _seeded_make(self, seed: int = 0) -> Transferer:
        with seeded(seed):
            return self.make()

    def _both(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Outputs of a student and a teacher."""
        return self.outputs(STUDENT, 0), _plain(self.outputs(TEACHER, 1))

    def _terms(self, transferer: Transferer | None = None, *, progress: float = 0.5) -> Terms:
        """The terms of one call, under a seed."""
        transferer = transferer or self.make()
        with seeded(2):
            return transferer(*self._both(), progress=progress)

    def _backward(self, transferer: Transferer, student: Outputs, teacher: Outputs) -> bool:
        """Run one step; False where there is nothing to learn."""
        terms = transferer(student, teacher, progress=0.5)
        total = sum(terms.values())
        if isinstance(total, Tensor) and total.requires_grad:
            total.backward()
        return bool(terms)


def _plain(outputs: Outputs) -> dict[str, Tensor]:
    """Without gradients, as a teacher gives them."""
    return {name: tensor.detach() for name, tensor in outputs.items()}


def _different(one: Terms, other: Terms) -> set[str]:
    """Names of the terms that are not the same in both."""
    return {
        n for n in {*one, *other} if n not in one or n not in other or not same(one[n], other[n])
    }
