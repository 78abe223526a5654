"""What the built-in trackers fill in for Weights & Biases, MLflow and SwanLab."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from compt.errors import ConfigError
from compt.interfaces import RunLabels
from compt.interfaces.tracker import TFLOPS
from compt.training import tracking_tools
from compt.training.tracking import RUNS, Cost, Tracking
from compt.training.tracking_tools import labelled, registering, tracker_of

LABELS = RunLabels("icons", "vit-s", "chain", "clip", Path("work/icons/02_vit-s"))
VARIABLES = ("WANDB_", "MLFLOW_", "SWANLAB_")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in list(os.environ):
        if name.startswith(VARIABLES):
            monkeypatch.delenv(name)


def backend(kind, **options):
    return labelled([dict(type=kind, **options)], LABELS)[0]


def test_weights_and_biases_gets_group_run_job_and_axis_and_the_users_words_come_first():
    filled = backend("WandbVisBackend")
    init = filled["init_kwargs"]
    assert (init["group"], init["name"], init["job_type"]) == ("icons", "vit-s", "chain")
    assert init["dir"] == "work/icons/02_vit-s" and "clip" in init["tags"]
    assert dict(name="*", step_metric=TFLOPS) in filled["define_metric_cfg"]
    own = backend(
        "WandbVisBackend",
        init_kwargs=dict(group="mine", project="p"),
        define_metric_cfg={"val/loss": "min"},
    )
    assert own["init_kwargs"]["group"] == "mine" and own["init_kwargs"]["project"] == "p"
    # a definition of its own would else take the metric off the axis
    assert dict(name="val/loss", summary="min", step_metric=TFLOPS) in own["define_metric_cfg"]


@pytest.mark.parametrize(
    ("kind", "variable", "name"),
    [
        ("WandbVisBackend", "WANDB_RUN_GROUP", "group"),
        ("WandbVisBackend", "WANDB_DIR", "dir"),
        ("SwanlabVisBackend", "SWANLAB_GROUP", "group"),
    ],
)
def test_variables_of_the_environment_come_before_what_is_filled_in(
    kind, variable, name, monkeypatch
):
    assert name in backend(kind)["init_kwargs"]
    monkeypatch.setenv(variable, "mine")
    assert name not in backend(kind)["init_kwargs"]


def test_mlflow_has_one_store_and_one_experiment_a_chain(monkeypatch):
    filled = backend("MLflowVisBackend", tags=dict(owner="me"))
    assert (filled["exp_name"], filled["run_name"]) == ("icons", "vit-s")
    assert filled["tracking_uri"].endswith("work/icons/mlflow.db")
    assert filled["tags"] == filled["tags"] | {"compt.chain": "icons", "owner": "me"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker")
    assert backend("MLflowVisBackend")["tracking_uri"] == "http://tracker"
    assert backend("MLflowVisBackend", tracking_uri="http://own")["tracking_uri"] == "http://own"


def test_mlflow_gets_names_and_lists_that_it_takes():
    config = dict(work_dir="w", keys={"norm*": dict(lr=1)}, mixed=[dict(a=1), "b"])
    taken = tracker_of(dict(type="MLflowVisBackend")).config(config)
    assert taken == dict(work_dir="w", keys={"norm_": dict(lr=1)}, mixed=["{'a': 1}", "b"])


def resumed(folder, kind, **options):
    visualizer = dict(vis_backends=[backend(kind, **options)])
    there = Tracking(folder, {}, Cost(plan=None), lambda text: None)
    return there.continued(visualizer)["vis_backends"][0]


def test_a_resumed_stage_goes_on_with_its_runs(tmp_path):
    new = {resumed(tmp_path, "WandbVisBackend")["init_kwargs"]["id"] for _ in range(2)}
    assert len(new) == 2, "runs must not share an id by accident"
    assert "id" not in resumed(tmp_path, "SwanlabVisBackend")["init_kwargs"]
    assert resumed(tmp_path, "MLflowVisBackend").get("tracked_config_keys") is None
    runs = dict(wandb="abc", mlflow="def", swanlab="ghi")
    (tmp_path / RUNS).write_text(json.dumps(dict(format=1, runs=runs)))
    assert resumed(tmp_path, "WandbVisBackend")["init_kwargs"]["id"] == "abc"
    assert resumed(tmp_path, "SwanlabVisBackend")["init_kwargs"]["id"] == "ghi"
    # MLflow never changes a parameter
    assert resumed(tmp_path, "MLflowVisBackend")["tracked_config_keys"] == []
    own = resumed(tmp_path, "WandbVisBackend", init_kwargs=dict(id="mine"))
    assert own["init_kwargs"]["id"] == "mine"


def test_an_argument_that_wandb_does_not_have_is_named(monkeypatch):
    def init(project=None, group=None):
        pass

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    monkeypatch.setattr(tracking_tools, "find_spec", lambda name: True)
    with pytest.raises(ConfigError, match=r"no argument 'projct'.*project"):
        registering([dict(type="WandbVisBackend", init_kwargs=dict(projct="x"))])
