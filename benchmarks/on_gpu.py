"""Measure families on one GPU, in pieces of under 9 minutes.

Run it again until it says that all is there. ``python benchmarks/on_gpu.py`` needs no arguments,
installs and downloads nothing, and prints the table of what is finished last. Without a GPU it says
so.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from measuring.family import read_family
from measuring.row import Rows
from measuring.runs import Bench, OutOfTime
from measuring.show import write
from measuring.tables import saving_table

from compt.errors import ComptError
from compt.report.format import plain_console

FAMILIES = ("lm", "scenes", "mae")
WORK_DIR = Path("work_dirs/saving")
MINUTES = 8.0
"""Of one piece; what is in training then saves and stops within seconds."""


def main() -> int:
    """Go on with every family until the time is over, and print what is finished."""
    if not torch.cuda.is_available():
        print("This needs a GPU, and there is none: nothing was measured.")
        return 0
    end = time.time() + 60 * MINUTES
    finished = False
    try:
        for name in FAMILIES:
            family = read_family(name, "gpu", {})
            rows = Rows(Bench(family, WORK_DIR, minutes=max(0.01, (end - time.time()) / 60)))
            done = []
            for iters in family.lengths:
                done.append(rows.measure(iters))
                write(done, WORK_DIR / f"{family.name}.json")
        finished = True
    except OutOfTime:
        pass
    except ComptError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"all is there, in {WORK_DIR}" if finished else "not finished, run it again")
    results = sorted(WORK_DIR.glob("*.json"))
    table = [row for path in results for row in json.loads(path.read_text())]
    plain_console().print(saving_table(table), highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
