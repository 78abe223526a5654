"""Turn mmpretrain's ViT into timm's, and read and write timm's folders."""

from __future__ import annotations

import inspect
import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import PretrainedCfg, build_model_with_cfg
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from compt.errors import ConfigError, did_you_mean
from compt.interfaces import ExportFormat, Member
from compt.interfaces.foreign import read_json
from compt.registry.foreign_configs import refuse_code
from compt.weights import load_state, read_state, save_weights

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
FORMAT = ExportFormat(
    loaded_by="timm",
    usage="import timm\n\nmodel = timm.create_model('local-dir:FOLDER', pretrained=True)\n",
    task="image-feature-extraction",
    single_file="timm loads one file of weights",
)
ARCHITECTURE = "vit_base_patch16_224"
"""Name a model of timm's general ViT class, from which ``model_args`` may differ."""
PIXELS = ("mean", "std", "interpolation", "crop_pct", "crop_mode")
"""List the keys of timm's ``pretrained_cfg`` that say how pixels are prepared."""
WEIGHT_FILES = (WEIGHTS_FILE, "pytorch_model.bin", "pytorch_model.pth", "model.pth")
"""List the files of weights in a folder, in the order in which timm looks for them."""
OF_SIZE = ("architecture", "num_classes", "num_features", "global_pool", "model_args")
"""Keys of a folder's config that the model itself says."""
SIZES = frozenset({"embed_dim", "depth", "num_heads", "mlp_ratio"})
"""Arguments of timm's ViT that are of the size."""
LABELS = ("label_names", "label_descriptions", "labels", "label_offset")
OF_SOURCE = (
    "architecture",
    "custom_load",
    "file",
    "hf_hub_filename",
    "hf_hub_id",
    "input_size",
    "num_classes",
    "pool_size",
    "source",
    "state_dict",
    "test_input_size",
    "test_pool_size",
    "url",
)
"""Keys of a ``pretrained_cfg`` that are of the size, or say where weights were stored."""
NAMES = (
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^pre_norm\.", "norm_pre."),
    (r"^ln1\.", "norm."),
    (r"^ln2\.", "fc_norm."),
    (r"^layers\.(\d+)\.ln(\d)\.", r"blocks.\1.norm\2."),
    (r"^layers\.(\d+)\.attn\.gamma1\.weight", r"blocks.\1.ls1.gamma"),
    (r"^layers\.(\d+)\.attn\.", r"blocks.\1.attn."),
    (r"^layers\.(\d+)\.ffn\.layers\.0\.0\.", r"blocks.\1.mlp.fc1."),
    (r"^layers\.(\d+)\.ffn\.layers\.1\.", r"blocks.\1.mlp.fc2."),
    (r"^layers\.(\d+)\.ffn\.gamma2\.weight", r"blocks.\1.ls2.gamma"),
)
"""Map mmpretrain's names to timm's, where they differ."""


def timm_name(name: str) -> str:
    """Return timm's name of a tensor of mmpretrain's VisionTransformer."""
    for pattern, replacement in NAMES:
        name, num_replaced = re.subn(pattern, replacement, name)
        if num_replaced:
            break
    return name


def from_timm(state: Mapping[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of an mmpretrain backbone from timm's, without head or decoder.

    Blocks that the backbone does not have stay in it, so that a deeper model is not taken for this
    one.
    """
    ours = {name: timm_name(name) for name in backbone.state_dict() if timm_name(name) in state}
    rest = {name: name for name in state.keys() - {*ours.values()} if name.startswith("blocks.")}
    return {name: state[theirs] for name, theirs in (ours | rest).items()}


def is_timm(state: Mapping[str, Tensor]) -> bool:
    """Say whether these are names of timm's VisionTransformer."""
    return "patch_embed.proj.weight" in state and any(name.startswith("blocks.") for name in state)


def as_timm(
    backbone: nn.Module,
    preprocessor: Mapping[str, Any],
    resize: Mapping[str, Any] | None = None,
) -> VisionTransformer:
    """Return a timm ViT that computes the patch and class tokens of an mmpretrain ViT.

    It has no head.

    Args:
        backbone: the ViT.
        preprocessor: mmpretrain's config of how pixels are prepared.
        resize: ``interpolation``, ``crop_pct`` and ``crop_mode``; bicubic and all of it by default.

    Raises:
        ConfigError: the backbone has what timm's ViT has not.
    """
    state = backbone.state_dict()
    sizes: Any = backbone
    blocks, options = sizes.layers, _arguments(backbone, state)
    try:
        options["mlp_ratio"] = blocks[0].ffn.feedforward_channels / sizes.embed_dims
        model: Any = timm.create_model(
            ARCHITECTURE, **options, pretrained_cfg_overlay=_pixels(preprocessor, resize or {})
        )
        model.load_state_dict({timm_name(name): value for name, value in state.items()})
        if _traits(backbone) != _traits(model):
            raise ValueError(
                f"activation and epsilons {_traits(backbone)}, timm has {_traits(model)}"
            )
    except (AttributeError, RuntimeError, ValueError) as error:
        raise ConfigError(f"This ViT of mmpretrain has no equal in timm: {error}") from error
    model.timm_config = {"architecture": ARCHITECTURE, "num_classes": 0, "model_args": options}
    encoder: VisionTransformer = model
    return encoder


def _arguments(backbone: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of timm's ViT that make it an mmpretrain ViT, but for the MLP's."""
    sizes: Any = backbone
    blocks = sizes.layers
    options = {
        "img_size": list(sizes.img_size),
        "patch_size": sizes.patch_embed.projection.kernel_size[0],
        "in_chans": sizes.patch_embed.projection.in_channels,
        "embed_dim": sizes.embed_dims,
        "depth": len(blocks),
        "num_heads": blocks[0].attn.num_heads,
        "qkv_bias": blocks[0].attn.qkv.bias is not None,
        "class_token": sizes.cls_token is not None,
        "pre_norm": "pre_norm.weight" in state,
        "num_classes": 0,
    }
    if "layers.0.attn.gamma1.weight" in state:
        options["init_values"] = 1e-5
    if sizes.out_type == "avg_featmap":
        options["global_pool"] = "avg"  # with a norm after it, and none before
    elif sizes.cls_token is None:
        options["global_pool"] = ""
    if not {"ln1.weight", "ln2.weight"} & state.keys():
        options["final_norm"] = False
    return options


def _pixels(preprocessor: Mapping[str, Any], resize: Mapping[str, Any]) -> dict[str, Any]:
    """Return how mmpretrain prepares pixels, as timm writes it."""
    pixels: dict[str, Any] = {}
    for key in ("mean", "std"):
        if values := preprocessor.get(key):
            pixels[key] = [value / 255 for value in values]
    return {**pixels, "crop_pct": 1.0, "interpolation": "bicubic", **resize}


def _traits(model: nn.Module) -> set[str]:
    """Return what weights do not tell, activations and epsilons of norms."""
    activations = {
        repr(m)
        for m in model.modules()
        if type(m).__module__.startswith("torch.nn.modules.activation")
    }
    return activations | {f"eps={m.eps:g}" for m in model.modules() if isinstance(m, nn.LayerNorm)}


def export_encoder(
    model: Any, folder: Path, resize: Mapping[str, Any], source: Mapping[str, Any]
) -> None:
    """Write the encoder of an mmpretrain model for timm, or warn where timm has no equal."""
    try:
        encoder = as_timm(model.backbone, model.mmpretrain_config["data_preprocessor"], resize)
    except ConfigError as error:
        warnings.warn(f"There is no export for timm. {error.what}", stacklevel=3)
    else:
        own, wanted = next(encoder.parameters()).dtype, next(model.parameters()).dtype
        save(encoder.to(wanted if wanted.itemsize < own.itemsize else own), folder, source)


def save(model: Any, folder: Path, source: Mapping[str, Any] | None = None) -> None:
    """Write a folder that ``timm.create_model('local-dir:FOLDER', pretrained=True)`` loads.

    Args:
        model: of timm.
        folder: to write, made where it is not there.
        source: content of the config.json that is followed: what is not of the size is written
            too, labels only with as many classes.
    """
    folder.mkdir(exist_ok=True)
    save_weights(model, folder / WEIGHTS_FILE)
    pixels = {key: model.pretrained_cfg[key] for key in PIXELS if key in model.pretrained_cfg}
    if pixels.get("crop_mode") == "center":  # timm's default
        del pixels["crop_mode"]
    size = [model.patch_embed.proj.in_channels, *model.patch_embed.img_size]
    left_out = LABELS if source and not has_labels_of(model, source) else ()
    beside, theirs = (
        {key: value for key, value in content.items() if key not in (*dropped, *left_out)}
        for content, dropped in (
            (source or {}, (*OF_SIZE, "pretrained_cfg")),
            (own_cfg(source or {}), OF_SOURCE),
        )
    )
    pretrained = {"input_size": size, "num_classes": model.num_classes, **pixels}
    config = {**beside, **model.timm_config, "pretrained_cfg": {**theirs, **pretrained}}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")


def own_cfg(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the ``pretrained_cfg`` of a folder's config, which old ones are all of."""
    return content.get("pretrained_cfg") or {k: v for k, v in content.items() if k not in OF_SIZE}


def pretrained_cfg(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``pretrained_cfg`` of a folder's config with timm's defaults."""
    return {**asdict(PretrainedCfg()), **own_cfg(content)}


def has_labels_of(model: Any, content: Mapping[str, Any]) -> bool:
    """Say whether a model has as many classes as a folder's config names labels for."""
    number = content.get("num_classes", own_cfg(content).get("num_classes"))
    return number is not None and model.num_classes == number


def weights_file(folder: Path) -> Path:
    """Return the file of a timm folder's weights, the first where it has none."""
    files = [folder / name for name in WEIGHT_FILES if (folder / name).is_file()]
    return (files or [folder / WEIGHTS_FILE])[0]


def read_folder(path: Path) -> dict[str, Any]:
    """Return the config of a folder that :func:`recognises` accepts.

    Raises:
        ConfigError: its arguments of the model are some of timm's own, which name other files of
            weights, or places to fetch them from.
    """
    content: dict[str, Any] = read_json(path / CONFIG_FILE)
    refuse_code(content, path / CONFIG_FILE)
    arguments = content.get("model_args") or {}
    if not isinstance(arguments, Mapping):
        raise ConfigError(
            f"model_args is {arguments!r}, no object of JSON.", where=str(path / CONFIG_FILE)
        )
    if foreign := sorted(_of_timm_itself() & arguments.keys()):
        raise ConfigError(
            f"model_args.{foreign[0]} is no argument of a model: by it, timm would read other "
            "weights than the folder's.",
            where=str(path / CONFIG_FILE),
            do="Take it out, if you know what it is for.",
        )
    return content


@cache
def _of_timm_itself() -> frozenset[str]:
    """Return the arguments by which timm finds weights, beside those of models."""
    functions = (timm.create_model, build_model_with_cfg)
    return frozenset().union(*(inspect.signature(each).parameters for each in functions))


def recognises(path: Path) -> bool:
    """Say whether the path is a timm folder of a ViT."""
    try:
        name = read_json(path / CONFIG_FILE)["architecture"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return isinstance(name, str) and timm.is_model(name) and _is_vit(name)


@cache
def _is_vit(name: str) -> bool:
    """Say whether a name of timm's makes a VisionTransformer."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm warns of names that it has renamed
        try:
            return isinstance(timm.create_model(name), VisionTransformer)
        except Exception:  # a constructor raises what it likes on the meta device
            return False


def is_config(model: Any) -> bool:
    """Say whether a member's model is a config dict of timm, or a name of a model of timm."""
    return (isinstance(model, Mapping) and "architecture" in model) or (
        isinstance(model, str) and timm.is_model(model)
    )


def pixels_of(config: Any) -> dict[str, Any]:
    """Return what a config of timm says of how pixels are prepared."""
    content = (config.get("pretrained_cfg") or {}) if isinstance(config, Mapping) else {}
    return {key: content[key] for key in PIXELS if key in content}


def settings(config: Any) -> dict[str, Any]:
    """Return what a config of timm says that is not of the size, the number of classes with it."""
    content = config if isinstance(config, Mapping) else {}
    arguments = content.get("model_args") or {}
    classes = {"num_classes": content["num_classes"]} if "num_classes" in content else {}
    return {k: v for k, v in {**classes, **arguments}.items() if k not in SIZES}


def filled(config: Any, source: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config of timm, or a name, with the settings that it leaves out.

    A name says the arguments of its model, but not the number of classes.
    """
    if isinstance(config, str):
        names = {"num_classes"} & source.keys()
        return {"architecture": config, "model_args": {name: source[name] for name in names}}
    arguments = {**source, **settings(config), **(config.get("model_args") or {})}
    return {**config, "model_args": arguments}


def build(member: Member, pixels: Mapping[str, Any] | None = None) -> VisionTransformer:
    """Build a timm ViT from a name or ``dict(architecture=..., model_args=...)``.

    Args:
        member: with the config.
        pixels: what comes before the config's own of how pixels are prepared.

    Raises:
        ConfigError: timm has no such model or arguments, or it is no ViT.
    """
    config: dict[str, Any] = (
        {"architecture": member.model} if isinstance(member.model, str) else dict(member.model)
    )
    name = config["architecture"]
    options = dict(config.get("model_args") or {})
    pixels = {**pixels_of(config), **(pixels or {})}
    if "num_classes" in config:
        options.setdefault("num_classes", config["num_classes"])
    if not timm.is_model(name):
        near = did_you_mean(name, timm.list_models("vit_*"))
        raise ConfigError(
            f"timm has no model '{name}' (member '{member.name}').{near}",
            do="See timm.list_models().",
        )
    try:
        model: Any = timm.create_model(name, **options, pretrained_cfg_overlay=pixels)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise ConfigError(
            f"timm cannot build '{name}' (member '{member.name}'): {error}"
        ) from error
    model.timm_config = {
        "architecture": name,
        "num_classes": model.num_classes,
        "model_args": options,
    }
    if not isinstance(model, VisionTransformer):
        raise ConfigError(
            f"'{name}' is no VisionTransformer of timm.", do="Use one of timm.list_models('vit_*')."
        )
    return model


def load(path: Path) -> VisionTransformer:
    """Load a timm folder, config and weights.

    Raises:
        ConfigError: it is no folder of a timm ViT, or damaged.
    """
    if not recognises(path):
        raise ConfigError(
            f"'{path}' is neither a model of mmpretrain with its config nor a timm ViT's folder.",
            do="Check the path.",
        )
    model = build(Member(path.name, read_folder(path)))
    file = weights_file(path)
    load_state(model, as_today(read_state(file), model), path)
    return model


def as_today(state: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
    """Return weights under timm's names of today, as timm reads old ones."""
    if state.keys() == model.state_dict().keys():
        return state
    renamed: dict[str, Tensor] = checkpoint_filter_fn(dict(state), model)  # type: ignore[arg-type]
    return renamed
