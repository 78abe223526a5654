"""The faults of a config, and config files."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from compt.config import load_config
from compt.errors import ConfigError

TEXT = """
paradigm = dict(type='toy')
chain = [dict(name='a', model=dict(width=8), iters=4)]
"""


def faults(config: Any, options: dict[str, Any] | None = None) -> list[str]:
    """The faults that loading reports."""
    with pytest.raises(ConfigError) as caught:
        load_config(config, options)
    assert caught.value.exit_code == 2
    found = re.findall(r"^  - (.*)$", str(caught.value), re.MULTILINE)
    assert f"{len(found)} fault" in str(caught.value)
    return found


def write(path: Path, text: str) -> Path:
    path.write_text(textwrap.dedent(text))
    return path
