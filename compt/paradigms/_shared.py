"""Hold what the built-in paradigms share, agreement on the input and a named data source."""

from __future__ import annotations

from abc import ABC
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from compt.data import build_source
from compt.errors import ConfigError
from compt.interfaces import DataSource, Images, Paradigm

MAX_IMAGE = 16_384
WIDE = 256
"""Width of a member above which first configs take the lower learning rate."""


class Agreement:
    """Hold all members of a chain to the input that the first of them expects.

    Teacher and student see one batch. A member with another image size or vocabulary would fail
    only in the stage that pairs it with its teacher, after the earlier stages were trained; held
    here, it fails while the chain is planned.
    """

    def __init__(self) -> None:
        self._agreed: dict[str, Any] = {}

    def hold(
        self, member: str, what: str, value: Any, *, binding: bool = True, or_else: str = ""
    ) -> None:
        """Remember the first member's value and raise ConfigError where a later one differs.

        Args:
            member: name of the member, for the message.
            what: such as 'image size'.
            value: what this member expects.
            binding: whether this member must agree.
            or_else: what else may be done, as the end of a sentence, for the message.
        """
        agreed = self._agreed.setdefault(what, value)
        if agreed != value and binding:
            raise ConfigError(
                f"Member '{member}' has {what} {value}, the members before it {agreed}.",
                do="Teacher and student see the same batch: "
                f"give all members of a chain the same {what}{or_else}.",
            )

    def __getitem__(self, what: str) -> Any:
        """Return what was agreed on, and raise ConfigError before any member has been built."""
        if what not in self._agreed:
            raise ConfigError(
                f"The {what} is not known before a member has been built.",
                do="Call build_model first.",
            )
        return self._agreed[what]

    def get(self, what: str) -> Any:
        """Return what was agreed on, None before any member has been built."""
        return self._agreed.get(what)


def check_image_size(member: str, size: Sequence[int]) -> None:
    """Raise ConfigError for images of which one alone would fill a machine's memory."""
    if max(size) > MAX_IMAGE:
        raise ConfigError(
            f"Member '{member}' takes images of {size[0]} x {size[1]} pixels.",
            do=f"Give it an image size up to {MAX_IMAGE}.",
        )


class Sourced(Paradigm, ABC):
    """A paradigm whose argument ``data`` names a source and its splits."""

    needs: ClassVar[tuple[Collection[str], ...]]
    """What samples of the source must hold, as alternatives of which one must be met."""
    example: ClassVar[str]
    """What to write where there is no data."""
    data: dict[str, Any] | None = None
    """The source's config."""
    like: Path | None = None
    """The checkpoint that is followed."""
    notes: tuple[str, ...] = ()
    _data_source: DataSource | None = None

    def _use(self, data: Mapping[str, Any] | None) -> None:
        """Build the source that a config names, and measure on its held-out splits.

        Raises:
            ConfigError: there is no such source or option, or it does not provide what is needed.
        """
        self.data = None if data is None else dict(data)
        self._data_source = None if data is None else build_source(data, *self.needs)
        self.splits = () if self._data_source is None else self._data_source.held_out
        self.data_licence = "" if self._data_source is None else self._data_source.licence

    def follow(self, path: Path) -> None:
        """Remember the checkpoint, for what is read of it later."""
        self.like = path

    def note(self, *sentences: str) -> None:
        """Add to ``notes`` what they do not hold yet."""
        self.notes = (*self.notes, *(text for text in sentences if text not in self.notes))

    @property
    def data_source(self) -> Any:
        """Return the source of data, and raise ConfigError where there is none."""
        self.source()
        return self._data_source

    def open_images(self, split: str, **wishes: Any) -> Images:
        """Open a split of images, held to the source's ``max_broken`` where it has none itself.

        Args:
            split: its name.
            wishes: see :meth:`compt.interfaces.ImageSource.open`.
        """
        images: Images = self.data_source.open(split, **wishes)
        if images.max_broken is None:
            images.max_broken = self.data_source.max_broken
        return images

    def source(self) -> dict[str, Any]:
        """Return the source's config, and raise ConfigError where there is none."""
        if self.data is None:
            raise ConfigError(
                "The paradigm has no data.",
                where="paradigm.data",
                do=f"For example {self.example}.",
            )
        return dict(self.data)

    def num_samples(self, split: str) -> int:
        """Return ``data['num_samples']`` for the training split, else the length of the data."""
        source = self._data_source
        known = None if source is None else source.num_samples(split)
        return super().num_samples(split) if known is None else known
