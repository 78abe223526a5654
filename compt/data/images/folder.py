"""Images in a folder and its sub-folders, which name the classes."""

from __future__ import annotations

import heapq
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compt.data.file_source import FileSource
from compt.data.images._strings import PackedStrings, Packer
from compt.data.images.broken import Sample, SkipBroken, decode_file
from compt.data.images.labels import number
from compt.errors import ConfigError, DataError
from compt.interfaces import ImageSource

BORDER = "\0"
"""Stands between the names of a folder's images, where they are joined."""


class FolderSource(FileSource, ImageSource):
    """Images below folders, at any depth, whose sub-folders name the classes.

    ``dict(type='folder', train='images/train', val='images/val')``: a split is one folder. The
    first sub-folder on the way to an image is its class.

    Order and labels are those of torchvision's ImageFolder. Differs: images directly in the folder
    have no class; a sub-folder without images is none; names that begin with a dot are skipped; a
    folder that links lead to is read once, where it lies if that is below the root. A million files
    take some seconds.

    Args:
        labels: whether sub-folders are classes; ``classes`` are those in this folder, sorted by
            name, so that a split without some of them numbers the others differently: see
            :func:`compt.data.renumber`.
        max_broken: share of unreadable images above which reading stops; see
            :meth:`~compt.data.images.broken.SkipBroken.check`.
        num_samples: size of the training split, for plans.
        files: split -> its folder.

    Raises:
        ConfigError: an option that cannot be.
        DataError: on opening, the folder or one below it cannot be read, or there are no images.
    """

    provides = frozenset({"image", "label"})
    split_noun, takes_lists = "folder", False

    def __init__(
        self,
        *,
        labels: bool = True,
        max_broken: float = 0.01,
        num_samples: int | None = None,
        **files: Any,
    ) -> None:
        super().__init__(files, num_samples=num_samples)
        self.options: dict[str, Any] = dict(labels=labels, max_broken=max_broken)

    def open(
        self, split: str, *, captions: bool = True, image_size: int | None = None
    ) -> FolderImages:
        """List the images of a split."""
        return FolderImages(self.path(split), **self.options)


class FolderImages(SkipBroken):
    """The images of one folder.

    Arguments and errors are those of :class:`FolderSource`.
    """

    def __init__(self, path: str | Path, *, labels: bool = True, max_broken: float = 0.01) -> None:
        if not isinstance(labels, bool):
            raise ConfigError(
                f"labels={labels!r} is neither True nor False.",
                where="folder",
                do="True: sub-folders are classes.",
            )
        self.root = Path(path).expanduser()
        images = scan(self.root)
        order = sorted(images, key=lambda folder: (_top(folder), folder))
        self._images, counts = _pack({folder: images[folder] for folder in order})
        super().__init__(len(self._images), max_broken=max_broken)
        self.classes, numbers = number([_top(folder) if labels else "" for folder in order])
        self._labels = np.repeat(numbers, counts)

    def where(self, index: int) -> str:
        """Return the path of an image."""
        return os.path.join(self.root, self._images[index])

    def read(self, index: int) -> Sample:
        """Read one image, or raise BrokenSample where it cannot be."""
        return {
            "image": decode_file(self.where(index)),
            "captions": (),
            "label": int(self._labels[index]),
        }


def scan(root: Path) -> dict[str, str]:
    """Find all images below a folder.

    Returns:
        Folder, relative to the root, with slashes -> the sorted names of its images, joined by
        ``BORDER``.

    Raises:
        DataError: a folder cannot be read, or none holds images.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS  # a second to import

    start = os.path.realpath(root)
    seen = {str(parent) for parent in Path(start).parents}  # a link to one of these leads back here
    queue = [(False, "", start)]  # links come last: what lies below the root keeps its own place
    joined: dict[str, str] = {}
    others: set[str] = set()
    while queue:
        _, folder, real = heapq.heappop(queue)
        if real in seen:
            continue
        seen.add(real)
        folders, names = _list(root / folder)
        for name, linked in folders:
            target = os.path.realpath(root / folder / name) if linked else os.path.join(real, name)
            heapq.heappush(queue, (linked, f"{folder}/{name}" if folder else name, target))
        images = [name for name in names if name.lower().endswith(IMG_EXTENSIONS)]
        if images:
            joined[folder] = BORDER.join(sorted(images))
        elif not joined:
            others.update(os.path.splitext(name)[1].lower() or name for name in names)
    if not joined:
        raise _no_images(root, IMG_EXTENSIONS, others)
    return joined


def _list(folder: Path) -> tuple[list[tuple[str, bool]], list[str]]:
    """List the sub-folders of a folder, with whether each is a link, and the names of its files.

    Hidden ones are left out.
    """
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name, linked = entry.name, entry.is_symlink()
                if name.startswith("."):
                    continue
                if os.path.isdir(entry.path) if linked else entry.is_dir():
                    folders.append((name, linked))
                else:
                    files.append(name)
    except OSError as error:
        raise DataError(
            f"The folder cannot be read: {error.strerror}.",
            where=str(folder),
            do="Give a folder of images that you may read; tables are of type 'csv', tar archives "
            "'webdataset'.",
        ) from error
    return folders, files


def _pack(joined: Mapping[str, str]) -> tuple[PackedStrings, list[int]]:
    """Pack the paths of all images, relative to the root, and count those of each folder."""
    paths, counts = Packer(), []
    for folder, images in joined.items():
        names = images.split(BORDER)
        counts.append(len(names))
        for name in names:
            paths.add(f"{folder}/{name}" if folder else name)
    return paths.packed(), counts


def _top(folder: str) -> str:
    """Return the first part of a relative path, empty for the root."""
    return folder.partition("/")[0]


def _no_images(root: Path, extensions: tuple[str, ...], others: set[str]) -> DataError:
    ends = (
        f"the files there end in: {', '.join(sorted(others)[:8])}"
        if others
        else "there are no files"
    )
    return DataError(
        "The folder holds no images.",
        where=str(root),
        do=f"Images end in {', '.join(extensions)}; {ends}.",
    )
