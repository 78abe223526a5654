"""Chains that the contracts train, in seconds on a CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compt.chain import train
from compt.config import load_config
from compt.errors import ComptError
from compt.files import MANIFEST, WEIGHTS, stage_name
from compt.registry import PluginRegistry
from compt.registry.entry_points import object_path
from compt.report.progress import Silent
from compt.report.record import StageRecord
from compt.shards import weight_files
from compt.testing._shared import Violation, described, random_state_kept, require

TOY_MEMBERS = (dict(width=8, depth=1), dict(width=16, depth=2), dict(width=24, depth=3))


def chain_config(
    paradigm: Mapping[str, Any], models: Any, *, iters: int, batch_size: int
) -> dict[str, Any]:
    """Return a config of one member a model, each trained for a few iterations.

    Args:
        paradigm: the paradigm's own config.
        models: the members' models, from small to large.
        iters: iterations of each stage.
        batch_size: samples in each iteration.
    """
    members = [dict(name=f"member_{i}", model=model, iters=iters) for i, model in enumerate(models)]
    return dict(
        paradigm=dict(paradigm),
        train_dataloader=dict(batch_size=batch_size),
        checkpoint=dict(interval=1),
        evaluations=1,
        chain=members,
    )


def toy_chain(**paradigm: Any) -> dict[str, Any]:
    """Return a config of three toy members."""
    return chain_config(
        dict(type="toy", samples=64, **paradigm), TOY_MEMBERS, iters=4, batch_size=16
    )


@contextmanager
def by_name(registry: PluginRegistry, config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a plug-in's config with a name as its type.

    A class, which no config file can hold, is registered under a name for as long.
    """
    plugin = config["type"]
    if isinstance(plugin, str):
        yield dict(config)
        return
    name = f"contract of {object_path(plugin)}"
    registry.register_module(name=name, module=plugin, force=True)
    try:
        yield {**config, "type": name}
    finally:
        registry.module_dict.pop(name)


class Interrupted(Exception):
    """The error that stops a chain in the middle of a stage."""


class StopsAtTheEnd(Silent):
    """A display that stops the first stage before its last checkpoint is written."""

    def report(self, iteration: int, iters: int, loss: float) -> None:
        """Raise Interrupted at the last iteration."""
        if iteration == iters:
            raise Interrupted


def trained(
    config: Mapping[str, Any], folder: Path, do: str, *, resume: bool = False, stop: bool = False
) -> None:
    """Train a chain, and turn whatever stops it into a Violation.

    Args:
        config: the chain's.
        folder: its work directory.
        do: what the plug-in's author should do where it fails.
        resume: whether to go on in the folder.
        stop: whether to interrupt the first stage before its last checkpoint.
    """
    progress = StopsAtTheEnd() if stop else None
    with random_state_kept():
        try:
            train(dict(config), work_dir=folder, resume=resume, progress=progress)
        except Interrupted:
            return
        except Exception as error:
            why = error.one_line if isinstance(error, ComptError) else described(error)
            raise Violation(f"A chain with it does not train: {why}", do) from error


def require_results(config: Mapping[str, Any], folder: Path) -> None:
    """Require that every stage is done, with finite metrics."""
    for index, stage in enumerate(load_config(dict(config)).stages):
        path = folder / stage_name(index, stage.member.name)
        require(
            (path / MANIFEST).is_file() and bool(weight_files(path / WEIGHTS)),
            f"The stage '{stage.member.name}' is not done.",
            "Raise a ComptError for what cannot be done; never end the process.",
        )
        for name, metric in StageRecord.read(path / MANIFEST).metrics.items():
            require(
                metric.value is not None,
                f"After the stage '{stage.member.name}' the metric {name} is not finite.",
                "Return finite values: of weights from grow(), of loss terms from forward() and "
                "loss(), of metrics().",
            )
