"""Build decoder-only models of transformers from checked configs and load them strictly."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from compt.errors import ConfigError, did_you_mean, some
from compt.interfaces import Member
from compt.paradigms._checkpoints import dtype_in_files
from compt.paradigms.causal_lm.tokenizer import Ids, LmTokenizer, quiet

CONFIG_FILE = "config.json"
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
TOKENIZER_PATTERNS = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "vocab",
    "merges.*",
    "*.model",
    "*.tiktoken",
    "tekken.json",
    "chat_template*",
    "additional_chat_templates",
)
"""Match the files of a tokenizer, with the templates of chats."""
GENERATION_FILE = "generation_config.json"
ADAPTER_FILE = "adapter_config.json"
OTHER_WEIGHTS = ("*.msgpack", "*.h5", "*.gguf", "*.onnx")
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
OLD_BUFFERS = re.compile(
    r"\.(masked_bias|attn\.bias|attention\.bias|position_ids|embed_positions"
    r"|rotary_emb\.(inv_freq|cos_cached|sin_cached))$"
)
POSITIONS = "max_position_embeddings"
DECODERS = sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - set(MODEL_FOR_MASKED_LM_MAPPING_NAMES))
"""Name the model types that predict the next token and are no encoders, which would see it."""


def model_config(
    member: Member,
    tokenizer: LmTokenizer | Ids,
    vocab_size: int,
    context: int | None,
    source: Mapping[str, Any] | None = None,
) -> PreTrainedConfig:
    """Return the transformers config of a member, with what it leaves out filled in.

    Args:
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
            config = _from_dict(member, tokenizer, vocab_size, context, source or {})
        else:
            config = _from_files(member, source or {})
    check_config(member.name, config, tokenizer, context)
    config.use_cache = False
    ids = _special(config)
    if {*ids.get("pad", ())} & {*ids.get("bos", ()), *ids.get("eos", ())}:
        # torch leaves the embedding of a padding token untrained. Many tokenizers pad with the
        # token that ends a text, which must be learned.
        config.pad_token_id = None
    return config


def _from_dict(
    member: Member,
    tokenizer: LmTokenizer | Ids,
    vocab_size: int,
    context: int | None,
    source: Mapping[str, Any],
) -> PreTrainedConfig:
    options = json.loads(json.dumps(member.model))
    kind = options.pop("model_type", None)
    if kind not in DECODERS:
        raise _unknown_kind(member.name, kind)
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
        unsaid = _unsaid(source, kind, options)
        if _own_name(POSITIONS, kind) in unsaid:
            filled.pop(POSITIONS, None)
        filled |= unsaid
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


def _unknown_kind(name: str, kind: Any) -> ConfigError:
    fault = f"has model_type '{kind}', which is no decoder-only language model"
    if kind is None:
        fault = "has no model_type"
    near = did_you_mean(kind, DECODERS) if kind is not None and kind not in CONFIG_MAPPING else ""
    return ConfigError(
        f"The model of member '{name}' {fault}.{near}",
        do="For example model=dict(model_type='llama', hidden_size=256, ...); transformers' "
        "AutoModelForCausalLM lists the types.",
    )


def _from_files(member: Member, source: Mapping[str, Any]) -> PreTrainedConfig:
    if not isinstance(member.model, str | Path) or not str(member.model):
        raise ConfigError(
            f"The model of member '{member.name}' is {member.model!r}: no dict, folder or name."
        )
    said = read_config(Path(member.model))
    filled = _unsaid(source, said.get("model_type"), said) if said else {}
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
    sizes = {_own_name(key, config.model_type) for key in SIZES} | PER_LAYER | NOT_CARRIED
    layered = {
        key for key, value in content.items() if isinstance(value, list) and len(value) == depth
    }
    left_out = sizes | (layered - OF_VOCABULARY)
    return {key: value for key, value in content.items() if key not in left_out}


def said(member: Member, config: PreTrainedConfig) -> dict[str, Any]:
    """Return what a member says itself, by the keys and with the values of its config."""
    is_dict = isinstance(member.model, Mapping)
    options = member.model if is_dict else read_config(Path(str(member.model)))
    keys = {_own_name(key, config.model_type) for key in options}
    return {key: value for key, value in config.to_dict().items() if key in keys}


def read_config(path: Path) -> dict[str, Any]:
    """Return the config.json of a folder as it stands, ``{}`` where it has none."""
    return read_json(path / CONFIG_FILE)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file of JSON, ``{}`` where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _unsaid(source: Mapping[str, Any], kind: Any, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a source that a model's own config leaves out.

    Those of another type of model mean something else, but for the vocabulary's.
    """
    known = {_own_name(key, kind) for key in said}
    is_same = source.get("model_type") == kind
    return {
        key: value
        for key, value in source.items()
        if key not in known
        and key != "model_type"
        and (is_same or key in OF_VOCABULARY)
        and not (key == "pad_token_id" and value == NO_PAD)
    }


def _own_name(key: str, kind: Any) -> str:
    """Return a key as the config class of a type names it today."""
    if key in OLD_ROPE:
        return "rope_parameters"
    names = CONFIG_MAPPING[kind].attribute_map if kind in CONFIG_MAPPING else {}
    return str(names.get(key, key))


def check_config(
    name: str, config: PreTrainedConfig, tokenizer: LmTokenizer | Ids, context: int | None
) -> None:
    """Raise ConfigError unless a decoder-only model would take the tokens and the context.

    Args:
        name: of the member, for the message.
        config: of the model.
        tokenizer: whose ids the model must take.
        context: tokens that the model must take at once; None for any number.
    """
    if config.model_type not in DECODERS or config.is_encoder_decoder:
        raise _unknown_kind(name, config.model_type)
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


def build(name: str, config: PreTrainedConfig, attention: str) -> PreTrainedModel:
    """Build a model with fresh float32 weights on the current device.

    Raises:
        ConfigError: transformers refuses the sizes, or the family's logits are more than an output
            layer's.
    """
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, attn_implementation=attention, dtype=torch.float32
        )
    except Exception as error:  # transformers raises what it likes
        raise ConfigError(
            f"transformers cannot build the model of member '{name}': "
            f"{type(error).__name__}: {error}",
            do="Check its sizes; a model without this attention may have attention='eager'.",
        ) from error
    check_head(name, model)
    return model


def check_head(name: str, model: PreTrainedModel) -> None:
    """Raise ConfigError where a family's logits are more than an output layer's.

    Some families scale or cap the logits after it, or add a loss for their experts. The paradigm
    runs decoder and output layer by themselves, so that a teacher can be asked for hidden states
    alone; all else in the family's own forward would be left out without a word.
    """
    head, decoder = model.get_output_embeddings(), model.get_decoder()
    hidden = torch.zeros(
        1, 1, head.weight.shape[-1], device=head.weight.device, dtype=head.weight.dtype
    )
    ids = torch.zeros(1, 1, device=head.weight.device, dtype=torch.long)
    decoder.forward = lambda *args, **kwargs: BaseModelOutputWithPastAndCrossAttentions(
        last_hidden_state=hidden
    )
    try:
        plain = _operators(lambda: head(hidden)) == _operators(lambda: model(input_ids=ids))
    except (AttributeError, TypeError, RuntimeError):  # it reads more than the hidden states
        plain = False
    finally:
        del decoder.forward
    if not plain:
        raise ConfigError(
            f"The model of member '{name}' ({model.config.model_type}) does more than an output "
            "layer after its final norm (it may scale or cap logits, or balance experts), which "
            "causal_lm would leave out.",
            do="Use another family, or a paradigm of your own: docs/plugins.md.",
        )


class _Recorder(TorchDispatchMode):
    """Note the names of torch's operators that run, without views."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def _operators(run: Callable[[], Any]) -> list[str]:
    """Return the names of torch's operators that a call runs, without views."""
    recorder = _Recorder()
    with recorder:
        run()
    return recorder.names


def without_old_buffers(names: Iterable[str]) -> set[str]:
    """Return the names but for constants that transformers once saved beside the weights."""
    return {name for name in names if not OLD_BUFFERS.search(name)}


def has_tokenizer(path: Path) -> bool:
    """Say whether a folder holds a tokenizer."""
    return any((path / file).is_file() for file in TOKENIZER_FILES)


def recognises(path: Path) -> bool:
    """Say whether a path is a folder with the config and weights of a decoder-only model.

    One that cannot be loaded for a reason that is known is claimed too, so that ``load`` names it.
    """
    if not path.is_dir():
        return False
    has_weights = any((path / file).is_file() for file in WEIGHT_FILES)
    is_decoder = read_config(path).get("model_type") in DECODERS
    return (is_decoder and has_weights) or _reason(path) is not None


def refuse(path: Path) -> None:
    """Raise ConfigError where a folder is one of transformers that cannot be loaded here."""
    if reason := _reason(path):
        raise ConfigError(f"'{path}' {reason[0]}.", do=reason[1])


def _reason(path: Path) -> tuple[str, str] | None:
    """Return why a folder cannot be loaded and what to do, None where nothing speaks against it."""
    config = read_config(path)
    if (path / ADAPTER_FILE).is_file():
        return (
            "is an adapter of PEFT, a change to another model's weights",
            "Merge it: model.merge_and_unload().save_pretrained(FOLDER).",
        )
    quantized = config.get("quantization_config") or config.get("compression_config")
    if isinstance(quantized, Mapping):
        method = quantized.get("quant_method", "a method it does not name")
        return (
            f"is quantized ({method}): its weights are no numbers that can be grown or trained",
            "Take the model in bfloat16, float16 or float32.",
        )
    auto_map = config.get("auto_map")
    custom = isinstance(auto_map, Mapping) and "AutoModelForCausalLM" in auto_map
    kind = config.get("model_type")
    if custom and kind not in DECODERS:
        return (
            f"needs code of its own ({auto_map['AutoModelForCausalLM']}), which is not run",  # type: ignore[index]
            "Convert it to a type of transformers, or write a paradigm: docs/plugins.md.",
        )
    others = sorted(file.name for pattern in OTHER_WEIGHTS for file in path.glob(pattern))
    if kind in DECODERS and others and not any((path / f).is_file() for f in WEIGHT_FILES):
        return (
            f"has weights of another library alone ({others[0]})",
            "Convert them: from_pretrained(FOLDER, ...).save_pretrained(FOLDER) of transformers.",
        )
    return None


def weight_dtype(path: Path) -> torch.dtype | None:
    """Return the number format of most weights in a folder or file, None where there are none."""
    if not path.is_dir():
        return dtype_in_files([path])
    for name in WEIGHT_FILES:
        if not (path / name).is_file():
            continue
        if not name.endswith(".json"):
            return dtype_in_files([path / name])
        try:
            shards = json.loads((path / name).read_text(encoding="utf-8"))["weight_map"].values()
        except (OSError, ValueError, KeyError, AttributeError):
            return None
        return dtype_in_files(path / shard for shard in sorted(set(shards)))
    return None


def load(path: Path, config: PreTrainedConfig, attention: str) -> PreTrainedModel:
    """Load the weights of a folder in float32, strictly.

    Raises:
        ConfigError: the weights are damaged or another model's. It names the first tensors that
            differ.
    """
    refuse(path)
    try:
        with quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
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
    check_head(path.name, model)
    return model
