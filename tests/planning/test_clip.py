"""Plans of open_clip models: without data, and without memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import compt
from compt.errors import ConfigError, GrowthError
from compt.interfaces import Member
from compt.registry import PARADIGMS
from tests.planning.conftest import little_memory, refused, stages


def clip(width: int, layers: int, text_layers: int, head: int = 32) -> dict[str, Any]:
    return dict(
        embed_dim=48,
        vision_cfg=dict(image_size=32, patch_size=8, width=width, layers=layers, head_width=head),
        text_cfg=dict(
            context_length=10, vocab_size=99, width=width, layers=text_layers, heads=width // 32
        ),
    )


def clip_chain(*models: Any, **changes: Any) -> dict[str, Any]:
    """A chain on data that is not there, its size given."""
    pytest.importorskip("open_clip")
    data = dict(
        type="webdataset", train="/nowhere/{000..331}.tar", val="/nowhere/val.tar", num_samples=1000
    )
    return {
        **dict(paradigm=dict(type="clip", data=data), grower=dict(type="lossless")),
        **dict(transfer=dict(type="feature_mse")),
        **dict(train_dataloader=dict(batch_size=16)),
        **dict(chain=[dict(name=n, model=m, iters=4) for n, m in zip("abc", models)]),
        **changes,
    }


def clip_forward(width: int, layers: int, text_layers: int) -> int:
    """Per token 2 FLOPs a weight of qkv, out and mlp (12 w^2), and 2 * 2 * tokens * w for scores
    and values.

    The image has 4 x 4 patches and a class token, the text 10 tokens; both end in a projection to
    48.
    """

    def tower(tokens: int, blocks: int) -> int:
        return blocks * tokens * (2 * 12 * width**2 + 2 * 2 * tokens * width)

    patches = 2 * 16 * (3 * 8 * 8) * width
    return patches + tower(17, layers) + tower(10, text_layers) + 2 * (2 * width * 48)


def test_flops_of_a_clip_model_equal_the_formula():
    a, b = stages(clip_chain(clip(64, 3, 2), clip(96, 4, 3)))
    assert b.teacher_flops == clip_forward(64, 3, 2)
    # backward is twice the forward pass but for the pixels' gradient; both logit matrices, once and
    # twice
    for stage, (width, *layers) in ((a, (64, 3, 2)), (b, (96, 4, 3))):
        patches, logits = 2 * 16 * (3 * 8 * 8) * width, 2 * 2 * 16 * 48
        assert stage.student_flops == 3 * clip_forward(width, *layers) - patches + 3 * logits


def test_epochs_are_counted_without_the_data():
    config = clip_chain(clip(64, 2, 2), clip(96, 3, 2))
    for stage in config["chain"]:
        stage |= dict(iters=None, epochs=2)
    assert [s.iters for s in stages(config)] == [124, 124]  # 1000 // 16 = 62
    del config["paradigm"]["data"]["num_samples"]
    with pytest.raises(ConfigError, match="num_samples"):
        compt.plan(config)


def test_heads_of_another_width_are_refused_or_warned_about():
    config = clip_chain(clip(64, 2, 2), clip(128, 2, 2, head=64))
    for grower in ("lossless", "leading_block"):
        config["grower"] = dict(type=grower)
        refused(config, GrowthError, "head_dim' changes from 32 to 64")
    config["grower"] = dict(type="scratch")
    assert any(
        "'a' -> 'b'" in w and "head_dim' changes from 32 to 64" in w
        for w in compt.plan(config).warnings
    )


def test_an_output_without_a_width_cannot_be_transferred():
    config = clip_chain(
        clip(64, 2, 2), clip(96, 3, 2), transfer=dict(type="feature_mse", features=["logit_scale"])
    )
    refused(config, ConfigError, "logit_scale")


def test_members_with_another_input_are_refused():
    other = clip(96, 3, 2)
    other["vision_cfg"]["image_size"] = 64
    with pytest.raises(ConfigError, match=r"'b' has image size \(64, 64\)"):
        compt.plan(clip_chain(clip(64, 2, 2), other))


def test_members_may_have_image_sizes_of_their_own():
    """A teacher gets the student's images in its own size, and costs what it costs there."""
    other = clip(96, 3, 2)
    other["vision_cfg"]["image_size"] = 64
    chain = clip_chain(clip(64, 2, 2), other, grower=dict(type="scratch"))
    chain["paradigm"]["own_image_sizes"] = True
    alike = compt.plan(clip_chain(clip(64, 2, 2), clip(96, 3, 2))).stages[1]
    stage = compt.plan(chain).stages[1]
    assert stage.teacher_flops == alike.teacher_flops
    assert stage.student_flops > 2 * alike.student_flops


def test_a_teacher_sees_what_the_student_sees():
    paradigm = PARADIGMS.build(dict(type="clip", own_image_sizes=True))
    small, large = clip(64, 1, 1), clip(64, 1, 1)
    large["vision_cfg"]["image_size"] = 64
    student = paradigm.build_model(Member("b", large)).eval()
    teacher = paradigm.build_model(Member("a", small)).eval()
    batch = dict(paradigm.example_batch(student, 2))
    assert batch["image"].shape[-2:] == (64, 64)
    batch["image"] = torch.rand(2, 3, 64, 64)
    half = F.interpolate(batch["image"], (32, 32), mode="bicubic", antialias=True)
    with torch.no_grad():
        resized = paradigm.teacher_forward(teacher, batch, paradigm.outputs)
        expected = paradigm.forward(teacher, {**batch, "image": half})
    assert all(torch.equal(resized[name], expected[name]) for name in expected)


def test_a_large_clip_model_is_planned_without_data_or_memory():
    config = clip_chain("ViT-H-14")
    config["chain"][0] |= dict(iters=None, epochs=1)
    compt.plan(clip_chain(clip(64, 2, 2)))  # what is imported on the way is not counted
    with little_memory(2**30):
        (stage,) = stages(config)
    assert stage.params == 986_109_441  # 3.9 GB
    assert (stage.iters, stage.samples) == (62, 992)
