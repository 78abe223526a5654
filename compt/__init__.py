"""compt: pre-train whole families of models, small to large, for a fraction of the compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compt import api as _api
from compt._version import __version__

if TYPE_CHECKING:
    from compt.api import API_VERSION
    from compt.chain import train
    from compt.errors import (
        ComptError,
        ConfigError,
        DataError,
        GrowthError,
        LayoutError,
        PluginError,
        TrainingError,
    )
    from compt.growth.axes import describe
    from compt.growth.operators import (
        AxisGrower,
        ParamPair,
        check_growable,
        matching,
        source_block,
        status,
        tensors_of,
        writes_stream,
    )
    from compt.growth.run import grow
    from compt.interfaces import (
        Architecture,
        Batch,
        Grower,
        Growth,
        Layout,
        Member,
        Metric,
        Objective,
        Outputs,
        Paradigm,
        ParamAxes,
        Status,
        Transferer,
    )
    from compt.planning.planner import plan
    from compt.registry import GROWERS, LAYOUTS, PARADIGMS, TRANSFERERS

__all__ = ["__version__", *_api.NAMES]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import compt`` and ``compt -h`` stay
    fast.
    """
    value = _api.find(name)
    if name not in _api.DEPRECATED:  # those warn every time
        globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
