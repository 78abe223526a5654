"""A toy family of residual MLPs, which trains on a CPU in seconds.

They classify points around random centres. Name it in a config:
``custom_imports=dict(imports=['compt.testing.toy'])``, ``paradigm=dict(type='toy')``,
``model=dict(width=16, depth=1)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from compt.interfaces import Batch, Draws, Layout, Member, Metric, Outputs, Paradigm
from compt.registry import LAYOUTS, PARADIGMS, Range

INPUTS, CLASSES = 8, 10


class ToyBlock(nn.Module):
    """A pre-norm residual MLP block with dropout."""

    def __init__(self, width: int, norm: type[nn.Module], dropout: float) -> None:
        super().__init__()
        self.norm = norm(width)
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, [B, D] -> [B, D]."""
        change: Tensor = self.dropout(self.fc2(F.gelu(self.fc1(self.norm(x)))))
        return x + change


class ToyNet(nn.Module):
    """A residual MLP over 8 inputs and 10 classes.

    Args:
        width: units of the residual stream; a block's MLP has twice as many.
        depth: blocks.
        rms: RMSNorm in the place of LayerNorm.
        dropout: share of a block's output that is dropped in training.
        classes: outputs.
    """

    def __init__(
        self,
        width: int = 16,
        depth: int = 1,
        *,
        rms: bool = False,
        dropout: float = 0.1,
        classes: int = CLASSES,
    ) -> None:
        super().__init__()
        norm = nn.RMSNorm if rms else nn.LayerNorm
        self.embed = nn.Linear(INPUTS, width)
        self.blocks = nn.ModuleList(ToyBlock(width, norm, dropout) for _ in range(depth))
        self.norm = norm(width)
        self.head = nn.Linear(width, classes)

    def features(self, x: Tensor) -> Tensor:
        """Return the normed features, [B, 8] -> [B, D]."""
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, [B, 8] -> [B, 10]."""
        logits: Tensor = self.head(self.features(x))
        return logits


class TiedNet(ToyNet):
    """A ToyNet of 8 classes whose head is its embedding.

    One tensor [8, D] has two names, as in language models.
    """

    def __init__(
        self, width: int = 16, depth: int = 1, *, rms: bool = False, dropout: float = 0.1
    ) -> None:
        super().__init__(width, depth, rms=rms, dropout=dropout, classes=INPUTS)
        self.embed = nn.Linear(width, INPUTS, bias=False)
        self.head.weight = self.embed.weight

    def features(self, x: Tensor) -> Tensor:
        """Return the normed features, [B, 8] -> [B, D]."""
        x = x @ self.embed.weight
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return x


@LAYOUTS.register_module(name=f"{__name__}.ToyNet")
class ToyLayout(Layout):
    """The named axes of ToyNet."""

    patterns = {
        "embed.weight": "embed <- 8",
        "embed.bias": "embed",
        "blocks.{block}.norm.weight": "embed",
        "blocks.{block}.norm.bias": "embed",
        "blocks.{block}.fc1.weight": "mlp <- embed",
        "blocks.{block}.fc1.bias": "mlp",
        "blocks.{block}.fc2.weight": "embed <- mlp",
        "blocks.{block}.fc2.bias": "embed",
        "norm.weight": "embed",
        "norm.bias": "embed",
        "head.weight": "classes <- embed",
        "head.bias": "classes",
    }

    def probe(self, module: nn.Module, generator: torch.Generator) -> Outputs:
        """Return the logits of four random points."""
        points = torch.randn(4, INPUTS, generator=generator, dtype=torch.float64)
        return {"logits": module(points.to(next(module.parameters())))}


@LAYOUTS.register_module(name=f"{__name__}.TiedNet")
class TiedLayout(ToyLayout):
    """The named axes of TiedNet.

    The last norm is all that the tied head reads, so that it can make up for what the one tensor
    cannot hold.
    """

    patterns = {
        **{name: pattern for name, pattern in ToyLayout.patterns.items() if name != "embed.bias"},
        "embed.weight": "vocab -> embed",
        "norm.weight": "embed @ head.weight",
        "norm.bias": "embed @ head.weight",
        "head.weight": "vocab <- embed",
        "head.bias": "vocab",
    }


@PARADIGMS.register_module(name="toy")
class Toy(Paradigm):
    """The paradigm of classifying points by the nearest of 40 random centres, four a class.

    Args:
        samples: training points; a quarter as many are held out.
        noise: standard deviation of the points around their centres.
        fail_at: turn the loss into NaN after so many steps of the optimizer, to try what follows.
        aliases: further outputs, each with the output, ``features`` or ``logits``, that it equals.
    """

    outputs = frozenset({"features", "logits"})
    features = ("features",)

    def __init__(
        self,
        *,
        samples: Annotated[int, Range(minimum=0, maximum=10**7)] = 512,
        noise: Annotated[float, Range(minimum=0)] = 0.5,
        fail_at: int | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self.samples, self.noise, self.fail_at = samples, noise, fail_at
        self.aliases = dict(aliases or {})
        self.outputs = Toy.outputs | frozenset(self.aliases)
        self.steps = 0

    def build_model(self, member: Member) -> nn.Module:
        """Build a ToyNet of the member's width and depth."""
        return ToyNet(**member.model)

    def build_dataset(self, split: str) -> Dataset[Any]:
        """Build a data set of points [8] and their classes."""
        centres = torch.randn(40, INPUTS, generator=torch.Generator().manual_seed(0))
        generator = torch.Generator().manual_seed(1 if split == "train" else 2)
        count = self.samples if split == "train" else self.samples // 4
        label = torch.randint(0, 40, (count,), generator=generator)
        points = centres[label] + self.noise * torch.randn(count, INPUTS, generator=generator)
        return TensorDataset(points, label % CLASSES)

    def collate(self, samples: Any) -> Batch:
        """Put points and classes together as ``x`` [B, 8] and ``label`` [B]."""
        points, labels = zip(*samples, strict=True)
        return {"x": torch.stack(points), "label": torch.stack(labels)}

    def prepare(
        self, batch: Batch, *, generator: torch.Generator, draws: Draws | None = None
    ) -> Batch:
        """Add a little noise, the same for teacher and student."""
        x = batch["x"]
        noise = (draws or Draws(generator)).randn(*x.shape).to(x)
        return {**batch, "x": x + 0.05 * noise}

    def example_batch(self, model: nn.Module, batch_size: int) -> Batch:
        """Return zeros on the model's device."""
        weight = next(model.parameters())
        x = torch.zeros(batch_size, INPUTS, device=weight.device, dtype=weight.dtype)
        label = torch.zeros(batch_size, dtype=torch.long, device=weight.device)
        return {"x": x, "label": label}

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        """Return features [B, D] and logits [B, 10], and the same under further names."""
        features = model.features(batch["x"])  # type: ignore[operator]
        outputs = {"features": features, "logits": model.head(features)}  # type: ignore[operator]
        return outputs | {name: outputs[output] for name, output in self.aliases.items()}

    def loss(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the cross entropy, NaN from ``fail_at`` on."""
        loss = F.cross_entropy(outputs["logits"], batch["label"])
        if self.fail_at is not None and self.steps >= self.fail_at:
            loss = loss * float("nan")
        return {"cross_entropy": loss}

    def after_step(self, model: nn.Module) -> None:
        """Count the steps."""
        self.steps += 1

    def metrics(self, model: nn.Module, split: str, batches: Iterable[Batch]) -> dict[str, Metric]:
        """Measure accuracy (chance 10 %) and cross entropy."""
        logits, labels = [], []
        for batch in batches:
            logits.append(self.forward(model, batch)["logits"])
            labels.append(batch["label"])
        scores, truth = torch.cat(logits), torch.cat(labels)
        accuracy = (scores.argmax(1) == truth).float().mean().item()
        return {
            "accuracy": Metric(accuracy, chance=1 / CLASSES, unit="share"),
            "loss": Metric(
                F.cross_entropy(scores, truth).item(), higher_is_better=False, unit="nats"
            ),
        }

    def export(self, model: nn.Module, folder: Path) -> None:
        """Write one safetensors file."""
        save_file(model.state_dict(), str(folder / "toy.safetensors"))

    def recognises(self, path: Path) -> bool:
        """Return whether the folder holds ``toy.safetensors``."""
        return (path / "toy.safetensors").is_file()

    def load(self, path: Path) -> nn.Module:
        """Build a ToyNet of the size that the weights have, and fill it."""
        state: Mapping[str, Tensor] = load_file(str(path / "toy.safetensors"))
        depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
        model = ToyNet(state["embed.weight"].shape[0], depth, rms="norm.bias" not in state)
        model.load_state_dict(state)
        return model
