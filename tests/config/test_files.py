"""Config files: what one may hold, what it imports, and the shipped ones."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import compt
from compt.config import load_config
from compt.errors import ConfigError
from tests.config.conftest import TEXT, faults, write

CONFIGS = Path(__file__).parents[2] / "configs"


def test_helpers_of_a_config_file_are_not_keys(tmp_path):
    write(
        tmp_path / "base.py",
        """
        _width = 8
        _count = 256
        paradigm = dict(type='toy', samples=512)
        chain = [dict(name='only', model=dict(width=_width), iters=8)]
        optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.1))
        """,
    )
    config = load_config(
        write(
            tmp_path / "child.py",
            """
            import math
            from math import pi

            _base_ = 'base.py'
            paradigm = dict(samples={{_base_._count}})
            _widths = [{{_base_._width}}, 2 * 8, int(pi) * 8]
            _names = 'abc'
            _prefix = 'vit'


            def member(w):
                return dict(width=w, depth=1)


            chain = [
                dict(name=f'{_prefix}-{n}', model=member(w), iters=2 + i)
                for i, (n, w) in enumerate(zip(_names, _widths))
            ]
            optim_wrapper = dict(optimizer=dict(lr=math.sqrt(4)))
            """,
        )
    )
    assert [(s.member.name, s.member.model["width"], s.amount[1]) for s in config.stages] == [
        ("vit-a", 8, 2),
        ("vit-b", 16, 3),
        ("vit-c", 24, 4),
    ]
    assert config.paradigm == dict(type="toy", samples=256)
    assert config.stages[0].optim_wrapper["optimizer"] == dict(
        type="AdamW", lr=2.0, weight_decay=0.1
    )
    assert set(config.raw) == {"paradigm", "chain", "optim_wrapper"}
    assert (config.name, config.folder) == ("child", Path("work_dirs/child"))


@pytest.mark.parametrize(
    "text",
    [
        "transfr = dict(type='none')",
        "transfr = dict(type='none')  # transfr: what is learned from the teacher",
        '"""Here transfr is off."""\ntransfr = dict(type="none")',
    ],
)
def test_a_misspelt_key_of_a_file_is_a_fault(tmp_path, text):
    file = tmp_path / "c.py"
    file.write_text(text + TEXT)
    (fault,) = faults(file)
    assert re.match(r"transfr is not a key.*'transfer'", fault)


def test_a_stage_key_at_the_top_is_a_fault(tmp_path):
    # 'iters' stands in the chain too, but not as a variable: nothing reads the one at the top.
    (fault,) = faults(write(tmp_path / "c.py", "iters = 400" + TEXT))
    assert fault.startswith("iters is not a key")


def test_a_misspelt_key_of_a_base_is_a_fault(tmp_path):
    write(tmp_path / "base.py", "evaluation = 3" + TEXT)
    (fault,) = faults(write(tmp_path / "c.py", "_base_ = 'base.py'\nseed = 1\n"))
    assert re.match(r"evaluation is not a key.*'evaluations'", fault)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no config file '.*nothing\.py'"):
        load_config(tmp_path / "nothing.py")


def test_a_missing_base_is_named(tmp_path):
    file = write(tmp_path / "c.py", "_base_ = 'gone.py'" + TEXT)
    with pytest.raises(ConfigError, match=r"gone\.py"):
        load_config(file)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.py", b"chain = ["),
        ("c.py", b"chain = 1 / 0"),
        ("c.py", b"\xff\xfe\x00"),
        ("c.py", b"filename = 'x'"),
        ("c.py", b"from .other import *"),
        ("c.json", b"{"),
        ("c.txt", b"to whom it may concern"),
    ],
)
def test_what_is_no_config_is_said_to_be_none(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"cannot be read(.*\n)*.*{re.escape(name)}"):
        load_config(tmp_path / name)


def test_a_json_config_is_a_config_too(tmp_path):
    file = tmp_path / "c.json"
    file.write_text(
        '{"paradigm": {"type": "toy"}, '
        '"chain": [{"name": "a", "model": {"width": 8}, "epochs": 2}]}'
    )
    assert load_config(file).stages[0].amount == ("epochs", 2)
    file.write_text(file.read_text().replace('{"paradigm"', '{"epochs": 2, "paradigm"'))
    assert faults(file)[0].startswith("epochs is not a key")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_every_shipped_config_loads_and_plans(path):
    if path.stem == "mixed_chain" and "ligo" not in compt.GROWERS:
        pytest.skip("its plug-ins are not installed here: tests/plugins does it where they are")
    plan = compt.plan(str(path))
    assert [s.name for s in plan.stages] == [s.member.name for s in load_config(path).stages]
    assert plan.flops > 0


# custom_imports


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module that custom_imports can name."""
    monkeypatch.syspath_prepend(tmp_path)
    known = set(sys.modules)

    def make(name: str, text: str) -> str:
        write(tmp_path / f"{name}.py", text)
        return name

    yield make
    for name in set(sys.modules) - known:
        if name.startswith("compt_test_"):
            del sys.modules[name]


def imports(name: str) -> str:
    return f"custom_imports = dict(imports=['{name}'])" + TEXT


def test_custom_imports_of_a_file_are_imported(tmp_path, module):
    name = module("compt_test_file", "x = 1")
    load_config(write(tmp_path / "c.py", imports(name)))
    assert name in sys.modules


def test_custom_imports_of_a_dict_are_imported(toy, module):
    name = module("compt_test_dict", "x = 1")
    load_config({**toy, "custom_imports": dict(imports=[name])})
    assert name in sys.modules


def test_custom_imports_given_as_an_option_are_imported(toy, module):
    name = module("compt_test_option", "x = 1")
    load_config(toy, {"custom_imports.imports": [name]})
    assert name in sys.modules


def test_custom_imports_that_do_not_exist_are_named(tmp_path):
    file = write(tmp_path / "c.py", imports("compt_no_such_module"))
    with pytest.raises(ConfigError, match=r"custom_imports.*compt_no_such_module"):
        load_config(file)


def test_what_a_custom_import_lacks_is_named(tmp_path, module):
    name = module("compt_test_needy", "import compt_no_such_dependency")
    file = write(tmp_path / "c.py", imports(name))
    with pytest.raises(ConfigError, match="compt_no_such_dependency"):
        load_config(file)


def test_a_custom_import_that_breaks_is_named(tmp_path, module):
    name = module("compt_test_broken", "1 / 0")
    file = write(tmp_path / "c.py", imports(name))
    with pytest.raises(ConfigError, match=r"custom_imports.*ZeroDivisionError"):
        load_config(file)
