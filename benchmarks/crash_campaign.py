"""Interrupt a chain in every way that is known, at random moments, resume it, and compare bytes.

``python benchmarks/crash_campaign.py --trials 100 --paradigm clip --json clip.json`` trains a chain
of three members, which takes a second or two, with 0 and 2 processes that read samples and over 1
and 2 processes (gloo, CPU). Each trial draws by its number a fault, what it strikes, and when; then
it does what a person would do, and judges what came of it: ``crashing/trial.py`` says how.

Interrupted, the same command goes on. ``--only N`` repeats one trial and keeps its folders.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crashing import chains, processes
from crashing.strikes import Moments
from crashing.trial import FAULTS, Stage, Trial, clean, draw

from compt._version import __version__

WORLD_SIZES = (1, 2)
Counts = dict[int, list[dict[str, int]]]


def prepare(paradigm: str, folder: Path, world_sizes: Sequence[int]) -> tuple[Stage, Counts]:
    """Train without interruption, over each number of processes, and count what moments that has.

    Raises:
        SystemExit: it fails.
    """
    configs, references, counts = {}, {}, {}
    for world_size in world_sizes:
        content = chains.config(paradigm, folder, world_size)
        configs[world_size] = chains.write(content, folder / f"chain_{world_size}.py")
        references[world_size] = folder / f"reference_{world_size}"
    stage = Stage(folder, configs, references)
    for world_size in world_sizes:
        counts[world_size] = _reference(stage, world_size)
        stage.num_steps = counts[world_size][0]["step"]
    return stage, counts


def _reference(stage: Stage, world_size: int) -> list[dict[str, int]]:
    run = stage.references[world_size]
    streams = Path(f"{run}.out")
    for earlier in (run, streams):
        shutil.rmtree(earlier, ignore_errors=True)
    streams.mkdir()
    notes = [streams / f"moments{rank}" for rank in range(world_size)]

    def arm(rank: int) -> None:
        Moments(run, note=notes[rank]).watch()

    command = stage.command(run, world_size, num_workers=0)
    ended = processes.run(command, streams, world_size=world_size, arm=arm)
    if not ended.is_done:
        raise SystemExit(f"The uninterrupted run failed:\n{''.join(ended.errors)}")
    processes.import_what(streams / processes.IMPORTED)
    return [
        dict(zip(("step", "access"), map(int, note.read_text().split()), strict=True))
        for note in notes
    ]


def table(trials: list[dict[str, Any]]) -> str:
    """Return how the trials of each fault have ended."""
    rows = [f"{'fault':20} {'trials':>6} {'alike':>6} {'advised':>8} {'lost':>5} {'unclear':>8}"]
    for fault in (*FAULTS, "all"):
        of_fault = [t for t in trials if fault in ("all", t["drawn"]["fault"])]
        if not of_fault:
            continue
        verdicts = Counter(t["verdict"] for t in of_fault)
        unclear = sum(not t["is_clear"] for t in of_fault)
        row = f"{verdicts['alike']:6} {verdicts['advised']:8} {verdicts['lost']:5} {unclear:8}"
        rows.append(f"{fault:20} {len(of_fault):6} {row}")
    return "\n".join(rows)


def summary(paradigm: str, trials: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return all trials with what they were made with."""
    every = list(trials.values())
    return {
        "paradigm": paradigm,
        "compt": __version__,
        "python": platform.python_version(),
        "verdicts": dict(Counter(t["verdict"] for t in every)),
        "unclear": sum(not t["is_clear"] for t in every),
        "repeated": sum(t["repeated"] for t in every),
        "others_seconds": max((t["others_seconds"] for t in every), default=0.0),
        "trials": trials,
    }


def save(content: dict[str, Any], file: Path) -> None:
    beside = file.with_suffix(".tmp")
    beside.write_text(json.dumps(content, indent=1) + "\n")
    beside.replace(file)


def show(trial: Trial) -> None:
    drawn = trial.drawn
    when = f"{drawn.moment.kind} {drawn.moment.number}"
    spread = f"{drawn.world_size} x {drawn.num_workers} workers, rank {drawn.rank}"
    mark = "" if trial.is_clear else ", unclear"
    print(
        f"{drawn.number:4} {drawn.fault:20} {when:11} {spread:24} {trial.damaged or '-':30} "
        f"{trial.verdict}{mark} ({trial.seconds:.1f} s)",
        flush=True,
    )
    for reason in (*trial.reasons[:5], *filter(None, [trial.said])):
        print(f"     {reason}", flush=True)


def main() -> int:
    """Run the trials that are not in the file yet, print a table, and return 1 if one is lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=36, help="numbers 0 to N - 1")
    parser.add_argument("--paradigm", choices=list(chains.CHAINS), default="toy")
    parser.add_argument(
        "--processes", type=int, choices=WORLD_SIZES, help="only the trials over so many"
    )
    parser.add_argument("--json", type=Path, help="file of results, which is read and written")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of trials to repeat")
    parser.add_argument("--folder", type=Path, help="for the runs; one that is removed by default")
    parser.add_argument("--minutes", type=float, help="begin no trial after so long")
    arguments = parser.parse_args()
    trials: dict[str, dict[str, Any]] = {}
    if arguments.json and arguments.json.is_file() and arguments.only is None:
        trials = json.loads(arguments.json.read_text())["trials"]
    numbers = arguments.only or [n for n in range(arguments.trials) if str(n) not in trials]
    processes.warm_up(arguments.paradigm)
    until = time.monotonic() + 60 * (arguments.minutes or 1e9)
    folder = (arguments.folder or Path(tempfile.mkdtemp(prefix="compt-crash-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    world_sizes = (arguments.processes,) if arguments.processes else WORLD_SIZES
    # Not by TemporaryDirectory: the forked runs would remove it at their end.
    try:
        stage, counts = prepare(arguments.paradigm, folder, world_sizes)
        for number in numbers:
            if time.monotonic() > until:
                break
            drawn = draw(number, arguments.paradigm, counts)
            if drawn is None:
                continue
            trial = stage.play(drawn)
            show(trial)
            trials[str(number)] = trial.to_json()
            if arguments.json and arguments.only is None:
                save(summary(arguments.paradigm, trials), arguments.json)
            if arguments.only is None and trial.verdict != "lost":
                clean(stage, number)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(table(list(trials.values())))
    return int(any(t["verdict"] == "lost" for t in trials.values()))


if __name__ == "__main__":
    sys.exit(main())
