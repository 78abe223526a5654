"""MLflow, whose back end is mmengine's."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compt.interfaces.tracker import RunLabels, Tracker

RETRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
"""MLflow's own defaults would let one record wait for a server that is gone for a quarter hour."""
NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")
"""What MLflow takes in no name of a parameter, such as the ``*`` of a pattern."""


class Mlflow(Tracker):
    """MLflow."""

    api_version = "1.2"
    package, takes_files = "mlflow", True

    def labelled(self, options: Mapping[str, Any], labels: RunLabels) -> dict[str, Any]:
        """Fill experiment, run's name, tags and the place to track in."""
        store = labels.folder.absolute().parent / "mlflow"
        content: dict[str, Any] = {
            "exp_name": os.environ.get("MLFLOW_EXPERIMENT_NAME") or labels.chain,
            "run_name": labels.member,
            **options,
        }
        # mmengine would keep one store a stage, and not look at the variable.
        if uri := os.environ.get("MLFLOW_TRACKING_URI"):
            content.setdefault("tracking_uri", uri)
        elif content.get("tracking_uri") is None:
            content["tracking_uri"] = f"sqlite:///{store}.db"
            content.setdefault("artifact_location", store.as_uri())
        tags = {
            "compt.chain": labels.chain,
            "compt.member": labels.member,
            "compt.job_type": labels.mode,
            "compt.paradigm": labels.paradigm,
        }
        return {**content, "tags": {**tags, **(options.get("tags") or {})}}

    def continued(self, options: Mapping[str, Any], run_id: str | None) -> dict[str, Any]:
        """Leave out the parameters where a run goes on, as they are never changed."""
        return {**options, "tracked_config_keys": [], "params": None} if run_id else dict(options)

    def config(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config with names that MLflow takes."""
        # "work_dir" is where its back end looks for logs at the end.
        return {str(key): _for_mlflow(value) for key, value in content.items()}

    def begin(self, backend: Any, content: Mapping[str, Any], run_id: str | None) -> str | None:
        """Start or go on with a run, and return its id."""
        for name, value in RETRIES.items():
            os.environ.setdefault(name, value)
        if run_id is not None:  # the back end starts runs, and knows no other way to go on with one
            os.environ["MLFLOW_RUN_ID"] = run_id
        try:
            super().begin(backend, content, run_id)
        finally:
            os.environ.pop("MLFLOW_RUN_ID", None)
        return str(backend.experiment.active_run().info.run_id)

    def attach(self, backend: Any, files: Sequence[Path]) -> None:
        """Log the files as artifacts."""
        for file in files:
            backend.experiment.log_artifact(str(file), "report")

    def close(self, backend: Any, *, failed: bool) -> None:
        """End the run, as failed where the stage did."""
        backend.close()
        if failed:
            last = backend.experiment.last_active_run()
            if last is not None:
                backend.experiment.MlflowClient().set_terminated(last.info.run_id, "FAILED")


def _for_mlflow(value: Any) -> Any:
    """Return part of a config with names that MLflow takes, and lists that its back end takes."""
    if isinstance(value, Mapping):
        return {NOT_IN_NAMES.sub("_", str(key)): _for_mlflow(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        are_dicts = [isinstance(inner, Mapping) for inner in value]
        if any(are_dicts) and not all(are_dicts):
            return [str(inner) for inner in value]
        return [_for_mlflow(inner) for inner in value]
    return value
