"""Tell a config's settings from its sizes, and find those that another config leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from compt.interfaces import Member
from compt.paradigms.text.folder import read_config
from compt.paradigms.text.tokenizer import quiet

SIZES = frozenset(
    {
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "n_inner",
        "rotary_dim",
    }
)
"""Keys of configs that are of the size, under transformers' common names."""
PER_LAYER = frozenset({"layer_types", "max_window_layers"})
NOT_CARRIED = frozenset(
    {
        "architectures",
        "auto_map",
        "dtype",
        "quantization_config",
        "torch_dtype",
        "transformers_version",
        "use_cache",
        "_name_or_path",
    }
)
"""Keys of configs that say how a model was stored, not what it is."""
OF_VOCABULARY = frozenset({"vocab_size", "bos_token_id", "eos_token_id", "pad_token_id"})
NO_PAD = -1
"""What old configs have as pad_token_id where there is none."""
OLD_ROPE = frozenset({"rope_theta", "rope_scaling"})


def settings(path: Path) -> dict[str, Any]:
    """Return what the config of a folder says that is not of the model's size, ``{}`` for none.

    Keys are those that transformers writes today, with ``model_type``.
    """
    if not read_config(path):
        return {}
    try:
        with quiet():
            config = AutoConfig.from_pretrained(str(path), trust_remote_code=False)
    except Exception:  # loading the folder says what is wrong with it
        return {}
    content, depth = config.to_dict(), config.num_hidden_layers
    sizes = {own_name(key, config.model_type) for key in SIZES} | PER_LAYER | NOT_CARRIED
    layered = {
        key for key, value in content.items() if isinstance(value, list) and len(value) == depth
    }
    left_out = sizes | (layered - OF_VOCABULARY)
    return {key: value for key, value in content.items() if key not in left_out}


def said(member: Member, config: PreTrainedConfig) -> dict[str, Any]:
    """Return what a member says itself, by the keys and with the values of its config."""
    is_dict = isinstance(member.model, Mapping)
    options = member.model if is_dict else read_config(Path(str(member.model)))
    keys = {own_name(key, config.model_type) for key in options}
    return {key: value for key, value in config.to_dict().items() if key in keys}


def unsaid(source: Mapping[str, Any], kind: Any, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a source that a model's own config leaves out.

    Those of another type of model mean something else, but for the vocabulary's.
    """
    known = {own_name(key, kind) for key in own}
    is_same = source.get("model_type") == kind
    return {
        key: value
        for key, value in source.items()
        if key not in known
        and key != "model_type"
        and (is_same or key in OF_VOCABULARY)
        and not (key == "pad_token_id" and value == NO_PAD)
    }


def own_name(key: str, kind: Any) -> str:
    """Return a key as the config class of a type names it today."""
    if key in OLD_ROPE:
        return "rope_parameters"
    names = CONFIG_MAPPING[kind].attribute_map if kind in CONFIG_MAPPING else {}
    return str(names.get(key, key))
