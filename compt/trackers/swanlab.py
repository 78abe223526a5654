"""SwanLab, whose package brings its back end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compt.interfaces.tracker import RunLabels, Tracker
from compt.trackers._variables import unless_set


class Swanlab(Tracker):
    """SwanLab, whose package brings its back end."""

    api_version = "1.2"
    package, takes_files = "swanlab", True
    imports = ("swanlab.integration.mmengine",)

    def labelled(self, options: Mapping[str, Any], labels: RunLabels) -> dict[str, Any]:
        """Fill ``init_kwargs``."""
        filled = {
            "name": labels.member,
            "job_type": labels.mode,
            **unless_set("SWANLAB_GROUP", group=labels.chain),
            **unless_set("SWANLAB_TAGS", tags=["compt", labels.paradigm]),
            **unless_set("SWANLAB_LOG_DIR", log_dir=str(labels.folder / "swanlog")),
        }
        return {**options, "init_kwargs": {**filled, **(options.get("init_kwargs") or {})}}

    def continued(self, options: Mapping[str, Any], run_id: str | None) -> dict[str, Any]:
        """Name the run that is to go on."""
        own = options.get("init_kwargs") or {}
        ids = {} if run_id is None else {"id": run_id, "resume": "allow"}
        return {**options, "init_kwargs": {**ids, **own}}

    def begin(self, backend: Any, content: Mapping[str, Any], run_id: str | None) -> str | None:
        """Start or go on with a run, and return its id."""
        super().begin(backend, content, run_id)
        return str(backend.experiment.get_run().id)

    def attach(self, backend: Any, files: Sequence[Path]) -> None:
        """Save the files, and show plots as images."""
        swanlab = backend.experiment
        for file in files:
            swanlab.save(str(file), base_path=str(file.parent), policy="now")
            if file.suffix == ".png":
                swanlab.log({f"report/{file.stem}": swanlab.Image(str(file))})

    def close(self, backend: Any, *, failed: bool) -> None:
        """Finish the run, which the back end leaves open for the next stage."""
        if backend.experiment.has_run():
            reason = {"state": "crashed", "error": "the stage failed"} if failed else {}
            backend.experiment.finish(**reason)
