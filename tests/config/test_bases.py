"""Configs that build on those of mmengine's libraries: what those say for a Runner, and what is the
file's own.
"""

from __future__ import annotations

import inspect
import re

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

import compt
from compt.config import load_config
from compt.config.mmengine_keys import REFUSED, RunnerKeys
from tests.config.conftest import TEXT, faults, write

RUNNERS = """
model = dict(type='mmpretrain.MAE')
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300)
val_cfg = dict()
test_cfg = dict()
test_dataloader = dict(batch_size=8)
test_evaluator = dict(type='Accuracy')
randomness = dict(seed=7)
resume = True
load_from = 'somewhere.pth'
log_level = 'INFO'
auto_scale_lr = dict(base_batch_size=4096)
data_preprocessor = dict(type='SelfSupDataPreprocessor')
vis_backends = [dict(type='LocalVisBackend')]
"""
NAMES = [line.partition(" ")[0] for line in RUNNERS.strip().splitlines()]
USED = """
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05), clip_grad=dict(max_norm=5.0))
train_dataloader = dict(batch_size=16, num_workers=1)
default_hooks = dict(timer=dict(type='IterTimerHook'))
"""


@pytest.fixture
def child(tmp_path):
    """Write a config on a base that says what mmengine's libraries say, by way of a base of its
    own.
    """
    write(tmp_path / "runtime.py", RUNNERS)
    write(tmp_path / "base.py", "_base_ = ['runtime.py']\n" + USED)

    def make(text: str = "", name: str = "child.py"):
        return write(tmp_path / name, f"_base_ = ['base.py']\n{text}\n{TEXT}")

    return make


def test_what_a_base_says_for_a_runner_is_left_out(child):
    config = load_config(child())
    assert not set(NAMES) & set(config.raw)
    assert set(config.raw) == {
        "paradigm",
        "chain",
        "optim_wrapper",
        "train_dataloader",
        "default_hooks",
    }
    assert compt.plan(str(child())).stages[0].iters == 4


def test_what_a_base_says_and_a_chain_knows_is_inherited(child):
    config = load_config(child("optim_wrapper = dict(optimizer=dict(lr=2e-3))"))
    stage = config.stages[0]
    assert stage.optim_wrapper == dict(
        optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.05), clip_grad=dict(max_norm=5.0)
    )
    assert stage.train_dataloader == dict(batch_size=16, num_workers=1)
    assert config.default_hooks == dict(timer=dict(type="IterTimerHook"))


@pytest.mark.parametrize("key", NAMES)
def test_the_same_key_in_the_file_itself_is_a_fault(child, key):
    """Whoever writes it there means it."""
    (line,) = (line for line in RUNNERS.splitlines() if line.startswith(f"{key} ="))
    (fault,) = faults(child(line))
    assert fault.startswith(f"{key} is not a key")


@pytest.mark.parametrize(
    "line",
    [
        "train_cfg = dict(max_epochs=9)",
        "train_cfg=dict(max_epochs=9)",
        "train_cfg = val_cfg2 = dict(max_epochs=9)",
        "_other, train_cfg = 1, dict(max_epochs=9)",
        "if True:\n    train_cfg = dict(max_epochs=9)",
    ],
)
def test_a_file_sets_a_key_however_it_writes_it(child, line):
    found = faults(child(line))
    assert any(fault.startswith("train_cfg is not a key") for fault in found)


@pytest.mark.parametrize(
    "line",
    [
        "seed = {{_base_.randomness.seed}}",
        "work_dir = 'train_cfg = 5'",
        "# train_cfg = 5",
        "optim_wrapper = dict(\n    clip_grad=dict(\nmax_norm = 1.0))",
        "def size(model):\n    train_cfg = model\n    return train_cfg",
        "seed = max(model for model in range(3))",
        "seed = {{$COMPT_NO_SUCH:3}}",
    ],
)
def test_a_name_that_a_file_only_mentions_is_not_set_by_it(child, line):
    config = load_config(child(line))
    assert not set(NAMES) & set(config.raw)


def test_a_base_value_may_be_read(child):
    assert load_config(child("seed = {{_base_.randomness.seed}}")).seed == 7


def test_a_key_that_no_runner_has_is_a_fault_in_a_base_too(child, tmp_path):
    write(tmp_path / "runtime.py", RUNNERS + "evaluation = dict(interval=1)\n")
    (fault,) = faults(child())
    assert re.match(r"evaluation is not a key.*'evaluations'", fault)


def test_schedules_of_a_base_that_count_epochs_are_refused(child, tmp_path):
    write(
        tmp_path / "runtime.py",
        RUNNERS + "param_scheduler = [dict(type='LinearLR', by_epoch=True, end=40)]\n",
    )
    (fault,) = faults(child())
    assert re.match(r"param_scheduler: LinearLR counts epochs", fault)
    assert load_config(child("param_scheduler = [dict(type='LinearLR', end=0.1)]"))


def test_options_change_what_is_inherited(child):
    config = load_config(
        child(), {"optim_wrapper.optimizer.lr": 0.5, "train_dataloader.batch_size": 4}
    )
    stage = config.stages[0]
    assert stage.optim_wrapper["optimizer"] == dict(type="AdamW", lr=0.5, weight_decay=0.05)
    assert stage.train_dataloader == dict(batch_size=4, num_workers=1)


@pytest.mark.parametrize(
    ("key", "value"),
    [("train_cfg.max_epochs", 5), ("randomness.seed", 5), ("load_from", "x"), ("model.type", "x")],
)
def test_an_option_for_an_inherited_key_that_is_left_out_is_a_fault(child, key, value):
    """It would have no effect."""
    (fault,) = faults(child(), {key: value})
    assert fault.startswith(f"{key.partition('.')[0]} is not a key")


def test_a_dict_or_config_has_no_base(toy, child):
    (fault,) = faults({**toy, "train_cfg": dict(max_epochs=3)})
    assert fault.startswith("train_cfg is not a key")
    assert load_config(Config.fromfile(str(child()))).stages[0].train_dataloader["batch_size"] == 16


def test_every_argument_of_a_runner_is_a_key_or_refused_with_a_reason():
    """So that no key of mmengine's is ignored without a word, and no base is refused for one."""
    arguments = {*inspect.signature(Runner.__init__).parameters} - {"self"}
    taken = {*RunnerKeys.all_keys(), "work_dir"}
    assert taken - arguments <= {"find_unused_parameters", "model_wrapper_cfg"}
    assert not taken & REFUSED.keys()
    assert arguments <= taken | REFUSED.keys()


def test_what_is_left_out_is_said(child):
    """With its number, in the plan that every run begins with."""
    (warning,) = (w for w in compt.plan(str(child())).warnings if "left out" in w)
    assert warning.startswith(f"{len(NAMES)} keys of base files are left out")
    assert all(name in warning for name in NAMES)


def test_helper_variables_of_a_packages_base_are_left_out(tmp_path):
    """mmpretrain's configs name their pipelines, and nobody can rename those."""
    pytest.importorskip("mmpretrain")
    base = "mmpretrain::_base_/datasets/imagenet_bs64.py"
    config = load_config(write(tmp_path / "child.py", f"_base_ = ['{base}']\n" + TEXT))
    assert {"dataset_type", "train_pipeline", "test_dataloader"} <= set(config.file.left_out)
    assert config.stages[0].batch_size == 64
