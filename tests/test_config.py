"""Configs: every fault at once with the nearest names, budgets, overrides, and what a config file may hold."""

from __future__ import annotations

import math
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

import compt
from compt.config import load_config
from compt.errors import ConfigError

CONFIGS = Path(__file__).parents[1] / "configs"


def faults(config: Any, options: dict[str, Any] | None = None) -> list[str]:
    """The faults that loading reports."""
    with pytest.raises(ConfigError) as caught:
        load_config(config, options)
    assert caught.value.exit_code == 2
    found = re.findall(r"^  - (.*)$", str(caught.value), re.MULTILINE)
    assert f"{len(found)} fault" in str(caught.value)
    return found


def write(path: Path, text: str) -> Path:
    path.write_text(textwrap.dedent(text))
    return path


TEXT = """
paradigm = dict(type='toy')
chain = [dict(name='a', model=dict(width=8), iters=4)]
"""


# What is wrong


def test_every_fault_is_reported_at_once_with_the_nearest_name():
    config = dict(
        paradigm=dict(type="toy", sample=3),
        gower=dict(type="lossless"),
        chain=[
            dict(name="a b", modl=dict(width=8), iters=1),
            dict(name="c", model=dict(width=8), iters=2, epochs=1, grower=dict(type="lossles")),
            dict(name="c", model=dict(width=9), samples=-5, transfer=dict(type="feature_mse", wieght=2)),
        ],
        checkpoint=dict(intervall=5),
        individual=dict(epoch=3),
        seed=-1,
    )
    expected = [
        r"gower is not a key.*'grower'",
        r"chain\.0\.modl is not a key.*'model'",
        r"chain\.0\.name: 'a b'",
        r"chain\.0\.model is missing",
        r"chain\.1 needs exactly one of epochs, iters, samples.*epochs.*iters",
        r"chain\.2\.samples: -5 ",
        r"'c' is used 2 times",
        r"paradigm: .*'sample'.*'samples'",
        r"grower \(chain\.1\): .*'lossles'.*'lossless'",
        r"transfer \(chain\.2\): .*'wieght'.*'weight'",
        r"individual: .*epoch.*3",
        r"checkpoint\.intervall is not a key.*'interval'",
        r"seed: -1 ",
    ]
    found = faults(config)
    for pattern in expected:
        assert sum(bool(re.search(pattern, fault)) for fault in found) == 1, (pattern, found)
    assert len(found) == len(expected)


def test_a_name_that_is_near_nothing_gets_no_suggestion(toy):
    (fault,) = faults({**toy, "zzzz": 1})
    assert "zzzz" in fault
    assert "mean" not in fault


def test_an_unknown_plugin_lists_what_there_is(toy):
    toy["paradigm"] = dict(type="tyo")
    (fault,) = faults(toy)
    assert re.search(r"No paradigm named 'tyo'\. Did you mean 'toy'\?.*clip.*compt\.paradigms", fault)


@pytest.mark.parametrize("key", ["paradigm", "chain"])
def test_paradigm_and_chain_are_needed(toy, key):
    del toy[key]
    assert faults(toy) == [f"{key} is missing."]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(), "none"),
        (dict(epochs=None), "none"),
        (dict(epochs=1, samples=5), r"epochs.*samples"),
        (dict(iters=0), "0 is not a positive"),
        (dict(iters=-1), "-1 is not a positive"),
        (dict(iters=True), "True is not a positive"),
        (dict(iters="8"), "'8' is not a positive"),
        (dict(iters=[8]), r"\[8\] is not a positive"),
        (dict(iters=math.inf), "inf"),
        (dict(epochs=math.nan), "nan"),
        (dict(iters=0.5), r"0\.5"),
    ],
)
def test_a_stage_has_exactly_one_positive_budget(toy, given, message):
    del toy["chain"][1]["iters"]
    toy["chain"][1] |= given
    (fault,) = faults(toy)
    assert re.match(r"chain\.1\b", fault)
    assert re.search(message, fault)


@pytest.mark.parametrize("budget", [("epochs", 0.5), ("iters", 3), ("samples", 1e6)])
def test_budgets_are_kept_as_given(toy, budget):
    del toy["chain"][1]["iters"]
    toy["chain"][1][budget[0]] = budget[1]
    assert load_config(toy).stages[1].budget == budget


def test_only_the_first_member_starts_from_a_checkpoint(toy):
    toy["chain"][1]["init"] = "some/folder"
    (fault,) = faults(toy)
    assert re.match(r"chain\.1\.init: only the first member", fault)


def test_only_a_given_member_may_have_a_budget_of_zero(toy):
    toy["chain"][0] |= dict(init="some/folder", iters=0)
    assert load_config(toy).stages[0].budget == ("iters", 0)
    assert load_config(toy).stages[0].init == "some/folder"
    del toy["chain"][0]["init"]
    assert len(faults(toy)) == 1


@pytest.mark.parametrize("name", ["", "a b", "a/b", "..", ".a", "-a", "a\n", "ü", None])
def test_a_name_that_cannot_be_a_folder_is_refused(toy, name):
    toy["chain"][1]["name"] = name
    (fault,) = faults(toy)
    assert fault.startswith("chain.1.name")


@pytest.mark.parametrize("name", ["b", "ViT-B_16.v2", "7b"])
def test_usual_names_are_accepted(toy, name):
    toy["chain"][1]["name"] = name
    assert load_config(toy).stages[1].member.name == name


@pytest.mark.parametrize("chain", [5, dict(name="a"), [5], ["a"], [[]]])
def test_a_chain_is_a_list_of_dicts(toy, chain):
    toy["chain"] = chain
    (fault,) = faults(toy)
    assert fault.startswith("chain must be a list")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("paradigm", "toy"),
        ("paradigm", dict(samples=8)),
        ("grower", 5),
        ("transfer", dict(weight=1.0)),
        ("seed", 1.5),
        ("evaluations", 0),
        ("evaluations", True),
        ("checkpoint", 5),
        ("checkpoint", dict(interval=0)),
        ("checkpoint", dict(keep="2")),
        ("train_dataloader", 5),
        ("train_dataloader", dict(batch_size=0)),
        ("work_dir", 5),
        ("custom_imports", 5),
    ],
)
def test_a_value_of_the_wrong_kind_is_a_fault(toy, key, value):
    toy[key] = value
    assert any(fault.startswith(key) for fault in faults(toy))


@pytest.mark.parametrize("value", [5, dict(batch_size=0), dict(batch_size=-8), dict(batch_size="32")])
def test_a_stage_loader_is_checked_like_the_chains(toy, value):
    toy["chain"][1]["train_dataloader"] = value
    (fault,) = faults(toy)
    assert "train_dataloader" in fault
    assert "chain.1" in fault


# Overrides of a stage


def test_a_stage_overrides_grower_and_transfer_whole(toy):
    toy["transfer"] = dict(type="feature_mse", weight=0.3, until=0.5)
    toy["chain"][1] |= dict(grower="scratch", transfer=dict(type="feature_mse", weight=2.0))
    toy["chain"][2]["transfer"] = None
    _, b, c = load_config(toy).stages
    assert (b.grower, c.grower) == ({"type": "scratch"}, {"type": "lossless"})
    assert b.transfer == {"type": "feature_mse", "weight": 2.0}  # 'until' is not inherited
    assert c.transfer == {"type": "none"}


def test_growth_and_transfer_are_the_papers_by_default(toy):
    del toy["grower"]
    stage = load_config(toy).stages[1]
    assert (stage.grower, stage.transfer) == ({"type": "leading_block"}, {"type": "feature_mse"})


def test_a_stage_changes_only_the_keys_it_names(toy):
    toy["optim_wrapper"] = dict(
        optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.98)), clip_grad=dict(max_norm=1.0, norm_type=2)
    )
    toy["train_dataloader"] = dict(batch_size=32, num_workers=1)
    toy["chain"][1] |= dict(
        optim_wrapper=dict(optimizer=dict(lr=5e-4), clip_grad=dict(max_norm=3.0)),
        train_dataloader=dict(batch_size=16),
    )
    a, b, c = (stage.runner for stage in load_config(toy).stages)
    assert b["optim_wrapper"] == dict(
        optimizer=dict(type="AdamW", lr=5e-4, betas=(0.9, 0.98)), clip_grad=dict(max_norm=3.0, norm_type=2)
    )
    assert b["train_dataloader"] == dict(batch_size=16, num_workers=1)
    for other in (a, c):
        assert other["optim_wrapper"]["optimizer"]["lr"] == 1e-3
        assert other["optim_wrapper"]["clip_grad"]["max_norm"] == 1.0
        assert other["train_dataloader"] == dict(batch_size=32, num_workers=1)


def test_a_change_of_type_replaces_the_dict(toy):
    toy["optim_wrapper"] = dict(optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.98)), clip_grad=dict(max_norm=1.0))
    toy["chain"][1]["optim_wrapper"] = dict(optimizer=dict(type="SGD", lr=0.1))
    toy["chain"][2]["optim_wrapper"] = dict(optimizer=dict(type="AdamW", lr=0.2))  # the same type: merged
    _, b, c = (stage.runner["optim_wrapper"] for stage in load_config(toy).stages)
    assert b == dict(optimizer=dict(type="SGD", lr=0.1), clip_grad=dict(max_norm=1.0))
    assert c["optimizer"] == dict(type="AdamW", lr=0.2, betas=(0.9, 0.98))


def test_delete_replaces_as_in_mmengine(toy):
    toy["optim_wrapper"] = dict(optimizer=dict(type="AdamW", lr=1e-3), clip_grad=dict(max_norm=1.0))
    toy["chain"][1]["optim_wrapper"] = dict(_delete_=True, optimizer=dict(type="AdamW", lr=0.2))
    assert load_config(toy).stages[1].runner["optim_wrapper"] == dict(optimizer=dict(type="AdamW", lr=0.2))


def test_a_list_of_schedules_is_replaced(toy):
    toy["chain"][1]["param_scheduler"] = [dict(type="ConstantLR", factor=1.0)]
    a, b, _ = (stage.runner["param_scheduler"] for stage in load_config(toy).stages)
    assert [s["type"] for s in a] == ["LinearLR", "CosineAnnealingLR"]
    assert b == [dict(type="ConstantLR", factor=1.0)]


def test_defaults_fill_what_a_dict_leaves_out(toy):
    toy["train_dataloader"] = dict(num_workers=3)
    toy["checkpoint"] = dict(keep=5)
    config = load_config(toy)
    assert config.stages[0].runner["train_dataloader"] == dict(batch_size=128, num_workers=3)
    assert config.checkpoint == dict(interval=500, keep=5)
    assert config.stages[0].runner["optim_wrapper"]["optimizer"]["type"] == "AdamW"


def test_an_optimizer_is_there_even_if_only_clipping_is_configured(toy):
    toy["optim_wrapper"] = dict(clip_grad=dict(max_norm=1.0))
    wrapper = load_config(toy).stages[0].runner["optim_wrapper"]
    assert wrapper["clip_grad"] == dict(max_norm=1.0)
    assert wrapper["optimizer"]["type"] == "AdamW"


# Budgets of members trained alone


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, None),
        (dict(budget="chain"), ("chain", 0)),
        (dict(epochs=2.5), ("epochs", 2.5)),
        (dict(iters=7), ("iters", 7)),
        (dict(samples=640), ("samples", 640)),
    ],
)
def test_the_individual_budget(toy, given, kept):
    assert load_config({**toy, "individual": given}).individual == kept


@pytest.mark.parametrize(
    "given",
    [
        "chain",
        5,
        dict(),
        dict(epoch=3),
        dict(budget="own"),
        dict(budget="chain", epochs=3),
        dict(epochs=1, iters=2),
        dict(iters=0),
        dict(iters=-3),
        dict(iters=True),
    ],
)
def test_other_individual_budgets_are_faults(toy, given):
    (fault,) = faults({**toy, "individual": given})
    assert fault.startswith("individual")


# Config files


def test_helpers_of_a_config_file_are_not_keys(tmp_path):
    write(
        tmp_path / "base.py",
        """
        width = 8
        count = 256
        paradigm = dict(type='toy', samples=512)
        chain = [dict(name='only', model=dict(width=width), iters=8)]
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
            paradigm = dict(samples={{_base_.count}})
            widths = [{{_base_.width}}, 2 * 8, int(pi) * 8]
            names = 'abc'
            prefix = 'vit'


            def member(w):
                return dict(width=w, depth=1)


            chain = [
                dict(name=f'{prefix}-{n}', model=member(w), iters=2 + i)
                for i, (n, w) in enumerate(zip(names, widths))
            ]
            optim_wrapper = dict(optimizer=dict(lr=math.sqrt(4)))
            """,
        )
    )
    assert [(s.member.name, s.member.model["width"], s.budget[1]) for s in config.stages] == [
        ("vit-a", 8, 2),
        ("vit-b", 16, 3),
        ("vit-c", 24, 4),
    ]
    assert config.paradigm == dict(type="toy", samples=256)
    assert config.stages[0].runner["optim_wrapper"]["optimizer"] == dict(type="AdamW", lr=2.0, weight_decay=0.1)
    assert set(config.raw) == {"paradigm", "chain", "optim_wrapper"}
    assert (config.name, config.work_dir) == ("child", Path("work_dirs/child"))


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
    file.write_text('{"paradigm": {"type": "toy"}, "chain": [{"name": "a", "model": {"width": 8}, "epochs": 2}]}')
    assert load_config(file).stages[0].budget == ("epochs", 2)
    file.write_text(file.read_text().replace('{"paradigm"', '{"epochs": 2, "paradigm"'))
    assert faults(file)[0].startswith("epochs is not a key")


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


# --cfg-options


def test_an_option_changes_one_key_of_one_stage(toy):
    config = load_config(toy, {"chain.1.iters": 9, "seed": 3, "paradigm.samples": 64, "grower": "scratch"})
    assert [s.budget for s in config.stages] == [("iters", 8), ("iters", 9), ("iters", 6)]
    assert config.stages[1].member.model == dict(width=16, depth=2)
    assert (config.seed, config.paradigm) == (3, dict(type="toy", samples=64))
    assert config.stages[1].grower == {"type": "scratch"}


def test_an_option_that_gives_a_second_budget_says_so(toy):
    (fault,) = faults(toy, {"chain.1.epochs": 9})
    assert re.search(r"chain\.1 .*epochs.*iters", fault)
    config = load_config(toy, {"chain.1.epochs": 9, "chain.1.iters": None})
    assert config.stages[1].budget == ("epochs", 9)


def test_a_misspelt_option_is_a_fault(toy):
    assert re.match(r"chain\.1\.itres is not a key.*'iters'", faults(toy, {"chain.1.itres": 9})[0])
    assert re.match(r"sed is not a key.*'seed'", faults(toy, {"sed": 9})[0])


@pytest.mark.parametrize(
    "options",
    [
        {"chain.7.iters": 9},
        {"chain.b.iters": 9},
        {"chain.-1.iters": 9},
        {"chain.1": 9},
        {"chain.0.iters.x": 9},
        {"paradigm.type.x": 9},
        {"chain": 9},
        {"": 1},
    ],
)
def test_options_that_do_not_fit_are_refused(toy, options):
    with pytest.raises(ConfigError):
        load_config(toy, options)


def test_an_option_for_a_helper_variable_is_refused(tmp_path):
    # the file has been evaluated by then: the option would have no effect
    file = write(tmp_path / "c.py", "width = 8" + TEXT.replace("width=8", "width=width"))
    assert load_config(file).stages[0].member.model == dict(width=8)
    with pytest.raises(ConfigError, match="width"):
        load_config(file, {"width": 16})


def test_the_callers_config_is_left_alone(toy):
    config = Config(toy)
    before = config.to_dict()
    load_config(config, {"chain.1.iters": 9, "seed": 3})
    assert config.to_dict() == before
    load_config(toy, {"chain.1.iters": 9})
    assert toy["chain"][1]["iters"] == 8


# The configs of this repository


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.py")), ids=lambda path: path.stem)
def test_every_shipped_config_loads_and_plans(path):
    plan = compt.plan(str(path))
    assert [s.name for s in plan.stages] == [s.member.name for s in load_config(path).stages]
    assert plan.flops > 0
