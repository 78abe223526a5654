"""Parts of mmengine's: bad ones are found before anything is trained, good ones are used."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from mmengine.registry import DATASETS, METRICS
from torch.utils.data import TensorDataset

from compt.files import read_json
from tests.cli.conftest import refused
from tests.conftest import config_file

OPTIMIZER = dict(type="AdamW", lr=1e-3)


BAD_PARTS = {
    "optimizer argument": (dict(optim_wrapper=dict(optimizer=dict(type="AdamW", lrr=1.0))), "lrr"),
    "optimizer": (dict(optim_wrapper=dict(optimizer=dict(type="AdamWW", lr=1.0))), "'AdamWW'"),
    "optimizer wrapper": (
        dict(optim_wrapper=dict(type="OptimWraper", optimizer=OPTIMIZER)),
        "'OptimWraper'",
    ),
    "wrapper argument": (
        dict(optim_wrapper=dict(optimizer=OPTIMIZER, clip_gradd=dict(max_norm=1))),
        "clip_gradd",
    ),
    "no wrapper": (dict(optim_wrapper=5), "optim_wrapper"),
    "scheduler": (dict(param_scheduler=[dict(type="CosineAnealingLR")]), "'CosineAnealingLR'"),
    "scheduler argument": (
        dict(param_scheduler=[dict(type="CosineAnnealingLR", eta_mn=0.0)]),
        "eta_mn",
    ),
    "scheduler without type": (dict(param_scheduler=[dict(eta_min=0.0)]), "param_scheduler"),
    "no scheduler": (dict(param_scheduler=5), "param_scheduler"),
    "loader option": (dict(train_dataloader=dict(batch_size=32, num_wokers=1)), "num_wokers"),
    "loader value": (dict(train_dataloader=dict(batch_size=32, num_workers=-1)), "num_workers"),
    "data set": (
        dict(train_dataloader=dict(batch_size=32, dataset=dict(type="NoSuchData"))),
        "'NoSuchData'",
    ),
    "held-out loader option": (dict(val_dataloader=dict(batchsize=3)), "batchsize"),
    "no held-out loader": (dict(val_dataloader=5), "val_dataloader"),
    "hook": (dict(custom_hooks=[dict(type="EMAHok")]), "'EMAHok'"),
    "hook argument": (dict(custom_hooks=[dict(type="IterTimerHook", intervall=3)]), "intervall"),
    "no hook": (dict(custom_hooks=5), "custom_hooks"),
    "default hook": (dict(default_hooks=dict(logger=dict(type="LoggerHok"))), "'LoggerHok'"),
    "no default hooks": (dict(default_hooks=5), "default_hooks"),
    "evaluator": (dict(val_evaluator=dict(type="Acuracy")), "'Acuracy'"),
    "second evaluator": (
        dict(val_evaluator=[dict(type="DumpResults", out_file_path="a.pkl"), dict(type="X")]),
        "'X'",
    ),
    "visualizer": (dict(visualizer=dict(type="Visualiser")), "'Visualiser'"),
    "log back end": (
        dict(visualizer=dict(type="Visualizer", vis_backends=[dict(type="WandbBackend")])),
        "WandbBackend",
    ),
    "log processor": (dict(log_processor=dict(by_epoch=False, windw_size=3)), "windw_size"),
    "optimizer of a stage": (
        dict(chain={1: dict(optim_wrapper=dict(optimizer=dict(type="Adm", lr=1.0)))}),
        "'Adm'",
    ),
    "schedule of a stage": (
        dict(chain={1: dict(param_scheduler=[dict(type="ConstLR")])}),
        "'ConstLR'",
    ),
    "loader of a stage": (dict(chain={1: dict(train_dataloader=dict(shuffel=True))}), "shuffel"),
}


@pytest.mark.parametrize("part", BAD_PARTS)
def test_bad_parts_are_found_before_training(run, short, tmp_path, part):
    changes, word = copy.deepcopy(BAD_PARTS[part])
    for index, stage in changes.pop("chain", {}).items():
        short["chain"][index] |= stage
    folder = tmp_path / "run"
    result = run("train", config_file(tmp_path, {**short, **changes}), "--work-dir", folder)
    refused(result, word)
    assert not list(folder.rglob("manifest.json"))
    assert not (folder / "01_a").exists()


def test_all_bad_parts_are_found_at_once(run, short, tmp_path):
    short |= dict(custom_hooks=[dict(type="EMAHok")], val_evaluator=dict(type="Acuracy"))
    short["chain"][1]["optim_wrapper"] = dict(optimizer=dict(lrr=1.0))
    file = config_file(tmp_path, short)
    refused(run("train", file, "--work-dir", tmp_path / "run"), "'EMAHok'", "'Acuracy'", "lrr")


@METRICS.register_module(name="CountedLogits")
class CountedLogits:
    prefix = None

    def __init__(self) -> None:
        self.seen = 0

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.seen += sum(len(sample["logits"]) for sample in data_samples)

    def evaluate(self, size: int) -> dict[str, float]:
        seen, self.seen = self.seen, 0
        return {"counted": seen, "size": size}


def test_good_parts_pass_and_are_used(run, short, tmp_path):
    short |= dict(
        optim_wrapper=dict(
            type="OptimWrapper",
            optimizer=dict(type="SGD", lr=0.1, momentum=0.9),
            clip_grad=dict(max_norm=1.0),
            paramwise_cfg=dict(bias_lr_mult=2.0),
        ),
        param_scheduler=[
            dict(type="MultiStepLR", milestones=[1, 2]),
            dict(type="PolyLR", eta_min=1e-4, power=0.9),
        ],
        train_dataloader=dict(batch_size=32, pin_memory=False, timeout=0),
        val_dataloader=dict(batch_size=16),
        custom_hooks=[dict(type="EmptyCacheHook", after_iter=True)],
        default_hooks=dict(timer=dict(type="IterTimerHook")),
        val_evaluator=[dict(type="CountedLogits")],
        log_processor=dict(by_epoch=False, window_size=1),
    )
    folder = tmp_path / "run"
    result = run("train", config_file(tmp_path, short), "--work-dir", folder)
    assert result.code == 0, result.err
    metrics = read_json(folder / "02_b" / "manifest.json")["metrics"]
    assert metrics["val/counted"]["value"] == metrics["val/size"]["value"] == 64
    log = (folder / "02_b").rglob("*.log")
    assert "SGD" in next(log).read_text()


@DATASETS.register_module(name="ShellPoints")
class ShellPoints(TensorDataset):
    def __init__(self, count: int) -> None:
        super().__init__(
            torch.randn(count, 8, generator=torch.Generator().manual_seed(0)),
            torch.arange(count) % 10,
        )


def test_a_data_set_of_mmengines_takes_the_place_of_the_paradigms(run, short, tmp_path):
    short |= dict(
        train_dataloader=dict(batch_size=32, dataset=dict(type="ShellPoints", count=64)),
        val_dataloader=dict(dataset=dict(type="ShellPoints", count=10)),
        val_evaluator=dict(type="CountedLogits"),
    )
    folder = tmp_path / "run"
    result = run("train", config_file(tmp_path, short), "--work-dir", folder)
    assert result.code == 0, result.err
    metrics = read_json(folder / "02_b" / "manifest.json")["metrics"]
    assert metrics["val/counted"]["value"] == metrics["val/size"]["value"] == 10
