"""Distil knowledge by matching the student's predictions to the smaller teacher's."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from compt.errors import ConfigError
from compt.interfaces import Architecture, Outputs, Schedule, Transferer
from compt.registry import Range


class LogitKl(Transferer):
    """KL divergence of the predicted distributions, averaged over all predictions.

    Each is KL(teacher || student).
    Source: Hinton et al. 2015, arXiv 1503.02531: soft targets at a temperature T, times
    T squared, so that the gradients keep their size. Differs: with ``top_k``, all other
    classes count as one class, so that the loss stays a divergence of two distributions
    (of coarser ones: never larger than the whole).

    Args:
        weight, until, schedule: as of :class:`~compt.interfaces.Transferer`.
        temperature: what the logits are divided by.
        top_k: compare this many of the teacher's likeliest classes and the rest as one;
            None compares all.
        output: the logits to compare, ``[batch, ..., classes]``; the same classes in
            both models.
        limit: largest share of the task loss that the weighted loss may reach; None: no
            limit.

    Raises:
        ConfigError: a temperature that is not positive, or a ``top_k`` below 1.
    """

    def __init__(
        self,
        *,
        weight: float = 1.0,
        until: float = 1.0,
        schedule: Schedule = "constant",
        temperature: Annotated[float, Range(positive=True)] = 1.0,
        top_k: Annotated[int, Range(minimum=1)] | None = None,
        output: str = "logits",
        limit: Annotated[float, Range(positive=True)] | None = None,
    ) -> None:
        super().__init__(weight=weight, until=until, schedule=schedule)
        if not 0 < temperature < float("inf"):
            raise ConfigError(
                f"temperature={temperature} is not positive.", where="transfer logit_kl"
            )
        if top_k is not None and top_k < 1:
            raise ConfigError(
                f"top_k={top_k} is below 1.",
                where="transfer logit_kl",
                do="None compares all classes.",
            )
        self.temperature, self.top_k, self.output, self.limit = temperature, top_k, output, limit
        self.needs = frozenset({output})

    def bind(self, teacher: Architecture, student: Architecture) -> None:
        """Raise ConfigError unless both models predict the same number of classes."""
        counts = [(arch.outputs or arch.features)[self.output] for arch in (teacher, student)]
        if counts[0] != counts[1]:
            raise ConfigError(
                f"logit_kl compares '{self.output}' of {counts[0]} classes in the teacher with "
                f"{counts[1]} in the student.",
                do="Give both members the same vocabulary; feature_mse compares features of "
                "different widths.",
            )

    def forward(self, student: Outputs, teacher: Outputs, *, progress: float) -> dict[str, Tensor]:
        """Return ``{'logit_kl': scalar}``, 0 where predictions are equal.

        It is in nats times the squared temperature.
        """
        term = divergence(
            student[self.output],
            teacher[self.output].detach(),
            temperature=self.temperature,
            top_k=self.top_k,
        )
        return {"logit_kl": term}


def divergence(
    student: Tensor, teacher: Tensor, *, temperature: float = 1.0, top_k: int | None = None
) -> Tensor:
    """Return T^2 KL(teacher || student) of logits at a temperature T, in float32 at least.

    [B, ..., C], [B, ..., C] -> scalar, summed over the C classes and averaged over all
    else.
    """
    dtype = torch.promote_types(student.dtype, torch.float32)
    ours, theirs = (logits.to(dtype) / temperature for logits in (student, teacher))
    if top_k is not None and top_k < theirs.shape[-1]:
        likeliest = theirs.topk(top_k, dim=-1, sorted=False).indices
        ours, theirs = _with_rest(ours, likeliest), _with_rest(theirs, likeliest)
    terms = F.kl_div(
        ours.log_softmax(-1), theirs.log_softmax(-1), reduction="none", log_target=True
    )
    return temperature**2 * terms.sum(-1).mean()


def _with_rest(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the logits of some classes, and of all others as one.

    [..., C], indices [..., K] -> [..., K + 1].
    """
    rest = logits.scatter(-1, classes, float("-inf")).logsumexp(-1, keepdim=True)
    return torch.cat([logits.gather(-1, classes), rest], dim=-1)
