"""Hold CLIP to the shipped contract, and refuse what cannot be one."""

from __future__ import annotations

import json

import pytest
import torch

open_clip = pytest.importorskip("open_clip")
from open_clip.model import CLIP

from compt import ConfigError
from compt.interfaces import Member
from compt.paradigms.clip.paradigm import Clip
from compt.testing import ParadigmContract
from tests.paradigms.clip_models import CUSTOM, MODEL, TIMM, changed, made


def shallow(model):
    """Return a model with one narrow block in each tower, as the contract trains many of them."""
    config = changed(model, text_width=16, text_heads=1, text_layers=1)
    return config if "timm_model_name" in config["vision_cfg"] else changed(config, vision_layers=1)


class _Contract(ParadigmContract):
    @pytest.fixture(autouse=True)
    def _on_data(self, data):
        self.paradigm = dict(type="clip", data=data)


class TestClip(_Contract):
    model = shallow(MODEL)


class TestCustomTextClip(_Contract):
    model = shallow(CUSTOM)


class TestClipWithTimmTower(_Contract):
    model = shallow(TIMM)


def test_a_named_model_is_open_clips():
    with torch.device("meta"):
        ours = Clip().build_model(Member("a", "ViT-B-32"))
        theirs = CLIP(**open_clip.get_model_config("ViT-B-32"))
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (ours, theirs)]
    assert shapes[0] == shapes[1]


def test_options_of_the_config_reach_the_model():
    model = Clip().build_model(Member("a", dict(MODEL, quick_gelu=True, init_logit_scale=1.5)))
    assert model.logit_scale.item() == 1.5
    assert type(model.visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"


def test_unknown_keys_are_all_reported_with_the_nearest_ones():
    model = dict(
        embeddim=16,
        vision_cfg=dict(MODEL["vision_cfg"], widht=32),
        text_cfg=dict(MODEL["text_cfg"], context_lenght=12, xyzzy=1),
        quick_gleu=True,
    )
    with pytest.raises(ConfigError) as caught:
        Clip().build_model(Member("large", model))
    message = str(caught.value)
    assert "'large'" in message
    for wrong, right in (
        ("model.embeddim", "embed_dim"),
        ("model.quick_gleu", "quick_gelu"),
        ("model.vision_cfg.widht", "width"),
        ("model.text_cfg.context_lenght", "context_length"),
    ):
        assert f"{wrong} is unknown" in message
        assert (
            f"'{right}'" in message.partition(f"{wrong} is unknown")[2].partition("unknown")[0]
        ), wrong
    assert "model.text_cfg.xyzzy is unknown" in message
    assert "model.embed_dim is missing" in message


def test_an_unknown_name_suggests_near_ones():
    with pytest.raises(ConfigError, match=r"'ViT-B-23'(.|\n)*Did you mean(.|\n)*ViT-B-32"):
        Clip().build_model(Member("a", "ViT-B-23"))
    with pytest.raises(ConfigError, match="'nothing like it'"):
        Clip().build_model(Member("a", "nothing like it"))
    with pytest.raises(ConfigError, match="nowhere"):
        Clip().build_model(Member("a", "local-dir:/nowhere"))


@pytest.mark.parametrize(
    "model",
    [
        changed(MODEL, vision_head_width=64),  # 32 / 64: no head
        changed(MODEL, text_heads=5),
        dict(MODEL, vision_cfg=dict(timm_model_name="no_such_vit", image_size=32)),
        dict(MODEL, vision_cfg="ViT-B-32"),
        dict(MODEL, text_cfg=None),
    ],
)
def test_models_that_cannot_be_are_config_errors(model):
    with pytest.raises(ConfigError, match="member 'a'"):
        Clip().build_model(Member("a", model))


def test_a_timm_tower_of_another_size_is_refused():
    with pytest.raises(ConfigError, match=r"\(160, 160\).*\(32, 32\)(.|\n)*image_size=160"):
        Clip().build_model(Member("a", changed(TIMM, vision_image_size=32)))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (changed(MODEL, vision_image_size=48), r"'b'.*image size \(48, 48\).*\(32, 32\)"),
        (changed(MODEL, text_context_length=16), r"'b'.*context length 16.* 12"),
        (
            changed(MODEL, text_tokenizer_kwargs={"clean": "whitespace"}),
            r"'b'.*tokenizer.*whitespace",
        ),
    ],
)
def test_members_of_different_input_are_refused(other, message):
    paradigm, _ = made()
    with pytest.raises(ConfigError, match=message):
        paradigm.build_model(Member("b", other))
    paradigm.build_model(Member("c", changed(MODEL, vision_width=64, text_width=64)))


def test_what_is_not_known_yet_is_said(data):
    with pytest.raises(ConfigError, match="build_model first"):
        Clip(data=data).build_dataset("train")
    with pytest.raises(ConfigError, match="no data"):
        made()[0].build_dataset("train")


def test_a_logit_bias_is_refused_with_what_it_is_for(tmp_path):
    """Refuse models of the SigLIP kind.

    A bias that open_clip adds to the logits must not be dropped silently.
    """
    config = dict(MODEL, init_logit_bias=-3.0)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    for model in (config, str(tmp_path), f"local-dir:{tmp_path}", "ViT-B-16-SigLIP"):
        with pytest.raises(
            ConfigError, match=r"member 'a' has a logit bias(.|\n)*sigmoid loss \(SigLIP\)"
        ):
            Clip().build_model(Member("a", model))


def test_a_logit_bias_of_none_is_no_bias():
    assert Clip().build_model(Member("a", dict(MODEL, init_logit_bias=None))).logit_bias is None


class _Biased(Clip):
    """A subclass for another loss, as plug-ins write them."""

    model_defaults = {"init_logit_bias": -3.0, "init_logit_scale": 2.0}

    def check_model(self, config, owner):
        if config.get("init_logit_bias") is None:
            raise ConfigError(f"The model of {owner} has no logit bias.")


def test_a_subclass_says_which_models_it_trains(tmp_path):
    """Fill in, build and export what a config leaves out.

    Each class recognises and loads its own folders.
    """
    paradigm = _Biased()
    model = paradigm.build_model(Member("a", dict(MODEL, init_logit_scale=1.0)))
    assert (model.logit_bias.item(), model.logit_scale.item()) == (-3.0, 1.0)
    assert model.open_clip_config == dict(MODEL, init_logit_bias=-3.0, init_logit_scale=1.0)
    assert "init_logit_bias" not in MODEL and not Clip.model_defaults
    folders = {_Biased: tmp_path / "biased", Clip: tmp_path / "clip"}
    for cls, net in ((_Biased, model), (Clip, made()[1])):
        folders[cls].mkdir()
        cls().export(net, folders[cls])
    for cls, own in folders.items():
        assert [path for path in folders.values() if cls().recognises(path)] == [own]
        assert cls().load(own).open_clip_config["embed_dim"] == 16
    for cls, other, message in (
        (_Biased, Clip, "has no logit bias"),
        (Clip, _Biased, r"has a logit bias(.|\n)*SigLIP"),
    ):
        for read in (cls().load, lambda path, cls=cls: cls().load_weights(model, path)):
            with pytest.raises(ConfigError, match=message) as caught:
                read(folders[other])
            assert str(folders[other]) in str(caught.value)
