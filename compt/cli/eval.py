"""Evaluate finished models with suites of benchmarks."""

from __future__ import annotations

import argparse

from compt.cli.shared import add_json, parse_options
from compt.errors import ConfigError

HELP = "measure finished models with benchmarks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the eval command takes."""
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="WORK_DIR|EXPORT",
        help="work folders, of which every finished stage is evaluated, stages, or exported models",
    )
    parser.add_argument(
        "--suite",
        metavar="NAME",
        help="what to measure with (default: all that the models were measured with before)",
    )
    parser.add_argument(
        "--option",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="options of the suite: data=/data/imagenet",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="measure again what was measured with the same options and weights",
    )
    parser.add_argument(
        "-o",
        "--out",
        metavar="FOLDER",
        help="folder for the results (default: in each stage's, or beside the export)",
    )
    parser.add_argument("--list", action="store_true", help="show the suites and their options")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, print one table, and return 1 where a model could not be evaluated."""
    from compt.evaluation import shown
    from compt.evaluation.evaluate import evaluate

    if arguments.list:
        shown.print_suites(as_json=arguments.json)
        return 0
    _check(arguments)
    suite = None
    if arguments.suite:
        options = parse_options(arguments.option, "--option", "data=/data/imagenet")
        if "type" in options:
            raise ConfigError("'type' is no option.", do="--suite NAME says which suite it is.")
        suite = {"type": arguments.suite, **options}
    evaluated = evaluate(
        arguments.paths,
        suite,
        out=arguments.out or None,
        force=arguments.force,
        say=shown.say_on_stderr if arguments.json else print,
    )
    shown.print_results(evaluated.results, evaluated.unfinished, as_json=arguments.json)
    return 1 if any(result.status == "failed" for result in evaluated.results) else 0


def _check(arguments: argparse.Namespace) -> None:
    """Raise ConfigError for arguments that do not go together."""
    if not arguments.paths:
        raise ConfigError(
            "There is nothing to evaluate.",
            do="Name work folders or exported models: compt eval WORK_DIR --suite NAME; "
            "compt eval --list shows the suites.",
        )
    if arguments.option and not arguments.suite:
        raise ConfigError("--option is for one suite.", do="Name it: --suite NAME.")
