"""The contract of transferers, which passes good ones and catches broken ones."""

from __future__ import annotations

import os

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compt.errors import ConfigError
from compt.interfaces import Transferer
from compt.testing import TransfererContract
from tests.testing.broken import (
    Case,
    blamed_alone,
    check,
    check_complete,
    check_good,
    check_others,
    outcome,
)


class Good(Transferer):
    """One minus the cosine of projected features, from which broken ones derive."""

    def __init__(self, *, weight=1.0, until=1.0):
        super().__init__(weight=weight, until=until)
        self.heads = nn.ModuleDict()

    def bind(self, teacher, student):
        self.needs = frozenset(teacher.features)
        for name, width in teacher.features.items():
            self.heads[name] = nn.Linear(student.features[name], width, bias=False)

    def distance(self, student, teacher):
        return 1 - F.cosine_similarity(student.float(), teacher.float(), dim=-1).mean()

    def forward(self, student, teacher, *, progress):
        return {
            n: self.distance(self.heads[n](student[n]), teacher[n].detach())
            for n in sorted(self.needs)
        }


class TwoFeatures(TransfererContract):
    transfer = dict(type=Good, weight=2.0, until=0.5)
    features = ("image", "text")


class Classes(TransfererContract):
    """Of outputs that are equally wide in both models."""

    features = ("scores",)
    transfer = dict(type="logit_kl", output="scores")

    def make(self, teacher=20, student=20):
        return super().make(teacher, student)

    def outputs(self, width, seed):
        return super().outputs(20, seed)


class Centred(Good):
    """Pulls each student to a running mean of the teacher's features for its label."""

    buffer_rules = {"means.*": "mean"}
    sample_index = True

    def bind(self, teacher, student):
        super().bind(teacher, student)
        self.means = nn.Module()
        for name, width in teacher.features.items():
            self.means.register_buffer(name, torch.zeros(10, width))

    def forward(self, student, teacher, *, progress, batch):
        assert len(batch["index"]) == len(batch["label"])
        terms = {}
        for name in sorted(self.needs):
            means = getattr(self.means, name)
            with torch.no_grad():
                for label in batch["label"].unique():
                    features = teacher[name][batch["label"] == label].flatten(0, -2)
                    means[label] = 0.9 * means[label] + 0.1 * features.float().mean(0)
            target = means[batch["label"]].clone()
            target = target if student[name].ndim == 2 else target[:, None]
            terms[name] = self.distance(self.heads[name](student[name]), target)
        return terms


class WithState(TransfererContract):
    transfer = dict(type=Centred)


@pytest.mark.parametrize("good", [TwoFeatures, Classes, WithState], ids=lambda c: c.__name__)
def test_good_transferers_pass(good, tmp_path):
    check_good(good, tmp_path)


def test_the_toy_has_outputs_of_all_names():
    assert TwoFeatures().chain()["paradigm"]["aliases"] == {"image": "features", "text": "features"}
    assert Classes().chain()["paradigm"]["aliases"] == {"scores": "logits"}
    assert type("Own", (TransfererContract,), {})().chain()["paradigm"]["aliases"] == {}


def test_widths_that_must_be_equal_are_said_to_be_the_authors(tmp_path):
    class Unequal(TransfererContract):
        transfer = dict(type="logit_kl", output="features")

    error = outcome(Unequal, "test_terms_are_finite_scalars", tmp_path)
    assert isinstance(error, AssertionError) and "override make() and outputs()" in str(error)


def test_a_transferer_of_vectors_alone_may_say_so(tmp_path):
    assert (
        outcome(
            type("Vectors", (contract(OfVectors),), {"tokens": False}),
            "test_works_on_tokens",
            tmp_path,
        )
        is None
    )


# Broken transferers


class LacksProgress(Good):
    def forward(self, student, teacher):
        return {}


class ReturnsAList(Good):
    def forward(self, student, teacher, *, progress):
        return list(super().forward(student, teacher, progress=progress).values())


class InfiniteAtTheEnd(Good):
    def forward(self, student, teacher, *, progress):
        return {
            n: t / (1 - progress)
            for n, t in super().forward(student, teacher, progress=progress).items()
        }


class NotReduced(Good):
    def forward(self, student, teacher, *, progress):
        return {
            n: torch.stack([t, t])
            for n, t in super().forward(student, teacher, progress=progress).items()
        }


class Weighted(Good):
    def forward(self, student, teacher, *, progress):
        return {
            n: self.weight * t
            for n, t in super().forward(student, teacher, progress=progress).items()
        }


class NegativeAtTheEnd(Good):
    def strength(self, progress):
        return 0.5 - progress


class NoLimit(Good):
    limit = 0.0


class StudentDetached(Good):
    def forward(self, student, teacher, *, progress):
        return super().forward(
            {n: t.detach() for n, t in student.items()}, teacher, progress=progress
        )


class UnusedHead(Good):
    def bind(self, teacher, student):
        super().bind(teacher, student)
        self.spare = nn.Linear(2, 2)


class TeacherLearns(Good):
    def forward(self, student, teacher, *, progress):
        return {n: self.distance(self.heads[n](student[n]), teacher[n]) for n in sorted(self.needs)}


class ChangesTheStudent(Good):
    def forward(self, student, teacher, *, progress):
        for tensor in student.values():
            tensor.data.add_(1)
        return super().forward(student, teacher, progress=progress)


class WritesIntoTheTeacher(Good):
    def forward(self, student, teacher, *, progress):
        for name in self.needs:
            teacher[name].mul_(1)
        return super().forward(student, teacher, progress=progress)


class HidesWhatItReads(Good):
    def bind(self, teacher, student):
        super().bind(teacher, student)
        self.hidden, self.needs = self.needs, frozenset()

    def forward(self, student, teacher, *, progress):
        return {
            n: self.distance(self.heads[n](student[n]), teacher[n].detach())
            for n in sorted(self.hidden)
        }


class ReadsWhatThereIs(Good):
    def bind(self, teacher, student):
        super().bind(teacher, student)
        self.needs = frozenset()

    def forward(self, student, teacher, *, progress):
        terms = {
            n: self.distance(self.heads[n](student[n]), teacher[n].detach())
            for n in sorted(teacher)
        }
        return terms or {
            "features": 0 * student["features"].sum() + 0 * self.heads["features"].weight.sum()
        }


class NeedsTooMuch(Good):
    def forward(self, student, teacher, *, progress):
        zero = sum((0 * self.heads[n](student[n]).sum() for n in self.needs), start=torch.zeros(()))
        return {"drift": zero + student["features"].square().mean()}


class NeedsAList(Good):
    def bind(self, teacher, student):
        super().bind(teacher, student)
        self.needs = list(self.needs)


class DrawsOutside(Good):
    def forward(self, student, teacher, *, progress):
        own = torch.Generator().manual_seed(int.from_bytes(os.urandom(4), "little"))
        terms = super().forward(student, teacher, progress=progress)
        return {n: t * (1 + torch.rand((), generator=own)) for n, t in terms.items()}


class HeadsNotSaved(Good):
    def bind(self, teacher, student):
        self.needs = frozenset(teacher.features)
        self.bare = {n: torch.randn(w, student.features[n]) for n, w in teacher.features.items()}

    def forward(self, student, teacher, *, progress):
        return {
            n: self.distance(F.linear(student[n], self.bare[n]), teacher[n].detach())
            for n in sorted(self.needs)
        }


class RemembersInAList(Good):
    def bind(self, teacher, student):
        super().bind(teacher, student)
        self.seen = []

    def forward(self, student, teacher, *, progress):
        terms = super().forward(student, teacher, progress=progress)
        self.seen.append(teacher["features"].detach().mean())
        return {name: term * sum(self.seen) / len(self.seen) for name, term in terms.items()}


class GrowsItsBuffer(Good):
    def bind(self, teacher, student):
        super().bind(teacher, student)
        self.register_buffer("queue", torch.zeros(0, teacher.features["features"]))

    def forward(self, student, teacher, *, progress):
        self.queue = torch.cat([self.queue, teacher["features"].flatten(0, -2).detach()])
        return super().forward(student, teacher, progress=progress)


class WritesIntoTheBatch(Good):
    def forward(self, student, teacher, *, progress, batch):
        batch["label"].add_(1)
        return super().forward(student, teacher, progress=progress)


class ReadsAnotherKey(Good):
    def forward(self, student, teacher, *, progress, batch):
        return super().forward(student, teacher, progress=progress * len(batch["caption"]))


class RuleForNoBuffer(Good):
    buffer_rules = {"centre": "mean"}


class OtherHeadsEachTime(Good):
    def bind(self, teacher, student):
        super().bind(teacher, student)
        number = int(torch.randint(10**6, ()).item()) if not torch.empty(0).is_meta else 0
        self.register_buffer(f"number_{number}", torch.zeros(1))


class ReadsValues(Good):
    def bind(self, teacher, student):
        super().bind(teacher, student)
        self.size = float(sum(head.weight.norm() for head in self.heads.values()))


class NamesADevice(Good):
    def bind(self, teacher, student):
        super().bind(teacher, student)
        self.register_buffer("centre", torch.zeros(1, device="cpu"))


class OfVectors(Good):
    def distance(self, student, teacher):
        student, teacher = (
            F.normalize(student.float(), dim=-1),
            F.normalize(teacher.float(), dim=-1),
        )
        return 1 - torch.einsum("bd,bd->b", student, teacher).mean()


class TokensNotReduced(Good):
    def distance(self, student, teacher):
        return 1 - F.cosine_similarity(student.float(), teacher.float(), dim=-1).mean(0)


class Overflows(Good):
    def distance(self, student, teacher):
        return super().distance(student, teacher) + 1e-30 * student.pow(40).mean()


class FailsInHalf(Good):
    def distance(self, student, teacher):
        return super().distance(student, teacher) + 0 * float(teacher.numpy().max())


class ExpectsOneOutput(Good):
    """Works on the contract's architectures, and not on those of a chain."""

    def bind(self, teacher, student):
        if set(student.outputs) != set(student.features):
            raise ConfigError("There are more outputs than features.")
        super().bind(teacher, student)


def contract(transferer: type[Transferer]) -> type:
    return type(transferer.__name__, (TransfererContract,), {"transfer": dict(type=transferer)})


NEEDS = ("test_needs_are_what_it_reads",)
CASES = [
    Case(contract(LacksProgress), "test_methods_take_what_the_core_gives", "def forward(", None),
    Case(contract(ReturnsAList), "test_terms_are_finite_scalars", "Return a dict", None),
    Case(contract(InfiniteAtTheEnd), "test_terms_are_finite_scalars", "guard divisions"),
    Case(contract(NotReduced), "test_terms_are_finite_scalars", "Reduce every term", None),
    Case(contract(Weighted), "test_terms_are_unweighted", "Return them unweighted"),
    Case(
        contract(NegativeAtTheEnd),
        "test_strength_is_a_weight",
        "Return a finite number of at least 0",
    ),
    Case(contract(NoLimit), "test_strength_is_a_weight", "Set limit to"),
    Case(contract(StudentDetached), "test_the_student_learns", "without detach()"),
    Case(
        contract(UnusedHead), "test_the_student_learns", "Make in bind() only what forward() uses"
    ),
    Case(contract(TeacherLearns), "test_the_teacher_does_not", "teacher[name].detach()"),
    Case(contract(ChangesTheStudent), "test_the_teacher_does_not", "no in-place operations", NEEDS),
    Case(contract(WritesIntoTheTeacher), "test_the_teacher_does_not", "no in-place operations"),
    Case(
        contract(HidesWhatItReads),
        "test_needs_are_what_it_reads",
        "Name every output that forward() reads",
    ),
    Case(
        contract(ReadsWhatThereIs),
        "test_needs_are_what_it_reads",
        "Name every output that forward() reads",
    ),
    Case(contract(NeedsTooMuch), "test_needs_are_what_it_reads", "Leave it out of needs"),
    Case(contract(NeedsAList), "test_needs_are_what_it_reads", "Set self.needs = frozenset(...)"),
    Case(
        contract(DrawsOutside),
        "test_same_seed_same_terms",
        "Draw only from the global random states",
        ("test_terms_are_unweighted", "test_heads_are_saved", "test_state_is_saved", *NEEDS),
    ),
    Case(contract(RemembersInAList), "test_state_is_saved", "in buffers (register_buffer"),
    Case(contract(GrowsItsBuffer), "test_state_is_saved", "with their final shapes in bind()"),
    Case(contract(WritesIntoTheBatch), "test_leaves_the_batch_alone", "no in-place operations"),
    Case(contract(ReadsAnotherKey), "test_leaves_the_batch_alone", "Override batch() of the", None),
    Case(contract(RuleForNoBuffer), "test_buffers_have_known_rules", "with register_buffer()"),
    Case(contract(HeadsNotSaved), "test_heads_are_saved", "in parameters or buffers"),
    Case(
        contract(OtherHeadsEachTime),
        "test_heads_are_saved",
        "Make the same parameters in every bind()",
    ),
    Case(contract(ReadsValues), "test_binds_on_meta", "Read no values of tensors in bind()"),
    Case(contract(NamesADevice), "test_binds_on_meta", "Do not name a device in bind()"),
    Case(contract(OfVectors), "test_works_on_tokens", "set tokens = False"),
    Case(contract(TokensNotReduced), "test_works_on_tokens", "set tokens = False"),
    Case(contract(Overflows), "test_works_in_half_precision", "Compare in float32"),
    Case(contract(FailsInHalf), "test_works_in_half_precision", "Compare in float32"),
    Case(contract(ExpectsOneOutput), "test_trains_a_chain", "override chain()"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_every_broken_transferer_is_caught(case, tmp_path):
    check(case, tmp_path)


@pytest.mark.parametrize("case", blamed_alone(CASES))
def test_no_other_test_blames_a_broken_transferer(case, tmp_path):
    check_others(case, tmp_path)


def test_every_test_of_the_contract_can_fail():
    check_complete(TransfererContract, CASES)
