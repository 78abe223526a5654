"""What a stage starts from: fresh weights, a checkpoint's, or those grown from the member
before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process
from torch import nn

from compt.errors import ConfigError
from compt.files import FORMAT, MANIFEST, WEIGHTS, write_json
from compt.growth import run as growing
from compt.growth.models import build_member
from compt.growth.optimizer_state import grow_state, new_entries
from compt.interfaces import Paradigm
from compt.planning.plans import StagePlan
from compt.training.objective import StageObjective
from compt.weights import load_weights, read_state, save_tensors, save_weights
from compt.workdir import WorkDir


class Start:
    """The first weights of one stage. Where the grower learns, every process takes part; one
    writes.
    """

    def __init__(self, work: WorkDir, plan: StagePlan, paradigm: Paradigm) -> None:
        self.work, self.plan, self.paradigm = work, plan, paradigm
        self.config, self.folder = work.config.stages[plan.index], work.stages[plan.index]

    def write(self, runner: Config, report: Callable[[int, float], None]) -> None:
        """Write the weights, if they are not fresh, then what is to be reported of them; each only
        once it is whole.

        Args:
            runner: the stage's Runner config, from which growers that learn get their data.
            report: told how often a grower has asked for the loss, and the loss.
        """
        start, growth = time.perf_counter(), None
        if self.config.init and self.work.mode == "chain":
            save_weights(self._load_init(Path(self.config.init)), self.folder.grown)
        elif self.work.mode == "chain" and self.plan.index:
            growth = self._inherit(runner, report)
        if is_main_process():
            seconds = time.perf_counter() - start
            write_json(self.folder.growth, {"format": FORMAT, "growth": growth, "seconds": seconds})

    def _inherit(self, runner: Config, report: Callable[[int, float], None]) -> dict[str, Any]:
        """Grow the member before into this one, and return the report."""
        seed, calls = self.work.config.seed + self.plan.index, self.plan.growth_iters
        device = get_device() if calls else "cpu"
        source = self._previous().to(device)
        target = build_member(self.paradigm, self.config.member, seed=seed).to(device)
        if is_main_process():
            self._take_along(source, target, seed)
        objective = StageObjective(runner, target, calls=calls, report=report)
        growth = growing.grow(source, target, self.config.grower, seed=seed, objective=objective)
        if is_main_process():
            save_weights(target, self.folder.grown)
        learned = {"objective": objective.summary()} if objective.losses else {}
        return {"grower": self.config.grower["type"], **growth.to_dict(), **learned}

    def _take_along(self, source: nn.Module, target: nn.Module, seed: int) -> None:
        """Write what the stage's optimizer is to know of its weights, before they are grown."""
        options, grower = self.config.grown, self.config.grower
        if options.new_ratio != 1:
            save_tensors(new_entries(source, target, grower, seed=seed), self.folder.new)
        if options.optimizer_state:
            state = read_state(self.work.stages[self.plan.index - 1].optimizer)
            save_tensors(
                grow_state(source, target, grower, state, seed=seed), self.folder.grown_optimizer
            )

    def _previous(self) -> nn.Module:
        before = self.work.config.stages[self.plan.index - 1]
        model = build_member(self.paradigm, before.member, seed=0)
        load_weights(model, self.work.stages[self.plan.index - 1].weights)
        return model

    def _load_init(self, path: Path) -> nn.Module:
        """Load the checkpoint that the first member starts from: a finished stage's, or one of
        another library.
        """
        model = build_member(self.paradigm, self.config.member, seed=self.work.config.seed)
        try:
            self.paradigm.load_weights(
                model, path / WEIGHTS if (path / MANIFEST).is_file() else path
            )
            self._check_same(model, path)
        except ConfigError as error:
            where = f"init of member '{self.config.member.name}'"
            raise ConfigError(error.what, where=where, do=error.do) from error
        return model

    def _check_same(self, model: nn.Module, path: Path) -> None:
        """Raise ConfigError if a model of equal shapes computes something else: other heads,
        another activation.
        """
        if not self.paradigm.recognises(path):
            return
        given = self.paradigm.load(path)
        error = growing.output_error(given, model) if type(given) is type(model) else None
        if error is not None and not error <= growing.TOLERANCE[torch.float32]:
            raise ConfigError(
                f"'{path}' fits the member's shapes, but its outputs differ by {error:.1e}.",
                do="Give the member the model config of the checkpoint: heads, activation, positions.",
            )
