"""What is left out is counted and limited; what tells data sets apart."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Subset

from compt.errors import ConfigError, DataError
from compt.interfaces import LeftOut, fingerprint, left_out
from compt.interfaces.fingerprint import hash_of, probed, sizes_of
from compt.interfaces.left_out import share
from compt.report.format import left_out_lines
from compt.training import known_samples
from compt.training.numbered import NumberedDataset


def test_the_share_is_of_all_there_were() -> None:
    lacks = LeftOut(total=200, max_broken=0.01)
    lacks.sample("without a caption", "row 7", 2)
    lacks.check()
    lacks.sample("damaged", "row 9")
    lacks.part("captions cut", 150)
    with pytest.raises(
        DataError,
        match=r"(?s)3 of 200 samples of 'val' are left out: 2 without a caption, 1 damaged; "
        r"max_broken=0.01 allows 1 %\..*row 7 \(without a caption\); row 9 \(damaged\).*max_broken",
    ):
        lacks.check("val")
    LeftOut().check()


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), "1 %", True, None])
def test_what_is_no_share(value: object) -> None:
    with pytest.raises(ConfigError, match="max_broken="):
        share(value)


def test_it_is_written_and_read() -> None:
    lacks = LeftOut(5, num_read=3)
    lacks.sample("a", "x")
    lacks.part("b", 2)
    assert LeftOut.from_json(json.loads(json.dumps(lacks.to_json()))) == lacks
    copy = lacks.copy()
    copy.sample("a")
    copy.part("c")
    assert (lacks.samples, lacks.parts) == ({"a": 1}, {"b": 2})


class Broken:
    broken_count = 3

    def __len__(self) -> int:
        return 10


def test_data_sets_that_do_not_say_it_count_what_is_broken() -> None:
    for dataset in (Broken(), Subset(Broken(), [1])):  # type: ignore[arg-type]
        lacks = left_out(dataset)
        assert (lacks.total, lacks.samples) == (10, {"that cannot be read": 3})
    joined = left_out(ConcatDataset([Broken(), Subset(Broken(), [1])]))  # type: ignore[list-item]
    assert (joined.total, joined.samples) == (20, {"that cannot be read": 6})
    assert left_out([1, 2]) == LeftOut(2)


def test_lines_for_people() -> None:
    lacks = LeftOut(4000, num_read=200)
    lacks.sample("without a caption", count=1200)
    lacks.part("hidden files", 2)
    whole = {"train": lacks.to_json(), "val": LeftOut(9, num_read=4).to_json()}
    assert left_out_lines(whole) == [
        "data of 'train': 1,200 of 4,000 left out or replaced: 1,200 without a caption; "
        "hidden files: 2 (200 read so far)"
    ]
    assert left_out_lines({}) == []


class Named:
    def __init__(self, own: object) -> None:
        self.fingerprint = own

    def __len__(self) -> int:
        return 3


def test_fingerprints_of_any_data_set() -> None:
    assert fingerprint(Named({"samples": 3, 1: (2, 3)})) == {"samples": 3, "1": [2, 3]}
    assert fingerprint(Named("abc")) == {"content": "abc"}
    assert fingerprint(Named(lambda: {"bytes": 7})) == {"bytes": 7}
    part = Subset(Named({"samples": 3, "content": "x"}), [0, 1])  # type: ignore[arg-type]
    assert fingerprint(part) == {"samples": 2, "content": "x"}
    parts = [Named({"content": "x"}), Named({"content": "y"})]
    joined = fingerprint(ConcatDataset(parts))  # type: ignore[arg-type]
    assert joined == {"parts": [{"content": "x"}, {"content": "y"}], "samples": 6}
    bare = fingerprint(Broken())
    assert bare["samples"] == 10 and bare["class"].endswith("test_left_out.Broken")
    with_classes = Broken()
    with_classes.classes = ("a", "b")  # type: ignore[attr-defined]
    assert fingerprint(with_classes) != bare


def test_hashes_tell_order_and_borders_apart() -> None:
    table = np.arange(6).reshape(2, 3)
    assert hash_of(table) == hash_of(table.copy())
    assert hash_of(table.T) == hash_of(np.ascontiguousarray(table.T)) != hash_of(table)
    assert hash_of(b"ab", b"c") != hash_of(b"a", b"bc")
    assert hash_of(["a", "b"]) != hash_of(["b", "a"])


def test_sizes_and_what_is_probed(tmp_path: object) -> None:
    assert sizes_of([__file__, "/no/such/file"])[1] == -1
    assert probed(3) == [0, 1, 2]
    chosen = probed(10_000, 5)
    assert (chosen[0], chosen[-1], len(chosen)) == (0, 9999, 5)


class Known(Broken):
    def __init__(self) -> None:
        self.known = torch.zeros(2, dtype=torch.uint8)


class Wrapper(Known):
    def __init__(self, source: Known) -> None:
        super().__init__()
        self.source = source


def test_what_any_process_knows_comes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every data set that one reads from."""
    reduced = list[torch.Tensor]()
    monkeypatch.setattr(known_samples, "all_reduce", lambda tensor, op: reduced.append(tensor))
    outer = Wrapper(Known())
    known_samples.bring_together(NumberedDataset(Subset(outer, [0])))  # type: ignore[arg-type]
    assert [id(tensor) for tensor in reduced] == [id(outer.known), id(outer.source.known)]


def test_a_resumed_run_remembers_what_was_known() -> None:
    outer = Wrapper(Known())
    outer.known[0], outer.source.known[1] = 2, 1
    before = [known.clone() for known in known_samples.known_samples(outer)]
    resumed = Wrapper(Known())
    resumed.known[1] = 1
    known_samples.remember_samples(resumed, before)
    assert (resumed.known.tolist(), resumed.source.known.tolist()) == ([2, 1], [0, 1])
    known_samples.remember_samples(resumed, [torch.ones(3, dtype=torch.uint8)])
    known_samples.remember_samples(resumed, [])
    assert resumed.known.tolist() == [2, 1]
