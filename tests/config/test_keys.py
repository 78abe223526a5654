"""Keys as fields of dataclasses: what a type takes, what it refuses, and how it says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from compt.config import load_config
from compt.config.faults import Faults
from compt.config.keys import Section, key, merge
from tests.config.conftest import faults


@dataclass(frozen=True, kw_only=True)
class Inner(Section):
    size: int = key(1, help="a number", minimum=1, maximum=9)


@dataclass(frozen=True, kw_only=True)
class Outer(Section):
    name: str = key(help="required")
    rate: float = key(0.5, help="a rate", positive=True)
    limit: float | None = key(None, help="may be None", minimum=0)
    mode: Literal["a", "b"] = key("a", help="a choice")
    flag: bool = key(False, help="a flag")
    compile: bool | Mapping[str, Any] = key(False, help="either")
    hooks: Sequence[Mapping[str, Any]] | Mapping[str, Any] = key([], help="typed", typed=True)
    options: Mapping[str, Any] = key({"x": 1, "y": 2}, help="filled", filled=True)
    folder: Path | None = key(None, help="a path")
    inner: Inner = key(Inner(), help="a section")
    new: int = key(0, help="renamed", old_name="old")

    def check(self, faults: Faults, where: str, at_fault: frozenset[str]) -> None:
        if "rate" not in at_fault and self.rate == 2:
            faults.add(f"{where}rate: two is not allowed.")


def read(**raw: Any) -> tuple[Outer, list[str]]:
    collected = Faults("here")
    section = Outer.read({"name": "n", **raw}, collected, where="at.")
    return section, collected.sentences


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (dict(name=3), "at.name: 3 is not a string."),
        (dict(name=None), "at.name is missing."),
        (dict(rate=0), "at.rate: 0 is not a positive number."),
        (dict(rate=True), "at.rate: True is not a positive number."),
        (dict(rate=float("nan")), "at.rate: nan is not a positive number."),
        (dict(rate=10**400), f"at.rate: 1{'0' * 116}... is not a positive number."),
        (dict(rate=None), "at.rate: None is not a positive number."),
        (dict(rate=2), "at.rate: two is not allowed."),
        (dict(limit=-1), "at.limit: -1 is not a number of at least 0."),
        (dict(mode="c"), "at.mode: 'c' is none of 'a', 'b'."),
        (dict(mode=1), "at.mode: 1 is none of 'a', 'b'."),
        (dict(flag=1), "at.flag: 1 is not True or False."),
        (dict(compile=1), "at.compile: 1 is not True or False or a dict."),
        (
            dict(hooks=[3]),
            "at.hooks: [3] is not a list of dict(type=..., ...) or a dict(type=..., ...).",
        ),
        (dict(options=5), "at.options: 5 is not a dict."),
        (dict(folder="a\0b"), "at.folder: 'a\\x00b' is not a path."),
        (dict(inner=5), "at.inner: 5 is not a dict."),
        (dict(inner=dict(size=10)), "at.inner.size: 10 is not a whole number from 1 to 9."),
        (dict(inner=dict(siz=1)), "at.inner.siz is not a key of compt. Did you mean 'size'?"),
        (dict(inner=dict(size=1.5)), "at.inner.size: 1.5 is not a whole number from 1 to 9."),
    ],
)
def test_a_value_at_fault_is_one_sentence_and_the_default_goes_on(raw, fault):
    section, sentences = read(**raw)
    assert sentences == [fault]
    (name,) = raw
    if name not in ("name", "rate"):
        assert getattr(section, name) == Outer.all_keys()[name].default


def test_sound_values_are_kept():
    values = dict(
        rate=2.5,
        limit=0,
        mode="b",
        flag=True,
        compile={},
        hooks=[dict(type="x")],
        folder="a/b",
        new=3,
    )
    section, sentences = read(**values, inner=dict(size=2.0), options=dict(y=5))
    assert not sentences
    assert {name: getattr(section, name) for name in values} == values
    assert section.inner == Inner(size=2)
    assert section.options == dict(x=1, y=5)


def test_none_stands_for_the_default_where_it_is_no_value():
    section, sentences = read(mode=None, flag=None, hooks=None, inner=None, folder=None)
    assert not sentences
    assert section == read()[0]


def test_an_old_name_works_and_warns():
    with pytest.warns(FutureWarning, match=r"at\.old is called at\.new now"):
        section, sentences = read(old=3)
    assert (section.new, sentences) == (3, [])


def test_an_old_name_beside_the_new_one_is_a_fault():
    with pytest.warns(FutureWarning, match="old is called"):
        assert read(old=3, new=4)[1] == ["at.old and at.new are one key: give one of them."]


@pytest.mark.parametrize("key", ["seed", "evaluations", "log_interval"])
def test_a_whole_number_written_as_a_float_is_one(toy, key):
    value = getattr(load_config({**toy, key: 3.0}), key)
    assert (value, type(value)) == (3, int)


def test_what_differs_from_the_defaults_is_written_as_a_config():
    section, _ = read(rate=2.5, inner=dict(size=3))
    assert section.to_dict() == dict(name="n", rate=2.5, inner=dict(size=3))
    assert Outer.read(section.to_dict(), Faults("here")) == section


def test_a_default_is_not_shared_between_sections():
    first, second = read()[0], read()[0]
    assert first.options == second.options
    first.options["x"] = 9  # type: ignore[index]
    assert read()[0].options == dict(x=1, y=2)


@pytest.mark.parametrize(
    ("base", "override", "result"),
    [
        (dict(a=1, b=2), dict(b=3), dict(a=1, b=3)),
        (dict(a=dict(b=1, c=2)), dict(a=dict(c=3)), dict(a=dict(b=1, c=3))),
        (dict(type="x", a=1), dict(type="y", b=2), dict(type="y", b=2)),
        (dict(type="x", a=1), dict(type="x", b=2), dict(type="x", a=1, b=2)),
        (dict(a=1), dict(_delete_=True, b=2), dict(b=2)),
        (dict(a=1), [3], [3]),
        (None, dict(a=1), dict(a=1)),
    ],
)
def test_merging_is_mmengines(base, override, result):
    assert merge(base, override) == result


# The keys of a chain


def test_the_old_name_of_the_stopping_rule_works_and_warns(toy):
    toy["chain"][1]["budget"] = dict(type="until", target=2.0)
    with pytest.warns(FutureWarning, match=r"chain\.1\.budget is called chain\.1\.stopping now"):
        assert load_config(toy).stages[1].stopping.target == 2.0


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (dict(seed=10**30), "seed: 1" + "0" * 30 + " is not a whole number from 0"),
        (dict(evaluations=None), "evaluations: None is not a whole number"),
        (dict(train_dataloader=dict(batch_size=None)), "train_dataloader.batch_size: None"),
        (dict(work_dir="a\0"), r"work_dir: 'a\x00' is not a path."),
        (dict(optim_wrapper=dict(accumulative_counts=1.5)), "optim_wrapper.accumulative_counts"),
        (dict(default_scope=3), "default_scope: 3 is not a string."),
        (
            dict(launcher="pytorch"),
            "launcher is not a key of compt, but mmengine's: give --launcher",
        ),
    ],
)
def test_values_that_used_to_break_later_are_faults(toy, change, fault):
    (sentence,) = faults({**toy, **change})
    assert sentence.startswith(fault)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (dict(iters=1e30), "chain.1.iters: 1e+30 is not a positive whole number up to"),
        (dict(iters=1.5), "chain.1.iters: 1.5 is not a positive whole number"),
        (dict(name="b" * 300), "chain.1.name: "),
        (dict(init={}), "chain.1.init: {} is not a string."),
    ],
)
def test_values_of_a_stage_that_used_to_break_later_are_faults(toy, change, fault):
    toy["chain"][1] |= change
    (sentence,) = faults(toy)
    assert sentence.startswith(fault)
