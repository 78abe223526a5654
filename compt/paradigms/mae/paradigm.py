"""Train masked autoencoders and other algorithms of mmpretrain that have a backbone and a loss."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
from mmengine.dataset import default_collate
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from compt.data import renumber
from compt.errors import ConfigError
from compt.interfaces import Batch, Draws, ExportFormat, Images, Member, Metric, Outputs
from compt.paradigms._checkpoints import (
    dtype_in_files,
    left_behind,
    most_used_dtype,
    said_otherwise,
)
from compt.paradigms._shared import Agreement, Sourced, check_image_size
from compt.paradigms.mae import mmpretrain, timm_vit
from compt.paradigms.mae.data import ImageDataset, black_sample, default_pipeline, fitting
from compt.paradigms.mae.features import (
    check_labelled,
    described,
    features,
    first_view,
    labels,
    loss_terms,
    moved,
    only_labelled,
    repeated,
    resized,
    scalar,
    watching,
    whole,
)
from compt.paradigms.mae.followed import (
    Followed,
    averages,
    pixels_in,
    preprocessor_like,
    read,
)
from compt.paradigms.mae.masks import draw_noise, give_masks
from compt.paradigms.mae.mmpretrain import MAE, ImageClassifier, VisionTransformer
from compt.paradigms.mae.probe import accuracy, labelled, probe, with_defaults
from compt.paradigms.mae.starter import MaeStarter
from compt.paradigms.mae.weights import fill
from compt.random_state import random_state, restore_random_state
from compt.registry import DATA
from compt.shards import SUFFIX, weights_of
from compt.weights import load_state

FEATURES = frozenset({"tokens", "pooled"})
CARRIED = (mmpretrain.CONFIG_FILE, timm_vit.CONFIG_FILE, "timm")
"""Name what an export writes beside weights."""


class Mae(Sourced):
    """Learn from images with the algorithms of mmpretrain, masked autoencoders first.

    A member's ``model`` is an mmpretrain config: ``dict(type='mmpretrain.MAE', backbone=...,
    neck=..., head=...)``, the path of a config file with a ``model``, or an exported folder. Any
    algorithm will do whose ``loss`` runs its ``backbone``, and a classifier too, to fine-tune. All
    members share pre-processing and, without ``own_image_sizes``, image size.

    Args:
        data: a source of images, ``dict(type='icons' | 'folder' | 'csv' | 'webdataset', ...)``, see
            :mod:`compt.data`; data sets of mmpretrain are named in ``train_dataloader.dataset`` and
            ``val_dataloader.dataset`` instead. ``num_samples`` is the size of the training set for
            plans made where the data is not.
        pipeline, test_pipeline: mmpretrain transforms of ``data``; random crops and flips, and a
            centre crop.
        data_preprocessor: of members that have none of their own; by default ImageNet's mean and
            deviation.
        probe: ``dict(samples=2000)``: labelled training images that classifiers of frozen features
            are fitted to, at every evaluation; ``dataset=...`` names them where ``data`` does not;
            None for no probes.
        own_image_sizes: whether masked autoencoders and classifiers may differ in image size: a
            stage reads images at its student's, and a teacher of another one gets the same ones
            resized. The same patches are masked, so that autoencoders need as many of them.

    Source: He et al. 2021, arXiv 2111.06377, through mmpretrain.
    """

    outputs = FEATURES | {"loss"}
    features = ("tokens", "pooled")
    needs = MaeStarter.needs
    starter = MaeStarter()
    example = "data=dict(type='icons'), or train_dataloader=dict(dataset=dict(type=...))"

    def __init__(
        self,
        *,
        data: Annotated[Mapping[str, Any], DATA] | None = None,
        pipeline: Sequence[Mapping[str, Any]] | None = None,
        test_pipeline: Sequence[Mapping[str, Any]] | None = None,
        data_preprocessor: Mapping[str, Any] | None = None,
        probe: Mapping[str, Any] | None = {"samples": 2000},
        own_image_sizes: bool = False,
    ) -> None:
        self._use(data)
        self.pipelines = {True: pipeline, False: test_pipeline}
        self.data_preprocessor = data_preprocessor
        self.probe = with_defaults(probe)
        self.own_image_sizes = own_image_sizes
        self._input = Agreement()
        self._followed = Followed()
        self._preprocessor: Any = None
        self._loaded_preprocessor: Any = None
        self._classes: tuple[str, ...] | None = None
        self._reference: tuple[Dataset[Any], tuple[str, ...]] | None = None

    def build_model(self, member: Member) -> nn.Module:
        """Build a model of mmpretrain, or one of timm.

        A model of timm can be grown but not trained here.

        Raises:
            ConfigError: it cannot be built, or wants another input than the members before it.
        """
        if timm_vit.is_config(member.model):
            return self._built_for_timm(member)
        return self._built(mmpretrain.model_config(member), member.name)

    def follow(self, path: Path) -> None:
        """Take over how a checkpoint of mmpretrain or timm prepares pixels, and its labels.

        Raises:
            ConfigError: a folder's config cannot be read.
        """
        super().follow(path)
        for key in averages(path):
            self.note(
                f"'{path}' holds an average of the weights too ({key}), which is not read; "
                "save it alone to start from it."
            )
        followed = read(path)
        if followed is None:
            self.note(
                f"'{path}' holds weights alone: how pixels are prepared is not known from it, nor "
                "are labels."
            )
            return
        self._followed = followed
        own, theirs = pixels_in(self.data_preprocessor or {}), pixels_in(followed.preprocessor)
        self.note(*said_otherwise("The paradigm", own, f"'{path}'", theirs))
        for key, is_train in (("pipeline", True), ("test_pipeline", False)):
            if self.pipelines[is_train]:
                self.note(f"The paradigm's own {key} is used, not that of '{path}'.")
        self.note(*left_behind(path, CARRIED))

    def weight_dtype(self, path: Path) -> torch.dtype | None:
        """Return the number format of most weights in a checkpoint of mmpretrain or timm."""
        is_timm = path.is_dir() and not mmpretrain.recognises(path)
        file = timm_vit.weights_file(path) if is_timm else path
        if weights_of(file).suffix == SUFFIX:
            return dtype_in_files([file])
        try:
            return most_used_dtype(mmpretrain.read_weights(file))
        except ConfigError:
            return None

    def _built_for_timm(self, member: Member) -> nn.Module:
        """Build a model of timm that prepares pixels as what is followed."""
        source = self._followed.timm
        pixels = timm_vit.pixels_of({"pretrained_cfg": timm_vit.pretrained_cfg(source)})
        pixels = pixels if source else {}
        own = timm_vit.pixels_of(member.model)
        owner = f"Member '{member.name}'"
        self.note(*said_otherwise(f"'{self.like}'", pixels, owner, own))
        theirs = timm_vit.settings(source)
        self.note(*said_otherwise(owner, timm_vit.settings(member.model), f"'{self.like}'", theirs))
        return timm_vit.build(Member(member.name, timm_vit.filled(member.model, theirs)), pixels)

    def _built(self, config: dict[str, Any], name: str, *, loaded: bool = False) -> nn.Module:
        """Build a model that fits the members before it.

        One that is ``loaded`` need not fit them, and gets no fresh weights.
        """
        followed = {} if loaded else self._followed.preprocessor
        usual = mmpretrain.default_preprocessor(config)
        default = self.data_preprocessor or preprocessor_like(usual, followed)
        config.setdefault("data_preprocessor", dict(default))
        own = pixels_in(config["data_preprocessor"])
        theirs = pixels_in(followed)
        self.note(*said_otherwise(f"Member '{name}'", own, f"'{self.like}'", theirs))
        model = mmpretrain.build(config, name, fresh=not loaded)
        size = mmpretrain.image_size(model)
        check_image_size(name, size)
        wants = {
            "image size": size,
            "number of patches": give_masks(model.backbone),  # type: ignore[arg-type]
        }
        if loaded:
            self._loaded_preprocessor = config["data_preprocessor"]
        else:
            wants["data_preprocessor"] = config["data_preprocessor"]
        # Other algorithms have masks in their data, for images of one size.
        may_resize = self.own_image_sizes and isinstance(model, (MAE, ImageClassifier))
        for quantity, value in wants.items():
            is_free = may_resize and quantity == "image size"
            self._input.hold(name, quantity, value, binding=not (loaded or is_free))
        return model

    def build_dataset(self, split: str) -> Dataset[Any]:
        """Open a split of ``data`` behind the pipeline.

        Items hold ``inputs``, uint8 [3, H, W] in BGR where the pipeline does not say otherwise, and
        ``data_samples``.
        """
        return self._dataset(split, train=split == "train")

    def _dataset(self, split: str, *, train: bool) -> ImageDataset:
        images = self._open(split)
        images.check()
        if split == "train":
            self._classes = images.classes
        elif self._classes is None:
            self._classes = self._open("train").classes
        return ImageDataset(images, self._pipeline(train=train), self._classes)

    def _pipeline(
        self, *, train: bool, size: tuple[int, int] | None = None
    ) -> Sequence[Mapping[str, Any]]:
        """Return the transforms of images, for a size other than the first member's if given."""
        size = size or self._input["image size"]
        if own := self.pipelines[train]:
            return own
        if self.like is None or train or not self._followed.steps:
            return default_pipeline(size, train=train, resize=self._followed.resize)
        return fitting(self._followed.steps, size, self.like)

    def _open(self, split: str) -> Images:
        size = max(self._input["image size"])
        return self.open_images(split, captions=False, image_size=size)

    def collate(self, samples: Sequence[Any]) -> Batch:
        """Stack ``inputs``, view by view where there are several, and list ``data_samples``."""
        batch: Batch = default_collate(list(samples))
        return batch

    def example_batch(self, model: nn.Module, batch_size: int) -> Batch:
        """Return black images [B, 3, H, W] after the training pipeline, on the model's device."""
        # Random crops draw from the global generators, which a look at the model must not move.
        state = random_state()
        size = self._input["image size"]
        if self.own_image_sizes:
            size = mmpretrain.image_size(model)
        sample = black_sample(size, self._pipeline(train=True, size=size))
        generator = torch.Generator().manual_seed(0)
        batch = self.prepare(self.collate([sample]), generator=generator)
        restore_random_state(state)
        weight = next(model.parameters())
        # Of one sample, as the whole batch would be prepared in memory for a model without any.
        one = {key: moved(value, weight) for key, value in batch.items()}
        return {key: repeated(value, batch_size) for key, value in one.items()}

    def prepare(
        self, batch: Batch, *, generator: torch.Generator, draws: Draws | None = None
    ) -> Batch:
        """Normalise the images, and draw the noise that decides which patches are masked.

        It happens once, here and not in the model, so that teacher and student see the same masks
        and, under Mixup, the same images.
        """
        if self._preprocessor is None:
            config = self._input.get("data_preprocessor") or self._loaded_preprocessor
            with mmpretrain.scope(), torch.device("cpu"):
                self._preprocessor = mmpretrain.MODELS.build(
                    self._input["data_preprocessor"] if config is None else config
                )
        learning = torch.is_grad_enabled()  # Mixup and the like are for training
        raw = {key: batch[key] for key in ("inputs", "data_samples")}
        ready: dict[str, Any] = self._preprocessor.to(first_view(batch).device)(raw, learning)
        if patches := self._input["number of patches"]:
            ready["noise"] = draw_noise(ready["inputs"], patches, draws or Draws(generator))
        return ready

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        """Return the terms of the algorithm's loss, and features of its backbone.

        Features are ``tokens`` [B, N, D], and ``pooled`` [B, D], the patches' mean.

        Raises:
            ConfigError: the model is one of timm, which has no loss.
            DataError: a classifier would learn from an image without a label.
        """
        if isinstance(model, TimmVisionTransformer):
            raise ConfigError(
                "A model of timm has no loss: it can be grown, not trained, by this paradigm.",
                do="Name an algorithm of mmpretrain, such as mmpretrain.MAE; "
                "init= reads timm's weights into it.",
            )
        if isinstance(model, ImageClassifier):
            check_labelled(batch)
        with watching(model, batch) as seen:
            losses = model.loss(batch["inputs"], batch["data_samples"])  # type: ignore[operator]
        terms = {name: scalar(value) for name, value in loss_terms(losses).items()}
        return {**terms, **features(model, seen)}

    def teacher_forward(self, model: nn.Module, batch: Batch, needs: frozenset[str]) -> Outputs:
        """Run of a masked autoencoder only the encoder, where nothing more is needed.

        Images are resized where they are of another size than the teacher's.
        """
        if self.own_image_sizes:
            batch = {**batch, "inputs": resized(batch["inputs"], mmpretrain.image_size(model))}
        if not (isinstance(model, MAE) and needs <= FEATURES):
            return self.forward(model, batch)
        with watching(model, batch) as seen:
            model.backbone(batch["inputs"])
        return features(model, seen)

    def loss(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of the algorithm's loss, as mmpretrain computes them."""
        return loss_terms(outputs)

    def metrics(self, model: nn.Module, split: str, batches: Iterable[Batch]) -> dict[str, Metric]:
        """Measure the loss on held-out images, and where they have labels the accuracy.

        A classifier's own accuracy comes first; other models' frozen features, of whole images, are
        told apart by their neighbours and by a linear classifier.
        """
        classifier = isinstance(model, ImageClassifier)
        losses, answers, classes = [], [], []
        for batch in batches:
            if classifier and not len((batch := only_labelled(batch))["data_samples"]):
                continue
            terms = self.loss(self.forward(model, batch), batch)
            losses.append(
                torch.stack(list(terms.values())).sum().double() * len(batch["data_samples"])
            )
            classes.append(labels(batch))
            if classifier or self.probe:
                answers.append(model(batch["inputs"]) if classifier else whole(model, batch))
        if not classes:
            return {}
        label = torch.cat(classes)
        mean = torch.stack(losses).sum().item() / len(label)
        loss = {"loss": Metric(mean, higher_is_better=False)}
        if classifier:
            return accuracy(torch.cat(answers), label) | loss
        return loss | (self._probed(model, torch.cat(answers), label) if self.probe else {})

    def _probed(self, model: nn.Module, test: Tensor, label: Tensor) -> dict[str, Metric]:
        """Fit classifiers to labelled training images, and try them on held-out ones."""
        if not (label >= 0).any():
            return {}
        reference, names = self._labelled()
        if self._classes and names:
            # The probe may be fitted to other data, which numbers the same classes otherwise.
            renumbered = renumber(label.cpu().numpy(), self._classes, names)
            label = torch.from_numpy(renumbered).to(label.device)
        if not len(reference) or not (label >= 0).any():  # type: ignore[arg-type]
            return {}
        train, classes = described(model, self._prepared(reference, test))
        return probe(train, classes, test[label >= 0], label[label >= 0])

    def _prepared(self, dataset: Dataset[Any], like: Tensor) -> Iterator[Batch]:
        """Yield the batches of a data set on the device of a tensor."""
        for raw in DataLoader(dataset, 256, collate_fn=self.collate):
            raw["inputs"] = moved(raw["inputs"], like)
            yield self.prepare(raw, generator=torch.Generator(like.device).manual_seed(0))

    def _labelled(self) -> tuple[Dataset[Any], tuple[str, ...]]:
        """Return labelled training images without augmentation, and the names of their classes."""
        if self._reference is None:
            assert self.probe is not None
            if self.probe["dataset"] is not None:
                dataset, names = mmpretrain.build_dataset(self.probe["dataset"])
            elif self.data is not None:
                images = self._dataset("train", train=False)
                dataset, names = images, images.classes
            else:
                dataset, names = ImageDataset((), ()), ()
            self._reference = labelled(dataset, self.probe["samples"]), names
        return self._reference

    def export(self, model: nn.Module, folder: Path) -> None:
        """Write mmpretrain's config and checkpoint, and a plain ViT for timm too.

        The encoder for timm stands under ``timm/``.
        ``mmpretrain.get_model('FOLDER/model.py', pretrained='FOLDER/model.pth')`` and
        ``timm.create_model('local-dir:FOLDER/timm', pretrained=True)`` read them.
        """
        source = self._followed
        if isinstance(model, TimmVisionTransformer):
            timm_vit.save(model, folder, source.timm)
            self._note_labels(source.timm and timm_vit.has_labels_of(model, source.timm))
            return
        meta = self._dataset_meta(model)
        mmpretrain.save(model, folder, test_pipeline=source.test_pipeline, dataset_meta=meta)
        if isinstance(model.backbone, VisionTransformer):
            resize = {} if self.like is None else asdict(source.resize)
            timm_vit.export_encoder(model, folder / "timm", resize, source.timm)

    def export_format(self, folder: Path) -> ExportFormat:
        """Say how mmpretrain loads a folder, or timm the one of its encoder."""
        if timm_vit.recognises(folder):
            return timm_vit.FORMAT
        return mmpretrain.FORMAT if mmpretrain.recognises(folder) else ExportFormat()

    def _dataset_meta(self, model: nn.Module) -> dict[str, Any]:
        """Return the names of a classifier's classes, of the data or else of what is followed."""
        if not isinstance(model, ImageClassifier):
            return {}
        number = getattr(model.head, "num_classes", None)
        if self.data is not None:
            classes = self._open("train").classes
            return {"classes": list(classes)} if len(classes) == number else {}
        meta = dict(self._followed.dataset_meta)
        is_same = len(meta.get("classes") or meta.get("CLASSES") or ()) == number
        self._note_labels(is_same)
        return meta if is_same else {}

    def _note_labels(self, has_labels: Any) -> None:
        """Note where the labels of what is followed are not written."""
        if self._followed.dataset_meta and not has_labels:
            self.note(f"The labels of '{self.like}' are not written: the classes are not as many.")

    def recognises(self, path: Path) -> bool:
        """Say whether the path is a model of mmpretrain or a timm ViT's folder.

        A model of mmpretrain is an exported folder, or a checkpoint with its config.
        """
        return mmpretrain.recognises(path) or timm_vit.recognises(path)

    def load(self, path: Path) -> nn.Module:
        """Load a model of mmpretrain, or a timm folder as a model of timm.

        Raises:
            ConfigError: the path is neither, or damaged.
        """
        if self.like is None and self.data is None and self._input.get("image size") is None:
            self.follow(path)
        if not mmpretrain.recognises(path):
            return timm_vit.load(path)
        config, state = mmpretrain.read(path)
        model = self._built(config, path.stem, loaded=True)
        load_state(model, state, path)
        return model

    def load_weights(self, model: nn.Module, path: Path) -> None:
        """Fill a model from mmpretrain's or timm's weights.

        Weights of an encoder alone fill only the encoder.

        Raises:
            ConfigError: they are not of this model.
        """
        fill(model, path)
