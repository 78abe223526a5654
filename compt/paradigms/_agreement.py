"""What all members of a chain read alike."""

from __future__ import annotations

from typing import Any

from compt.errors import ConfigError


class Agreement:
    """What the first member expects as input, and all others with it: teacher and student see one batch."""

    def __init__(self) -> None:
        self._told: dict[str, Any] = {}

    def hold(self, member: str, what: str, value: Any, *, binding: bool = True) -> None:
        """Remember a value from the first member that tells one; raise ConfigError where a later one differs.

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
            raise ConfigError(f"The {what} is not known before a member has been built.", do="Call build_model first.")
        return self._told[what]

    def get(self, what: str) -> Any:
        """What was agreed on, None before any member has been built."""
        return self._told.get(what)
