"""Plug-ins written for API 1.1, whose method names still work and warn."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

import compt
from compt.growers.lossless import Lossless
from compt.testing.toy import Toy, ToyLayout, ToyNet


@contextmanager
def renamings(*expected: str) -> Iterator[None]:
    """Require exactly these FutureWarnings, in order; each begins as it says."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    texts = [str(w.message) for w in caught if issubclass(w.category, FutureWarning)]
    assert len(texts) == len(expected), texts
    for text, beginning in zip(texts, expected, strict=True):
        assert text.startswith(beginning), texts


def old_grower(**methods) -> type[compt.AxisGrower]:
    """Define a grower with these methods, as a class statement does."""

    def expand(self, source, target, site):
        target[site.corner] = source
        return target

    return type("Mine", (compt.AxisGrower,), {"expand": expand, **methods})


def no_warning(cls: type, *args):
    """Make an object without any warning."""
    with renamings():
        return cls(*args)


# Overrides under the old name


def reversed_blocks(self, block, source_depth, target_depth):
    return source_depth - 1 - block * source_depth // target_depth


def zeros(self, value, target, site):
    return torch.zeros_like(value)


def no_reason(self, source, target):
    return ["mine keeps nothing"]


OLD_OVERRIDES = {
    "pick": (reversed_blocks, "source_block_index", (0, 2, 4), 1),
    "obstacles": (no_reason, "why_not_preserving", (None, None), ["mine keeps nothing"]),
}


@pytest.mark.parametrize("old", OLD_OVERRIDES)
def test_an_axis_grower_may_override_an_old_name(old):
    override, new, arguments, answer = OLD_OVERRIDES[old]
    with renamings(f"Mine.{old} is called {new} since plug-in API 1.2"):
        grower_class = old_grower(**{old: override})
    grower = no_warning(grower_class)
    with renamings():
        assert getattr(grower, new)(*arguments) == answer
        assert getattr(grower, old)(*arguments) == answer


def test_renew_is_reached_by_its_new_name():
    with renamings("Mine.renew is called init_new_block"):
        grower_class = old_grower(renew=zeros)
    value = torch.ones(2)
    assert not grower_class().init_new_block(value, value, None).any()


def test_growth_calls_old_overrides_and_warns_no_more():
    """The core passes by position, so that arguments of old names work too."""
    with renamings("Mine.pick is called", "Mine.renew is called", "Mine.obstacles is called"):
        grower_class = old_grower(pick=reversed_blocks, renew=zeros, obstacles=no_reason)
    source, target = ToyNet(8, 2), ToyNet(8, 4)
    with renamings():
        growth = compt.grow(source, target, grower_class())
    assert growth.reason == "mine keeps nothing"
    blocks = [block.fc1.weight for block in target.blocks]
    # target blocks 0 to 3 come from source blocks 1, 1, 0, 0, of which the repeats are zero
    assert torch.equal(blocks[0], source.blocks[1].fc1.weight)
    assert torch.equal(blocks[2], source.blocks[0].fc1.weight)
    assert not blocks[1].any()
    assert not blocks[3].any()


def test_a_paradigm_may_override_teach():
    with renamings("Old.teach is called teacher_forward"):

        class Old(Toy):
            def teach(self, model, batch, needs):
                return {"taught": sorted(needs)}

    with renamings():
        assert Old().teacher_forward(None, {}, frozenset({"logits"})) == {"taught": ["logits"]}


def test_a_layout_may_override_same(monkeypatch):
    with renamings("Old.same is called axis_aliases"):

        class Old(ToyLayout):
            roles = {"labels": "fixed"}

            def same(self, module):
                return {"classes": "labels"}

    class Net(ToyNet):
        pass

    monkeypatch.setitem(compt.LAYOUTS.module_dict, f"{__name__}.{Net.__qualname__}", Old)
    with renamings():
        assert Old().axis_aliases(Net()) == {"classes": "labels"}
        arch = compt.describe(Net(8, 1))
    assert "labels" in arch.sizes
    assert "classes" not in arch.sizes


def test_a_class_with_both_names_needs_no_warning():
    """It works with either API, and each name has the author's own code."""
    with renamings():
        grower_class = old_grower(pick=reversed_blocks, source_block_index=lambda self, *blocks: 7)
    assert grower_class().source_block_index(0, 2, 4) == 7


def test_subclasses_of_an_old_plug_in_do_not_warn_again():
    with renamings("Mine.pick is called"):
        grower_class = old_grower(pick=reversed_blocks)
    with renamings():
        further = type("Further", (grower_class,), {})
    assert further().source_block_index(0, 2, 4) == 1


# super() in such an override


def test_super_reaches_the_code_of_the_base():
    """It ends, where a call that was passed on to the new name would come back for ever."""
    with renamings("Mine.pick is called", "Mine.obstacles is called"):

        class Mine(compt.AxisGrower):
            def expand(self, source, target, site):
                return target

            def pick(self, block, source_depth, target_depth):
                return 10 + super().pick(block, source_depth, target_depth)

            def obstacles(self, source, target):
                return ["first", *super().obstacles(source, target)]

    with renamings("Mine.pick is called source_block_index"):
        assert Mine().source_block_index(3, 2, 4) == 11
    with renamings("Mine.obstacles is called why_not_preserving"):
        reasons = Mine().why_not_preserving(None, None)
    assert reasons == ["first", "this grower does not aim to preserve the function"]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_super_of_a_paradigm_and_of_a_layout():
    class OldParadigm(Toy):
        def teach(self, model, batch, needs):
            return {**super().teach(model, batch, needs), "more": torch.ones(1)}

    class OldLayout(ToyLayout):
        def same(self, module):
            return {**super().same(module), "classes": "labels"}

    model = ToyNet(8, 1, dropout=0.0)
    outputs = OldParadigm().teacher_forward(model, {"x": torch.zeros(2, 8)}, frozenset())
    assert set(outputs) == {"features", "logits", "more"}
    assert OldLayout().axis_aliases(nn.Identity()) == {"classes": "labels"}


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_super_reaches_a_built_in_grower_that_overrides_the_new_name():
    """New blocks of Lossless write nothing, also where a subclass of 1.1 changes them further."""

    class Mine(Lossless):
        def renew(self, value, target, site):
            return super().renew(value, target, site)

    source, target = ToyNet(8, 1), ToyNet(8, 3)
    growth = compt.grow(source, target, Mine())
    assert growth.function_preserving, growth.reason


# Calls under the old name


NEW_STYLE = {
    "pick": ("source_block_index", lambda self, block, small, large: 5, (0, 2, 4), 5),
    "renew": ("init_new_block", lambda self, value, target, pair: value + 1, (1, None, None), 2),
    "obstacles": ("why_not_preserving", lambda self, source, target: ["why"], (1, 2), ["why"]),
}


@pytest.mark.parametrize("old", NEW_STYLE)
def test_a_call_under_the_old_name_reaches_the_new_override(old):
    new, override, arguments, answer = NEW_STYLE[old]
    with renamings():
        grower = old_grower(**{new: override})()
    with renamings(f"Mine.{old} is called {new}"):
        assert getattr(grower, old)(*arguments) == answer


def test_teach_and_same_reach_the_new_overrides():
    class NewParadigm(Toy):
        def teacher_forward(self, model, batch, needs):
            return {"taught": needs}

    class NewLayout(ToyLayout):
        def axis_aliases(self, module):
            return {"classes": "labels"}

    with renamings("NewParadigm.teach is called teacher_forward"):
        assert NewParadigm().teach(None, {}, frozenset()) == {"taught": frozenset()}
    with renamings("NewLayout.same is called axis_aliases"):
        assert NewLayout().same(None) == {"classes": "labels"}


def test_the_warning_is_of_the_line_that_calls():
    with pytest.warns(FutureWarning, match="the old name will go") as caught:
        Toy().teach(ToyNet(8, 1), {"x": torch.zeros(2, 8)}, frozenset())
    assert [w.filename for w in caught] == [__file__]


# Other names


def test_site_is_param_pair():
    with pytest.warns(DeprecationWarning, match="ParamPair") as caught:
        assert compt.Site is compt.ParamPair
    assert len(caught) == 1


def test_plan_takes_world_for_world_size(toy):
    with renamings("plan(world=...) is called world_size"):
        by_old_name = compt.plan(toy, world=2)
    with renamings():
        by_new_name = compt.plan(toy, world_size=2)
    assert by_old_name.stages == by_new_name.stages
    assert by_old_name.stages != compt.plan(toy).stages
