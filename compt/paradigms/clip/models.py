"""Check open_clip's model configs and build models from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from copy import deepcopy
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.factory import _find_checkpoint_in_dir
from open_clip.model import (
    CLIP,
    CLIPTextCfg,
    CLIPVisionCfg,
    CustomTextCLIP,
    convert_to_custom_text_state_dict,
)
from open_clip.tokenizer import HFTokenizer
from torch import Tensor, nn

from compt.errors import ConfigError, did_you_mean
from compt.interfaces import Member
from compt.paradigms._checkpoints import dtype_in_files
from compt.registry.foreign_configs import TRUST, refuse_code

OF_OPENAI = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's archives hold among the weights."""
REQUIRED_KEYS = ("embed_dim", "vision_cfg", "text_cfg")
OPTIONAL_KEYS = ("custom_text", "quick_gelu", "init_logit_scale", "init_logit_bias")
KEYS = frozenset(REQUIRED_KEYS + OPTIONAL_KEYS)
"""What a member's config may hold."""


def model_config(member: Member) -> dict[str, Any]:
    """Return the open_clip config of a member.

    Raises:
        ConfigError: unknown names or keys, with the nearest ones, or keys that are missing.
    """
    if isinstance(member.model, str):
        return named_config(member)
    # A folder's JSON wraps the model's config.
    wrapped = member.model.get("model_cfg", member.model)
    config: dict[str, Any] = json.loads(json.dumps(wrapped))
    faults = _unknown_keys("model", config, KEYS)
    faults += [f"model.{key} is missing." for key in REQUIRED_KEYS if key not in config]
    for key, cls in (("vision_cfg", CLIPVisionCfg), ("text_cfg", CLIPTextCfg)):
        tower = config.get(key, {})
        if isinstance(tower, Mapping):
            faults += _unknown_keys(f"model.{key}", tower, {field.name for field in fields(cls)})
        else:
            faults.append(f"model.{key} is no dict.")
    if faults:
        raise ConfigError(
            f"The model of member '{member.name}' is not an open_clip config: {' '.join(faults)}"
        )
    return config


def _unknown_keys(where: str, config: Mapping[str, Any], known: Set[str]) -> list[str]:
    unknown = sorted(set(config) - known)
    return [f"{where}.{key} is unknown.{did_you_mean(key, known)}" for key in unknown]


def named_config(member: Member) -> dict[str, Any]:
    """Return the config of a member that is an open_clip name or a folder.

    Raises:
        ConfigError: open_clip has no such model, or the folder's config cannot be read.
    """
    name = f"local-dir:{member.model}" if Path(member.model).is_dir() else member.model
    try:
        config = open_clip.get_model_config(name)
        if not isinstance(config, dict | None):
            raise ValueError("its model_cfg is no dict")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        # open_clip raises AttributeError where the file's JSON is no dict.
        raise ConfigError(
            f"Cannot read the model '{member.model}' of member '{member.name}': {error}."
        ) from error
    if config is None:
        near = did_you_mean(member.model, open_clip.list_models())
        raise ConfigError(
            f"open_clip has no model '{member.model}' (member '{member.name}').{near}",
            do="See open_clip.list_models().",
        )
    refuse_code(config, f"model '{member.model}'")
    return config


def in_folder(path: Path) -> Member:
    """Return a folder's model as a member."""
    return Member(path.name, f"local-dir:{path}")


def open_tokenizer(
    options: Mapping[str, Any], context_length: int, folder: Path | None = None
) -> Any:
    """Open the tokenizer that the keys of a text config with 'tokenizer' in them describe.

    One of transformers is read from ``folder``, where one is named, as open_clip does.
    """
    name = options.get("hf_tokenizer_name") and str(folder or options["hf_tokenizer_name"])
    arguments = options.get("tokenizer_kwargs") or {}
    if name:
        mode = options.get("tokenizer_mode")
        refuse_code(arguments, "text_cfg.tokenizer_kwargs")
        # Else transformers would ask on the terminal whether a tokenizer's code is to be run.
        arguments = {**arguments, TRUST: False}
        return HFTokenizer(name, context_length, tokenizer_mode=mode, **arguments)
    return _simple_tokenizer(context_length, json.dumps(arguments, sort_keys=True))


@lru_cache(maxsize=8)
def _simple_tokenizer(context_length: int, arguments: str) -> Any:
    """Open CLIP's own tokenizer, once a process, as it reads 49,000 words every time.

    Args:
        context_length: ids of a text.
        arguments: the others, as JSON.
    """
    return open_clip.SimpleTokenizer(context_length=context_length, **json.loads(arguments))


def vocabulary(model: nn.Module) -> int | None:
    """Return how many tokens a model has embeddings for, None where it does not say."""
    for owner in (model, getattr(model, "text", None)):
        size = getattr(owner, "vocab_size", None)
        if isinstance(size, int):
            return size
    return None


def image_sides(model: Any) -> tuple[int, int]:
    """Return the height and width of the images that a model reads."""
    size = model.visual.image_size
    height, width = size if isinstance(size, Sequence) else (size, size)
    return height, width


def tokens_of(tokenizer: Any) -> int | None:
    """Return how many ids a tokenizer of open_clip gives, None where it does not say."""
    size = getattr(tokenizer, "vocab_size", None)
    return size if isinstance(size, int) else None


def build(member: Member, config: Mapping[str, Any]) -> nn.Module:
    """Build a model with fresh weights from a complete config.

    Raises:
        ConfigError: sizes that open_clip refuses, or a timm tower of another image size.
    """
    custom = config.get("custom_text") or "hf_model_name" in config["text_cfg"]
    cls = CustomTextCLIP if custom else CLIP
    arguments = {k: v for k, v in deepcopy(dict(config)).items() if k != "custom_text"}
    try:
        model: nn.Module = cls(**arguments)
    except (AssertionError, ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        raise ConfigError(
            f"open_clip cannot build the model of member '{member.name}': "
            f"{type(error).__name__}: {error}",
            do="Check its sizes: heads must divide widths "
            "(image tower: width / head_width heads, 64 by default).",
        ) from error
    _check_timm_size(member, model)
    return model


def load_folder(path: Path) -> nn.Module:
    """Load a model with its weights, as open_clip does.

    Raises:
        ConfigError: it has no weights, or they are damaged or another model's.
    """
    try:
        model: nn.Module = open_clip.create_model(f"local-dir:{path}", require_pretrained=True)
    except Exception as error:  # open_clip, torch and safetensors each have their own
        raise ConfigError(
            f"The weights in '{path}' cannot be loaded: {type(error).__name__}: {error}",
            do="Give a folder that open_clip or compt exported.",
        ) from error
    return model


def as_open_clip(state: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Return a state dict under the names that open_clip has today, as open_clip reads old ones."""
    state = dict(convert_state_dict(model, dict(state)))
    for name in OF_OPENAI:
        state.pop(name, None)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = dict(convert_to_custom_text_state_dict(state) or state)
    state.pop("text.transformer.embeddings.position_ids", None)
    for name in ("logit_scale", "logit_bias"):
        own = getattr(model, name, None)
        if name in state and own is not None and own.numel() == state[name].numel():
            state[name] = state[name].reshape(own.shape)
    return state


def weight_dtype(path: Path) -> torch.dtype | None:
    """Return the number format of a folder's weights, or of a file's."""
    file = _find_checkpoint_in_dir(path) if path.is_dir() else str(path)
    return dtype_in_files([Path(file)]) if file else None


def _check_timm_size(member: Member, model: nn.Module) -> None:
    """Raise ConfigError where a timm tower's image size is not the config's.

    open_clip builds such a tower at timm's own size and does not look at the config's.
    """
    patch_embed = getattr(getattr(model.visual, "trunk", None), "patch_embed", None)
    own: Any = getattr(patch_embed, "img_size", None)
    size: Any = model.visual.image_size  # type: ignore[union-attr]
    if own is not None and tuple(own) != tuple(size):
        raise ConfigError(
            f"The timm tower of member '{member.name}' takes images of {tuple(own)}, "
            f"its config says {tuple(size)}.",
            do=f"Set vision_cfg.image_size={own[0]}, or use a timm model of the size you want.",
        )
