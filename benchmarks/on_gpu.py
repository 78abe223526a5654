"""Measure all three paradigms on one GPU, in pieces of under 9 minutes.

Run it again until it says that all is there. ``python benchmarks/on_gpu.py`` needs no arguments,
installs and downloads nothing, and prints the table of what is finished last. Without a GPU it says
so.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from acceleration import acceleration
from measuring.family import read_plan
from measuring.runs import Bench, OutOfTime
from measuring.show import draw, family_table, write

from compt.errors import ComptError
from compt.report.format import plain_console

FAMILIES = ("causal_lm", "clip", "mae")
MEMBERS = 3
WORK_DIR = Path("work_dirs/acceleration")
MINUTES = 8.0
"""Of one piece; what is in training then saves and stops within seconds."""


def main() -> int:
    """Go on with every family until the time is over, and print what is finished."""
    if not torch.cuda.is_available():
        print("This needs a GPU, and there is none: nothing was measured.")
        return 0
    end = time.time() + 60 * MINUTES
    results, left = [], list(FAMILIES)
    try:
        for name in FAMILIES:
            plan = read_plan(name, MEMBERS, "gpu", {})
            bench = Bench(plan, WORK_DIR, minutes=max(0.01, (end - time.time()) / 60))
            result = acceleration(bench)
            path = WORK_DIR / f"acceleration-{plan.name}-{MEMBERS}.json"
            write(result, path)
            draw(result, path.with_suffix(".svg"))
            results.append(result)
            left.remove(name)
    except OutOfTime:
        pass
    except ComptError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(
        f"not finished, run it again: {', '.join(left)}" if left else f"all is there, in {WORK_DIR}"
    )
    plain_console().print(family_table(results), highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
