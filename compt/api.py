"""List the public API, which plug-ins and scripts may import, and say how it changes.

The version counts the contract, not the package. A minor step adds names, arguments or methods with
defaults; what is to go is marked in ``DEPRECATED`` first and warns for one minor version; only a
major step takes away. A plug-in says what it was written for with ``api_version = "1.1"`` in its
class. ``tests/api`` holds every signature.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

API_VERSION = "1.2"

TOP: Mapping[str, tuple[str, ...]] = {
    "compt.api": ("API_VERSION",),
    "compt.evaluation.evaluate": ("evaluate",),
    "compt.growth.axes": ("describe",),
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
    "compt.growth.matching": ("check_growable", "matching", "source_block"),
    "compt.growth.run": ("grow",),
    "compt.interfaces": (
        "Architecture",
        "Batch",
        "ConfigDraft",
        "DataSource",
        "Draws",
        "ExportFormat",
        "Grower",
        "Growth",
        "ImageSource",
        "Images",
        "Layout",
        "LeftOut",
        "Member",
        "MemberSize",
        "Metric",
        "Objective",
        "Outputs",
        "Paradigm",
        "ParamAxes",
        "RunLabels",
        "SeenData",
        "Starter",
        "Status",
        "Suite",
        "Text",
        "TextSource",
        "TokenSource",
        "TokenSpan",
        "Tokens",
        "Tracker",
        "Transferer",
    ),
    "compt.growth.operators": (
        "AxisGrower",
        "ParamPair",
        "status",
        "tensors_of",
        "writes_stream",
    ),
    "compt.planning.planner": ("plan",),
    "compt.registry": (
        "DATA",
        "GROWERS",
        "LAYOUTS",
        "PARADIGMS",
        "SUITES",
        "TRACKERS",
        "TRANSFERERS",
        "Range",
    ),
}
"""What ``compt`` itself offers, by the module that defines it: ``from compt import describe``."""

MODULES: Mapping[str, tuple[str, ...]] = {
    "compt.data": (
        "FileSource",
        "build_source",
        "open_source",
        "open_text",
        "renumber",
        "splits",
    ),
    "compt.data.text": ("TokenBlocks", "Tokenizer", "open_tokens"),
    "compt.growers.leading_block": ("LeadingBlock",),
    "compt.growers.lossless": ("Lossless",),
    "compt.paradigms.averages": ("average_of", "move_average", "restart_average", "rising"),
    "compt.paradigms.causal_lm": ("ByteTokenizer", "CausalLm", "LmTokenizer", "open_tokenizer"),
    "compt.paradigms.clip": ("Clip",),
    "compt.paradigms.images": (
        "ImageParadigm",
        "ImageStarter",
        "View",
        "Views",
        "WholeImages",
        "labelled_features",
        "neighbours",
        "random_view",
    ),
    "compt.paradigms.mae": ("Mae",),
    "compt.paradigms.own_models": ("OwnModels",),
    "compt.paradigms.text": (
        "IGNORED",
        "ByteTokenizer",
        "Family",
        "LmTokenizer",
        "TextParadigm",
        "TextStarter",
        "cross_entropy",
        "open_tokenizer",
        "token_metrics",
    ),
    "compt.testing": (
        "DataSourceContract",
        "GrowerContract",
        "LayoutContract",
        "ParadigmContract",
        "SuiteContract",
        "TrackerContract",
        "TransfererContract",
    ),
    "compt.testing.toy": ("Toy", "ToyNet"),
    "compt.transfers.feature_mse": ("FeatureMse",),
    "compt.transfers.logit_kl": ("LogitKl",),
    "compt.weights": ("load_state", "load_weights", "read_state", "save_weights"),
}
"""What further modules offer, under their own paths: ``from compt.paradigms.clip import Clip``."""


@dataclass(frozen=True)
class Deprecation:
    """A public name on its way out, with what to use and when it began to warn."""

    use: str
    """``module:name`` of what takes its place."""
    since: str


DEPRECATED: Mapping[str, Deprecation] = {
    "Site": Deprecation("compt.growth.operators:ParamPair", since="1.2"),
    "AxisGrower.expand() site": Deprecation("AxisGrower.expand() pair", since="1.2"),
    "AxisGrower.prepare() site": Deprecation("AxisGrower.prepare() archs", since="1.2"),
    "AxisGrower.renew() site": Deprecation("AxisGrower.init_new_block() pair", since="1.2"),
}
"""What still works and warns, as tests/api writes it.

Each goes with the minor version after ``since``.

Arguments that compt itself passes by position need no warning."""

_HOME = {name: module for module, names in TOP.items() for name in names}
NAMES = tuple(_HOME)


def find(name: str) -> Any:
    """Return the object behind a public name of ``compt``, imported now.

    A deprecated name warns, as the caller of ``compt.<name>``.

    Raises:
        AttributeError: there is no such name.
    """
    if name in DEPRECATED:
        gone = DEPRECATED[name]
        module, _, attribute = gone.use.partition(":")
        warnings.warn(
            f"compt.{name} is deprecated since API {gone.since}: use {module}.{attribute}.",
            DeprecationWarning,
            stacklevel=3,
        )
        return getattr(import_module(module), attribute)
    if name not in _HOME:
        raise AttributeError(f"module 'compt' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def fault(wanted: Any) -> str:
    """Say why a plug-in written for an API version cannot be used here, '' where it can."""
    try:
        major, minor = map(int, str(wanted).split("."))
    except ValueError:
        return f"states the API version {wanted!r}, which is not of the form '1.0'"
    here_major, here_minor = map(int, API_VERSION.split("."))
    if major == here_major and minor <= here_minor:
        return ""
    return f"was written for the plug-in API {wanted}, and this compt has {API_VERSION}"
