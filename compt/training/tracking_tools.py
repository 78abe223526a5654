"""Find the trackers of back ends, and check that they are installed.

mmengine's back ends do the logging. One without a tracker gets the same records, and nothing is
filled in for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any

from compt.config.taken_over import short
from compt.errors import ConfigError
from compt.interfaces.tracker import RunLabels, Tracker
from compt.registry import TRACKERS

UNKNOWN = Tracker()


def tracker_of(backend: Mapping[str, Any]) -> Tracker:
    """Return the tracker of a back end's config.

    Raises:
        PluginError: it is broken, or several packages have one for this back end.
    """
    kind = TRACKERS.find(short(backend.get("type", "")))
    return UNKNOWN if kind is None else kind()


def run_key(backend: Mapping[str, Any]) -> str:
    """Return the name under which a stage keeps the run of a back end."""
    return tracker_of(backend).package or short(backend.get("type", ""))


def labelled(backends: Iterable[Mapping[str, Any]], labels: RunLabels) -> list[dict[str, Any]]:
    """Return configs of back ends with what they leave out of the labels."""
    return [tracker_of(backend).labelled(backend, labels) for backend in backends]


def registering(backends: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the modules that register these back ends.

    Raises:
        ConfigError: the package of one is not installed, or an option is none that it has.
    """
    modules: list[str] = []
    for backend in backends:
        tracker = tracker_of(backend)
        if tracker.package and find_spec(tracker.package) is None:
            kind = backend["type"]
            raise ConfigError(
                f"{kind} needs the package '{tracker.package}', which is not installed.",
                where="visualizer.vis_backends",
                do=TRACKERS.install_command(short(kind), tracker.package),
            )
        tracker.check(backend)
        modules += tracker.imports
    return modules
