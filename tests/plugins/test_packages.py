"""The packages of plugins/, installed beside compt's wheel and mixed in one chain."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

import pytest

from compt import api
from tests.code_lines import code_lines
from tests.environments import ROOT, Environment, build_wheel

PACKAGES = ("compt-dino", "compt-ligo", "compt-mixer", "compt-mlm", "compt-siglip")
TESTED_EACH_TIME = ("compt-mlm",)
"""Whose own tests are not slow."""
MOST_LINES = {"compt-mlm": 125, "compt-dino": 168}
"""Neither blank nor docstrings. What a third author would write again belongs into compt."""
CHAIN = '''
"""Three members that use three of the packages, with two built-in parts."""

custom_imports = dict(imports=["compt_mixer.models"])
paradigm = dict(type="siglip", data=dict(type="csv", train="pictures.csv", val="pictures.csv"))


def clip(tower, width):
    return dict(
        embed_dim=16,
        vision_cfg=dict(timm_model_name=tower, timm_pool="", timm_proj="linear", image_size=32),
        text_cfg=dict(context_length=8, vocab_size=49408, width=width, layers=1, heads=width // 16),
    )


chain = [
    dict(name="t", model=clip("mixer_32x2_p8_32", 32), iters=2),
    dict(name="s", model=clip("mixer_64x4_p8_32", 64), iters=2),
    dict(name="b", model=clip("mixer_128x6_p8_32", 96), iters=2, grower=dict(type="lossless")),
]
grower = dict(type="ligo", steps=3)
transfer = dict(type="feature_mse")
train_dataloader = dict(batch_size=8)
evaluations = 1
'''


@pytest.fixture(scope="module")
def mixed(tree, wheel, tmp_path_factory) -> Environment:
    """Install compt and the packages from their wheels, and write a chain and its data."""
    pytest.importorskip("open_clip")
    from PIL import Image

    environment = Environment(
        tmp_path_factory.mktemp("mixed"), "open_clip", "mmpretrain.models", "transformers"
    )
    wheels = [
        build_wheel(tree / "plugins" / name, tmp_path_factory.mktemp(name)) for name in PACKAGES
    ]
    environment.install("--force-reinstall", wheel, *wheels)
    here = environment.elsewhere
    lines = ["filepath,caption"]
    for i in range(16):
        Image.new("RGB", (32, 32), (16 * i, 255 - 16 * i, 90)).save(here / f"{i}.png")
        lines.append(f"{i}.png,shade number {i}")
    (here / "pictures.csv").write_text("\n".join(lines) + "\n")
    (here / "chain.py").write_text(CHAIN)
    return environment


def manifest(work: Path, stage: str) -> dict:
    return json.loads((work / stage / "manifest.json").read_text())


def test_they_are_listed_and_load(mixed):
    checked = json.loads(mixed.fork(mixed.compt, "check", "--json").stdout)
    rows = {
        (row["package"], row["name"]): row["error"] for row in checked if row["package"] in PACKAGES
    }
    assert set(rows.values()) == {""}
    assert {package for package, _ in rows} == set(PACKAGES)
    assert {("compt-ligo", "ligo"), ("compt-siglip", "siglip")} <= set(rows)


def test_mim_trains_a_chain_of_all_of_them(mixed):
    work = mixed.elsewhere / "work"
    mixed.run(mixed.python, "-m", "mim", "train", "compt", "chain.py", "--work-dir", work)
    first, second, third = (manifest(work, stage) for stage in ("01_t", "02_s", "03_b"))
    assert {stage["paradigm"] for stage in (first, second, third)} == {"siglip"}
    assert (second["grower"], third["grower"]) == ("ligo", "lossless")
    assert second["growth"]["objective"]["calls"] == 3
    assert second["flops"]["growth"] > 0
    fresh = [name for name, status in second["growth"]["params"].items() if status == "initialised"]
    assert fresh == ["attn_mask"], "a constant of the model"
    exported = json.loads((work / "03_b" / "export" / "open_clip_config.json").read_text())[
        "model_cfg"
    ]
    assert exported["init_logit_bias"] == -10
    assert exported["vision_cfg"]["timm_model_name"] == "mixer_128x6_p8_32"


def test_the_mixed_config_that_ships_is_planned(mixed):
    plan = json.loads(mixed.fork(mixed.compt, "plan", "mixed_chain", "--json").stdout)
    assert [stage["grower"] for stage in plan["stages"]] == [None, "ligo", "lossless"]
    assert [stage["growth_iters"] for stage in plan["stages"]] == [0, 50, 0]


@pytest.mark.parametrize(
    "name",
    [
        name if name in TESTED_EACH_TIME else pytest.param(name, marks=pytest.mark.slow)
        for name in PACKAGES
    ],
)
def test_its_own_tests_pass(name, mixed, tree):
    """From its sources, against what is installed."""
    folder = mixed.elsewhere / f"tests_of_{name}"
    shutil.copytree(tree / "plugins" / name / "tests", folder)
    said = mixed.fork(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", folder
    ).stdout
    assert " passed" in said


@pytest.mark.parametrize("name", PACKAGES)
def test_it_imports_the_public_api_alone(name):
    """Every import from compt in the package is one that compt/api.py lists."""
    public = {"compt": {*api.NAMES}, **{module: {*names} for module, names in api.MODULES.items()}}
    used = 0
    for file in (ROOT / "plugins" / name / name.replace("-", "_")).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.ImportFrom)
                and (node.module or "").partition(".")[0] == "compt"
            ):
                used += 1
                assert {alias.name for alias in node.names} <= public.get(node.module, set()), (
                    f"{file}:{node.lineno}"
                )
            elif isinstance(node, ast.Import):
                own = [
                    alias.name for alias in node.names if alias.name.partition(".")[0] == "compt"
                ]
                used += len(own)
                assert set(own) <= {"compt"}, f"{file}:{node.lineno}"
            elif (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "compt"
            ):
                assert node.attr in public["compt"], f"{file}:{node.lineno}"
    assert used


@pytest.mark.parametrize("name", MOST_LINES)
def test_it_takes_few_lines(name):
    files = (ROOT / "plugins" / name / name.replace("-", "_")).rglob("*.py")
    assert sum(map(code_lines, files)) <= MOST_LINES[name]


def test_without_one_of_them_the_others_work_and_the_error_is_clear(mixed):
    """This is the last test of the file, as it takes a package away."""
    mixed.uninstall("compt-ligo")
    work = mixed.elsewhere / "without"
    result = mixed.run(
        mixed.python, "-m", "mim", "train", "compt", "chain.py", "--work-dir", work, code=None
    )
    said = " ".join((result.stdout + result.stderr).split())
    assert "No grower named 'ligo'" in said
    assert "Others install by pip" in said
    assert not work.exists(), "nothing was begun"
    other = mixed.elsewhere / "other"
    options = ("--cfg-options", "grower.type=clone", "grower._delete_=True")
    mixed.fork(mixed.compt, "train", "chain.py", "--work-dir", other, *options)
    assert manifest(other, "02_s")["grower"] == "clone"
