"""Show suites, and what came of evaluations, as tables or JSON."""

from __future__ import annotations

import inspect
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from compt.errors import ComptError
from compt.evaluation.run import Result
from compt.files import FORMAT
from compt.registry import SUITES
from compt.report.evaluation_tables import tables
from compt.report.evaluations import Evaluation
from compt.report.metrics import as_json

_MEANING = {"kept": "kept, as measured before with the same options and weights (--force repeats)"}
"""What a status says, where it says too little."""


def say_on_stderr(line: str) -> None:
    """Print a line where standard output is JSON."""
    print(line, file=sys.stderr)


def print_results(results: Sequence[Result], unfinished: Sequence[str], *, as_json: bool) -> None:
    """Print one table of all models, then what is not in it and why."""
    if as_json:
        content = {
            "format": FORMAT,
            "evaluations": [_content(result) for result in results],
            "unfinished": list(unfinished),
        }
        print(json.dumps(content, indent=1, allow_nan=False))
        return
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False, markup=False)
    width = console.width if console.is_terminal else 100
    console.width = 1000  # a narrow terminal that wraps the lines loses nothing
    measured: dict[str, list[Evaluation]] = {result.subject.name: [] for result in results}
    for result in results:
        if result.evaluation is not None:
            measured[result.subject.name].append(result.evaluation)
    console.print()
    for table in tables(measured, max(80, width)):
        console.print(table)
        console.print()
    for line in _sentences(results, unfinished):
        console.print(line)


def _content(result: Result) -> dict[str, Any]:
    measured = {} if result.evaluation is None else as_json(result.evaluation)
    return {
        "member": result.subject.name,
        "export": str(result.subject.export),
        "status": result.status,
        "reason": result.reason,
        "file": None if result.file is None else str(result.file),
        "suite": result.task.name,
        **measured,
    }


def _sentences(results: Sequence[Result], unfinished: Sequence[str]) -> Iterator[str]:
    """Yield how many evaluations were made, kept, left out and failed, with the reasons."""
    counts = Counter(result.status for result in results)
    yield ", ".join(f"{count} {_MEANING.get(status, status)}" for status, count in counts.items())
    if num_replaced := sum(result.is_replaced for result in results):
        yield f"{num_replaced} in the place of evaluations of other weights"
    if unfinished:
        yield f"not finished, and left out: {', '.join(unfinished)}"
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for result in results:
        if result.reason:
            key = (result.status, result.task.name, result.reason)
            reasons.setdefault(key, []).append(result.subject.name)
    for (status, suite, reason), names in reasons.items():
        yield f"{status}: {suite} of {', '.join(names)}: {reason}"
    for result in results:
        if result.status == "evaluated":
            yield f"wrote {result.file}"


def print_suites(*, as_json: bool) -> None:
    """Print every suite with its first sentence and its options."""
    suites = [_described(name) for name in SUITES.names()]
    if as_json:
        print(json.dumps(suites, indent=1))
        return
    for suite in suites:
        print(f"{suite['name']}: {suite['about']}")
        for option, default in suite["options"].items():
            print(f"    {option}{'' if default is None else f' = {default}'}")


def _described(name: str) -> dict[str, Any]:
    try:
        kind = SUITES.get(name)
    except ComptError as error:
        return {"name": name, "about": error.one_line, "options": {}}
    options = {
        parameter.name: None if parameter.default is parameter.empty else repr(parameter.default)
        for parameter in inspect.signature(kind).parameters.values()
    }
    about = (inspect.getdoc(kind) or "").partition("\n")[0]
    return {"name": name, "about": about, "options": options}
