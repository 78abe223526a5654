"""Two layouts for one class of modules: compt's own is the default, and a config can choose."""

from __future__ import annotations

import pytest

import compt
from compt.config import load_config
from compt.errors import ConfigError, PluginError
from compt.growth.axes import class_path, describe
from compt.registry import LAYOUTS
from compt.testing.toy import ToyNet
from tests.config.conftest import faults

OTHER = """
from compt.testing.toy import ToyLayout

class Other(ToyLayout):
    pass

class Broken(ToyLayout):
    patterns = {"nothing": "embed"}
"""
NAME = class_path(ToyNet)


@pytest.fixture
def packages(install, monkeypatch):
    """The toy's layout, declared by two packages; none of them is compt's."""
    monkeypatch.delitem(LAYOUTS.module_dict, NAME)
    for package in ("alpha", "beta"):
        module = f"{package}_layouts"
        install(package, {NAME: f"{module}:Other"}, {module: OTHER}, group="compt.layouts")


@pytest.mark.usefixtures("packages")
def test_two_layouts_are_a_clash_that_names_the_key(toy):
    with pytest.raises(PluginError, match="declared by 2 packages: alpha") as caught:
        compt.plan(toy)
    assert f"layouts={{'{NAME}': 'alpha:{NAME}'}}" in caught.value.do


@pytest.mark.usefixtures("packages")
def test_a_config_chooses_one(toy, tmp_path):
    toy["layouts"] = {NAME: f"beta:{NAME}"}
    toy["chain"] = toy["chain"][:2]
    assert len(compt.plan(toy).stages) == 2
    compt.train(toy, work_dir=tmp_path / "work")
    with pytest.raises(PluginError, match="2 packages"):
        describe(ToyNet(8, 1))


@pytest.mark.usefixtures("packages")
def test_a_choice_that_does_not_exist_is_refused_by_name(toy):
    toy["layouts"] = {NAME: f"gamma:{NAME}"}
    with pytest.raises(PluginError, match="No layout named 'gamma:"):
        compt.plan(toy)


def test_compts_own_layout_is_the_default_whatever_is_installed(install):
    """A package cannot break a chain that does not name it."""
    name = "timm.models.vision_transformer.VisionTransformer"
    install(
        "alpha", {name: "alpha_layouts:Broken"}, {"alpha_layouts": OTHER}, group="compt.layouts"
    )
    assert LAYOUTS.find(name).__module__ == "compt.layouts.timm"
    with LAYOUTS.choosing({name: f"alpha:{name}"}):
        assert LAYOUTS.find(name).__module__ == "alpha_layouts"
    assert LAYOUTS.find(name).__module__ == "compt.layouts.timm"


@pytest.mark.usefixtures("packages")
def test_a_layout_of_this_process_can_replace_those_of_packages():
    class Mine(LAYOUTS.get(f"alpha:{NAME}")):
        pass

    LAYOUTS.register_module(name=NAME, module=Mine)
    with pytest.raises(PluginError, match="registered in this process") as caught:
        LAYOUTS.find(NAME)
    assert "force=True" in caught.value.do
    LAYOUTS.register_module(name=NAME, module=Mine, force=True)
    assert LAYOUTS.find(NAME) is Mine


def test_a_grower_that_no_config_names_is_compts_own(install, toy):
    source = "from compt.growers.scratch import Scratch\nclass Lossless(Scratch): pass"
    install("alpha", {"lossless": "alpha_m:Lossless"}, {"alpha_m": source})
    del toy["grower"]
    assert compt.plan(toy).stages[1].grower == "lossless"
    source, target = ToyNet(8, 1), ToyNet(16, 2)
    assert compt.grow(source, target).function_preserving
    toy["grower"] = dict(type="lossless")
    assert "declared by 2 packages" in faults(toy)[0]
    toy["grower"] = dict(type="compt:lossless")
    assert compt.plan(toy).stages[1].grower == "lossless"


def test_the_key_is_checked(toy):
    toy["layouts"] = "alpha"
    assert faults(toy) == ["layouts: 'alpha' is not a dict."]
    with pytest.raises(ConfigError):
        load_config(toy)
