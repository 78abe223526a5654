"""What a source of data gives in other processes."""

from __future__ import annotations

import pickle

from compt.interfaces import Images
from compt.testing._samples import is_numbered, read, read_by_workers
from compt.testing._shared import must_work, require
from compt.testing.data.base import SourceTests


class ProcessTests(SourceTests):
    """Tests that samples are the same in other processes, and broken ones counted."""

    def test_splits_pickle(self) -> None:
        """A split of numbered samples goes to another process and gives the same there."""
        source = self.make()
        for split in source.splits:
            opened = self._open(source, split)
            if not is_numbered(opened):
                continue
            there = read(opened, self.samples)
            with must_work(
                f"The split '{split}' of {self._name()} does not pickle once it was read",
                "Leave open files and the like out in __getstate__().",
            ):
                copy = pickle.loads(pickle.dumps(opened))
            require(
                read(copy, self.samples) == there,
                f"A pickled split '{split}' of {self._name()} gives other samples.",
                "Keep in the pickled state all that samples depend on.",
            )

    def test_worker_processes_read_the_same(self) -> None:
        """Samples are the same in worker processes, however these are started."""
        opened = self._open(self.make(), self.make().splits[0])
        if not is_numbered(opened):
            return
        expected = read(opened, self.samples)  # files are open when the workers start
        for method in self.start_methods:
            do = (
                "Open files anew in each process (compare os.getpid()), read at given positions "
                "(os.pread), and define classes where a module is imported from."
            )
            with must_work(f"Worker processes cannot read {self._name()} ({method})", do):
                samples = read_by_workers(opened, self.samples, method)
            require(
                samples == expected,
                f"Worker processes read other samples of {self._name()} ({method}).",
                do,
            )

    def test_broken_samples_are_counted_in_all_processes(self) -> None:
        """Broken samples found by worker processes count, each once."""
        opened, alone = (self._open(self.make(), self.make().splits[0]) for _ in range(2))
        if not isinstance(opened, Images):
            return
        for _ in range(2):
            read(alone, self.samples)
            read_by_workers(opened, self.samples, self.start_methods[0], workers=2)
        require(
            opened.broken_count == alone.broken_count,
            f"Worker processes find {opened.broken_count} broken samples of {self._name()}, one "
            f"process {alone.broken_count}.",
            "Keep which samples are broken in memory that processes share: "
            "torch.zeros(len, dtype=torch.uint8).share_memory_().",
        )
