"""The command line, one function a command. Heavy imports wait until a command needs them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compt.errors import ComptError, ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0 when it is done, 1 if training or data failed, 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="compt", description="Pre-train families of models, small to large."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    train = commands.add_parser("train", help="train a chain")
    add_train_arguments(train)
    _add_others(commands)
    return run(parser.parse_args(arguments))


def run(arguments: argparse.Namespace) -> int:
    """Run a parsed command; errors become one message on stderr."""
    handlers = {
        "train": _train,
        "plan": _plan,
        "grow": _grow,
        "list": _list,
        "check": _check,
        "report": _report,
        "new-plugin": _new_plugin,
    }
    try:
        return handlers[arguments.command](arguments)
    except ComptError as error:
        print(f"compt: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("compt: interrupted; --resume goes on from the last checkpoint.", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1


def train_main(arguments: Sequence[str] | None = None) -> int:
    """Run ``tools/train.py``, which mim calls: the train command without its name."""
    parser = argparse.ArgumentParser(description="Train a chain of models, small to large.")
    add_train_arguments(parser)
    parsed = parser.parse_args(arguments)
    parsed.command = "train"
    return run(parsed)


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the train command takes."""
    parser.add_argument(
        "config", nargs="?", help="path of a config, or the name of one that compt ships"
    )
    parser.add_argument("--work-dir", help="folder to write to (default: work_dirs/CONFIG_NAME)")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        metavar="WORK_DIR",
        help="go on with the chain in the work folder (--work-dir, or given here)",
    )
    parser.add_argument(
        "--individual", action="store_true", help="train every member alone, for comparison"
    )
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="for several processes",
    )
    parser.add_argument("--local-rank", "--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    _add_options(parser)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="override keys: chain.1.epochs=9",
    )


def _add_others(commands: Any) -> None:
    plan = commands.add_parser("plan", help="show sizes and compute of a chain; trains nothing")
    plan.add_argument("config")
    plan.add_argument("--individual", action="store_true", help="plan every member alone")
    plan.add_argument(
        "--pilot",
        nargs="+",
        metavar="WORK_DIR",
        help="predict the chain's budgets from runs of --individual, one a seed",
    )
    _add_options(plan)
    grow = commands.add_parser("grow", help="grow one checkpoint, outside any chain")
    grow.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="CKPT",
        help="in a paradigm's own format, or a stage's folder",
    )
    grow.add_argument(
        "--to",
        dest="target",
        required=True,
        metavar="CONFIG_OR_DIR",
        help="JSON config, model name or folder",
    )
    grow.add_argument("--grower", default="lossless")
    grow.add_argument(
        "--paradigm", help="which reads the formats; found from the checkpoint by default"
    )
    grow.add_argument(
        "--source-model", help="what the checkpoint is of, as --to, where it holds weights alone"
    )
    grow.add_argument("--seed", type=int, default=0)
    grow.add_argument("-o", "--out", required=True, help="folder to write")
    names = commands.add_parser("list", help="plug-ins by registry; imports nothing")
    check = commands.add_parser("check", help="load every plug-in and say ok or why not")
    report = commands.add_parser("report", help="table and pictures of finished stages")
    report.add_argument("work_dirs", nargs="+", metavar="WORK_DIR")
    report.add_argument(
        "-o", "--out", help="folder for pictures and report.json (default: the first work folder)"
    )
    plugin = commands.add_parser(
        "new-plugin", help="write a package with a plug-in of your own, tests included"
    )
    plugin.add_argument("name", help="of the package, for example compt-mean-fill")
    plugin.add_argument(
        "--kind", required=True, choices=["grower", "transfer", "paradigm", "layout"]
    )
    plugin.add_argument(
        "-o", "--out", metavar="FOLDER", help="folder to write (default: the package's name)"
    )
    for command in (plan, grow, names, check, report):
        command.add_argument("--json", action="store_true", help="machine-readable output")


def find_config(name: str) -> Path:
    """A config by path, or by name among those that compt ships, as mim finds them."""
    path = Path(name)
    if path.exists():
        return path
    root, wanted = Path(__file__).parent, path if path.suffix else path.with_suffix(".py")
    for folder in (root / ".mim" / "configs", root.parent / "configs"):
        found = sorted(
            p for p in folder.rglob(wanted.name) if p.parts[-len(wanted.parts) :] == wanted.parts
        )
        if found:
            return found[0]
    raise ConfigError(
        f"There is no config '{name}', neither here nor among those that compt ships.",
        do="Check the path.",
    )


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE arguments as mmengine reads them."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser()
    parser.add_argument("--options", nargs="+", action=DictAction)
    if bad := [pair for pair in pairs if "=" not in pair]:
        raise ConfigError(
            f"--cfg-options: {bad[0]!r} is not KEY=VALUE.",
            do="For example --cfg-options chain.1.epochs=9.",
        )
    return parser.parse_args(["--options", *pairs]).options if pairs else {}


def _what_to_train(arguments: argparse.Namespace) -> tuple[str, str | None]:
    """The config and the work folder, wherever on the command line they were given."""
    config, folder, resume = arguments.config, arguments.work_dir, arguments.resume
    if config is None and isinstance(resume, str):  # 'train --resume CONFIG'
        config, resume = resume, True
    if config is None:
        raise ConfigError(
            "No config is given.",
            do="compt train CONFIG, for example: compt train configs/clip_chain.py",
        )
    if isinstance(resume, str) and folder not in (None, resume):
        raise ConfigError(
            f"--work-dir {folder} and --resume {resume} name two folders.", do="Give one of them."
        )
    return config, resume if isinstance(resume, str) else folder


def _train(arguments: argparse.Namespace) -> int:
    from mmengine.dist import is_main_process

    from compt.chain import train
    from compt.config import load_config
    from compt.report.progress import Silent, Terminal
    from compt.training.distributed import start, stop

    name, work_dir = _what_to_train(arguments)
    config = load_config(find_config(name), parse_options(arguments.cfg_options))
    if arguments.launcher != "none":
        start(arguments.launcher)
    folders: list[Path] = []
    for individual in (
        (False, True) if config.compare and not arguments.individual else (arguments.individual,)
    ):
        if folders:
            work_dir = f"{folders[0]}_individual"
        with Terminal() if is_main_process() else Silent() as progress:
            folder = train(
                config,
                work_dir=work_dir,
                resume=bool(arguments.resume),
                individual=individual,
                launcher=arguments.launcher,
                progress=progress,
                beside=folders[0] if folders else None,
            )
        folders.append(folder)
    main = is_main_process()
    if arguments.launcher != "none":
        stop()
    if not main:
        return 0
    from compt.report.build import report_command

    return report_command([str(folder) for folder in folders], json=False, out=None)


def _plan(arguments: argparse.Namespace) -> int:
    from compt.config import load_config
    from compt.planning.planner import plan

    config = load_config(find_config(arguments.config), parse_options(arguments.cfg_options))
    result = plan(config, individual=arguments.individual)
    predicted = None
    if arguments.pilot:
        from compt.report.prediction import predict, read_pilots

        predicted = predict(read_pilots([Path(folder) for folder in arguments.pilot]))
    if arguments.json:
        prediction = {} if predicted is None else {"prediction": asdict(predicted)}
        print(json.dumps({**result.to_dict(), **prediction}, indent=1))
        return 0
    from compt.report.format import plain_console, plan_table, plan_text, prediction_text

    console = plain_console()
    console.print(plan_table(result))
    console.print(plan_text(result))
    if predicted is not None:
        console.print(prediction_text(predicted))
    return 0


def _grow(arguments: argparse.Namespace) -> int:
    from compt.growth.convert import grow_checkpoint
    from compt.report.format import growth_text

    growth = grow_checkpoint(
        Path(arguments.source),
        arguments.target,
        Path(arguments.out),
        grower=arguments.grower,
        paradigm=arguments.paradigm,
        source_model=arguments.source_model,
        seed=arguments.seed,
    )
    if arguments.json:
        print(json.dumps(growth, indent=1))
        return 0
    counts = ", ".join(f"{number} {status}" for status, number in growth["counts"].items())
    print(f"{arguments.out}: {counts}; growth {growth_text(growth)}")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from compt.registry.listing import list_command

    return list_command(arguments.json)


def _check(arguments: argparse.Namespace) -> int:
    from compt.registry.listing import check_command

    return check_command(arguments.json)


def _report(arguments: argparse.Namespace) -> int:
    from compt.report.build import report_command

    return report_command(arguments.work_dirs, json=arguments.json, out=arguments.out)


def _new_plugin(arguments: argparse.Namespace) -> int:
    from compt.scaffold import new_plugin, next_steps

    folder = new_plugin(
        arguments.name, arguments.kind, Path(arguments.out) if arguments.out else None
    )
    print(next_steps(folder, arguments.kind))
    return 0
