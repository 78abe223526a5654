"""Metrics of mmengine: which side is good, what is left out, and what is tried before training."""

from __future__ import annotations

import json

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

import compt
from compt.errors import ConfigError
from compt.training import evaluators
from compt.training.evaluators import build_evaluator


@METRICS.register_module(name="Wrong")
class Wrong(BaseMetric):
    """Error rate, with what is no number beside it."""

    default_prefix = "m"

    def process(self, data_batch, data_samples):
        (outputs,) = data_samples
        wrong = outputs["logits"].argmax(1) != data_batch["label"]
        self.results += [int(one) for one in wrong]

    def compute_metrics(self, results):
        return {"error": sum(results) / len(results), "num": torch.tensor(len(results))}


@METRICS.register_module(name="Directed")
class Directed(Wrong):
    higher_is_better = False


@METRICS.register_module(name="PerClass")
class PerClass(Wrong):
    def compute_metrics(self, results):
        return {"each": [0.5, 0.25], "all": 0.5}


@METRICS.register_module(name="Demanding")
class Demanding(Wrong):
    """Reads what no batch has, as metrics of other libraries do."""

    def process(self, data_batch, data_samples):
        self.results.append(data_samples[0]["gt_label"])


def batch(num: int = 6):
    logits = torch.eye(3)[torch.arange(num) % 3]
    return {"logits": logits}, {"label": torch.zeros(num, dtype=torch.long)}


def values(config, num: int = 6):
    evaluator = build_evaluator(config)
    outputs, targets = batch(num)
    evaluator.process([outputs], targets)
    return evaluator.evaluate(num)


@pytest.mark.parametrize(
    ("config", "sides"),
    [
        (dict(type="Wrong"), (None, None)),
        (dict(type="Wrong", higher_is_better=False), (False, False)),
        (dict(type="Wrong", higher_is_better=dict(error=False, num=True)), (False, True)),
        (dict(type="Wrong", higher_is_better={"m/error": False}), (False, None)),
        (dict(type="Directed"), (False, False)),
        (dict(type="Directed", higher_is_better=True), (True, True)),
        (dict(type="Evaluator", metrics=[dict(type="Directed")]), (False, False)),
        (dict(metrics=[dict(type="Wrong")], higher_is_better=False), (False, False)),
    ],
)
def test_the_side_is_the_configs_or_the_metrics_or_unknown(config, sides):
    metrics = values(config)
    assert metrics["m/error"].value == pytest.approx(4 / 6)
    assert (metrics["m/error"].higher_is_better, metrics["m/num"].higher_is_better) == sides


def test_what_is_no_number_is_left_out_with_a_word():
    with pytest.warns(UserWarning, match="'m/each' is a list and no number: left out"):
        assert values(dict(type="PerClass")).keys() == {"m/all"}


def test_a_metric_that_cannot_read_the_outputs_says_what_there_is():
    with pytest.raises(ConfigError, match=r"Demanding cannot read .*gt_label(.*\n)*.*logits"):
        values(dict(type="Demanding"))


@pytest.mark.parametrize("num", [6, 7])
def test_several_processes_count_each_sample_once(monkeypatch, num):
    """mmengine puts the processes' results together, one of each in turn."""
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr(evaluators, "get_world_size", lambda: 2)
        monkeypatch.setattr(evaluators, "get_rank", lambda rank=rank: rank)
        evaluator = build_evaluator(dict(type="Wrong"))
        outputs, targets = batch(num)
        evaluator.process([outputs], targets)
        (metric,) = evaluator.evaluator.metrics
        expected = list(metric.results)
        assert evaluators._share(metric, num) == num
        shares.append(list(metric.results))
    assert len(shares[0]) == len(shares[1])
    together = [one for pair in zip(*shares, strict=True) for one in pair]
    assert together[:num] == expected


def chain(toy, **keys):
    stage = dict(name="a", model=dict(width=8, depth=1), iters=4, **keys.pop("stage", {}))
    return {**toy, "chain": [stage], **keys}


UNTIL = dict(type="until", metric="val/m/error", target=0.001)
PLATEAU = dict(type="ReduceOnPlateauLR", monitor="val/accuracy")
EARLY = dict(type="EarlyStoppingHook", monitor="val/accuracy", rule="less")


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        (dict(val_evaluator=dict(type="Wrong"), stage=dict(stopping=UNTIL)), "is not known"),
        (dict(stage=dict(stopping=UNTIL)), "'val/m/error', which is not measured"),
        (dict(val_evaluator=[dict(type="Wrong"), dict(type="Wrong")]), "the name 'm/error'"),
        (dict(val_evaluator=dict(type="Demanding")), "gt_label"),
        (dict(param_scheduler=PLATEAU), "Give it rule='greater'"),
        (dict(param_scheduler=dict(type="ReduceOnPlateauLR")), "monitor='loss' is no metric"),
        (dict(custom_hooks=EARLY), "Give it rule='greater'"),
        (dict(custom_hooks={**EARLY, "monitor": "val/acc"}), "watches 'val/acc', which is not"),
    ],
)
def test_what_watches_a_metric_is_tried_before_training(toy, tmp_path, keys, fault):
    with pytest.raises(ConfigError, match=fault):
        compt.train(chain(toy, **keys), work_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "01_a").exists()


def test_an_error_rate_is_reached_from_above(toy, tmp_path):
    evaluator = dict(type="Wrong", higher_is_better=dict(error=False))
    config = chain(toy, val_evaluator=evaluator, stage=dict(stopping=UNTIL))
    compt.train(config, work_dir=tmp_path)
    content = json.loads((tmp_path / "01_a" / "manifest.json").read_text())
    assert (content["iters"], content["stopped"]) == (4, "")
    assert content["metrics"]["val/m/error"]["higher_is_better"] is False
    assert content["metrics"]["val/m/num"]["higher_is_better"] is None
    assert content["main_metric"] == "val/accuracy"


@METRICS.register_module(name="LateName")
class LateName(Wrong):
    """Has a metric only where there are samples enough, as retrieval at 10."""

    def compute_metrics(self, results):
        return {"error": 0.5} if len(results) > 40 else {}


def test_a_metric_that_needs_the_whole_split_is_found_there(toy, tmp_path):
    rule = dict(type="until", metric="val/m/error", target=0.1)
    evaluator = dict(type="LateName", higher_is_better=False)
    config = chain(toy, val_evaluator=evaluator, stage=dict(stopping=rule))
    compt.train({**config, "val_dataloader": dict(batch_size=32)}, work_dir=tmp_path)
    assert json.loads((tmp_path / "01_a" / "manifest.json").read_text())["iters"] == 4


def test_the_schedules_of_every_stage_are_tried(toy, tmp_path):
    toy["chain"] = toy["chain"][:2]
    toy["chain"][1]["param_scheduler"] = [PLATEAU]
    with pytest.raises(ConfigError, match="Give it rule='greater'"):
        compt.train(toy, work_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "01_a").exists()
