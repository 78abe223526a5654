"""Features worked with by hand."""

from __future__ import annotations

import torch


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)
