"""Small image towers of other architectures, registered with timm for images of 32 pixels.

timm's own are for 224. Named in a config's ``custom_imports``, this module lets open_clip find
``swin_mini_32`` and ``convnext_mini_32`` as ``vision_cfg=dict(timm_model_name=...)``; an exported
folder needs it to be imported too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.models import build_model_with_cfg, register_model
from timm.models.convnext import ConvNeXt
from timm.models.swin_transformer import SwinTransformer

IMAGE_SIZE = 32
SWIN: Mapping[str, Any] = {
    "img_size": IMAGE_SIZE,
    "patch_size": 4,
    "window_size": 4,
    "embed_dim": 64,
    "depths": (2, 4),
    "num_heads": (2, 4),
}
"""0.9 M parameters; 8 x 8 patches in shifted windows of 4, then one window of 4 x 4."""
CONVNEXT: Mapping[str, Any] = {"depths": (2, 2, 4, 2), "dims": (32, 64, 128, 256)}
"""1.8 M parameters; 8 x 8 patches, halved three times."""


def _register(name: str, kind: type, sizes: Mapping[str, Any], first_conv: str) -> str:
    """Register a model with timm, and return its name."""

    def build(pretrained: bool = False, pretrained_cfg: Any = None, **options: Any) -> Any:
        config = {
            "input_size": (3, IMAGE_SIZE, IMAGE_SIZE),
            "first_conv": first_conv,
            "classifier": "head.fc",
        }
        return build_model_with_cfg(
            kind,
            name,
            pretrained,
            pretrained_cfg=pretrained_cfg or config,
            **{**sizes, **options},
        )

    # timm registers a function under its own name, in its module's list.
    build.__name__, build.__module__ = name, __name__
    register_model(build)
    return name


NAMES = (
    _register("swin_mini_32", SwinTransformer, SWIN, "patch_embed.proj"),
    _register("convnext_mini_32", ConvNeXt, CONVNEXT, "stem.0"),
)
"""The names that are registered."""
