"""Contract tests for plug-in authors.

Subclass one, name your plug-in, and run pytest. What a test asserts says what is wrong, and what
to do. The family that they train is in :mod:`compt.testing.toy`.
"""

from compt.testing.data import DataSourceContract
from compt.testing.growers import GrowerContract
from compt.testing.layouts import LayoutContract
from compt.testing.paradigms import ParadigmContract
from compt.testing.suites import SuiteContract
from compt.testing.trackers import TrackerContract
from compt.testing.transferers import TransfererContract

__all__ = [
    "DataSourceContract",
    "GrowerContract",
    "LayoutContract",
    "ParadigmContract",
    "SuiteContract",
    "TrackerContract",
    "TransfererContract",
]
