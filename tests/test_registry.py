"""Registries: names in this process and in fake installed packages, and what is said when one is wrong."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from mmengine import Config

from compt.errors import ConfigError, GrowthError, PluginError
from compt.interfaces import Grower, Layout
from compt.registry import GROWERS, LAYOUTS, REGISTRIES, PluginRegistry

GROWER = """
from compt.interfaces import Grower

class Fake(Grower):
    def check(self, source, target): pass
    def grow(self, source, target, **others): pass
"""
Install = Callable[..., None]


def write_package(
    folder: Path,
    name: str,
    entries: Mapping[str, str],
    modules: Mapping[str, str],
    *,
    version="1.2",
    metadata="",
    group="compt.growers",
    stem="",
) -> None:
    """Write a distribution as pip would leave it: dist-info and modules."""
    info = folder / f"{stem or name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{textwrap.dedent(metadata)}"
    )
    (info / "entry_points.txt").write_text(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()))
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(textwrap.dedent(source))


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install fake packages for one test; registries and sys.modules are as before afterwards."""
    before = [dict(registry.module_dict) for registry in REGISTRIES]
    modules, site = set(sys.modules), tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def add(
        name: str, entries: Mapping[str, str], modules: Mapping[str, str], *, folder: str = "site", **options
    ) -> None:
        write_package(tmp_path / folder, name, entries, modules, **options)
        if folder != "site":
            monkeypatch.syspath_prepend(str(tmp_path / folder))
        for registry in REGISTRIES:
            registry.refresh()

    yield add
    for registry, names in zip(REGISTRIES, before, strict=True):
        registry.module_dict.clear()
        registry.module_dict.update(names)
        registry.refresh()
    for module in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[module], "__file__", "")):
            del sys.modules[module]


def test_unknown_name(install):
    names = ("clone", "leading_block", "lossless", "scratch", "stack")
    install("demo", dict.fromkeys(names, "demo_growers:Fake"), {"demo_growers": GROWER}, group="demo.growers")
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


def test_built_ins_are_found():
    for registry in REGISTRIES:
        assert registry.names(), f"{registry.group} has no entry points: is compt installed?"
    assert issubclass(GROWERS.get("lossless"), Grower)
    assert GROWERS.get("compt:lossless") is GROWERS.get("lossless")


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
            "The grower 'same' is declared by 2 packages: alpha 1.2 (alpha_m:Fake) and Beta_Pack 3.0 (beta_m:Fake)."
        )
        assert "'alpha:same' or 'beta-pack:same'" in caught.value.do
    assert "beta_m" not in sys.modules
    assert GROWERS.get("alpha:same").__module__ == "alpha_m"
    assert GROWERS.get("beta_pack:same") is GROWERS.get("Beta.Pack:same")
    assert GROWERS.get("beta-pack:same").__module__ == "beta_m"
    assert {"alpha:same", "beta-pack:same", "own"} <= set(GROWERS.names())
    assert "same" not in GROWERS.names()


@pytest.mark.parametrize(("stale", "stem"), [("alpha-pack", ""), ("Alpha_Pack", ""), ("Alpha_Pack", "Alpha-Pack")])
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
        PluginError, match=r"'one' is registered in this process \(.*Mine\), and declared by alpha 1.2"
    ) as caught:
        GROWERS.get("one")
    assert "'alpha:one'" in caught.value.do
    assert "alpha_m" not in sys.modules
    assert GROWERS.get("alpha:one").__name__ == "Fake"


def test_registering_the_entry_points_own_class_is_no_clash(install):
    source = GROWER + "\nimport compt\ncompt.GROWERS.register_module(name='one', module=Fake)\n"
    install("alpha", {"one": "alpha_m:Fake"}, {"alpha_m": source})
    assert GROWERS.get("one") is GROWERS.get("one") is GROWERS.get("alpha:one") is GROWERS.module_dict["one"]
    assert GROWERS.names().count("one") == 1


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("from compt.interfaces import Grower\nclass Fake(Grower): pass", "lacks the methods check, grow."),
        (
            "from compt.interfaces import Grower\nclass Fake(Grower):\n    def check(self): pass",
            "lacks the method grow.",
        ),
        (
            "class Fake:\n    def check(self, source, target): pass",
            "is not a subclass of compt.Grower and lacks grow.",
        ),
        ("def Fake(): pass", "is a function, not a subclass of compt.Grower and lacks check, grow."),
    ],
)
def test_contract(install, source, what):
    install("alpha", {"bad": "alpha_m:Fake"}, {"alpha_m": source})
    with pytest.raises(PluginError) as caught:
        GROWERS.get("bad")
    assert caught.value.what == f"The grower 'bad' of alpha 1.2 (alpha_m:Fake) {what}"


def test_contract_in_process(install):
    @GROWERS.register_module()
    class Half(Grower):
        def check(self, source, target):
            pass

    with pytest.raises(PluginError, match=r"'Half' \(tests\.test_registry:.*Half\) lacks the method grow"):
        GROWERS.get("Half")


def test_prints_on_import_go_to_stderr(install, capsys):
    install("alpha", {"loud": "alpha_m:Fake"}, {"alpha_m": f"print('hello')\n{GROWER}"})
    GROWERS.get("loud")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "hello\n"


@pytest.mark.parametrize(
    "kind",
    [
        "json",
        "this",
        "os.path",
        "antigravity",
        "mmengine.X",
        "antigravity.X",
        "a:antigravity",
        "compt.lossless",
        ":",
        ":lossless",
        "",
    ],
)
def test_a_type_never_imports(kind):
    before = set(sys.modules)
    for ask in (GROWERS.get, lambda name: GROWERS.build({"type": name, "_scope_": "antigravity"})):
        with pytest.raises(PluginError, match="No grower named"):
            ask(kind)
    assert GROWERS.find(kind) is None
    assert kind not in GROWERS
    assert not {"antigravity", "this"} & (set(sys.modules) - before)


def test_a_scope_never_imports():
    with pytest.raises(ConfigError, match="takes no argument '_scope_'"):
        GROWERS.build({"type": "lossless", "_scope_": "antigravity"})
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("kind", [3, None, ["lossless"], {}])
def test_a_type_that_is_no_name(kind):
    with pytest.raises(PluginError, match="is not the name of a grower"):
        GROWERS.build({"type": kind})
    assert len(GROWERS.signature_faults({"type": kind})) == 1


def test_register_module(install):
    base = GROWERS.get("lossless")

    @GROWERS.register_module()
    class First(base):
        pass

    @GROWERS.register_module(name=["second", "third"])
    class Second(base):
        pass

    GROWERS.register_module(module=base, name="fourth")
    assert [GROWERS.get(n) for n in ("First", "second", "third", "fourth")] == [First, Second, Second, base]
    assert {"First", "second", "third", "fourth"} <= set(GROWERS.names())
    assert isinstance(GROWERS.build({"type": "First"}), First)
    with pytest.raises(PluginError, match=r"'First' is already registered in this process: .*First"):
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
    install("alpha", {"mypkg.inner.Net": "alpha_m:Fake"}, {"alpha_m": source}, group="compt.layouts")

    @LAYOUTS.register_module(name="mypkg.Net")
    class NetLayout(Layout):
        pass

    assert LAYOUTS.get("mypkg.Net") is LAYOUTS.find("mypkg.Net") is NetLayout
    assert LAYOUTS.find("mypkg.inner.Net").__module__ == "alpha_m"
    assert LAYOUTS.get("alpha:mypkg.inner.Net").__module__ == "alpha_m"
    assert LAYOUTS.find("Net") is LAYOUTS.find("mypkg") is LAYOUTS.find("compt.mypkg.Net") is None


def test_find_raises_on_broken(install):
    install("alpha", {"mypkg.Net": "alpha_m:Fake"}, {"alpha_m": "1 / 0"}, group="compt.layouts")
    with pytest.raises(PluginError, match="ZeroDivisionError"):
        LAYOUTS.find("mypkg.Net")


@pytest.fixture
def arguments(install):
    """A grower 'args' with arguments, registered in this process."""

    @GROWERS.register_module(name="args")
    class Args(GROWERS.get("lossless")):
        def __init__(self, size, *, num_heads=1, fail=None):
            self.size, self.num_heads = size, num_heads
            if fail is not None:
                raise fail


@pytest.mark.usefixtures("arguments")
class TestBuild:
    def test_builds(self):
        assert GROWERS.build({"type": "args", "size": 3}).size == 3
        built = GROWERS.build(Config({"type": "args", "num_heads": 2}), default_args={"size": 4, "num_heads": 9})
        assert (built.size, built.num_heads) == (4, 2)
        cls = GROWERS.get("args")
        assert isinstance(GROWERS.build({"type": cls, "size": 1}), cls)

    def test_config_is_left_alone(self):
        cfg = {"type": "args", "size": 3}
        GROWERS.build(cfg)
        assert cfg == {"type": "args", "size": 3}

    def test_all_faults_at_once(self):
        faults = GROWERS.signature_faults({"type": "args", "numheads": 2, "zzz": 1})
        assert faults == [
            "The grower 'args' takes no argument 'numheads'. Did you mean 'num_heads'? "
            "It takes: size, num_heads, fail.",
            "The grower 'args' takes no argument 'zzz'. It takes: size, num_heads, fail.",
            "The grower 'args' needs the argument 'size'.",
        ]
        with pytest.raises(ConfigError) as caught:
            GROWERS.build({"type": "args", "numheads": 2, "zzz": 1})
        assert caught.value.what == " ".join(faults)

    def test_no_fault(self):
        assert GROWERS.signature_faults({"type": "args", "size": 1, "fail": ValueError()}) == []

    def test_faults_of_the_type(self):
        assert GROWERS.signature_faults({"type": "arg"})[0].startswith("No grower named 'arg'. Did you mean 'args'?")
        assert "is not a dict(type=..., ...)" in GROWERS.signature_faults({"size": 3})[0]
        (fault,) = GROWERS.signature_faults({"type": int})
        assert fault.startswith("The grower 'int' (builtins:int) is not a subclass of compt.Grower")

    @pytest.mark.parametrize("cfg", ["args", None, {}, {"size": 3}, [("type", "args")]])
    def test_not_a_config(self, cfg):
        with pytest.raises(ConfigError, match="names a grower"):
            GROWERS.build(cfg)

    def test_own_errors_pass_through(self):
        error = GrowthError("no")
        with pytest.raises(GrowthError) as caught:
            GROWERS.build({"type": "args", "size": 1, "fail": error})
        assert caught.value is error
        with pytest.raises(ZeroDivisionError):
            GROWERS.build({"type": "args", "size": 1, "fail": ZeroDivisionError()})

    @pytest.mark.parametrize("kind", [ValueError, TypeError])
    def test_refused_values(self, kind):
        with pytest.raises(
            ConfigError, match=rf"'args' cannot be made from its arguments: {kind.__name__}: too big"
        ) as caught:
            GROWERS.build({"type": "args", "size": 1, "fail": kind("too big")})
        assert "test_registry.py:" in caught.value.where
        assert isinstance(caught.value.__cause__, kind)

    def test_open_ended_arguments(self):
        @GROWERS.register_module(name="open")
        class Open(GROWERS.get("args")):
            def __init__(self, **others):
                super().__init__(**others)

        assert GROWERS.signature_faults({"type": "open", "size": 1}) == []
        with pytest.raises(ConfigError, match="unexpected keyword argument 'numheads'"):
            GROWERS.build({"type": "open", "size": 1, "numheads": 2})


def test_importing_the_registry_is_light():
    heavy = {"torch", "open_clip", "timm", "compt.interfaces"}
    code = f"import sys, compt.registry; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
