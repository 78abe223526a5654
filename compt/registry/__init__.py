"""Find the plug-ins that packages declare or this process registers, by name.

May import: interfaces, errors and below; it imports a plug-in only when that one is asked for.
"""

from compt.registry.registry import (
    DATA,
    GROWERS,
    LAYOUTS,
    PARADIGMS,
    REGISTRIES,
    SUITES,
    TRACKERS,
    TRANSFERERS,
    PluginRegistry,
)
from compt.registry.values import Range

__all__ = [
    "DATA",
    "GROWERS",
    "LAYOUTS",
    "PARADIGMS",
    "REGISTRIES",
    "SUITES",
    "TRACKERS",
    "TRANSFERERS",
    "PluginRegistry",
    "Range",
]
