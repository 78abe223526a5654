"""compt: pre-train whole families of models, small to large, for a fraction of the compute."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from compt.axes import describe
    from compt.chain import train
    from compt.errors import ComptError, ConfigError, DataError, GrowthError, LayoutError, PluginError, TrainingError
    from compt.growth import grow
    from compt.interfaces import Architecture, Grower, Growth, Layout, Member, Metric, Paradigm, ParamAxes, Transferer
    from compt.operators import AxisGrower, Site
    from compt.planning import plan
    from compt.registry import GROWERS, LAYOUTS, PARADIGMS, TRANSFERERS

_PUBLIC = {
    "compt.axes": ("describe",),
    "compt.chain": ("train",),
    "compt.errors": (
        "ComptError",
        "ConfigError",
        "DataError",
        "GrowthError",
        "LayoutError",
        "PluginError",
        "TrainingError",
    ),
    "compt.growth": ("grow",),
    "compt.interfaces": (
        "Architecture",
        "Grower",
        "Growth",
        "Layout",
        "Member",
        "Metric",
        "Paradigm",
        "ParamAxes",
        "Transferer",
    ),
    "compt.operators": ("AxisGrower", "Site"),
    "compt.planning": ("plan",),
    "compt.registry": ("GROWERS", "LAYOUTS", "PARADIGMS", "TRANSFERERS"),
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import compt`` and ``compt -h`` stay fast."""
    if name not in _HOME:
        raise AttributeError(f"module 'compt' has no attribute '{name}'")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
