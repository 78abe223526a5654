"""The contract of data sources: compt's own keep it, and every test of it catches a broken one."""

from __future__ import annotations

import json
import os
import random
import tarfile
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compt.data import FileSource
from compt.data.images.broken import BrokenSample, SkipBroken
from compt.errors import DataError
from compt.interfaces import (
    DataSource,
    Images,
    ImageSource,
    LeftOut,
    Text,
    TextSource,
    Tokens,
    TokenSource,
    TokenSpan,
    left_out,
)
from compt.testing import DataSourceContract
from tests.testing.broken import (
    Case,
    blamed_alone,
    check,
    check_complete,
    check_good,
    check_others,
    outcome,
)

from .conftest import picture

# compt's own sources


class Written(DataSourceContract):
    """A contract for data that each of its tests finds in a folder of its own."""

    def write(self, folder: Path) -> dict[str, Any]:
        """Write the data into an empty folder, and return the config."""
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def data(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "data"
        self.folder.mkdir()
        self.source = self.write(self.folder)

    def files(self) -> list[Path]:
        return [self.folder]


class TestCsv(Written):
    start_methods = ("fork",)  # spawned processes read tables, shards and icons in their own tests

    def write(self, folder):
        lines = ["image,caption,kind"]
        for i in range(12):
            content = b"no image" if i in (3, 4) else picture(i)
            (folder / f"{i}.png").write_bytes(content)
            lines.append(f"{i}.png,number {i},{'odd' if i % 2 else 'even'}")
        for split in ("train", "night"):
            (folder / f"{split}.csv").write_text("\n".join(lines))
        paths = {split: str(folder / f"{split}.csv") for split in ("train", "night")}
        return dict(type="csv", label_key="kind", max_broken=0.5, **paths)


class TestFolder(Written):
    def write(self, folder):
        for split in ("train", "val"):
            for i in range(6):
                path = folder / split / f"{'odd' if i % 2 else 'even'}" / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(picture(i))
        return dict(type="folder", train=folder / "train", val=folder / "val")


class TestShards(Written):
    start_methods = ("fork",)

    def write(self, folder):
        for split in ("train", "val"):
            with tarfile.open(folder / f"{split}.tar", "w") as tar:
                for i in range(10):
                    for ending, data in (("png", picture(i)), ("txt", b"number")):
                        (folder / "member").write_bytes(data)
                        tar.add(folder / "member", f"{i}.{ending}")
        paths = {split: [folder / f"{split}.tar"] for split in ("train", "val")}
        return dict(type="webdataset", cache_dir=folder.parent / "cache", **paths)


class TestIcons(DataSourceContract):
    source = dict(type="icons")
    start_methods = ("fork",)

    @pytest.fixture(autouse=True)
    def packages(self):
        pytest.importorskip("resvg_py")


class TestStdlib(DataSourceContract):
    source = dict(type="stdlib", tests=False)


class TestTextFiles(Written):
    def write(self, folder):
        for split in ("train", "val"):
            text = f"first of {split}\n\n \n\nsecond\n\n" + 40_000 * "word "
            (folder / f"{split}.txt").write_text(text)
        paths = {split: folder / f"{split}.txt" for split in ("train", "val")}
        return dict(type="text", separator="\n\n", **paths)


class TestJsonLines(Written):
    def write(self, folder):
        for split in ("train", "val"):
            rows = (json.dumps(dict(text=text)) for text in (split, "", "more", 70_000 * "x"))
            (folder / f"{split}.jsonl").write_text("\n".join(rows))
        return dict(type="jsonl", train=[folder / "train.jsonl"], val=f"{folder}/val*")


class TestParquet(Written):
    def write(self, folder):
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        for split in ("train", "val"):
            parquet.write_table(pyarrow.table(dict(body=[split, "more"])), folder / split)
        return dict(type="parquet", key="body", train=folder / "train", val=folder / "val")


class TestSavedDatasets(Written):
    def write(self, folder):
        datasets = pytest.importorskip("datasets")
        for split in ("train", "val"):
            datasets.Dataset.from_dict(dict(text=[split, "more"])).save_to_disk(folder / split)
        return dict(type="datasets", train=folder / "train", val=folder / "val")


class TestTokenFiles(Written):
    def write(self, folder):
        np.arange(99, dtype="uint16").tofile(folder / "train.bin")
        np.save(folder / "val.npy", np.arange(20, 60))
        paths = dict(train=folder / "train.bin", val=folder / "val.npy")
        return dict(type="tokens", bytes_per_token=4.0, **paths)


# Good sources to break


class Shades(ImageSource):
    """Grey images, one of each four damaged; what is broken below derives from it."""

    provides = frozenset({"image", "captions", "label"})
    splits = ("train", "val")

    def __init__(self, *, brightness=100, num_samples=None):
        super().__init__(num_samples=num_samples)
        self.brightness = brightness

    def open(self, split, *, captions=True, image_size=None):
        self.check_split(split)
        return Greys(self.brightness)


class Greys(SkipBroken):
    classes = ("even", "odd")

    def __init__(self, brightness=100):
        super().__init__(10, max_broken=0.9)
        self.brightness = brightness

    def where(self, index):
        return f"number {index}"

    def read(self, index):
        if index % 4 == 1:
            raise BrokenSample("damaged")
        image = Image.new("RGB", (8, 8), (self.brightness + index,) * 3)
        return {"image": image, "captions": (f"number {index}",), "label": index % 2}


class Poems(TextSource):
    """Three short documents a split, one of them blank."""

    splits = ("train", "val")

    def open(self, split):
        self.check_split(split)
        return Poem(split)


class Poem(Text):
    def __init__(self, split):
        self.split, self.fingerprint = split, f"a poem for {split}"

    def __iter__(self):
        yield from (f"rose of {self.split}", " \n", "violet")


class Digits(FileSource, TokenSource):
    """Files of tokens."""

    def __init__(self, *, dtype="uint16", num_samples=None, **files):
        super().__init__(files, num_samples=num_samples)
        self.dtype = dtype

    def open(self, split):
        path = Path(self.path(split))
        count = path.stat().st_size // np.dtype(self.dtype).itemsize
        return Tokens((TokenSpan(path, self.dtype, 0, count),), num_bytes=count)


class GoodImages(DataSourceContract):
    source = dict(type=Shades, brightness=90)


class GoodText(DataSourceContract):
    source = dict(type=Poems)


@pytest.mark.parametrize("good", [GoodImages, GoodText], ids=lambda c: c.__name__)
def test_good_sources_pass(good, tmp_path):
    check_good(good, tmp_path)


def test_a_good_source_of_tokens_passes(tmp_path):
    np.arange(20, dtype="uint16").tofile(tmp_path / "a.bin")
    source = dict(type=Digits, train=tmp_path / "a.bin", val=str(tmp_path / "a.bin"))
    check_good(type("GoodTokens", (DataSourceContract,), dict(source=source)), tmp_path)


def test_a_source_of_another_kind_is_held_to_what_all_share(tmp_path):
    class Sounds(DataSource):
        provides = frozenset({"sound"})
        splits = ("train",)

        def open(self, split):
            self.check_split(split)
            return [np.arange(4) + i for i in range(3)]

    check_good(contract(Sounds), tmp_path)


# Broken sources


class LacksWishes(Shades):
    def open(self, split):
        return super().open(split)


class ProvidesAString(Shades):
    provides = "image"


class ProvidesMore(Shades):
    def __init__(self, *, num_samples=None):
        super().__init__(num_samples=num_samples)
        self.provides = self.provides | {"depth"}


class TextIsNoText(Poems):
    def open(self, split):
        self.check_split(split)
        return [f"rose of {split}"]


class SlashInName(Shades):
    splits = ("train", "val/night")


class TakesAnything(Shades):
    def __init__(self, *, brightness=100, num_samples=None, **others):
        super().__init__(brightness=brightness, num_samples=num_samples)


class TakesAnySplit(Shades):
    def open(self, split, *, captions=True, image_size=None):
        return Greys()


class TakesNoSize(Shades):
    def __init__(self, *, brightness=100):
        super().__init__()


class ForgetsItsSize(Shades):
    def __init__(self, *, brightness=100, num_samples=None):
        super().__init__()


class CountsWrongly(Shades):
    def num_samples(self, split):
        known = super().num_samples(split)
        return 11 if known is None else known


class Opens(Shades):
    """A source whose splits are another data set."""

    images: type = Greys

    def open(self, split, *, captions=True, image_size=None):
        self.check_split(split)
        return self.images()


class BareCaption(Opens):
    class images(Greys):
        def read(self, index):
            return {**super().read(index), "captions": f"number {index}"}


class NoCaption(Opens):
    class images(Greys):
        def read(self, index):
            return {**super().read(index), "captions": ()}


class GreyMode(Opens):
    class images(Greys):
        def read(self, index):
            sample = super().read(index)
            return {**sample, "image": sample["image"].convert("L")}


class LabelBeyond(Opens):
    class images(Greys):
        def read(self, index):
            return {**super().read(index), "label": index}


class PiecesLeaveOut(Poems):
    class Short(Poem):
        def pieces(self):
            return (piece for piece, _ in zip(super().pieces(), range(1)))

    def open(self, split):
        self.check_split(split)
        return self.Short(split)


class InsistsOnCaptions(Shades):
    def open(self, split, *, captions=True, image_size=None):
        if not captions:
            raise ValueError("captions are wanted")
        return super().open(split)


class FewerWithout(Shades):
    def open(self, split, *, captions=True, image_size=None):
        images = super().open(split)
        if not captions:
            images.known = images.known[:5]
        return images


class NoEnd(Opens):
    class images(Greys):
        def __getitem__(self, index):
            return super().__getitem__(index % len(self))


class Random(Opens):
    class images(Greys):
        def read(self, index):
            state = random.getstate()
            captions = (f"number {random.random()}",)
            random.setstate(state)
            return {**super().read(index), "captions": captions}


class Draws(Opens):
    class images(Greys):
        def read(self, index):
            random.random()
            return super().read(index)


class WritesBeside(FileSource, ImageSource):
    provides = Shades.provides
    split_noun, takes_lists = "folder", False

    def __init__(self, *, num_samples=None, **files):
        super().__init__(files, num_samples=num_samples)

    def open(self, split, *, captions=True, image_size=None):
        (Path(self.path(split)) / "index.json").write_text("[]")
        return Greys()


class KeepsALock(Opens):
    class images(Greys):
        def read(self, index):
            self.lock = threading.Lock()
            return super().read(index)


class ReadsOn(Opens):
    """A data set that forked processes read at a place that they share."""

    class images(Greys):
        def __init__(self):
            super().__init__()
            self.process = os.getpid()

        def read(self, index):
            return super().read(index if os.getpid() == self.process else (index + 2) % 10)


class CountsForItself(Opens):
    class images(Images):
        classes = Greys.classes

        def __init__(self):
            self.greys, self.count = Greys(), set()

        @property
        def broken_count(self):
            return len(self.count)

        def __len__(self):
            return len(self.greys)

        def __getitem__(self, index):
            if index % 4 == 1:
                self.count.add(index)
            return self.greys[index]


class OneFingerprint(Poems):
    def open(self, split):
        self.check_split(split)
        poem = Poem(split)
        poem.fingerprint = "a poem"
        return poem


class FreshFingerprint(Poems):
    def open(self, split):
        self.check_split(split)
        poem = Poem(split)
        poem.fingerprint = str(id(poem)) + str(random.SystemRandom().random())
        return poem


class LeavesOutInWords(Opens):
    class images(Greys):
        @property
        def left_out(self):
            return {"damaged": self.broken_count}


class LeavesOutTwice(Opens):
    class images(Greys):
        @property
        def left_out(self):
            lacks = super().left_out
            lacks.total = 3
            return lacks


class SkipsUnsaid(Poems):
    class Quiet(Poem):
        left_out = LeftOut()

    def open(self, split):
        self.check_split(split)
        return self.Quiet(split)


class FreshImages(Opens):
    class images(Greys):
        @property
        def fingerprint(self):
            return {"content": random.SystemRandom().random()}


class FingerprintOfWhatWasRead(Opens):
    class images(Greys):
        @property
        def fingerprint(self):
            return {"read": int((self.known > 0).sum())}


def contract(source: type, **options) -> type:
    members = dict(source=dict(type=source, **options), start_methods=("fork",))
    return type(f"{source.__name__}Contract", (DataSourceContract,), members)


CASES = [
    Case(contract(LacksWishes), "test_methods_take_what_the_core_gives", "def open(self", None),
    Case(contract(ProvidesAString), "test_says_what_it_provides", "frozenset", None),
    Case(contract(ProvidesMore), "test_says_what_it_provides", "self.provides in __init__"),
    Case(
        contract(TextIsNoText),
        "test_says_what_it_provides",
        "Return a compt.Text",
        ("test_the_fingerprint_tells_documents_apart",),
    ),
    Case(contract(SlashInName), "test_splits_have_names_of_their_own", "split/metric"),
    Case(contract(TakesAnything), "test_unknown_options_are_refused", "compt.data.FileSource"),
    Case(contract(TakesAnySplit), "test_an_unknown_split_is_refused", "self.check_split(split)"),
    Case(contract(TakesNoSize), "test_its_size_can_be_declared", "num_samples=None", None),
    Case(contract(ForgetsItsSize), "test_its_size_can_be_declared", "super().__init__(num_samples"),
    Case(contract(CountsWrongly), "test_num_samples_is_the_number_it_gives", "or None"),
    Case(contract(BareCaption), "test_samples_hold_what_it_provides", "no tuple of texts",
         ("test_takes_the_wishes_of_a_model",)),
    Case(contract(NoCaption), "test_samples_hold_what_it_provides", "provides 'captions'"),
    Case(contract(GreyMode), "test_samples_hold_what_it_provides", "in RGB",
         ("test_takes_the_wishes_of_a_model",)),
    Case(contract(LabelBeyond), "test_samples_hold_what_it_provides", "with 2 classes",
         ("test_takes_the_wishes_of_a_model",)),
    Case(contract(PiecesLeaveOut), "test_samples_hold_what_it_provides", "do not add up"),
    Case(contract(InsistsOnCaptions), "test_takes_the_wishes_of_a_model", "are wishes"),
    Case(contract(FewerWithout), "test_takes_the_wishes_of_a_model", "fewer samples"),
    Case(contract(NoEnd), "test_a_split_has_an_end", "IndexError"),
    Case(contract(Random), "test_reads_the_same_again", "draw nothing", None),
    Case(contract(Draws), "test_random_states_are_left_alone", "default_rng(0)"),
    Case(contract(KeepsALock), "test_splits_pickle", "__getstate__"),
    Case(contract(ReadsOn), "test_worker_processes_read_the_same", "os.pread"),
    Case(contract(CountsForItself), "test_broken_samples_are_counted_in_all_processes",
         "share_memory_"),
    Case(contract(LeavesOutInWords), "test_what_is_left_out_is_counted", "no LeftOut"),
    Case(contract(LeavesOutTwice), "test_what_is_left_out_is_counted", "total is 3"),
    Case(contract(SkipsUnsaid), "test_what_is_left_out_is_counted", "skipped 1"),
    Case(contract(FreshImages), "test_images_have_a_fingerprint", "a resumed run"),
    Case(contract(FingerprintOfWhatWasRead), "test_images_have_a_fingerprint", "once read"),
    Case(contract(OneFingerprint), "test_the_fingerprint_tells_documents_apart", "Tokens are kept"),
    Case(contract(FreshFingerprint), "test_the_fingerprint_tells_documents_apart", "fingerprints"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_broken_sources_are_caught(case, tmp_path):
    check(case, tmp_path)


@pytest.mark.parametrize("case", blamed_alone(CASES))
def test_no_other_test_blames_a_broken_source(case, tmp_path):
    check_others(case, tmp_path)


def test_a_source_that_writes_beside_its_data_is_caught(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    broken = contract(WritesBeside, train=str(data), val=str(data))
    advice = "never beside the data"
    check(Case(broken, "test_the_data_is_left_alone", advice), tmp_path)


def test_every_test_of_the_contract_has_a_source_that_it_catches():
    beside = Case(DataSourceContract, "test_the_data_is_left_alone", "")
    check_complete(DataSourceContract, [*CASES, beside])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_complaint_names_the_class(case, tmp_path):
    error = outcome(case.contract, case.test, tmp_path)
    assert case.contract.source["type"].__name__ in str(error), error


def test_plug_ins_are_held_to_the_share_of_their_source(tmp_path):
    clip = pytest.importorskip("compt.paradigms.clip")

    class Strict(Shades):
        def __init__(self, *, max_broken=0.01, num_samples=None):
            DataSource.__init__(self, num_samples=num_samples, max_broken=max_broken)

        def open(self, split, *, captions=True, image_size=None):
            images = CountsForItself.images()
            images.count.add(3)
            return images

    for max_broken, is_held in ((0.01, True), (0.2, False)):
        paradigm = clip.Clip(data=dict(type=Strict, max_broken=max_broken))
        lacks = left_out(paradigm.open_images("train"))
        assert (lacks.num_samples, lacks.total, lacks.max_broken) == (1, 10, max_broken)
        with pytest.raises(DataError) if is_held else nullcontext():
            lacks.check()
