"""Say what growing a model has taken."""

from __future__ import annotations

import sys

from torch import nn


def num_bytes(model: nn.Module) -> int:
    """Return the bytes of all parameters and buffers."""
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


def why_whole(model: nn.Module, reason: Exception, stream_from: int) -> str:
    """Say why a large model was grown as a whole, and how large it is, '' for a small one."""
    size = num_bytes(model)
    return "" if size < stream_from else f"{reason} (the grown model takes {size / 1e9:.1f} GB)"


def peak_memory() -> int | None:
    """Return the most bytes that this process has held, None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
