"""`compt init`: what is guessed of data, what is held out, and what config comes of it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

import compt
from compt.errors import ConfigError, DataError, WorkDirError
from compt.interfaces import ConfigDraft, SeenData, Starter
from compt.registry import PARADIGMS
from compt.scaffold.configs.dividing import divide_archives, divide_text
from compt.scaffold.configs.fitting import fit, parse_sizes
from compt.scaffold.configs.guessing import Found, guess
from compt.scaffold.configs.keys import text_key
from compt.scaffold.configs.looking import Shown, look, source_of
from compt.scaffold.configs.page import SIDE, write_page
from compt.scaffold.configs.tables import options_of, pairs, write_tables
from compt.scaffold.configs.writing import Wish, check, prepare, undone_on_error, write
from compt.testing.toy import Toy


def image(path: Path, shade: int = 0, size: tuple[int, int] = (40, 36)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade % 256, shade // 256, 7)).save(path)
    return path


@pytest.fixture
def captioned(tmp_path) -> Path:
    """Images with a caption each in a text file, all in one folder."""
    folder = tmp_path / "photos"
    for index in range(80):
        image(folder / f"{index}.png", index).with_suffix(".txt").write_text(f"shade {index}")
    return folder


# Guessing


@pytest.mark.parametrize(
    ("names", "kind", "splits"),
    [
        (["a.png", "b.jpg"], "folder", ["train"]),
        (["a.png", "a.txt", "b.png", "b.txt"], "pairs", ["train"]),
        (["a.png", "metadata.csv"], "pairs", ["train"]),
        (["train/x/a.png", "val/x/b.png"], "folder", ["train", "val"]),
        (["0.tar", "1.tar", "readme.txt"], "webdataset", ["train"]),
        (["train.csv", "notes.txt", "val.csv"], "csv", ["train", "val"]),
        (["a.jsonl", "b.jsonl.gz"], "jsonl", ["train"]),
        (["a/b/c.parquet"], "parquet", ["train"]),
        (["a.txt", "b.txt.xz"], "text", ["train"]),
        (["train/a.txt", "validation/b.txt"], "text", ["train", "validation"]),
        (["dataset_dict.json", "train/state.json", "test/state.json"], "datasets", None),
    ],
)
def test_what_a_folder_holds_is_told_from_its_files(tmp_path, names, kind, splits):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = guess(str(tmp_path))
    assert found.type == kind
    assert list(found.splits) == (splits or ["train", "test"])
    assert found.why


def test_a_file_is_told_from_its_name_and_one_beside_it_is_held_out(tmp_path):
    for name in ("my_train.jsonl", "my_valid.jsonl"):
        (tmp_path / name).write_text("{}")
    found = guess(str(tmp_path / "my_train.jsonl"))
    assert found.config == {
        "type": "jsonl",
        "train": str(tmp_path / "my_train.jsonl"),
        "valid": str(tmp_path / "my_valid.jsonl"),
    }


@pytest.mark.parametrize("how", ["file", "pattern", "folder"])
def test_files_named_as_held_out_are_splits(tmp_path, how):
    names = ["x-train.tar", "x-val_a.tar", "x-test.tar", "y-val.tar"]
    for name in names:
        (tmp_path / name).touch()
    path = {"file": tmp_path / names[0], "pattern": tmp_path / "x-*.tar", "folder": tmp_path}[how]
    splits = guess(str(path)).splits
    assert {split: Path(file).name for split, file in splits.items()} == {
        "train": "x-train.tar",
        "test": "x-test.tar",
        "val_a": "x-val_a.tar",
    }


def test_the_longest_column_of_rows_is_their_text(tmp_path):
    rows = [{"id": "7", "content": "a longer text"}, {"id": "8", "content": None}]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert text_key(guess(str(file))) == "content"
    file.write_text(json.dumps({"text": "short", "url": "https://a.longer/one"}))
    assert text_key(guess(str(file))) is None
    file.write_text("no JSON")
    assert text_key(guess(str(file))) is None


def test_what_cannot_be_told_is_asked_for(tmp_path):
    (tmp_path / "corpus.dat").write_text("x")
    with pytest.raises(ConfigError, match="--data-type"):
        guess(str(tmp_path / "corpus.dat"))
    assert guess(str(tmp_path / "corpus.dat"), "text").type == "text"
    with pytest.raises(ConfigError, match=r"No file in .* is data"):
        guess(str(tmp_path))
    with pytest.raises(ConfigError, match="There is nothing at"):
        guess(str(tmp_path / "none"))


def test_without_data_there_is_some_that_needs_no_files():
    assert guess(None, example="stdlib").config == {"type": "stdlib"}
    assert guess("icons").config == {"type": "icons"}
    with pytest.raises(ConfigError, match="No data is named"):
        guess(None)
    with pytest.raises(ConfigError, match="'stdlib', which needs no files"):
        guess("csv", example="stdlib")  # a source, but one of files


# Holding out


def test_images_with_captions_become_tables_of_two_splits(captioned, tmp_path):
    found = guess(str(captioned))
    config, _ = write_tables(pairs(found, captions=True), tmp_path / "made", captions=True)
    source = source_of(config)
    train, val = (source.open(split) for split in ("train", "val"))
    captions = [[images[i]["captions"] for i in range(len(images))] for images in (train, val)]
    assert len(captions[0]) + len(captions[1]) == 80 and captions[1]
    assert {c for split in captions for (c,) in split} == {f"shade {i}" for i in range(80)}


def test_equal_captions_are_held_out_together(tmp_path):
    for index in range(200):
        image(tmp_path / f"{index}.png").with_suffix(".txt").write_text(f"shade {index % 50}")
    found = guess(str(tmp_path))
    config, _ = write_tables(pairs(found, captions=True), tmp_path / "made", captions=True)
    sides = []
    for split in ("train", "val"):
        with open(config[split], encoding="utf-8") as file:
            sides.append({row["caption"] for row in csv.DictReader(file)})
    assert sides[1] and not sides[0] & sides[1]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl"])
def test_a_table_beside_images_has_their_captions(tmp_path, ending):
    table = image(tmp_path / "a" / "x.png").parent / f"metadata{ending}"
    row = {"file_name": "x.png", "text": 'a "red", round thing', "class": "things"}
    with table.open("w", newline="") as file:
        if ending == ".jsonl":
            file.write(json.dumps(row) + "\n")
        else:
            writer = csv.DictWriter(file, row, delimiter="\t" if ending == ".tsv" else ",")
            writer.writeheader()
            writer.writerow(row)
    (made,) = pairs(guess(str(tmp_path / "a")), captions=True)
    assert (made.image, made.caption) == (str(tmp_path / "a" / "x.png"), 'a "red", round thing')
    assert made.label == "things"
    if ending != ".jsonl":
        assert options_of(table, captions=True) == {
            "image_key": "file_name",
            "caption_key": "text",
            "label_key": "class",
        }


def test_a_table_without_captions_names_its_columns(tmp_path):
    (tmp_path / "t.csv").write_text("image,words\nx.png,red\n")
    with pytest.raises(ConfigError, match="captions: image, words"):
        list(pairs(Found("csv", {"train": str(tmp_path / "t.csv")}, ""), captions=True))


def test_sub_folders_of_images_are_classes(tmp_path):
    for index in range(40):
        image(tmp_path / "in" / "ab"[index % 2] / f"{index}.png", index)
    found = guess(str(tmp_path / "in"))
    config, _ = write_tables(pairs(found, captions=False), tmp_path / "made", captions=False)
    assert source_of(config).open("train").classes == ("a", "b")


def text_of(path: Path, **options: str):
    return source_of({"type": "text", "train": str(path), **options}).open("train")


def test_one_long_document_is_cut_at_a_line(tmp_path):
    lines = [f"line {index}\n" for index in range(1000)]
    (tmp_path / "book.txt").write_text("".join(lines))
    config, _ = divide_text(text_of(tmp_path / "book.txt"), tmp_path / "made", 1)
    train, val = (Path(config[split]).read_text() for split in ("train", "val"))
    assert (train + val).strip() == "".join(lines).strip()
    assert train.endswith("\n") and val.startswith("line ")
    assert 0.03 < len(val) / len(train) < 0.07


def test_of_many_documents_whole_ones_are_held_out(tmp_path):
    (tmp_path / "many.txt").write_text("\n\n".join(f"document {i}" for i in range(100)))
    text = text_of(tmp_path / "many.txt", separator="\n\n")
    config, _ = divide_text(text, tmp_path / "made", 100)
    source = source_of(config)
    train, val = (list(source.open(split)) for split in ("train", "val"))
    assert len(val) == 5 and sorted(train + val) == sorted(f"document {i}" for i in range(100))


def test_the_last_of_several_archives_is_held_out(tmp_path):
    for index in range(3):
        (tmp_path / f"{index}.tar").write_bytes(b"")
    config, _ = divide_archives(guess(str(tmp_path)))
    assert [Path(path).name for path in (*config["train"], config["val"])] == [
        "0.tar",
        "1.tar",
        "2.tar",
    ]
    for index in (1, 2):
        (tmp_path / f"{index}.tar").unlink()
    with pytest.raises(ConfigError, match="One archive cannot be divided"):
        divide_archives(guess(str(tmp_path)))


# Looking


def test_a_look_counts_sizes_captions_classes_and_what_shows_again(tmp_path):
    rows = []
    for index in range(30):
        path = image(tmp_path / f"{index}.png", index if index < 29 else 0, (50 + index, 90))
        rows.append([str(path), " ".join(["word"] * (1 + index % 3)), "ab"[index % 2]])
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "caption", "label"], *rows])
    config = {"type": "csv", "train": str(tmp_path / "t.csv"), "label_key": "label"}
    seen = look(config, captions=True)
    assert (seen.num_samples, seen.short_side, seen.caption_words) == (30, 64, 3)
    facts = "\n".join(seen.facts)
    for words in ("50 to 79, median 64", "high: 90", "1 to 3, median 2", "2 classes", "1 of those"):
        assert words in facts
    assert len(seen.shown) == 24 and seen.shown[0].text == "word"


def test_images_that_cannot_be_read_are_said_before_a_config_is_written(captioned, tmp_path):
    for index in range(8):
        (captioned / f"{index}.png").write_bytes(b"no image")
    wish = Wish("clip", tmp_path / "chain.py", str(captioned))
    with pytest.raises(DataError, match="cannot be read"), undone_on_error(wish):
        prepare(wish)
    assert not wish.data_folder.exists()


def test_a_page_has_a_place_for_every_image(tmp_path):
    tall = Shown(Image.new("RGB", (10, 40), "red"), "a long caption " * 20)
    write_page([tall] * 7, tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as page:
        assert page.width > 6 * SIDE and page.height > 2 * SIDE
        colours = page.convert("RGB").getcolors(1 << 20)
    assert next(count for count, colour in colours if colour == (255, 0, 0)) == 7 * 40 * SIDE


# Fitting


class Plain(Starter):
    """Toys, of one preset that has small batches and one that has large ones."""

    needs, data_noun = ((),), "anything"
    sizes = {"few": "64x3,128x4,256x6", "many": "64x3,128x4"}

    def draft(self, seen, sizes, *, preset):
        self.head_width(sizes)
        return ConfigDraft(
            models=[f"dict(width={size.width}, depth={size.layers})" for size in sizes],
            num_samples=seen.num_samples,
            optimizer='dict(type="SGD", lr=0.1)',
            largest_batch={"few": 128, "many": 1024}[preset],
        )


def test_a_batch_leaves_an_epoch_its_iterations():
    sizes = {count: fit(Plain(), SeenData(count)).batch_size for count in (40, 6_399, 6_400, 10**6)}
    assert sizes == {40: 8, 6_399: 64, 6_400: 128, 10**6: 128}
    assert fit(Plain(), SeenData(10**6), sizes="many").batch_size == 1024
    own = fit(Plain(), SeenData(10**6), sizes="32x1,64x2")
    assert own.batch_size == 128, "sizes of one's own have the scale of the first preset"
    assert own.draft.models == ["dict(width=32, depth=1)", "dict(width=64, depth=2)"]


def test_little_data_is_seen_more_often():
    epochs = {count: fit(Plain(), SeenData(count)).epochs for count in (300, 10**4, 10**7)}
    assert epochs[300][0] > epochs[10**4][0] > epochs[10**7][0] == 2
    assert [e / epochs[10**4][0] for e in epochs[10**4]] == pytest.approx([1, 1 / 4, 3 / 16], 0.01)
    assert fit(Plain(), SeenData(10**4), epochs=8).epochs == (8, 2, 1.5)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ("huge", "are no sizes"),
        ("64x3,", None),
        ("64x3,32x4", "cannot grow"),
        ("64x3,64x3", "cannot grow"),
        ("66x3,128x4", "No attention head"),
    ],
)
def test_sizes_that_cannot_be_are_refused(sizes, words):
    if words is None:
        assert [size.name for size in parse_sizes(sizes, Plain())] == ["64x3"]
        return
    with pytest.raises(ConfigError, match=words):
        fit(Plain(), SeenData(1000), sizes=sizes)


def test_too_little_data_is_refused():
    with pytest.raises(ConfigError, match="5 samples"):
        fit(Plain(), SeenData(5))


# Writing


@pytest.mark.parametrize("paradigm", ["clip", "mae", "causal_lm"])
def test_a_config_plans_as_it_was_written(paradigm, captioned, tmp_path):
    pytest.importorskip({"clip": "open_clip", "mae": "mmpretrain"}.get(paradigm, "transformers"))
    data = captioned
    if paradigm == "causal_lm":
        data = tmp_path / "book.txt"
        data.write_text("All happy families are alike.\n" * 2000)
    wish = Wish(paradigm, tmp_path / "chain.py", str(data), sizes="32x1,64x2")
    check(wish)
    written = write(wish, prepare(wish))
    assert written.plan == compt.plan(str(wish.file))
    assert [stage.expansion is None for stage in written.plan.stages] == [True, False]
    assert all(file.stat().st_size for file in written.files)
    lines = wish.file.read_text().replace(str(tmp_path), "").splitlines()
    assert max(map(len, lines)) <= 100
    with pytest.raises(WorkDirError, match="exists already"):
        check(wish)


def test_a_chain_is_as_long_as_its_compute_allows(captioned, tmp_path):
    pytest.importorskip("mmpretrain")
    wish = Wish("mae", tmp_path / "chain.py", str(captioned), sizes="32x1,64x2", flops=1e11)
    assert write(wish, prepare(wish)).plan.flops == pytest.approx(1e11, rel=0.1)


def test_another_paradigm_gets_a_frame(tmp_path):
    wish = Wish("toy", tmp_path / "chain.py", "stdlib")
    written = write(wish, prepare(wish))
    assert written.plan is None
    text = wish.file.read_text()
    compile(text, "chain.py", "exec")
    assert 'type="toy"' in text and "has no starter" in text


def test_a_plug_in_writes_its_own_config(tmp_path, monkeypatch):
    class Startable(Toy):
        starter = Plain()

        def __init__(self, *, data=None):  # the toy has points of its own
            super().__init__()

    monkeypatch.setitem(PARADIGMS.module_dict, "startable", Startable)
    wish = Wish("startable", tmp_path / "chain.py", "icons", sizes="16x1,32x2", epochs=2)
    check(wish)
    written = write(wish, prepare(wish))
    assert written.plan == compt.plan(str(wish.file))
    assert [stage.name for stage in written.plan.stages] == ["startable-16x1", "startable-32x2"]


def test_data_of_another_kind_is_refused(tmp_path, monkeypatch):
    class Captions(Plain):
        needs, data_noun = (("image", "captions"), ("tokens",)), "captioned images or tokens"

    monkeypatch.setattr(Toy, "starter", Captions())
    with pytest.raises(ConfigError, match=r"'toy' learns from captioned images or tokens.*text"):
        prepare(Wish("toy", tmp_path / "chain.py", "stdlib"))


def test_what_fails_leaves_nothing(captioned, tmp_path):
    wish = Wish("clip", tmp_path / "chain.py", str(captioned), epochs=-1)
    with pytest.raises(ConfigError, match="--epochs"), undone_on_error(wish):
        write(wish, prepare(wish))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]
