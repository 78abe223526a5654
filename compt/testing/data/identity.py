"""By what a source of data is known again."""

from __future__ import annotations

from itertools import islice

from compt.interfaces import Images, Text, TextSource, fingerprint
from compt.testing._samples import left_out_faults, read
from compt.testing._shared import must_work, require
from compt.testing.data.base import SourceTests

PIECES = 1000
"""Pieces of documents that are read to see what is left out."""


class IdentityTests(SourceTests):
    """Tests that changed data is told apart, and that what is left out is counted."""

    def test_the_fingerprint_tells_documents_apart(self) -> None:
        """Equal documents have one fingerprint, and other documents another."""
        source, seen = self.make(), dict[str, str]()
        if not isinstance(source, TextSource):
            return
        do = (
            "Make it from what decides the documents: the split, the options, and the names, sizes "
            "and dates of the files. Tokens are kept under it."
        )
        for split in source.splits:
            text, again = self._open(source, split), self._open(self.make(), split)
            require(
                isinstance(text.fingerprint, str) and text.fingerprint == again.fingerprint,
                f"Opened twice, the split '{split}' of {self._name()} has the fingerprints "
                f"{text.fingerprint!r} and {again.fingerprint!r}.",
                do,
            )
            twin = seen.setdefault(text.fingerprint, split)
            other = self._open(source, twin)
            require(
                read(text, self.samples) == read(other, self.samples),
                f"The splits '{twin}' and '{split}' of {self._name()} have one fingerprint, and "
                "different documents.",
                do,
            )

    def test_images_have_a_fingerprint(self) -> None:
        """The fingerprint of images is the same at every opening, and fit for a file."""
        source = self.make()
        do = (
            "Return numbers and hashes of what decides the samples, by name: counts, sizes of "
            "files, options. a resumed run compares them."
        )
        for split in source.splits:
            opened, again = self._open(source, split), self._open(self.make(), split)
            if not isinstance(opened, Images):
                continue
            with must_work(f"The split '{split}' of {self._name()} has no fingerprint", do):
                first = fingerprint(opened)
                read(opened, self.samples)
                others = [fingerprint(opened), fingerprint(again)]
            require(
                bool(first) and all(other == first for other in others),
                f"The split '{split}' of {self._name()} has the fingerprints {first}, "
                f"{others[0]} once read and {others[1]} opened again.",
                do,
            )

    def test_what_is_left_out_is_counted(self) -> None:
        """``left_out`` counts by reason what was left out, and is held against ``max_broken``."""
        source = self.make()
        do = (
            "Fill a compt.LeftOut on opening and reading: sample(reason) for samples that are left "
            "out or replaced, part(reason) for what else is; total counts all there were."
        )
        for split in source.splits:
            opened = self._open(source, split)
            if not isinstance(opened, Images | Text):
                continue
            if isinstance(opened, Text):
                for _ in islice(opened.pieces(), PIECES):
                    pass
            else:
                read(opened, self.samples)
            where = f"The split '{split}' of {self._name()}"
            lacks = opened.left_out
            faults = left_out_faults(lacks, len(opened) if isinstance(opened, Images) else 0)
            require(not faults, f"{where}: {'; '.join(faults)}.", do)
            require(
                not isinstance(opened, Text) or lacks.num_samples == opened.skipped,
                f"{where} has left out {lacks.num_samples} documents by left_out, and skipped "
                f"{getattr(opened, 'skipped', 0)}.",
                do,
            )
