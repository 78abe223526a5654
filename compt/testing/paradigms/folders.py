"""Checks of the files that a paradigm writes and reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import nn

from compt.errors import ConfigError
from compt.files import WEIGHTS
from compt.growth.operators import tensors_of
from compt.interfaces import Paradigm
from compt.testing._shared import (
    Violation,
    changed,
    described,
    must_work,
    randomised,
    require,
    snapshot,
    some,
)
from compt.weights import hand_over_weights, save_weights


def export_randomised(paradigm: Paradigm, model: nn.Module, folder: Path) -> None:
    """Give a model random gains and biases, and export it into an empty folder.

    Raises:
        Violation: exporting fails or changes the model.
    """
    values = snapshot(randomised(model, scale=0.05))
    with must_work(
        "export() fails",
        "Write the model into the folder, which is empty, in its library's format.",
    ):
        paradigm.export(model, folder)
    touched = changed(values, model)
    require(not touched, f"export() changes {some(touched)} of the model.", "Convert a copy.")


def require_recognised(paradigm: Paradigm, export: Path, others: Mapping[str, Path]) -> None:
    """Require that ``recognises`` tells an export from other paths.

    Args:
        paradigm: whose export it is.
        export: the folder that it wrote.
        others: paths that it cannot load, by what they are.
    """
    require(
        paradigm.recognises(export),
        "recognises() is False for what export() wrote.",
        "Override recognises(path): True where load() can read the path.",
    )
    for kind, path in others.items():
        with must_work(
            f"recognises() fails for {kind}", "Return False for what load() cannot read."
        ):
            recognised = paradigm.recognises(path)
        require(
            not recognised,
            f"recognises() is True for {kind}.",
            "Look for the files that load() reads.",
        )


def require_loaded_weights(
    paradigm: Paradigm, model: nn.Module, export: Path, make_other: Callable[[], nn.Module]
) -> None:
    """Require that ``load_weights`` fills a model from a stage's weights and from an export.

    Args:
        paradigm: whose weights they are.
        model: the model that was exported.
        export: its folder; the weights of a stage are written beside it.
        make_other: returns a model with other weights.
    """
    weights = export.parent / WEIGHTS
    save_weights(model, weights)
    index = hand_over_weights(model, export.parent / "shards" / WEIGHTS, max_shard_size=1)[0]
    kinds = {
        "a stage's weights.safetensors": weights,
        "a stage's weights in shards, by their index,": index,
        "its export": export,
    }
    for kind, path in kinds.items():
        other = make_other()
        with must_work(
            f"load_weights() cannot read {kind}",
            "End load_weights() with super().load_weights().",
        ):
            paradigm.load_weights(other, path)
        different = changed(tensors_of(model), other)
        require(
            not different,
            f"load_weights() of {kind} leaves {some(different)} as it was.",
            "Load strictly, with compt.weights.load_state: all of the model's tensors, or "
            "ConfigError.",
        )


def require_damage_refused(paradigm: Paradigm, model: nn.Module, damaged: Path) -> None:
    """Require that ``load_weights`` raises ConfigError for a file that holds no weights."""
    damaged.write_bytes(b"no weights")
    try:
        paradigm.load_weights(model, damaged)
    except ConfigError:
        return
    except Exception as error:
        raise Violation(
            f"load_weights() of a damaged file raises {described(error)}.",
            "Raise compt.ConfigError: compt.weights.read_state does.",
        ) from error
    raise Violation("load_weights() accepts a damaged file.", "Raise compt.ConfigError.")
