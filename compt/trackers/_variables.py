"""Variables of the environment, which come before what is filled in."""

from __future__ import annotations

import os
from typing import Any


def unless_set(variable: str, **filled: Any) -> dict[str, Any]:
    """Return what to fill in, nothing where a variable of the environment says it."""
    return {} if os.environ.get(variable) else filled
