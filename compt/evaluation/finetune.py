"""Fine-tune image models with a short, plain recipe."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from compt.errors import ConfigError
from compt.evaluation.images import (
    batches,
    device,
    is_image_model,
    is_open_clip,
    open_timm,
    open_train_and_test,
    timm_folder,
)
from compt.evaluation.mmpretrain import open_mmpretrain
from compt.evaluation.options import require
from compt.interfaces import Suite
from compt.interfaces.paradigm import Metric
from compt.random_state import random_state, restore_random_state
from compt.registry import Range


@dataclass(kw_only=True)
class FineTune(Suite):
    """Train the whole image model with a linear head on labelled images, by a plain recipe (timm).

    AdamW, warm-up and cosine over the steps, random resized crops and flips, label smoothing. Two
    runs with one seed give the same bytes on one CPU.
    """

    tool = "timm"

    data: Path
    """A folder with ``SPLIT/CLASS/image``."""
    train: str = "train"
    """The folder in it that is trained on."""
    val: str = "val"
    """The folder in it that is measured."""
    epochs: Annotated[float, Range(positive=True)] = 30
    warmup_epochs: Annotated[float, Range(minimum=0)] = 3
    lr: Annotated[float, Range(positive=True)] = 1e-3
    """Of a batch of 256; others scale it linearly."""
    batch_size: Annotated[int, Range(minimum=1)] = 256
    weight_decay: Annotated[float, Range(minimum=0)] = 0.05
    layer_decay: Annotated[float, Range(positive=True, maximum=1)] | None = None
    """What the rate falls by from each layer to the one before it, in models of timm."""
    drop_path: Annotated[float, Range(minimum=0, maximum=1)] = 0.0
    """Stochastic depth of the last block, in models of timm."""
    smallest_crop: Annotated[float, Range(positive=True, maximum=1)] = 0.2
    """Share of the image's area."""
    label_smoothing: Annotated[float, Range(minimum=0, maximum=1)] = 0.1
    seed: int = 0
    num_workers: Annotated[int, Range(minimum=0)] = 2
    """Processes that prepare images, which draw crops of their own."""

    def __post_init__(self) -> None:
        require(["timm", "torchvision"], "compt[mae]")
        self._train, self._test = open_train_and_test(self.data, self.train, self.val)

    @classmethod
    def recognises(cls, export: Path) -> bool:
        """Tell whether it is of open_clip or mmpretrain, or is or holds a folder of timm."""
        return is_image_model(export)

    def evaluate(self, export: Path) -> Mapping[str, Metric]:
        """Return the accuracy, of which chance is the share of the most frequent class."""
        state = random_state()
        try:
            random.seed(self.seed)
            np.random.seed(self.seed)
            torch.manual_seed(self.seed)
            model, transforms = self._model(export)
            self._fit(model, transforms[True])
            return self._measured(model, transforms[False])
        finally:
            restore_random_state(state)

    def _model(self, export: Path) -> tuple[nn.Module, Mapping[bool, Callable[[Any], Tensor]]]:
        """Return the model with a head, and its transforms for training and not."""
        classes = len(self._train.classes)
        if is_open_clip(export):
            model, transforms = _open_clip(export, classes, self.smallest_crop)
        elif timm_folder(export) is None:
            model, transforms = _mmpretrain(export, classes, self.smallest_crop)
        else:
            model, transforms = _timm(export, classes, self.smallest_crop, self.drop_path)
        if self.layer_decay is not None and not hasattr(model, "group_matcher"):
            raise ConfigError(
                "Models of open_clip and mmpretrain do not say which layer a weight is of.",
                where="layer_decay",
                do="Leave it out.",
            )
        return model.to(device()), transforms

    def _fit(self, model: nn.Module, transform: Callable[[Any], Tensor]) -> None:
        import timm.optim
        import timm.scheduler

        optim: Any = timm.optim
        scheduler: Any = timm.scheduler
        self._train.transform = transform
        loader = DataLoader(
            self._train,
            self.batch_size,
            shuffle=True,
            num_workers=self.num_workers,
            generator=torch.Generator().manual_seed(self.seed),
        )
        steps = max(1, round(self.epochs * len(loader)))
        optimizer = optim.create_optimizer_v2(
            model,
            opt="adamw",
            lr=self.lr * self.batch_size / 256,
            weight_decay=self.weight_decay,
            layer_decay=self.layer_decay,
        )
        warmup = min(steps - 1, round(self.warmup_epochs * len(loader)))
        schedule = scheduler.CosineLRScheduler(
            optimizer, steps, warmup_t=warmup, warmup_prefix=False, t_in_epochs=False
        )
        model.train()
        for step, (image, label) in enumerate(_forever(loader, steps)):
            schedule.step_update(step)
            logits = model(image.to(device(), non_blocking=True))
            target = label.to(device())
            loss = F.cross_entropy(logits, target, label_smoothing=self.label_smoothing)
            if not torch.isfinite(loss):
                raise ConfigError(f"The loss is {loss.item()} in step {step}.", do="Lower lr.")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    @torch.inference_mode()
    def _measured(
        self, model: nn.Module, transform: Callable[[Any], Tensor]
    ) -> Mapping[str, Metric]:
        model.eval()
        self._test.transform = transform
        right, counts = 0, Counter[int]()
        # By name: a split without some of the classes numbers the others otherwise.
        numbers = torch.tensor([self._train.class_to_idx[name] for name in self._test.classes])
        for image, label in batches(self._test, self.batch_size, self.num_workers):
            predicted = model(image).argmax(1).cpu()
            right += int((predicted == numbers[label]).sum())
            counts.update(label.tolist())
        chance = max(counts.values()) / counts.total()
        name = f"{Path(self.data).name}/finetune"
        return {name: Metric(right / counts.total(), chance, unit="share")}


def _forever(loader: Any, steps: int) -> Iterator[Any]:
    """Yield the batches of as many epochs as there are steps for."""
    done = 0
    while done < steps:
        for batch in loader:
            if done == steps:
                return
            yield batch
            done += 1


def _open_clip(
    export: Path, classes: int, smallest_crop: float
) -> tuple[nn.Module, Mapping[bool, Callable[[Any], Tensor]]]:
    import open_clip

    clip, train, test = open_clip.create_model_and_transforms(
        f"local-dir:{export}", aug_cfg={"scale": (smallest_crop, 1.0)}
    )
    config = open_clip.get_model_config(f"local-dir:{export}")
    return _with_head(clip.visual, config["embed_dim"], classes), {True: train, False: test}


def _mmpretrain(
    export: Path, classes: int, smallest_crop: float
) -> tuple[nn.Module, Mapping[bool, Callable[[Any], Tensor]]]:
    encoder, transform = open_mmpretrain(export)
    train = transform(is_training=True, scale=(smallest_crop, 1.0), color_jitter=None)
    return _with_head(encoder, encoder.width, classes), {True: train, False: transform()}


def _with_head(encoder: nn.Module, width: int, classes: int) -> nn.Sequential:
    """Put a linear classifier behind an encoder."""
    head = nn.Linear(width, classes)
    nn.init.trunc_normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return nn.Sequential(encoder, head)


def _timm(
    export: Path, classes: int, smallest_crop: float, drop_path: float
) -> tuple[nn.Module, Mapping[bool, Callable[[Any], Tensor]]]:
    import timm

    model, test = open_timm(export, drop_path_rate=drop_path)
    pool = "avg" if getattr(model, "global_pool", "avg") == "token" else None
    model.reset_classifier(classes, *([pool] if pool else []))
    data: Any = timm.data
    train = data.create_transform(
        **data.resolve_model_data_config(model),
        is_training=True,
        scale=(smallest_crop, 1.0),
        color_jitter=None,
    )
    return model, {True: train, False: test}
