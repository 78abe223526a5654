"""What Weights & Biases (offline) and MLflow (a file) really hold of a chain, read back."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import compt
from compt.errors import TrainingError
from compt.interfaces.tracker import SAMPLES, TFLOPS
from compt.report.progress import Silent
from compt.report.record import StageRecord

pytestmark = pytest.mark.slow
BLOCK = 32_768
"""Bytes of a block in LevelDB's format of logs, which offline runs are written in."""


class Interrupting(Silent):
    """Sends SIGINT in the stage of this name."""

    def __init__(self, stage):
        self.wanted, self.stage = stage, ""

    def stage_start(self, plan):
        self.stage = plan.name

    def report(self, iteration, iters, loss):
        if self.stage == self.wanted and iteration > 3:
            os.kill(os.getpid(), signal.SIGINT)


def with_tracker(toy, kind, **options):
    toy.update(visualizer=dict(type="Visualizer", vis_backends=[dict(type=kind, **options)]))
    toy.update(log_interval=2, default_hooks=dict(logger=dict(interval=2)))
    toy["chain"] = toy["chain"][:2]
    return toy


def trained(toy, folder):
    """Train a chain whose second stage is interrupted and goes on."""
    with pytest.raises(TrainingError):
        compt.train(toy, work_dir=folder, progress=Interrupting("b"))
    compt.train(toy, work_dir=folder, resume=True)
    records = [StageRecord.read(path) for path in sorted(folder.glob("*/manifest.json"))]
    return records, sum(record.flops.total for record in records) / 1e12


def records_of(path: Path) -> Iterator[bytes]:
    data, position, whole = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        if BLOCK - position % BLOCK < 7:
            position += BLOCK - position % BLOCK
            continue
        length = int.from_bytes(data[position + 4 : position + 6], "little")
        kind = data[position + 6]
        part = data[position + 7 : position + 7 + length]
        position += 7 + length
        whole = part if kind in (1, 2) else whole + part
        if kind in (1, 4):
            yield whole


def offline_run(path: Path) -> dict:
    from wandb.proto import wandb_internal_pb2

    def items(entries):
        return {"/".join(e.nested_key) or e.key: json.loads(e.value_json) for e in entries}

    run = dict(history=[], config={}, metrics=[], artifacts=[])
    for content in records_of(path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run["run"] = record.run
        elif kind == "config":
            run["config"] |= items(record.config.update)
        elif kind == "history":
            run["history"].append(items(record.history.item))
        elif kind == "metric":
            run["metrics"].append((record.metric.glob_name, record.metric.step_metric))
        elif kind == "artifact":
            run["artifacts"].append(record.artifact)
        elif kind == "exit":
            run["exit"] = record.exit.exit_code
    return run


def test_an_offline_run_of_weights_and_biases_has_group_axis_lineage_and_report(
    toy, tmp_path, monkeypatch
):
    pytest.importorskip("wandb", reason='pip install "compt[wandb]"')
    monkeypatch.setenv("WANDB_MODE", "offline")
    with_tracker(toy, "WandbVisBackend", init_kwargs=dict(project="toys"))
    records, tflops = trained(toy, tmp_path / "chain")
    paths = sorted((tmp_path / "chain").glob("*/wandb/offline-run-*/*.wandb"))
    first, interrupted, resumed = map(offline_run, paths)
    for one, name in zip((first, interrupted, resumed), "abb", strict=True):
        run = one["run"]
        assert (run.run_group, run.display_name, run.job_type) == ("chain", name, "chain")
        assert run.project == "toys" and set(run.tags) == {"compt", "toy"}
        assert ("*", TFLOPS) in one["metrics"]
    assert interrupted["run"].run_id == resumed["run"].run_id != first["run"].run_id
    assert (first["exit"], interrupted["exit"], resumed["exit"]) == (0, 1, 0)
    lineage = resumed["config"]["lineage"]
    assert (lineage["source"], lineage["grower"], lineage["exact"]) == ("a", "lossless", True)
    rows = [*first["history"], *interrupted["history"], *resumed["history"]]
    costs = [row[TFLOPS] for row in rows]
    assert costs == sorted(costs) and costs[-1] == pytest.approx(tflops)
    assert rows[-1][SAMPLES] == sum(record.samples for record in records)
    (artifact,) = [one for one in resumed["artifacts"] if one.type == "compt-report"]
    assert {"report.json", "manifest.json"} <= {c.path for c in artifact.manifest.contents}


def test_mlflow_goes_on_with_its_run_and_has_parameters_and_report(toy, tmp_path):
    mlflow = pytest.importorskip("mlflow", reason='pip install "compt[mlflow]"')
    pytest.importorskip("sqlalchemy", reason="mlflow-skinny has no store of its own")
    with_tracker(toy, "MLflowVisBackend", tags=dict(owner="me"))
    _, tflops = trained(toy, tmp_path / "chain")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'chain' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("chain")
    first, second = sorted(
        client.search_runs([experiment.experiment_id]), key=lambda run: run.info.run_name
    )
    assert (first.info.run_name, second.info.run_name) == ("a", "b")
    assert first.info.status == second.info.status == "FINISHED"
    tags = second.data.tags
    assert (tags["compt.chain"], tags["compt.job_type"], tags["owner"]) == ("chain", "chain", "me")
    assert second.data.params["lineage.source"] == "a"
    assert second.data.metrics[TFLOPS] == pytest.approx(tflops)
    attached = {file.path for file in client.list_artifacts(second.info.run_id, "report")}
    assert "report/report.json" in attached
