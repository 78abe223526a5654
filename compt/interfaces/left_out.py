"""What of a split of data is left out, replaced or cut, counted by reason."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compt.errors import ConfigError, DataError, visible
from compt.interfaces.fingerprint import beneath

MAX_BROKEN = 0.01
"""Share of a split that may be left out where its source does not say another."""
MOST_EXAMPLES = 3
UNREADABLE = "that cannot be read"
"""Reason of samples of which no more is known."""


@dataclass
class LeftOut:
    """What of one split is not trained on as it was found.

    Every source fills one when it opens a split, and while the split is read. ``max_broken`` is
    held against the samples, parts are only said. A reason reads on after a number of samples
    ('without a caption'), or names the parts ('captions cut to 77 tokens').
    """

    total: int = 0
    """Samples, rows or documents there were, those left out with them; 0 where not known."""
    max_broken: float = MAX_BROKEN
    """Share of ``total`` that may be left out."""
    samples: dict[str, int] = field(default_factory=dict)
    """Samples, rows or documents that are not used, or whose place another takes, by reason."""
    parts: dict[str, int] = field(default_factory=dict)
    """What else is cut off, passed over or changed, by reason."""
    num_read: int | None = None
    """Samples read so far, where only reading finds what is wrong; None where all is known."""
    examples: list[str] = field(default_factory=list)
    """Where the first of them lie, with the reason."""

    @property
    def num_samples(self) -> int:
        """How many samples, rows or documents are left out or replaced."""
        return sum(self.samples.values())

    def sample(self, reason: str, where: str = "", count: int = 1) -> None:
        """Count samples that are left out or replaced."""
        if count:
            self.samples[reason] = self.samples.get(reason, 0) + count
            if where and len(self.examples) < MOST_EXAMPLES:
                self.examples.append(visible(f"{where} ({reason})"))

    def part(self, reason: str, count: int = 1) -> None:
        """Count what else is cut off, passed over or changed."""
        if count:
            self.parts[reason] = self.parts.get(reason, 0) + count

    def copy(self) -> LeftOut:
        """Return one that can be filled on, and leaves this as it is."""
        return LeftOut(
            self.total,
            self.max_broken,
            dict(self.samples),
            dict(self.parts),
            self.num_read,
            list(self.examples),
        )

    def check(self, split: str = "") -> None:
        """Raise DataError where more is left out than ``max_broken`` allows.

        Args:
            split: name of the split, for the message.
        """
        if self.num_samples <= self.max_broken * self.total or not self.total:
            return
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.samples.items())
        of_split = f" of '{split}'" if split else ""
        raise DataError(
            f"{self.num_samples} of {self.total} samples{of_split} are left out: {reasons}; "
            f"{allowed(self.max_broken)}.",
            where="; ".join(self.examples),
            do="Repair or remove them, check the options that name keys, columns and files, or "
            "raise max_broken in the data's config.",
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types, as manifests hold it."""
        return {
            "total": self.total,
            "samples": dict(self.samples),
            "parts": dict(self.parts),
            "num_read": self.num_read,
            "examples": list(self.examples),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], max_broken: float = MAX_BROKEN) -> LeftOut:
        """Read what :meth:`to_json` has returned."""
        return cls(
            int(content["total"]),
            max_broken,
            {str(reason): int(count) for reason, count in content["samples"].items()},
            {str(reason): int(count) for reason, count in content["parts"].items()},
            content.get("num_read"),
            [str(example) for example in content.get("examples", ())],
        )


def left_out(dataset: Any) -> LeftOut:
    """Return what of a data set is left out, replaced or cut so far.

    A data set says it in an attribute ``left_out``. Of one that has none, ``broken_count`` samples
    are replaced by others, 0 by default; one that reads from others (``torch.utils.data.Subset``,
    ``ConcatDataset``) has theirs.
    """
    own = getattr(dataset, "left_out", None)
    if isinstance(own, LeftOut):
        return own
    inner = [] if hasattr(dataset, "broken_count") else beneath(dataset)
    if inner:
        return together([left_out(source) for source in inner])
    result = LeftOut(len(dataset) if hasattr(dataset, "__len__") else 0)
    result.max_broken = getattr(dataset, "max_broken", MAX_BROKEN)
    result.sample(UNREADABLE, count=int(getattr(dataset, "broken_count", 0)))
    return result


def together(counts: Sequence[LeftOut]) -> LeftOut:
    """Return the sums of several."""
    first, *others = counts
    result = first.copy()
    for other in others:
        result.total += other.total
        result.max_broken = max(result.max_broken, other.max_broken)
        for reason, count in other.samples.items():
            result.sample(reason, count=count)
        for reason, count in other.parts.items():
            result.part(reason, count)
        if other.num_read is not None:
            result.num_read = (result.num_read or 0) + other.num_read
        result.examples = [*result.examples, *other.examples][:MOST_EXAMPLES]
    return result


def share(value: Any) -> float:
    """Return ``max_broken``, or raise ConfigError where it is no share."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not 0 <= value <= 1:
        raise ConfigError(
            f"max_broken={value!r} is no share from 0 to 1.", do="0.01 allows one in a hundred."
        )
    return float(value)


def allowed(max_broken: float) -> str:
    """Say what ``max_broken`` allows."""
    return f"max_broken={max_broken:g} allows {100 * max_broken:.3g} %"
