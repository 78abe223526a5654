"""Say what a folder of transformers holds, and why one cannot be loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from compt.errors import ConfigError
from compt.interfaces import foreign
from compt.paradigms._checkpoints import dtype_in_files
from compt.paradigms.text.family import Family

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
ADAPTER_FILE = "adapter_config.json"
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
OTHER_WEIGHTS = ("*.msgpack", "*.h5", "*.gguf", "*.onnx")
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
OLD_BUFFERS = re.compile(
    r"\.(masked_bias|attn\.bias|attention\.bias|position_ids|embed_positions"
    r"|rotary_emb\.(inv_freq|cos_cached|sin_cached))$"
)


def read_config(path: Path) -> dict[str, Any]:
    """Return the config.json of a folder as it stands, ``{}`` where it has none."""
    return read_json(path / CONFIG_FILE)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file of JSON, ``{}`` where there is none."""
    try:
        content = foreign.read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def has_tokenizer(path: Path) -> bool:
    """Say whether a folder holds a tokenizer."""
    return any((path / file).is_file() for file in TOKENIZER_FILES)


def recognises(path: Path, family: Family) -> bool:
    """Say whether a path is a folder with the config and weights of a family's model.

    One that cannot be loaded for a reason that is known is claimed too, so that ``load`` names it.
    """
    if not path.is_dir() or read_config(path).get("model_type") not in family.types:
        return False
    has_weights = any((path / file).is_file() for file in WEIGHT_FILES)
    return has_weights or reason_against(path, family) is not None


def refuse(path: Path, family: Family) -> None:
    """Raise ConfigError where a folder is one of transformers that cannot be loaded here."""
    if reason := reason_against(path, family):
        raise ConfigError(f"'{path}' {reason[0]}.", do=reason[1])


def reason_against(path: Path, family: Family) -> tuple[str, str] | None:
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
    code = auto_map.get(family.auto_name) if isinstance(auto_map, Mapping) else None
    kind = config.get("model_type")
    if code is not None and kind not in family.types:
        return (
            f"needs code of its own ({code}), which is not run",
            "Convert it to a type of transformers, or write a paradigm: docs/plugins.md.",
        )
    if kind in family.types and (fault := _index_fault(path)):
        return fault
    others = sorted(file.name for pattern in OTHER_WEIGHTS for file in path.glob(pattern))
    if kind in family.types and others and not any((path / f).is_file() for f in WEIGHT_FILES):
        return (
            f"has weights of another library alone ({others[0]})",
            "Convert them: from_pretrained(FOLDER, ...).save_pretrained(FOLDER) of transformers.",
        )
    return None


def _index_fault(path: Path) -> tuple[str, str] | None:
    """Return what is wrong with the files that an index names, and what to do."""
    for name in WEIGHT_FILES:
        if name.endswith(".json") and (path / name).is_file():
            try:
                foreign.shard_files(path / name)
            except (OSError, ValueError) as error:
                return f"has an index that cannot be read ({name}: {error})", "Fetch it again."
            except ConfigError as error:
                said = f"{error.what[0].lower()}{error.what[1:].rstrip('.')}"
                return f"has an index, {name}: {said}", error.do
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
            return dtype_in_files(foreign.shard_files(path / name))
        except (OSError, ValueError):
            return None
    return None


def without_old_buffers(names: Iterable[str]) -> set[str]:
    """Return the names but for constants that transformers once saved beside the weights."""
    return {name for name in names if not OLD_BUFFERS.search(name)}
