"""Both architectures in chains of compt's own paradigms, from plan to export."""

from __future__ import annotations

import csv
import json
import sys
from importlib import import_module

import open_clip
import pytest
import timm
import torch
from mixer_models import randomised
from open_clip.model import CLIP
from PIL import Image

import compt


def with_open_clip_alone(export, image):
    """Return an export's features of an image where neither compt nor mmengine can be imported."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(sys.modules):
            if name.partition(".")[0] in ("compt", "compt_mixer", "mmengine"):
                patch.delitem(sys.modules, name)
        for name in ("compt", "mmengine"):
            patch.setitem(sys.modules, name, None)
        registered = import_module("compt_mixer.models")
        model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{export}")
        assert timm.model_entrypoint(registered.NAMES[0]).__globals__ is vars(registered)
        return model.eval().encode_image(image)


@pytest.fixture
def pictures(tmp_path):
    """A table of sixteen plain pictures and what they are called."""
    colours = {
        "red": (200, 0, 0),
        "green": (0, 200, 0),
        "blue": (0, 0, 200),
        "white": (250, 250, 250),
    }
    table = tmp_path / "pictures.csv"
    with open(table, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["filepath", "caption"])
        for i in range(16):
            name = list(colours)[i % 4]
            Image.new("RGB", (32, 32), colours[name]).save(tmp_path / f"{i}.png")
            rows.writerow([str(tmp_path / f"{i}.png"), f"a {name} square"])
    return str(table)


def clip(tower: str, width: int, *, pool: str = "", proj: str = "linear", **text):
    return dict(
        embed_dim=16,
        vision_cfg=dict(
            timm_model_name=tower,
            timm_model_pretrained=False,
            timm_pool=pool,
            timm_proj=proj,
            image_size=32,
        ),
        text_cfg=dict(context_length=8, width=width, layers=1, heads=width // 16, **text),
    )


def manifests(folder):
    return [
        json.loads((stage / "manifest.json").read_text()) for stage in sorted(folder.glob("0*"))
    ]


@pytest.mark.filterwarnings("ignore:Overwriting")
def test_mixers_as_image_towers(pictures, tmp_path):
    config = dict(
        custom_imports=dict(imports=["compt_mixer.models"]),
        paradigm=dict(type="clip", data=dict(type="csv", train=pictures, val=pictures)),
        chain=[
            dict(name="t", model=clip("mixer_32x2_p8_32", 32), iters=2),
            dict(name="s", model=clip("mixer_64x4_p8_32", 64), iters=2),
        ],
        grower=dict(type="lossless"),
        train_dataloader=dict(batch_size=8),
    )
    plan = compt.plan(config)
    assert plan.stages[1].expansion > 2
    folder = compt.train(config, work_dir=tmp_path / "work")
    grown = manifests(folder)[1]["growth"]
    assert grown["function_preserving"], grown["reason"]
    assert grown["error"] < 1e-4
    export = folder / "02_s" / "export"
    image = torch.ones(1, 3, 32, 32)
    model = compt.PARADIGMS.build(dict(type="clip")).load(export).eval()
    assert torch.equal(model.encode_image(image), with_open_clip_alone(export, image))


@pytest.mark.parametrize("pool", ["", "avg"])
@pytest.mark.parametrize("proj", ["", "linear", "mlp"])
def test_a_mixer_keeps_the_function_inside_a_clip(proj, pool):
    import compt_mixer.models  # noqa: F401

    towers = dict(small=("mixer_32x2_p8_32", 32), large=("mixer_64x4_p8_32", 48))
    small, large = (
        CLIP(**clip(*tower, pool=pool, proj=proj, vocab_size=64)).double()
        for tower in towers.values()
    )
    assert compt.describe(large).whole == {"visual.trunk.embed"}
    growth = compt.grow(randomised(small), large, "lossless")
    assert growth.function_preserving, growth.reason
    assert growth.error < 1e-12


def test_mambas_as_language_models(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"the number {i} comes before {i + 1}.\n\n" for i in range(300)))

    data = dict(type="text", train=str(text), val=str(text))

    def mamba(width: int, layers: int):
        return dict(
            model_type="mamba",
            hidden_size=width,
            num_hidden_layers=layers,
            state_size=4,
            time_step_rank=4,
        )

    config = dict(
        paradigm=dict(type="causal_lm", data=data, context=16, eval_blocks=8, attention="eager"),
        chain=[
            dict(name="t", model=mamba(32, 1), iters=3),
            dict(name="s", model=mamba(48, 2), iters=3),
        ],
        grower=dict(type="lossless"),
        transfer=dict(type="logit_kl"),
        train_dataloader=dict(batch_size=4),
    )
    assert compt.plan(config).stages[1].student_flops > compt.plan(config).stages[0].student_flops
    folder = compt.train(config, work_dir=tmp_path / "work")
    assert manifests(folder)[1]["growth"]["function_preserving"]
    from transformers import AutoModelForCausalLM

    loaded, loading = AutoModelForCausalLM.from_pretrained(
        folder / "02_s" / "export", output_loading_info=True
    )
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert loaded.config.hidden_size == 48


def test_the_names_of_the_small_mixers_say_what_they_are():
    from compt_mixer.models import NAMES

    for name in NAMES:
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=0)
        width, rest = name.removeprefix("mixer_").split("x")
        depth, patch, image = rest.split("_")
        assert (model.embed_dim, len(model.blocks)) == (int(width), int(depth))
        assert model.stem.proj.kernel_size == (int(patch[1:]),) * 2
        assert model.stem.img_size == (int(image),) * 2
        assert model.pretrained_cfg["input_size"] == (3, int(image), int(image))
    assert timm.create_model(NAMES[0], img_size=64).stem.img_size == (64, 64)
