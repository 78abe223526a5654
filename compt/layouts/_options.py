"""Say which options of a config of transformers tell what a model computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

OTHERS = frozenset(
    (
        *("architectures", "auto_map", "chunk_size_feed_forward", "dtype", "id2label", "label2id"),
        *("is_decoder", "is_encoder_decoder", "model_type", "name_or_path", "problem_type"),
        *("reference_compile", "return_dict", "torch_dtype", "transformers_version", "use_cache"),
        # Sizes, which are None where they follow from others.
        *("head_dim", "n_inner", "num_key_value_heads"),
    )
)
"""What says how a model is stored or run, and sizes."""
BEGINNINGS = ("_", "output_", "router_")
PARTS = ("_token_id", "drop", "initializer", "loss")
"""Of names of options that only fresh weights, training or texts depend on."""


def model_options(config: Any) -> dict[str, Any]:
    """Return the options of a config that say what a model computes, nested ones with dots."""
    return dict(_flat(config.to_dict(), ""))


def _flat(options: Mapping[str, Any], before: str) -> Iterator[tuple[str, Any]]:
    for name, value in options.items():
        if name in OTHERS or name.startswith(BEGINNINGS) or any(part in name for part in PARTS):
            continue
        if isinstance(value, Mapping):
            yield from _flat({str(key): inner for key, inner in value.items()}, f"{before}{name}.")
        else:
            yield before + name, value
