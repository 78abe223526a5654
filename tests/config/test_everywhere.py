"""What holds of every value of a config, and of entries of mmengine's dicts."""

from __future__ import annotations

import math

import pytest
import torch

from compt.config import load_config
from compt.errors import ComptError
from compt.planning.planner import plan
from compt.registry import PARADIGMS
from compt.training.preflight import preflight
from tests.config.conftest import faults


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (dict(custom_hooks=[dict(type="X", a=math.nan)]), "custom_hooks.0.a: nan is not a finite"),
        (dict(custom_hooks=[dict(type="X", a=[math.inf])]), "custom_hooks.0.a.0: inf is not a"),
        (dict(custom_hooks=[dict(type="X", a=2**63)]), "custom_hooks.0.a: 9223372036854775808 doe"),
        (dict(custom_hooks=[dict(type="X\0")]), "custom_hooks.0.type: 'X\\x00' holds a NUL"),
        (dict(published=dict(source="\ud800")), "published.source: '\\ud800' is no Unicode text"),
        (dict(custom_hooks=[dict(type="X", a={1: 2, "b": 3})]), "custom_hooks.0.a.b: 'b' is a key"),
    ],
)
def test_what_no_part_is_ready_for_is_refused_wherever_it_stands(toy, change, fault):
    (noted,) = faults({**toy, **change})
    assert noted.startswith(fault)


def test_a_config_that_holds_itself(toy):
    inner: list = []
    for _ in range(120):
        inner = [inner]
    (noted,) = faults({**toy, "custom_hooks": [dict(type="X", inner=inner)]})
    assert "lies more than 100 dicts and lists deep" in noted


def test_sizes_of_a_model_are_bounded_and_other_numbers_are_not(toy):
    toy["chain"][0]["model"] = dict(width=10**12, depth=1)
    (noted,) = faults(toy)
    assert noted.startswith("chain.0.model.width: 1000000000000 is no size of a model")
    toy["chain"][0]["model"] = dict(width=8, depth=1, theta=1e12, limit=math.inf)
    assert load_config(toy)


def test_a_value_with_a_fault_of_its_own_has_one(toy):
    assert len(faults({**toy, "seed": math.nan, "evaluations": 10**30})) == 2


def entry_fault(toy, change):
    (noted,) = faults({**toy, **change})
    return noted


@pytest.mark.parametrize(
    "change",
    [
        dict(train_dataloader=dict(num_workers=-1)),
        dict(train_dataloader=dict(num_workers=10**6)),
        dict(train_dataloader=dict(batch_size=10**9)),
        dict(train_dataloader=dict(pin_memory="x")),
        dict(val_dataloader=dict(batch_size=0)),
        dict(optim_wrapper=dict(clip_grad=dict(max_norm=-1))),
        dict(optim_wrapper=dict(clip_grad=dict(max_norm="x"))),
        dict(optim_wrapper=dict(clip_grad=dict(type="value", clip_value=-1))),
        dict(optim_wrapper=dict(optimizer=dict(type="AdamW", lr=-1))),
        dict(optim_wrapper=dict(optimizer=dict(type="AdamW", lr="x"))),
        dict(optim_wrapper=dict(optimizer=dict(type="AdamW", betas=(2, 3)))),
        dict(optim_wrapper=dict(optimizer=dict(type="AdamW", amsgrad="x"))),
        dict(optim_wrapper=dict(optimizer="AdamW")),
        dict(optim_wrapper=dict(optimizer=dict(lr=1.0))),
        dict(param_scheduler=[dict(type="ExponentialLR", gamma=-1)]),
        dict(param_scheduler=[dict(type="CosineAnnealingLR", eta_min=-1)]),
        dict(param_scheduler=[dict(type="LinearLR", begin=0.5, end=0.2)]),
        dict(param_scheduler=[dict(type="LinearLR", begin="x")]),
        dict(param_scheduler="LinearLR"),
        dict(env_cfg=dict(cudnn_benchmark="x")),
        dict(env_cfg=dict(cudnn=True)),
        dict(env_cfg=dict(mp_cfg=dict(mp_start_method="nope"))),
        dict(log_processor=dict(window_size="x")),
        dict(log_processor=dict(window_size=0)),
        dict(visualizer=dict(type="Visualizer", vis_backends="x")),
        dict(default_scope=3),
    ],
)
def test_entries_that_mmengine_would_take_or_fail_over_later(toy, change):
    noted = entry_fault(toy, change)
    assert noted.startswith(next(iter(change)))


@pytest.mark.parametrize(
    "change",
    [
        dict(default_scope="nope"),
        dict(model_wrapper_cfg=dict(type="Nope")),
        dict(custom_hooks=[dict(type="EMAHook", priority="NOPE")]),
        dict(custom_hooks=[dict(type="EMAHook", begin_iter="x")]),
        dict(default_hooks=dict(logger=dict(type="LoggerHook", interval="x"))),
        dict(visualizer=dict(type="Visualizer", nope=1)),
        dict(visualizer=dict(type="Visualizer", vis_backends=[dict(type="Nope")])),
        dict(optim_wrapper=dict(optimizer=dict(type="SGD", lr=1.0, momentum="x"))),
        dict(optim_wrapper=dict(optimizer=dict(type="SGD", lr=1e38, weight_decay=1e38))),
    ],
)
def test_parts_that_are_tried_before_training(toy, change):
    config = load_config({**toy, **change})
    with pytest.raises(ComptError) as caught:
        preflight(config, plan(config))
    assert caught.value.exit_code == 2
    assert f"  - {next(iter(change))}" in str(caught.value)


def test_a_model_that_no_machine_holds_and_one_that_is_never_built(toy, monkeypatch):
    monkeypatch.setattr("compt.training.trial.BYTES_A_WEIGHT", 10**12)
    config = load_config(toy)
    with pytest.raises(ComptError, match=r"chain\.0\.model: its [\d,]+ weights take"):
        preflight(config, plan(config))
    with monkeypatch.context() as patch:
        patch.setattr("compt.planning.measure.MAX_MODULES", 5)
        with pytest.raises(ComptError, match="more than 5 modules"):
            plan(config)
    toy["chain"][0]["model"] = dict(width=0, depth=1)
    with pytest.raises(ComptError, match="has no elements"):
        plan(load_config(toy))


def icons(**changes):
    """A CLIP of one block, and what is changed of its towers."""
    vision = dict(image_size=16, patch_size=8, width=32, layers=1, head_width=16)
    text = dict(context_length=8, width=32, layers=1, heads=2)
    model = dict(embed_dim=8, vision_cfg=vision, text_cfg=text)
    for tower, change in changes.items():
        model[tower] = {**model[tower], **change}
    paradigm = dict(type="clip", data=dict(type="icons", image_size=16))
    return load_config(dict(paradigm=paradigm, chain=[dict(name="a", model=model, iters=2)]))


def test_images_that_no_memory_holds():
    with pytest.raises(ComptError, match="'a' takes images of 100000 x 100000 pixels"):
        plan(icons(vision_cfg=dict(image_size=10**5)))


def test_a_vocabulary_smaller_than_the_tokenizers():
    paradigm = PARADIGMS.build(dict(type="clip", data=dict(type="icons")))
    with torch.device("meta"):
        paradigm.build_model(icons(text_cfg=dict(vocab_size=9)).stages[0].member)
    with pytest.raises(ComptError, match="'a' has 9 tokens, the tokenizer 49408"):
        paradigm.build_dataset("train")


@pytest.mark.parametrize("kind", ["", " ", ".", None, 3])
def test_a_part_without_a_name_is_refused_before_anything_is_looked_up(toy, kind):
    """mmengine imports what it does not know, and an empty name raises from there."""
    toy["param_scheduler"] = [dict(type=kind, begin=0.0, end=1.0)]
    with pytest.raises(ComptError, match="param_scheduler"):
        load_config(toy)
