"""Measure on one GPU what a stage reaches of it, then families, in under 9 minutes a call.

``python benchmarks/on_gpu.py`` needs no arguments, and installs and downloads nothing. First comes
correctness: losses beside the CPU's, a resumed run beside an uninterrupted one. Then the share of
the device's measured matrix multiplication that a step reaches (MFU): CLIP with ViT-B/16 and
ViT-L/16 at 224 px, and a language model of 350 million parameters at context 2,048, in bfloat16 and
compiled, with the graphs that are compiled anew and the times that the host waits. The rest of the
time goes to the families of ``saving.py``: run it again until it says that all is there. Tables are
in ``work_dirs/``, too. Without a GPU it says so.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from measuring.family import read_family
from measuring.row import Rows
from measuring.runs import Bench, OutOfTime
from measuring.show import write
from measuring.tables import controls_table, saving_table
from measuring.utilisation import ON_GPU, Sizes, rate_row, resumed_alike, rows_of
from scale_on_gpu import Row, as_on_cpu, show

from compt.errors import ComptError
from compt.report.format import plain_console
from compt.report.software import environment

FAMILIES = ("lm", "scenes", "mae")
WORK_DIR = Path("work_dirs/saving")
DEVICE_FILE = Path("work_dirs/on_gpu.json")
MINUTES = 8.0
"""Of one call; what is in training then saves and stops within seconds."""
COMPILING = 75.0
"""Seconds that a model's measurement may take, and without which it does not begin."""
SMALL = {"width": 256, "layers": 4, "context": 256}
"""Of the model that is trained on the CPU too."""


def main() -> int:
    """Measure the device unless that was done, go on with the families, and print all tables."""
    if not torch.cuda.is_available():
        print("This needs a GPU, and there is none: nothing was measured.")
        return 0
    end = time.time() + 60 * MINUTES
    is_met = True
    if not DEVICE_FILE.is_file():
        is_met = device(end)
    code = families(end)
    return code if is_met else code or 1


def device(end: float) -> bool:
    """Measure what stages reach of the device, and return whether all goals are met."""
    rows, failed = list[Row](), list[str]()
    for name, measurement in measurements(ON_GPU, SMALL):
        if time.time() + COMPILING > end:
            failed.append(f"{name}: the time is over")
            continue
        try:
            rows += measurement()
        except Exception as error:  # one that fails, as by memory, leaves the others their time
            failed.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[:1]}")
        gc.collect()
        torch.cuda.empty_cache()
    DEVICE_FILE.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "environment": environment(),
        "rows": [asdict(row) for row in rows],
        "failed": failed,
    }
    DEVICE_FILE.write_text(json.dumps(content, indent=1) + "\n")
    show(rows)
    print("\n".join(f"not measured: {line}" for line in failed))
    return not failed and all(row.is_met is not False for row in rows)


def measurements(
    sizes: Sizes, small: dict[str, int]
) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    """Yield what is measured by name, correctness first."""
    yield "losses", lambda: as_on_cpu(small)
    with tempfile.TemporaryDirectory() as folder:
        yield "resume", lambda: resumed_alike(Path(folder))
    rate, row = rate_row(sizes)
    yield "matrices", lambda: [row]
    for trained in sizes.models:
        yield trained.name, partial(rows_of, trained, sizes, rate)


def families(end: float) -> int:
    """Go on with every family until the time is over, and print what is finished."""
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
    for text in (controls_table(table), saving_table(table)):
        plain_console().print(text, highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
