"""Train the stages of a chain one after the other, and skip what is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import barrier, get_world_size, is_main_process

from compt.config import ChainConfig, load_config
from compt.config.resuming import plain
from compt.errors import ConfigError
from compt.files import STATE, check_as_written, check_digests, check_recorded, digests, sha256
from compt.growth.models import build_paradigm
from compt.interfaces.paradigm import FOLLOW
from compt.planning.planner import plan
from compt.planning.plans import ChainPlan, StagePlan
from compt.registry import LAYOUTS
from compt.report.card import write_stage_cards
from compt.report.format import left_out_lines
from compt.report.growth import ADVICE as MAKE_AGAIN, GrowthRecord
from compt.report.progress import Progress, Several, Silent
from compt.report.record import StageRecord, WeightsFile
from compt.report.software import note_revision
from compt.report.state import ChainState, Mode, PlannedStage
from compt.report.watch.follower import Follower
from compt.shards import weight_files
from compt.training.failures import explained
from compt.training.initial_weights import InitialWeights
from compt.training.preflight import preflight
from compt.training.runner import StageResult, run_stage
from compt.training.stage_config import stage_config, write_config
from compt.training.tracking import Tracking
from compt.weights import hand_over_weights, save_tensors
from compt.workdir import WorkDir, individual_dir


def train(
    config: ChainConfig | Config | Mapping[str, Any] | str,
    *,
    work_dir: str | Path | None = None,
    resume: bool = False,
    from_stage: str | None = None,
    individual: bool = False,
    launcher: str = "none",
    progress: Progress | None = None,
    beside: Path | None = None,
) -> Path:
    """Train a chain, member after member, and return its work folder.

    With ``compare=True`` in the config, every member is then trained alone too, into
    ``<work folder>_individual``.

    Args:
        config: path of a config, the config itself, or a checked one.
        work_dir: folder to write to; the config's, else ``work_dirs/<config name>``.
        resume: go on with the chain in the folder; finished stages are not trained again. Members
            that the config has more than before are appended.
        from_stage: with ``resume``, name of the first stage to train anew, by the config as it now
            is; that stage and those after it are put aside first.
        individual: train every member alone, from scratch, with the ``individual`` budget, and
            no chain.
        launcher: 'none', or how mmengine starts several processes.
        progress: what shows the run; silent by default.
        beside: folder of the same config's chain, from which ``individual`` takes over the first
            member, if that was trained as long: alone is how it was trained there.

    Raises:
        ComptError: bad input before anything is trained; data or training that failed later.
    """
    checked = config if isinstance(config, ChainConfig) else load_config(config)
    if from_stage is not None and not resume:
        raise ConfigError(
            "from_stage needs resume: it goes on with a chain from one of its stages.",
            do=f"--resume --from-stage {from_stage}",
        )
    if resume:
        checked = _following_what_is_left(checked, Path(work_dir or checked.folder))
    session = _Session(checked, launcher, progress or Silent(), resume, from_stage)
    with LAYOUTS.choosing(checked.layouts):
        if individual:
            default = individual_dir(checked.folder)
            return session.train("individual", Path(work_dir or default), beside)
        folder = session.train("chain", Path(work_dir or checked.folder))
        if checked.compare:
            session.train("individual", individual_dir(folder), beside=folder)
    return folder


def _following_what_is_left(config: ChainConfig, folder: Path) -> ChainConfig:
    """Return a config that follows the first member's export, where what it started from is gone.

    The export says the same beside sizes and weights.
    """
    path = config.paradigm.get(FOLLOW)
    first = WorkDir(folder, config, "chain").stages[0]
    if path is None or Path(path).exists() or not first.done:
        return config
    return replace(config, paradigm={**config.paradigm, FOLLOW: str(first.export)})


@dataclass(frozen=True)
class _Session:
    """What the runs of one call of :func:`train` share."""

    config: ChainConfig
    launcher: str
    progress: Progress
    resume: bool
    from_stage: str | None = None

    def train(self, mode: Mode, path: Path, beside: Path | None = None) -> Path:
        """Train all members in one mode, and return the work folder."""
        with explained(str(path)):  # outside of stages too, processes wait for each other
            return self._train(mode, path, beside)

    def _train(self, mode: Mode, path: Path, beside: Path | None) -> Path:
        folder = WorkDir(path, self.config, mode)
        chain_plan = plan(self.config, individual=mode == "individual", world_size=get_world_size())
        self.progress.plan(chain_plan)
        data = preflight(self.config, chain_plan)
        for line in (*left_out_lines(data.left_out), *data.notes):
            self.progress.note(line)
        other = individual_dir(path) if mode == "chain" else beside
        with (
            self._open(folder, chain_plan, data.fingerprints)
            if is_main_process()
            else nullcontext(),
            self._followed(path, chain_plan, other, data.left_out) as progress,
        ):
            for note in folder.notes:
                progress.note(note)
            if beside is not None and is_main_process():
                folder.take_over(beside, chain_plan.stages[0].iters)
            barrier()
            reported = [path for path in (beside, folder.path) if path is not None]
            for index, stage_plan in enumerate(chain_plan.stages):
                with explained(str(folder.stages[index].path)):
                    if not folder.stages[index].done:
                        _Stage(folder, stage_plan, self.launcher, progress, reported).run()
                    barrier()
                progress.stage_done(StageRecord.read(folder.stages[index].manifest))
        return folder.path

    @contextmanager
    def _followed(
        self,
        path: Path,
        chain_plan: ChainPlan,
        other: Path | None,
        left_out: Mapping[str, Mapping[str, Any]],
    ) -> Iterator[Progress]:
        """Yield whom the run tells of its steps, and keep its status.json meanwhile."""
        if not is_main_process():
            yield self.progress
            return
        follower = Follower(
            path, chain_plan, other=other, left_out=left_out, world_size=get_world_size()
        )
        with follower:
            self.progress.follow(follower.status)
            yield Several(follower, self.progress)

    def _open(
        self, folder: WorkDir, chain_plan: ChainPlan, data: Mapping[str, Mapping[str, Any]]
    ) -> AbstractContextManager[None]:
        """Take the folder, for what is planned on this data."""
        note_revision()
        stages = [PlannedStage(s.name, s.iters, s.batch_size) for s in chain_plan.stages]
        state = ChainState(
            folder.mode,
            tuple(stage.name for stage in stages),
            plain(self.config.raw),
            tuple(stages),
            data,
            get_world_size(),
        )
        has_run = folder.mode == "chain" or (folder.path / STATE).is_file()
        from_stage = self.from_stage if has_run else None  # members alone may not have begun
        return folder.open(state, resume=self.resume, from_stage=from_stage)


class _Stage:
    """One stage of a chain, from growth to manifest.

    Every step leaves only complete files, so that a stage may be interrupted anywhere.
    """

    def __init__(
        self,
        work: WorkDir,
        plan: StagePlan,
        launcher: str,
        progress: Progress,
        reported: Sequence[Path],
    ) -> None:
        self.work, self.plan, self.launcher, self.progress = work, plan, launcher, progress
        self.reported = reported
        self.config = work.config.stages[plan.index]
        self.folder = work.stages[plan.index]
        self.paradigm = build_paradigm(work.config.paradigm)

    def run(self) -> None:
        """Grow, train, export, and write the manifest, which makes the stage done."""
        self.folder.path.mkdir(exist_ok=True, parents=True)
        if is_main_process():
            self._check_files()
        self.progress.stage_start(self.plan)
        growth = self._grow()
        if growth.report:
            self.progress.grown(growth.report)
        config = self._stage_config(
            init=self.folder.grown if weight_files(self.folder.grown) else None,
            teacher=self._teacher(),
            grown=growth.report is not None,
        )
        if is_main_process():
            write_config(config, self.folder.config)
        with Tracking.of_stage(self.work, self.plan, growth, self.progress.note) as tracking:
            result = run_stage(config, self.progress, tracking, self._hands_on_optimizer)
            if is_main_process():
                self._hand_over(result, growth)
                tracking.attach(self.folder.texts, self.reported)

    def _check_files(self) -> None:
        """Compare what the stage starts from with the recorded hashes.

        Raises:
            WorkDirError: a file is damaged.
        """
        if self.work.mode == "chain" and self.plan.index:
            source = self.work.stages[self.plan.index - 1]
            trunk = self.work.config.stages[self.plan.index - 1].trunk
            paths = {source.weights, source.grown_from(trunk=trunk)}
            if self.config.grown.optimizer_state:
                paths.add(source.inherited_optimizer(trunk=trunk))
            for path in sorted(paths):
                check_recorded(path)
        if self.folder.growth.is_file():
            recorded = GrowthRecord.read(self.folder.growth).files
            check_as_written(self.folder.growth, MAKE_AGAIN)
            otherwise = f"remove {self.folder.growth.name} beside it: --resume then makes it again"
            check_digests(self.folder.path, recorded, otherwise)

    def _grow(self) -> GrowthRecord:
        """Make the stage's first weights, unless an interrupted run has left them."""
        done = self.folder.growth.is_file()
        barrier()  # every process has looked before one of them writes
        if not done and (is_main_process() or self.plan.growth_iters):
            InitialWeights(self.work, self.plan, self.paradigm).write(
                self._stage_config(), self.progress.learning
            )
        barrier()
        return GrowthRecord.read(self.folder.growth)

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
            individual=self.work.mode == "individual",
            grown=grown,
        )

    def _teacher(self) -> dict[str, Any] | None:
        if not self.plan.teacher_iters:
            return None
        teacher = self.work.config.stages[self.plan.index - 1].member
        weights = self.work.stages[self.plan.index - 1].weights
        options = self.config.teacher.to_dict()
        content = {"name": teacher.name, "model": teacher.model, "weights": str(weights)}
        return {**content, "options": options} if options else content

    def _hand_over(self, result: StageResult, growth: GrowthRecord) -> None:
        """Write weights and export, then the manifest, and only then drop the checkpoints."""
        assert result.student is not None  # in the first process it is whole
        file, *shards = hand_over_weights(result.student, self.folder.weights)
        with self.folder.exporting() as export:
            # An export may need what the paradigm learns as it builds the model: what that
            # expects as input.
            self.paradigm.build_model(self.config.member)
            self.paradigm.export(result.student.cpu(), export)
        self._hand_over_optimizer(result)
        weights = WeightsFile(file.name, sha256(file))
        written = (
            *shards,
            self.folder.export,
            self.folder.optimizer,
            self.folder.plateau,
            self.folder.plateau_optimizer,
        )
        files = digests(self.folder.path, [path.name for path in written], texts=True)
        record = self._record(result, growth, weights, files)
        config = plain(self.work.config.raw)
        export = self.folder.export
        write_stage_cards(self.folder.path, record, config, self.paradigm, export=export)
        record.write(self.folder.manifest)
        if left := self.folder.drop_checkpoints():
            self.progress.note(left)

    @property
    def _is_inherited(self) -> bool:
        is_chain = self.work.mode == "chain"
        return is_chain and self.work.config.hands_on_optimizer(self.plan.index)

    @property
    def _hands_on_optimizer(self) -> bool:
        return self._is_inherited and not self.config.trunk

    def _hand_over_optimizer(self, result: StageResult) -> None:
        """Write what the next member's optimizer begins with, and nothing beside it."""
        if self._hands_on_optimizer:
            save_tensors(result.optimizer, self.folder.optimizer)
        elif not self._is_inherited and self.plan.plateau_iter is not None:
            self.folder.plateau_optimizer.unlink(missing_ok=True)

    def _record(
        self,
        result: StageResult,
        growth: GrowthRecord,
        weights: WeightsFile,
        files: Mapping[str, str],
    ) -> StageRecord:
        return StageRecord.of_stage(
            self.plan,
            mode=self.work.mode,
            paradigm=self.work.config.paradigm["type"],
            outcome=result.outcome,
            growth=growth,
            weights=weights,
            files=files,
        )
