"""Hand out the model of a finished stage."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compt.cli.shared import add_json, add_shard_size, num_bytes
from compt.errors import ComptError, ConfigError, did_you_mean

if TYPE_CHECKING:
    from compt.interfaces import Paradigm

HELP = "write a finished stage's model for its library, with its model card"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the export command takes."""
    parser.add_argument("stage", help="a finished stage's folder, or WORK_DIR/NAME of its member")
    parser.add_argument("-o", "--out", required=True, help="folder to write")
    parser.add_argument(
        "--dtype",
        help="number format to write: float32, bfloat16, float16, float64, or bf16, fp16 "
        "(default: as it is)",
    )
    add_shard_size(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check the hashes, write the model and its card, and say what was written."""
    shard_size = num_bytes(arguments.shard_size)
    folder, out = _stage_folder(Path(arguments.stage)), Path(arguments.out)
    from compt.files import EXPORT, MANIFEST, check_recorded
    from compt.growth.export import export_checkpoint
    from compt.report.card import write_stage_cards
    from compt.report.format import quantity
    from compt.report.record import StageRecord

    record = StageRecord.read(folder / MANIFEST)
    config, source = _config(folder), folder / EXPORT
    check_recorded(source)
    paradigm = _paradigm(config, source)
    report = export_checkpoint(
        source, out, paradigm, dtype=arguments.dtype, max_shard_size=shard_size
    )
    changes = ""
    if (error := report.get("rounding_error")) is not None:
        changes = f", which changes outputs by {error:.1e}"
    written = f"Written in {report['dtype']}{changes}."
    more = f"\n## Weights\n\n{written}\n"
    write_stage_cards(folder, record, config, paradigm, export=out, more=more)
    if arguments.json:
        print(json.dumps({"stage": str(folder), "out": str(out), **report}, indent=1))
        return 0
    print(
        f"{out}: '{record.name}' of {folder.parent}, {quantity(sum(report['files'].values()), 'B')}"
    )
    for name, size in report["files"].items():
        print(f"  {name}  {quantity(size, 'B')}")
    print("  README.md  its model card")
    print(f"{written[0].lower()}{written[1:-1]}")
    for note in report["notes"]:
        print(f"note: {note}")
    return 0


def _stage_folder(path: Path) -> Path:
    """Return a stage's folder, given as one or as its member's name in the work folder.

    Raises:
        ConfigError: there is no such stage, or it is not finished.
    """
    from compt.files import MANIFEST, STATE, stage_name
    from compt.report.state import ChainState

    if (path / MANIFEST).is_file():
        return path
    work = path.parent
    if not (work / STATE).is_file():
        raise ConfigError(
            f"'{path}' is no finished stage.", do="Name the folder of one, or WORK_DIR/MEMBER."
        )
    names = ChainState.read(work / STATE).members
    folders = {name: stage_name(index, name) for index, name in enumerate(names)}
    name = path.name if path.name in folders else _member_of(path.name, folders)
    if name is None:
        raise ConfigError(
            f"The chain in '{work}' has no member '{path.name}'.{did_you_mean(path.name, names)}",
            do=f"Members: {', '.join(names)}.",
        )
    if not (work / folders[name] / MANIFEST).is_file():
        raise ConfigError(f"Stage '{name}' of '{work}' is not finished.", do="Train it first.")
    return work / folders[name]


def _member_of(folder: str, folders: Mapping[str, str]) -> str | None:
    return next((name for name, own in folders.items() if own == folder), None)


def _config(folder: Path) -> Mapping[str, Any]:
    """Return the config of a stage's chain, with its modules imported.

    Raises:
        ConfigError: the folder is of no work folder any more.
    """
    from mmengine.utils import import_modules_from_strings

    from compt.config.keys import listed
    from compt.files import STATE
    from compt.registry.foreign_configs import check_types
    from compt.report.state import ChainState

    work = folder.absolute().parent
    if not (work / STATE).is_file():
        raise ConfigError(
            f"'{work}' has no {STATE}, which says of what chain the stage is.",
            do="Leave the stage in its work folder.",
        )
    config = ChainState.read(work / STATE).config
    check_types(config, work / STATE, has_plugins=True)
    modules = listed((config.get("custom_imports") or {}).get("imports"))
    try:
        import_modules_from_strings(modules)
    except ImportError as error:
        raise ConfigError(
            f"A module of the chain's config cannot be imported: {error}.",
            where="custom_imports",
            do="Run compt where it can, or add its folder to PYTHONPATH.",
        ) from error
    return config


def _paradigm(config: Mapping[str, Any], export: Path) -> Paradigm:
    """Build the chain's paradigm, which follows the export, so that the first checkpoint may go.

    Without its data where it can do without, as that may be elsewhere.
    """
    from compt.growth.models import build_paradigm
    from compt.interfaces.paradigm import FOLLOW

    options = dict(config["paradigm"])
    followed = {**options, FOLLOW: str(export)}
    paradigm = build_paradigm(followed)
    licence = paradigm.data_licence
    if options.get("data") is not None:
        try:
            paradigm = build_paradigm({**followed, "data": None})
        except ComptError:  # one that needs it
            return paradigm
        paradigm.data_licence = licence
    return paradigm
