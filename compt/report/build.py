"""compt report: the results of one or several work folders, compared, as report.json, tables and
pictures.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from compt.errors import ConfigError, WorkDirError
from compt.files import atomic
from compt.report.comparison import Comparison, Report, compare
from compt.report.plots import pictures
from compt.report.results import read_run, read_state
from compt.report.terminal import show

REPORT = "report.json"
PICTURES = {
    f"{stem}.{kind}" for stem in ("quality_vs_compute", "acceleration") for kind in ("png", "svg")
}


def report(work_dirs: Sequence[Path], *, out: Path | None = None) -> Report:
    """Read the manifests of one or several work folders; also write the report into ``out`` if
    given.

    Raises:
        WorkDirError: a folder is not compt's, or a file in it is damaged.
    """
    folders = list(dict.fromkeys(Path(folder).absolute() for folder in work_dirs))
    if not folders:
        raise ConfigError("There is no work folder to report on.", do="Name at least one.")
    notes: list[str] = []
    states = [read_state(folder) for folder in folders]
    words = ["chain" if state["mode"] == "chain" else "alone" for state in states]
    labels = [
        f"{w} {words[: i + 1].count(w)}" if words.count(w) > 1 else w for i, w in enumerate(words)
    ]
    runs = tuple(read_run(*one, notes) for one in zip(folders, states, labels, strict=True))
    individual = [run for run in runs if run.mode == "individual"]
    comparisons: tuple[Comparison, ...] = ()
    if len(individual) == 1:
        comparisons = tuple(compare(run, individual[0]) for run in runs if run.mode == "chain")
    elif len(individual) > 1 and len(runs) > len(individual):
        notes.append(
            "Several individual runs: give exactly one of them to compare a chain with it."
        )
    result = Report(runs, comparisons, tuple(notes))
    if out is not None:
        write(result, out)
    return result


def write(report: Report, folder: Path) -> list[Path]:
    """Write report.json and the pictures into a folder, each file atomically; return their paths.

    Raises:
        WorkDirError: the folder cannot be written.
    """
    text = json.dumps(report.to_dict(), indent=1, allow_nan=False) + "\n"
    files = {REPORT: text.encode(), **pictures(report)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / REPORT).is_file():  # pictures of an earlier report would contradict this one
            for name in PICTURES - files.keys():
                (folder / name).unlink(missing_ok=True)
        for name, content in files.items():
            with atomic(folder / name) as file:
                file.write_bytes(content)
    except OSError as error:
        what = f"The report cannot be written: {error.strerror or error}."
        raise WorkDirError(
            what, where=str(folder), do="Choose another folder with --out."
        ) from error
    return [folder / name for name in files]


def report_command(work_dirs: list[str], json: bool, out: str | None) -> int:
    """Report on work folders: tables, or JSON, on stdout; files into ``out`` or the first
    folder.
    """
    folders = [Path(folder) for folder in work_dirs]
    result = report(folders)
    paths = write(result, Path(out) if out is not None else folders[0])
    show(result, paths, as_json=json)
    return 0
