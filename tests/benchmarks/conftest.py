"""Makes the folder of the benchmarks importable, as it is for their commands."""

from __future__ import annotations

import sys

from tests.environments import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
