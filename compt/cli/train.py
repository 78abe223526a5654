"""Train a chain."""

from __future__ import annotations

import argparse

from compt.cli.shared import add_options, importing, load
from compt.errors import ConfigError

HELP = "train a chain"


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
    add_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train, and report on what was trained."""
    name, work_dir = _what_to_train(arguments)
    config = load(name, arguments.cfg_options)
    with importing():
        from compt.chain import train
    from mmengine.dist import is_main_process

    from compt.report.progress import Silent
    from compt.report.watch.terminal import on_output
    from compt.training.distributed import start, stop
    from compt.workdir import individual_dir

    if arguments.launcher != "none":
        start(arguments.launcher)
    is_main = is_main_process()
    with on_output() if is_main else Silent() as progress:
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
