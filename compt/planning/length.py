"""Turn budgets into iterations, and open the data only where an epoch makes it necessary."""

from __future__ import annotations

from typing import Any

from mmengine.registry import DATASETS, DefaultScope

from compt.errors import ComptError, ConfigError, DataError
from compt.interfaces import Paradigm
from compt.registry.loading import first_line, raised_at


class TrainingLength:
    """The number of training samples of a paradigm, looked up once for each data set.

    Args:
        paradigm: whose own data is meant where a config names no mmengine data set.
        scope: of mmengine's registries.
        world_size: number of processes that share each iteration.
    """

    def __init__(self, paradigm: Paradigm, scope: str, world_size: int) -> None:
        self.paradigm, self.scope, self.world_size = paradigm, scope, world_size
        self._lengths: list[tuple[Any, int]] = []
        """Configs of data sets with their lengths; a config is a dict, so no key."""

    def iters(self, budget: tuple[str, float], batch_size: int, dataset: Any) -> int:
        """Return the iterations of a budget.

        An epoch has no short batch at its end.

        Args:
            budget: unit and number.
            batch_size: of one process.
            dataset: config of an mmengine data set, None for the paradigm's own.

        Raises:
            ConfigError: the data is missing, or smaller than a batch.
        """
        unit, number = budget
        global_batch = batch_size * self.world_size
        if unit == "iters" or not number:
            return int(number)
        if unit == "samples":
            return max(1, round(number / global_batch))
        num_samples = self.num_samples(dataset)
        if num_samples < global_batch:
            raise ConfigError(
                f"A batch of {batch_size} x {self.world_size} process(es) is larger than the "
                f"{num_samples} training samples.",
                where="train_dataloader.batch_size",
                do=f"Use at most {num_samples // self.world_size}.",
            )
        return max(1, round(number * (num_samples // global_batch)))

    def num_samples(self, dataset: Any) -> int:
        """Return the number of training samples of a data set, None for the paradigm's own.

        Raises:
            ConfigError: they cannot be counted.
        """
        for known, length in self._lengths:
            if known == dataset:
                return length
        try:
            if dataset is None:
                length = self.paradigm.num_samples("train")
            else:
                length = len(self._mmengine_dataset(dataset))
        except DataError as error:
            do = (
                f"{error.do} To plan without the data, give its num_samples, or budgets in iters "
                "or samples."
            )
            raise ConfigError(error.what, where=error.where, do=do) from error
        except ComptError:
            raise
        except Exception as error:  # a paradigm raises what it likes
            raise ConfigError(
                f"The training samples cannot be counted: {first_line(error)}",
                where=raised_at(error),
            ) from error
        self._lengths.append((dataset, length))
        return length

    def _mmengine_dataset(self, config: Any) -> Any:
        """Open a data set of mmengine, or raise DataError with whatever stopped it."""
        try:
            with DefaultScope.overwrite_default_scope(self.scope):
                return DATASETS.build(config)
        except Exception as error:  # a data set raises what it likes
            raise DataError(
                f"The data set cannot be opened: {type(error).__name__}: {error}.",
                where="train_dataloader.dataset",
                do="Check its type and paths.",
            ) from error
