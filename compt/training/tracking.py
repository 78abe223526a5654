"""Track a stage with mmengine's back ends, whose failures never end the training.

Every record gets the compute and the samples that the chain has cost until then, so that the
stages of a chain are runs on one axis.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from logging import Logger
from pathlib import Path
from types import TracebackType
from typing import Any

from mmengine.dist import is_main_process
from mmengine.runner import Runner

from compt.config.keys import listed
from compt.errors import ComptError
from compt.files import FORMAT, MANIFEST, read_record, write_json
from compt.interfaces.tracker import SAMPLES, TFLOPS
from compt.planning.plans import StagePlan
from compt.report.build import report, write
from compt.report.growth import GrowthRecord, GrowthReport
from compt.report.record import StageRecord
from compt.training.tracking_guard import GuardedBackend
from compt.training.tracking_tools import run_key, tracker_of
from compt.workdir import WorkDir

RUNS = "tracking.json"
"""The file of a stage that names its runs in trackers, for a resumed stage to go on with."""
Records = Mapping[str, Any]


@dataclass(frozen=True)
class Cost:
    """What a chain has cost at each iteration of a stage."""

    plan: StagePlan
    """With the growth as it ran."""
    flops: float = 0.0
    """Of the stages before."""
    samples: int = 0
    """Of the stages before."""

    def at(self, iteration: int, repeated: int) -> dict[str, float]:
        """Return the scalars of an iteration, iterations that were lost charged too."""
        plan = self.plan
        lost = plan.student_flops + (plan.teacher_flops if plan.teacher_iters else 0.0)
        flops = plan.flops_until(iteration) + repeated * plan.batch_size * lost
        return {
            TFLOPS: (self.flops + flops) / 1e12,
            SAMPLES: self.samples + (iteration + repeated) * plan.batch_size,
        }


class Tracking:
    """The runs of one stage in trackers, from its first record to the files of its end.

    Args:
        folder: of the stage.
        lineage: of the stage, as JSON types; it is added to the config that trackers get.
        cost: of the chain.
        note: takes a line for the user.
    """

    def __init__(
        self, folder: Path, lineage: Records, cost: Cost, note: Callable[[str], None]
    ) -> None:
        self.folder, self.lineage, self.cost, self.note = folder, lineage, cost, note
        self.backends: list[GuardedBackend] = []
        path = folder / RUNS
        advice = f"Remove '{RUNS}': the stage then begins new runs in its trackers."
        self._runs = dict(read_record(path, _runs, advice)) if path.is_file() else {}

    @classmethod
    def of_stage(
        cls, work: WorkDir, plan: StagePlan, growth: GrowthRecord, note: Callable[[str], None]
    ) -> Tracking:
        """Return the runs of a stage of a work folder, with what its chain has cost before it."""
        ancestors, source = [], work.config.stages[plan.index].init
        if work.mode == "chain" and plan.index:
            ancestors = [StageRecord.read(stage.manifest) for stage in work.stages[: plan.index]]
            source = ancestors[-1].name
        cost = Cost(
            replace(plan, growth_iters=growth.calls),
            sum(record.flops.total for record in ancestors),
            sum(record.samples for record in ancestors),
        )
        chain = work.path.absolute().name
        origin = lineage(plan, chain=chain, mode=work.mode, source=source, growth=growth.report)
        return cls(work.stages[plan.index].path, origin, cost, note)

    def __enter__(self) -> Tracking:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        failed = kind is not None and not (self.folder / MANIFEST).is_file()
        for backend in self.backends:
            backend.finish(failed=failed)
            if backend.num_lost:
                self.note(
                    f"{backend.name} lost {backend.num_lost} of {backend.num_records} records of "
                    f"stage '{self.folder.name}'"
                )

    def continued(self, visualizer: Records) -> dict[str, Any]:
        """Return the visualizer's config for this start of the stage, which may be a resumption."""
        backends = []
        for config in listed(visualizer.get("vis_backends")):
            run_id = self._runs.get(run_key(config))
            backends.append(tracker_of(config).continued(config, run_id))
        return {**visualizer, "vis_backends": backends}

    def take(self, runner: Runner) -> None:
        """Begin the runs of a Runner's trackers."""
        if not is_main_process():
            return
        content = {**runner.cfg.to_dict(), "lineage": dict(self.lineage)}
        # mmengine keeps every visualizer of a process. Through its back ends it would keep the
        # models and the optimizers of all stages of a chain.
        not_kept = weakref.proxy(runner)
        for backend in runner.visualizer._vis_backends.values():
            if not isinstance(backend, GuardedBackend):
                continue
            self.backends.append(backend)
            backend.cost = lambda step: self.cost.at(step, not_kept.train_loop.repeated)
            backend.on_failure = self._teller(backend, runner.logger)
            backend.begin = self._beginner(backend, content)
            backend.record(lambda: None)

    def _teller(self, backend: GuardedBackend, logger: Logger) -> Callable[[str], None]:
        def tell(reason: str) -> None:
            text = f"{backend.name} fails, and the training goes on without it. {reason}"
            self.note(text)
            logger.warning(text)

        return tell

    def _beginner(self, backend: GuardedBackend, content: Records) -> Callable[[], None]:
        def begin() -> None:
            earlier = self._runs.get(backend.key)
            run_id = backend.tracker.begin(backend.backend, content, earlier)
            if run_id is not None and run_id != earlier:
                self._runs[backend.key] = run_id
                write_json(self.folder / RUNS, {"format": FORMAT, "runs": self._runs})

        return begin

    def attach(self, files: Iterable[Path], reported: Iterable[Path]) -> None:
        """Attach files to the runs, where a tracker takes them.

        Args:
            files: those that are missing are left out.
            reported: work folders, whose report is written into the last of them.
        """
        takers = [b for b in self.backends if b.tracker.takes_files and b.begin is None]
        if not takers:
            return
        folders = list(reported)
        try:
            written = write(report(folders), folders[-1])
        except ComptError as error:
            written = []
            self.note(f"trackers get no report: {error}")
        present = [path for path in (*files, *written) if path.is_file()]
        for backend in takers:
            backend.record(partial(backend.tracker.attach, backend.backend, present))


def lineage(
    plan: StagePlan, *, chain: str, mode: str, source: str | None, growth: GrowthReport | None
) -> dict[str, Any]:
    """Return how a stage came about, as JSON types.

    Args:
        plan: of the stage.
        chain: name of the work folder.
        mode: 'chain' or 'individual'.
        source: the member before, or what the first one starts from.
        growth: None where nothing was grown.
    """
    content = {
        "chain": chain,
        "member": plan.name,
        "mode": mode,
        "stage": plan.index + 1,
        "params": plan.params,
        "source": source,
    }
    if growth is None:
        return content
    return content | {
        "grower": growth.grower,
        "exact": growth.function_preserving,
        "reason": growth.reason,
        "error": growth.error,
        "tensors": dict(growth.counts),
        "dropped": len(growth.dropped),
    }


def _runs(content: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(run) for name, run in content["runs"].items()}
