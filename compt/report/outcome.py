"""What a stage did, as it ran, before it becomes a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Incidents:
    """What happened in a stage beside its training, which its record takes over as it is."""

    broken_samples: int = 0
    """Training samples that could not be read, and were replaced by others."""
    left_out: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What of each split was left out, replaced or cut, by reason; see LeftOut."""
    stopped: str = ""
    """Why the stage ended before its budget was spent, '' where it did not."""
    delivered: str = "last"
    """Which weights were measured and delivered: the 'last', or those of the hooks named here."""
    repeated: int = 0
    """Further iterations that were trained and lost by rolling back; charged in flops."""
    spikes: tuple[Mapping[str, Any], ...] = ()
    """Losses that stood out, with ``first`` and ``last`` iteration, ``loss`` and ``median``."""
    rollbacks: tuple[Mapping[str, Any], ...] = ()
    """Returns to a checkpoint: ``at`` and ``to`` as iterations, and the ``reason``."""

    @property
    def incidents(self) -> dict[str, Any]:
        """These fields alone, by name."""
        return {one.name: getattr(self, one.name) for one in fields(Incidents)}


@dataclass(frozen=True, kw_only=True)
class StageOutcome(Incidents):
    """How the training of a stage went."""

    iters: int
    """That were trained; fewer than planned where a rule ended the stage."""
    seconds: float
    curve: Sequence[Mapping[str, Any]]
    """Evaluations in order, as ``iter``, ``seconds``, ``metrics`` and, where the stage rolled back,
    the iterations ``repeated`` until then.

    Each metric is a dict with ``value``, ``chance`` and ``higher_is_better``.
    """
