"""Several sources as one, drawn from by weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from compt.data._mixed import Mixed
from compt.data.images.labels import renumber
from compt.data.opening import build_source
from compt.errors import ConfigError, located
from compt.interfaces import DataSource, Images
from compt.interfaces.mixture import shares
from compt.registry import DATA

TEXT = frozenset({"text", "tokens"})
"""What sources provide of which any may be mixed with any other."""


class MixtureSource(DataSource):
    """Several sources as one, of which training draws by weights.

    ``dict(type='mixture', sources=[dict(type='webdataset', train='a.tar'), dict(type='csv',
    train='b.csv', val='val.csv')], weights=[3, 1])``: of four samples that are trained on, three
    are of the first. An epoch is as many draws as the sources have samples together; each source is
    gone through from its first sample to its last, in an order of its own, before it begins anew.
    A stage has other weights by ``train_dataloader=dict(sampler=dict(type='MixtureSampler',
    weights=[1, 1]))``.

    A held-out split is that of the source whose config names it, or of all that do, one after the
    other. Classes are those of all sources, matched by name.

    Args:
        sources: the configs of two or more.
        weights: share of each source's samples, up to a common factor; by default every sample of
            every source is drawn as often as any other.
        num_samples: size of the training split, for plans.

    Raises:
        ConfigError: fewer than two sources, one without the split 'train', sources that have
            nothing in common, or weights that are not one for each.
    """

    provides = frozenset({"image", "captions", "label", "negative", "text", "tokens"})

    def __init__(
        self,
        *,
        sources: Sequence[Annotated[Mapping[str, Any], DATA]],
        weights: Sequence[float] | None = None,
        num_samples: int | None = None,
    ) -> None:
        super().__init__(num_samples=num_samples)
        if len(sources) < 2:
            raise ConfigError("A mixture has two sources or more.", where="sources")
        self.sources = [build_source(source) for source in sources]
        if any(isinstance(source, MixtureSource) for source in self.sources):
            raise ConfigError(
                "A mixture stands in a mixture.",
                where="sources",
                do="List all sources in one, with the products of their weights.",
            )
        self.weights = None if weights is None else tuple(weights)
        if self.weights is not None:
            shares(self.weights, len(self.sources))
        self.provides = _provided(self.sources)
        self.splits = ("train", *_held_out(self.sources))
        self.licence = ", ".join(dict.fromkeys(s.licence for s in self.sources if s.licence))
        self.max_broken = max(source.max_broken for source in self.sources)

    def num_samples(self, split: str) -> int | None:
        """Return the samples of all sources, where each knows them."""
        counts = [source.num_samples(split) for source in self.of_split(split)]
        if split == "train" and self.declared_samples is not None:
            return self.declared_samples
        return None if any(count is None for count in counts) else sum(filter(None, counts))

    def of_split(self, split: str) -> list[DataSource]:
        """Return the sources that have a split.

        Raises:
            ConfigError: none has.
        """
        self.check_split(split)
        return [source for source in self.sources if split in source.splits]

    def open(self, split: str, **wishes: Any) -> MixedImages:
        """Open one split of all sources of images.

        Args:
            split: one of ``splits``.
            wishes: see :meth:`compt.interfaces.ImageSource.open`.

        Raises:
            ConfigError: there is no such split, or the sources are text.
        """
        if "image" not in self.provides:
            raise ConfigError(
                "A mixture of text is opened in blocks of tokens.",
                do="compt.data.text.open_tokens opens them.",
            )
        opened = []
        for number, source in enumerate(self.sources):
            if source in self.of_split(split):
                with located(f"sources.{number}"):
                    opened.append(source.open(split, **wishes))
                if opened[-1].max_broken is None:
                    opened[-1].max_broken = source.max_broken
        return MixedImages(opened, self.weights if split == "train" else None)


class MixedImages(Mixed, Images):
    """The images of several sources, one after the other, with labels of the classes of all.

    Args:
        datasets: each as the ``open`` of a source returns it.
        weights: share of the draws that each has in training.
    """

    def __init__(self, datasets: Sequence[Images], weights: Sequence[float] | None) -> None:
        super().__init__(datasets, weights)
        self.classes = tuple(sorted({name for data in self.datasets for name in data.classes}))
        self._numbers = [
            renumber([*range(len(data.classes)), -1], data.classes, self.classes)
            for data in self.datasets
        ]
        self.max_broken = max(data.left_out.max_broken for data in self.datasets)
        labels = [getattr(data, "labels", None) for data in self.datasets]
        if all(own is not None for own in labels):
            pairs = zip(self._numbers, labels, strict=True)
            self.labels = np.concatenate([numbers[own] for numbers, own in pairs])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a sample of its source."""
        number, own = self.place(index)
        sample = dict(self.datasets[number][own])
        return {**sample, "label": int(self._numbers[number][int(sample["label"])])}

    @property
    def captions(self) -> Callable[[int], tuple[str, ...]] | None:
        """What returns a sample's captions without its image, None where a source has no such."""
        has_all = all(hasattr(dataset, "captions") for dataset in self.datasets)
        return self._captions if has_all else None

    @property
    def broken_count(self) -> int:
        """How many samples could not be read so far, of all sources."""
        return sum(dataset.broken_count for dataset in self.datasets)

    def check(self) -> int:
        """Read some samples of every source."""
        return sum(dataset.check() for dataset in self.datasets)

    def _captions(self, index: int) -> tuple[str, ...]:
        number, own = self.place(index)
        captions: tuple[str, ...] = self.datasets[number].captions(own)
        return captions


def _provided(sources: Sequence[DataSource]) -> frozenset[str]:
    """Return what all sources provide; tokens are made of text where some provide text."""
    provided = frozenset.intersection(*(source.provides for source in sources))
    if all(source.provides & TEXT for source in sources):
        provided |= {"text"}
    if not provided:
        each = "; ".join(" and ".join(sorted(source.provides)) for source in sources)
        raise ConfigError(
            f"The sources of the mixture have nothing in common: they provide {each}.",
            where="sources",
            do="Mix images with images and text with text.",
        )
    return provided


def _held_out(sources: Sequence[DataSource]) -> tuple[str, ...]:
    """Return the held-out splits of all sources, and raise ConfigError where one cannot train."""
    for number, source in enumerate(sources):
        if "train" not in source.splits:
            raise ConfigError(
                "The source has no split 'train'.",
                where=f"sources.{number}",
                do="Every source of a mixture is trained on.",
            )
    return tuple(dict.fromkeys(split for source in sources for split in source.held_out))
