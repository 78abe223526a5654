"""Load exports of MAE with mmpretrain and timm, and compute the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.paradigms.mae_models import (
    PREPROCESSOR,
    SIZE,
    classifier,
    made,
    mae,
    normalised,
    prepared,
    raw,
    simmim,
)

# isort: split
import mmpretrain
import timm

from compt import ConfigError
from compt.interfaces import Member
from compt.paradigms.mae import Mae
from compt.paradigms.mae.timm_vit import as_timm
from compt.testing.contracts import randomised
from tests.paradigms.conftest import picture

LAYER_SCALE = dict(layer_scale_init_value=0.1)
MODELS = {
    "MAE": mae(),
    "MAE of other sizes": mae(48, 3, 32, 2),
    "MAE with layer scale": mae(layer_cfgs=LAYER_SCALE),
    "classifier": classifier(),
    "classifier with layer scale and a norm before": classifier(pre_norm=True, **LAYER_SCALE),
    "classifier of the mean": classifier(out_type="avg_featmap", final_norm=False),
    "classifier of the mean without a class token": classifier(
        out_type="avg_featmap", final_norm=False, with_cls_token=False
    ),
    "tokens without a class token": classifier(out_type="raw", with_cls_token=False),
    "tokens without a last norm": classifier(out_type="raw", final_norm=False),
    "maps, no bias in qkv": classifier(out_type="featmap", qkv_bias=False),
}
NO_TIMM = {
    "two norms at the end": classifier(out_type="avg_featmap"),
    "another epsilon": mae(norm_cfg=dict(type="LN", eps=1e-5)),
    "another activation": mae(layer_cfgs=dict(act_cfg=dict(type="ReLU"))),
    "another kind of MLP": classifier(layer_cfgs=dict(ffn_type="swiglu_fused")),
}


def images() -> Tensor:
    return normalised(raw()["inputs"]).double()


def exported(case, folder) -> tuple[Mae, nn.Module]:
    paradigm, model = made(case)
    paradigm.export(model.double(), folder)
    return paradigm, model


@pytest.mark.parametrize("case", MODELS)
def test_mmpretrain_loads_what_is_exported(case, tmp_path):
    _, model = exported(MODELS[case], tmp_path)
    theirs = mmpretrain.get_model(
        str(tmp_path / "model.py"), pretrained=str(tmp_path / "model.pth")
    )
    batch = raw(labels=[0, 1, 2, 0])
    assert torch.equal(
        theirs.data_preprocessor(batch, True)["inputs"], normalised(batch["inputs"].flip(1))
    )
    theirs.double()
    assert type(theirs) is type(model)
    assert all(
        torch.equal(value, model.state_dict()[name]) for name, value in theirs.state_dict().items()
    )
    with torch.no_grad():
        outputs = [each.extract_feat(images())[-1] for each in (model, theirs)]
    assert torch.equal(*outputs)


@pytest.mark.parametrize("case", MODELS)
def test_timm_loads_the_encoder_and_computes_the_same(case, tmp_path):
    _, model = exported(MODELS[case], tmp_path)
    theirs = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).double().eval()
    assert theirs.num_classes == 0
    output = getattr(model.backbone, "out_type", None)
    with torch.no_grad():
        own = model.extract_feat(images()) if output == "raw" else model.backbone(images())
        tokens = theirs.forward_features(images())
        if output == "raw":
            equal = tokens
        elif output == "featmap":
            equal = tokens[:, 1:].mT.reshape(own[-1].shape)
        else:
            equal = theirs(images())
    assert torch.allclose(own[-1], equal, atol=1e-12, rtol=0)
    assert sum(p.numel() for p in theirs.parameters()) == sum(
        p.numel() for p in model.backbone.parameters()
    )


def test_timm_prepares_pixels_as_the_model_was_trained(tmp_path):
    paradigm, model = made(
        dict(mae(), data_preprocessor=dict(PREPROCESSOR, std=[51.0, 60.0, 70.0]))
    )
    paradigm.export(model, tmp_path)
    theirs = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(theirs))
    image = picture(0, (SIZE, SIZE))
    bgr = torch.tensor(np.asarray(image)).permute(2, 0, 1).flip(0)[None]
    batch = prepared(paradigm, {"inputs": bgr, "data_samples": raw(1)["data_samples"]})
    assert torch.allclose(transform(image)[None], batch["inputs"], atol=1e-5)
    assert timm.create_model(f"local-dir:{tmp_path / 'timm'}").patch_embed.img_size == (SIZE, SIZE)


@pytest.mark.parametrize("case", NO_TIMM)
def test_what_timm_cannot_compute_is_told_and_the_rest_exported(case, tmp_path):
    paradigm, model = made(NO_TIMM[case])
    with pytest.raises(ConfigError, match="no equal in timm"):
        as_timm(model.backbone, PREPROCESSOR)
    with pytest.warns(UserWarning, match="no export for timm"):
        paradigm.export(model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model.py", "model.pth"}
    assert type(paradigm.load(tmp_path)) is type(model)


def test_another_backbone_is_exported_for_mmpretrain_alone(tmp_path):
    paradigm, model = made(simmim())
    paradigm.export(model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model.py", "model.pth"}
    theirs = mmpretrain.get_model(
        str(tmp_path / "model.py"), pretrained=str(tmp_path / "model.pth")
    )
    image = torch.randn(1, 3, 56, 56)
    assert torch.equal(model.extract_feat(image)[-1], theirs.extract_feat(image)[-1])


# load


@pytest.mark.parametrize("case", ["MAE", "classifier of the mean"])
def test_an_exported_folder_is_loaded_into_an_equal_model(case, tmp_path):
    paradigm, model = made(MODELS[case])
    paradigm.export(model, tmp_path)
    fresh = Mae()
    assert fresh.recognises(tmp_path) and fresh.recognises(tmp_path / "model.pth")
    for path in (tmp_path, tmp_path / "model.pth"):
        loaded = fresh.load(path)
        assert loaded.mmpretrain_config == model.mmpretrain_config
        assert all(
            torch.equal(a, b)
            for a, b in zip(loaded.state_dict().values(), model.state_dict().values())
        )
    assert fresh.example_batch(loaded, 2)["inputs"].shape == (2, 3, SIZE, SIZE)


def test_a_model_that_is_loaded_need_not_be_a_member(tmp_path):
    """Load with another input, as a model that is to be compared with one is.

    Its own input counts only where no other is known.
    """
    exported(mae(size=16), tmp_path)
    paradigm, model = made()
    assert paradigm.load(tmp_path).backbone.num_patches == 4
    assert paradigm.example_batch(model, 2)["inputs"].shape == (2, 3, SIZE, SIZE)
    fresh = Mae()
    fresh.load(tmp_path)
    with pytest.raises(
        ConfigError, match=r"image size \(32, 32\), the members before it \(16, 16\)"
    ):
        fresh.build_model(Member("a", mae()))


def test_loading_looks_for_no_other_checkpoint(tmp_path):
    """Load where a config says what its own training started from.

    That may be a file that is long gone, or an address.
    """
    paradigm, model = made()
    model.mmpretrain_config["backbone"]["init_cfg"] = dict(
        type="Pretrained", checkpoint=str(tmp_path / "gone.pth")
    )
    paradigm.export(model, tmp_path / "a")
    loaded = Mae().load(tmp_path / "a")
    assert torch.equal(loaded.backbone.cls_token, model.backbone.cls_token)
    with pytest.raises(ConfigError, match=r"gone\.pth"):
        Mae().build_model(Member("a", str(tmp_path / "a")))


def test_the_timm_folder_is_loaded_as_a_model_of_timm_and_written_again(tmp_path):
    paradigm, model = exported(mae(), tmp_path)
    assert Mae().recognises(tmp_path / "timm")
    loaded = Mae().load(tmp_path / "timm")
    assert type(loaded) is timm.models.vision_transformer.VisionTransformer
    again = tmp_path / "again"
    paradigm.export(loaded, again)
    assert json.loads((again / "config.json").read_text()) == json.loads(
        (tmp_path / "timm/config.json").read_text()
    )
    other = timm.create_model(f"local-dir:{again}", pretrained=True)
    assert all(
        torch.equal(a, b) for a, b in zip(other.state_dict().values(), loaded.state_dict().values())
    )
    assert torch.equal(loaded.pos_embed, model.backbone.pos_embed.float())


DAMAGE = {
    "model.pth": "weights of mmpretrain",
    "model.py": "config of mmpretrain",
    "timm/model.safetensors": "weights of timm",
    "timm/config.json": "config of timm",
}


@pytest.mark.parametrize("file", DAMAGE)
@pytest.mark.parametrize("damage", ["cut short", "removed", "another model's"])
def test_damaged_folders_are_a_config_error_that_names_them(file, damage, tmp_path):
    exported(mae(), tmp_path / "a")
    exported(mae(48), tmp_path / "b")
    path = tmp_path / "a" / file
    if damage == "cut short":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "removed":
        path.unlink()
    else:
        path.write_bytes((tmp_path / "b" / file).read_bytes())
    with pytest.raises(ConfigError) as caught:
        Mae().load(path.parent)
    assert str(path.parent) in str(caught.value)


def test_only_models_of_the_two_libraries_are_recognised(tmp_path):
    exported(mae(), tmp_path)
    torch.save({"meta": {"cfg": "optimizer = 3"}, "state_dict": {}}, tmp_path / "other.pth")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "bare.pth")
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "config.json").write_text('{"architecture": "resnet18"}')
    names = [
        "other.pth",
        "bare.pth",
        "broken.pth",
        "clip",
        "nowhere",
        "nowhere.pth",
        "model.py",
        "timm/config.json",
    ]
    assert not [name for name in names if Mae().recognises(tmp_path / name)]
    for name in names:
        with pytest.raises(ConfigError, match=name):
            Mae().load(tmp_path / name)


def test_no_code_of_a_checkpoint_is_run(tmp_path):
    """Neither what its config says, nor what its objects do when they are unpickled."""
    write = f"open({str(tmp_path / 'run')!r}, 'w')"
    text = f"{write}\nmodel = dict(type='MAE', size={write})"
    torch.save(
        {"meta": {"cfg": text, "hook": _Runs(tmp_path / "run")}, "state_dict": {}},
        tmp_path / "evil.pth",
    )
    assert not Mae().recognises(tmp_path / "evil.pth")
    with pytest.raises(ConfigError):
        Mae().load_weights(made()[1], tmp_path / "evil.pth")
    assert not (tmp_path / "run").exists()


class _Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_config_file_of_mmpretrain_is_a_model_with_the_pixels_it_says(tmp_path):
    own = dict(
        type="SelfSupDataPreprocessor", mean=[1.0, 2.0, 3.0], std=[2.0, 4.0, 8.0], to_rgb=True
    )
    (tmp_path / "mae.py").write_text(f"model = {mae(48)!r}\ndata_preprocessor = {own!r}\n")
    paradigm = Mae()
    model = paradigm.build_model(Member("a", str(tmp_path / "mae.py")))
    assert model.backbone.embed_dims == 48
    randomised(model)
    inputs = raw()["inputs"]
    mean, std = (torch.tensor(own[key]).view(3, 1, 1) for key in ("mean", "std"))
    expected = (inputs.flip(1).float() - mean) / std
    assert torch.equal(prepared(paradigm, raw())["inputs"], expected)
    assert torch.equal(model.data_preprocessor(raw(), True)["inputs"], expected)
    (tmp_path / "broken.py").write_text("model = dict(")
    (tmp_path / "empty.py").write_text("data = 3")
    for name, message in (("broken.py", "cannot be read"), ("empty.py", "has no `model`")):
        with pytest.raises(ConfigError, match=message):
            paradigm.build_model(Member("b", str(tmp_path / name)))
