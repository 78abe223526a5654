"""Write a first config of masked autoencoders."""

from __future__ import annotations

from collections.abc import Sequence

from compt.interfaces import ConfigDraft, MemberSize, SeenData
from compt.paradigms._shared import WIDE
from compt.paradigms.images.starting import ImageStarter, Pixels


class MaeStarter(ImageStarter):
    """Vision transformers of mmpretrain that paint what is hidden of an image."""

    sizes = {
        "tiny": "64x4,96x6,160x8",
        "small": "192x6,256x10,384x12",
        "base": "256x8,512x8,768x12",
    }

    def draft(self, seen: SeenData, sizes: Sequence[MemberSize], *, preset: str) -> ConfigDraft:
        """Write models of one decoder for images of the usual size."""
        is_wide = sizes[-1].width > WIDE
        pixels = self.pixels(seen, preset)
        rate = 1.5e-3 if is_wide else 4e-3
        return self.fitted(
            seen,
            preset,
            models=[f"mae({size.width}, {size.layers})" for size in sizes],
            definitions=_definitions(pixels, self.head_width(sizes), 128 if is_wide else 64),
            options=f"""\
# How a training image is changed at random before it is shown.
pipeline=[
    dict(type="RandomResizedCrop", scale={pixels.image_size}, crop_ratio_range=(0.5, 1.0)),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackInputs"),
],""",
            optimizer=f'dict(type="AdamW", lr={rate}, weight_decay=0.05, betas=(0.9, 0.95))',
            transfer='dict(type="none")  '
            "# feature_mse was tried on small autoencoders, and brought nothing",
        )


def _definitions(pixels: Pixels, head: int, decoder: int) -> str:
    """Return the function that makes a member's model, with a decoder of this width."""
    return f"""\
def mae(width, layers):
    # {pixels.patch_why}
    patch = dict(patch_size={pixels.patch})
    return dict(
        type="mmpretrain.MAE",
        backbone=dict(
            type="mmpretrain.MAEViT",
            arch=dict(
                embed_dims=width,
                num_layers=layers,
                num_heads=width // {head},  # heads of one width, or attention cannot be inherited
                feedforward_channels=4 * width,
            ),
            # {pixels.image_size_why}
            img_size={pixels.image_size},
            mask_ratio=0.75,  # of the patches, which are hidden and to be painted
            **patch,
        ),
        neck=dict(
            type="mmpretrain.MAEPretrainDecoder",
            num_patches={pixels.num_patches},
            embed_dim=width,
            decoder_embed_dim={decoder},  # one small decoder for all members
            decoder_depth=2,
            decoder_num_heads=2,
            **patch,
        ),
        head=dict(
            type="mmpretrain.MAEPretrainHead",
            norm_pix=True,
            loss=dict(type="mmpretrain.PixelReconstructionLoss", criterion="L2"),
            **patch,
        ),
        init_cfg=[
            dict(type="Xavier", layer="Linear", distribution="uniform"),
            dict(type="Constant", layer="LayerNorm", val=1.0, bias=0.0),
        ],
    )"""
