"""One training step in several processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compt import PARADIGMS, Member

SIZES = (3, 2)
"""Numbers of processes, one after the other."""
MODEL = dict(
    embed_dim=16,
    init_logit_scale=2.0,
    init_logit_bias=-3.0,
    vision_cfg=dict(image_size=16, patch_size=8, width=32, layers=1, head_width=16),
    text_cfg=dict(context_length=6, vocab_size=64, width=32, layers=1, heads=2),
)


class Step(nn.Module):
    """A model with its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.paradigm = PARADIGMS.build(dict(type="siglip"))
        torch.manual_seed(3)
        self.net = self.paradigm.build_model(Member("a", MODEL))

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The loss of a prepared batch, []."""
        return self.paradigm.loss(self.paradigm.forward(self.net, batch), batch)["sigmoid"]


def whole() -> tuple[Step, dict[str, Tensor]]:
    """The model and the batch of all processes."""
    generator = torch.Generator().manual_seed(4)
    image = torch.randn(12, 3, 16, 16, generator=generator)
    return Step(), {"image": image, "text": torch.randint(1, 64, (12, 6), generator=generator)}


def gradients(model: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch, and the gradient of every parameter."""
    loss = model(batch)
    loss.backward()
    module = getattr(model, "module", model)
    return loss.detach(), {name: p.grad for name, p in module.net.named_parameters()}


def one_of_them(rank: int, folder: str) -> None:
    """Write ``WORLD_RANK.pt`` for each number of processes that this one is among."""
    torch.set_num_threads(1)
    for world in SIZES:
        if rank < world:
            torch.distributed.init_process_group(
                "gloo", init_method=f"file://{folder}/store_{world}", rank=rank, world_size=world
            )
            model, batch = whole()
            share = {name: value.chunk(world)[rank] for name, value in batch.items()}
            loss, grads = gradients(nn.parallel.DistributedDataParallel(model), share)
            torch.save({"loss": loss, "gradients": grads}, f"{folder}/{world}_{rank}.pt")
            torch.distributed.destroy_process_group()


def train(folder: str) -> None:
    """Run all of them, forked off this process, which has imported everything already."""
    torch.multiprocessing.start_processes(
        one_of_them, args=(folder,), nprocs=max(SIZES), start_method="fork"
    )
