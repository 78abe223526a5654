"""A paradigm for compt, self-distillation without labels (DINO), on timm's ViTs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compt import DATA, Batch, ConfigError, Metric, Outputs
from compt.paradigms.averages import move_average, restart_average, rising
from compt.paradigms.images import (
    ImageParadigm,
    View,
    labelled_features,
    neighbours,
    random_view,
)
from compt.paradigms.own_models import OwnModels
from compt.weights import save_weights
from compt_dino.model import Dino

BACKBONE = "backbone.safetensors"


class SelfDistillation(OwnModels, ImageParadigm):
    """Images of which a student, from parts, has to say what its average says of the whole.

    A member's ``model`` is a dict of arguments of timm's VisionTransformer: ``img_size``,
    ``patch_size``, ``embed_dim``, ``depth``, ``num_heads``. What is measured and exported is the
    teacher, the average.

    Source: Caron et al. 2021, arXiv 2104.14294, section 3 and appendix C. Differs: no blur and
    solarisation of crops; the head has two hidden layers without batch norm, and prototypes of unit
    length; the teacher's temperature is not warmed up.

    Args:
        data: source of images, with labels for the measuring of neighbours.
        local: number and size in pixels of the local crops.
        hidden, bottleneck, prototypes: sizes of the head, the same for all members.
        momentum: of the average at the start of a stage; it rises to 1 as a cosine.
        temperatures: of student and teacher.
        centre_momentum: of the mean of the teacher's scores, over all processes.
    """

    api_version = "1.2"
    outputs = frozenset({"features", "student", "target", "score"})
    features = ("features",)
    buffer_rules = {"centre": "mean"}
    file_name, settings = "dino", ("head",)

    def __init__(
        self,
        *,
        data: Annotated[Mapping[str, Any], DATA] | None = None,
        local: tuple[int, int] = (4, 16),
        hidden: int = 256,
        bottleneck: int = 64,
        prototypes: int = 1024,
        momentum: float = 0.99,
        temperatures: tuple[float, float] = (0.1, 0.04),
        centre_momentum: float = 0.9,
    ) -> None:
        if not (0 <= momentum <= 1 and 0 <= centre_momentum <= 1 and min(temperatures) > 0):
            raise ConfigError(
                f"momentum={momentum}, centre_momentum={centre_momentum}, temperatures="
                f"{temperatures}: a momentum is from 0 to 1, a temperature above 0.",
                where="paradigm dino",
            )
        super().__init__(data=data)
        self.local, self.head = tuple(local), (hidden, bottleneck, prototypes)
        self.momentum, self.centre_momentum = momentum, centre_momentum
        self.temperatures = temperatures

    def build_net(self, name: str, **vit: Any) -> nn.Module:
        """Build student and teacher, equal at first."""
        model = Dino(vit, *self.head)
        self.hold_image_size(name, model.student.backbone.patch_embed.img_size[0])
        return model

    def views(self) -> Mapping[str, View]:
        """Return two global and some local crops of an image."""
        return {
            "global": random_view(2, self.image_size, (0.4, 1.0)),
            "local": random_view(*self.local, (0.1, 0.4)),
        }

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        """Return features [B, D] of the student, and for crops what the loss compares.

        That is scores [(2 + N) B, K] of the student for all crops, and of the teacher for both
        global ones: ``score`` [2 B, K], and ``target``, the distribution that is to be predicted.
        """
        dino: Any = model
        if "image" in batch:
            features = dino.student.backbone(batch["image"])
            crops = batch["image"].unsqueeze(1).expand(-1, 2, -1, -1, -1)
            batch = {"global": crops, "local": crops[:, :0]}
        else:
            features = None
        wide, small = (batch[name].transpose(0, 1) for name in ("global", "local"))
        seen = [dino.student.backbone(wide.flatten(0, 1))]
        if len(small):
            seen.append(dino.student.backbone(small.flatten(0, 1)))
        with torch.no_grad():
            score = dino.teacher(dino.teacher.backbone(wide.flatten(0, 1)))
        return {
            "features": seen[0][: wide.shape[1]] if features is None else features,
            "student": dino.student(torch.cat(seen)),
            "target": F.softmax((score - dino.centre) / self.temperatures[1], dim=-1),
            "score": score,
        }

    def teacher_forward(self, model: nn.Module, batch: Batch, needs: frozenset[str]) -> Outputs:
        """Run nothing but the student's ViT for features."""
        if needs != {"features"} or "image" in batch:
            return self.forward(model, batch)
        return {"features": model.student.backbone(batch["global"][:, 0])}  # type: ignore[union-attr, operator]

    def loss(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the mean cross entropy over all pairs of a global and another crop, in nats."""
        target = outputs["target"].unflatten(0, (2, -1)).float()
        logits = (outputs["student"].float() / self.temperatures[0]).unflatten(
            0, (-1, target.shape[1])
        )
        pairs = -torch.einsum("gbk,cbk->gcb", target, F.log_softmax(logits, dim=-1)).mean(-1)
        others = 1 - torch.eye(*pairs.shape, device=pairs.device)
        return {"self_distillation": (pairs * others).sum() / (pairs.numel() - len(pairs))}

    def after_step(self, model: nn.Module, *, outputs: Outputs, progress: float) -> None:
        """Move the average, and the mean of its scores."""
        dino: Any = model
        move_average(dino.teacher, dino.student, rising(self.momentum, progress))
        dino.centre.lerp_(outputs["score"].mean(0), 1 - self.centre_momentum)

    def after_growth(self, model: nn.Module) -> None:
        """Begin with the student itself as its average, and no mean."""
        dino: Any = model
        restart_average(dino.teacher, dino.student)
        dino.centre.zero_()

    def metrics(
        self,
        model: nn.Module,
        split: str,
        batches: Iterable[Batch],
        *,
        batches_of: Callable[[str], Iterable[Batch]],
    ) -> dict[str, Metric]:
        """Measure how often the 20 nearest images of 'train' name a split's classes.

        They vote by cosine, with the teacher's features. Chance is the share of the most frequent
        class.
        """
        backbone = model.teacher.backbone  # type: ignore[union-attr]
        bank, queries = (labelled_features(backbone, b) for b in (batches_of("train"), batches))
        return neighbours(bank, queries)

    def export(self, model: nn.Module, folder: Path) -> None:
        """Write everything, and the teacher's ViT alone, with timm's names."""
        super().export(model, folder)
        save_weights(model.teacher.backbone, folder / BACKBONE)  # type: ignore[union-attr, arg-type]
