"""The loss of a stage's model as a function of its parameters, which growers learn from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import all_reduce, get_rank, get_world_size
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import DataLoader

from compt.errors import GrowthError
from compt.growth.operators import tensors_of
from compt.interfaces import Batch
from compt.training.loader import loader_options, open_dataset, step_seed, train_loader
from compt.training.stage import StageModel

ALWAYS_OFF = {"grad_checkpointing": False, "compile": False}
"""Performance options that recompute or trace a model's own parameters.

Those of an objective are the caller's.
"""


class StageObjective:
    """The task's loss of a stage with any parameters, on the stage's next training batch.

    It has what the stage itself has: data, batch size, masks, precision, number of processes.
    The order of the samples is another one than the stage will see. The data is opened at the
    first call.

    Args:
        config: the stage's Runner config.
        target: the model whose parameters are replaced; on the device to run on, and not
            changed.
        num_calls: how many calls the grower has announced.
        on_progress: called with the number of calls so far and the loss.
    """

    def __init__(
        self,
        config: Config,
        target: nn.Module,
        *,
        num_calls: int,
        on_progress: Callable[[int, float], None] | None = None,
    ) -> None:
        self.config, self.target, self.num_announced = config, target, num_calls
        self.on_progress = on_progress
        self.losses: list[float] = []
        self._stage: StageModel | None = None
        self._batches: Iterator[Batch] = iter(())

    def __call__(self, params: Mapping[str, Tensor]) -> Tensor:
        """Return the loss [], with gradients for ``params``.

        Over several processes both are the mean. Parameters that are not in ``params`` are
        the target's.

        Raises:
            GrowthError: unknown names, or calls that were not announced where there are
                several processes.
        """
        stage = self._opened()
        unknown = sorted(set(params) - tensors_of(self.target).keys())
        if unknown:
            raise GrowthError(
                f"The grower asked for the loss with tensors that the target lacks: {unknown[:3]}."
            )
        batch = stage.data_preprocessor(next(self._batches), True)
        # Copies, as batch norms write their buffers while they train.
        buffers = {name: buffer.clone() for name, buffer in self.target.named_buffers()}
        tensors = {**buffers, **_averaging_gradients(params)}
        student_tensors = {f"student.{name}": tensor for name, tensor in tensors.items()}
        outputs = functional_call(stage, student_tensors, kwargs={**batch, "mode": "loss"})
        loss: Tensor = outputs["loss"]
        # The value is the mean over the processes. The gradient is this process's own: the
        # parameters average it on its way back.
        loss = _mean(loss.detach()) + (loss - loss.detach())
        stage.iteration += 1
        self.losses.append(loss.item())
        if self.on_progress is not None:
            self.on_progress(len(self.losses), self.losses[-1])
        return loss

    def restart(self) -> None:
        """Let the batches, and what is drawn for each, come again from the first."""
        if self._stage is not None:
            self._stage.iteration = 0
            self._batches = iter(self._loader(self._stage))

    def close(self) -> None:
        """Let go of the data, and of the processes that read it."""
        self._batches = iter(())

    def summary(self) -> dict[str, Any]:
        """Return the number of calls, and the mean loss of their first and last tenth."""
        tenth = max(1, len(self.losses) // 10)
        first, last = self.losses[:tenth], self.losses[-tenth:]
        return {
            "calls": len(self.losses),
            "first_loss": sum(first) / tenth,
            "last_loss": sum(last) / tenth,
        }

    def _opened(self) -> StageModel:
        if self._stage is None:
            if get_world_size() > 1 and not self.num_announced:
                raise GrowthError(
                    "The grower asks for the loss, and has not announced it, so only one process "
                    "runs it.",
                    do="Set `objective_calls` in the grower to how often it asks at most.",
                )
            self._stage = self._build()
            self._batches = iter(self._loader(self._stage))
        return self._stage

    def _build(self) -> StageModel:
        """Build the stage's model around the target, with no second copy of its weights."""
        left_out = ("type", "init", "teacher")
        config = self.config.model.to_dict()
        options = {key: value for key, value in config.items() if key not in left_out}
        options["performance"] = {**(options.get("performance") or {}), **ALWAYS_OFF}
        with torch.device("meta"):
            stage = StageModel(**options)
        stage.student = self.target
        stage.max_iters = max(1, self.num_announced)
        stage.to(next(self.target.parameters()).device)
        return stage

    def _loader(self, stage: StageModel) -> DataLoader[Any]:
        options = self.config.train_dataloader.to_dict()
        with DefaultScope.overwrite_default_scope(self.config.default_scope):
            dataset = open_dataset(stage.paradigm, options, "train")
        samples, collate = stage.samples(dataset)
        return train_loader(
            samples,
            collate,
            seed=step_seed(stage.seed, 0),
            start=0,
            rank=get_rank(),
            world_size=get_world_size(),
            **loader_options(options),
        )


def _mean(value: Tensor) -> Tensor:
    """Return the mean over all processes."""
    value = value.clone()
    if get_world_size() > 1:
        all_reduce(value, op="mean")
    return value


class _MeanGradients(torch.autograd.Function):
    """Passes tensors on, and gives each the mean of all processes' gradients.

    As one function of all tensors: the processes have to average them in one order, which
    autograd alone does not promise.
    """

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(_mean, gradients))


def _averaging_gradients(params: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    if get_world_size() == 1 or not params:
        return params
    return dict(zip(params, _MeanGradients.apply(*params.values()), strict=True))
