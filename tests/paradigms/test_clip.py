"""CLIP: the shipped contract, parity with open_clip itself, and metrics worked by hand."""

from __future__ import annotations

import copy
import itertools
import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

open_clip = pytest.importorskip("open_clip")
pytest.importorskip("timm")
from open_clip.model import CLIP, CustomTextCLIP  # noqa: E402
from open_clip.zero_shot_classifier import build_zero_shot_classifier_legacy  # noqa: E402

from compt import ConfigError, grow  # noqa: E402
from compt.checkpoint import save_weights  # noqa: E402
from compt.interfaces import Member  # noqa: E402
from compt.paradigms._clip_data import PairDataset  # noqa: E402
from compt.paradigms._clip_metrics import retrieval, zero_shot  # noqa: E402
from compt.paradigms.clip import Clip  # noqa: E402
from compt.stage import StageModel  # noqa: E402
from compt.testing import ParadigmContract  # noqa: E402
from compt.testing.contracts import randomised  # noqa: E402

MODEL = dict(
    embed_dim=16,
    vision_cfg=dict(image_size=32, patch_size=16, width=32, layers=2, head_width=16),
    text_cfg=dict(context_length=12, vocab_size=49408, width=32, heads=2, layers=2),
)
CUSTOM = dict(MODEL, custom_text=True)
TIMM = dict(MODEL, vision_cfg=dict(timm_model_name="test_vit", image_size=160, timm_pool="token"))
VIT_TINY = dict(MODEL, vision_cfg=dict(timm_model_name="vit_tiny_patch16_224", image_size=224), custom_text=True)
KINDS = [
    pytest.param(MODEL, CLIP, id="own"),
    pytest.param(CUSTOM, CustomTextCLIP, id="custom_text"),
    pytest.param(TIMM, CLIP, id="timm"),
    pytest.param(VIT_TINY, CustomTextCLIP, id="vit_tiny"),
]
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
SIZES = [(32, 32), (37, 53), (64, 48), (200, 33), (5, 7), (33, 32), (61, 61), (1, 40)]
"""Width and height: exact, odd, larger, smaller, long, one pixel wide."""
CAPTIONS = ["a dog", "a cat, asleep", "a dog", "two birds", "a cat on a mat", "birds!", "a réd dog", "nothing"]
KIND = ["dog", "cat", "dog", "bird", "cat", "bird", "dog", ""]


def picture(number: int, size: tuple[int, int]) -> Image.Image:
    values = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, str]:
    """A table of eight pictures of all shapes, with captions and classes; the last has no class."""
    folder = tmp_path_factory.mktemp("pairs")
    lines = ["image,caption,kind"]
    for i, size in enumerate(SIZES):
        picture(i, size).save(folder / f"{i}.png")
        lines.append(f'{i}.png,"{CAPTIONS[i]}",{KIND[i]}')
    for split in ("train", "val"):
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return dict(type="csv", train=str(folder / "train.csv"), val=str(folder / "val.csv"), label_key="kind")


def made(model=MODEL, *, seed: int = 0, **options) -> tuple[Clip, nn.Module]:
    """A paradigm and a model of it with random gains, biases and tokens, in eval mode."""
    paradigm = Clip(**options)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return paradigm, randomised(paradigm.build_model(Member("a", model)), scale=0.02).eval()


def changed(model, **options):
    """A model config with other values, as ``vision_image_size=16``."""
    model = copy.deepcopy(model)
    for key, value in options.items():
        part, _, name = key.partition("_")
        model[f"{part}_cfg"][name] = value
    return model


def raw(dataset, indices=range(8)) -> dict[str, torch.Tensor]:
    return torch.utils.data.default_collate([dataset[i] for i in indices])


def prepared(paradigm: Clip, batch):
    return paradigm.prepare(batch, generator=torch.Generator().manual_seed(0))


class _Contract(ParadigmContract):
    @pytest.fixture(autouse=True)
    def _on_data(self, data):
        self.paradigm = dict(type="clip", data=data)


class TestClip(_Contract):
    model = MODEL


class TestCustomTextClip(_Contract):
    model = CUSTOM


class TestClipWithTimmTower(_Contract):
    model = TIMM


# --- pixels and tokens


def transform(size, *, train=False, mean=MEAN, std=STD):
    return open_clip.image_transform(
        size, is_train=train, mean=mean, std=std, resize_mode="shortest", interpolation="bicubic"
    )


def test_pixels_equal_open_clips_for_every_shape(data):
    """Both round to uint8 when they resize, so nothing but float32 rounding of the normalisation is left."""
    paradigm, _ = made(data=data, mean=MEAN, std=STD)
    ours = prepared(paradigm, raw(paradigm.build_dataset("val")))["image"]
    theirs = torch.stack([transform(32)(picture(i, size)) for i, size in enumerate(SIZES)])
    assert ours.shape == (8, 3, 32, 32)
    assert torch.allclose(ours, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(32, 64), (48, 16)])
def test_pixels_equal_open_clips_for_models_that_are_not_square(data, size):
    paradigm, _ = made(changed(MODEL, vision_image_size=list(size)), data=data, mean=MEAN, std=STD)
    ours = prepared(paradigm, raw(paradigm.build_dataset("val")))["image"]
    theirs = torch.stack([transform(size)(picture(i, s)) for i, s in enumerate(SIZES)])
    assert ours.shape == theirs.shape
    assert torch.allclose(ours, theirs, atol=1e-6, rtol=0)


def test_random_crops_equal_open_clips_for_the_same_random_numbers(data):
    """open_clip's own default: at least 0.9 of the area."""
    paradigm, _ = made(data=data)
    dataset = paradigm.build_dataset("train")
    crop = transform(32, train=True, mean=paradigm.mean, std=paradigm.std)
    for i, size in enumerate(SIZES):
        torch.manual_seed(i)
        ours = prepared(paradigm, raw(dataset, [i]))["image"][0]
        torch.manual_seed(i)
        assert torch.allclose(ours, crop(picture(i, size)), atol=1e-6, rtol=0), size


def test_without_augmentation_training_sees_what_evaluation_sees(data):
    paradigm, _ = made(data=data, augment=None)
    train, val = (raw(paradigm.build_dataset(split)) for split in ("train", "val"))
    assert all(torch.equal(train[k], val[k]) for k in train)
    augmented, _ = made(data=data, augment=0.3)
    assert not torch.equal(raw(augmented.build_dataset("train"))["image"], val["image"])
    assert torch.equal(raw(augmented.build_dataset("val"))["image"], val["image"])


@pytest.mark.parametrize("augment", [0.0, 1.5, -0.1])
def test_an_impossible_crop_is_refused(augment):
    with pytest.raises(ConfigError, match="augment"):
        Clip(augment=augment)


@pytest.mark.parametrize("kwargs", [{}, {"clean": "canonicalize"}])
def test_tokens_equal_open_clips(tmp_path, kwargs):
    paradigm, model = made(changed(MODEL, text_tokenizer_kwargs=kwargs))
    paradigm.export(model, tmp_path)
    theirs = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    texts = [*CAPTIONS, "", "Many words, " * 20, "<b>&amp;</b> été 你好 🙂", "UPPER-case_under"]
    tokens = paradigm.tokenizer(texts)
    assert tokens.shape == (len(texts), 12)
    assert torch.equal(tokens, theirs(texts))
    default = open_clip.get_tokenizer("ViT-B-32", context_length=12)(texts)
    assert torch.equal(tokens, default) is (not kwargs)


def test_samples_hold_the_tokens_and_classes_of_their_rows(data):
    paradigm, _ = made(data=data)
    dataset = paradigm.build_dataset("val")
    assert dataset.classes == ("bird", "cat", "dog")
    batch = raw(dataset)
    assert torch.equal(batch["text"], open_clip.get_tokenizer("ViT-B-32", context_length=12)(CAPTIONS))
    assert batch["label"].tolist() == [2, 1, 2, 0, 1, 0, 2, -1]
    assert (batch["image"].dtype, batch["text"].dtype) == (torch.uint8, torch.int64)


def test_training_draws_a_caption_and_evaluation_takes_the_first():
    source = [dict(image=picture(0, (8, 8)), captions=("a", "b", "c"), label=0)]

    def tokenize(texts):
        return torch.tensor([[ord(text)] for text in texts])

    train, val = (PairDataset(source, (8, 8), tokenize, augment=augment) for augment in (0.9, None))
    assert {chr(train[0]["text"]) for _ in range(100)} == {"a", "b", "c"}
    assert {chr(val[0]["text"]) for _ in range(20)} == {"a"}


def test_a_data_set_survives_the_way_to_a_worker(data):
    paradigm, _ = made(data=data)
    dataset = paradigm.build_dataset("val")
    one, two = raw(dataset), raw(pickle.loads(pickle.dumps(dataset)))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_num_samples_may_be_given_where_the_data_is_not(data):
    paradigm = Clip(data=dict(type="csv", train="nowhere.csv", num_samples=5_000_000))
    assert paradigm.num_samples("train") == 5_000_000
    assert made(data=data)[0].num_samples("val") == 8


# --- loss, forward and gradients


def test_loss_by_hand():
    """Two orthogonal pairs at scale 1: log(1 + exp(-1)); swapped: log(1 + exp(1))."""
    outputs = {"image_features": torch.eye(2), "text_features": torch.eye(2), "logit_scale": torch.tensor(1.0)}
    assert Clip().loss(outputs, {})["contrastive"].item() == pytest.approx(math.log1p(math.exp(-1)))
    swapped = {**outputs, "text_features": torch.eye(2).flip(0)}
    assert Clip().loss(swapped, {})["contrastive"].item() == pytest.approx(math.log1p(math.exp(1)))


def test_loss_equals_open_clips_and_a_written_out_one():
    generator = torch.Generator().manual_seed(0)
    image, text = (nn.functional.normalize(torch.randn(6, 5, generator=generator).double(), dim=1) for _ in "ab")
    scale = torch.tensor(14.0, dtype=torch.float64)
    ours = Clip().loss({"image_features": image, "text_features": text, "logit_scale": scale}, {})
    total = 0.0
    for i in range(6):
        for query, answers in ((image[i], text), (text[i], image)):
            logits = [14 * float(query @ answer) for answer in answers]
            total += math.log(sum(map(math.exp, logits))) - logits[i]
    assert set(ours) == {"contrastive"}
    assert ours["contrastive"].item() == pytest.approx(total / 12, rel=1e-12)
    assert torch.equal(ours["contrastive"], open_clip.ClipLoss()(image, text, scale))


@pytest.mark.parametrize(("config", "cls"), KINDS)
def test_forward_equals_open_clips_on_its_own_preprocessing(config, cls, data):
    paradigm, model = made(config, data=data, mean=MEAN, std=STD)
    outputs = paradigm.forward(model, prepared(paradigm, raw(paradigm.build_dataset("val"))))
    assert type(model) is cls
    preprocess = transform(config["vision_cfg"]["image_size"])
    for i, size in enumerate(SIZES):
        image = preprocess(picture(i, size))[None]
        text = open_clip.get_tokenizer("ViT-B-32", context_length=12)([CAPTIONS[i]])
        for name, feature in (("image", model.encode_image(image)), ("text", model.encode_text(text))):
            unit = feature[0] / feature[0].norm()
            assert torch.allclose(outputs[f"{name}_features"][i], unit, atol=1e-5), (name, size)
    assert outputs["logit_scale"].item() == pytest.approx(math.exp(model.logit_scale.item()))


@pytest.mark.parametrize(("config", "cls"), KINDS[:3])
def test_gradients_of_a_training_step_equal_open_clips(config, cls, data):
    """From raw samples through the stage, against model(image, text) and ClipLoss."""
    stage = StageModel(dict(type="clip", data=data), dict(name="a", model=config)).train()
    twin = cls(**{k: v for k, v in copy.deepcopy(config).items() if k != "custom_text"}).train()
    twin.load_state_dict(stage.student.state_dict())
    batch = raw(stage.paradigm.build_dataset("val"))
    losses = stage(mode="loss", **batch)
    losses["loss"].backward()
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    preprocess = transform(config["vision_cfg"]["image_size"], mean=mean, std=std)
    image = torch.stack([preprocess(picture(i, size)) for i, size in enumerate(SIZES)])
    loss = open_clip.ClipLoss()(*twin(image, batch["text"]))
    loss.backward()
    assert losses["loss"].item() == pytest.approx(loss.item(), rel=1e-6)
    ours, theirs = dict(stage.student.named_parameters()), dict(twin.named_parameters())
    assert ours.keys() == theirs.keys()
    for name, p in theirs.items():
        assert p.grad is not None and p.grad.any(), name
        assert torch.allclose(ours[name].grad, p.grad, rtol=1e-4, atol=1e-6), name


def test_a_lossless_clip_starts_with_a_transfer_loss_of_zero(data, tmp_path):
    """Both towers wider and deeper, features of one width: no heads, and nothing to correct."""
    larger = changed(MODEL, vision_width=64, vision_layers=3, text_width=48, text_heads=3, text_layers=3)
    (_, small), (_, large) = made(MODEL), made(larger)
    assert grow(small, large).function_preserving
    files = {"small": str(tmp_path / "small.safetensors"), "large": str(tmp_path / "large.safetensors")}
    save_weights(small, Path(files["small"]))
    save_weights(large, Path(files["large"]))
    teacher = dict(name="a", model=MODEL, weights=files["small"])
    losses = {}
    for init in (files["large"], None):
        stage = StageModel(
            dict(type="clip", data=data),
            dict(name="b", model=larger),
            teacher=teacher,
            transfer=dict(type="feature_mse", limit=None),
            init=init,
        ).train()
        assert not any("heads" in name for name in stage.state_dict())
        batch = raw(stage.paradigm.build_dataset("train"))
        losses[init] = stage(mode="loss", **batch)["transfer/feature_mse"].item()
    assert losses[files["large"]] < 1e-6
    assert losses[None] > 0.1


def test_the_logit_scale_is_clamped_after_a_step():
    paradigm, model = made()
    with torch.no_grad():
        for value, kept in ((10.0, math.log(100)), (-1.0, 0.0), (2.5, 2.5), (math.log(100), math.log(100))):
            model.logit_scale.fill_(value)
            paradigm.after_step(model)
            assert model.logit_scale.item() == pytest.approx(kept, rel=1e-6)


# --- export and load


def equal_features(paradigm: Clip, one: nn.Module, other: nn.Module, batch) -> bool:
    with torch.no_grad():
        first, second = (paradigm.forward(m.eval(), batch) for m in (one, other))
    return all(torch.equal(first[k], second[k]) for k in paradigm.outputs)


@pytest.mark.parametrize(("config", "cls"), KINDS)
def test_open_clip_loads_what_is_exported(config, cls, data, tmp_path):
    paradigm, model = made(config, data=data, mean=MEAN, std=STD)
    batch = prepared(paradigm, raw(paradigm.build_dataset("val")))
    paradigm.export(model, tmp_path)
    theirs, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    assert type(theirs) is cls
    assert theirs.state_dict().keys() == model.state_dict().keys()
    assert equal_features(paradigm, model, theirs, batch)
    normalise = preprocess.transforms[-1]
    assert (tuple(normalise.mean), tuple(normalise.std)) == (MEAN, STD)
    images = torch.stack([preprocess(picture(i, size)) for i, size in enumerate(SIZES)])
    assert torch.allclose(images, batch["image"], atol=1e-6, rtol=0)
    assert torch.equal(open_clip.get_tokenizer(f"local-dir:{tmp_path}")(CAPTIONS), batch["text"])
    assert equal_features(paradigm, model, Clip().load(tmp_path), batch)


def test_the_exported_config_says_how_pixels_are_prepared(tmp_path):
    paradigm, model = made(CUSTOM, mean=MEAN, std=STD)
    paradigm.export(model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"open_clip_config.json", "open_clip_model.safetensors"}
    written = json.loads((tmp_path / "open_clip_config.json").read_text())
    assert written["model_cfg"] == CUSTOM
    expected = dict(mean=list(MEAN), std=list(STD), interpolation="bicubic", resize_mode="shortest")
    assert written["preprocess_cfg"] == expected


def test_building_and_exporting_leave_the_config_alone(tmp_path):
    config = copy.deepcopy(CUSTOM)
    paradigm, model = made(config)
    paradigm.export(model, tmp_path)
    assert config == CUSTOM


def test_only_open_clip_folders_are_recognised(tmp_path):
    paradigm, model = made()
    (tmp_path / "clip").mkdir()
    paradigm.export(model, tmp_path / "clip")
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "toy.safetensors").write_bytes(b"")
    (tmp_path / "folder" / "open_clip_config.json").mkdir(parents=True)
    assert Clip().recognises(tmp_path / "clip")
    others = ["toy", "folder", "nowhere", "clip/open_clip_config.json", "clip/open_clip_model.safetensors"]
    assert not any(Clip().recognises(tmp_path / other) for other in others)


def test_a_folder_without_weights_is_refused_by_name(tmp_path):
    paradigm, model = made()
    paradigm.export(model, tmp_path)
    (tmp_path / "open_clip_model.safetensors").unlink()
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        Clip().load(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("weights", "others"),
    [
        ("open_clip_model.safetensors", []),
        ("open_clip_pytorch_model.bin", []),
        ("open_clip_pytorch_model.pth", []),
        ("open_clip_model.safetensors", ["pytorch_model.bin", "open_clip_pytorch_model.bin"]),
        ("open_clip_pytorch_model.bin", ["model.safetensors", "pytorch_model.bin", "training_args.bin"]),
        ("open_clip_pytorch_model.bin", ["optimizer.pt"]),
    ],
)
def test_the_weights_that_open_clip_takes_are_loaded(weights, others, data, tmp_path):
    """As published folders have them: often beside the same model in the format of another library."""
    paradigm, model = made(data=data)
    paradigm.export(model, tmp_path)
    (tmp_path / "open_clip_model.safetensors").unlink()
    for name, state in ((weights, model.state_dict()), *((o, {"foreign": torch.zeros(3)}) for o in others)):
        if name.endswith(".safetensors"):
            save_file(state, tmp_path / name)
        else:
            torch.save(state, tmp_path / name)
    batch = prepared(paradigm, raw(paradigm.build_dataset("val")))
    assert equal_features(paradigm, model, open_clip.create_model(f"local-dir:{tmp_path}"), batch)
    assert equal_features(paradigm, model, Clip().load(tmp_path), batch)


@pytest.mark.parametrize("damage", ["cut short", "another model"])
def test_weights_that_do_not_fit_are_a_config_error(damage, tmp_path):
    paradigm, model = made()
    paradigm.export(model, tmp_path)
    file = tmp_path / "open_clip_model.safetensors"
    if damage == "cut short":
        file.write_bytes(file.read_bytes()[:1000])
    else:
        save_weights(made(changed(MODEL, vision_width=64))[1], file)
    with pytest.raises(ConfigError) as caught:
        Clip().load(tmp_path)
    assert str(tmp_path) in str(caught.value)


# --- models


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
        assert f"'{right}'" in message.partition(f"{wrong} is unknown")[2].partition("unknown")[0], wrong
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
        (changed(MODEL, text_tokenizer_kwargs={"clean": "whitespace"}), r"'b'.*tokenizer.*whitespace"),
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


def test_a_logit_bias_is_part_of_the_loss_or_refused(data, tmp_path):
    """Models of the SigLIP kind: a bias that open_clip adds to the logits must not be dropped silently."""
    config = {"model_cfg": dict(MODEL, init_logit_bias=-3.0)}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    paradigm = Clip(data=data)
    try:
        model = paradigm.build_model(Member("a", f"local-dir:{tmp_path}"))
    except ConfigError:
        return
    batch = prepared(paradigm, raw(paradigm.build_dataset("val")))
    sum(paradigm.loss(paradigm.forward(model, batch), batch).values()).backward()
    assert model.logit_bias.grad is not None, "the logit bias is not trained"


# --- metrics by hand


def test_zero_shot_by_hand():
    """Scores of three classes; of five pictures four have a class, and three of these are right."""
    scores = torch.tensor(
        [[3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [3.0, 1.0, 2.0], [3.0, 2.0, 1.0], [0.0, 0.0, 1.0]]
    )  # predicted 0, 1, 0, 0, 2
    found = zero_shot(scores, torch.eye(3), torch.tensor([0, 1, 2, -1, 2]))
    assert list(found) == ["zeroshot_top1", "zeroshot_top5"]
    assert (found["zeroshot_top1"].value, found["zeroshot_top1"].chance) == (0.75, pytest.approx(1 / 3))
    assert (found["zeroshot_top5"].value, found["zeroshot_top5"].chance) == (1.0, 1.0)


def test_zero_shot_top5_of_ten_classes_by_hand():
    """Class 9 scores highest and class 0 lowest for every picture; 5 to 9 are among the first five."""
    scores = torch.arange(10.0).repeat(10, 1)
    found = zero_shot(scores, torch.eye(10), torch.arange(10))
    assert (found["zeroshot_top1"].value, found["zeroshot_top1"].chance) == (pytest.approx(0.1), 0.1)
    assert (found["zeroshot_top5"].value, found["zeroshot_top5"].chance) == (pytest.approx(0.5), 0.5)


def test_zero_shot_classifier_columns_are_classes():
    """A classifier that is not square: two features, three classes."""
    classifier = torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    found = zero_shot(torch.tensor([[-2.0, 1.0], [0.5, 1.0]]), classifier, torch.tensor([2, 0]))
    assert found["zeroshot_top1"].value == 0.5


def test_without_any_class_there_is_no_zero_shot_figure():
    assert zero_shot(torch.eye(2), torch.eye(2), torch.tensor([-1, -1])) == {}


def test_retrieval_by_hand():
    """Texts 0 and 1 are equal: either is right for pictures 0 and 1."""
    token = torch.tensor([[1, 5], [1, 5], [1, 6], [2, 5]])
    image = torch.eye(4)
    text = torch.tensor(  # row: text, column: its similarity to each picture
        [[0.1, 0.9, 0.2, 0.3], [0.9, 0.1, 0.3, 0.2], [0.8, 0.7, 0.4, 0.5], [0.0, 0.2, 0.6, 0.1]]
    )
    found = retrieval(image, text, token, ks=(1, 2, 3))
    # pictures: 0 -> text 1 (equal to 0, right), 1 -> 0 (right), 2 -> 3, 2, 1 (right second), 3 -> 2, 0, 1, 3
    assert [found[f"image_to_text_R@{k}"].value for k in (1, 2, 3)] == [0.5, 0.75, 0.75]
    # texts: 0 -> 1 (right), 1 -> 0 (right), 2 -> 0, 1, 3, 2 (never), 3 -> 2, 1, 3 (third)
    assert [found[f"text_to_image_R@{k}"].value for k in (1, 2, 3)] == [0.5, 0.5, 0.75]


@pytest.mark.parametrize("groups", [[0, 1, 2, 3, 4], [0, 0, 1, 2, 2], [0, 0, 0, 1, 2, 2], [7, 7, 7, 7]])
def test_chance_is_the_mean_over_all_orders(groups):
    """Every order of the answers is tried."""
    orders = list(itertools.permutations(groups))
    count = len(groups)
    token = torch.tensor([[g, 1] for g in groups])
    found = retrieval(torch.eye(count), torch.eye(count), token, ks=(1, 2, 3, 10))
    for k in (1, 2, 3, 10):
        hits = sum(g in order[:k] for g in groups for order in orders)
        for way in ("image_to_text", "text_to_image"):
            assert found[f"{way}_R@{k}"].chance == pytest.approx(hits / (count * len(orders)), abs=1e-12)


def test_retrieval_goes_beyond_one_chunk():
    """1500 pairs, the last 300 with the text of the first: each picture finds its own, or an equal one."""
    token = torch.arange(1500)[:, None].clone()
    token[1200:] = token[0]
    feature = torch.randn(1500, 64, generator=torch.Generator().manual_seed(0))
    feature = nn.functional.normalize(feature, dim=1)
    found = retrieval(feature, feature, token)
    assert [found[f"image_to_text_R@{k}"].value for k in (1, 5, 10)] == [1.0, 1.0, 1.0]
    shifted = retrieval(feature, feature.roll(1, 0), token, ks=(1,))  # right for 299 of the 301 equal ones, no others
    assert shifted["image_to_text_R@1"].value == pytest.approx(300 / 1500)
    chance = (301 * 301 + 1199) / 1500**2
    assert found["text_to_image_R@1"].chance == pytest.approx(chance, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_open_clips_classifier_and_a_plain_search(data, seed):
    """From raw pictures and captions, one by one, with three templates."""
    templates = ("a picture of a {}", "{}", "{} or none")
    paradigm, model = made(seed=seed, data=data, mean=MEAN, std=STD, templates=templates)
    dataset = paradigm.build_dataset("val")
    batches = [prepared(paradigm, raw(dataset, range(0, 5))), prepared(paradigm, raw(dataset, range(5, 8)))]
    with torch.no_grad():
        found = paradigm.metrics(model, "val", batches)
        tokenizer = open_clip.get_tokenizer("ViT-B-32", context_length=12)
        classifier = build_zero_shot_classifier_legacy(model, tokenizer, ["bird", "cat", "dog"], templates)
        images = [model.encode_image(transform(32)(picture(i, s))[None])[0] for i, s in enumerate(SIZES)]
        texts = [model.encode_text(tokenizer([caption]))[0] for caption in CAPTIONS]
    images, texts = ([f / f.norm() for f in features] for features in (images, texts))
    predicted = [["bird", "cat", "dog"][int((f @ classifier).argmax())] for f in images]
    right = [p == k for p, k in zip(predicted, KIND) if k]
    assert next(iter(found)) == "zeroshot_top1"
    assert found["zeroshot_top1"].value == pytest.approx(sum(right) / 7)
    assert found["zeroshot_top1"].chance == pytest.approx(1 / 3)
    for way, queries, answers in (("image_to_text", images, texts), ("text_to_image", texts, images)):
        for k in (1, 5, 10):
            hits = 0
            for i, query in enumerate(queries):
                order = sorted(range(8), key=lambda j: -float(query @ answers[j]))[:k]
                hits += any(CAPTIONS[j] == CAPTIONS[i] for j in order)
            assert found[f"{way}_R@{k}"].value == pytest.approx(hits / 8), (way, k)


def test_metrics_of_data_without_classes_are_retrieval_alone(data):
    paradigm, model = made(data={k: v for k, v in data.items() if k != "label_key"})
    with torch.no_grad():
        found = paradigm.metrics(model, "val", [prepared(paradigm, raw(paradigm.build_dataset("val")))])
    assert list(found) == [f"{way}_R@{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)]
