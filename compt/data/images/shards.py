"""Image-text pairs, or images alone, in tar archives that are read at random without unpacking."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from compt.data._ranges import ByteRange, RangeReader
from compt.data.file_source import FileSource
from compt.data.images._strings import Packer
from compt.data.images._tar_index import TarIndex, tar_indexes
from compt.data.images._urls import expand
from compt.data.images.broken import (
    BAD_JSON,
    NO_CAPTION,
    NOT_UTF8,
    BrokenSample,
    Sample,
    SkipBroken,
    decode,
    is_utf8,
)
from compt.data.images.decode import MOST_BYTES, NO_FILE, TOO_LARGE
from compt.data.images.labels import number
from compt.errors import ConfigError, DataError, did_you_mean
from compt.interfaces import ImageSource
from compt.interfaces.fingerprint import hash_of
from compt.interfaces.left_out import MAX_BROKEN, LeftOut
from compt.registry import Range

IMAGES = ("png", "jpg", "jpeg", "webp")
CAPTIONS = ("txt", "json:caption", "json:captions")
NO_IMAGE = "without an image"
DOTTED = "whose names hold a dot, where the name of a sample ends"
REPEATED = "with the name of a later one in its archive"
FURTHER = "further images of a sample"
TWICE = "archives that are named, and read, more than once"
NO_LABEL = "samples without a class name"
LABELS_AT_A_TIME = 1024
"""Samples of which the class names are read at a time, where they lie on servers."""


class ShardSource(FileSource, ImageSource):
    """Image-text pairs from tar archives as img2dataset and WebDataset write them.

    ``dict(type='webdataset', train='cc3m-{000..331}.tar', val='s3://bucket/val/*.tar')``: a split
    is a path, a URL of fsspec, a pattern with braces or wildcards, or a list of these. The members
    ``000017.jpg``, ``000017.txt`` and ``000017.json`` are one sample: as in WebDataset, its name
    ends at the first dot behind the last slash. Each archive's headers are read once (10,000
    samples in 0.4 s; on a server the archive is read through); where its members lie is then
    remembered in the cache folder until the file changes.

    Args:
        max_broken: share of the samples that may be left out or unreadable; see
            :meth:`~compt.data.images.broken.SkipBroken.check`.
        cache_dir: where the indexes are kept.
        image_keys: extensions of images; a sample has the first that is there.
        caption_keys: where captions are, the first that is there counts: an extension whose text is
            the caption, or ``json:key`` for a text or list of texts in a JSON member. None reads
            images alone, as does ``caption_key=None``, which tables know too.
        label_key: key in the JSON member of a class name; ``classes`` are those that occur, sorted.
        num_samples: size of the training split, for plans.
        files: split -> its archives.

    Raises:
        ConfigError: an option that cannot be.
        DataError: on opening, an archive is missing, damaged or compressed, or no sample has an
            image and a caption, where captions are read.
    """

    provides = frozenset({"image", "captions", "label"})

    def __init__(
        self,
        *,
        max_broken: Annotated[float, Range(minimum=0, maximum=1)] = MAX_BROKEN,
        cache_dir: str | Path | None = None,
        image_keys: Sequence[str] = IMAGES,
        caption_keys: Sequence[str] | None = CAPTIONS,
        label_key: str | None = None,
        num_samples: int | None = None,
        **files: Any,
    ) -> None:
        if caption_keys is CAPTIONS and files.get("caption_key", "") is None:
            caption_keys = files.pop("caption_key")
        super().__init__(files, num_samples=num_samples, max_broken=max_broken)
        self.caption_keys = caption_keys
        self.options: dict[str, Any] = dict(
            cache_dir=cache_dir, image_keys=image_keys, label_key=label_key
        )
        if caption_keys is None:
            self.provides = self.provides - {"captions"}

    def open(
        self, split: str, *, captions: bool = True, image_size: int | None = None
    ) -> ShardPairs:
        """Index the archives of a split."""
        caption_keys = self.caption_keys if captions else None
        return ShardPairs(
            self.path(split), caption_keys=caption_keys, max_broken=self.max_broken, **self.options
        )


class ShardPairs(SkipBroken):
    """The samples of one split's archives.

    Arguments and errors are those of :class:`ShardSource`.
    """

    def __init__(
        self,
        urls: str | Path | Sequence[str | Path],
        *,
        max_broken: float = MAX_BROKEN,
        cache_dir: str | Path | None = None,
        image_keys: Sequence[str] = IMAGES,
        caption_keys: Sequence[str] | None = CAPTIONS,
        label_key: str | None = None,
    ) -> None:
        lists = {"image_keys": image_keys} | (
            {} if caption_keys is None else {"caption_keys": caption_keys}
        )
        for option, value in lists.items():
            if isinstance(value, str) or not value:
                raise ConfigError(
                    f"{option}={value!r} is not a list of member extensions.", where="webdataset"
                )
        opened = LeftOut()
        self._archives = expand(urls, opened)
        self.paths = tuple(file.place for file in self._archives)
        self.caption_keys = tuple(caption_keys or ())
        texts = dict.fromkeys(key.partition(":")[0] for key in self.caption_keys)
        self._columns = {
            "image": 0,
            **{key: i + 1 for i, key in enumerate(dict.fromkeys([*texts, "json"]))},
        }
        self._load(image_keys, tuple(texts), cache_dir, opened)
        super().__init__(len(self._shard), max_broken=max_broken, opened=opened)
        self.labels = np.full(len(self), -1, np.int64)
        self._reader = RangeReader()
        if label_key is not None:
            self.classes, self.labels = number(list(self._class_names(label_key)))
            if not self.classes:
                raise self._no_label(label_key)
            self._opened.part(NO_LABEL, int((self.labels < 0).sum()))

    @property
    def skipped(self) -> int:
        """How many samples were left out on opening, as they lack an image or a caption, say."""
        return self._opened.num_samples

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Number and names of the samples, where their members lie, and the archives' sizes."""
        place = (self._spans, self._shard, self._keys.data, self._keys.ends)
        return {
            "files": len(self.paths),
            "bytes": sum(file.size for file in self._archives),
            "samples": len(self),
            "content": hash_of(*place, self.labels, self.classes),
        }

    def _load(
        self,
        image_keys: Sequence[str],
        texts: Sequence[str],
        cache_dir: str | Path | None,
        opened: LeftOut,
    ) -> None:
        """Index all archives.

        Of each sample, ``_spans`` holds offset and size of its members, int64 [N, columns, 2], and
        ``_shard`` the number of its archive, int32 [N].
        """
        opened.part(TWICE, len(self.paths) - len(set(self.paths)))
        spans, shards, keys = [], [], Packer()
        seen: set[str] = set()
        for shard, index in enumerate(tar_indexes(self._archives, cache_dir)):
            path = self._archives[shard].name
            seen |= set(index.extensions)
            others = [index.find([column]) for column in list(self._columns)[1:]]
            table = np.stack([index.find(image_keys), *others], axis=1)
            columns = [self._columns[text] for text in texts]
            has_image = table[:, 0, 0] >= 0
            has_text = np.any(table[:, columns, 0] >= 0, axis=1) if texts else has_image
            _count(opened, path, index, image_keys, has_image, has_text)
            chosen = np.flatnonzero(has_image & has_text)
            spans.append(table[chosen])
            shards.append(np.full(len(chosen), shard, np.int32))
            for i in chosen.tolist():
                keys.add(index.keys[i])
        self._spans, self._shard, self._keys = (
            np.concatenate(spans),
            np.concatenate(shards),
            keys.packed(),
        )
        if not len(self._shard):
            caption = f" and a caption ({', '.join(texts)})" if texts else ""
            raise DataError(
                f"No sample has an image ({', '.join(image_keys)}){caption}.",
                where=str(self.paths[0]),
                do=f"Members end in: {', '.join(sorted(seen))}. Name them with image_keys and "
                "caption_keys (None: images alone).",
            )

    def where(self, index: int) -> str:
        """Return the archive and key of a sample."""
        return f"{self.paths[self._shard[index]]}: {self._keys[index]}"

    def read(self, index: int) -> Sample:
        """Read one sample's image and captions, or raise BrokenSample where it has none."""
        captions = self.captions(index)
        return {
            "image": decode(self._member(index, "image")),
            "captions": captions,
            "label": int(self.labels[index]),
        }

    def captions(self, index: int) -> tuple[str, ...]:
        """Return the captions of a sample, or raise BrokenSample where it has none.

        None are returned where they are not read.
        """
        if not self.caption_keys:
            return ()
        for spec in self.caption_keys:
            column, colon, key = spec.partition(":")
            if self._spans[index, self._columns[column], 0] < 0:
                continue
            if colon:
                value = self._json(index, column).get(key)
            else:
                value = self._text(index, column)
            texts = value if isinstance(value, list) else [value]
            captions = tuple(
                text.strip() for text in texts if isinstance(text, str) and text.strip()
            )
            if not all(map(is_utf8, captions)):
                raise BrokenSample("its caption has lone surrogates", NOT_UTF8)
            if captions:
                return captions
        raise BrokenSample(f"it has no caption in {', '.join(self.caption_keys)}", NO_CAPTION)

    def fetch_ahead(self, indices: Sequence[int], *, images: bool = True) -> None:
        """Read all of these samples at a time where they lie on servers.

        Args:
            indices: of the samples.
            images: whether their images are read, and not their captions alone.

        Raises:
            DataError: a server cannot be reached, or a file is gone.
        """
        texts = dict.fromkeys(key.partition(":")[0] for key in self.caption_keys)
        self._fetch_ahead(indices, [*texts, "image"] if images else [*texts])

    def _fetch_ahead(self, indices: Sequence[int], columns: Sequence[str]) -> None:
        if all(file.local for file in self._archives):
            return
        numbers = [self._columns[column] for column in columns]
        self._reader.fetch_ahead(
            ByteRange(self.paths[self._shard[index]], *self._spans[index, number].tolist())
            for index in indices
            for number in numbers
            if self._spans[index, number, 0] >= 0 and self._spans[index, number, 1] <= MOST_BYTES
        )

    def _text(self, index: int, column: str) -> str:
        try:
            return self._member(index, column).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BrokenSample(f"its {column} is not UTF-8: {error.reason}", NOT_UTF8) from error

    def _class_names(self, key: str) -> Iterator[str]:
        """Yield the class name of each sample, '' where it has none."""
        for start in range(0, len(self), LABELS_AT_A_TIME):
            chosen = range(start, min(start + LABELS_AT_A_TIME, len(self)))
            self._fetch_ahead(chosen, ("json",))
            for index in chosen:
                yield self._class_name(index, key)

    def _class_name(self, index: int, key: str) -> str:
        if self._spans[index, self._columns["json"], 0] < 0:
            return ""
        try:
            value = self._json(index, "json").get(key)
        except BrokenSample:
            return ""
        return str(value) if isinstance(value, str | int) else ""

    def _no_label(self, key: str) -> DataError:
        keys: list[str] = []
        if self._spans[0, self._columns["json"], 0] >= 0:
            with contextlib.suppress(BrokenSample):
                keys = list(self._json(0, "json"))
        near = "" if key in keys else did_you_mean(key, keys)
        return DataError(
            f"No sample's JSON member has a class name under the key '{key}'.{near}",
            where=self.where(0),
            do=f"Set label_key to one of its keys: {', '.join(keys) or 'there are none'}.",
        )

    def _json(self, index: int, column: str) -> dict[str, Any]:
        try:
            value = json.loads(self._member(index, column))
        except (ValueError, RecursionError) as error:
            raise BrokenSample(f"its JSON is damaged: {error}", BAD_JSON) from error
        return value if isinstance(value, dict) else {}

    def _member(self, index: int, column: str) -> bytes:
        offset, size = self._spans[index, self._columns[column]].tolist()
        if size > MOST_BYTES:
            raise BrokenSample(f"its {column} has {size / 1e6:,.0f} MB", TOO_LARGE)
        try:
            data = self._reader.read(self.paths[self._shard[index]], offset, size)
        except OSError as error:
            raise BrokenSample(str(error.strerror), NO_FILE) from error
        if len(data) != size:
            raise BrokenSample("the shard was cut short after it was indexed", NO_FILE)
        return data


def _count(
    opened: LeftOut,
    path: str,
    index: TarIndex,
    image_keys: Sequence[str],
    has_image: np.ndarray,
    has_text: np.ndarray,
) -> None:
    """Count what of an archive is left out, and name the first samples of each kind."""
    num_dotted = index.dotted(image_keys)
    lost = {
        NO_IMAGE: ~has_image & (num_dotted == 0),
        DOTTED: np.where(has_image, 0, num_dotted),
        NO_CAPTION: has_image & ~has_text,
    }
    for reason, counts in lost.items():
        if counts.any():
            first = index.keys[int(counts.argmax())]
            opened.sample(reason, f"{path}: {first}", int(counts.sum()))
    opened.sample(REPEATED, str(path), index.repeated(image_keys))
    num_images = num_dotted + sum(index.find([key])[:, 0] >= 0 for key in image_keys)
    opened.part(FURTHER, int(np.maximum(num_images[has_image] - 1, 0).sum()))
    for reason, count in index.passed_over.items():
        opened.part(reason, count)
