"""Read what an open_clip folder says beside its weights, and how pixels are prepared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from open_clip.transform import PreprocessCfg

from compt.errors import ConfigError
from compt.interfaces.foreign import read_json

CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
)
INTERPOLATIONS = ("bicubic", "bilinear", "random")
RESIZE_MODES = ("shortest", "longest", "squash")
_SIZES = frozenset(
    {
        "embed_dim",
        "layers",
        "width",
        "head_width",
        "heads",
        "mlp_ratio",
        "patch_size",
        "image_size",
        "attn_pooler_queries",
        "attn_pooler_heads",
        "context_length",
        "vocab_size",
        "timm_model_pretrained",
        "hf_model_pretrained",
    }
)
"""Keys of open_clip's configs that are of the size: a target says them, or has the default."""
_KINDS = ("timm_model_name", "hf_model_name")
"""Keys that make a tower another library's."""
TOWERS = ("vision_cfg", "text_cfg")


@dataclass(frozen=True)
class Pixels:
    """How images become a model's input, under open_clip's names.

    Raises:
        ConfigError: a value that open_clip does not take.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0

    @classmethod
    def of(cls, *layers: Mapping[str, Any], where: str) -> Pixels:
        """Return open_clip's defaults, over which each of the layers comes in turn.

        Args:
            layers: keys and values; those that are None say nothing.
            where: what to name in errors.
        """
        values = asdict(PreprocessCfg())
        for layer in layers:
            values |= {key: value for key, value in layer.items() if value is not None}
        for key in ("mean", "std"):
            values[key] = _per_channel(key, values[key], where)
        pixels = cls(**{field.name: values[field.name] for field in fields(cls)})
        for key, known in (("interpolation", INTERPOLATIONS), ("resize_mode", RESIZE_MODES)):
            if getattr(pixels, key) not in known:
                raise ConfigError(
                    f"open_clip has no {key} {getattr(pixels, key)!r}.",
                    where=where,
                    do=f"One of {known}; paradigm.{key}=... comes before a checkpoint's.",
                )
        if values["mode"] != "RGB":
            raise ConfigError(f"Images are RGB here, not {values['mode']!r}.", where=where)
        return pixels

    @property
    def resize(self) -> dict[str, Any]:
        """The part of it that makes an image of the model's size."""
        names = ("interpolation", "resize_mode", "fill_color")
        return {name: getattr(self, name) for name in names}

    def to_json(self) -> dict[str, Any]:
        """Return what an open_clip folder says of it."""
        content = asdict(self)
        if not self.fill_color:
            del content["fill_color"]
        return content


def _per_channel(key: str, value: Any, where: str) -> tuple[float, ...]:
    """Return three numbers, which open_clip lets one stand for.

    Raises:
        ConfigError: they are no such numbers.
    """
    numbers = tuple(value) if isinstance(value, Sequence) else (value,) * 3
    sound = len(numbers) == 3 and all(
        isinstance(n, int | float) and math.isfinite(n) and (n > 0 or key == "mean")
        for n in numbers
    )
    if not sound:
        raise ConfigError(
            f"{key}={value!r} are no three numbers{' above 0' if key == 'std' else ''}.",
            where=where,
            do=f"paradigm.{key}=... comes before a checkpoint's.",
        )
    return numbers


def read_folder(path: Path) -> dict[str, Any]:
    """Return the config of an open_clip folder, ``{}`` where it has none that can be read.

    Loading the folder says what is wrong with one.
    """
    try:
        content = read_json(path / CONFIG_FILE)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def preprocessing(model: Any) -> dict[str, Any]:
    """Return what a member's config or folder says of preprocessing beside the model's config."""
    content = model if isinstance(model, Mapping) else {}
    if isinstance(model, str):
        content = read_folder(Path(model.removeprefix("local-dir:")))
    return dict(content.get("preprocess_cfg") or {})


def filled(own: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's config with what it leaves out, and is not of the size, from a source's.

    A tower of another kind than the source's (one of timm, one of transformers) is left alone.
    """
    config = dict(own)
    for key, value in source.items():
        if key in TOWERS and isinstance(value, Mapping) and isinstance(own.get(key), Mapping):
            if all(own[key].get(kind) == value.get(kind) for kind in _KINDS):
                config[key] = filled(own[key], value)
        elif _is_setting(key):
            config.setdefault(key, value)
    return config


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a model's config says that is not of the size, by dotted key."""
    result: dict[str, Any] = {}
    for key, value in config.items():
        if key in TOWERS and isinstance(value, Mapping):
            result |= {f"{key}.{name}": inner for name, inner in settings(value).items()}
        elif _is_setting(key):
            result[key] = value
    return result


def _is_setting(key: str) -> bool:
    return key not in _SIZES and not key.startswith(_KINDS)
