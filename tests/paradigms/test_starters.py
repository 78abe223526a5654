"""What first configs of the built-in paradigms say, fitted to data."""

from __future__ import annotations

import pytest

from compt.interfaces import MemberSize, SeenData

SIZES = [MemberSize(64, 3), MemberSize(128, 6)]


@pytest.mark.parametrize(
    ("short_side", "preset", "sides"),
    [
        (None, "tiny", (32, 4)),  # drawn at any size
        (20, "tiny", (32, 4)),
        (70, "tiny", (64, 8)),
        (300, "tiny", (64, 8)),
        (300, "base", (224, 16)),
        (150, "base", (128, 16)),
    ],
)
def test_images_and_patches_fit_half_of_the_images(short_side, preset, sides):
    images = pytest.importorskip("compt.paradigms.images", exc_type=ImportError)

    class Starter(images.ImageStarter):
        draft = None

    pixels = Starter().pixels(SeenData(short_side=short_side), preset)
    assert (pixels.image_size, pixels.patch) == sides
    assert pixels.num_patches == (sides[0] // sides[1]) ** 2


@pytest.mark.parametrize(("words", "context"), [(0, 8), (6, 12), (30, 48), (90, 77)])
def test_captions_have_room(words, context):
    pytest.importorskip("open_clip")
    from compt.paradigms.clip import Clip

    seen = SeenData(1000, short_side=64, caption_words=words)
    draft = Clip.starter.draft(seen, SIZES, preset="tiny")
    assert f"context_length={context},\n" in draft.definitions
    assert draft.models == ["clip(64, 3, 2)", "clip(128, 6, 4)"]


def test_text_is_counted_in_blocks():
    pytest.importorskip("transformers")
    from compt.paradigms.causal_lm import CausalLm

    draft = CausalLm.starter.draft(SeenData(3, num_bytes=256_000), SIZES, preset="small")
    assert (draft.num_samples, draft.largest_batch) == (1000, 64)
    assert "context=256," in draft.options


def test_wide_members_learn_more_slowly():
    pytest.importorskip("mmpretrain")
    from compt.paradigms.mae import Mae

    seen = SeenData(1000, short_side=64)
    narrow, wide = (
        Mae.starter.draft(seen, [MemberSize(width, 3)], preset="tiny").optimizer
        for width in (256, 320)
    )
    assert "lr=0.004," in narrow and "lr=0.0015," in wide
