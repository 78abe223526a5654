"""Registries: names in this process and in fake installed packages."""

from __future__ import annotations

import sys

import pytest

from compt.errors import PluginError
from compt.interfaces import Layout
from compt.registry import GROWERS, LAYOUTS, PluginRegistry
from tests.packages import GROWER


def test_unknown_name(install):
    names = ("clone", "leading_block", "lossless", "scratch", "stack")
    install(
        "demo",
        dict.fromkeys(names, "demo_growers:Fake"),
        {"demo_growers": GROWER},
        group="demo.growers",
    )
    registry = PluginRegistry("grower", group="demo.growers", base="Grower")
    with pytest.raises(PluginError) as caught:
        registry.get("lossles")
    assert str(caught.value) == (
        "No grower named 'lossles'. Did you mean 'lossless'? "
        "Available: clone, leading_block, lossless, scratch, stack. "
        "Others install by pip: a package that declares the entry-point group 'demo.growers'."
    )
    assert registry.names() == list(names)
    assert registry.find("lossles") is None
    assert "demo_growers" not in sys.modules
    with pytest.raises(PluginError, match=r"named 'xyz'\. Available"):
        registry.get("xyz")
    with pytest.raises(PluginError, match=r"Did you mean 'demo:stack'"):
        registry.get("demo:stak")


def test_case_is_suggested(install):
    with pytest.raises(PluginError, match="Did you mean 'lossless'"):
        GROWERS.get("LOSSLESS")
    GROWERS.register_module(name="CAMEL", module=GROWERS.get("lossless"))
    with pytest.raises(PluginError, match="Did you mean 'CAMEL'"):
        GROWERS.get("camel")


def test_only_the_one_asked_for_is_imported(install):
    install(
        "alpha",
        {"near": "alpha_near:Fake", "far": "alpha_far:Fake"},
        {"alpha_near": GROWER, "alpha_far": GROWER},
    )
    assert "near" in GROWERS
    assert "alpha_near" not in sys.modules
    found = GROWERS.get("near")
    assert found.__module__ == "alpha_near"
    assert "alpha_far" not in sys.modules
    assert GROWERS.get("near") is found


def test_two_packages_with_one_name(install):
    install("alpha", {"same": "alpha_m:Fake", "own": "alpha_m:Fake"}, {"alpha_m": GROWER})
    install("Beta_Pack", {"same": "beta_m:Fake"}, {"beta_m": GROWER}, version="3.0")
    assert GROWERS.get("own").__module__ == "alpha_m"
    assert GROWERS.get("lossless").__name__ == "Lossless"
    for ask in (GROWERS.get, GROWERS.find):
        with pytest.raises(PluginError) as caught:
            ask("same")
        assert caught.value.what == (
            "The grower 'same' is declared by 2 packages: alpha 1.2 (alpha_m:Fake) and "
            "Beta_Pack 3.0 (beta_m:Fake)."
        )
        assert "'alpha:same' or 'beta-pack:same'" in caught.value.do
    assert "beta_m" not in sys.modules
    assert GROWERS.get("alpha:same").__module__ == "alpha_m"
    assert GROWERS.get("beta_pack:same") is GROWERS.get("Beta.Pack:same")
    assert GROWERS.get("beta-pack:same").__module__ == "beta_m"
    assert {"alpha:same", "beta-pack:same", "own"} <= set(GROWERS.names())
    assert "same" not in GROWERS.names()


@pytest.mark.parametrize(
    ("stale", "stem"), [("alpha-pack", ""), ("Alpha_Pack", ""), ("Alpha_Pack", "Alpha-Pack")]
)
def test_a_stale_copy_of_one_package_is_no_clash(install, stale, stem):
    install(stale, {"one": "old_m:Fake"}, {}, folder="old", version="0.9", stem=stem)
    install("alpha-pack", {"one": "alpha_m:Fake"}, {"alpha_m": GROWER}, folder="new")
    assert GROWERS.get("one").__module__ == "alpha_m"


def test_registered_in_process_against_installed(install):
    install("alpha", {"one": "alpha_m:Fake"}, {"alpha_m": GROWER})

    @GROWERS.register_module(name="one")
    class Mine(GROWERS.get("lossless")):
        pass

    with pytest.raises(
        PluginError,
        match=r"'one' is registered in this process \(.*Mine\), and declared by alpha 1.2",
    ) as caught:
        GROWERS.get("one")
    assert "'alpha:one'" in caught.value.do
    assert "alpha_m" not in sys.modules
    assert GROWERS.get("alpha:one").__name__ == "Fake"


def test_registering_the_entry_points_own_class_is_no_clash(install):
    source = GROWER + "\nimport compt\ncompt.GROWERS.register_module(name='one', module=Fake)\n"
    install("alpha", {"one": "alpha_m:Fake"}, {"alpha_m": source})
    assert (
        GROWERS.get("one")
        is GROWERS.get("one")
        is GROWERS.get("alpha:one")
        is GROWERS.module_dict["one"]
    )
    assert GROWERS.names().count("one") == 1


def test_register_module(install):
    base = GROWERS.get("lossless")

    @GROWERS.register_module()
    class First(base):
        pass

    @GROWERS.register_module(name=["second", "third"])
    class Second(base):
        pass

    GROWERS.register_module(module=base, name="fourth")
    assert [GROWERS.get(n) for n in ("First", "second", "third", "fourth")] == [
        First,
        Second,
        Second,
        base,
    ]
    assert {"First", "second", "third", "fourth"} <= set(GROWERS.names())
    assert isinstance(GROWERS.build({"type": "First"}), First)
    with pytest.raises(
        PluginError, match=r"'First' is already registered in this process: .*First"
    ):
        GROWERS.register_module(name="First", module=Second)
    assert GROWERS.get("First") is First
    GROWERS.register_module(name="First", module=Second, force=True)
    assert GROWERS.get("First") is Second


def test_a_cell_run_twice_replaces(install):
    made = []
    for _ in range(2):

        @GROWERS.register_module()
        class Cell(GROWERS.get("lossless")):
            pass

        made.append(Cell)
    assert GROWERS.get("Cell") is made[1] is not made[0]


def test_names_with_dots(install):
    source = "from compt.interfaces import Layout\nclass Fake(Layout): pass"
    install(
        "alpha", {"mypkg.inner.Net": "alpha_m:Fake"}, {"alpha_m": source}, group="compt.layouts"
    )

    @LAYOUTS.register_module(name="mypkg.Net")
    class NetLayout(Layout):
        pass

    assert LAYOUTS.get("mypkg.Net") is LAYOUTS.find("mypkg.Net") is NetLayout
    assert LAYOUTS.find("mypkg.inner.Net").__module__ == "alpha_m"
    assert LAYOUTS.get("alpha:mypkg.inner.Net").__module__ == "alpha_m"
    assert LAYOUTS.find("Net") is LAYOUTS.find("mypkg") is LAYOUTS.find("compt.mypkg.Net") is None
