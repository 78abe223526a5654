"""Weights & Biases, whose back end is mmengine's."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compt.errors import ConfigError, did_you_mean
from compt.interfaces.tracker import TFLOPS, RunLabels, Tracker
from compt.trackers._variables import unless_set

FINISH_SECONDS = 300
"""How long the end of a stage waits for W&B to send what it has; the rest stays on disk."""


class Wandb(Tracker):
    """Weights & Biases."""

    api_version = "1.2"
    package, takes_files = "wandb", True

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise ConfigError for arguments that ``wandb.init`` does not have."""
        import wandb

        known = inspect.signature(wandb.init).parameters
        for name in options.get("init_kwargs") or {}:
            if name not in known:
                raise ConfigError(
                    f"wandb.init has no argument '{name}'.{did_you_mean(name, known)}",
                    where="visualizer.vis_backends, init_kwargs",
                )

    def labelled(self, options: Mapping[str, Any], labels: RunLabels) -> dict[str, Any]:
        """Fill ``init_kwargs`` and the step metric of every curve."""
        filled = {
            "name": labels.member,
            "job_type": labels.mode,
            **unless_set("WANDB_RUN_GROUP", group=labels.chain),
            **unless_set("WANDB_TAGS", tags=["compt", labels.paradigm]),
            **unless_set("WANDB_DIR", dir=str(labels.folder)),
        }
        own = options.get("define_metric_cfg") or []
        if isinstance(own, Mapping):
            own = [{"name": name, "summary": summary} for name, summary in own.items()]
        axis = {"step_metric": TFLOPS}
        metrics = [{"name": TFLOPS}, {"name": "*", **axis}, *({**axis, **metric} for metric in own)]
        init = {**filled, **(options.get("init_kwargs") or {})}
        return {**options, "init_kwargs": init, "define_metric_cfg": metrics}

    def continued(self, options: Mapping[str, Any], run_id: str | None) -> dict[str, Any]:
        """Give the run an id of its own, or that of the run before."""
        own = dict(options.get("init_kwargs") or {})
        # Its summary of every run on the terminal would tear up the chain's.
        settings = {"quiet": True, "finish_timeout": FINISH_SECONDS}
        if own.get("settings") is None or isinstance(own["settings"], Mapping):
            own["settings"] = {**settings, **(own.get("settings") or {})}
        ids = {"id": run_id or uuid.uuid4().hex[:8], "resume": "allow", "allow_val_change": True}
        return {**options, "init_kwargs": {**ids, **own}}

    def begin(self, backend: Any, content: Mapping[str, Any], run_id: str | None) -> str | None:
        """Start or go on with a run, and return its id."""
        wandb = backend.experiment
        if backend._log_code_name is not None:
            super().begin(backend, content, run_id)
        else:  # it would upload every Python file below the current folder
            wandb.config.update(dict(content), allow_val_change=True)
        return str(wandb.run.id)

    def scalars(self, scalars: Mapping[str, Any], step: int) -> Mapping[str, Any]:
        """Add the iteration, as W&B counts records."""
        return {"iter": step, **scalars}

    def attach(self, backend: Any, files: Sequence[Path]) -> None:
        """Log the files as one artifact, and plots as images too."""
        wandb = backend.experiment
        artifact = wandb.Artifact(f"compt-{wandb.run.id}", type="compt-report")
        for file in files:
            artifact.add_file(str(file), name=file.name)
        wandb.run.log_artifact(artifact)
        for file in files:
            if file.suffix == ".png":
                wandb.run.summary[f"report/{file.stem}"] = wandb.Image(str(file))

    def close(self, backend: Any, *, failed: bool) -> None:
        """Finish the run, as crashed where the stage failed."""
        backend.experiment.finish(exit_code=int(failed))
