"""Write a first config of models that read images and their captions."""

from __future__ import annotations

from collections.abc import Sequence

from compt.interfaces import ConfigDraft, MemberSize, SeenData
from compt.paradigms._shared import WIDE
from compt.paradigms.images.starting import ImageStarter

MAX_CONTEXT = 77
"""Tokens that open_clip's texts have at most."""


class ClipStarter(ImageStarter):
    """Two towers of open_clip, for images of one size and captions of one length."""

    needs = (("image", "captions"),)
    data_noun = "images with captions"
    sizes = {
        "tiny": "64x3,128x4,256x6",
        "small": "192x6,320x8,512x12",
        "base": "256x8,512x8,768x12",
    }

    def draft(self, seen: SeenData, sizes: Sequence[MemberSize], *, preset: str) -> ConfigDraft:
        """Write models for images and captions of the usual size, texts with fewer layers."""
        widest, head = sizes[-1].width, self.head_width(sizes)
        pixels = self.pixels(seen, preset)
        rate = 3e-4 if widest > WIDE else 5e-4
        return self.fitted(
            seen,
            preset,
            models=[
                f"clip({s.width}, {s.layers}, {max(1, round(2 * s.layers / 3))})" for s in sizes
            ],
            definitions=f"""\
def clip(width, layers, text_layers):
    return dict(
        # Width of the space that images and texts meet in, the same for all.
        embed_dim={min(512, max(64, widest // 2))},
        vision_cfg=dict(
            # {pixels.image_size_why}
            image_size={pixels.image_size},
            # {pixels.patch_why}
            patch_size={pixels.patch},
            width=width,
            layers=layers,
            head_width={head},  # the same in all members, or attention cannot be inherited
        ),
        text_cfg=dict(
            # 19 of 20 captions have {seen.caption_words} words or fewer, a word takes about 1.5 \
tokens, begin and end take 2; longer ones are cut
            context_length={_context(seen.caption_words)},
            width=width,
            layers=text_layers,
            heads=width // {head},
        ),
    )""",
            optimizer=f'dict(type="AdamW", lr={rate}, weight_decay=0.1, betas=(0.9, 0.98))',
            transfer='dict(type="feature_mse", weight=1.0)  '
            "# and learns from its features as it trains",
        )


def _context(words: int) -> int:
    """Return tokens a caption, by the rule of thumb that a word takes one and a half."""
    tokens = int(1.5 * words) + 2
    return min(MAX_CONTEXT, max(8, -(-tokens // 4) * 4))
