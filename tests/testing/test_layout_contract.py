"""The contract of layouts, which passes good ones and catches broken ones."""

from __future__ import annotations

import os
import random

import pytest
import torch

from compt.growth.axes import class_path
from compt.interfaces import Layout
from compt.registry import LAYOUTS
from compt.testing import LayoutContract
from compt.testing.toy import INPUTS, TiedNet, ToyLayout, ToyNet
from tests.testing.broken import (
    Case,
    blamed_alone,
    check,
    check_complete,
    check_good,
    check_others,
    outcome,
)


class Good(LayoutContract):
    def pair(self):
        return ToyNet(8, 1), ToyNet(12, 3)


class Tied(LayoutContract):
    def pair(self):
        return TiedNet(8, 2, rms=True), TiedNet(24, 3, rms=True)


class Dropout(LayoutContract):
    """Half of everything is dropped in training, and nothing by a probe."""

    def pair(self):
        return ToyNet(8, 1, dropout=0.5), ToyNet(16, 1, dropout=0.5)


@pytest.mark.parametrize("good", [Good, Tied, Dropout], ids=lambda c: c.__name__)
def test_good_layouts_pass(good, tmp_path):
    check_good(good, tmp_path)


def test_a_class_without_a_layout_is_told_how_to_get_one(tmp_path):
    class Nobodys(LayoutContract):
        def pair(self):
            return torch.nn.Linear(2, 3), torch.nn.Linear(4, 3)

    error = outcome(Nobodys, "test_describes_every_tensor", tmp_path)
    assert isinstance(error, AssertionError) and "subclass compt.Layout" in str(error)


def test_a_contract_without_a_pair_says_what_to_return():
    with pytest.raises(NotImplementedError, match="return a small and a larger model"):
        LayoutContract().test_axes_agree()


# Broken layouts, each for a class of its own


@pytest.fixture(autouse=True)
def registered():
    """Register the broken layouts while a test runs."""
    for net, layout in BROKEN.items():
        LAYOUTS.register_module(name=class_path(net), module=layout)
    yield
    for net in BROKEN:
        LAYOUTS.module_dict.pop(class_path(net))


BROKEN: dict[type, type[Layout]] = {}


class Untold(ToyNet):
    """A model whose signature does not say what it takes, so that no input can be guessed."""

    def forward(self, *inputs):
        return super().forward(*inputs)


def contract(layout: type[Layout], base: type = ToyNet, **members) -> type:
    """Make the contract on a class that this layout describes."""
    net = type(f"Net{layout.__name__}", (base,), {"__module__": __name__})
    BROKEN[net] = layout
    pair = {"pair": lambda self: (net(8, 1, dropout=0.0), net(12, 3, dropout=0.0))}
    return type(layout.__name__, (LayoutContract,), {**pair, **members})


def but(**patterns) -> dict:
    """Return the patterns of the toy with others in their place, where None takes one away."""
    changed = {name.replace("__", "."): pattern for name, pattern in patterns.items()}
    return {n: p for n, p in (ToyLayout.patterns | changed).items() if p is not None}


def points(module, generator, *size):
    weight = next(module.parameters())
    return torch.randn(*(size or (4, INPUTS)), generator=generator, dtype=torch.float64).to(weight)


class ProbeLacksTheGenerator(ToyLayout):
    def probe(self, module):
        return {}


class LacksATensor(ToyLayout):
    patterns = but(head__bias=None)


class LacksARole(ToyLayout):
    patterns = but(head__weight="wards <- embed", head__bias="wards")


class HasAnotherShape(ToyLayout):
    patterns = but(head__weight="classes 1 <- embed")


class ReadsValues(ToyLayout):
    def sizes(self, module):
        return {"spare": 1 + int(module.head.weight.isnan().any().item())}


class AsksForTheDevice(ToyLayout):
    def sizes(self, module):
        return {"spare": 1 + module.head.weight.is_meta}


class KnowsOneObject(ToyLayout):
    def sizes(self, module):
        return {"spare": 1 + id(module)}


class FailsOnCopies(ToyLayout):
    def sizes(self, module):
        known = module.__dict__.setdefault("described", id(module))
        if known != id(module):
            raise RuntimeError("not the module that was described")
        return {}


class FixesTheUnits(ToyLayout):
    roles = {"mlp": "fixed"}


class OtherAxesWhereLarge(ToyLayout):
    def axis_aliases(self, module):
        return {"mlp": "units"} if module.head.in_features > 8 else {}

    roles = {"units": "hidden"}


class MisspellsARole(ToyLayout):
    roles = {"mpl": "hidden"}


class MisspellsAWhole(ToyLayout):
    whole = frozenset({"embde"})


class InventsARole(ToyLayout):
    roles = {"mlp": "growing"}


class WrongDirection(ToyLayout):
    patterns = but(head__weight="classes -> embed")


class ProbesWidths(ToyLayout):
    def probe(self, module, generator):
        return {"features": module.features(points(module, generator))}


class CannotProbe(ToyLayout):
    def probe(self, module, generator):
        return None


class DrawsFromNowhere(ToyLayout):
    def probe(self, module, generator):
        own = torch.Generator().manual_seed(int.from_bytes(os.urandom(4), "little"))
        points(module, generator)
        return {"logits": module(points(module, own))}


class ProbesZeros(ToyLayout):
    def probe(self, module, generator):
        return {"logits": module(torch.ones_like(points(module, generator)))}


class LeavesEvalMode(ToyLayout):
    def probe(self, module, generator):
        return super().probe(module.eval(), generator)


class LeavesHooks(ToyLayout):
    def probe(self, module, generator):
        module.head.register_forward_hook(lambda *_: None)
        return super().probe(module, generator)


class DrawsFromPython(ToyLayout):
    def probe(self, module, generator):
        random.random()
        return super().probe(module, generator)


class WritesIntoTheModule(ToyLayout):
    def probe(self, module, generator):
        outputs = super().probe(module, generator)
        module.embed.bias.data.mul_(1.1)
        return outputs


class DrawsByWidth(ToyLayout):
    def probe(self, module, generator):
        outputs = super().probe(module, generator)
        torch.randn(module.head.in_features, generator=generator)
        return outputs


class ProbesNothing(ToyLayout):
    def probe(self, module, generator):
        return {"logits": points(module, generator)}


class Changing(LayoutContract):
    """Two designs, of which LayerNorm has biases and RMSNorm has none."""

    def pair(self):
        return ToyNet(8, 1), ToyNet(12, 2, rms=True)


def half_a_loss(self, module):
    return module.features(torch.ones(2, INPUTS, dtype=torch.float64)).square().sum()


LOSSLESS, LEADING = "test_lossless_growth_keeps_the_function", "test_leading_block_fills_the_corner"
LEARNS, META = "test_everything_learns", "test_describes_on_meta"
GROWTH = (LOSSLESS, LEADING, LEARNS)
CASES = [
    Case(
        contract(ProbeLacksTheGenerator),
        "test_methods_take_what_the_core_gives",
        "def probe(",
        None,
    ),
    Case(
        contract(LacksATensor), "test_describes_every_tensor", "add the parameter's pattern", None
    ),
    Case(contract(LacksARole), "test_describes_every_tensor", "Say in the layout's `roles`", None),
    Case(
        contract(HasAnotherShape),
        "test_describes_every_tensor",
        "Name one axis for each dimension",
        None,
    ),
    Case(contract(ReadsValues), META, "Take sizes() from shapes"),
    Case(contract(AsksForTheDevice), META, "depend on nothing but shapes"),
    Case(
        contract(KnowsOneObject),
        "test_describes_a_copy_alike",
        "nothing but the module's attributes",
        (META,),
    ),
    Case(
        contract(FailsOnCopies),
        "test_describes_a_copy_alike",
        "Keep nothing about single modules",
        None,
    ),
    Case(contract(FixesTheUnits), "test_axes_agree", "Say in roles how 'mlp' may grow", GROWTH),
    Case(contract(OtherAxesWhereLarge), "test_axes_agree", "depend on the design alone", GROWTH),
    Case(contract(MisspellsARole), "test_roles_are_known", "Name in roles the axes"),
    Case(contract(MisspellsAWhole), "test_roles_are_known", "Name in whole the axes"),
    Case(contract(InventsARole), "test_describes_every_tensor", "A role is one of ('stream'", None),
    Case(contract(WrongDirection), LOSSLESS, "which axis is written, which is read"),
    Case(
        contract(ProbesWidths, Untold),
        LOSSLESS,
        "at least one output that has the same shape",
        None,
    ),
    Case(Changing, LEADING, "pair() models of one design", (LOSSLESS,)),
    Case(
        contract(type("OfHalf", (ToyLayout,), {}), loss=half_a_loss),
        LEARNS,
        "override loss(module)",
    ),
    Case(
        contract(DrawsFromNowhere),
        "test_probe_is_repeatable",
        "Draw the input of probe()",
        (LOSSLESS,),
    ),
    Case(contract(ProbesZeros), "test_probe_is_repeatable", "constant input hides errors"),
    Case(contract(LeavesEvalMode), "test_probe_leaves_everything_alone", "Put everything back"),
    Case(contract(LeavesHooks), "test_probe_leaves_everything_alone", "Put everything back"),
    Case(
        contract(DrawsFromPython),
        "test_probe_leaves_everything_alone",
        "Draw the input from the generator",
    ),
    Case(
        contract(WritesIntoTheModule),
        "test_probe_leaves_everything_alone",
        "Put everything back",
        None,
    ),
    Case(contract(DrawsByWidth), "test_probe_compares_sizes", "depend on fixed sizes alone"),
    Case(
        contract(type("ProbesWidthsToo", (ProbesWidths,), {})),
        "test_probe_compares_sizes",
        "Return logits",
        None,
    ),
    Case(
        contract(ProbesNothing),
        "test_probe_sees_the_weights",
        "Return outputs of the module itself",
        (LEARNS,),
    ),
    Case(
        contract(CannotProbe), "test_probe_sees_the_weights", "Write probe(module, generator)", None
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_every_broken_layout_is_caught(case, tmp_path):
    check(case, tmp_path)


@pytest.mark.parametrize("case", blamed_alone(CASES))
def test_no_other_test_blames_a_broken_layout(case, tmp_path):
    check_others(case, tmp_path)


def test_every_test_of_the_contract_can_fail():
    check_complete(LayoutContract, CASES)
