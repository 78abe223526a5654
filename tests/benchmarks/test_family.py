"""Family files: those that ship, and what is wrong with others."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from measuring.family import AS_PUBLISHED, PUBLISHED, Recipe, published_fractions, read_family

import compt
from compt.errors import ConfigError
from tests.benchmarks.toys import FAMILY, toys

SMOKE = FAMILY["presets"]["smoke"]


@pytest.mark.parametrize(
    ("name", "preset", "members", "most"),
    [
        ("lm", "long", 4, 3.6),
        ("lm", "seven", 7, 3),
        ("clip", "seven", 7, 3),
        ("mae", "seven", 7, 3),
        ("scenes", "cpu", 3, 7),
        ("mae_scenes", "cpu", 3, 8),
    ],
)
def test_the_members_of_the_families_can_be_planned(
    name: str, preset: str, members: int, most: float
) -> None:
    """In ascending size, each clearly larger than the one before."""
    family = read_family(name, preset, {})
    chain = [family.member(i, member["lr"], 64) for i, member in enumerate(family.members)]
    stages = compt.plan({**family.base, "chain": chain}).stages
    assert len(stages) == members
    growth = [after.student_flops / before.student_flops for before, after in pairwise(stages)]
    assert all(1.1 < factor < most for factor in growth), growth


@pytest.mark.parametrize("name", ["lm", "clip", "mae", "scenes", "mae_scenes"])
@pytest.mark.parametrize("preset", ["smoke", "cpu", "long", "gpu"])
def test_the_presets_of_the_families_can_be_read(name: str, preset: str) -> None:
    family = read_family(name, preset, {})
    assert len(family.members) == (4 if name == "lm" else 3)
    assert family.name == f"{name}-{preset}"
    judging = {length: len(family.judging(length)) for length in family.lengths}
    assert all(count == 2 if preset == "smoke" else count >= 5 for count in judging.values())
    assert not [key for key in family.base if key.startswith("_")], "the file's own"


def test_the_unit_of_a_length_is_that_of_the_preset() -> None:
    """Tokens a parameter of the largest: 128 a sequence, 16 or 64 sequences an iteration."""
    params = {"cpu": 205_440, "seven": 205_440, "gpu": 205_440}
    batch = {"cpu": 16, "seven": 16, "gpu": 64}
    for preset, count in params.items():
        family = read_family("lm", preset, {})
        assert family.units(512) == pytest.approx(512 * 128 * batch[preset] / count)


def test_lengths_are_iterations_where_a_family_does_not_say(tmp_path: Path) -> None:
    assert toys(tmp_path).units(8) == 8 and toys(tmp_path).unit.name == "iterations"


def test_a_preset_replaces_keys_of_the_family(tmp_path: Path) -> None:
    changes = dict(evaluations=3, metric="val/loss", published=None, floor="none", name="x")
    family = toys(tmp_path, presets={"smoke": {**SMOKE, **changes}})
    assert family.base["evaluations"] == 3 and family.metric == "val/loss"
    assert family.recipes == {} and family.floor == "none" and family.name == "x-smoke"
    assert toys(tmp_path).recipes == {AS_PUBLISHED: PUBLISHED}
    assert toys(tmp_path, {"paradigm.samples": 64}).base["paradigm"]["samples"] == 64
    assert set(family.ways) == {"grower", "transfer"} and "grower" not in family.alone_base


def test_a_hop_chooses_only_what_its_source_does_not_depend_on(tmp_path: Path) -> None:
    choices = [dict(grower=dict(type="clone")), dict(grown=dict(lr_mult=0.5))]
    family = toys(tmp_path, choices=choices)
    none = dict(type="none")
    assert family.hop_ways == (
        dict(grower=dict(type="clone"), transfer=none),
        dict(grower=dict(type="lossless"), transfer=none, grown=dict(lr_mult=0.5)),
    )
    assert toys(tmp_path).hop_ways == (dict(grower=dict(type="lossless"), transfer=none),)
    with pytest.raises(ConfigError, match="cannot choose average") as error:
        toys(tmp_path, choices=[dict(average=None)])
    assert "choices[0]" in str(error.value)


def test_other_seeds_may_judge_but_none_that_chooses(tmp_path: Path) -> None:
    family = toys(tmp_path, first_seed=11)
    assert family.judging(8) == (11, 12) and family.judging(8, 3) == (11, 12, 13)
    for seed in (0, 94):
        with pytest.raises(ConfigError, match=f"`first_seed` is {seed}"):
            toys(tmp_path, first_seed=seed)


def test_chains_that_are_known_are_recipes(tmp_path: Path) -> None:
    chains = {8: dict(fractions=(1, 0.5), lr_mults=(1, 0.7))}
    family = toys(tmp_path, presets={"smoke": {**SMOKE, "chains": chains}})
    assert family.chains == {8: Recipe((1, 0.5), (1, 0.7))}


def test_the_published_shares_serve_as_many_members_as_there_are() -> None:
    assert published_fractions(PUBLISHED, 2) == [1.0, 3 / 16]
    assert published_fractions(PUBLISHED, 5) == [1.0, 3 / 16, 1 / 8, 1 / 8, 1 / 8]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paradigm": None}, "lacks paradigm"),
        ({"family": FAMILY["family"][:1]}, "two members or more"),
        ({"presets": {"smoke": {"lengths": (3,)}}}, "lacks seeds"),
        ({"presets": {"smoke": {**SMOKE, "lengths": ()}}}, "lacks lengths"),
        ({"presets": {"cpu": {}}}, "no preset 'smoke'"),
        ({"presets": {"smoke": {**SMOKE, "seeds": {4: 5}}}}, "none for the length 8"),
        ({"presets": {"smoke": {**SMOKE, "study_lengths": (4, 8)}}}, "4, which `lengths` has not"),
        ({"presets": {"smoke": {**SMOKE, "chains": {8: {"fractions": (1, 1)}}}}}, "`lr_mults`"),
        ({"unit": {"name": "epochs"}}, "`unit` needs"),
    ],
)
def test_a_family_that_cannot_be_used_is_named(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    """Before anything is trained."""
    with pytest.raises(ConfigError, match=message):
        toys(tmp_path, **change)


def test_names_that_are_not_there_list_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"one of: clip, lm, lm_average, lm_cosine, lm_d"):
        read_family("causal_lm", "smoke", {})
    with pytest.raises(ConfigError, match=r"One of: 8"):
        toys(tmp_path).row_lengths(16)
    assert toys(tmp_path).row_lengths(None) == toys(tmp_path).row_lengths(8) == (8,)
