"""Grow one checkpoint."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compt.cli.shared import add_json, add_shard_size, num_bytes

HELP = "grow one checkpoint, outside any chain"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the grow command takes."""
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
    parser.add_argument(
        "--grower",
        default="compt:lossless",
        help="see compt list; with options as JSON: "
        """'{"type": "extend", "axes": {"vocab": "mean"}}'""",
    )
    parser.add_argument(
        "--paradigm", help="which reads the formats; found from the checkpoint by default"
    )
    parser.add_argument(
        "--source-model", help="what the checkpoint is of, as --to, where it holds weights alone"
    )
    parser.add_argument("--seed", type=int, default=0, help="of fresh values")
    parser.add_argument(
        "--dtype",
        help="number format to write: float32, bfloat16, float16, float64 (default: the source's)",
    )
    add_shard_size(parser)
    parser.add_argument("-o", "--out", required=True, help="folder to write")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Grow, write, and say what became of the tensors."""
    from compt.growth.convert import grow_checkpoint, reading_paradigm
    from compt.report.card import export_folders, growth_card, write_cards
    from compt.report.format import growth_text, tensor_counts
    from compt.report.growth import GrowthReport

    growth = grow_checkpoint(
        Path(arguments.source),
        arguments.target,
        Path(arguments.out),
        grower=_grower(arguments.grower),
        paradigm=arguments.paradigm,
        source_model=arguments.source_model,
        seed=arguments.seed,
        dtype=arguments.dtype,
        max_shard_size=num_bytes(arguments.shard_size),
    )
    source, out = Path(arguments.source), Path(arguments.out)
    paradigm = reading_paradigm(out, arguments.paradigm)
    formats = {folder: paradigm.export_format(folder) for folder in export_folders(out)}
    write_cards(growth_card(growth, source, out), out, formats)
    if arguments.json:
        print(json.dumps(growth, indent=1))
        return 0
    counts = tensor_counts(growth["counts"])
    print(f"{arguments.out}: {counts}; growth {growth_text(GrowthReport.from_json(growth))}")
    rounding = growth.get("rounding_error")
    changes = "" if rounding is None else f", which changes outputs by {rounding:.1e}"
    print(f"written in {growth['dtype']}{changes}")
    print(_memory_line(growth))
    for note in growth["notes"]:
        print(f"note: {note}")
    return 0


def _grower(text: str) -> str | dict[str, Any]:
    """Return a grower's name, or the config that a JSON object is."""
    from compt.errors import ConfigError

    if not text.lstrip().startswith("{"):
        return text
    try:
        config: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise ConfigError(
            f"--grower is no JSON: {error}.",
            do="""For example --grower '{"type": "extend", "axes": {"vocab": "mean"}}'.""",
        ) from error
    if "type" not in config:
        raise ConfigError("--grower has no 'type', the grower's name.", do="See compt list.")
    return config


def _memory_line(growth: Mapping[str, Any]) -> str:
    """Say how much memory it took, and why a large model was held whole."""
    from compt.report.format import quantity

    way = "grown tensor by tensor" if growth["streamed"] else "grown whole"
    peak = growth["peak_memory"]
    memory = "" if peak is None else f", {quantity(peak, 'B')} of memory at most"
    why = f": {growth['whole']}" if growth["whole"] else ""
    return f"{way}{memory}{why}"
