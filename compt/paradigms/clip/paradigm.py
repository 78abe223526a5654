"""Contrastive language-image pre-training on open_clip's models, tokenizers and loss."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence, Set
from copy import deepcopy
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import open_clip
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from safetensors.torch import save_model
from torch import Tensor, nn
from torch.utils.data import Dataset

from compt.errors import ConfigError, did_you_mean
from compt.interfaces import Batch, Images, Member, Metric, Outputs
from compt.paradigms._shared import Agreement, Sourced
from compt.paradigms.clip.data import PairDataset
from compt.paradigms.clip.metrics import retrieval, zero_shot
from compt.weights import load_state

CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"
MAX_LOGIT_SCALE = math.log(100)
KEYS = frozenset(
    {
        "custom_text",
        "quick_gelu",
        "init_logit_scale",
        "init_logit_bias",
        "embed_dim",
        "vision_cfg",
        "text_cfg",
    }
)
"""What a member's config may hold."""


class Clip(Sourced):
    """CLIP as open_clip trains it: symmetric InfoNCE over the batch, gathered over all processes.

    A member's ``model`` is an open_clip model name, a folder that open_clip loads, or a config dict
    as in open_clip's JSON files (``embed_dim``, ``vision_cfg``, ``text_cfg``, ...). All members
    share image size, context length and tokenizer, so that teacher and student see the same batch.

    Args:
        data: what to train on and measure on: ``dict(type='icons')``, ``dict(type='csv', train=...,
            val=...)`` or ``dict(type='webdataset', train=..., val=...)``; see :mod:`compt.data`.
            ``num_samples`` in it is the size of the training set for plans made where the data is
            not.
        templates: prompts for zero-shot classification; '{}' stands for the class name.
        augment: smallest share of the area that a random crop keeps in training; None for no crop.
        mean, std: of the pixels, per channel; open_clip's by default.

    A subclass with another loss says with ``model_defaults`` and ``check_model`` which models it
    trains, and overrides ``outputs``, ``forward`` and ``loss``; all else stays as it is.

    Source: Radford et al. 2021, arXiv 2103.00020, through open_clip.
    """

    outputs = frozenset({"image_features", "text_features", "logit_scale"})
    features = ("image_features", "text_features")
    needs = (("image", "captions"),)
    example = "data=dict(type='icons')"
    model_defaults: ClassVar[Mapping[str, Any]] = {}
    """Keys of open_clip's configs, such as ``init_logit_scale``, for members whose config leaves
    them out.
    """

    def __init__(
        self,
        *,
        data: Mapping[str, Any] | None = None,
        templates: Sequence[str] = ("{}",),
        augment: float | None = 0.9,
        mean: Sequence[float] = open_clip.OPENAI_DATASET_MEAN,
        std: Sequence[float] = open_clip.OPENAI_DATASET_STD,
    ) -> None:
        self._use(data)
        self.templates = tuple(templates)
        self.augment, self.mean, self.std = augment, tuple(mean), tuple(std)
        self._input = Agreement()
        self._classes: dict[str, tuple[str, ...]] = {}
        self._sent: dict[torch.device, tuple[Tensor, ...]] = {}
        if augment is not None and not 0 < augment <= 1:
            raise ConfigError(f"augment={augment} is not in (0, 1].", where="paradigm.augment")

    def build_model(self, member: Member) -> nn.Module:
        """Build an open_clip model.

        Raises:
            ConfigError: unknown name or key, a model of another loss, or sizes that open_clip
                refuses.
        """
        config = model_config(member)
        config |= {
            key: value for key, value in self.model_defaults.items() if config.get(key) is None
        }
        self.check_model(config, f"member '{member.name}'")
        cls = (
            CustomTextCLIP
            if config.get("custom_text") or "hf_model_name" in config["text_cfg"]
            else CLIP
        )
        try:
            model = cls(**{k: v for k, v in deepcopy(config).items() if k != "custom_text"})
        except (AssertionError, ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
            raise ConfigError(
                f"open_clip cannot build the model of member '{member.name}': {type(error).__name__}: {error}",
                do="Check its sizes: heads must divide widths (image tower: width / head_width heads, 64 by default).",
            ) from error
        _check_timm_size(member, model)
        return self._agreed(member, config, model)

    def check_model(self, config: Mapping[str, Any], owner: str) -> None:
        """Raise ConfigError unless this paradigm's loss is the one that a model is for: here,
        without a logit bias.

        Members that fail it are not built, folders that fail it are neither recognised nor loaded.

        Args:
            config: open_clip's config of the model, with ``model_defaults`` filled in for members.
            owner: who has the model, for the message: a member or a path.
        """
        if config.get("init_logit_bias") is not None:
            raise ConfigError(
                f"The model of {owner} has a logit bias: it is for a sigmoid loss (SigLIP), not for CLIP's.",
                do="Leave init_logit_bias out, or take a paradigm for the sigmoid loss: plug-ins bring them.",
            )

    def _agreed(self, member: Member, config: dict[str, Any], model: nn.Module) -> nn.Module:
        """Remember what the first member expects as input, hold the others to it, and keep the
        config for exports.
        """
        size = model.visual.image_size  # type: ignore[union-attr]
        wants = {
            "image size": tuple(size) if isinstance(size, Sequence) else (size, size),
            "context length": model.context_length,
            "tokenizer": {k: v for k, v in config["text_cfg"].items() if "tokenizer" in k},
        }
        for what, value in wants.items():
            self._input.hold(member.name, what, value)
        model.open_clip_config = config  # type: ignore[assignment]
        return model

    @cached_property
    def tokenizer(self) -> Any:
        """The members' tokenizer: texts -> [N, context]."""
        options = dict(self._input["tokenizer"])
        name, length = options.get("hf_tokenizer_name"), self._input["context length"]
        kwargs = options.get("tokenizer_kwargs") or {}
        if name:
            return open_clip.HFTokenizer(
                name, length, tokenizer_mode=options.get("tokenizer_mode"), **kwargs
            )
        return open_clip.SimpleTokenizer(context_length=length, **kwargs)

    def build_dataset(self, split: str) -> Dataset:
        """Open a split as ``dict(image=uint8 [3, H, W], text=int64 [context], label=int)`` samples."""
        images = self._open(split)
        images.check()
        augment = self.augment if split == "train" else None
        return PairDataset(images, self._input["image size"], self.tokenizer, augment=augment)

    def _open(self, split: str) -> Images:
        images: Images = self.data_source.open(split, image_size=max(self._input["image size"]))
        self._classes[split] = images.classes
        return images

    def example_batch(self, model: nn.Module, batch_size: int) -> Batch:
        """Zeros for images [B, 3, H, W] and texts [B, context] on the model's device."""
        weight = next(model.parameters())
        size, length = self._input["image size"], self._input["context length"]
        return {
            "image": torch.zeros(batch_size, 3, *size, device=weight.device, dtype=weight.dtype),
            "text": torch.zeros(batch_size, length, device=weight.device, dtype=torch.long),
        }

    def prepare(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Bring uint8 images to open_clip's range: (x / 255 - mean) / std."""
        image = batch["image"]
        mean, std = self._pixels(image.device)
        return {**batch, "image": (image.float() / 255).sub_(mean).div_(std)}

    def _pixels(self, device: torch.device) -> tuple[Tensor, ...]:
        """Mean and standard deviation [3, 1, 1], sent to each device once: sending waits for the
        device.
        """
        if device not in self._sent:
            self._sent[device] = tuple(
                torch.tensor(v, device=device).view(3, 1, 1) for v in (self.mean, self.std)
            )
        return self._sent[device]

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        """Unit features [B, E] of images and texts, and the logit scale []."""
        return {
            "image_features": model.encode_image(batch["image"], normalize=True),  # type: ignore[operator]
            "text_features": model.encode_text(batch["text"], normalize=True),  # type: ignore[operator]
            "logit_scale": model.logit_scale.exp(),  # type: ignore[operator, union-attr]
        }

    def loss(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """open_clip's ClipLoss; over several processes each one's share of the global batch."""
        rank, world_size = 0, 1
        if torch.distributed.is_initialized():
            rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        loss = open_clip.ClipLoss(
            local_loss=world_size > 1,
            gather_with_grad=world_size > 1,
            rank=rank,
            world_size=world_size,
        )
        return {
            "contrastive": loss(
                outputs["image_features"], outputs["text_features"], outputs["logit_scale"]
            )
        }

    def after_step(self, model: nn.Module) -> None:
        """Clamp the logit scale to [0, ln 100], as open_clip does."""
        model.logit_scale.clamp_(0, MAX_LOGIT_SCALE)  # type: ignore[operator, union-attr]

    def metrics(self, model: nn.Module, split: str, batches: Iterable[Batch]) -> dict[str, Metric]:
        """Zero-shot top-1 / top-5 where the split has classes, and retrieval R@1/5/10 in both
        directions.
        """
        images, texts, tokens, labels = [], [], [], []
        for batch in batches:
            outputs = self.forward(model, batch)
            images.append(outputs["image_features"].float())
            texts.append(outputs["text_features"].float())
            tokens.append(batch["text"])
            labels.append(batch["label"])
        image, text = torch.cat(images), torch.cat(texts)
        classes = self._classes[split] if split in self._classes else self._open(split).classes
        weights: Any = None
        if classes:
            weights = open_clip.build_zero_shot_classifier(
                model,
                self.tokenizer,
                classes,
                self.templates,
                num_classes_per_batch=64,
                device=image.device,
            )
        with torch.autocast(
            image.device.type, enabled=False
        ):  # features may be rough, their comparison not
            found = zero_shot(image, weights.float(), torch.cat(labels)) if classes else {}
            return found | retrieval(image, text, torch.cat(tokens))

    def export(self, model: nn.Module, folder: Path) -> None:
        """Write a folder that ``open_clip.create_model_and_transforms('local-dir:FOLDER')``
        loads.
        """
        save_model(model, str(folder / WEIGHTS_FILE))
        preprocess = {
            "mean": self.mean,
            "std": self.std,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        }
        config = {"model_cfg": model.open_clip_config, "preprocess_cfg": preprocess}
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
        if "hf_tokenizer_name" in model.open_clip_config["text_cfg"]:  # type: ignore[index, operator]
            self.tokenizer.save_pretrained(folder)

    def recognises(self, path: Path) -> bool:
        """Whether the path is an open_clip folder of a model for this paradigm's loss, as
        ``check_model`` says.
        """
        if not (path / CONFIG_FILE).is_file():
            return False
        try:
            config = _named_config(_in_folder(path))
        except ConfigError:
            return True  # and load says what is wrong with it
        try:
            self.check_model(config, f"'{path}'")
        except ConfigError:
            return False
        return True

    def load(self, path: Path) -> nn.Module:
        """Load an open_clip folder (config and weights), as open_clip itself does.

        Raises:
            ConfigError: it has no weights, they are damaged or another model's, or for another
                loss.
        """
        member = _in_folder(path)
        config = model_config(member)
        self.check_model(config, f"'{path}'")
        try:
            model = open_clip.create_model(f"local-dir:{path}", require_pretrained=True)
        except Exception as error:  # open_clip, torch and safetensors each have their own
            raise ConfigError(
                f"The weights in '{path}' cannot be loaded: {type(error).__name__}: {error}",
                do="Give a folder that open_clip or compt exported.",
            ) from error
        return self._agreed(member, config, model)

    def load_weights(self, model: nn.Module, path: Path) -> None:
        """Fill a member's model, strictly, from an open_clip folder or a file of weights.

        Raises:
            ConfigError: the file is damaged, or another model's, or the folder's model is for
                another loss.
        """
        if (path / CONFIG_FILE).is_file():
            load_state(model, self.load(path).state_dict(), path)
        else:
            super().load_weights(model, path)


def model_config(member: Member) -> dict[str, Any]:
    """The open_clip config of a member, checked: unknown names and keys raise ConfigError with the
    nearest ones.
    """
    if isinstance(member.model, str):
        return _named_config(member)
    config = json.loads(
        json.dumps(member.model.get("model_cfg", member.model))
    )  # a folder's JSON wraps it
    faults = _unknown("model", config, KEYS)
    faults += [
        f"model.{key} is missing."
        for key in ("embed_dim", "vision_cfg", "text_cfg")
        if key not in config
    ]
    for key, cls in (("vision_cfg", CLIPVisionCfg), ("text_cfg", CLIPTextCfg)):
        part = config.get(key, {})
        if isinstance(part, Mapping):
            faults += _unknown(f"model.{key}", part, {field.name for field in fields(cls)})
        else:
            faults.append(f"model.{key} is no dict.")
    if faults:
        raise ConfigError(
            f"The model of member '{member.name}' is not an open_clip config: {' '.join(faults)}"
        )
    return config


def _named_config(member: Member) -> dict[str, Any]:
    name = f"local-dir:{member.model}" if Path(member.model).is_dir() else member.model
    try:
        config = open_clip.get_model_config(name)
        if not isinstance(config, dict | None):
            raise ValueError("its model_cfg is no dict")
    except (
        OSError,
        ValueError,
        AttributeError,
    ) as error:  # the last: JSON of something else than a dict
        raise ConfigError(
            f"Cannot read the model '{member.model}' of member '{member.name}': {error}."
        ) from error
    if config is None:
        near = did_you_mean(member.model, open_clip.list_models())
        raise ConfigError(
            f"open_clip has no model '{member.model}' (member '{member.name}').{near}",
            do="See open_clip.list_models().",
        )
    return config


def _in_folder(path: Path) -> Member:
    """A folder's model, as a member."""
    return Member(path.name, f"local-dir:{path}")


def _unknown(where: str, given: Mapping[str, Any], known: Set[str]) -> list[str]:
    return [
        f"{where}.{key} is unknown.{did_you_mean(key, known)}" for key in sorted(set(given) - known)
    ]


def _check_timm_size(member: Member, model: nn.Module) -> None:
    """open_clip builds a timm tower at its own input size: the config must say the same one."""
    patch_embed = getattr(getattr(model.visual, "trunk", None), "patch_embed", None)
    own: Any = getattr(patch_embed, "img_size", None)
    size: Any = model.visual.image_size  # type: ignore[union-attr]
    if own is not None and tuple(own) != tuple(size):
        raise ConfigError(
            f"The timm tower of member '{member.name}' takes images of {tuple(own)}, its config says {tuple(size)}.",
            do=f"Set vision_cfg.image_size={own[0]}, or use a timm model of the size you want.",
        )
