"""Give a stage its first weights.

They are fresh ones, a checkpoint's, or grown from the member before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process
from torch import nn

from compt.config.schema import StageConfig
from compt.errors import ConfigError, DivergedError
from compt.files import MANIFEST, PLATEAU, PLATEAU_OPTIMIZER, WEIGHTS, check_recorded, digests
from compt.growth import measure, run as growing
from compt.growth.inherited import finish_growth
from compt.growth.models import build_member
from compt.growth.optimizer_state import grow_state, new_entries
from compt.growth.output import why_whole
from compt.growth.stored import NotStreamed
from compt.growth.streamed import STREAM_FROM, grow_file
from compt.interfaces import Growth, Paradigm
from compt.planning.plans import StagePlan
from compt.planning.plateau import check_given
from compt.registry.registry import short_name
from compt.report.growth import GrowthRecord, GrowthReport
from compt.report.record import StageRecord
from compt.shards import stored_at
from compt.training.guard import unfit_weights
from compt.training.objective import StageObjective
from compt.weights import hand_over_weights, load_weights, read_state, save_tensors
from compt.workdir import WorkDir


class InitialWeights:
    """The first weights of one stage, and what is to be reported of them.

    Where the grower learns, every process takes part, and one writes.
    """

    def __init__(self, work: WorkDir, plan: StagePlan, paradigm: Paradigm) -> None:
        self.work, self.plan, self.paradigm = work, plan, paradigm
        self.config, self.folder = work.config.stages[plan.index], work.stages[plan.index]

    def write(self, runner_config: Config, on_progress: Callable[[int, float], None]) -> None:
        """Write the weights, if they are not fresh, then the report of their growth.

        A stage that has the report has all of the weights: an interrupted one starts again
        from here.

        Args:
            runner_config: the stage's, from which growers that learn get their data.
            on_progress: called with how often a grower has asked for the loss, and the loss.
        """
        start, growth = time.perf_counter(), None
        written = [self.folder.grown, self.folder.new, self.folder.grown_optimizer]
        if self.config.init and self.work.mode == "chain":
            hand_over_weights(self._load_init(Path(self.config.init)), self.folder.grown)
            written += self._take_plateau(Path(self.config.init))
        elif self.work.mode == "chain" and self.plan.index:
            growth = self._grow(runner_config, on_progress)
        if is_main_process():
            seconds = time.perf_counter() - start
            files = digests(self.folder.path, [path.name for path in written])
            GrowthRecord(growth, seconds, files).write(self.folder.growth)

    def _grow(
        self, runner_config: Config, on_progress: Callable[[int, float], None]
    ) -> GrowthReport:
        """Grow the member before into this one, and return the report.

        A large one grows tensor by tensor where that can be; the files are the same.
        """
        try:
            content = self._grow_file().to_dict()
        except NotStreamed as reason:
            content = self._grow_whole(runner_config, on_progress, reason)
        name = short_name(self.config.grower["type"])
        content |= {"grower": name, "grown_from": self._grown_from()}
        return GrowthReport.from_json(content)

    def _grow_file(self) -> Growth:
        """Grow the weights of the member before from file to file.

        Raises:
            NotStreamed: it can be done with whole models only.
        """
        options = self.config.grown
        if self.plan.growth_iters:
            raise NotStreamed("the grower learns")
        if options.has_rate_of_new or options.optimizer_state:
            raise NotStreamed("what the optimizer has to know of it is made of whole models")
        return grow_file(
            self.paradigm,
            self.config.grower,
            partial(build_member, self.paradigm, self._before.member, seed=0),
            self._source_weights,
            partial(build_member, self.paradigm, self.config.member, seed=self._seed),
            self.folder.grown,
            seed=self._seed,
            stream_from=STREAM_FROM,
        )

    def _grow_whole(
        self,
        runner_config: Config,
        on_progress: Callable[[int, float], None],
        reason: NotStreamed,
    ) -> dict[str, Any]:
        """Grow the member before in memory, and return what is to be reported."""
        seed, num_calls = self._seed, self.plan.growth_iters
        device = get_device() if num_calls else "cpu"
        source = self._source().to(device)
        target = build_member(self.paradigm, self.config.member, seed=seed).to(device)
        if is_main_process():
            self._write_optimizer_files(source, target, seed)
        objective = StageObjective(
            runner_config, target, num_calls=num_calls, on_progress=on_progress
        )
        growth = growing.grow(source, target, self.config.grower, seed=seed, objective=objective)
        objective.close()
        growth, reset = finish_growth(self.paradigm, source, target, growth, seed=seed)
        if fault := unfit_weights(target):
            raise DivergedError(
                f"{fault.text} once '{self.plan.name}' is grown.",
                where=str(self.folder.path),
                do="A grower that learns may need a lower rate, or fewer steps.",
            )
        if is_main_process():
            hand_over_weights(target, self.folder.grown)
        learned = {"objective": objective.summary()} if objective.losses else {}
        held_whole = why_whole(target, reason, STREAM_FROM)
        return {**growth.to_dict(), "reset": reset, "held_whole": held_whole, **learned}

    def _write_optimizer_files(self, source: nn.Module, target: nn.Module, seed: int) -> None:
        """Write what the stage's optimizer has to know of its weights, before they are grown."""
        options, grower = self.config.grown, self.config.grower
        if options.has_rate_of_new:
            masks = new_entries(source, target, grower, seed=seed)
            save_tensors(masks, self.folder.new)
        if options.optimizer_state:
            previous = self.plan.index - 1
            trunk = self.work.config.stages[previous].trunk
            state = read_state(self.work.stages[previous].inherited_optimizer(trunk=trunk))
            grown_state = grow_state(source, target, grower, state, seed=seed)
            save_tensors(grown_state, self.folder.grown_optimizer)

    def _source(self) -> nn.Module:
        """Return the member before, as it is at the point that this one grows from."""
        model = build_member(self.paradigm, self._before.member, seed=0)
        load_weights(model, self._source_weights)
        return model

    @property
    def _seed(self) -> int:
        return self.work.config.seed + self.plan.index

    @property
    def _before(self) -> StageConfig:
        """The config of the member before."""
        return self.work.config.stages[self.plan.index - 1]

    @property
    def _source_weights(self) -> Path:
        """The file that this member grows from."""
        return self.work.stages[self.plan.index - 1].grown_from(trunk=self._before.trunk)

    def _grown_from(self) -> str:
        """Say which point of the member before this one grows from, '' for its end."""
        index = self.plan.index - 1
        if not self.work.config.stages[index].trunk:
            return ""
        record = StageRecord.read(self.work.stages[index].manifest)
        if record.plateau_iter is None:
            return f"the plateau of {self.work.config.stages[index].init}"
        return f"the plateau of '{record.name}', iteration {record.plateau_iter} of {record.iters}"

    def _take_plateau(self, path: Path) -> list[Path]:
        """Copy the plateau of a member that is given and not trained, if the next grows from it.

        Returns:
            The files that are written.
        """
        if self.plan.iters or not self.config.trunk:
            return []
        check_given(self.config)
        for name in (PLATEAU, PLATEAU_OPTIMIZER):
            check_recorded(path / name)
        model = build_member(self.paradigm, self.config.member, seed=self.work.config.seed)
        load_weights(model, path / PLATEAU)
        hand_over_weights(model, self.folder.plateau)
        if not self.work.config.hands_on_optimizer(self.plan.index):
            return [self.folder.plateau]
        memory = path / PLATEAU_OPTIMIZER
        if not memory.is_file():
            raise ConfigError(
                f"'{path}' has not kept what its optimizer remembered on the plateau.",
                where=f"init of member '{self.config.member.name}'",
                do="Leave out grown.optimizer_state of the next member, or train that stage again "
                "with checkpoint=dict(optimizer=True), which keeps it.",
            )
        save_tensors(read_state(memory), self.folder.plateau_optimizer)
        return [self.folder.plateau, self.folder.plateau_optimizer]

    def _load_init(self, path: Path) -> nn.Module:
        """Load the checkpoint that the first member starts from.

        It is a finished stage's, or one of another library.
        """
        model = build_member(self.paradigm, self.config.member, seed=self.work.config.seed)
        is_stage = (path / MANIFEST).is_file()
        weights = stored_at(path / WEIGHTS) if is_stage else path
        check_recorded(weights)
        try:
            self.paradigm.load_weights(model, weights)
            self._check_same_outputs(model, path)
        except ConfigError as error:
            where = f"init of member '{self.config.member.name}'"
            raise ConfigError(error.what, where=where, do=error.do) from error
        return model

    def _check_same_outputs(self, model: nn.Module, path: Path) -> None:
        """Raise ConfigError if the checkpoint's own model computes something else.

        Shapes tell neither the number of heads nor the activation.
        """
        if not self.paradigm.recognises(path):
            return
        own_model = self.paradigm.load(path)
        if type(own_model) is not type(model):
            return
        error = measure.output_error(own_model, model)
        # Not `error > ...`, which is False of NaN.
        if error is not None and not error <= measure.TOLERANCE[torch.float32]:
            raise ConfigError(
                f"'{path}' fits the member's shapes, but its outputs differ by {error:.1e}.",
                do="Give the member the model config of the checkpoint: heads, activation, "
                "positions.",
            )
