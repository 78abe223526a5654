"""Train on images and their texts with open_clip's models, tokenizers and loss."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from compt.errors import ConfigError
from compt.interfaces import Batch, Images, Metric, Outputs
from compt.paradigms.clip.checkpoints import OpenClipModels
from compt.paradigms.clip.data import PairDataset
from compt.paradigms.clip.metrics import contrastive, negatives, retrieval, zero_shot
from compt.paradigms.clip.models import image_sides
from compt.paradigms.clip.starter import ClipStarter
from compt.registry import DATA, Range

MAX_LOGIT_SCALE = math.log(100)


class Clip(OpenClipModels):
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
        super().__init__(
            tokenizer=tokenizer,
            pixels={
                "mean": mean,
                "std": std,
                "interpolation": interpolation,
                "resize_mode": resize_mode,
            },
            own_image_sizes=own_image_sizes,
        )
        self.templates, self.augment = tuple(templates), augment
        self._classes: dict[str, tuple[str, ...]] = {}
        self._sent: dict[torch.device, tuple[Tensor, ...]] = {}
        if augment is not None and not 0 < augment <= 1:
            raise ConfigError(f"augment={augment} is not in (0, 1].", where="paradigm.augment")

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
        images = super()._open(split)
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
