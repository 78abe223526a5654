"""The loop over stages: skip what is done, grow, train, hand over."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import barrier, get_world_size, is_main_process

from compt.config import ChainConfig, load_config
from compt.files import read_json, write_json
from compt.interfaces import Paradigm
from compt.planning.planner import StagePlan, plan
from compt.registry import PARADIGMS
from compt.report.progress import Progress, Silent
from compt.report.record import manifest
from compt.training.initial_weights import Start
from compt.training.preflight import preflight
from compt.training.runner import StageResult, run_stage, stage_config
from compt.weights import save_tensors, save_weights
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
        beside: folder of the same config's chain, from which ``individual`` takes over the first
            member, if that was trained as long: alone is how it was trained there.

    Raises:
        ComptError: bad input before anything is trained; data or training that failed later.
    """
    checked = config if isinstance(config, ChainConfig) else load_config(config)
    progress = progress or Silent()
    mode = "individual" if individual else "chain"
    default = (
        checked.work_dir.with_name(checked.work_dir.name + "_individual")
        if individual
        else checked.work_dir
    )
    folder = WorkDir(Path(work_dir) if work_dir else default, checked, mode)
    chain_plan = plan(checked, individual=individual, world_size=get_world_size())
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
        self.paradigm: Paradigm = PARADIGMS.build(dict(work.config.paradigm))

    def run(self) -> None:
        """Grow, train, export, and write the manifest, which makes the stage done."""
        self.folder.path.mkdir(exist_ok=True, parents=True)
        self.progress.stage_start(self.plan)
        grown = self.folder.growth.is_file()
        barrier()
        if not grown and (is_main_process() or self.plan.growth_iters):
            Start(self.work, self.plan, self.paradigm).write(
                self._stage_config(), self.progress.learning
            )
        barrier()
        if growth := read_json(self.folder.growth)["growth"]:
            self.progress.grown(growth)
        config = self._stage_config(
            init=self.folder.grown if self.folder.grown.is_file() else None,
            teacher=self._teacher(),
            grown=growth is not None,
        )
        if is_main_process():
            config.dump(str(self.folder.config))
        result = run_stage(config, self.progress.report)
        if is_main_process():
            self._hand_over(result)

    def _stage_config(
        self,
        *,
        init: Path | None = None,
        teacher: Mapping[str, Any] | None = None,
        grown: bool = False,
    ) -> Config:
        return stage_config(
            self.work.config,
            self.config,
            self.plan,
            self.folder.path,
            init=init,
            teacher=teacher,
            launcher=self.launcher,
            stop=self.config.stop if self.work.mode == "chain" else None,
            grown=grown,
        )

    def _teacher(self) -> dict[str, Any] | None:
        if not self.plan.teacher_iters:
            return None
        before = self.work.config.stages[self.plan.index - 1].member
        weights = self.work.stages[self.plan.index - 1].weights
        return {"name": before.name, "model": before.model, "weights": str(weights)}

    def _hand_over(self, result: StageResult) -> None:
        """Write weights and export, then the manifest; only then drop the checkpoints."""
        digest = save_weights(result.student, self.folder.weights)
        with self.folder.exporting() as export:
            self.paradigm.build_model(
                self.config.member
            )  # an export may need what the model expects as input
            self.paradigm.export(result.student.cpu(), export)
        following = self.work.config.stages[self.plan.index + 1 :][:1]
        if self.work.mode == "chain" and any(stage.grown.optimizer_state for stage in following):
            save_tensors(result.optimizer, self.folder.optimizer)
        write_json(self.folder.manifest, manifest(self.work, self.plan, result, digest))
        shutil.rmtree(self.folder.checkpoints, ignore_errors=True)
