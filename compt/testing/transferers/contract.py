"""The contract of transferers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from compt.growth.axes import describe
from compt.interfaces import Batch, Transferer
from compt.registry import TRANSFERERS
from compt.testing._chains import by_name, require_results, toy_chain, trained
from compt.testing._contract import Contract, require_fitting_rules, require_signatures
from compt.testing._shared import (
    Violation,
    described,
    must_work,
    require,
    seeded,
    some,
)
from compt.testing.toy import Toy, ToyNet
from compt.testing.transferers.terms import (
    Terms,
    different_terms,
    not_finite,
    plain,
    require_finite_terms,
    require_half_precision,
    require_on_meta,
    require_state_saved,
    require_student_gradients,
    require_true_needs,
    require_untouched_batch,
    require_untouched_teacher,
    terms_of,
)

STUDENT, TEACHER = 20, 12
"""Widths of what the contract compares, the student being the larger model."""


class TransfererContract(Contract):
    """Tests that a transferer teaches the student, and leaves the teacher alone.

    Usage, in a plug-in's own tests::

        class TestMine(compt.testing.TransfererContract):
            transfer = dict(type="mine", weight=0.5)
    """

    transfer: ClassVar[Mapping[str, Any]]
    features: ClassVar[tuple[str, ...]] = ("features",)
    """The outputs to offer, ``[batch, width]`` each."""
    tokens: ClassVar[bool] = True
    """Whether outputs may have tokens, ``[batch, tokens, width]``, as those of paradigms may."""

    def make(self, teacher: int = TEACHER, student: int = STUDENT) -> Transferer:
        """Return the transferer, bound to a teacher and a student of these widths.

        Override it where the widths must be equal.
        """
        transferer = self._build()
        archs = []
        for width in (teacher, student):
            widths = dict.fromkeys(self.features, width)
            archs.append(replace(describe(ToyNet(width, 1)), features=widths, outputs=widths))
        with must_work(
            f"bind() fails between {teacher} units in the teacher and {student} in the student",
            "Make a projection where widths differ; override make() and outputs() where they must "
            "be equal.",
        ):
            transferer.bind(*archs)
        return transferer

    def outputs(self, width: int, seed: int) -> dict[str, Tensor]:
        """Return random outputs of every name in ``features``."""
        generator = torch.Generator().manual_seed(seed)
        return {
            name: torch.randn(8, width, generator=generator).requires_grad_()
            for name in self.features
        }

    def batch(self) -> Batch:
        """Return what the outputs were computed from: labels and numbers of eight samples.

        Override it where the transferer reads something else.
        """
        return {"label": torch.arange(8) % 4, "index": torch.arange(8) + 3}

    def chain(self) -> dict[str, Any]:
        """Return the config of the chain to try the transferer in.

        It is of a toy that has outputs of every name in ``features``.
        """
        narrow, wide = self.outputs(TEACHER, 0), self.outputs(STUDENT, 0)
        aliases = {}
        for name in self.features:
            if name not in Toy.outputs:
                # logits are as wide in all members of the toy, features are not
                equal = narrow[name].shape == wide[name].shape
                aliases[name] = "logits" if equal else "features"
        return toy_chain(aliases=aliases)

    # What is checked

    def test_methods_take_what_the_core_gives(self) -> None:
        """Require the signatures of the interface."""
        require_signatures(self._build(), Transferer)

    def test_terms_are_finite_scalars(self) -> None:
        """Require one finite number of every term, from the beginning of a stage to its end."""
        for progress in (0.0, 0.5, 1.0):
            require_finite_terms(self._terms(progress=progress), progress)

    def test_terms_are_unweighted(self) -> None:
        """Require terms in which ``weight`` has no part, as the core multiplies by it."""
        light, heavy = self._seeded(), self._seeded()
        heavy.weight = 7.0 * light.weight + 1.0
        require(
            not different_terms(self._terms(light), self._terms(heavy)),
            "The terms of forward() change with weight.",
            "Return them unweighted: the core multiplies by strength(progress).",
        )

    def test_strength_is_a_weight(self) -> None:
        """Require a finite weight, never negative, and a limit that is a positive share."""
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
        """Require gradients for the student's outputs and all parameters of the transferer."""
        student, teacher = self._both_sides()
        require_student_gradients(self.make(), student, teacher, self.batch())

    def test_the_teacher_does_not(self) -> None:
        """Require no gradients for the teacher's outputs, and no change of either side's."""
        student, teacher = self.outputs(STUDENT, 0), self.outputs(TEACHER, 1)
        require_untouched_teacher(self.make(), student, teacher, self.batch())

    def test_needs_are_what_it_reads(self) -> None:
        """Require that ``needs`` names what ``forward`` reads of the teacher, and no more."""
        transferer = self._seeded()
        needs = transferer.needs
        require(
            isinstance(needs, frozenset) and needs <= set(self.features),
            f"needs is {needs!r} after bind(), and the contract offers {self.features}.",
            "Set self.needs = frozenset(...) in bind(); name in the contract's features what it "
            "can be.",
        )
        require_true_needs(transferer, self._seeded(), *self._both_sides(), self.batch())

    def test_leaves_the_batch_alone(self) -> None:
        """Require that a batch is read and not changed."""
        require_untouched_batch(self.make(), *self._both_sides(), self.batch())

    def test_same_seed_same_terms(self) -> None:
        """Require the same terms of two that were bound and run under one seed."""
        first, second = (self._terms(self._seeded()) for _ in range(2))
        different = different_terms(first, second)
        require(
            not different,
            f"Under one seed, {some(different)} has two values.",
            "Draw only from the global random states, which resuming puts back; keep nothing "
            "outside the transferer.",
        )

    def test_heads_are_saved(self) -> None:
        """Require the same terms of a second transferer with the first one's state."""
        first, second = self._seeded(0), self._seeded(1)
        with must_work(
            "The state of one transferer cannot be loaded into another of the same widths",
            "Make the same parameters in every bind() between the same two Architectures.",
        ):
            second.load_state_dict(first.state_dict())
        different = different_terms(self._terms(first), self._terms(second))
        require(
            not different,
            f"With the state of another, a transferer gives another {some(different)}.",
            "Keep what bind() makes in parameters or buffers (nn.Parameter, register_buffer, "
            "nn.ModuleDict).",
        )

    def test_state_is_saved(self) -> None:
        """Require that one that is resumed goes on from what the steps before left in it."""

        def step(transferer: Transferer, number: int) -> Terms:
            student = self.outputs(STUDENT, 10 + number)
            teacher = plain(self.outputs(TEACHER, 20 + number))
            with seeded(number):
                return terms_of(transferer, student, teacher, self.batch())

        require_state_saved(self._seeded(), self._seeded(), step)

    def test_buffers_have_known_rules(self) -> None:
        """Require of ``buffer_rules`` that each is known and fits a buffer of the transferer."""
        transferer = self.make()
        require_fitting_rules(transferer.buffer_rules, transferer)

    def test_binds_on_meta(self) -> None:
        """Require that it binds on the meta device, as the planner does."""
        self.make()
        try:
            with torch.device("meta"):
                transferer = self.make()
        except Exception as error:
            reason = described(error.__cause__ or error)
            raise Violation(
                f"bind() fails under torch.device('meta'), where plans call it: {reason}",
                "Read no values of tensors in bind(), and do not name a device.",
            ) from error
        require_on_meta(transferer)

    def test_works_on_tokens(self) -> None:
        """Require that outputs [batch, tokens, width] are as good as [batch, width]."""
        if not self.tokens:
            return
        student, teacher = map(_with_tokens, self._both_sides())
        do = (
            "Work on the last dimension alone (.mean(-1)); set tokens = False in the contract if "
            "it cannot be."
        )
        with must_work("forward() fails on outputs [batch, tokens, width]", do):
            terms = terms_of(self.make(), student, teacher, self.batch())
        wrong = not_finite(terms)
        require(
            not wrong, f"Of outputs [batch, tokens, width] {some(wrong)} is no finite scalar.", do
        )

    def test_works_in_half_precision(self) -> None:
        """Require finite terms and gradients of large outputs under autocast to bfloat16."""
        require_half_precision(self.make(), *self._both_sides(), self.batch())

    def test_trains_a_chain(self, tmp_path: Path) -> None:
        """Train a chain of three small members with it, in seconds."""
        do = "Mend what it says; override chain() if the transferer is not for the toy's outputs."
        with by_name(TRANSFERERS, self.transfer) as transfer:
            config = {**self.chain(), "transfer": transfer}
            trained(config, tmp_path / "chain", do)
            require_results(config, tmp_path / "chain")

    # How it is done

    def plugin_class(self) -> type:
        """Return the class of the transferer."""
        return type(self._build())

    def _build(self) -> Transferer:
        transferer: Transferer = TRANSFERERS.build(dict(self.transfer))
        return transferer

    def _seeded(self, seed: int = 0) -> Transferer:
        """Return a transferer that was made under a seed."""
        with seeded(seed):
            return self.make()

    def _both_sides(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return outputs of a student and of a teacher."""
        return self.outputs(STUDENT, 0), plain(self.outputs(TEACHER, 1))

    def _terms(self, transferer: Transferer | None = None, *, progress: float = 0.5) -> Terms:
        """Return the terms of one call, under a seed."""
        transferer = transferer or self.make()
        with seeded(2):
            return terms_of(transferer, *self._both_sides(), self.batch(), progress=progress)


def _with_tokens(outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return outputs [batch, 3, width] of outputs [batch, width]."""
    return {name: torch.stack([x, 2 * x, x + 1], dim=1) for name, x in outputs.items()}
