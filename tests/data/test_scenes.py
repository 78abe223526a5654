"""Scenes are the same everywhere, say what they show, and keep their splits apart."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import re
import signal
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("resvg_py")

from compt.data.icons import drawings as icon_cache
from compt.data.icons.names import held_out
from compt.data.scenes import SceneSource, drawings
from compt.data.scenes.captions import NUM_CAPTIONS, OPPOSITE
from compt.data.scenes.chance import Dice, mixed, table
from compt.data.scenes.layout import COLOURS, SPLITS, held_out_colour
from compt.errors import ConfigError, DataError
from compt.testing import DataSourceContract

HELD_OUT = tuple(split for split in SPLITS if split != "train")
FEW = dict(num_scenes=400, num_held_out=120)
DIGESTS = {
    "train": "ca8a9f65002d15fe",
    "seen": "8d9e96d580e993c6",
    "combination": "ab3597f36197e0ca",
    "icon": "ea0184506bf278e9",
}


TRAINED = [word for word in map("thing{}".format, range(60)) if not held_out(word)][:40]
UNSEEN = [word for word in map("rare{}".format, range(400)) if held_out(word)][:20]


def write_icons(folder: Path) -> None:
    """Write 60 icons of quarters in shades of grey, which every renderer draws alike."""
    for number, word in enumerate([*TRAINED, *UNSEEN]):
        corners = ((0, 0), (1, 0), (0, 1), (1, 1))
        quarters = (
            f'<rect x="{x}" y="{y}" width="1" height="1" fill="#{3 * ("0", "5", "a")[shade]}"/>'
            for (x, y), shade in zip(corners, np.base_repr(number, 3).zfill(4), strict=True)
            for shade in [int(shade)]
        )
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 2 2">{"".join(quarters)}</svg>'
        file = folder / "material" / f"{word}.svg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(svg)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A package of a few icons; its caches are kept for the module."""
    folder = tmp_path_factory.mktemp("icons")
    write_icons(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(icon_cache, "_icon_folder", lambda: (folder, "1.0"))
        yield SimpleNamespace(folder=folder, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def scenes(package: Any) -> dict[str, Any]:
    source = SceneSource(**FEW, cache_dir=package.cache)
    return {split: source.open(split) for split in SPLITS}


def content(images: Any, count: int | None = None) -> str:
    """A hash of pixels and captions."""
    digest = hashlib.sha256()
    for index in range(count or len(images)):
        sample = images[index]
        texts = [*sample["captions"], sample.get("negative", "")]
        digest.update(sample["image"].tobytes() + "\n".join(texts).encode())
    return digest.hexdigest()[:16]


# Chance


def test_numbers_are_those_of_splitmix64() -> None:
    """With the numbers that its authors' code draws from the seed 1234567."""
    first = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert table(1234567, np.array([0]), 3).tolist() == [first]
    assert table(1234567, np.array([0, 2, 1]), 1).tolist() == [
        [n] for n in np.take(first, [0, 2, 1])
    ]
    assert mixed(np.array([0], np.uint64)).tolist() == [0]


def test_dice_are_fair_and_rows_independent() -> None:
    counts = Counter(Dice(5, row).below(6) for row in range(6000))
    assert sorted(counts) == list(range(6)) and min(counts.values()) > 900
    assert sorted(Dice(1, 2).sample("abcd", 4)) == list("abcd")
    assert Dice(1, 2).sample("abcd", 4) != Dice(1, 3).sample("abcd", 4)


# The same everywhere


@pytest.mark.parametrize("split", SPLITS)
def test_bytes_are_those_of_every_machine(scenes: Any, split: str) -> None:
    assert content(scenes[split]) == DIGESTS[split], "other scenes need another FORMAT"


def test_fewer_scenes_are_the_first_of_more(scenes: Any, package: Any) -> None:
    source = SceneSource(num_scenes=50, num_held_out=120, cache_dir=package.cache)
    fewer = source.open("train")
    assert len(fewer) == source.num_samples("train") == 50
    assert content(fewer) == content(scenes["train"], 50) != content(scenes["train"], 51)
    assert content(source.open("seen")) == content(scenes["seen"])


def test_another_seed_is_another_world(scenes: Any, package: Any) -> None:
    other = SceneSource(**FEW, seed=1, cache_dir=package.cache)
    for split in SPLITS:
        images, others = scenes[split], other.open(split)
        assert images.fingerprint != others.fingerprint
        same = [images.captions(i) == others.captions(i) for i in range(len(images))]
        assert sum(same) < 3


# Splits


def test_no_scene_of_a_held_out_split_is_trained_on(scenes: Any) -> None:
    """Pixel for pixel, of few icons, so that scenes drawn without care would coincide."""
    pixels = {
        split: {images[i]["image"].tobytes() for i in range(len(images))}
        for split, images in scenes.items()
    }
    trained = Counter(scenes["train"][i]["image"].tobytes() for i in range(400))
    assert max(trained.values()) > 1, "too many icons for this test"
    assert not any(pixels["train"] & pixels[split] for split in HELD_OUT)


def test_no_held_out_pair_is_trained_on(scenes: Any) -> None:
    """Neither in an image nor in a caption, and 'combination' is made of such pairs alone."""

    def pairs(split: str) -> set[tuple[str, str]]:
        images = scenes[split]
        return {(o.name, o.colour) for i in range(len(images)) for o in images.objects(i)}

    def said(split: str) -> set[tuple[str, str]]:
        images = scenes[split]
        text = " ".join(caption for i in range(len(images)) for caption in images.captions(i))
        phrases = re.findall(rf"({'|'.join(COLOURS)}) (thing\d+|rare\d+)", text)
        return {(name, colour) for colour, name in phrases}

    names = list(COLOURS)
    unseen = {(name, names[held_out_colour(name)]) for name, _ in pairs("train")}
    assert not (pairs("train") | pairs("seen") | said("train") | said("seen")) & unseen
    assert pairs("combination") <= unseen and said("combination") <= unseen
    assert len(pairs("combination")) > 35 and len(said("train")) > 200
    assert not {name for name, _ in pairs("icon")} & {name for name, _ in pairs("train")}
    assert len({colour for _, colour in pairs("icon")}) == len(COLOURS)


def test_icons_whose_drawing_means_two_things_are_left_out(
    tmp_path: Path, monkeypatch: Any
) -> None:
    write_icons(tmp_path / "icons")
    monkeypatch.setattr(icon_cache, "_icon_folder", lambda: (tmp_path / "icons", "1.0"))
    first, second = (tmp_path / "icons" / "material" / f"{word}.svg" for word in TRAINED[:2])
    first.with_stem("twin").write_text(first.read_text())
    second.with_stem("one-name-of-six-long-words").write_text(second.read_text())
    images = SceneSource(**FEW, cache_dir=tmp_path / "cache").open("train")
    shown = {o.name for i in range(len(images)) for o in images.objects(i)}
    assert shown == set(TRAINED[1:])


# Captions, read by a grammar of the test's own

SIZES = {"large": True, "big": True, "small": False, "little": False}
ROWS = {"top": 0, "upper": 0, "bottom": 1, "lower": 1}
MENTION = re.compile(
    r"(?:(?P<size>large|big|small|little) )?"
    rf"(?:(?P<colour>{'|'.join(COLOURS)}) )?"
    r"(?P<name>thing\d+|rare\d+)"
    r"(?: (?:at|in) the (?P<row>top|upper|bottom|lower) (?P<column>left|right))?"
)
RELATION = re.compile(
    r" (?:(?:to the )?(?P<side>left|right) of|(?P<above>above|over)|(?P<below>below|under)) "
)


def is_true(caption: str, objects: list[Any]) -> bool:
    """Whether a caption is true of what stands in a scene; an error if it cannot be read."""
    relation = RELATION.search(caption)
    parts = RELATION.split(caption) if relation else []
    texts = [parts[0], parts[-1]] if relation else caption.split(" and ")
    meant = []
    for text in texts:
        mention = MENTION.fullmatch(text)
        assert mention, text
        matching = [o for o in objects if _fits(mention.groupdict(), o)]
        if not matching:
            return False
        (match,) = matching
        meant.append(match)
    if not relation:
        return True
    first, second = meant
    if side := relation["side"]:
        return first.column != second.column and (first.column < second.column) == (side == "left")
    return first.row != second.row and (first.row < second.row) == bool(relation["above"])


def _fits(said: dict[str, str | None], shown: Any) -> bool:
    size, colour, row, column = (said[key] for key in ("size", "colour", "row", "column"))
    return (
        said["name"] == shown.name
        and (size is None or SIZES[size] == shown.is_large)
        and (colour is None or colour == shown.colour)
        and (row is None or (ROWS[row], column) == (shown.row, ("left", "right")[shown.column]))
    )


@pytest.mark.parametrize("split", SPLITS)
def test_captions_are_true_and_negatives_false(scenes: Any, split: str) -> None:
    images = scenes[split]
    kinds: Counter[str] = Counter()
    for i in range(len(images)):
        sample, objects = images[i], images.objects(i)
        assert sample["captions"] == images.captions(i) and len(sample["captions"]) == NUM_CAPTIONS
        assert all(is_true(caption, objects) for caption in sample["captions"]), i
        kinds.update("relation" for caption in sample["captions"] if RELATION.search(caption))
        kinds.update("place" for caption in sample["captions"] if " the " in caption)
        kinds.update("all" for c in sample["captions"] if c.count("thing") == len(objects))
        if split == "train":
            assert "negative" not in sample
        else:
            assert not is_true(sample["negative"], objects), i
    if split == "train":
        assert min(kinds[kind] for kind in ("relation", "place", "all")) > 200


@pytest.mark.parametrize("split", HELD_OUT)
def test_negatives_differ_in_the_swapped_words_alone(scenes: Any, split: str) -> None:
    images = scenes[split]
    kinds: Counter[str] = Counter()
    for i in range(len(images)):
        right, wrong = images.captions(i)[0].split(), images[i]["negative"].split()
        changed = [(a, b) for a, b in zip(right, wrong, strict=True) if a != b]
        if len(changed) == 1:
            ((a, b),) = changed
            assert OPPOSITE[a] == b
            kinds[min(a, b)] += 1
        else:
            (a, b), (c, d) = changed
            assert (a, b) == (d, c) and {a, b} <= set(COLOURS)
            kinds["colours"] += 1
    assert {"colours", "left", "big", "large", "bottom", "lower"} <= set(kinds), kinds
    assert {"above", "over"} & set(kinds)


def test_a_colour_swap_makes_no_pair_that_training_lacks(scenes: Any) -> None:
    images = scenes["seen"]
    names = list(COLOURS)
    for i in range(len(images)):
        said = re.findall(rf"({'|'.join(COLOURS)}) (thing\d+)", images[i]["negative"])
        assert not any(names[held_out_colour(name)] == colour for colour, name in said)


def test_first_captions_name_every_colour(scenes: Any) -> None:
    for i in range(120):
        caption = scenes["combination"].captions(i)[0]
        assert len(re.findall("|".join(COLOURS), caption)) == caption.count("thing")


# Pixels


@pytest.mark.parametrize("image_size", [24, 48, 51])
def test_icons_stand_where_and_as_large_as_said(package: Any, image_size: int) -> None:
    """Each in its cell, in its colour where its ink is full, and nothing stands elsewhere."""
    source = SceneSource(num_scenes=60, image_size=image_size, cache_dir=package.cache)
    images, cell = source.open("train"), image_size // 2
    for i in range(60):
        pixels = np.array(images[i]["image"])
        assert pixels.shape == (image_size, image_size, 3)
        places = {(o.row, o.column): o for o in images.objects(i)}
        for row in (0, 1):
            for column in (0, 1):
                area = pixels[row * cell : row * cell + cell, column * cell : column * cell + cell]
                inked = np.argwhere((area < 255).any(2))
                if (row, column) not in places:
                    assert not len(inked)
                    continue
                shown = places[row, column]
                extent = inked.max(0) - inked.min(0) + 1
                assert extent.tolist() == [cell if shown.is_large else cell * 7 // 12] * 2
                share = (255 - area.reshape(-1, 3).astype(float)).max(0)
                full = 255 - np.array(COLOURS[shown.colour])
                assert np.allclose(share / share.max(), full / full.max(), atol=0.02)
        assert (pixels[2 * cell :] == 255).all() and (pixels[:, 2 * cell :] == 255).all()


def test_images_are_of_the_size_that_is_wished_for(package: Any) -> None:
    source = SceneSource(num_scenes=3, cache_dir=package.cache)
    sizes = [source.open("train", image_size=size)[0]["image"].size for size in (None, 30)]
    assert sizes == [(48, 48), (30, 30)]
    fixed = SceneSource(num_scenes=3, image_size=24, cache_dir=package.cache)
    assert fixed.open("train", image_size=48)[0]["image"].size == (24, 24)


# The cache


@pytest.fixture
def tiny(package: Any, tmp_path: Path) -> SceneSource:
    """A source of few scenes whose cache holds the icons alone."""
    os.symlink(package.cache / "icons", tmp_path / "icons")
    SceneSource(num_scenes=1, image_size=24, cache_dir=package.cache).open("train")
    return SceneSource(num_scenes=9, image_size=24, cache_dir=tmp_path)


def files(source: SceneSource) -> dict[str, Path]:
    return {file.suffix: file for file in (Path(str(source.cache_dir)) / "scenes").iterdir()}


@pytest.mark.parametrize("damage", ["pixel", "caption", "cut", "facts", "gone"])
def test_a_damaged_cache_is_drawn_again(tiny: SceneSource, damage: str) -> None:
    undamaged = content(tiny.open("train"))
    pixels, captions, facts = (files(tiny)[suffix] for suffix in (".npy", ".tsv", ".json"))
    if damage == "pixel":
        good = pixels.read_bytes()
        pixels.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    elif damage == "caption":
        captions.write_text(captions.read_text().replace("thing", "thong"))
    elif damage == "cut":
        captions.write_text(captions.read_text()[:-5])
    elif damage == "facts":
        facts.write_text(facts.read_text()[:-9])
    else:
        pixels.unlink()
    assert content(tiny.open("train")) == undamaged
    assert len(json.loads(facts.read_text())["sha256"]) == 2


def test_an_intact_cache_is_not_drawn_again(tiny: SceneSource, monkeypatch: Any) -> None:
    tiny.open("train")
    monkeypatch.setattr(drawings, "draw", lambda *args: pytest.fail("drawn again"))
    tiny.open("train")


def _draw_slowly(source: SceneSource, log: Path) -> None:
    draw = drawings.draw

    def slow(*args: Any) -> np.ndarray:
        with log.open("a") as file:
            file.write("drawn\n")
        time.sleep(0.4)
        return draw(*args)

    drawings.draw = slow
    source.open("train")


def test_two_processes_draw_once(tiny: SceneSource, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    log = tmp_path / "log"
    processes = [context.Process(target=_draw_slowly, args=(tiny, log)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert log.read_text() == "drawn\n"


def test_a_process_killed_while_drawing_leaves_nothing_in_the_way(
    tiny: SceneSource, package: Any, tmp_path: Path
) -> None:
    whole = SceneSource(num_scenes=9, image_size=24, cache_dir=package.cache).open("train")
    log = tmp_path / "log"
    process = multiprocessing.get_context("fork").Process(target=_draw_slowly, args=(tiny, log))
    process.start()
    while not log.exists() and process.is_alive():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert list((tmp_path / "scenes").glob(".*.tmp")), "it was killed too late"
    assert content(tiny.open("train")) == content(whole)
    assert sorted(files(tiny)) == [".json", ".lock", ".npy", ".tsv"]


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_full_disk_says_what_to_do_and_leaves_nothing(
    tiny: SceneSource, tmp_path: Path, monkeypatch: Any, when: str
) -> None:
    def full(*args: Any) -> Any:
        if when == "while":
            raise OSError(28, "No space left on device")
        return SimpleNamespace(free=1)

    monkeypatch.setattr("os.fsync" if when == "while" else "shutil.disk_usage", full)
    with pytest.raises(DataError, match=r"(?s)No space left.*Make room for 1 MB.*COMPT_CACHE_DIR"):
        tiny.open("train")
    assert {file.suffix for file in (tmp_path / "scenes").iterdir()} <= {".lock"}


def test_much_to_draw_is_said_with_time_and_size(
    tiny: SceneSource, monkeypatch: Any, capsys: Any
) -> None:
    tiny.open("seen")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(drawings, "WORTH_SAYING_MB", 0)
    tiny.open("train")
    assert re.match(
        r"Drawing 9 scenes, once: about \d+ s and 0 MB in .*scenes", capsys.readouterr().err
    )


def test_a_copy_maps_the_files_anew_and_names_them_where_they_are_gone(tiny: SceneSource) -> None:
    images = tiny.open("train")
    copy = pickle.dumps(images)
    assert content(pickle.loads(copy)) == content(images)
    files(tiny)[".npy"].unlink()
    with pytest.raises(DataError, match="removed while in use"):
        pickle.loads(copy)


# Options


@pytest.mark.parametrize(
    "options",
    [
        dict(num_scenes=0),
        dict(num_scenes=1.5),
        dict(num_held_out=-1),
        dict(image_size=8),
        dict(image_size=5000),
        dict(seed="a"),
        dict(scenes=3),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    from compt.data import build_source

    with pytest.raises(ConfigError, match=next(iter(options))):
        build_source(dict(type="scenes", **options))


def test_models_of_no_size_for_scenes_are_refused(package: Any) -> None:
    with pytest.raises(ConfigError, match="image_size=8"):
        SceneSource(cache_dir=package.cache).open("train", image_size=8)


def test_a_package_of_too_few_icons_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    write_icons(tmp_path / "icons")
    for file in sorted((tmp_path / "icons" / "material").glob("rare*"))[3:]:
        file.unlink()
    monkeypatch.setattr(icon_cache, "_icon_folder", lambda: (tmp_path / "icons", "1.0"))
    with pytest.raises(DataError, match="fewer than 4 things for 'icon'"):
        SceneSource(cache_dir=tmp_path).open("train")


class TestScenes(DataSourceContract):
    """The contract of data sources."""

    start_methods = ("fork",)  # spawned ones unpickle, which is tested above

    @pytest.fixture(autouse=True)
    def data(self, package: Any) -> None:
        self.source = dict(type="scenes", **FEW, cache_dir=str(package.cache))
