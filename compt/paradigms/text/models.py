"""Build text models of transformers from checked configs and load them strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from compt.errors import ConfigError, did_you_mean, some
from compt.interfaces import Member
from compt.paradigms.text.family import Family
from compt.paradigms.text.folder import CONFIG_FILE, read_config, refuse, without_old_buffers
from compt.paradigms.text.settings import NO_PAD, own_name, unsaid
from compt.paradigms.text.tokenizer import Ids, LmTokenizer, quiet

POSITIONS = "max_position_embeddings"


def model_config(
    family: Family,
    member: Member,
    tokenizer: LmTokenizer | Ids,
    vocab_size: int,
    context: int | None,
    source: Mapping[str, Any] | None = None,
) -> PreTrainedConfig:
    """Return the transformers config of a member, with what it leaves out filled in.

    Args:
        family: of the models that are taken.
        member: whose ``model`` is a config dict, a folder or a name.
        tokenizer: whose ids the model must take.
        vocab_size: where the member's dict has none.
        context: tokens that the model must take, and its positions where the dict has none; None
            for any number.
        source: :func:`settings` of the checkpoint that is followed, for what the member leaves out.

    Raises:
        ConfigError: unknown model, key or value, or a vocabulary or positions that do not suffice.
    """
    with quiet():
        if isinstance(member.model, Mapping):
            config = _from_dict(family, member, tokenizer, vocab_size, context, source or {})
        else:
            config = _from_files(member, source or {})
    check_config(family, member.name, config, tokenizer, context)
    config.use_cache = False
    ids = _special(config)
    if {*ids.get("pad", ())} & {*ids.get("bos", ()), *ids.get("eos", ())}:
        # torch leaves the embedding of a padding token untrained. Many tokenizers pad with the
        # token that ends a text, which must be learned.
        config.pad_token_id = None
    return config


def _from_dict(
    family: Family,
    member: Member,
    tokenizer: LmTokenizer | Ids,
    vocab_size: int,
    context: int | None,
    source: Mapping[str, Any],
) -> PreTrainedConfig:
    options = json.loads(json.dumps(member.model))
    kind = options.pop("model_type", None)
    if kind not in family.types:
        raise _unknown_kind(family, member.name, kind)
    cls = CONFIG_MAPPING[kind]
    filled = {
        "vocab_size": vocab_size,
        "bos_token_id": tokenizer.bos,
        "eos_token_id": tokenizer.eos,
        "pad_token_id": tokenizer.pad,
    }
    try:
        default = set(vars(cls()))
        known = default | set(cls.attribute_map)
        says_positions = cls.attribute_map.get(POSITIONS) in options
        if context is not None and POSITIONS in known and not says_positions:
            filled[POSITIONS] = context
        carried = unsaid(source, kind, options)
        if own_name(POSITIONS, kind) in carried:
            filled.pop(POSITIONS, None)
        filled |= carried
        config = AutoConfig.for_model(kind, **{**filled, **options})
    except Exception as error:  # each config class has its own
        raise ConfigError(
            f"The model of member '{member.name}' cannot be: {type(error).__name__}: {error}"
        ) from error
    # A config class takes any argument and keeps what it does not know as an attribute.
    unknown = sorted(set(options) & (set(vars(config)) - default))
    faults = [f"model.{key} is unknown.{did_you_mean(key, known)}" for key in unknown]
    if faults:
        raise ConfigError(
            f"The model of member '{member.name}' is no config of '{kind}': {' '.join(faults)}"
        )
    return config


def _unknown_kind(family: Family, name: str, kind: Any) -> ConfigError:
    fault = f"has model_type '{kind}', which is no {family.noun}"
    if kind is None:
        fault = "has no model_type"
    is_unknown = kind is not None and kind not in CONFIG_MAPPING
    near = did_you_mean(kind, family.types) if is_unknown else ""
    return ConfigError(
        f"The model of member '{name}' {fault}.{near}",
        do=f"For example model=dict(model_type='{family.example}', hidden_size=256, ...); "
        f"transformers' {family.auto_name} lists the types.",
    )


def _from_files(member: Member, source: Mapping[str, Any]) -> PreTrainedConfig:
    if not isinstance(member.model, str | Path) or not str(member.model):
        raise ConfigError(
            f"The model of member '{member.name}' is {member.model!r}: no dict, folder or name."
        )
    said = read_config(Path(member.model))
    filled = unsaid(source, said.get("model_type"), said) if said else {}
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            str(member.model), trust_remote_code=False, **filled
        )
    except Exception as error:  # transformers and the hub each have their own
        raise ConfigError(
            f"Cannot read the model '{member.model}' of member '{member.name}': "
            f"{type(error).__name__}: {error}",
            do="Give a config dict with model_type, a folder with config.json, or a name that is "
            "in the cache or can be downloaded.",
        ) from error
    if getattr(config, "pad_token_id", None) == NO_PAD:
        config.pad_token_id = None
    return config


def check_config(
    family: Family,
    name: str,
    config: PreTrainedConfig,
    tokenizer: LmTokenizer | Ids,
    context: int | None,
) -> None:
    """Raise ConfigError unless a model of the family would take the tokens and the context.

    Args:
        family: of the models that are taken.
        name: of the member, for the message.
        config: of the model.
        tokenizer: whose ids the model must take.
        context: tokens that the model must take at once; None for any number.
    """
    if config.model_type not in family.types or config.is_encoder_decoder:
        raise _unknown_kind(family, name, config.model_type)
    if config.get_text_config(decoder=True) is not config:
        raise ConfigError(
            f"The model of member '{name}' is of several parts.", do="Use its text model's config."
        )
    if config.vocab_size < tokenizer.size:
        raise ConfigError(
            f"The model of member '{name}' has {config.vocab_size} tokens, "
            f"the tokenizer {tokenizer.size}.",
            do="Leave vocab_size out, or raise it.",
        )
    for kind, ids in _special(config).items():
        if not all(0 <= i < config.vocab_size for i in ids):
            raise ConfigError(
                f"The model of member '{name}' has {kind}_token_id={ids}; "
                f"its tokens are 0 to {config.vocab_size - 1}.",
                do="Leave it out of the model's dict: it is taken from the tokenizer.",
            )
    positions = getattr(config, POSITIONS, None)
    if context is not None and positions is not None and context > positions:
        raise ConfigError(
            f"The model of member '{name}' takes {positions} tokens, the context has {context}.",
            do=f"Lower the paradigm's context, or raise the model's {POSITIONS}.",
        )


def _special(config: PreTrainedConfig) -> dict[str, list[int]]:
    """Return the ids of special tokens that a config names, by kind."""
    special = {}
    for kind in ("bos", "eos", "pad"):
        ids = getattr(config, f"{kind}_token_id", None)
        if ids is not None:
            special[kind] = ids if isinstance(ids, list) else [ids]
    return special


def build(family: Family, name: str, config: PreTrainedConfig, attention: str) -> PreTrainedModel:
    """Build a model with fresh float32 weights on the current device.

    Raises:
        ConfigError: transformers refuses the sizes.
    """
    try:
        model: PreTrainedModel = family.auto_model.from_config(
            config, attn_implementation=attention, dtype=torch.float32
        )
    except Exception as error:  # transformers raises what it likes
        raise ConfigError(
            f"transformers cannot build the model of member '{name}': "
            f"{type(error).__name__}: {error}",
            do="Check its sizes; a model without this attention may have attention='eager'.",
        ) from error
    return model


def load(family: Family, path: Path, config: PreTrainedConfig, attention: str) -> PreTrainedModel:
    """Load the weights of a folder in float32, strictly.

    Raises:
        ConfigError: the weights are damaged or another model's. It names the first tensors that
            differ.
    """
    refuse(path, family)
    try:
        with quiet():
            loaded: Any = family.auto_model.from_pretrained(
                str(path),
                config=config,
                dtype=torch.float32,
                attn_implementation=attention,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                local_files_only=True,
                trust_remote_code=False,
            )
    except Exception as error:  # transformers, torch and safetensors each have their own
        raise ConfigError(
            f"The weights in '{path}' cannot be loaded: {type(error).__name__}: {error}",
            do="Give a folder that transformers or compt exported, complete.",
        ) from error
    model: PreTrainedModel = loaded[0]
    info: dict[str, Any] = loaded[1]
    faults = [f"it lacks '{name}'" for name in sorted(info["missing_keys"])]
    unknown = without_old_buffers(info["unexpected_keys"])
    faults += [f"'{name}' is unknown to the model" for name in sorted(unknown)]
    faults += [
        f"'{name}' is {list(theirs)} in it and {list(ours)} in the model"
        for name, theirs, ours in sorted(info["mismatched_keys"])
    ]
    if faults or info["error_msgs"]:
        raise ConfigError(
            f"The weights in '{path}' are not of the model that its {CONFIG_FILE} describes: "
            f"{some(faults or info['error_msgs'])}.",
            do="Give a folder that transformers or compt exported, complete.",
        )
    return model
