"""Require that what a starter writes is code, and says models that its paradigm builds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from compt.interfaces import ConfigDraft, Member, MemberSize, Paradigm, SeenData, Starter
from compt.registry import DATA, PARADIGMS
from compt.testing._shared import must_work, require, some

SEEN = SeenData(num_samples=5000, num_bytes=5_000_000, short_side=70, caption_words=6)
"""Images with captions and text at once, so that every paradigm finds what it learns from."""


def require_example_data(starter: Starter) -> None:
    """Require that the example data needs no files, and is what the paradigm learns from."""
    name = starter.example_data
    if not name:
        return
    do = "Name in example_data a source that needs no options, or leave it out."
    with must_work(f"The data source '{name}' of its starter cannot be built", do):
        provides = DATA.build({"type": name}).provides
    require(
        any(provides >= set(needed) for needed in starter.needs),
        f"The data source '{name}' of its starter holds {some(provides)}, and not what needs says.",
        do,
    )


def require_draft(starter: Starter, preset: str, paradigm: Mapping[str, Any]) -> None:
    """Require of the config of one preset that its models are built, each larger than the last.

    Args:
        starter: of the paradigm.
        preset: a key of its sizes.
        paradigm: its config, with data that is there.
    """
    name = f"The draft of the preset '{preset}'"
    do = "Write sizes as widths and layers, small to large: {'tiny': '64x3,128x4'}."
    with must_work(f"The sizes of the preset '{preset}' cannot be read", do):
        sizes = [MemberSize.parse(size) for size in starter.sizes[preset].split(",")]
    do = "Return compt.ConfigDraft(...) for whatever was seen of the data."
    with must_work(f"{name} cannot be written", do):
        draft = starter.draft(SEEN, sizes, preset=preset)
        starter.draft(SeenData(num_samples=5000, num_bytes=5_000_000), sizes, preset=preset)
    require(isinstance(draft, ConfigDraft), f"{name} is a {type(draft).__name__}.", do)
    require(
        len(draft.models) == len(sizes) and draft.num_samples > 0,
        f"{name} has {len(draft.models)} models for {len(sizes)} sizes, and {draft.num_samples} "
        "samples of an epoch.",
        "Write one model for each size, and count samples from what was seen.",
    )
    models, options = _evaluated(draft, name)
    counts = _params({**paradigm, **options}, models, name)
    require(
        counts == sorted(set(counts)),
        f"{name} has members of {counts} parameters.",
        "Make a larger size a larger model.",
    )


def _evaluated(draft: ConfigDraft, name: str) -> tuple[list[Any], dict[str, Any]]:
    """Return the models and options of a draft, as a config that has its code would."""
    names: dict[str, Any] = {}
    do = "Write Python as a config has it, each argument of options ending in a comma."
    with must_work(f"{name} is no code", do):
        exec(draft.definitions, names)
        models = [eval(model, names) for model in draft.models]
        options = eval(f"dict(\n{draft.options}\n)", names)
        parts = [eval(part, names) for part in (draft.optimizer, draft.transfer)]
    require(
        all(isinstance(part, dict) and "type" in part for part in parts),
        f"{name} has an optimizer or transfer that is no dict(type=..., ...).",
        do,
    )
    return models, options


def _params(config: Mapping[str, Any], models: list[Any], name: str) -> list[int]:
    """Return the parameters of each model, built on the meta device."""
    do = "Write models and options that the paradigm takes."
    with must_work(f"{name} has models that cannot be built", do), torch.device("meta"):
        paradigm: Paradigm = PARADIGMS.build(config)
        members = [paradigm.build_model(Member(f"m{i}", model)) for i, model in enumerate(models)]
    return [sum(param.numel() for param in member.parameters()) for member in members]
