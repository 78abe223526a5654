"""Registries: what a plug-in class has to be, building from configs, and no import by a config."""

from __future__ import annotations

import subprocess
import sys

import pytest
from mmengine import Config

from compt.errors import ConfigError, GrowthError, PluginError
from compt.interfaces import Grower
from compt.registry import GROWERS, LAYOUTS, REGISTRIES
from tests.packages import GROWER


def test_built_ins_are_found():
    for registry in REGISTRIES:
        assert registry.names(), f"{registry.group} has no entry points: is compt installed?"
    assert issubclass(GROWERS.get("lossless"), Grower)
    assert GROWERS.get("compt:lossless") is GROWERS.get("lossless")


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (
            "from compt.interfaces import Grower\nclass Fake(Grower): pass",
            "lacks the methods check, grow.",
        ),
        (
            "from compt.interfaces import Grower\nclass Fake(Grower):\n    def check(self): pass",
            "lacks the method grow.",
        ),
        (
            "class Fake:\n    def check(self, source, target): pass",
            "is not a subclass of compt.Grower and lacks grow.",
        ),
        (
            "def Fake(): pass",
            "is a function, not a subclass of compt.Grower and lacks check, grow.",
        ),
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

    with pytest.raises(
        PluginError, match=r"'Half' \(tests\.registry\.test_registry:.*Half\) lacks the method grow"
    ):
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
        built = GROWERS.build(
            Config({"type": "args", "num_heads": 2}), default_args={"size": 4, "num_heads": 9}
        )
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
        assert GROWERS.signature_faults({"type": "arg"})[0].startswith(
            "No grower named 'arg'. Did you mean 'args'?"
        )
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
            ConfigError,
            match=rf"'args' cannot be made from its arguments: {kind.__name__}: too big",
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


def test_an_argument_by_its_old_name_works_and_warns(install):
    @GROWERS.register_module(name="args")
    class Args(GROWERS.get("lossless")):
        renamed = {"size": "width"}

        def __init__(self, *, width=1):
            self.width = width

    with pytest.warns(FutureWarning, match="'args': the argument 'size' is called 'width' now"):
        assert GROWERS.build({"type": "args", "size": 3}).width == 3
    assert GROWERS.build({"type": "args", "width": 4}).width == 4
    with pytest.raises(ConfigError, match="takes no argument 'siz'"):
        GROWERS.build({"type": "args", "siz": 3})
