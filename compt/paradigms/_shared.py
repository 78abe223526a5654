"""What the built-in paradigms share: members that agree on their input, and data that a config
names.
"""

from __future__ import annotations

from abc import ABC
from typing import Any, ClassVar

from compt.errors import ConfigError
from compt.interfaces import Paradigm


class Agreement:
    """What the first member expects as input, and all others with it: teacher and student see one
    batch.
    """

    def __init__(self) -> None:
        self._told: dict[str, Any] = {}

    def hold(self, member: str, what: str, value: Any, *, binding: bool = True) -> None:
        """Remember a value from the first member that tells one; raise ConfigError where a later
        one differs.

        Args:
            member: name of the member, for the message.
            what: such as 'image size'.
            binding: whether this member must agree.
        """
        if self._told.setdefault(what, value) != value and binding:
            raise ConfigError(
                f"Member '{member}' has {what} {value}, the members before it {self._told[what]}.",
                do=f"Teacher and student see the same batch: give all members of a chain the same {what}.",
            )

    def __getitem__(self, what: str) -> Any:
        """What was agreed on; raise ConfigError before any member has been built."""
        if what not in self._told:
            raise ConfigError(
                f"The {what} is not known before a member has been built.",
                do="Call build_model first.",
            )
        return self._told[what]

    def get(self, what: str) -> Any:
        """What was agreed on, None before any member has been built."""
        return self._told.get(what)


class Sourced(Paradigm, ABC):
    """A paradigm whose argument ``data`` names a source and its splits."""

    data: dict[str, Any] | None
    example: ClassVar[str]
    """What to write where there is no data."""

    def source(self) -> dict[str, Any]:
        """The source's config; raise ConfigError where there is none."""
        if self.data is None:
            raise ConfigError(
                "The paradigm has no data.",
                where="paradigm.data",
                do=f"For example {self.example}.",
            )
        return dict(self.data)

    def num_samples(self, split: str) -> int:
        """``data['num_samples']`` for the training split, else the length of the data."""
        declared = (self.data or {}).get("num_samples") if split == "train" else None
        return int(declared) if declared is not None else super().num_samples(split)
