"""A toy that teaches itself, as DINO does: an average of the student, a centre and a queue."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from compt.interfaces import Member, Metric
from compt.registry import LAYOUTS, PARADIGMS
from compt.testing.toy import CLASSES, Toy, ToyLayout, ToyNet

QUEUE = 16
EXPORT = "self_taught.safetensors"


class SelfTaughtNet(nn.Module):
    """A student, its running average, and what the outputs of that are centred by."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.student = ToyNet(width, depth, dropout=0.0)
        self.average = copy.deepcopy(self.student).requires_grad_(False)
        self.register_buffer("centre", torch.zeros(CLASSES))
        self.register_buffer("queue", torch.zeros(QUEUE, width))
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.long))


@LAYOUTS.register_module(name=f"{__name__}.SelfTaughtNet")
class SelfTaughtLayout(ToyLayout):
    parts = ("student", "average")
    patterns = {"centre": "classes", "queue": "16 <- embed", "num_steps": ""}

    def axis_aliases(self, module):
        return {
            f"{part}.{axis}": axis for part in self.parts for axis in ("embed", "mlp", "classes")
        }

    def probe(self, module, generator):
        return super().probe(module.student, generator)


class Noisy(Dataset):
    """Points that are another one at every reading, as augmented images are."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        point, label = self.dataset[index]
        return point + 0.1 * torch.randn(point.shape), label


@PARADIGMS.register_module(name="self_taught")
class SelfTaught(Toy):
    buffer_rules = {"centre": "mean", "num_steps": "max", "queue": "first", "average.*": "first"}
    sample_index = True

    def build_model(self, member: Member) -> nn.Module:
        return SelfTaughtNet(**member.model)

    def build_dataset(self, split: str) -> Dataset:
        dataset = super().build_dataset(split)
        return Noisy(dataset) if split == "train" else dataset

    def build_reference(self, split: str) -> Dataset:
        return super().build_dataset(split)

    def prepare(self, batch, *, generator, training):
        """Add in training two crops of other sizes, which are noisy."""
        points = batch["x"]
        noise = [
            0.1 * torch.randn(len(points), size, generator=generator, device=points.device)
            for size in (8, 4)
        ]
        crops = {"whole": points + noise[0], "half": points[:, :4] + noise[1]}
        return {**batch, "crops": crops if training else {"whole": points}}

    def example_batch(self, model: nn.Module, batch_size: int):
        points = torch.zeros(batch_size, 8, device=model.centre.device)
        batch = {"x": points, "label": torch.zeros_like(points[:, 0], dtype=torch.long)}
        return {**batch, "crops": {"whole": points, "half": points[:, :4]}}

    def forward(self, model: Any, batch):
        features = model.student.features(batch["crops"]["whole"])
        with torch.no_grad():
            answers = model.average(batch["x"])
        outputs = {"features": features, "logits": model.student.head(features)}
        if model.training:
            half = F.pad(batch["crops"]["half"], (0, 4))
            outputs["half"] = model.student(half)
        return {**outputs, "answers": answers, "target": answers - model.centre}

    def loss(self, outputs, batch) -> dict[str, Tensor]:
        views = [outputs[name] for name in ("logits", "half") if name in outputs]
        target = outputs["target"].softmax(1)
        return {
            "label": F.cross_entropy(outputs["logits"], batch["label"]),
            "self": sum(F.cross_entropy(view, target) for view in views),
        }

    def after_step(self, model: Any, *, outputs, batch, progress):
        momentum = 0.5 + 0.5 * progress
        pairs = zip(model.average.parameters(), model.student.parameters(), strict=True)
        for average, param in pairs:
            average.lerp_(param, 1 - momentum)
        model.centre.lerp_(outputs["answers"].mean(0), 0.1)
        model.queue.copy_(torch.cat([outputs["features"], model.queue])[:QUEUE])
        model.num_steps += 1

    def after_growth(self, model: Any) -> None:
        model.average.load_state_dict(model.student.state_dict())
        for buffer in (model.centre, model.queue, model.num_steps):
            buffer.zero_()

    def metrics(self, model: Any, split, batches, *, batches_of):
        """Classify points by the nearest of the training set."""
        bank = [
            (model.student.features(batch["x"]), batch["label"]) for batch in batches_of("train")
        ]
        features, labels = (torch.cat(column) for column in zip(*bank, strict=True))
        hits = []
        for batch in batches:
            nearest = torch.cdist(model.student.features(batch["x"]), features).argmin(1)
            hits.append(labels[nearest] == batch["label"])
        return {
            "knn": Metric(torch.cat(hits).float().mean().item(), chance=1 / CLASSES, unit="share")
        }

    def export(self, model, folder):
        save_file(model.state_dict(), str(folder / EXPORT))

    def recognises(self, path):
        return (path / EXPORT).is_file()

    def load(self, path):
        state = load_file(str(path / EXPORT))
        depth = 1 + max(int(n.split(".")[2]) for n in state if n.startswith("student.blocks."))
        model = SelfTaughtNet(len(state["student.embed.bias"]), depth)
        model.load_state_dict(state)
        return model
