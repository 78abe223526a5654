"""The command line, one function a command.

Heavy imports wait until a command needs them.
"""

from __future__ import annotations

import argparse
import errno
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compt.errors import ComptError, ConfigError
from compt.registry.arguments import shown
from compt.training.signals import Interruptible, exit_code

if TYPE_CHECKING:
    from compt.config import ChainConfig


NAMES_AT_FAULT = frozenset(
    (
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ELOOP,
    )
)
"""What the system says of a path that cannot be used."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit code.

    0 when it is done, 1 if training or data failed, 2 for bad input, 130 and 143 where SIGINT
    (Ctrl-C) or SIGTERM has ended it.
    """
    with Interruptible() as signals:
        return _guarded(lambda: _parsed(arguments), signals)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="compt", description="Pre-train families of models, small to large."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.add_arguments(commands.add_parser(name, help=command.help))
    return parser.parse_args(arguments)


def _guarded(parse: Callable[[], argparse.Namespace], signals: Interruptible) -> int:
    """Parse and run a command, with errors as one message on stderr."""
    try:
        arguments = parse()
        return COMMANDS[arguments.command].run(arguments)
    except ComptError as error:
        print(f"compt: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # whoever read the output has seen enough of it
        return 1
    except KeyboardInterrupt:
        return _interrupted(signals.number or signal.SIGINT)
    except Exception as error:
        # A library that is interrupted while it is imported may raise an error of its own.
        if signals.number:
            return _interrupted(signals.number)
        if isinstance(error, OSError) and error.filename is not None:
            return _not_opened(error)
        raise


def _not_opened(error: OSError) -> int:
    """Say which file the system refuses, as bad input where it is the name or a permission."""
    print(f"compt: {error.strerror}: {shown(str(error.filename))}", file=sys.stderr)
    return ConfigError.exit_code if error.errno in NAMES_AT_FAULT else ComptError.exit_code


def _interrupted(number: int) -> int:
    name = signal.Signals(number).name
    more = "--resume goes on with a chain from what it has saved"
    print(f"compt: interrupted by {name}; {more}.", file=sys.stderr)
    return exit_code(number)


def train_main(arguments: Sequence[str] | None = None) -> int:
    """Run the train command without its name, as mim calls ``tools/train.py``."""

    def parsed() -> argparse.Namespace:
        parser = argparse.ArgumentParser(description="Train a chain of models, small to large.")
        add_train_arguments(parser)
        return parser.parse_args(arguments, argparse.Namespace(command="train"))

    with Interruptible() as signals:
        return _guarded(parsed, signals)


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
        "--from-stage",
        metavar="NAME",
        help="with --resume: train this stage and those after it anew, by the config as it now is",
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


def _add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config")
    parser.add_argument("--individual", action="store_true", help="plan every member alone")
    parser.add_argument(
        "--pilot",
        nargs="+",
        metavar="WORK_DIR",
        help="predict the chain's budgets from runs of --individual, one a seed",
    )
    _add_options(parser)
    _add_json(parser)


def _add_grow_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="CKPT",
        help="in a paradigm's own format, or a stage's folder",
    )
    parser.add_argument(
        "--to",
        dest="target",
        required=True,
        metavar="CONFIG_OR_DIR",
        help="JSON config, model name or folder",
    )
    parser.add_argument("--grower", default="compt:lossless")
    parser.add_argument(
        "--paradigm", help="which reads the formats; found from the checkpoint by default"
    )
    parser.add_argument(
        "--source-model", help="what the checkpoint is of, as --to, where it holds weights alone"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--dtype",
        help="number format to write: float32, bfloat16, float16, float64 (default: the source's)",
    )
    parser.add_argument("-o", "--out", required=True, help="folder to write")
    _add_json(parser)


def _add_report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("work_dirs", nargs="+", metavar="WORK_DIR")
    parser.add_argument(
        "-o", "--out", help="folder for plots and report.json (default: the first work folder)"
    )
    _add_json(parser)


def _add_new_plugin_arguments(parser: argparse.ArgumentParser) -> None:
    from compt.scaffold import KINDS

    parser.add_argument("name", help="of the package, for example compt-mean-fill")
    parser.add_argument("--kind", required=True, choices=list(KINDS))
    parser.add_argument(
        "-o", "--out", metavar="FOLDER", help="folder to write (default: the package's name)"
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="override keys: chain.1.epochs=9",
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="machine-readable output")


def find_config(name: str) -> Path:
    """Return a config's path, given as one or as a name among those that compt ships."""
    path = Path(name)
    try:
        if path.exists():
            return path
        wanted = path if path.suffix else path.with_suffix(".py")
    except (OSError, ValueError) as error:  # a name too long, or none
        raise ConfigError(f"{shown(name)} is no path: {error}.", do="Check the path.") from error
    root = Path(__file__).parent
    for folder in (root / ".mim" / "configs", root.parent / "configs"):  # as mim finds them
        for candidate in sorted(folder.rglob("*.py")):
            if candidate.parts[-len(wanted.parts) :] == wanted.parts:
                return candidate
    raise ConfigError(
        f"There is no config '{name}', neither here nor among those that compt ships.",
        do="Check the path.",
    )


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Return KEY=VALUE arguments as mmengine reads them."""
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
    """Return the config and the work folder, wherever on the command line they were given."""
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


def _load(name: str, options: Sequence[str]) -> ChainConfig:
    from compt.config import load_config

    return load_config(find_config(name), parse_options(options))


def _train(arguments: argparse.Namespace) -> int:
    from mmengine.dist import is_main_process

    from compt.chain import train
    from compt.report.progress import Silent, Terminal
    from compt.training.distributed import start, stop
    from compt.workdir import individual_dir

    name, work_dir = _what_to_train(arguments)
    config = _load(name, arguments.cfg_options)
    if arguments.launcher != "none":
        start(arguments.launcher)
    is_main = is_main_process()
    with Terminal() if is_main else Silent() as progress:
        folder = train(
            config,
            work_dir=work_dir,
            resume=bool(arguments.resume),
            from_stage=arguments.from_stage,
            individual=arguments.individual,
            launcher=arguments.launcher,
            progress=progress,
        )
    if arguments.launcher != "none":
        stop()
    if not is_main:
        return 0
    from compt.report.build import report_command

    compared = config.compare and not arguments.individual
    folders = [folder, individual_dir(folder)] if compared else [folder]
    return report_command(list(map(str, folders)), json=False, out=None)


def _plan(arguments: argparse.Namespace) -> int:
    from compt.planning.planner import plan

    config = _load(arguments.config, arguments.cfg_options)
    result = plan(config, individual=arguments.individual)
    prediction = None
    if arguments.pilot:
        from compt.report.prediction import predict, read_pilots

        prediction = predict(read_pilots(list(map(Path, arguments.pilot))))
    if arguments.json:
        extra = {} if prediction is None else {"prediction": asdict(prediction)}
        print(json.dumps({**result.to_dict(), **extra}, indent=1))
        return 0
    from compt.report.format import plain_console
    from compt.report.plan_table import plan_table, plan_text, prediction_text

    console = plain_console()
    console.print(plan_table(result))
    console.print(plan_text(result))
    if prediction is not None:
        console.print(prediction_text(prediction))
    return 0


def _grow(arguments: argparse.Namespace) -> int:
    from compt.growth.convert import grow_checkpoint
    from compt.registry.registry import short_name
    from compt.report.format import growth_text, tensor_counts
    from compt.report.growth import GrowthReport

    growth = grow_checkpoint(
        Path(arguments.source),
        arguments.target,
        Path(arguments.out),
        grower=arguments.grower,
        paradigm=arguments.paradigm,
        source_model=arguments.source_model,
        seed=arguments.seed,
        dtype=arguments.dtype,
    )
    growth["grower"] = short_name(arguments.grower)
    if arguments.json:
        print(json.dumps(growth, indent=1))
        return 0
    counts = tensor_counts(growth["counts"])
    print(f"{arguments.out}: {counts}; growth {growth_text(GrowthReport.from_json(growth))}")
    rounding = growth.get("rounding_error")
    changes = "" if rounding is None else f", which changes outputs by {rounding:.1e}"
    print(f"written in {growth['dtype']}{changes}")
    for note in growth["notes"]:
        print(f"note: {note}")
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

    out = Path(arguments.out) if arguments.out else None
    folder = new_plugin(arguments.name, arguments.kind, out)
    print(next_steps(folder, arguments.kind))
    return 0


@dataclass(frozen=True)
class _Command:
    """A command's purpose, the arguments it takes, and what it does."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


COMMANDS: Mapping[str, _Command] = {
    "train": _Command("train a chain", add_train_arguments, _train),
    "plan": _Command(
        "show sizes and compute of a chain; trains nothing", _add_plan_arguments, _plan
    ),
    "grow": _Command("grow one checkpoint, outside any chain", _add_grow_arguments, _grow),
    "list": _Command("plug-ins by registry; imports nothing", _add_json, _list),
    "check": _Command("load every plug-in and say ok or why not", _add_json, _check),
    "report": _Command("table and plots of finished stages", _add_report_arguments, _report),
    "new-plugin": _Command(
        "write a package with a plug-in of your own, tests included",
        _add_new_plugin_arguments,
        _new_plugin,
    ),
}
