"""Track a stage with mmengine's back ends, whose failures never end the training.

Every record gets the compute and the samples that the chain has cost until then, so that the
stages of a chain are runs on one axis.
"""

from __future__ import annotations

import errno
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from mmengine.visualization.vis_backend import BaseVisBackend

from compt.config.keys import listed
from compt.errors import ComptError
from compt.files import FORMAT, MANIFEST, read_record, write_json
from compt.planning.plans import StagePlan
from compt.registry.loading import first_line
from compt.report.build import report, write
from compt.report.growth import GrowthReport
from compt.training.trackers import SAMPLES, TFLOPS, Tool, tool_of

RUNS = "tracking.json"
"""The file of a stage that names its runs in trackers, for a resumed stage to go on with."""
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 600.0
"""Seconds between two attempts to reach a tracker that fails, doubled by every failure."""
PATIENCE = 20
"""How many times longer than the attempt a pause is, at least, so that attempts cost little."""
MAX_REASON = 200
"""Characters of an error that a note shows."""
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


class Tracker(BaseVisBackend):  # type: ignore[misc]
    """A back end that loses records where it fails, and is tried again after a pause.

    What it does not define is the back end's own, so that hooks find in it what they look for.
    """

    def __init__(self, backend: Any, tool: Tool) -> None:
        self.backend, self.tool = backend, tool
        self.cost: Callable[[int], Records] = lambda step: {}
        self.begin: Callable[[], None] | None = None
        """What starts the run, until that has worked."""
        self.on_failure: Callable[[str], None] = lambda text: None
        self.num_records, self.num_lost, self.reason = 0, 0, ""
        self._failures, self._next_attempt = 0, 0.0

    def __getattr__(self, name: str) -> Any:
        if name == "backend":  # of a copy, before it has one
            raise AttributeError(name)
        return getattr(self.backend, name)

    @property
    def name(self) -> str:
        """Name of the back end's class."""
        return type(self.backend).__name__

    @property
    def experiment(self) -> Any:
        """The back end's own object."""
        return self.backend.experiment

    def _init_env(self) -> None:
        """Do nothing, as the back end does at its first record."""

    def add_config(self, config: Config, **options: Any) -> None:
        """Leave it to :class:`Tracking`, which adds how the stage came about."""

    def add_graph(self, *args: Any, **options: Any) -> None:
        """Record the model's graph."""
        self.record(lambda: self.backend.add_graph(*args, **options))

    def add_image(self, *args: Any, **options: Any) -> None:
        """Record an image."""
        self.record(lambda: self.backend.add_image(*args, **options))

    def add_scalar(self, *args: Any, **options: Any) -> None:
        """Record a number."""
        self.record(lambda: self.backend.add_scalar(*args, **options))

    def add_scalars(self, scalar_dict: Records, step: int = 0, *args: Any, **options: Any) -> None:
        """Record numbers, with what the chain has cost until then."""
        scalars = self.tool.scalars({**scalar_dict, **self.cost(step)}, step)
        self.record(lambda: self.backend.add_scalars(scalars, step, *args, **options))

    def close(self) -> None:
        """Stay open, as the files of the stage's end are not yet written."""

    def finish(self, *, failed: bool) -> None:
        """End the run, if it has begun."""
        if self.begin is None:
            self._attempt(lambda: self.tool.close(self.backend, failed=failed))

    def record(self, send: Callable[[], None]) -> None:
        """Send one record, or count it as lost.

        Raises:
            OSError: the disk is full, which the stage cannot go on with.
        """
        self.num_records += 1
        if time.monotonic() < self._next_attempt or not self._attempt(lambda: self._send(send)):
            self.num_lost += 1

    def _send(self, send: Callable[[], None]) -> None:
        if self.begin is not None:
            self.begin()
            self.begin = None
        send()

    def _attempt(self, send: Callable[[], None]) -> bool:
        """Return whether it worked; otherwise say why, the first time, and set a pause."""
        start = time.monotonic()
        try:
            send()
        except Exception as error:  # every tracker has its own
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            now = time.monotonic()
            pause = min(FIRST_PAUSE * 2**self._failures, LONGEST_PAUSE)
            self._next_attempt = now + max(pause, PATIENCE * (now - start))
            self._failures += 1
            if not self.reason:
                self.reason = textwrap.shorten(first_line(error), MAX_REASON)
                self.on_failure(self.reason)
            return False
        self._failures = 0
        return True


def guarded(visualizer: Visualizer) -> Visualizer:
    """Put a tracker around every back end of a visualizer."""
    backends = visualizer._vis_backends
    for name, backend in backends.items():
        backends[name] = Tracker(backend, tool_of({"type": type(backend).__name__}))
    return visualizer


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
        self.trackers: list[Tracker] = []
        path = folder / RUNS
        advice = f"Remove '{RUNS}': the stage then begins new runs in its trackers."
        self._runs = dict(read_record(path, _runs, advice)) if path.is_file() else {}

    def __enter__(self) -> Tracking:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        failed = kind is not None and not (self.folder / MANIFEST).is_file()
        for tracker in self.trackers:
            tracker.finish(failed=failed)
            if tracker.num_lost:
                self.note(
                    f"{tracker.name} lost {tracker.num_lost} of {tracker.num_records} records of "
                    f"stage '{self.folder.name}'"
                )

    def continued(self, visualizer: Records) -> dict[str, Any]:
        """Return the visualizer's config for this start of the stage, which may be a resumption."""
        backends = []
        for config in listed(visualizer.get("vis_backends")):
            tool = tool_of(config)
            backends.append(tool.continued(config, self._runs.get(tool.module)))
        return {**visualizer, "vis_backends": backends}

    def take(self, runner: Runner) -> None:
        """Begin the runs of a Runner's trackers."""
        if not is_main_process():
            return
        content = {**runner.cfg.to_dict(), "lineage": dict(self.lineage)}
        config = Config(content, format_python_code=False)
        for tracker in runner.visualizer._vis_backends.values():
            if not isinstance(tracker, Tracker):
                continue
            self.trackers.append(tracker)
            tracker.cost = lambda step: self.cost.at(step, runner.train_loop.repeated)
            tracker.on_failure = self._teller(tracker, runner)
            tracker.begin = self._beginner(tracker, config)
            tracker.record(lambda: None)

    def _teller(self, tracker: Tracker, runner: Runner) -> Callable[[str], None]:
        def tell(reason: str) -> None:
            text = f"{tracker.name} fails, and the training goes on without it. {reason}"
            self.note(text)
            runner.logger.warning(text)

        return tell

    def _beginner(self, tracker: Tracker, config: Config) -> Callable[[], None]:
        def begin() -> None:
            name = tracker.tool.module
            run_id = tracker.tool.begin(tracker.backend, config, self._runs.get(name))
            if run_id is not None and self._runs.get(name) != run_id:
                self._runs[name] = run_id
                write_json(self.folder / RUNS, {"format": FORMAT, "runs": self._runs})

        return begin

    def attach(self, files: Iterable[Path], reported: Iterable[Path]) -> None:
        """Attach files to the runs, where a tracker takes them.

        Args:
            files: those that are missing are left out.
            reported: work folders, whose report is written into the last of them.
        """
        takers = [t for t in self.trackers if t.tool.takes_files and t.begin is None]
        if not takers:
            return
        folders = list(reported)
        try:
            written = write(report(folders), folders[-1])
        except ComptError as error:
            written = []
            self.note(f"trackers get no report: {error}")
        present = [path for path in (*files, *written) if path.is_file()]
        for tracker in takers:
            tracker.record(lambda t=tracker: t.tool.attach(t.backend, present))  # type: ignore[misc]


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
