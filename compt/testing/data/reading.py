"""What a source of data gives when it is read."""

from __future__ import annotations

from compt.interfaces import ImageSource
from compt.random_state import random_state
from compt.testing._samples import contents, is_numbered, read, sample_faults
from compt.testing._shared import (
    Violation,
    described,
    drawn_since,
    must_work,
    random_state_kept,
    require,
    seeded,
    some,
)
from compt.testing.data.base import SourceTests


class ReadingTests(SourceTests):
    """Tests that samples are what the source says, the same at every reading."""

    def test_num_samples_is_the_number_it_gives(self) -> None:
        """Where ``num_samples`` knows a number without being told, it is that of the split."""
        source = self.make(num_samples=None)
        for split in source.splits:
            number, opened = source.num_samples(split), self._open(source, split)
            there = len(opened) if is_numbered(opened) else None
            require(
                number is None or number == there,
                f"{self._name()}.num_samples('{split}') is {number}, and the split has "
                f"{'no number of samples' if there is None else there}.",
                "Return the length of what open() returns, or None: then it is opened and counted.",
            )

    def test_samples_hold_what_it_provides(self) -> None:
        """Every split has samples of the form that the interface says."""
        source = self.make()
        for split in source.splits:
            opened = self._open(source, split)
            with must_work(f"{self._name()} cannot read the split '{split}'", "Mend what it says."):
                faults = sample_faults(opened, source.provides, self.samples)
            require(
                not faults,
                f"In the split '{split}' of {self._name()} {'; '.join(faults)}.",
                "Give samples as the interface in compt.interfaces says.",
            )

    def test_takes_the_wishes_of_a_model(self) -> None:
        """Images are opened without captions, and at a size, as models that need these ask."""
        source = self.make()
        if not isinstance(source, ImageSource):
            return
        do = "Ignore in open() what does not apply: captions=False and image_size are wishes."
        for split in source.splits:
            with must_work(
                f"{self._name()}.open('{split}', captions=False, image_size=16) fails", do
            ):
                wished = source.open(split, captions=False, image_size=16)
                faults = sample_faults(wished, source.provides - {"captions"}, self.samples)
            fewer = len(wished) < len(self._open(source, split))
            faults += ["it has fewer samples than with captions"] if fewer else []
            require(
                not faults,
                f"The split '{split}' of {self._name()}, opened without captions: "
                f"{'; '.join(faults)}.",
                do,
            )

    def test_a_split_has_an_end(self) -> None:
        """An index beyond the last sample is an IndexError, by which iterating ends."""
        source = self.make()
        for split in source.splits:
            opened = self._open(source, split)
            if not is_numbered(opened):
                continue
            do = "Raise IndexError in __getitem__() for an index of len(self) or more."
            try:
                opened[len(opened)]
            except IndexError:
                continue
            except Exception as error:
                raise Violation(
                    f"Sample {len(opened)} of {self._name()} raises {described(error)}", do
                ) from error
            raise Violation(
                f"The split '{split}' of {self._name()} has {len(opened)} samples and gives the "
                f"one with index {len(opened)}.",
                do,
            )

    def test_reads_the_same_again(self) -> None:
        """Samples depend on the index alone, not on random states or on what was read before."""
        for split in self.make().splits:
            with seeded(0):
                first = self._open(self.make(), split)
                once, twice = (read(first, self.samples) for _ in range(2))
            with seeded(1):
                other = read(self._open(self.make(), split), self.samples)
            require(
                once == twice == other,
                f"The split '{split}' of {self._name()} gives other samples when read again.",
                "Sort what is listed, draw nothing, and keep nothing that reading changes: random "
                "crops and captions are the paradigm's affair.",
            )

    def test_random_states_are_left_alone(self) -> None:
        """Opening and reading draw nothing from the global random states."""
        with random_state_kept():
            source, state = self.make(), random_state()
            for split in source.splits:
                read(self._open(source, split), self.samples)
            drawn = drawn_since(state)
        require(
            not drawn,
            f"{self._name()} draws from the global random state of {some(drawn)}.",
            "Use a generator of its own with a fixed seed: numpy.random.default_rng(0).",
        )

    def test_the_data_is_left_alone(self) -> None:
        """Opening and reading leave the files of the data as they are, and add none."""
        paths = self.files()
        hashes, source = contents(paths), self.make()
        for split in source.splits:
            read(self._open(source, split), self.samples)
        now = contents(paths)
        touched = {path for path in {*hashes, *now} if hashes.get(path) != now.get(path)}
        require(
            not touched,
            f"{self._name()} changes {some(touched)}.",
            "Write what is made of the data into the folder of cache_dir, never beside the data.",
        )
