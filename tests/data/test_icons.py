from __future__ import annotations

import json
import multiprocessing
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

pytest.importorskip("resvg_py")

from compt.data.icons import Icons, drawings as icon_cache
from compt.data.icons.names import Icon, divide, held_out
from compt.errors import ConfigError, DataError


@pytest.fixture(scope="session")
def icons() -> dict[str, Icons]:
    return {split: Icons(split) for split in ("train", "concept", "vendor")}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A package of four icons, one of them damaged and one empty; returns an empty cache folder."""
    folder = tmp_path / "icons"
    for name, body in {
        "material/bell.svg": '<rect width="24" height="24"/>',
        "material/half.svg": '<rect width="12" height="24"/>',
        "octicons/void-16.svg": "",
        "simple/broken.svg": None,
    }.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24">{body}</svg>'
        file.write_text("<svg" if body is None else svg)
    monkeypatch.setattr(icon_cache, "_icon_folder", lambda: (folder, "1.0"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("path", "caption", "concept"),
    [
        (
            "material/account-arrow-down-outline.svg",
            "account arrow down outline",
            "accountarrowdown",
        ),
        ("material/battery-90.svg", "battery 90", "battery"),
        ("material/numeric-7-box.svg", "numeric 7 box", "numeric7"),
        ("material/language-python.svg", "language python", "python"),
        ("material/circle-outline.svg", "circle outline", "circle"),
        ("octicons/bell-fill-16.svg", "bell fill", "bell"),
        ("simple/microsoftazure.svg", "microsoftazure", "microsoftazure"),
        ("material/microsoft-azure.svg", "microsoft azure", "microsoftazure"),
        ("fontawesome/brands/500px.svg", "500px", "500px"),
    ],
)
def test_names_say_caption_and_concept(path: str, caption: str, concept: str) -> None:
    assert (Icon(path).captions[0], Icon(path).concept) == (caption, concept)


def test_divide_by_hand() -> None:
    unseen = next(word for word in (f"thing{chr(97 + i)}" for i in range(26)) if held_out(word))
    seen = next(word for word in (f"thing{chr(97 + i)}" for i in range(26)) if not held_out(word))
    paths = [
        f"material/{seen}.svg",
        f"material/{unseen}.svg",
        f"octicons/{unseen}-outline-24.svg",
        f"material/{unseen}-box.svg",  # drawn as what is trained on
        f"fontawesome/solid/{seen}.svg",
        f"fontawesome/solid/{unseen}.svg",  # no such name in train
        f"fontawesome/regular/{seen}.svg",  # drawn as what is trained on
    ]
    parts = divide([Icon(path) for path in paths], ["a", "b", "c", "a", "d", "e", "a"])
    assert (parts["train"].rows, parts["train"].labels) == ((0,), (-1,))
    assert (parts["concept"].rows, parts["concept"].labels) == ((1, 2), (-1, -1))
    assert (parts["vendor"].rows, parts["vendor"].classes) == ((4,), (seen,))


def test_a_brand_is_trained_on_whatever_its_hash() -> None:
    unseen = next(word for word in (f"brand{chr(97 + i)}" for i in range(26)) if held_out(word))
    parts = divide([Icon(f"simple/{unseen}.svg"), Icon(f"material/{unseen}.svg")], ["a", "b"])
    assert parts["train"].rows == (0, 1)
    assert parts["concept"].rows == ()


def test_no_concept_is_on_both_sides(icons: dict[str, Icons]) -> None:
    sides = {
        split: {data.icon(i).concept for i in range(len(data))} for split, data in icons.items()
    }
    assert not sides["train"] & sides["concept"]
    assert {icons["vendor"].icon(i).vendor for i in range(len(icons["vendor"]))} == {"fontawesome"}
    assert "fontawesome" not in {icons["train"].icon(i).vendor for i in range(len(icons["train"]))}


def test_no_pixels_of_a_held_out_split_are_trained_on(icons: dict[str, Icons]) -> None:
    pixels = {
        split: {data._pixels[row].tobytes() for row in data._rows} for split, data in icons.items()
    }
    assert not pixels["train"] & pixels["concept"]
    assert not pixels["train"] & pixels["vendor"]


def test_classes_have_samples_on_both_sides(icons: dict[str, Icons]) -> None:
    train, concept, vendor = icons.values()
    assert train.classes == concept.classes
    assert 60 <= len(concept.classes) <= 130
    assert np.bincount(train.labels[train.labels >= 0], minlength=len(train.classes)).min() >= 12
    assert np.bincount(concept.labels[concept.labels >= 0], minlength=len(train.classes)).min() >= 2
    names = {
        train.icon(i).captions[0] for i in range(len(train)) if train.icon(i).vendor == "material"
    }
    assert set(vendor.classes) <= names
    assert np.bincount(vendor.labels, minlength=len(vendor.classes)).min() >= 1


def test_labels_are_head_words_and_names(icons: dict[str, Icons]) -> None:
    for split, part in (("concept", "head"), ("vendor", "name")):
        data = icons[split]
        for i in range(0, len(data), 7):
            label = data[i]["label"]
            assert label == -1 or data.classes[label] == getattr(data.icon(i), part).replace(
                "-", " "
            )


def test_fewer_icons_are_those_of_more(icons: dict[str, Icons]) -> None:
    """With their own labels, and held-out splits whole."""

    def kept(samples: int) -> dict[str, int]:
        data = Icons("train", samples=samples)
        assert len(data) == samples
        return {data.icon(i): data[i]["label"] for i in range(samples)}

    everything = icons["train"]
    known = {everything.icon(i): int(label) for i, label in enumerate(everything.labels)}
    assert kept(100).items() <= kept(300).items() <= known.items() and kept(300) == kept(300)
    assert len({icon.vendor for icon in kept(300)}) == 3, "of every vendor there is"
    assert len(Icons("concept", samples=100)) == len(icons["concept"])


def test_an_item_is_dark_on_white_rgb(icons: dict[str, Icons]) -> None:
    sample = icons["train"][0]
    assert (sample["image"].mode, sample["image"].size) == ("RGB", (32, 32))
    pixels = np.array(sample["image"])
    assert pixels.max() == 255
    assert pixels.min() < 100
    with pytest.raises(IndexError):
        icons["train"][len(icons["train"])]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_the_same(icons: dict[str, Icons], method: str) -> None:
    data = icons["vendor"]
    loader = DataLoader(
        data, batch_size=None, num_workers=2, multiprocessing_context=method, sampler=range(20)
    )
    for i, sample in enumerate(loader):
        assert tuple(sample["captions"]) == data[i]["captions"]
        assert sample["image"].tobytes() == data[i]["image"].tobytes()


def test_pickle_leaves_the_pixels_behind(icons: dict[str, Icons]) -> None:
    state = pickle.dumps(icons["train"])
    assert len(state) < 3e6
    assert pickle.loads(state)[5]["image"].tobytes() == icons["train"][5]["image"].tobytes()


def test_what_cannot_be_drawn_is_skipped_and_counted(few: Path) -> None:
    drawn = icon_cache.drawings(16, few)
    assert drawn.skipped == {"octicons/void-16.svg", "simple/broken.svg"}
    pixels = drawn.open()
    assert pixels.shape == (4, 16, 16)
    assert (pixels[0] == 0).all()
    assert (pixels[1, :, :8] == 0).all()
    assert (pixels[1, :, 8:] == 255).all()
    assert Icons("train", image_size=16, cache_dir=few).skipped == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "facts", "gone"])
def test_a_damaged_cache_is_redrawn(few: Path, damage: str) -> None:
    drawn = icon_cache.drawings(16, few)
    good = drawn.file.read_bytes()
    facts = drawn.file.with_suffix(".json")
    if damage == "flip":
        drawn.file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    elif damage == "cut":
        drawn.file.write_bytes(good[:-5])
    elif damage == "facts":
        facts.write_text(facts.read_text()[:-9])
    else:
        facts.unlink()
    again = icon_cache.drawings(16, few)
    assert again.file.read_bytes() == good
    assert json.loads(facts.read_text())["skipped"] == ["octicons/void-16.svg", "simple/broken.svg"]


def test_an_intact_cache_is_not_redrawn(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    icon_cache.drawings(16, few)
    monkeypatch.setattr(icon_cache, "_drawer", lambda size: pytest.fail("drawn again"))
    icon_cache.drawings(16, few)


def test_other_icons_or_sizes_have_their_own_cache(few: Path) -> None:
    first = icon_cache.drawings(16, few).file
    other = icon_cache.drawings(20, few).file
    icon_cache._icon_folder()[0].joinpath("material/half.svg").unlink()
    assert len({first, other, icon_cache.drawings(16, few).file}) == 3


def _draw_slowly(cache: Path, log: Path) -> None:
    drawer = icon_cache._drawer

    def slow(size: int) -> object:
        with log.open("a") as file:
            file.write("drawn\n")
        time.sleep(0.5)
        return drawer(size)

    icon_cache._drawer = slow  # type: ignore[assignment]
    icon_cache.drawings(16, cache)


def test_two_processes_draw_once(few: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_draw_slowly, args=(few, tmp_path / "log")) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert (tmp_path / "log").read_text() == "drawn\n"


def test_an_unwritable_cache_says_what_to_do(few: Path) -> None:
    few.write_text("a file where the folder should be")
    with pytest.raises(DataError, match="COMPT_CACHE_DIR"):
        icon_cache.drawings(16, few)


def test_a_full_disk_says_what_to_do_and_leaves_nothing(
    few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match="No space left"):
        icon_cache.drawings(16, few)
    assert [file.suffix for file in (few / "icons").iterdir()] in ([], [".lock"])


def test_missing_packages_are_named(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "resvg_py", None)
    with pytest.raises(DataError, match=r"compt\[demo\]"):
        icon_cache.drawings(16, few)


def test_wrong_split_and_size() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'vendor'"):
        Icons("vendors")
    with pytest.raises(ConfigError, match="image_size=0"):
        Icons("train", image_size=0)
    for samples in (0, 10**6, 1.5):
        with pytest.raises(
            ConfigError, match=f"samples={samples} is not a number of icons from 1 to"
        ):
            Icons("train", samples=samples)


def test_the_environment_moves_the_cache(
    few: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COMPT_CACHE_DIR", str(tmp_path / "elsewhere"))
    assert icon_cache.drawings(16).file.is_relative_to(tmp_path / "elsewhere")
