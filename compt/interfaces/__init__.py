"""The plug-in contract, one interface a file, all of it importable from here.

A plug-in author needs this package and nothing else of the core. Words: a *chain* trains *members*
small to large; weights grow from *source* to *target*, features are learned by a *student* from its
*teacher* (the previous, smaller member).

May import: weights, errors and below.
"""

from compt.interfaces.architecture import Architecture, Group, ParamAxes, Role, Unit
from compt.interfaces.buffers import BufferRule, ruled_buffers
from compt.interfaces.data import (
    DataSource,
    Images,
    ImageSource,
    Text,
    TextSource,
    Tokens,
    TokenSource,
    TokenSpan,
)
from compt.interfaces.draws import Draws
from compt.interfaces.fingerprint import fingerprint
from compt.interfaces.grower import Grower, Growth, Objective, Status
from compt.interfaces.layout import Layout
from compt.interfaces.left_out import LeftOut, left_out
from compt.interfaces.nested import map_tensors
from compt.interfaces.paradigm import (
    Batch,
    ExportFormat,
    Member,
    Metric,
    Outputs,
    Paradigm,
    asked_after_step,
)
from compt.interfaces.plugin import (
    Plugin,
    accepted,
    check_signatures,
    may_omit,
    renamed_method,
    warn_renamed,
)
from compt.interfaces.starter import ConfigDraft, MemberSize, SeenData, Starter
from compt.interfaces.suite import Suite
from compt.interfaces.tracker import RunLabels, Tracker
from compt.interfaces.transferer import SCHEDULES, Schedule, Transferer

__all__ = [
    "SCHEDULES",
    "Architecture",
    "Batch",
    "BufferRule",
    "ConfigDraft",
    "DataSource",
    "Draws",
    "ExportFormat",
    "Group",
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
    "Plugin",
    "Role",
    "RunLabels",
    "Schedule",
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
    "Unit",
    "accepted",
    "asked_after_step",
    "check_signatures",
    "fingerprint",
    "left_out",
    "map_tensors",
    "may_omit",
    "renamed_method",
    "ruled_buffers",
    "warn_renamed",
]
