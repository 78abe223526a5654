"""Contract, models, and metrics."""

from __future__ import annotations

import math
from typing import Any

import open_clip
import pytest
import torch
from compt_siglip import SigLip
from open_clip.model import CustomTextCLIP
from siglip_models import CUSTOM, CUSTOM_LARGER, LARGER, MODEL, batch_of, build, config

import compt
from compt.testing import ParadigmContract


class _Contract(ParadigmContract):
    @pytest.fixture(autouse=True)
    def _on_data(self, data: dict[str, Any]) -> None:
        self.paradigm = dict(type="siglip", data=data)  # type: ignore[misc]


class TestSigLip(_Contract):
    """On open_clip's own towers."""

    model = MODEL


class TestCustomText(_Contract):
    """With the text tower as a part, as published models have it."""

    model = CUSTOM
    larger = CUSTOM_LARGER


@pytest.mark.parametrize("left_out", [{}, {"init_logit_scale": None, "init_logit_bias": None}])
def test_scale_and_bias_begin_as_in_the_paper(left_out: dict[str, Any]) -> None:
    """At 10 and -10."""
    model = SigLip().build_model(compt.Member("a", {**MODEL, **left_out}))
    assert model.logit_scale.exp().item() == pytest.approx(10, rel=1e-6)
    assert model.logit_bias.item() == -10
    assert model.open_clip_config["init_logit_bias"] == -10
    assert model.open_clip_config["init_logit_scale"] == math.log(10)


def test_a_config_that_says_scale_and_bias_is_followed() -> None:
    """Zero is a value like any other, and the config is not changed."""
    sizes = config(32, 1, init_logit_scale=0.0, init_logit_bias=0)
    model = SigLip().build_model(compt.Member("a", sizes))
    assert (model.logit_scale.item(), model.logit_bias.item()) == (0, 0)
    assert sizes == config(32, 1, init_logit_scale=0.0, init_logit_bias=0)
    assert "init_logit_bias" not in MODEL


def test_named_models_are_open_clips() -> None:
    """A SigLIP is built by its name, and a CLIP's towers by theirs, with a bias."""
    with torch.device("meta"):
        ours = SigLip().build_model(compt.Member("a", "ViT-B-16-SigLIP-256"))
        sizes = open_clip.get_model_config("ViT-B-16-SigLIP-256")
        theirs = CustomTextCLIP(**{k: v for k, v in sizes.items() if k != "custom_text"})
        clip = SigLip().build_model(compt.Member("b", "ViT-B-32"))
    assert type(ours) is CustomTextCLIP
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }
    assert ours.open_clip_config == {**sizes, "init_logit_scale": math.log(10)}
    assert clip.logit_bias.shape == ()


def test_unknown_keys_are_refused_with_the_nearest_one() -> None:
    """The bias is a known key."""
    with pytest.raises(
        compt.ConfigError, match=r"init_logit_bais is unknown(.|\n)*init_logit_bias"
    ):
        SigLip().build_model(compt.Member("a", dict(MODEL, init_logit_bais=-10)))


def test_planned_without_memory() -> None:
    """Both members are planned without data, with the bias and with the FLOPs of the loss."""
    chain = [dict(name="a", model=MODEL, iters=2), dict(name="b", model=LARGER, iters=3)]
    plans = {
        kind: compt.plan(
            dict(
                paradigm=dict(type=kind),
                chain=chain,
                grower="lossless",
                train_dataloader=dict(batch_size=4),
            )
        )
        for kind in ("siglip", "clip")
    }
    for ours, clips in zip(plans["siglip"].stages, plans["clip"].stages, strict=True):
        assert ours.params == clips.params + 1
        assert 0 < ours.student_flops < clips.student_flops, "clip compares all pairs twice"


def test_metrics_are_clips(data: dict[str, Any]) -> None:
    """The same figures from the same towers, zero-shot and retrieval."""
    ours, net = build(data=data, templates=("a {}", "{}"))
    clip, other = build(kind="clip", data=data, templates=("a {}", "{}"))
    other.load_state_dict(
        {name: value for name, value in net.state_dict().items() if name != "logit_bias"}
    )
    with torch.no_grad():
        measured, expected = (
            p.metrics(m, "val", [batch_of(p)]) for p, m in ((ours, net), (clip, other))
        )
    assert measured == expected
    assert list(measured)[:3] == ["zeroshot_top1", "zeroshot_top5", "image_to_text_R@1"]
