"""Compare the results of work folders, as report.json, tables, plots and a page."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from compt.errors import ConfigError, WorkDirError
from compt.planning.devices import check_peak
from compt.report.comparison import Comparison, Report, compare
from compt.report.drawings import DRAWN, Drawings, draw
from compt.report.notes import incident_notes, left_out_notes
from compt.report.results import RunResult, read_run, read_state, start_note
from compt.report.state import ChainState
from compt.report.terminal import show
from compt.writing import atomic

REPORT = "report.json"


def report(
    work_dirs: Sequence[Path], *, out: Path | None = None, tflops: float | None = None
) -> Report:
    """Read the records of one or several work folders.

    Args:
        work_dirs: a folder named twice is read once.
        out: folder to write the report into too; what could not be drawn is warned of.
        tflops: peak of each device in TFLOP/s, in the runs' number format, of which shares are
            shown; None for that of its data sheet, where it is known.

    Raises:
        ConfigError: no folder is named, or the peak is none.
        WorkDirError: a folder is not compt's, or a file in it is damaged.
    """
    folders = list(dict.fromkeys(Path(folder).absolute() for folder in work_dirs))
    if not folders:
        raise ConfigError("There is no work folder to report on.", do="Name at least one.")
    if tflops is not None:
        check_peak(tflops)
    states = [read_state(folder) for folder in folders]
    labels = _labels(states)
    runs = tuple(
        read_run(folder, state, label, tflops=tflops)
        for folder, state, label in zip(folders, states, labels, strict=True)
    )
    notes = [note for note in map(start_note, states, labels) if note]
    notes += [note for run in runs for note in (*left_out_notes(run), *incident_notes(run))]
    comparisons, why_none = _comparisons(runs)
    result = Report(runs, comparisons, (*notes, why_none) if why_none else tuple(notes))
    if out is not None:
        drawings = draw(result)
        write(result, out, drawings)
        for problem in drawings.problems:
            warnings.warn(problem, stacklevel=2)
    return result


def _labels(states: Sequence[ChainState]) -> list[str]:
    """Return what each run is called, numbered where several are of one mode."""
    words = ["chain" if state.mode == "chain" else "alone" for state in states]
    return [
        f"{word} {words[: i + 1].count(word)}" if words.count(word) > 1 else word
        for i, word in enumerate(words)
    ]


def _comparisons(runs: Sequence[RunResult]) -> tuple[tuple[Comparison, ...], str]:
    """Compare every chain with the individual run, or return why that is left out."""
    chains = [run for run in runs if run.mode == "chain"]
    individual = [run for run in runs if run.mode == "individual"]
    if len(individual) == 1:
        return tuple(compare(run, individual[0]) for run in chains), ""
    if individual and chains:
        advice = "Several individual runs: give exactly one of them to compare a chain with it."
        return (), advice
    return (), ""


def write(report: Report, folder: Path, drawings: Drawings | None = None) -> list[Path]:
    """Write report.json, the plots and the page into a folder, and return their paths.

    Each file is written atomically.

    Args:
        drawings: of the report, which is drawn here where they are not given.

    Raises:
        WorkDirError: the folder cannot be written.
    """
    text = json.dumps(report.to_dict(), indent=1, allow_nan=False) + "\n"
    drawings = drawings or draw(report)
    files = {REPORT: text.encode(), **drawings.files}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Drawings of an earlier report would contradict this one. Without a report.json the
        # files of these names are somebody else's.
        if (folder / REPORT).is_file():
            for name in DRAWN - files.keys():
                (folder / name).unlink(missing_ok=True)
        for name, content in files.items():
            with atomic(folder / name) as file:
                file.write_bytes(content)
    except OSError as error:
        raise WorkDirError(
            f"The report cannot be written: {error.strerror or error}.",
            where=str(folder),
            do="Choose another folder with --out.",
        ) from error
    return [folder / name for name in files]


def report_command(
    work_dirs: list[str], json: bool, out: str | None, tflops: float | None = None
) -> int:
    """Report on work folders in the terminal, and in files in ``out`` or the first folder."""
    folders = [Path(folder) for folder in work_dirs]
    result = report(folders, tflops=tflops)
    drawings = draw(result)
    paths = write(result, Path(out) if out is not None else folders[0], drawings)
    show(result, paths, as_json=json)
    for problem in drawings.problems:
        print(problem, file=sys.stderr)
    return 0
