"""Train on images and their texts with open_clip's models, tokenizers and loss."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import open_clip
import torch
import torch.nn.functional as F
from open_clip.utils import to_2tuple
from torch import Tensor, nn
from torch.utils.data import Dataset

from compt.errors import ConfigError
from compt.interfaces import Batch, ExportFormat, Images, Member, Metric, Outputs
from compt.interfaces.foreign import refuse_code
from compt.paradigms._checkpoints import (
    copy_files,
    left_behind,
    matching,
    refuse_torchscript,
    said_otherwise,
)
from compt.paradigms._shared import Agreement, Sourced, check_image_size
from compt.paradigms.clip.data import PairDataset
from compt.paradigms.clip.folder import (
    CONFIG_FILE,
    TOKENIZER_FILES,
    WEIGHTS_FILE,
    Pixels,
    filled,
    preprocessing,
    read_folder,
    settings,
)
from compt.paradigms.clip.metrics import contrastive, negatives, retrieval, zero_shot
from compt.paradigms.clip.models import (
    as_open_clip,
    build,
    image_sides,
    in_folder,
    load_folder,
    model_config,
    named_config,
    open_tokenizer,
    tokens_of,
    vocabulary,
    weight_dtype,
)
from compt.paradigms.clip.starter import ClipStarter
from compt.paradigms.clip.words import NAME as WORDS, Words, captions_of, vocabulary_size
from compt.registry import DATA, Range
from compt.weights import load_state, read_state, save_weights

MAX_LOGIT_SCALE = math.log(100)
FORMAT = ExportFormat(
    loaded_by="open_clip",
    usage="import open_clip\n\n"
    "model, preprocess = open_clip.create_model_from_pretrained('local-dir:FOLDER')\n"
    "tokenizer = open_clip.get_tokenizer('local-dir:FOLDER')\n",
    task="zero-shot-image-classification",
    single_file="open_clip loads one file of weights",
)


class Clip(Sourced):
    """CLIP as open_clip trains it, by symmetric InfoNCE over the batch.

    The batch is gathered over all processes.

    A member's ``model`` is an open_clip model name, a folder that open_clip loads, or a config dict
    as in open_clip's JSON files (``embed_dim``, ``vision_cfg``, ``text_cfg``, ...). All members
    share context length, tokenizer and, without ``own_image_sizes``, image size, so that teacher
    and student see the same batch.

    Args:
        data: what to train on and measure on: ``dict(type='icons')``, ``dict(type='csv', train=...,
            val=...)`` or ``dict(type='webdataset', train=..., val=...)``; see :mod:`compt.data`.
            ``num_samples`` in it is the size of the training set for plans made where the data is
            not.
        templates: prompts for zero-shot classification; '{}' stands for the class name.
        augment: smallest share of the area that a random crop keeps in training; None for no crop.
        tokenizer: ``dict(type='words', size=...)`` reads texts word by word, with a vocabulary of
            so many tokens, the most frequent words of the training captions: CLIP's own has
            49,408, whose embeddings outweigh all else in a small model. Exports hold it as a
            tokenizer of transformers, which open_clip loads.
        mean, std, interpolation, resize_mode: how an image becomes a model's input, as in an
            open_clip folder's ``preprocess_cfg``; by default as in the folder that is followed, and
            where there is none, as open_clip does.
        own_image_sizes: whether members may differ in image size: a stage reads images at its
            student's, and a teacher of another one gets the same ones resized.

    A subclass with another loss says with ``model_defaults`` and ``check_model`` which models it
    trains, and overrides ``outputs``, ``forward`` and ``loss``; all else stays as it is.

    Source: Radford et al. 2021, arXiv 2103.00020, through open_clip.
    """

    outputs = frozenset({"image_features", "text_features", "logit_scale"})
    features = ("image_features", "text_features")
    streams_weights = True
    needs = ClipStarter.needs
    starter = ClipStarter()
    example = "data=dict(type='icons')"
    _followed: Mapping[str, Any] = {}
    """The model's config of the folder that is followed."""
    model_defaults: ClassVar[Mapping[str, Any]] = {}
    """Values for members whose config leaves out keys such as ``init_logit_scale``."""

    def __init__(
        self,
        *,
        data: Annotated[Mapping[str, Any], DATA] | None = None,
        templates: Sequence[str] = ("{}",),
        augment: Annotated[float, Range(positive=True, maximum=1)] | None = 0.9,
        tokenizer: Mapping[str, Any] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[Annotated[float, Range(positive=True)]] | None = None,
        interpolation: str | None = None,
        resize_mode: str | None = None,
        own_image_sizes: bool = False,
    ) -> None:
        self._use(data)
        self.templates = tuple(templates)
        self.augment, self.own_image_sizes = augment, own_image_sizes
        self._vocabulary_size = None if tokenizer is None else vocabulary_size(tokenizer)
        self._own_pixels = {
            "mean": mean,
            "std": std,
            "interpolation": interpolation,
            "resize_mode": resize_mode,
        }
        self.pixels = Pixels.of(self._own_pixels, where="paradigm")
        self._input = Agreement()
        self._vocabularies: dict[str, int | None] = {}
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
        config = self._with_settings(member, model_config(member))
        defaults = self.model_defaults.items()
        config |= {key: value for key, value in defaults if config.get(key) is None}
        config["text_cfg"] = self._with_vocabulary(member, config["text_cfg"])
        self.check_model(config, f"member '{member.name}'")
        model = build(member, config)
        return self._agreed(member, config, model)

    @property
    def mean(self) -> tuple[float, ...]:
        """The mean of the pixels, per channel."""
        return self.pixels.mean

    @property
    def std(self) -> tuple[float, ...]:
        """The deviation of the pixels, per channel."""
        return self.pixels.std

    def follow(self, path: Path) -> None:
        """Take over an open_clip folder's preprocessing and the settings of its model.

        Raises:
            ConfigError: open_clip has no such preprocessing.
        """
        super().follow(path)
        folder = read_folder(path)
        refuse_code(folder, path / CONFIG_FILE)
        theirs = folder.get("preprocess_cfg") or {}
        self._followed = folder.get("model_cfg") or {}
        self.pixels = Pixels.of(theirs, self._own_pixels, where=f"{path / CONFIG_FILE}")
        own = {key: value for key, value in self._own_pixels.items() if value is not None}
        self.note(*said_otherwise("The paradigm", own, f"'{path}'", theirs))
        if folder:
            self.note(*left_behind(path, (CONFIG_FILE, *TOKENIZER_FILES)))
        else:
            self.note(
                f"'{path}' holds weights alone, without preprocessing and settings: "
                f"{self.pixels} is used."
            )

    def weight_dtype(self, path: Path) -> torch.dtype | None:
        """Return the number format of most weights in an open_clip folder or file."""
        return weight_dtype(path)

    def _with_settings(self, member: Member, config: dict[str, Any]) -> dict[str, Any]:
        """Return a member's config with what it leaves out, and is not of the size, filled in.

        What the member says otherwise is noted.
        """
        owner = f"Member '{member.name}'"
        source = self._followed
        if source:
            self.note(*said_otherwise(owner, settings(config), f"'{self.like}'", settings(source)))
            config = filled(config, source)
        pixels = preprocessing(member.model)
        self.note(*said_otherwise("The paradigm", self.pixels.to_json(), owner, pixels))
        return config

    def check_model(self, config: Mapping[str, Any], owner: str) -> None:
        """Raise ConfigError unless this paradigm's loss is the one that a model is for.

        Here that is a model without a logit bias. Members that fail it are not built, folders that
        fail it are neither recognised nor loaded.

        Args:
            config: open_clip's config of the model, with ``model_defaults`` filled in for members.
            owner: who has the model, for the message: a member or a path.
        """
        if config.get("init_logit_bias") is not None:
            raise ConfigError(
                f"The model of {owner} has a logit bias: "
                "it is for a sigmoid loss (SigLIP), not for CLIP's.",
                do="Leave init_logit_bias out, "
                "or take a paradigm for the sigmoid loss: plug-ins bring them.",
            )

    def _agreed(self, member: Member, config: dict[str, Any], model: nn.Module) -> nn.Module:
        """Hold a model to the input of the members before it, and keep its config for exports."""
        sides = image_sides(model)
        check_image_size(member.name, sides)
        wants = {
            "image size": sides,
            "context length": model.context_length,
            "tokenizer": {k: v for k, v in config["text_cfg"].items() if "tokenizer" in k},
        }
        for quantity, value in wants.items():
            is_free = self.own_image_sizes and quantity == "image size"
            self._input.hold(member.name, quantity, value, binding=not is_free)
        self._vocabularies[member.name] = vocabulary(model)
        model.open_clip_config = config  # type: ignore[assignment]
        return model

    def _with_vocabulary(self, member: Member, text: dict[str, Any]) -> dict[str, Any]:
        """Return a text config with the paradigm's tokenizer, where it has one.

        Raises:
            ConfigError: the member says another.
        """
        if self._vocabulary_size is None:
            return text
        own = {"hf_tokenizer_name": WORDS, "vocab_size": self._vocabulary_size}
        others = [key for key in text if key in own or "tokenizer" in key]
        for key in others:
            if text[key] != own.get(key):
                raise ConfigError(
                    f"Member '{member.name}' has text_cfg.{key}={text[key]!r}, and the paradigm a "
                    f"tokenizer of {self._vocabulary_size} words.",
                    do=f"Leave text_cfg.{key} out, or paradigm.tokenizer.",
                )
        return {**text, **own}

    @cached_property
    def tokenizer(self) -> Any:
        """Return the members' tokenizer, which turns texts into ids [N, context]."""
        options, length = self._input["tokenizer"], self._input["context length"]
        folder = self._tokenizer_folder(options)
        if self._vocabulary_size is not None and folder is None:
            captions = captions_of(self._open("train"))
            return Words(captions, self._vocabulary_size, length)
        return open_tokenizer(options, length, folder)

    def _tokenizer_folder(self, options: Mapping[str, Any]) -> Path | None:
        """Return the followed folder, where it holds the files of the tokenizer that is named."""
        name = self._followed.get("text_cfg", {}).get("hf_tokenizer_name")
        is_same = self.like is not None and name == options.get("hf_tokenizer_name")
        has_files = is_same and matching(self.like, TOKENIZER_FILES)  # type: ignore[arg-type]
        return self.like if name and has_files else None

    def _check_vocabularies(self) -> None:
        """Raise ConfigError where the tokenizer has more ids than a member has embeddings."""
        size = tokens_of(self.tokenizer)
        for member, own in self._vocabularies.items():
            if own is not None and size is not None and own < size:
                raise ConfigError(
                    f"The model of member '{member}' has {own} tokens, the tokenizer {size}.",
                    do=f"Leave text_cfg.vocab_size out, or set it to {size}.",
                )

    def build_dataset(self, split: str) -> Dataset[Any]:
        """Open a split as samples of image, text and label.

        Items are ``dict(image=uint8 [3, H, W], text=int64 [context], label=int)``, held out also
        ``negative``, int64 [context], where the source provides wrong captions.
        """
        images = self._open(split)
        images.check()
        self._check_vocabularies()
        is_train = split == "train"
        return PairDataset(
            images,
            self._input["image size"],
            self.tokenizer,
            augment=self.augment if is_train else None,
            draws_caption=is_train,
            has_negatives=not is_train and "negative" in self.data_source.provides,
            resize=self.pixels.resize,
        )

    def _open(self, split: str) -> Images:
        images = self.open_images(split, image_size=max(self._input["image size"]))
        self._classes[split] = images.classes
        return images

    def example_batch(self, model: nn.Module, batch_size: int) -> Batch:
        """Return zeros for images [B, 3, H, W] and texts [B, context] on the model's device."""
        weight = next(model.parameters())
        size, length = image_sides(model), self._input["context length"]
        return {
            "image": torch.zeros(batch_size, 3, *size, device=weight.device, dtype=weight.dtype),
            "text": torch.zeros(batch_size, length, device=weight.device, dtype=torch.long),
        }

    def prepare(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Bring uint8 images to open_clip's range.

        That is (x / 255 - mean) / std. It runs on the model's device, so that workers hand over
        bytes, a quarter of what floats would take.
        """
        image = batch["image"]
        mean, std = self._pixels(image.device)
        return {**batch, "image": (image.float() / 255).sub_(mean).div_(std)}

    def _pixels(self, device: torch.device) -> tuple[Tensor, ...]:
        """Return mean and standard deviation [3, 1, 1] on a device."""
        # Sent to each device once: sending at every step would wait for the device.
        if device not in self._sent:
            self._sent[device] = tuple(
                torch.tensor(v, device=device).view(3, 1, 1) for v in (self.mean, self.std)
            )
        return self._sent[device]

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        """Return unit features [B, E] of images and texts, and the logit scale []."""
        clip: Any = model
        return {
            "image_features": clip.encode_image(batch["image"], normalize=True),
            "text_features": clip.encode_text(batch["text"], normalize=True),
            "logit_scale": clip.logit_scale.exp(),
        }

    def teacher_forward(self, model: nn.Module, batch: Batch, needs: frozenset[str]) -> Outputs:
        """Run a teacher, on images of its own size where the student's is another."""
        image, sides = batch["image"], image_sides(model)
        if tuple(image.shape[-2:]) != sides:
            image = F.interpolate(image, sides, mode="bicubic", antialias=True)
        return super().teacher_forward(model, {**batch, "image": image}, needs)

    def loss(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return open_clip's ClipLoss.

        Over several processes it is each one's share of the loss of the global batch.
        """
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
        """Measure zero-shot classification, retrieval, loss and how well wrong captions are told.

        Zero-shot top-1 / top-5 need a split with classes, ``negative_accuracy`` one whose samples
        come with wrong captions; retrieval is R@1/5/10 in both directions.
        """
        split_rows = self._embedded(model, batches)
        image, text = split_rows["image"], split_rows["text"]
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
        # Features may be in bfloat16: were they compared in it, near answers would tie.
        with torch.autocast(image.device.type, enabled=False):
            metrics = zero_shot(image, weights.float(), split_rows["label"]) if classes else {}
            metrics |= retrieval(image, text, split_rows["token"])
            metrics |= contrastive(image, text, split_rows["scale"][0])
            if "wrong" in split_rows:
                metrics |= negatives(image, text, split_rows["wrong"], split_rows["is_wrong"])
            return metrics

    def _embedded(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, Tensor]:
        """Return features, tokens and labels of all batches by name, [N, ...] each."""
        clip: Any = model
        collected: dict[str, list[Tensor]] = defaultdict(list)
        for batch in batches:
            outputs = self.forward(model, batch)
            collected["image"].append(outputs["image_features"].float())
            collected["text"].append(outputs["text_features"].float())
            collected["scale"].append(outputs["logit_scale"].float().reshape(1))
            collected["token"].append(batch["text"])
            collected["label"].append(batch["label"])
            if "negative" in batch:
                wrong = clip.encode_text(batch["negative"], normalize=True)
                collected["wrong"].append(wrong.float())
                collected["is_wrong"].append((batch["negative"] != batch["text"]).any(1))
        return {name: torch.cat(values) for name, values in collected.items()}

    def export(self, model: nn.Module, folder: Path) -> None:
        """Write a folder that open_clip loads.

        ``open_clip.create_model_and_transforms('local-dir:FOLDER')`` reads it.
        """
        save_weights(model, folder / WEIGHTS_FILE)
        source = {} if self.like is None else read_folder(self.like)
        preprocess = {**(source.get("preprocess_cfg") or {}), **self.pixels.to_json()}
        size: Any = model.visual.image_size  # type: ignore[union-attr]
        if "size" in preprocess and to_2tuple(preprocess["size"]) != to_2tuple(size):
            preprocess["size"] = size
        model_cfg: Any = model.open_clip_config
        config = {**source, "model_cfg": model_cfg, "preprocess_cfg": preprocess}
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
        if model_cfg["text_cfg"].get("hf_tokenizer_name"):
            self._export_tokenizer(model_cfg["text_cfg"], folder)

    def export_format(self, folder: Path) -> ExportFormat:
        """Say how open_clip loads a folder."""
        return FORMAT if (folder / CONFIG_FILE).is_file() else ExportFormat()

    def _export_tokenizer(self, options: Mapping[str, Any], folder: Path) -> None:
        """Write the files of a tokenizer of transformers, the followed folder's as they are."""
        source = self._tokenizer_folder(options)
        if source is not None:
            copy_files(source, folder, TOKENIZER_FILES)
            return
        try:
            self.tokenizer.save_pretrained(folder)
        except Exception as error:  # transformers and the hub each have their own
            # A checkpoint without its tokenizer is grown all the same.
            if self.data is not None:
                raise
            name = options["hf_tokenizer_name"]
            self.note(f"The tokenizer '{name}' is not written: {type(error).__name__}: {error}")

    def recognises(self, path: Path) -> bool:
        """Say whether the path is an open_clip folder of a model for this paradigm's loss.

        ``check_model`` decides about the loss.
        """
        if not (path / CONFIG_FILE).is_file():
            return False
        try:
            config = named_config(in_folder(path))
        except ConfigError:
            # Claimed all the same, so that load says what is wrong with it; else the user would
            # read that no paradigm knows the folder.
            return True
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
        member = in_folder(path)
        config = model_config(member)
        self.check_model(config, f"'{path}'")
        model = load_folder(path)
        if self.like is None and self.data is None:
            self.follow(path)
        return self._agreed(member, config, model)

    def load_weights(self, model: nn.Module, path: Path) -> None:
        """Fill a member's model, strictly, from an open_clip folder or a file of weights.

        Raises:
            ConfigError: the file is damaged, or another model's, or the folder's model is for
                another loss.
        """
        if (path / CONFIG_FILE).is_file():
            load_state(model, self.load(path).state_dict(), path)
        elif path.is_dir():
            raise ConfigError(
                f"'{path}' is no open_clip folder: it has no {CONFIG_FILE}.",
                do="Give a folder that open_clip or compt exported, or a file of weights.",
            )
        else:
            refuse_torchscript(path)
            load_state(model, as_open_clip(read_state(path), model), path)
