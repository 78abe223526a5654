"""What every source of data is held to."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from compt.errors import ComptError, ConfigError
from compt.interfaces import (
    DataSource,
    Images,
    ImageSource,
    Text,
    TextSource,
    Tokens,
    TokenSource,
    fingerprint,
)
from compt.random_state import random_state
from compt.registry import DATA
from compt.testing._contract import Contract, require_signatures
from compt.testing._samples import (
    contents,
    is_name,
    is_numbered,
    left_out_faults,
    read,
    read_by_workers,
    sample_faults,
)
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

INTERFACES: Mapping[str, tuple[type[DataSource], type]] = {
    "image": (ImageSource, Images),
    "text": (TextSource, Text),
    "tokens": (TokenSource, Tokens),
}
"""What a source may provide -> the interface it then keeps, and what ``open`` returns."""
PIECES = 1000
"""Pieces of documents that are read to see what is left out."""
DECLARED = 7
"""A size of the training split that the contract makes up."""


class DataSourceContract(Contract):
    """A source gives the same samples at every reading and in every process.

    Usage, in a plug-in's own tests::

        class TestMine(compt.testing.DataSourceContract):
            source = dict(type="mine", train="train.csv", val="val.csv")

    A fixture that writes the data may set ``self.source`` instead.
    """

    source: Mapping[str, Any]
    """The config of a source, with data of a few samples in every split."""
    samples: ClassVar[int] = 8
    """How many samples of a split are read, from the first on."""
    start_methods: ClassVar[tuple[str, ...]] = ("fork", "spawn")
    """How worker processes are started."""

    def make(self, **options: Any) -> DataSource:
        """Build the source, with more options than the config has."""
        source: DataSource = DATA.build({**self.source, **options})
        return source

    def plugin_class(self) -> type:
        """Return the class of the source."""
        return type(self.make())

    def files(self) -> list[Path]:
        """Return the files and folders that hold the data, for a config that does not name them."""
        values = [self.source[split] for split in self.make().splits if split in self.source]
        lists = [value if isinstance(value, (list, tuple)) else [value] for value in values]
        paths = [Path(path) for paths in lists for path in paths if isinstance(path, str | Path)]
        return [path for path in paths if path.exists()]

    # What is checked

    def test_methods_take_what_the_core_gives(self) -> None:
        """Signatures are those of the interface."""
        source = self.make()
        bases: list[type] = [interface for interface, _ in self._interfaces(source)]
        for base in (DataSource, *bases):
            require_signatures(source, base)

    def test_says_what_it_provides(self) -> None:
        """``provides`` names what samples hold, and the source keeps the interface for it."""
        source, name = self.make(), self._name()
        provides = source.provides
        require(
            isinstance(provides, frozenset) and provides and all(map(is_name, provides)),
            f"{name}.provides is {provides!r}.",
            "Name what samples hold: provides = frozenset({'image', 'captions'}), in the class.",
        )
        require(
            provides <= type(source).provides,
            f"{name} provides {some(provides)}, its class {some(type(source).provides)}.",
            "Name all that it can give in the class; where options leave something out, set "
            "self.provides in __init__().",
        )
        for interface, returned in self._interfaces(source):
            require(
                isinstance(source, interface),
                f"{name} provides {some(provides)} and is no {interface.__name__}.",
                f"Derive it from compt.{interface.__name__}.",
            )
            for split in source.splits:
                opened = self._open(source, split)
                require(
                    isinstance(opened, returned),
                    f"{name}.open('{split}') returns {type(opened).__name__}.",
                    f"Return a compt.{returned.__name__}.",
                )

    def test_splits_have_names_of_their_own(self) -> None:
        """``splits`` are different names, which metrics can be called after."""
        splits = self.make().splits
        names = isinstance(splits, tuple) and splits and all(map(is_name, splits))
        require(
            names and len(set(splits)) == len(splits) and not any("/" in s for s in splits),
            f"{self._name()}.splits is {splits!r}.",
            "Make it a tuple of different names without '/': metrics are called 'split/metric'.",
        )

    def test_unknown_options_are_refused(self) -> None:
        """What is no option is a ConfigError, and a misspelt one names the right one."""
        do = (
            "Name every option in __init__(); where other keys are splits, derive from "
            "compt.data.FileSource, which tells them apart."
        )
        options = inspect.signature(type(self.make())).parameters.values()
        names = [p.name for p in options if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
        right = max(names, key=len, default="num_samples")
        for wrong, value in (("no_such_option", object()), (f"{right}x", "misspelt")):
            try:
                self.make(**{wrong: value})
            except ConfigError as error:
                message = str(error)
            except Exception as error:
                raise Violation(
                    f"{self._name()} with the option '{wrong}' raises {described(error)}", do
                ) from error
            else:
                raise Violation(f"{self._name()} takes '{wrong}', which is no option.", do)
        require(
            f"'{right}'" in message,
            f"{self._name()} refuses '{right}x' without naming '{right}': {message!r}.",
            do,
        )

    def test_an_unknown_split_is_refused(self) -> None:
        """``open`` raises a ConfigError that names the splits there are."""
        source, do = self.make(), "Begin open() with self.check_split(split)."
        try:
            source.open("no_such_split")
        except ConfigError as error:
            missing = [split for split in source.splits if split not in str(error)]
        except Exception as error:
            raise Violation(
                f"{self._name()}.open('no_such_split') raises {described(error)}", do
            ) from error
        else:
            raise Violation(f"{self._name()}.open('no_such_split') opens something.", do)
        require(
            not missing,
            f"The error of {self._name()} for an unknown split does not name {some(missing)}.",
            do,
        )

    def test_its_size_can_be_declared(self) -> None:
        """``num_samples`` in the config is the size of 'train', for plans without the data."""
        do = (
            "Take num_samples=None in __init__() and hand it to super().__init__(num_samples="
            "num_samples); override num_samples() only to add what is known without it."
        )
        with must_work(f"{self._name()} does not take num_samples", do):
            source = self.make(num_samples=DECLARED)
        number = source.num_samples("train")
        require(
            number == DECLARED,
            f"With num_samples={DECLARED} {self._name()}.num_samples('train') is {number!r}.",
            do,
        )

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

    # How it is done

    def _name(self) -> str:
        return type(self.make()).__name__

    def _open(self, source: DataSource, split: str) -> Any:
        try:
            return source.open(split)
        except Exception as error:
            why = error.one_line if isinstance(error, ComptError) else described(error)
            raise Violation(
                f"{type(source).__name__}.open('{split}') fails: {why}",
                "Mend what it says, or give the contract's source data that is there.",
            ) from error

    def _interfaces(self, source: DataSource) -> list[tuple[type[DataSource], type]]:
        """Return the interfaces that it must keep by what it provides."""
        return [INTERFACES[name] for name in INTERFACES if name in source.provides]
