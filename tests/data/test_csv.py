from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from compt.data.images.csv import CsvPairs
from compt.errors import ConfigError, DataError


def table(folder: Path, text: str, name: str = "pairs.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_paths_start_at_the_table_or_the_root(pictures: Path, tmp_path: Path) -> None:
    path = table(pictures, "image,caption\n03.png,three\n04.png,four\n")
    data = CsvPairs(path)
    assert len(data) == 2
    assert data[0]["image"].getpixel((0, 0)) == (3, 6, 7)
    assert (data[1]["captions"], data[1]["label"], data.classes) == (("four",), -1, ())
    (tmp_path / "lists").mkdir()
    other = table(tmp_path / "lists", "image,caption\n03.png,three\n")
    assert CsvPairs(other, root=pictures)[0]["captions"] == ("three",)
    absolute = table(tmp_path / "lists", f"image,caption\n{pictures / '05.png'},five\n")
    assert CsvPairs(absolute)[0]["image"].getpixel((0, 0))[0] == 5


def test_open_clip_tables_are_read_as_they_are(pictures: Path) -> None:
    data = CsvPairs(table(pictures, "filepath\ttitle\n01.png\ta, b\n"))
    assert data[0]["captions"] == ("a, b",)


def test_several_captions(pictures: Path) -> None:
    rows = ('01.png,one,"[""uno, due"", "" ein ""]"', "02.png,,[not json", '03.png,x,"[1]"')
    text = "".join(f"{row}\n" for row in ("image,short,long", *rows))
    data = CsvPairs(table(pictures, text), caption_key=["short", "long"])
    assert [data[i]["captions"] for i in range(3)] == [
        ("one", "uno, due", "ein"),
        ("[not json",),
        ("x", "[1]"),
    ]


def test_images_without_captions(pictures: Path) -> None:
    path = table(pictures, "image,kind\n01.png,dog\n02.png,\n,cat\n")
    with pytest.raises(DataError, match=r"(?s)no column 'caption'.*None: images alone"):
        CsvPairs(path)
    data = CsvPairs(path, caption_key=None, label_key="kind", max_broken=0.5)
    assert [data[i]["captions"] for i in range(2)] == [(), ()]
    assert [data[i]["label"] for i in range(2)] == [0, -1]
    assert data[1]["image"].getpixel((0, 0)) == (2, 4, 7)
    assert (data.classes, len(data)) == (("dog",), 2)
    assert data.left_out.samples == {"without an image path": 1}
    assert data.left_out.parts == {"rows without a class name": 1}
    assert pickle.loads(pickle.dumps(data))[0]["captions"] == ()


def test_captions_that_are_not_asked_for_leave_no_row_out(pictures: Path) -> None:
    path = table(pictures, "image,caption\n01.png,\n02.png,two\n")
    assert CsvPairs(path, max_broken=0.5).left_out.samples == {"without a caption": 1}
    assert CsvPairs(path, caption_key=None).left_out.samples == {}


def test_labels_are_sorted_names(pictures: Path) -> None:
    text = "image|caption|kind\n01.png|a|dog\n02.png|b|cat\n03.png|c|\n"
    data = CsvPairs(table(pictures, text, "pairs.txt"), label_key="kind", sep="|")
    assert data.classes == ("cat", "dog")
    assert [data[i]["label"] for i in range(3)] == [1, 0, -1]


def test_quotes_byte_order_mark_and_blank_lines(pictures: Path) -> None:
    data = CsvPairs(
        table(pictures, '\ufeffimage,caption\n\n01.png,"one ""1"",\nin two lines — été"\n\n')
    )
    assert [data[0]["captions"], len(data)] == [('one "1",\nin two lines — été',), 1]


def test_errors_say_which_columns_there_are(pictures: Path) -> None:
    path = table(pictures, "image,captoin\n01.png,one\n")
    with pytest.raises(
        DataError, match=r"(?s)no column 'caption'. Did you mean 'captoin'.*image, captoin"
    ):
        CsvPairs(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"image,caption\n", "no rows"),
        (b"image,caption\n01.png,\xff\xfe\n", "cannot be read"),
        (b"\xff\xfei\x00m\x00", "cannot be read"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "pairs.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        CsvPairs(path)
    assert str(path) in str(caught.value)


def test_a_missing_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        CsvPairs(tmp_path / "none.csv")


def test_wrong_options(pictures: Path) -> None:
    path = table(pictures, "image,caption\n01.png,one\n")
    with pytest.raises(ConfigError, match="sep="):
        CsvPairs(path, sep="||")
    with pytest.raises(ConfigError, match="max_broken"):
        CsvPairs(path, max_broken=5)
    with pytest.raises(ConfigError, match="caption_key"):
        CsvPairs(path, caption_key=[])


def test_rows_that_say_too_little_or_too_much_are_left_out(pictures: Path) -> None:
    text = "image,caption\n01.png,one\n02.png\n,three\n04.png,a dog, brown\n05.png,five,\n,\n"
    path = table(pictures, text + "image,caption\n")
    data = CsvPairs(path, max_broken=0.7)
    assert [data[i]["captions"][0] for i in range(2)] == ["one", "five"]
    assert data.check() == 0
    assert data.left_out.total == 6
    assert data.left_out.samples == {
        "without a caption": 1,
        "without an image path": 1,
        "with more cells than the header": 1,
        "that repeat the header": 1,
    }
    assert data.left_out.parts == {"blank rows": 1}
    with pytest.raises(
        DataError, match=r"(?s)4 of 6 samples.*1 without a caption.*line 3"
    ) as caught:
        CsvPairs(path).check()
    assert "max_broken" in str(caught.value)


def test_check_finds_missing_images_before_training(pictures: Path) -> None:
    rows = "".join(f"{'' if i % 2 else 'gone/'}{i:02d}.png,c{i}\n" for i in range(20))
    path = table(pictures, "image,caption\n" + rows)
    with pytest.raises(DataError, match=r"(?s)10 of 20 samples tried.*gone/00.png.*root") as caught:
        CsvPairs(path).check()
    assert str(caught.value).count("gone/") == 3
    assert CsvPairs(path, max_broken=0.5).check() == 10


def test_workers_and_pickle(pictures: Path) -> None:
    path = table(pictures, "image,caption\n" + "".join(f"{i:02d}.png,c{i}\n" for i in range(20)))
    data = CsvPairs(path)
    for method in ("fork", "spawn"):
        loader = DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context=method)
        assert [sample["captions"][0] for sample in loader] == [f"c{i}" for i in range(20)]
    assert pickle.loads(pickle.dumps(data))[3]["captions"] == ("c3",)


def rows(sep: str = "\t", captions: dict[int, str] | None = None) -> str:
    """A table of 20 rows, some with a caption of their own."""
    own = captions or {}
    lines = [f"{i:02d}.png{sep}{own.get(i, f'c{i}')}" for i in range(20)]
    return "\n".join([f"image{sep}caption", *lines, ""])


def test_a_stray_quote_mark_is_text_between_tabs(pictures: Path) -> None:
    data = CsvPairs(table(pictures, rows(captions={5: '"wide angle', 9: 'a 5" pipe'}), "a.tsv"))
    assert len(data) == 20
    assert [data[i]["captions"] for i in (5, 6, 9)] == [('"wide angle',), ("c6",), ('a 5" pipe',)]
    assert not data.left_out.samples and not data.left_out.parts


@pytest.mark.parametrize(
    "captions", [{5: '"wide'}, {5: '"wide', 9: '"narrow'}, {5: '"Hi" he said'}]
)
def test_a_stray_quote_mark_between_commas_is_an_error(pictures: Path, captions: dict) -> None:
    path = table(pictures, rows(",", captions))
    with pytest.raises(DataError, match="quote mark") as caught:
        CsvPairs(path)
    assert f"{path}, lines 7 to " in str(caught.value)
    assert "quoting=False" in str(caught.value)
    data = CsvPairs(path, quoting=False)
    assert [len(data), data[5]["captions"]] == [20, (captions[5],)]


def test_rows_between_two_stray_quote_marks_are_counted(pictures: Path) -> None:
    path = table(pictures, rows(",", {5: '"wide', 9: 'narrow"'}))
    data = CsvPairs(path, max_broken=0.5)
    assert data.left_out.samples == {"inside another row's cell in quote marks": 4}
    assert (len(data), data.left_out.total) == (16, 20)
    with pytest.raises(DataError, match="4 of 20 samples"):
        CsvPairs(path).check()


def test_quoting_is_chosen_or_seen_in_the_header(pictures: Path) -> None:
    quoted = rows(captions={5: '"a ""wide"" angle"'})
    quoting = CsvPairs(table(pictures, quoted, "a.tsv"), quoting=True)
    assert quoting[5]["captions"] == ('a "wide" angle',)
    by_default = CsvPairs(table(pictures, quoted, "a.tsv"))
    assert by_default[5]["captions"] == ('"a ""wide"" angle"',)
    (reason,) = by_default.left_out.parts
    assert "quoting=True" in reason
    header = quoted.replace("image\tcaption", '"image"\t"caption"')
    assert CsvPairs(table(pictures, header, "a.tsv"))[5]["captions"] == ('a "wide" angle',)
    with pytest.raises(ConfigError, match="quoting='yes'"):
        CsvPairs(table(pictures, quoted, "a.tsv"), quoting="yes")  # type: ignore[arg-type]


def test_a_quote_mark_open_in_the_header_is_an_error(pictures: Path) -> None:
    with pytest.raises(DataError, match="never closed"):
        CsvPairs(table(pictures, 'image,"caption\n01.png,one\n'))


def test_cells_of_several_lines_stay_whole(pictures: Path) -> None:
    data = CsvPairs(table(pictures, 'image,caption\n01.png,"one, two\nthree, four"\n'))
    assert data[0]["captions"] == ("one, two\nthree, four",)
    assert not data.left_out.samples


def test_the_line_that_is_not_utf8_is_named(pictures: Path) -> None:
    path = pictures / "a.csv"
    path.write_bytes(rows(",", {12: "café"}).encode("latin-1"))
    with pytest.raises(DataError, match=r"(?s)not UTF-8, 0xe9.*a\.csv, line 14"):
        CsvPairs(path)


def test_captions_of_lone_surrogates_are_left_out(pictures: Path) -> None:
    text = 'image,caption\n01.png,"[""\\ud800 thing"", ""b""]"\n02.png,"[""\\u00e9""]"\n'
    data = CsvPairs(table(pictures, text), max_broken=0.5)
    assert (len(data), data[0]["captions"]) == (1, ("é",))
    assert data.left_out.samples == {"whose caption is not UTF-8": 1}


def test_two_columns_of_one_name_are_an_error(pictures: Path) -> None:
    with pytest.raises(DataError, match="2 columns 'caption'"):
        CsvPairs(table(pictures, "image,caption,caption\n01.png,a,b\n"))


def test_a_table_without_rows_that_count_says_why(pictures: Path) -> None:
    with pytest.raises(DataError, match="no rows that count: 2 without a caption") as caught:
        CsvPairs(table(pictures, "image,caption\n01.png,\n02.png\n"))
    assert "line 2" in str(caught.value)


def test_its_fingerprint_tells_rows_and_images_apart(pictures: Path) -> None:
    path = table(pictures, rows(","))
    first = CsvPairs(path).fingerprint
    assert first == CsvPairs(path).fingerprint
    assert first["samples"] == 20
    lines = rows(",").splitlines()
    table(pictures, "\n".join([lines[0], *reversed(lines[1:])]))
    assert CsvPairs(path).fingerprint["content"] != first["content"]
    table(pictures, rows(","))
    (pictures / "03.png").write_bytes(b"other")
    again = CsvPairs(path).fingerprint
    assert [name for name in first if again[name] != first[name]] == ["bytes of some images"]


def test_a_cell_of_endless_brackets_is_text(pictures: Path) -> None:
    data = CsvPairs(table(pictures, f"image,caption\n01.png,{'[' * 100_000}\n"))
    assert data[0]["captions"] == ("[" * 100_000,)
