"""The interface of starters, by which ``compt init`` writes a first config of a paradigm."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from compt.errors import ConfigError


@dataclass(frozen=True)
class SeenData:
    """What was seen of the training data that a config is written for."""

    num_samples: int = 0
    """Images, or documents; those looked at, where only reading all could tell."""
    num_bytes: int = 0
    """Of text, about: as many as it has characters, or tokens."""
    short_side: int | None = None
    """The median of the images' shorter sides, in pixels; None where they are drawn to order."""
    caption_words: int = 0
    """As many as 19 captions of 20 have at most."""


@dataclass(frozen=True)
class MemberSize:
    """Width and layers of one member."""

    width: int
    layers: int

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        return f"{self.width}x{self.layers}"

    @classmethod
    def parse(cls, name: str) -> MemberSize:
        """Read a size from its name, such as '64x3'.

        Raises:
            ValueError: it is none.
        """
        match = re.fullmatch(r"(\d+)x(\d+)", name.strip())
        if match is None:
            raise ValueError(f"'{name}' is no width and layers such as 64x3")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True, kw_only=True)
class ConfigDraft:
    """What a first config says of models and training, as Python code.

    Lines of comments may be of any length: they are wrapped.
    """

    models: Sequence[str]
    """The model of each member, an expression such as 'clip(64, 3)'."""
    definitions: str = ""
    """The functions that these expressions call."""
    options: str = ""
    """Further arguments of the paradigm beside type and data, a line each, ending in a comma."""
    num_samples: int
    """Samples of an epoch."""
    sample_noun: str = "samples"
    """What comments call them."""
    smallest_batch: int = 32
    """Samples of a batch, where there are enough."""
    largest_batch: int = 512
    min_iterations: int = 50
    """Iterations that an epoch keeps when the batch is enlarged."""
    optimizer: str
    """The optimizer's config, an expression."""
    transfer: str = 'dict(type="none")'
    """The transferer's config, an expression, with a comment behind it."""


class Starter(ABC):
    """Say what ``compt init`` asks and writes for a paradigm.

    A paradigm's class holds one in its attribute ``starter``. compt tells what lies at a path,
    holds a part of it out, looks at it, chooses batches and epochs, and plans the config before it
    is written.
    """

    needs: ClassVar[tuple[Collection[str], ...]]
    """What samples of the data must hold, as alternatives of which one must be met.

    Names as in :attr:`compt.interfaces.DataSource.provides`.
    """
    data_noun: ClassVar[str]
    """What people call such data, such as 'images with captions'."""
    example_data: ClassVar[str] = ""
    """A data source that needs no files, to begin without data of one's own; '' for none."""
    sizes: ClassVar[Mapping[str, str]]
    """Widths and layers of the members by preset, such as ``{"tiny": "64x3,128x4"}``.

    The first is the default.
    """
    member_prefix: ClassVar[str] = ""
    """What members are called before their size; by default the paradigm's name."""

    @abstractmethod
    def draft(self, seen: SeenData, sizes: Sequence[MemberSize], *, preset: str) -> ConfigDraft:
        """Write what a config says of the models, fitted to data.

        Args:
            seen: of the training data.
            sizes: of the members, from small to large.
            preset: whose scale inputs and batches should have, a key of ``sizes``.

        Raises:
            ConfigError: there are no models of these sizes.
        """

    def head_width(self, sizes: Sequence[MemberSize]) -> int:
        """Return the widest usual attention head that divides all widths.

        It has to be one for all members, or attention cannot be inherited.

        Raises:
            ConfigError: there is none.
        """
        wide = [64] if min(size.width for size in sizes) >= 192 else []
        for head in [*wide, 32, 16, 8]:
            if all(size.width % head == 0 for size in sizes):
                return head
        widths = ", ".join(str(size.width) for size in sizes)
        raise ConfigError(
            f"No attention head fits all widths: {widths}.",
            where="--sizes",
            do="Give multiples of 32, or at least of 8.",
        )
