"""Small MLP-Mixers for small images, registered with timm.

Name this module in a config's ``custom_imports``. A name gives width, blocks, patch and image
size: ``mixer_64x4_p8_32`` is 64 wide and 4 blocks deep, over patches of 8 pixels of images of 32.
open_clip makes any of them an image tower: ``vision_cfg=dict(timm_model_name=...)``.
"""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, register_model
from timm.models.mlp_mixer import MlpMixer

SIZES = ((32, 2), (64, 4), (128, 6), (256, 8))
IMAGES = ((8, 32), (8, 64), (16, 128))
"""The patch and image sizes, in pixels."""


def _register(width: int, depth: int, patch: int, image: int) -> str:
    """Register a Mixer with timm, and return its name."""
    name = f"mixer_{width}x{depth}_p{patch}_{image}"

    def build(pretrained: bool = False, pretrained_cfg: Any = None, **options: Any) -> MlpMixer:
        sizes = {"patch_size": patch, "img_size": image, "embed_dim": width, "num_blocks": depth}
        config = {"input_size": (3, image, image), "first_conv": "stem.proj", "classifier": "head"}
        return build_model_with_cfg(
            MlpMixer,
            name,
            pretrained,
            pretrained_cfg=pretrained_cfg or config,
            **{**sizes, **options},
        )

    # timm registers a function under its own name, in its module's list
    build.__name__ = name
    build.__module__ = __name__
    register_model(build)
    return name


NAMES = tuple(_register(*size, *image) for size in SIZES for image in IMAGES)
"""The names that are registered."""
