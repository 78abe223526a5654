"""Entries of mmengine's dicts that compt does itself: fine where they say the same, else faults."""

from __future__ import annotations

import pytest

import compt
from compt.config import load_config
from compt.errors import ConfigError
from compt.training.stage_config import stage_config
from compt.training.trial import check_optimizer
from tests.config.conftest import faults

BEST = dict(type="CheckpointHook", interval=5, by_epoch=False, save_best="val/loss", rule="less")


def loader(**options):
    return dict(train_dataloader=dict(batch_size=8, **options))


def hooks(**options):
    return dict(default_hooks=options)


FAULTS = [
    (loader(batch_sampler=dict(type="X")), "train_dataloader.batch_sampler: compt makes batches"),
    (loader(num_batch_per_epoch=3), "train_dataloader.num_batch_per_epoch: give the stage"),
    (loader(worker_init_fn=dict(type="x")), "train_dataloader.worker_init_fn: "),
    (loader(collate_fn=dict(type="pseudo_collate")), "train_dataloader.collate_fn: the paradigm"),
    (loader(in_order=False), "train_dataloader.in_order: batches out of order"),
    (loader(drop_last=False), "train_dataloader.drop_last: every batch is full"),
    (loader(sampler=5), "train_dataloader.sampler: 5 is not a dict"),
    (loader(sampler=dict(type="DefaultSampler"), shuffle=True), "train_dataloader.shuffle: the"),
    (loader(shuffle=3), "train_dataloader.shuffle: 3 is not True or False"),
    (dict(val_dataloader=dict(shuffle=True)), "val_dataloader.shuffle: every validation split"),
    (dict(val_dataloader=dict(drop_last=True)), "val_dataloader.drop_last: every validation"),
    (dict(val_dataloader=dict(sampler=dict(type="DefaultSampler"))), "val_dataloader.sampler: "),
    (hooks(checkpoint=BEST), "default_hooks.checkpoint.save_best: a stage delivers its last"),
    (
        hooks(checkpoint=dict(type="CheckpointHook", out_dir="x")),
        "default_hooks.checkpoint.out_dir",
    ),
    (hooks(checkpoint=dict(type="MyHook")), "default_hooks.checkpoint: compt saves"),
    (hooks(sampler_seed=dict(type="MyHook")), "default_hooks.sampler_seed: batches follow"),
    (hooks(logger=dict(type="LoggerHook", log_metric_by_epoch=True)), "default_hooks.logger.log"),
    (hooks(param_scheduler=None), "default_hooks.param_scheduler: for a constant"),
    (hooks(mine=None), "default_hooks.mine: there is no default hook"),
    (hooks(timer=5), "default_hooks.timer: 5 is neither None nor"),
    (hooks(mine=dict(interval=5)), "default_hooks.mine: {'interval': 5} is not a dict(type="),
    (dict(log_processor=dict(by_epoch=True)), "log_processor.by_epoch: a stage counts"),
    (dict(val_evaluator=dict(type="X", higher_is_better="yes")), "val_evaluator: higher_is_better"),
    (dict(env_cfg=dict(dist_cfg=dict(backend="gloo"))), "env_cfg.dist_cfg: compt starts"),
    (dict(activation_checkpointing=["x"]), "activation_checkpointing is not a key of compt"),
    (dict(param_scheduler=dict(type="A", convert_to_iter_based=True)), "param_scheduler: A counts"),
    (dict(param_scheduler=dict(type="A", end=5.0)), "param_scheduler.end: 5.0 is no fraction"),
    (
        dict(param_scheduler=dict(type="A", milestones=[0.5, 1.5])),
        "param_scheduler.milestones: 1.5",
    ),
    (dict(param_scheduler=dict(type="A", start_factor=0.0)), "param_scheduler.start_factor: 0.0"),
]


@pytest.mark.parametrize(("change", "start"), FAULTS)
def test_what_a_stage_has_no_place_for_is_a_fault(toy, change, start):
    (fault,) = faults({**toy, **change})
    assert fault.startswith(start)


SAME = [
    loader(sampler=dict(type="DefaultSampler", shuffle=True), persistent_workers=False),
    loader(collate_fn=dict(type="default_collate"), drop_last=True, batch_sampler=None),
    loader(shuffle=False),
    dict(val_dataloader=dict(sampler=dict(type="DefaultSampler", shuffle=False), drop_last=False)),
    hooks(checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=3)),
    hooks(checkpoint=dict(type="CheckpointHook", _scope_="mmpretrain")),
    loader(collate_fn=dict(type="default_collate", _scope_="mmpretrain")),
    hooks(sampler_seed=dict(type="DistSamplerSeedHook", _scope_="mmpretrain")),
    hooks(checkpoint=None, sampler_seed=dict(type="DistSamplerSeedHook"), timer=None),
    hooks(logger=dict(interval=5), ema=dict(type="EMAHook")),
    dict(env_cfg=dict(dist_cfg=dict(backend="nccl"))),
    dict(log_processor=dict(window_size=3)),
]


@pytest.mark.parametrize("change", SAME)
def test_what_says_the_same_is_taken(toy, change):
    """As bases of mmpretrain say it."""
    assert load_config({**toy, **change})


def test_when_to_save_is_left_out_with_a_word(toy):
    toy["default_hooks"] = dict(checkpoint=dict(type="CheckpointHook", interval=1))
    (note,) = [note for note in compt.plan(toy).warnings if "default_hooks" in note]
    assert note.startswith("default_hooks.checkpoint (interval=1) is left out")


@pytest.fixture
def runner(toy, tmp_path):
    """Return the Runner config of the first stage with some keys."""

    def build(**keys):
        config = load_config({**toy, **keys})
        plan = compt.plan({**toy, **keys}).stages[0]
        return stage_config(
            config, config.stages[0], plan, tmp_path / "01_a", init=None, teacher=None
        )

    return build


def test_a_logger_keeps_what_it_does_not_name(runner):
    """By epoch, mmengine's default, every evaluation of a stage would be logged at step 0."""
    logger = runner(default_hooks=dict(logger=dict(type="LoggerHook", interval=7))).default_hooks
    assert logger["logger"] == dict(type="LoggerHook", interval=7, log_metric_by_epoch=False)
    own = runner(default_hooks=dict(logger=dict(type="MyLogger"))).default_hooks["logger"]
    assert own == dict(type="MyLogger")
    assert runner(default_hooks=dict(logger=None)).default_hooks["logger"] is None


def test_a_log_processor_keeps_what_it_does_not_name(runner):
    processor = runner(log_processor=dict(window_size=7)).log_processor
    assert (processor["by_epoch"], processor["window_size"]) == (False, 7)
    assert processor["mean_pattern"] == runner().log_processor["mean_pattern"]


def test_a_named_visualizer_is_one_for_each_stage(runner):
    """mmengine has one instance of a name: a second stage would log into the first one's folder."""
    visualizer = dict(type="Visualizer", name="vis")
    assert runner(visualizer=visualizer).visualizer["name"].startswith("vis_")
    assert "name" not in runner(visualizer=dict(type="Visualizer")).visualizer


def test_find_unused_parameters_is_kept_beside_the_wrapper_of_a_cpu(toy, tmp_path):
    config = load_config({**toy, "find_unused_parameters": True})
    stage, plan = config.stages[0], compt.plan(toy).stages[0]
    written = stage_config(
        config, stage, plan, tmp_path / "01_a", init=None, teacher=None, launcher="pytorch"
    )
    wrapper = written.get("model_wrapper_cfg") or written
    assert wrapper["find_unused_parameters"] is True


def test_what_lies_behind_the_end_of_a_stage_is_said(toy):
    late = [dict(type="LinearLR", begin=0, end=9), dict(type="MultiStepLR", milestones=[0.5, 20])]
    toy["chain"] = toy["chain"][:2]
    toy["chain"][0] |= dict(param_scheduler=late)
    notes = [note for note in compt.plan(toy).warnings if "the stage ends at" in note]
    assert notes == [
        "'a': LinearLR has end 9, and the stage ends at 8.",
        "'a': MultiStepLR has milestones 20, and the stage ends at 8.",
    ]


def test_a_rate_for_no_parameter_is_said(toy):
    keys = {"head": dict(lr_mult=0.1), "heed": dict(lr_mult=0.1), "transfer": dict(lr_mult=2.0)}
    optimizer = dict(type="AdamW", lr=1e-3)
    toy["optim_wrapper"] = dict(optimizer=optimizer, paramwise_cfg=dict(custom_keys=keys))
    notes = [note for note in compt.plan(toy).warnings if "custom_keys" in note]
    assert notes[0] == "'a': paramwise_cfg.custom_keys: 'heed' is in no parameter's name."
    assert len(notes) == 3


@pytest.mark.parametrize(
    ("paramwise", "fault"),
    [
        (
            dict(bias_lr_mlt=2.0),
            r"no entry 'bias_lr_mlt' to mmengine\. Did you mean 'bias_lr_mult'",
        ),
        (dict(custom_keys={"head": dict(lr_mlt=2.0)}), "'head'.* has no entry 'lr_mlt'"),
    ],
)
def test_what_mmengines_constructor_passes_over_is_refused(paramwise, fault):
    optimizer = dict(type="AdamW", lr=1e-3)
    with pytest.raises(ConfigError, match=fault):
        check_optimizer(dict(type="OptimWrapper", optimizer=optimizer, paramwise_cfg=paramwise))
