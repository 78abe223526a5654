"""Any task of lm-evaluation-harness, its own or local ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from compt.errors import ConfigError, did_you_mean
from compt.evaluation.images import device
from compt.evaluation.options import folder, require
from compt.interfaces import Suite
from compt.interfaces.paradigm import Metric
from compt.registry import Range

SHARES = frozenset({"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match", "f1", "em"})
"""Metrics of the harness that are shares of a whole."""
GUESSED = frozenset({"acc", "acc_norm", "acc_bytes", "acc_mutual_info"})
"""Metrics of the harness that guessing among the choices reaches by chance."""


@dataclass(kw_only=True)
class LmEval(Suite):
    """Measure language models on tasks of lm-evaluation-harness, its own and local ones (lm_eval).

    Models are read as with ``lm_eval --model hf --model_args pretrained=EXPORT``.
    """

    tool = "lm_eval"
    without_effect = frozenset()
    runs_code = frozenset({"include_path"})

    tasks: str | Sequence[str]
    """Names of tasks and groups, one or several."""
    include_path: Path | None = None
    """A folder with tasks of one's own, as YAML, which may name functions of Python beside it."""
    num_fewshot: Annotated[int, Range(minimum=0)] | None = None
    """Examples before each question; by default as the task says."""
    limit: Annotated[float, Range(positive=True)] | None = None
    """Documents of each task that are measured, as a share where it is below 1; all by default."""
    dtype: str = "auto"
    """Number format of the weights; by default that of the export."""
    batch_size: Annotated[int, Range(minimum=1)] = 8

    def __post_init__(self) -> None:
        require(["lm_eval", "transformers", "accelerate"], "compt[eval-lm]")
        from lm_eval.tasks import TaskManager

        include = self.include_path and str(folder(self.include_path, "include_path"))
        self._tasks = [self.tasks] if isinstance(self.tasks, str) else list(self.tasks)
        self._manager = TaskManager(include_path=include)
        known = self._manager.all_tasks
        if unknown := [name for name in self._tasks if name not in known]:
            near = did_you_mean(unknown[0], known)
            raise ConfigError(
                f"lm-evaluation-harness has no task '{unknown[0]}'.{near}",
                where="tasks",
                do="See lm_eval ls tasks; include_path=FOLDER adds your own.",
            )

    @classmethod
    def recognises(cls, export: Path) -> bool:
        """Tell whether it is a folder of transformers with a decoder-only model."""
        try:
            from compt.paradigms.causal_lm import CausalLm
        except ImportError:  # without transformers nothing is evaluated: the constructor says so
            return False
        return CausalLm().recognises(export)

    def evaluate(self, export: Path) -> Mapping[str, Metric]:
        """Return the harness's metrics by task, with what guessing would reach."""
        from lm_eval import simple_evaluate

        results = simple_evaluate(
            model="hf",
            model_args={"pretrained": str(export), "dtype": self.dtype},
            tasks=self._tasks,
            num_fewshot=self.num_fewshot,
            limit=self.limit,
            batch_size=self.batch_size,
            device=device().type,
            task_manager=self._manager,
        )
        return dict(_metrics(results or {}))


def _metrics(results: Mapping[str, Any]) -> Iterator[tuple[str, Metric]]:
    """Yield what the harness measured, without standard errors."""
    for task, measured in results.get("results", {}).items():
        sides = results.get("higher_is_better", {}).get(task) or {}
        config = results.get("configs", {}).get(task) or {}
        samples = results.get("samples", {}).get(task) or ()
        chance = _chance(config, samples)
        for key, value in measured.items():
            name, _, variant = key.partition(",")
            if not isinstance(value, int | float) or name.endswith("_stderr") or not variant:
                continue
            label = name if variant == "none" else key
            yield (
                f"{task}/{label}",
                Metric(
                    float(value),
                    chance if name in GUESSED else None,
                    sides.get(name),
                    "share" if name in SHARES else "",
                ),
            )


def _chance(config: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the mean of one in the number of choices, None where there are none."""
    if config.get("output_type") != "multiple_choice" or not samples:
        return None
    names = {entry.get("metric") for entry in config.get("metric_list") or ()}
    # Mutual information asks for each choice twice, with the question and without.
    times = 2 if "acc_mutual_info" in names else 1
    return sum(times / len(sample["arguments"]) for sample in samples) / len(samples)
