"""Say which tokenizer a member of a chain reads with, where members have tokenizers of their own.

Tokenizers have keys: :data:`SHARED` is the paradigm's, :data:`BYTES` bytes where the paradigm reads
otherwise, and any other key is the folder or name that transformers loads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from compt.errors import ConfigError, did_you_mean, some
from compt.interfaces import Member

SHARED, BYTES = "", "<bytes>"
WHERE = "paradigm.tokenizers"
ATTRIBUTE = "compt_tokenizer"
"""Where a model has the key of its tokenizer; one without it reads with the paradigm's."""


class MemberTokenizers:
    """The option ``tokenizers``: folders or names of tokenizers by name of a member.

    Args:
        sources: by member; None reads bytes.

    Raises:
        ConfigError: it is something else.
    """

    def __init__(self, sources: Mapping[str, str | None] | None) -> None:
        self.sources = {} if sources is None else _checked(sources)

    def __bool__(self) -> bool:
        return bool(self.sources)

    def key(self, member: str, shared: str | None) -> str:
        """Return the key of a member's tokenizer, where the paradigm's is ``shared``."""
        source = self.sources.get(member, shared)
        if source == shared:
            return SHARED
        return BYTES if source is None else source

    def keys(self, shared: str | None) -> list[str]:
        """Return all keys, the paradigm's first, each once."""
        return list(dict.fromkeys([SHARED, *(self.key(name, shared) for name in self.sources)]))

    def reads_like(self, members: Sequence[Member], shared: str | None) -> list[Member]:
        """Return for each member the first one that has its tokenizer.

        Raises:
            ConfigError: the option names a member that is not there.
        """
        names = [member.name for member in members]
        unknown = [name for name in self.sources if name not in names]
        if unknown:
            raise ConfigError(
                f"The chain has no member {some([repr(name) for name in unknown])}."
                f"{did_you_mean(unknown[0], names)}",
                where=WHERE,
                do=f"Its keys are names of members: {some([repr(name) for name in names])}.",
            )
        first: dict[str, Member] = {}
        return [first.setdefault(self.key(member.name, shared), member) for member in members]


def source_of(key: str) -> str | None:
    """Return what is opened under the key of a member's own tokenizer, None for bytes."""
    return None if key == BYTES else key


def key_of(model: nn.Module) -> str:
    """Return the key of the tokenizer that a model reads with."""
    key: str = getattr(model, ATTRIBUTE, SHARED)
    return key


def _checked(sources: Any) -> dict[str, str | None]:
    is_right = isinstance(sources, Mapping) and all(
        isinstance(name, str) and (source is None or (isinstance(source, str) and source))
        for name, source in sources.items()
    )
    if not is_right:
        raise ConfigError(
            f"{sources!r} names no tokenizers.",
            where=WHERE,
            do="Write dict(MEMBER='FOLDER OR NAME'), or dict(MEMBER=None) for bytes.",
        )
    return dict(sources)
