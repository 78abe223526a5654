"""Watch the losses of a stage for values that are not finite, and for spikes."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor, nn

from compt.errors import some
from compt.training.sharding import any_sharded, local
from compt.weights import not_finite

LEAST_SEEN = 20
"""Losses that have to be there before one can be told from the others."""
LEAST_SPREAD = 0.02
"""Smallest spread, relative to the median: losses that hardly differ are no measure of a spike."""
TO_SIGMA = 1.4826
"""What makes the median absolute deviation of a normal distribution its standard deviation."""
FEW = 1000
"""Values that Python sorts faster than NumPy begins to."""
MOST_EVENTS = 1000
"""Spikes and rollbacks that are kept one by one."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with the latest losses or weights."""

    text: str
    """What and where, as the beginning of a sentence."""
    is_spike: bool
    """Whether all of them are finite."""


@dataclass
class Spike:
    """Iterations one after the other whose losses stood out."""

    first: int
    last: int
    loss: float
    """The largest of them."""
    median: float
    """Of the losses before."""


@dataclass(frozen=True)
class Rollback:
    """A return to an earlier checkpoint, after which the batches in between are left out."""

    at: int
    """Iteration of the fault."""
    to: int
    """Iteration of the checkpoint."""
    reason: str


class LossMonitor:
    """Judges each loss by the median of those before it, over all processes.

    A loss is a spike where it lies ``threshold`` robust standard deviations above the median of the
    last ``window`` losses. Losses stay on their device until :meth:`look`.

    Args:
        threshold: in standard deviations, taken as 1.4826 times the median absolute deviation.
        window: number of losses.
    """

    def __init__(self, threshold: float, window: int) -> None:
        self.threshold = threshold
        self.recent: deque[float] = deque(maxlen=window)
        self.spikes: list[Spike] = []
        self.num_spikes = 0
        self._unread: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        """Take the loss of an iteration."""
        self._unread.append(loss.detach())

    def look(self, iteration: int) -> Fault | None:
        """Judge the losses since the last look, the newest of which is of ``iteration``.

        Every process has to call it at the same iterations.

        Returns:
            The first that is not finite, else the last spike, None where nothing is wrong.
        """
        if not self._unread:
            return None
        losses = torch.stack([loss.float().reshape(()) for loss in self._unread])
        self._unread.clear()
        all_reduce(losses, op="mean")
        values = losses.tolist()
        fault = None
        for index, value in enumerate(values):
            at = iteration - len(values) + 1 + index
            if not math.isfinite(value):
                return Fault(
                    f"The loss is not finite (NaN or infinite) at iteration {at}", is_spike=False
                )
            if self._is_spike(value):
                self._note(at, value)
                median = self.spikes[-1].median
                fault = Fault(
                    f"The loss leapt from a median of {median:.4g} to {value:.4g} at iteration "
                    f"{at}",
                    is_spike=True,
                )
            self.recent.append(value)
        return fault

    def _is_spike(self, loss: float) -> bool:
        if len(self.recent) < LEAST_SEEN:
            return False
        median = median_of(self.recent)
        if loss <= median:
            return False
        spread = TO_SIGMA * median_of([abs(value - median) for value in self.recent])
        return loss > median + self.threshold * max(spread, LEAST_SPREAD * abs(median))

    def _note(self, iteration: int, loss: float) -> None:
        """Keep a spike, or lengthen the last one."""
        last = self.spikes[-1] if self.spikes else None
        if last is not None and last.last == iteration - 1:
            last.last, last.loss = iteration, max(last.loss, loss)
            return
        self.num_spikes += 1
        median = median_of(self.recent)
        self.spikes = [*self.spikes[-MOST_EVENTS + 1 :], Spike(iteration, iteration, loss, median)]

    def state_dict(self) -> dict[str, Any]:
        """Return what the judgement of the next loss depends on, as plain types."""
        return {
            "recent": list(self.recent),
            "spikes": [asdict(spike) for spike in self.spikes],
            "num_spikes": self.num_spikes,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`."""
        self._unread.clear()
        self.recent.clear()
        self.recent.extend(state["recent"])
        self.spikes = [Spike(**spike) for spike in state["spikes"]]
        self.num_spikes = state["num_spikes"]


def median_of(values: Collection[float]) -> float:
    """Return the median of finite values.

    It is what :func:`numpy.median` returns, which takes ten times as long for a hundred of them,
    and a stage on a CPU asks for two medians an iteration.
    """
    if len(values) > FEW:
        return float(np.median(np.asarray(values)))
    return statistics.median(values)


def unfit_weights(model: nn.Module) -> Fault | None:
    """Return a fault that names the parameters with values that are not finite, None for none."""
    params = dict(model.named_parameters())
    names = not_finite({name: local(param) for name, param in params.items()})
    if any_sharded(params.values()):
        of_all: list[list[str]] = [[]] * get_world_size()
        torch.distributed.all_gather_object(of_all, names)
        names = [name for name in params if any(name in own for own in of_all)]
    return Fault(f"Weights are not finite ({some(names)})", is_spike=False) if names else None
