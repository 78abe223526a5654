"""Build, read and write open_clip's models, with their tokenizers and preprocessing."""

from __future__ import annotations

import json
from abc import ABC
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from open_clip.utils import to_2tuple
from torch import nn

from compt.errors import ConfigError
from compt.interfaces import ExportFormat, Images, Member
from compt.paradigms._checkpoints import (
    copy_files,
    left_behind,
    matching,
    refuse_torchscript,
    said_otherwise,
)
from compt.paradigms._shared import Agreement, Sourced, check_image_size
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
from compt.paradigms.clip.words import NAME as WORDS, Words, vocabulary_size, words_of_split
from compt.registry.foreign_configs import refuse_code
from compt.weights import load_state, read_state, save_weights

FORMAT = ExportFormat(
    loaded_by="open_clip",
    usage="import open_clip\n\n"
    "model, preprocess = open_clip.create_model_from_pretrained('local-dir:FOLDER')\n"
    "tokenizer = open_clip.get_tokenizer('local-dir:FOLDER')\n",
    task="zero-shot-image-classification",
    single_file="open_clip loads one file of weights",
)


class OpenClipModels(Sourced, ABC):
    """A paradigm whose members are open_clip's models, before it is said how they are trained.

    Args:
        tokenizer: ``dict(type='words', size=...)``, None for the one that the members name.
        pixels: ``mean``, ``std``, ``interpolation`` and ``resize_mode`` of the images, of
            which those that are None are the followed folder's or open_clip's own.
        own_image_sizes: whether members may differ in image size.
    """

    _followed: Mapping[str, Any] = {}
    """The model's config of the folder that is followed."""
    model_defaults: ClassVar[Mapping[str, Any]] = {}
    """Values for members whose config leaves out keys such as ``init_logit_scale``."""

    def __init__(
        self,
        *,
        tokenizer: Mapping[str, Any] | None,
        pixels: Mapping[str, Any],
        own_image_sizes: bool,
    ) -> None:
        self.own_image_sizes = own_image_sizes
        self._vocabulary_size = None if tokenizer is None else vocabulary_size(tokenizer)
        self._own_pixels = pixels
        self.pixels = Pixels.of(pixels, where="paradigm")
        self._input = Agreement()
        self._vocabularies: dict[str, int | None] = {}

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
            words = words_of_split(self._open("train"), self.source())
            return Words(words, self._vocabulary_size, length)
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

    def _open(self, split: str) -> Images:
        """Open a split of images of the members' size."""
        return self.open_images(split, image_size=max(self._input["image size"]))
