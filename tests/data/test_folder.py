from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from compt.data.images.folder import FolderImages
from compt.errors import ConfigError, DataError

from .conftest import picture


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder to fill."""
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


def fill(root: Path, *names: str) -> Path:
    """Write a picture under each name; the colour of the i-th tells i."""
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(i))
    return root


def paths(data: FolderImages) -> list[str]:
    return [os.path.relpath(data.where(i), data.root) for i in range(len(data))]


def test_order_and_labels_equal_torchvisions(tree: Path) -> None:
    fill(
        tree,
        "b/2.png",
        "b/10.PNG",
        "a/x/1.jpg",
        "a/1.jpeg",
        "a-b/3.png",
        "a/x-y/5.webp",
        "B/1.Png",
        "é/ü.png",
    )
    (tree / "a" / "notes.txt").write_text("no image")
    data, theirs = FolderImages(tree), ImageFolder(str(tree))
    assert data.classes == tuple(theirs.classes)
    assert [(data.where(i), data[i]["label"]) for i in range(len(data))] == theirs.samples
    assert [data[i]["image"].tobytes() for i in range(8)] == [
        image.tobytes() for image, _ in theirs
    ]
    assert data[0]["captions"] == ()


def test_images_in_the_folder_itself_have_no_class(tree: Path) -> None:
    data = FolderImages(fill(tree, "1.png", "dog/2.png", "0.png"))
    assert [(path, data[i]["label"]) for i, path in enumerate(paths(data))] == [
        ("0.png", -1),
        ("1.png", -1),
        ("dog/2.png", 0),
    ]
    assert data.classes == ("dog",)


def test_a_tree_without_classes(tree: Path) -> None:
    data = FolderImages(fill(tree, "2024/may/1.png", "2025/2.png"), labels=False)
    assert ([data[i]["label"] for i in range(2)], data.classes) == ([-1, -1], ())


def test_empty_and_hidden_folders_are_no_classes(tree: Path) -> None:
    fill(tree, "cat/1.png", "cat/.2.png", ".git/3.png", "cat/.thumbs/4.png", "cat/._1.png")
    (tree / "bird").mkdir()
    data = FolderImages(tree)
    assert (paths(data), data.classes) == (["cat/1.png"], ("cat",))


@pytest.mark.timeout(20)
def test_linked_folders_are_read_once(tree: Path, tmp_path: Path) -> None:
    fill(tree, "cat/1.png", "dog/2.png")
    fill(tmp_path, "beside.png", "far/3.png", "far/deep/4.png")
    for name, target in {
        "bird": tmp_path / "far",
        "crow": tmp_path / "far" / "deep",  # lies in bird
        "aaa": tree / "dog",  # lies in the tree
        "cat/up": tree,
        "dog/higher": tmp_path,  # leads back here
        "dog/self": tree / "dog" / "self",
    }.items():
        (tree / name).symlink_to(target)
    data = FolderImages(tree)
    assert paths(data) == ["bird/3.png", "bird/deep/4.png", "cat/1.png", "dog/2.png"]
    assert (data.classes, data.check()) == (("bird", "cat", "dog"), 0)
    (tmp_path / "link").symlink_to(tree)
    assert paths(FolderImages(tmp_path / "link")) == paths(data)


def test_broken_images_are_counted_and_replaced(tree: Path) -> None:
    fill(tree, *(f"a/{i:02d}.png" for i in range(20)))
    (tree / "a" / "03.png").write_bytes(b"no image")
    (tree / "a" / "04.png").unlink()
    (tree / "a" / "04.png").symlink_to("nowhere.png")
    data = FolderImages(tree, max_broken=0.1)
    assert (len(data), data.check()) == (20, 2)
    assert data[3]["image"].getpixel((0, 0))[0] == 5
    with pytest.raises(DataError, match=r"(?s)2 of 20 samples tried.*a/03.png.*a/04.png"):
        FolderImages(tree).check()


def test_folders_that_cannot_be_used(tree: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)No such file.*tree/none.*Give a folder"):
        FolderImages(tree / "none")
    with pytest.raises(DataError, match=r"(?s)no images.*\.webp; there are no files"):
        FolderImages(tree)
    fill(tree, "a/1.gif", "a/2.GIF", "b/LICENSE")
    with pytest.raises(
        DataError, match=r"no images.*\n.*tree\n.*the files there end in: \.gif, LICENSE"
    ):
        FolderImages(tree)
    with pytest.raises(DataError, match="Not a directory"):
        FolderImages(tree / "a" / "1.gif")


def test_a_folder_that_may_not_be_read(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tree, "a/1.png", "b/2.png")
    scandir = os.scandir

    def closed(path: Path) -> Any:
        if path == tree / "b":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(DataError, match=r"(?s)Permission denied.*tree/b"):
        FolderImages(tree)


def test_wrong_options(tree: Path) -> None:
    fill(tree, "a/1.png")
    with pytest.raises(ConfigError, match="labels='kind'"):
        FolderImages(tree, labels="kind")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="max_broken"):
        FolderImages(tree, max_broken=5)


def test_names_that_are_no_unicode(tree: Path) -> None:
    try:
        (tree / os.fsdecode(b"\xff.png")).write_bytes(picture(7))
    except OSError:
        pytest.skip("this file system has only Unicode names")
    assert FolderImages(tree)[0]["image"].getpixel((0, 0))[0] == 7


def test_workers_and_pickle(tree: Path) -> None:
    data = FolderImages(fill(tree, *(f"{i % 2}/{i:02d}.png" for i in range(20))))
    expected = [data[i]["image"].getpixel((0, 0)) for i in range(20)]
    loader = DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert [sample["image"].getpixel((0, 0)) for sample in loader] == expected
    copy = pickle.loads(pickle.dumps(data))
    assert (copy.where(11), copy[11]["label"]) == (data.where(11), 1)


def test_what_is_not_read_is_counted(tree: Path) -> None:
    fill(tree, "a/0.png", "a/1.png", "b/2.gif", "b/3.HEIC", "b/4.png", "5.png")
    for name in ("a/notes.txt", ".hidden.png", "b/.DS_Store"):
        (tree / name).write_text("x")
    (tree / "link").symlink_to(tree / "a")
    data = FolderImages(tree, max_broken=0.4)
    assert data.left_out.samples == {"in files whose names end otherwise (see extensions)": 2}
    assert (len(data), data.left_out.total) == (4, 6)
    assert data.left_out.parts == {
        "hidden files and folders": 2,
        "files that are no images, by their names": 1,
        "folders that a second path leads to": 1,
        "images directly in the folder, without a class": 1,
    }
    with pytest.raises(DataError, match=r"(?s)2 of 6 samples.*2\.gif"):
        FolderImages(tree).check()


def test_other_extensions_are_read_where_they_are_named(tree: Path) -> None:
    fill(tree, "a/0.png", "a/1.gif", "a/2.jfif")
    data = FolderImages(tree, extensions=["png", ".GIF"], max_broken=1)
    assert paths(data) == ["a/0.png", "a/1.gif"]
    assert data.left_out.num_samples == 1
    for wrong in ([], ".png", [3]):
        with pytest.raises(ConfigError, match="extensions="):
            FolderImages(tree, extensions=wrong)  # type: ignore[arg-type]


def test_its_fingerprint_tells_names_and_sizes_apart(tree: Path) -> None:
    first = FolderImages(fill(tree, "a/0.png", "b/1.png")).fingerprint
    assert first == FolderImages(tree).fingerprint
    (tree / "b" / "1.png").write_bytes(picture(1) + b"more")
    sizes = FolderImages(tree).fingerprint
    assert [name for name in first if sizes[name] != first[name]] == ["bytes of some images"]
    (tree / "b" / "1.png").rename(tree / "b" / "2.png")
    assert FolderImages(tree).fingerprint["content"] != first["content"]
