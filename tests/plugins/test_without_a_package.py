"""Plug-ins without a package, in a module that the config imports and in a notebook."""

from __future__ import annotations

from pathlib import Path

import pytest

from compt.scaffold import TEMPLATES
from tests.processes import this_python

CODE = """
import compt
import torch
from compt.testing.toy import Toy, ToyLayout, ToyNet


class Net(ToyNet):
    pass


class Grower(compt.AxisGrower):
    def expand(self, source, target, pair):
        target[pair.corner] = source
        return target


class Transfer(compt.Transferer):
    needs = frozenset({"logits"})

    def forward(self, student, teacher, *, progress):
        return {"logits": (student["logits"] - teacher["logits"]).square().mean()}


class Paradigm(Toy):
    def build_model(self, member):
        return Net(**member.model)


compt.GROWERS.register_module(name="my_grower", module=Grower)
compt.TRANSFERERS.register_module(name="my_transfer", module=Transfer)
compt.PARADIGMS.register_module(name="my_paradigm", module=Paradigm)


@compt.LAYOUTS.register_module(name=f"{__name__}.Net")
class Layout(ToyLayout):
    pass
"""
CONFIG = """
paradigm = dict(type="my_paradigm", samples=128)
grower = dict(type="my_grower")
transfer = dict(type="my_transfer", weight=0.5)
chain = [
    dict(name="a", model=dict(width=8, depth=1), iters=3),
    dict(name="b", model=dict(width=16, depth=2), iters=3),
    dict(name="c", model=dict(width=24, depth=3), iters=3),
]
train_dataloader = dict(batch_size=32)
"""
DONE = ["01_a", "02_b", "03_c"]


def finished(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("*/manifest.json"))


def python(*arguments: str, cwd: Path) -> str:
    done = this_python().run(*arguments, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_in_a_module_that_the_config_imports(tmp_path, monkeypatch):
    (tmp_path / "my_module.py").write_text(CODE)
    (tmp_path / "chain.py").write_text(f"custom_imports = dict(imports=['my_module'])\n{CONFIG}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    said = python("-m", "compt", "train", "chain.py", "--work-dir", "work", cwd=tmp_path)
    assert "grower=my_grower transfer=my_transfer" in said
    assert finished(tmp_path / "work") == DONE


def test_in_a_notebook(tmp_path):
    """A cell that is run twice replaces what it registered, and a chain trains with it."""
    config = f"config = dict()\nexec('''{CONFIG}''', config)\ndel config['__builtins__']"
    train = "compt.train(config, work_dir='work')"
    cells = "\n".join(
        [CODE, CODE, config, train, "print(compt.GROWERS.get('my_grower') is Grower)"]
    )
    (tmp_path / "cells.py").write_text(cells)
    assert python("cells.py", cwd=tmp_path).endswith("True\n")
    assert finished(tmp_path / "work") == DONE


def test_a_module_that_is_missing_is_named(tmp_path):
    (tmp_path / "chain.py").write_text(f"custom_imports = dict(imports=['my_module'])\n{CONFIG}")
    done = this_python().run("-m", "compt", "train", "chain.py", cwd=tmp_path)
    assert done.returncode == 2
    assert "my_module" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["grower", "transfer"])
def test_what_new_plugin_writes_registers_without_its_package(kind, tmp_path):
    """The class as it is generated, in one file, with one line that registers it."""
    code = (TEMPLATES / kind / "module" / "__init__.py.txt").read_text()
    registry = {"grower": "GROWERS", "transfer": "TRANSFERERS"}[kind]
    code = code.replace("$camel", "Mine").replace("$plugin", "mine").replace("$api", "1.0")
    code = code.replace("class Mine", f"@compt.{registry}.register_module(name='mine')\nclass Mine")
    (tmp_path / "mine.py").write_text(f"{code}\nprint(compt.{registry}.build(dict(type='mine')))")
    assert "Mine" in python("mine.py", cwd=tmp_path)
