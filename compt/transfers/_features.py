"""Choose the features that a transfer compares, and project them where widths differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compt.errors import ConfigError
from compt.interfaces import Architecture, Outputs, Schedule, Transferer
from compt.registry import Range

Matching = Literal["same", "pool", "interpolate"]
INTERPOLATED = {1: "linear", 2: "bilinear"}
"""How tokens are interpolated, by the number of their dimensions."""


class FeatureTransfer(Transferer):
    """Compares features of student and teacher, one pair after the other.

    Args:
        weight, until, schedule: as of :class:`~compt.interfaces.Transferer`.
        features: outputs to compare, ``[batch, ..., width]`` each; the paradigm's own
            ``features`` by default.
        limit: largest share of the task loss that the weighted loss may reach ("L_IFD <
            L_task" in the paper); None: no limit.
        tokens: how features of several tokens are matched, ``[batch, tokens, width]`` or
            ``[batch, rows, columns, width]``: 'same' where both models have as many; 'pool'
            compares their means; 'interpolate' brings the student's to the teacher's number,
            in their order, by means of neighbours where it has more, in lines where it has less.
    """

    projected = True
    """Whether a linear projection takes the student's features to a teacher's other width."""
    averages_tokens = False
    """Whether tokens are averaged whatever their number, so that it may differ."""

    def __init__(
        self,
        *,
        weight: float = 1.0,
        until: float = 1.0,
        schedule: Schedule = "constant",
        features: Sequence[str] | None = None,
        limit: Annotated[float, Range(positive=True)] | None = 0.9,
        tokens: Matching = "same",
    ) -> None:
        super().__init__(weight=weight, until=until, schedule=schedule)
        if tokens not in get_args(Matching):
            raise ConfigError(
                f"tokens={tokens!r} is not known.", do=f"One of {get_args(Matching)}."
            )
        self.tokens = tokens
        self.features = None if features is None else tuple(features)
        self.needs = frozenset(self.features or ())
        self.limit = limit
        self.heads = nn.ModuleDict()

    def bind(self, teacher: Architecture, student: Architecture) -> None:
        """Choose the features, and make a projection for each whose width differs.

        Raises:
            ConfigError: neither the config nor the paradigm names features, or those of student
                and teacher have tokens that cannot be matched.
        """
        self.features = self.features or tuple(student.features)
        if not self.features:
            raise ConfigError(
                f"The transfer {type(self).__name__} has no features to compare.",
                do="Name them: transfer=dict(type=..., features=[...]).",
            )
        self.needs = frozenset(self.features)
        for name in self.features:
            student_width, teacher_width = (
                (arch.outputs or arch.features)[name] for arch in (student, teacher)
            )
            self._check_tokens(name, student.tokens.get(name), teacher.tokens.get(name))
            if self.projected and student_width != teacher_width:
                self.heads[name] = nn.Linear(student_width, teacher_width, bias=False)

    def pairs(self, student: Outputs, teacher: Outputs) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each feature of the student, projected, with the teacher's."""
        for name in self.features or ():
            feature, target = matched(student[name], teacher[name].detach(), self.tokens)
            projected = self.heads[name](feature) if name in self.heads else feature
            yield projected, target

    def _check_tokens(
        self, name: str, student: tuple[int, ...] | None, teacher: tuple[int, ...] | None
    ) -> None:
        """Raise ConfigError for tokens of a feature that cannot be matched; None is not known."""
        if student is None or teacher is None or student == teacher or self.averages_tokens:
            return
        numbers = " and ".join(
            " x ".join(map(str, shape)) or "none" for shape in (teacher, student)
        )
        if self.tokens == "same":
            raise ConfigError(
                f"'{name}' has other tokens in the teacher than in the student ({numbers}).",
                do="Match them: tokens='pool' compares their means, tokens='interpolate' brings "
                "the student's to the teacher's number.",
            )
        if self.tokens == "interpolate" and (
            len(student) != len(teacher) or len(student) not in INTERPOLATED
        ):
            raise ConfigError(
                f"'{name}' has tokens that no line or grid of them leads to ({numbers}).",
                do="Match them with tokens='pool'.",
            )


def matched(student: Tensor, teacher: Tensor, how: Matching) -> tuple[Tensor, Tensor]:
    """Return features of as many tokens, [B, ..., S], [B, ..., T] -> the same widths."""
    if how == "pool":
        return _pooled(student), _pooled(teacher)
    if how == "interpolate" and student.shape[1:-1] != teacher.shape[1:-1]:
        return _resized(student, teacher.shape[1:-1]), teacher
    return student, teacher


def _pooled(features: Tensor) -> Tensor:
    """Return the mean over all tokens, [B, ..., D] -> [B, D], in float32 at least."""
    if features.ndim <= 2:
        return features
    return features.flatten(1, -2).mean(1, dtype=torch.promote_types(features.dtype, torch.float32))


def _resized(features: Tensor, shape: Sequence[int]) -> Tensor:
    """Return features with another number of tokens, [B, ..., D] -> [B, *shape, D]."""
    channels = features.movedim(-1, 1)
    is_less = math.prod(shape) < math.prod(features.shape[1:-1])
    mode = "area" if is_less else INTERPOLATED[len(shape)]
    return F.interpolate(channels, tuple(shape), mode=mode).movedim(1, -1)


def mean(terms: Sequence[Tensor]) -> Tensor:
    """Return the mean of some scalars."""
    return sum(terms[1:], terms[0]) / len(terms)
