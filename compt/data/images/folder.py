"""Images in a folder and its sub-folders, which name the classes."""

from __future__ import annotations

import heapq
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from compt.data.file_source import FileSource
from compt.data.images._strings import PackedStrings, Packer
from compt.data.images.broken import Sample, SkipBroken, decode_file
from compt.data.images.labels import number
from compt.errors import ConfigError, DataError
from compt.interfaces import ImageSource
from compt.interfaces.fingerprint import hash_of, probed, sizes_of
from compt.interfaces.left_out import MAX_BROKEN, LeftOut
from compt.registry import Range

BORDER = "\0"
"""Stands between the names of a folder's images, where they are joined."""
OTHER_IMAGES = (
    *(".apng", ".avif", ".dib", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe"),
    *(".jxl", ".pbm", ".pnm", ".qoi", ".svg", ".tga"),
)
"""Names of images that are left out where the option ``extensions`` does not name them."""
OTHER_KIND = "in files whose names end otherwise (see extensions)"
NO_IMAGE = "files that are no images, by their names"
HIDDEN = "hidden files and folders"
LINKED = "folders that a second path leads to"
NO_LABEL = "images directly in the folder, without a class"


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
        extensions: what names of images end in, as torchvision has it by default.
        max_broken: share of the images that may be left out or unreadable; see
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
        extensions: Sequence[str] | None = None,
        max_broken: Annotated[float, Range(minimum=0, maximum=1)] = MAX_BROKEN,
        num_samples: int | None = None,
        **files: Any,
    ) -> None:
        super().__init__(files, num_samples=num_samples, max_broken=max_broken)
        self.options: dict[str, Any] = dict(labels=labels, extensions=extensions)

    def open(
        self, split: str, *, captions: bool = True, image_size: int | None = None
    ) -> FolderImages:
        """List the images of a split."""
        return FolderImages(self.path(split), max_broken=self.max_broken, **self.options)


class FolderImages(SkipBroken):
    """The images of one folder.

    Arguments and errors are those of :class:`FolderSource`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        labels: bool = True,
        extensions: Sequence[str] | None = None,
        max_broken: float = MAX_BROKEN,
    ) -> None:
        if not isinstance(labels, bool):
            raise ConfigError(
                f"labels={labels!r} is neither True nor False.",
                where="folder",
                do="True: sub-folders are classes.",
            )
        self.root = Path(path).expanduser()
        opened = LeftOut()
        images = scan(self.root, _endings(extensions), opened)
        order = sorted(images, key=lambda folder: (_top(folder), folder))
        self._images, counts = _pack({folder: images[folder] for folder in order})
        super().__init__(len(self._images), max_broken=max_broken, opened=opened)
        self.classes, numbers = number([_top(folder) if labels else "" for folder in order])
        self.labels = np.repeat(numbers, counts)
        if self.classes:
            self._opened.part(NO_LABEL, int((self.labels < 0).sum()))

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Number and paths of the images, below the root, and the sizes of some."""
        chosen = [self.where(index) for index in probed(len(self))]
        return {
            "samples": len(self),
            "content": hash_of(self._images.data, self._images.ends, self.labels, self.classes),
            "bytes of some images": hash_of(sizes_of(chosen)),
        }

    def where(self, index: int) -> str:
        """Return the path of an image."""
        return os.path.join(self.root, self._images[index])

    def read(self, index: int) -> Sample:
        """Read one image, or raise BrokenSample where it cannot be."""
        return {
            "image": decode_file(self.where(index)),
            "captions": (),
            "label": int(self.labels[index]),
        }


def _endings(extensions: Any) -> tuple[str, ...]:
    """Return what names of images end in, in lower case with a dot."""
    if extensions is None:
        from torchvision.datasets.folder import IMG_EXTENSIONS  # a second to import

        return tuple(IMG_EXTENSIONS)
    listed = isinstance(extensions, Sequence) and not isinstance(extensions, str)
    if not listed or not extensions or not all(isinstance(end, str) and end for end in extensions):
        raise ConfigError(
            f"extensions={extensions!r} is not a list of endings.",
            where="folder",
            do="For example extensions=['.jpg', '.gif'].",
        )
    return tuple("." + end.lower().lstrip(".") for end in extensions)


def scan(root: Path, extensions: tuple[str, ...], opened: LeftOut) -> dict[str, str]:
    """Find all images below a folder, and count what is left out.

    Returns:
        Folder, relative to the root, with slashes -> the sorted names of its images, joined by
        ``BORDER``.

    Raises:
        DataError: a folder cannot be read, or none holds images.
    """
    start = os.path.realpath(root)
    seen = {str(parent) for parent in Path(start).parents}  # a link to one of these leads back here
    queue = [(False, "", start)]  # links come last: what lies below the root keeps its own place
    joined: dict[str, str] = {}
    others: set[str] = set()
    while queue:
        _, folder, real = heapq.heappop(queue)
        if real in seen:
            opened.part(LINKED)
            continue
        seen.add(real)
        folders, names = _list(root / folder, opened)
        for name, linked in folders:
            target = os.path.realpath(root / folder / name) if linked else os.path.join(real, name)
            heapq.heappush(queue, (linked, f"{folder}/{name}" if folder else name, target))
        images = [name for name in names if name.lower().endswith(extensions)]
        _count(opened, root / folder, set(names).difference(images))
        if images:
            joined[folder] = BORDER.join(sorted(images))
        elif not joined:
            others.update(os.path.splitext(name)[1].lower() or name for name in names)
    if not joined:
        raise _no_images(root, extensions, others)
    return joined


def _count(opened: LeftOut, folder: Path, others: Collection[str]) -> None:
    """Count the files of a folder that are not read, of which some may be images."""
    images = sorted(name for name in others if name.lower().endswith(OTHER_IMAGES))
    for name in images:
        opened.sample(OTHER_KIND, str(folder / name))
    opened.part(NO_IMAGE, len(others) - len(images))


def _list(folder: Path, opened: LeftOut) -> tuple[list[tuple[str, bool]], list[str]]:
    """List the sub-folders of a folder, with whether each is a link, and the names of its files.

    Hidden ones are left out and counted.
    """
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name, linked = entry.name, entry.is_symlink()
                if name.startswith("."):
                    opened.part(HIDDEN)
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
