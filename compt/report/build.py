"""Compare the results of work folders, as report.json, tables and plots."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from compt.errors import ConfigError, WorkDirError
from compt.files import atomic
from compt.report.comparison import Comparison, Report, compare
from compt.report.format import incident_lines, left_out_lines
from compt.report.plots import draw_plots
from compt.report.results import RunResult, read_run, read_state, start_note
from compt.report.state import ChainState
from compt.report.terminal import show

REPORT = "report.json"
PLOTS = {
    f"{stem}.{kind}" for stem in ("quality_vs_compute", "acceleration") for kind in ("png", "svg")
}


def report(work_dirs: Sequence[Path], *, out: Path | None = None) -> Report:
    """Read the records of one or several work folders.

    Args:
        work_dirs: a folder named twice is read once.
        out: folder to write the report into too.

    Raises:
        WorkDirError: a folder is not compt's, or a file in it is damaged.
    """
    folders = list(dict.fromkeys(Path(folder).absolute() for folder in work_dirs))
    if not folders:
        raise ConfigError("There is no work folder to report on.", do="Name at least one.")
    states = [read_state(folder) for folder in folders]
    labels = _labels(states)
    runs = tuple(map(read_run, folders, states, labels))
    notes = [note for note in map(start_note, states, labels) if note]
    notes += [note for run in runs for note in (*_left_out(run), *_incidents(run))]
    comparisons, why_none = _comparisons(runs)
    result = Report(runs, comparisons, (*notes, why_none) if why_none else tuple(notes))
    if out is not None:
        write(result, out)
    return result


def _left_out(run: RunResult) -> Iterator[str]:
    """Yield what of the data was left out, once where it was the same for several members."""
    lines: dict[str, list[str]] = {}
    for member in run.members:
        for line in left_out_lines(member.record.left_out):
            lines.setdefault(line, []).append(member.name)
    for line, names in lines.items():
        which = "" if len(names) == len(run.members) else f", {', '.join(names)}"
        yield f"{run.label}{which}: {line}."


def _incidents(run: RunResult) -> Iterator[str]:
    """Yield what happened to the losses of a run's members."""
    for member in run.members:
        for line in incident_lines(member.record):
            yield f"{run.label}, '{member.record.name}': {line}."


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


def write(report: Report, folder: Path) -> list[Path]:
    """Write report.json and the plots into a folder, and return their paths.

    Each file is written atomically.

    Raises:
        WorkDirError: the folder cannot be written.
    """
    text = json.dumps(report.to_dict(), indent=1, allow_nan=False) + "\n"
    files = {REPORT: text.encode(), **draw_plots(report)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Plots of an earlier report would contradict this one. Without a report.json the
        # files of these names are somebody else's.
        if (folder / REPORT).is_file():
            for name in PLOTS - files.keys():
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


def report_command(work_dirs: list[str], json: bool, out: str | None) -> int:
    """Report on work folders in the terminal, and in files in ``out`` or the first folder."""
    folders = [Path(folder) for folder in work_dirs]
    result = report(folders)
    paths = write(result, Path(out) if out is not None else folders[0])
    show(result, paths, as_json=json)
    return 0
