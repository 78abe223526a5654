"""Chains that the contracts train: small enough for seconds on a CPU."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compt.chain import train
from compt.config import load_config
from compt.errors import ComptError
from compt.files import MANIFEST, WEIGHTS, read_json, stage_name
from compt.registry import PluginRegistry
from compt.registry.entry_points import object_path
from compt.report.progress import Silent
from compt.testing._shared import Violation, described, random_state_kept, require

TOY_MEMBERS = (dict(width=8, depth=1), dict(width=16, depth=2), dict(width=24, depth=3))


def chain_config(
    paradigm: Mapping[str, Any], models: Any, *, iters: int, batch_size: int
) -> dict[str, Any]:
    """A config of members of these models, from small to large, each trained for a few
    iterations.
    """
    return dict(
        paradigm=dict(paradigm),
        train_dataloader=dict(batch_size=batch_size),
        checkpoint=dict(interval=1),
        evaluations=1,
        chain=[
            dict(name=f"member_{i}", model=model, iters=iters) for i, model in enumerate(models)
        ],
    )


def toy_chain(**paradigm: Any) -> dict[str, Any]:
    """A config of three toy members."""
    return chain_config(
        dict(type="toy", samples=64, **paradigm), TOY_MEMBERS, iters=4, batch_size=16
    )


@contextmanager
def by_name(registry: PluginRegistry, config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A plug-in's config with a name as its type; a class, which no config file can hold, has one
    for as long.
    """
    kind = config["type"]
    if isinstance(kind, str):
        yield dict(config)
        return
    name = f"contract of {object_path(kind)}"
    registry.register_module(name=name, module=kind, force=True)
    try:
        yield {**config, "type": name}
    finally:
        registry.module_dict.pop(name)


class Interrupted(Exception):
    """What stops a chain in the middle of a stage."""


class StopsAtTheEnd(Silent):
    """Stop the first stage before its last checkpoint is written."""

    def report(self, iteration: int, iters: int, loss: float) -> None:
        """Raise at the last iteration."""
        if iteration == iters:
            raise Interrupted


def trained(
    config: Mapping[str, Any], folder: Path, do: str, *, resume: bool = False, stop: bool = False
) -> None:
    """Train a chain, with a Violation in the place of whatever stops it."""
    with random_state_kept():
        try:
            train(
                dict(config),
                work_dir=folder,
                resume=resume,
                progress=StopsAtTheEnd() if stop else None,
            )
        except Interrupted:
            return
        except Exception as error:
            why = error.one_line if isinstance(error, ComptError) else described(error)
            raise Violation(f"A chain with it does not train: {why}", do) from error


def require_results(config: Mapping[str, Any], folder: Path) -> None:
    """Every stage is done, and its figures are finite."""
    for index, stage in enumerate(load_config(dict(config)).stages):
        path = folder / stage_name(index, stage.member.name)
        require(
            (path / MANIFEST).is_file() and (path / WEIGHTS).is_file(),
            f"The stage '{stage.member.name}' is not done.",
            "Raise a ComptError for what cannot be done; never end the process.",
        )
        for name, metric in read_json(path / MANIFEST)["metrics"].items():
            require(
                math.isfinite(metric["value"]),
                f"After the stage '{stage.member.name}' the metric {name} is {metric['value']}.",
                "Return finite values: of weights from grow(), of loss terms from forward() and loss(), of metrics().",
            )
