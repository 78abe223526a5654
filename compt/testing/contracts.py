"""All contracts in one place, with what tests of plug-ins often need beside them."""

from compt.testing._shared import Violation, is_finite_scalar, randomised, snapshot
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
    "Violation",
    "is_finite_scalar",
    "randomised",
    "snapshot",
]
