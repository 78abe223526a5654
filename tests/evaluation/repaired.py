"""A function of other tools that NumPy 2.4 broke, mended so that they can be compared with."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from packaging.version import Version


def repair_accuracy(patch: pytest.MonkeyPatch, module: ModuleType, *, as_share: bool) -> None:
    """Put in a module's ``accuracy``, but for ``float()`` of an array [1].

    Nothing is done under an older NumPy, which takes it.
    """
    if Version(np.__version__) < Version("2.4"):
        return

    def accuracy(output, target, topk=(1,)):
        hits = output.topk(max(topk), 1, True, True)[1].t().eq(target.view(1, -1))
        total = len(target) if as_share else 1
        return [float(hits[:k].reshape(-1).float().sum()) / total for k in topk]

    patch.setattr(module, "accuracy", accuracy)
