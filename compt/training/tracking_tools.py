"""What compt fills in for the trackers that it knows, and how their runs go on and end.

mmengine's back ends do the logging. Any other back end of mmengine is one that is not known here:
it gets the same records, and nothing is filled in.
"""

from __future__ import annotations

import inspect
import os
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from mmengine.config import Config

from compt.config.taken_over import short
from compt.errors import ConfigError, did_you_mean

TFLOPS = "compute/cumulated_tflops"
SAMPLES = "compute/cumulated_samples"
FINISH_SECONDS = 300
"""How long the end of a stage waits for W&B to send what it has; the rest stays on disk."""
MLFLOW_RETRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
"""MLflow's own defaults would let one record wait for a server that is gone for a quarter hour."""
MLFLOW_KEY = re.compile(r"[^\w\-. :/]")
"""What MLflow takes in no name of a parameter, such as the ``*`` of a pattern."""


@dataclass(frozen=True)
class Labels:
    """What a stage is called in a tracker."""

    chain: str
    """The group, the work folder's name."""
    member: str
    """The run."""
    mode: str
    """'chain' or 'individual', the type of job."""
    paradigm: str
    folder: Path
    """Of the stage."""


class Tool:
    """A back end that compt does not know."""

    module: ClassVar[str] = ""
    """What has to be installed."""
    extra: ClassVar[str] = ""
    """Of compt, which brings it."""
    imports: ClassVar[tuple[str, ...]] = ()
    """Modules that register the back end."""
    takes_files: ClassVar[bool] = False

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise ConfigError for what the tracker does not take."""

    def labelled(self, options: Mapping[str, Any], labels: Labels) -> dict[str, Any]:
        """Return the back end's config with what it leaves out of the labels."""
        return dict(options)

    def continued(self, options: Mapping[str, Any], run_id: str | None) -> dict[str, Any]:
        """Return the config for a new run, or for the one that is to go on."""
        return dict(options)

    def config(self, config: Config) -> Config:
        """Return the stage's config as the tracker takes it."""
        return config

    def begin(self, backend: Any, config: Config, run_id: str | None) -> str | None:
        """Start or go on with a run, and return its id."""
        backend.add_config(self.config(config))
        return None

    def scalars(self, scalars: Mapping[str, Any], step: int) -> Mapping[str, Any]:
        """Return scalars as the tracker takes them."""
        return scalars

    def attach(self, backend: Any, files: Sequence[Path]) -> None:
        """Attach files to the run."""

    def close(self, backend: Any, *, failed: bool) -> None:
        """End the run."""
        backend.close()


class Wandb(Tool):
    """Weights & Biases."""

    module, extra, takes_files = "wandb", "wandb", True

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

    def labelled(self, options: Mapping[str, Any], labels: Labels) -> dict[str, Any]:
        """Fill ``init_kwargs`` and the step metric of every curve."""
        filled = {
            "name": labels.member,
            "job_type": labels.mode,
            **_unless_set("WANDB_RUN_GROUP", group=labels.chain),
            **_unless_set("WANDB_TAGS", tags=["compt", labels.paradigm]),
            **_unless_set("WANDB_DIR", dir=str(labels.folder)),
        }
        own = options.get("define_metric_cfg") or []
        if isinstance(own, Mapping):
            own = [{"name": name, "summary": summary} for name, summary in own.items()]
        axis = {"step_metric": TFLOPS}
        metrics = [{"name": TFLOPS}, {"name": "*", **axis}, *({**axis, **one} for one in own)]
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

    def begin(self, backend: Any, config: Config, run_id: str | None) -> str | None:
        """Start or go on with a run, and return its id."""
        wandb = backend.experiment
        if backend._log_code_name is not None:
            super().begin(backend, config, run_id)
        else:  # it would upload every Python file below the current folder
            wandb.config.update(config.to_dict(), allow_val_change=True)
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


class Mlflow(Tool):
    """MLflow."""

    module, extra, takes_files = "mlflow", "mlflow", True

    def labelled(self, options: Mapping[str, Any], labels: Labels) -> dict[str, Any]:
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

    def config(self, config: Config) -> Config:
        """Return the config with names that MLflow takes."""
        # "work_dir" is where its back end looks for logs at the end.
        return Config({str(key): _for_mlflow(value) for key, value in config.to_dict().items()})

    def begin(self, backend: Any, config: Config, run_id: str | None) -> str | None:
        """Start or go on with a run, and return its id."""
        for name, value in MLFLOW_RETRIES.items():
            os.environ.setdefault(name, value)
        if run_id is not None:  # the back end starts runs, and knows no other way to go on with one
            os.environ["MLFLOW_RUN_ID"] = run_id
        try:
            super().begin(backend, config, run_id)
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


class Swanlab(Tool):
    """SwanLab, whose package brings its back end."""

    module, extra, takes_files = "swanlab", "swanlab", True
    imports = ("swanlab.integration.mmengine",)

    def labelled(self, options: Mapping[str, Any], labels: Labels) -> dict[str, Any]:
        """Fill ``init_kwargs``."""
        filled = {
            "name": labels.member,
            "job_type": labels.mode,
            **_unless_set("SWANLAB_GROUP", group=labels.chain),
            **_unless_set("SWANLAB_TAGS", tags=["compt", labels.paradigm]),
            **_unless_set("SWANLAB_LOG_DIR", log_dir=str(labels.folder / "swanlog")),
        }
        return {**options, "init_kwargs": {**filled, **(options.get("init_kwargs") or {})}}

    def continued(self, options: Mapping[str, Any], run_id: str | None) -> dict[str, Any]:
        """Name the run that is to go on."""
        own = options.get("init_kwargs") or {}
        ids = {} if run_id is None else {"id": run_id, "resume": "allow"}
        return {**options, "init_kwargs": {**ids, **own}}

    def begin(self, backend: Any, config: Config, run_id: str | None) -> str | None:
        """Start or go on with a run, and return its id."""
        super().begin(backend, config, run_id)
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


UNKNOWN = Tool()
TOOLS: Mapping[str, Tool] = {
    "WandbVisBackend": Wandb(),
    "MLflowVisBackend": Mlflow(),
    "SwanlabVisBackend": Swanlab(),
}
"""By the type of their back end."""


def tool_of(backend: Mapping[str, Any]) -> Tool:
    """Return the tool of a back end's config."""
    return TOOLS.get(short(backend.get("type", "")), UNKNOWN)


def labelled(backends: Iterable[Mapping[str, Any]], labels: Labels) -> list[dict[str, Any]]:
    """Return configs of back ends with what they leave out of the labels."""
    return [tool_of(backend).labelled(backend, labels) for backend in backends]


def registering(backends: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the modules that register these back ends.

    Raises:
        ConfigError: the package of one is not installed, or an option is none that it has.
    """
    modules: list[str] = []
    for backend in backends:
        tool = tool_of(backend)
        if tool.module and find_spec(tool.module) is None:
            raise ConfigError(
                f"{backend['type']} needs the package '{tool.module}', which is not installed.",
                where="visualizer.vis_backends",
                do=f'pip install "compt[{tool.extra}]"',
            )
        tool.check(backend)
        modules += tool.imports
    return modules


def _unless_set(variable: str, **filled: Any) -> dict[str, Any]:
    """Return what to fill in, nothing where a variable of the environment says it."""
    return {} if os.environ.get(variable) else filled


def _for_mlflow(value: Any) -> Any:
    """Return part of a config with names that MLflow takes, and lists that its back end takes."""
    if isinstance(value, Mapping):
        return {MLFLOW_KEY.sub("_", str(key)): _for_mlflow(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        are_dicts = [isinstance(inner, Mapping) for inner in value]
        if any(are_dicts) and not all(are_dicts):
            return [str(inner) for inner in value]
        return [_for_mlflow(inner) for inner in value]
    return value
