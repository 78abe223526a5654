"""What a stage did, as it ran, before it becomes a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

AVERAGE = "average"
"""What a stage has delivered whose config has ``average``."""


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
    """Which weights were measured and delivered.

    The 'last', their 'average' (the config's), or those of the hooks named here.
    """
    plateau_iter: int | None = None
    """Iterations after which plateau.safetensors was kept, None where it was not."""
    repeated: int = 0
    """Further iterations that were trained and lost by rolling back; charged in flops."""
    spikes: tuple[Mapping[str, Any], ...] = ()
    """Losses that stood out, with ``first`` and ``last`` iteration, ``loss`` and ``median``."""
    rollbacks: tuple[Mapping[str, Any], ...] = ()
    """Returns to a checkpoint: ``at`` and ``to`` as iterations, and the ``reason``."""

    @property
    def incidents(self) -> dict[str, Any]:
        """These fields alone, by name."""
        return {each.name: getattr(self, each.name) for each in fields(Incidents)}


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a stage took of the machine, beside the time of its training.

    Each is None where it was not measured, as in records of older versions.
    """

    evaluation_seconds: float | None = None
    """Of all evaluations together."""
    data_seconds: float | None = None
    """Of the stage's seconds, those in which the main process waited for batches."""
    checkpoint_seconds: float | None = None
    """In which training stood still for checkpoints, beside the stage's seconds."""
    peak_memory_bytes: int | None = None
    """The most that the main process held in the machine's memory (its resident set).

    The processes that read samples are not in it.
    """
    peak_device_memory_bytes: int | None = None
    """The most that torch had allocated on the main process's CUDA device."""
    energy_joules: float | None = None
    """What meters counted while the stage was trained and evaluated, over all processes."""
    teacher_iters: int | None = None
    """Iterations at which the teacher was run, those lost by rolling back with them."""
    teacher_seconds: float | None = None
    """Of the main process's teacher passes, and of reading its cache."""
    processes: int | None = None
    """That trained the stage, a device each; None too where it went on with another number."""
    precision: str | None = None
    """Number format in which the student multiplied matrices: 'fp32', 'tf32', 'bf16' or 'fp16'.

    None too where it went on in another.
    """
    energy_meters: tuple[str, ...] = ()
    """Which meters these were: 'nvml' counts GPUs, 'rapl' processors with their memory."""

    @property
    def usage(self) -> dict[str, Any]:
        """These fields alone, by name."""
        return {each.name: getattr(self, each.name) for each in fields(Usage)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Usage:
        """Read these fields from JSON types, which may lack any of them.

        Raises:
            TypeError, ValueError: one is no number.
        """
        kinds = {
            "evaluation_seconds": float,
            "data_seconds": float,
            "checkpoint_seconds": float,
            "peak_memory_bytes": int,
            "peak_device_memory_bytes": int,
            "energy_joules": float,
            "teacher_iters": int,
            "teacher_seconds": float,
            "processes": int,
            "precision": str,
            "energy_meters": tuple,
        }
        present = {name for name in kinds if content.get(name) is not None}
        return Usage(**{name: kinds[name](content[name]) for name in present})


@dataclass(frozen=True, kw_only=True)
class StageOutcome(Incidents, Usage):
    """How the training of a stage went."""

    iters: int
    """That were trained; fewer than planned where a rule ended the stage."""
    seconds: float
    curve: Sequence[Mapping[str, Any]]
    """Evaluations in order, as ``iter``, ``seconds``, ``metrics`` and, where the stage rolled back,
    the iterations ``repeated`` until then.

    Each metric is a dict with ``value``, ``chance`` and ``higher_is_better``.
    """
    raw_metrics: Mapping[str, Any] = field(default_factory=dict)
    """Of the last weights at the end, where an average of them is delivered."""
