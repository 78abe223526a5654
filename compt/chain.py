"""The loop over stages: skip what is done, grow, train, hand over."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import barrier, get_world_size, is_main_process
from torch import nn

from compt import growth as growing
from compt.config import ChainConfig, load_config
from compt.errors import ConfigError
from compt.files import FORMAT, MANIFEST, WEIGHTS, read_json, write_json
from compt.interfaces import Paradigm
from compt.planning import StagePlan, plan
from compt.preflight import preflight
from compt.progress import Progress, Silent
from compt.registry import PARADIGMS
from compt.runner import StageResult, run_stage, stage_config
from compt.stage import build_member
from compt.weights import load_weights, save_weights
from compt.workdir import WorkDir


def train(
    config: ChainConfig | Config | Mapping[str, Any] | str,
    *,
    work_dir: str | Path | None = None,
    resume: bool = False,
    individual: bool = False,
    launcher: str = "none",
    progress: Progress | None = None,
    beside: Path | None = None,
) -> Path:
    """Train a chain, member after member, and return its work folder.

    Args:
        config: path of a config, the config itself, or a checked one.
        work_dir: folder to write to; the config's, else ``work_dirs/<config name>``.
        resume: go on with the chain in the folder; finished stages are not trained again.
        individual: train every member alone, from scratch, with the ``individual`` budget.
        launcher: 'none', or how mmengine starts several processes.
        progress: what shows the run; silent by default.
        beside: folder of the same config's chain, from which ``individual`` takes over the first member, if that
            was trained as long: alone is how it was trained there.

    Raises:
        ComptError: bad input before anything is trained; data or training that failed later.
    """
    checked = config if isinstance(config, ChainConfig) else load_config(config)
    progress = progress or Silent()
    mode = "individual" if individual else "chain"
    default = checked.work_dir.with_name(checked.work_dir.name + "_individual") if individual else checked.work_dir
    folder = WorkDir(Path(work_dir) if work_dir else default, checked, mode)
    chain_plan = plan(checked, individual=individual, world=get_world_size())
    progress.plan(chain_plan)
    preflight(checked, chain_plan)
    with folder.open(resume=resume) if is_main_process() else nullcontext():
        if beside is not None and individual and is_main_process():
            folder.take_over(beside, chain_plan.stages[0].iters)
        barrier()
        for index, stage_plan in enumerate(chain_plan.stages):
            if not folder.stages[index].done:
                _Stage(folder, stage_plan, launcher, progress).run()
            barrier()
            progress.stage_done(read_json(folder.stages[index].manifest))
    return folder.path


class _Stage:
    """One stage of a chain, from growth to manifest; every step leaves only complete files."""

    def __init__(self, work: WorkDir, plan: StagePlan, launcher: str, progress: Progress) -> None:
        self.work, self.plan, self.launcher, self.progress = work, plan, launcher, progress
        self.config = work.config.stages[plan.index]
        self.folder = work.stages[plan.index]
        self.alone = work.mode == "individual" or plan.index == 0
        self.paradigm: Paradigm = PARADIGMS.build(dict(work.config.paradigm))

    def run(self) -> None:
        """Grow, train, export, and write the manifest, which makes the stage done."""
        self.folder.path.mkdir(exist_ok=True, parents=True)
        self.progress.stage_start(self.plan)
        if is_main_process() and not self.folder.growth.is_file():
            write_json(self.folder.growth, {"format": FORMAT, "growth": self._grow()})
        barrier()
        if growth := read_json(self.folder.growth)["growth"]:
            self.progress.grown(growth)
        config = stage_config(
            self.work.config,
            self.config,
            self.plan,
            self.folder.path,
            init=self.folder.grown if self.folder.grown.is_file() else None,
            teacher=self._teacher(),
            launcher=self.launcher,
        )
        if is_main_process():
            config.dump(str(self.folder.config))
        result = run_stage(config, self.progress.report)
        if is_main_process():
            self._hand_over(result)

    def _grow(self) -> dict[str, Any] | None:
        """Write the weights to start from, and return what is reported of them."""
        seed = self.work.config.seed + self.plan.index
        if self.config.init and self.work.mode == "chain":
            save_weights(self._load_init(Path(self.config.init)), self.folder.grown)
            return None
        if self.alone:
            return None
        source = self._previous()
        target = build_member(self.paradigm, self.config.member, seed=seed)
        report = growing.grow(source, target, self.config.grower, seed=seed)
        save_weights(target, self.folder.grown)
        return {"grower": self.config.grower["type"], **report.to_dict()}

    def _previous(self) -> nn.Module:
        before = self.work.config.stages[self.plan.index - 1]
        model = build_member(self.paradigm, before.member, seed=0)
        load_weights(model, self.work.stages[self.plan.index - 1].weights)
        return model

    def _load_init(self, path: Path) -> nn.Module:
        """Load the checkpoint that the first member starts from: a finished stage's, or one of another library."""
        model = build_member(self.paradigm, self.config.member, seed=self.work.config.seed)
        try:
            self.paradigm.load_weights(model, path / WEIGHTS if (path / MANIFEST).is_file() else path)
            self._check_same(model, path)
        except ConfigError as error:
            where = f"init of member '{self.config.member.name}'"
            raise ConfigError(error.what, where=where, do=error.do) from error
        return model

    def _check_same(self, model: nn.Module, path: Path) -> None:
        """Raise ConfigError if a model of equal shapes computes something else: other heads, another activation."""
        if not self.paradigm.recognises(path):
            return
        given = self.paradigm.load(path)
        error = growing.output_error(given, model) if type(given) is type(model) else None
        if error is not None and not error <= growing.TOLERANCE[torch.float32]:
            raise ConfigError(
                f"'{path}' fits the member's shapes, but its outputs differ by {error:.1e}.",
                do="Give the member the model config of the checkpoint: heads, activation, positions.",
            )

    def _teacher(self) -> dict[str, Any] | None:
        if self.alone or not self.plan.teacher_iters:
            return None
        before = self.work.config.stages[self.plan.index - 1].member
        weights = self.work.stages[self.plan.index - 1].weights
        return {"name": before.name, "model": before.model, "weights": str(weights)}

    def _hand_over(self, result: StageResult) -> None:
        """Write weights and export, then the manifest; only then drop the checkpoints."""
        digest = save_weights(result.student, self.folder.weights)
        with self.folder.exporting() as export:
            self.paradigm.build_model(self.config.member)  # an export may need what the model expects as input
            self.paradigm.export(result.student.cpu(), export)
        write_json(self.folder.manifest, self._manifest(result, digest))
        shutil.rmtree(self.folder.checkpoints, ignore_errors=True)

    def _manifest(self, result: StageResult, digest: str) -> dict[str, Any]:
        curve = [
            {**point, "samples": point["iter"] * self.plan.batch_size, "flops": self.plan.flops_until(point["iter"])}
            for point in result.curve
        ]
        metrics = curve[-1]["metrics"] if curve else {}
        return {
            "format": FORMAT,
            "name": self.plan.name,
            "index": self.plan.index,
            "mode": self.work.mode,
            "paradigm": self.work.config.paradigm["type"],
            "grower": self.plan.grower,
            "transfer": self.plan.transfer,
            "params": self.plan.params,
            "samples": self.plan.samples,
            "iters": self.plan.iters,
            "batch_size": self.plan.batch_size,
            "flops": {
                "student_per_sample": self.plan.student_flops,
                "teacher_per_sample": self.plan.teacher_flops,
                "total": self.plan.flops,
            },
            "seconds": result.seconds,
            "broken_samples": result.broken,
            "metrics": metrics,
            "main_metric": next(iter(metrics), None),
            "curve": curve,
            "growth": read_json(self.folder.growth)["growth"],
            "weights": {"file": self.folder.weights.name, "sha256": digest},
            "environment": environment(),
        }


def environment() -> dict[str, str]:
    """What a figure was measured on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "device": device,
    }
