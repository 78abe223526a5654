"""What is installed: the wheel's files, mim and the commands in a fresh environment, imports."""

from __future__ import annotations

import configparser
import copy
import email
import json
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

import compt
from tests.conftest import TOY
from tests.environments import ROOT, Environment, call

PLUGINS = ("growers", "transfers", "paradigms", "layouts", "data", "trackers")
LIBRARIES = ("open_clip", "timm", "mmpretrain", "transformers")
WITHOUT_EXTRAS = """
import importlib.machinery, importlib.metadata, sys
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

required, waiting = set(), [("compt", ())]
while waiting:
    name, extras = waiting.pop()
    required.add(canonicalize_name(name))
    for line in importlib.metadata.requires(name) or ():
        needed = Requirement(line)
        wanted = not needed.marker or any(
            needed.marker.evaluate({"extra": extra}) for extra in ("", *extras)
        )
        if wanted and canonicalize_name(needed.name) not in required:
            waiting.append((needed.name, tuple(needed.extras)))
absent = {
    module
    for module, packages in importlib.metadata.packages_distributions().items()
    if not {canonicalize_name(package) for package in packages} & required
}


class Base(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] not in absent:
            return super().find_spec(name, path, target)


sys.meta_path = [Base if f is importlib.machinery.PathFinder else f for f in sys.meta_path]
assert {"mim", "tensorboard", "torchvision", "open_clip", "transformers"} <= absent
from compt.cli import main

commands = [["list"], ["plan", sys.argv[1]], ["train", sys.argv[1], "--work-dir", sys.argv[2]]]
sys.exit(max(main(command) for command in commands))
"""


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("installed"))
    environment.install("--force-reinstall", wheel)
    return environment


@pytest.fixture(scope="module")
def editable(tree, tmp_path_factory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("editable"))
    environment.install("--no-build-isolation", "--editable", tree)
    return environment


def toy_config(folder: Path) -> Path:
    """A toy chain of two members, two iterations each."""
    toy = copy.deepcopy(TOY)
    toy["chain"] = [{**member, "iters": 2} for member in toy["chain"][:2]]
    toy["evaluations"] = 1
    path = folder / "toy_chain.py"
    path.write_text("\n".join(f"{key} = {value!r}" for key, value in toy.items()) + "\n")
    return path


def trained(folder: Path) -> list[str]:
    """The stages of a work folder that are done."""
    return sorted(path.parent.name for path in folder.glob("*/manifest.json"))


def sources(tree: Path, folder: str) -> set[Path]:
    """The files of a folder, without what Python compiled since, as it is imported from there."""
    return {
        path.relative_to(tree)
        for path in (tree / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def test_the_wheel_holds_the_package_the_configs_and_nothing_else(tree, wheel):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {path.as_posix() for path in sources(tree, "compt")}
    for folder in ("tools", "configs"):
        expected |= {f"compt/.mim/{path.as_posix()}" for path in sources(tree, folder)}
    assert packed == expected
    assert {
        "compt/.mim/tools/train.py",
        "compt/.mim/configs/clip_chain.py",
        "compt/testing/contracts.py",
        "compt/py.typed",
    } <= packed
    assert not [name for name in packed if name.startswith(("tests/", "benchmarks/"))]


def test_the_wheel_declares_the_command_and_the_plug_ins(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/entry_points.txt"))
        text = archive.read(name).decode()
        packed = set(archive.namelist())
    declared = configparser.ConfigParser(delimiters="=")
    declared.optionxform = str  # type: ignore[assignment, method-assign]
    declared.read_string(text)
    groups = {f"compt.{kind}" for kind in (*PLUGINS, "suites")}
    assert set(declared.sections()) == {"console_scripts", *groups}
    assert declared["console_scripts"]["compt"] == "compt.__main__:main"
    for group in groups:
        assert declared[group], group
        for target in declared[group].values():
            module = target.partition(":")[0].replace(".", "/")
            assert {f"{module}.py", f"{module}/__init__.py"} & packed, target


def test_the_wheel_says_what_it_is(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
        (licence,) = (n for n in archive.namelist() if n.endswith("/licenses/LICENSE"))
        assert b"Apache License" in archive.read(licence)
    assert metadata["Version"] == compt.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Typing :: Typed" in metadata.get_all("Classifier")
    urls = [line.partition(", ")[2] for line in metadata.get_all("Project-URL")]
    places = ("https://github.com/compt-project/compt", "https://compt-project.github.io/compt/")
    assert all(url.startswith(places) for url in urls)


def test_version_and_citation_and_changelog_agree():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"\n## [{compt.__version__}]" in changelog
    assert f"\nversion: {compt.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_configs_have_names_of_their_own(tree):
    names = [path.name for path in (tree / "configs").rglob("*.py")]
    assert len(names) == len(set(names)), "mim finds a config by its name alone"


def check_mim_train(environment: Environment) -> None:
    config = toy_config(environment.elsewhere)
    work = environment.elsewhere / "by_mim"
    environment.run(
        environment.python, "-m", "mim", "train", "compt", config.name, "--work-dir", work
    )
    assert trained(work) == ["01_a", "02_b"]


def check_mim_finds_configs(environment: Environment) -> None:
    """By name, from a folder that has none; a budget that cannot be ends it before anything is
    trained.
    """
    mim = (environment.python, "-m", "mim", "train", "compt", "clip_chain.py")
    work = environment.elsewhere / "never"
    result = environment.run(
        *mim, "--work-dir", work, "--cfg-options", "chain.1.epochs=-9", code=None
    )
    said = result.stdout + result.stderr
    assert "chain.1.epochs: -9 is not a positive number" in " ".join(said.split()), said
    assert str(Path(".mim", "configs", "clip_chain.py")) in said
    assert not work.exists()


def check_compt_train(environment: Environment) -> None:
    work = environment.elsewhere / "by_compt"
    environment.run(
        environment.compt, "train", toy_config(environment.elsewhere), "--work-dir", work
    )
    assert trained(work) == ["01_a", "02_b"]


def check_lists(environment: Environment) -> None:
    """All built-in plug-ins are there, whether the script is called or the package."""
    listed = environment.run(environment.compt, "list", "--json").stdout
    assert environment.run(environment.python, "-m", "compt", "list", "--json").stdout == listed
    json.loads(listed)
    for name in (
        "leading_block",
        "lossless",
        "scratch",
        "feature_mse",
        "clip",
        "open_clip.model.CLIP",
    ):
        assert f'"{name}"' in listed, listed


def test_the_wheel_is_what_its_environment_imports(installed):
    assert installed.origin().is_relative_to(installed.root)


def test_mim_trains_a_chain_from_the_wheel(installed):
    check_mim_train(installed)


def test_mim_finds_a_config_of_the_wheel_by_name(installed):
    check_mim_finds_configs(installed)


def test_compt_lists_from_the_wheel(installed):
    check_lists(installed)


@pytest.mark.slow
def test_compt_trains_a_chain_from_the_wheel(installed):
    check_compt_train(installed)


def test_an_editable_install_is_the_checkout(editable, tree):
    assert editable.origin() == tree / "compt"


def test_mim_finds_a_config_of_an_editable_install_by_name(editable):
    check_mim_finds_configs(editable)


@pytest.mark.slow
@pytest.mark.parametrize("check", [check_mim_train, check_compt_train, check_lists])
def test_an_editable_install_works_as_the_wheel_does(editable, check):
    check(editable)


def test_without_extras_compt_lists_plans_and_trains(installed):
    """With what the wheel requires, and nothing else that this environment has."""
    config, work = toy_config(installed.elsewhere), installed.elsewhere / "without_extras"
    printed = installed.run(installed.python, "-c", WITHOUT_EXTRAS, config, work).stdout
    assert "feature_mse" in printed
    assert trained(work) == ["01_a", "02_b"]
    assert list(work.glob("*.png")), "matplotlib comes with mmengine"


def lint_imports(folder: Path, code: int | None = 0) -> str:
    pytest.importorskip("importlinter")
    command = Path(sys.executable).with_name("lint-imports")
    return call(command, "--no-cache", cwd=folder, code=code).stdout


def test_the_import_contract_is_kept():
    lint_imports(ROOT)


def test_the_import_contract_sees_what_breaks_it(tree, tmp_path):
    shutil.copytree(tree / "compt", tmp_path / "compt")
    shutil.copy(tree / "pyproject.toml", tmp_path)
    forbidden = {
        "files.py": "compt.config",
        "cli/grow.py": "compt.growers",
        "chain.py": "timm",
        "growers/clone.py": "open_clip",
        "data/__init__.py": "compt.workdir",
        "without_a_layer.py": "torch",
    }
    for file, module in forbidden.items():
        with (tmp_path / "compt" / file).open("a") as code:
            code.write(f"\nimport {module}\n")
    printed = lint_imports(tmp_path, code=None)
    for importer, module in (
        ("compt.files", "compt.config"),
        ("compt.cli", "compt.growers"),
        ("compt.chain", "timm"),
        ("compt.growers", "open_clip"),
        ("compt.data", "compt.workdir"),
    ):
        assert f"{importer} is not allowed to import {module}:" in printed
    assert "without_a_layer" in printed


def test_the_core_imports_no_plug_in_and_no_paradigm_library():
    script = f"""
import importlib, sys
for library in {LIBRARIES}:
    sys.modules[library] = None  # importing it raises; mmengine goes on without transformers
for name in ("compt", "compt.chain", "compt.planning.planner", "compt.report.build", "compt.cli"):
    importlib.import_module(name)
    print(name, *sorted(set(sys.modules) & set(sys.argv[1:])))
"""
    plugins = [f"compt.{kind}" for kind in (*PLUGINS, "evaluation")]
    lines = call(sys.executable, "-c", script, *plugins, cwd=ROOT).stdout.splitlines()
    assert lines == [
        "compt",
        "compt.chain",
        "compt.planning.planner",
        "compt.report.build",
        "compt.cli",
    ]


def test_the_readme_and_ci_run_the_same_tests():
    readme, fenced = [], False
    for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced and "pytest" in line:
            readme.append(line.strip())
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    ci = [line.strip() for line in script if "pytest" in line and not line.lstrip().startswith("#")]
    assert readme, "no test command in a code block of the README"
    assert "python -m pytest" in readme[0]
    assert ci == readme[:1]
