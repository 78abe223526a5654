"""A paradigm for compt, language-image pre-training with the pairwise sigmoid loss.

The models are open_clip's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from open_clip.loss import SigLipLoss
from torch import Tensor, nn

from compt import Batch, ConfigError, Outputs
from compt.paradigms.clip import Clip


class SigLip(Clip):
    """CLIP's towers, data and metrics with SigLIP's loss.

    Every pair of a batch is a yes-or-no question. A member's ``model`` is what ``clip`` takes: an
    open_clip name, a folder, or a config. The model has a logit bias; scale and bias start at ln 10
    and -10 where the config does not say. Arguments are those of ``clip``.

    Source: Zhai et al. 2023, arXiv 2303.15343, algorithm 1, through open_clip. Differs: the logits
    are float32 under autocast too (bfloat16 has steps of 1/16 where they begin), and the logit
    scale is clamped to 100, as open_clip does.
    """

    api_version = "1.2"
    outputs = Clip.outputs | {"logit_bias"}
    model_defaults = {"init_logit_scale": math.log(10), "init_logit_bias": -10.0}

    def check_model(self, config: Mapping[str, Any], owner: str) -> None:
        """Raise ConfigError unless the model has a logit bias."""
        if config.get("init_logit_bias") is None:
            raise _no_bias(owner)

    def load(self, path: Path) -> nn.Module:
        """Load an open_clip folder (config and weights), as open_clip itself does.

        Raises:
            ConfigError: also where the weights are another loss's: open_clip reads them with a bias
                of 0.
        """
        model = super().load(path)
        if model.logit_bias.item() == 0 != model.open_clip_config["init_logit_bias"]:  # type: ignore
            raise _no_bias(f"'{path}'")
        return model

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        """Return unit features [B, E] of images and texts, logit scale [] and logit bias []."""
        return {**super().forward(model, batch), "logit_bias": model.logit_bias}  # type: ignore[dict-item]

    def loss(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return open_clip's SigLipLoss, [], summed over all texts and averaged over images.

        A pair's loss is -log sigmoid(+-logit). Over several processes, each one's images meet the
        texts of all, which are passed round.
        """
        names = ("image_features", "text_features", "logit_scale", "logit_bias")
        values = [outputs[name] for name in names]
        device = values[0].device.type
        rank, world_size = 0, 1
        # A plan's tensors have shapes and no values: gloo cannot send them.
        if torch.distributed.is_initialized() and device != "meta":
            rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        can_autocast = torch.amp.is_autocast_available(device)
        # bfloat16 has steps of 1/16 at -10, where the logits begin
        with torch.autocast(device, enabled=False) if can_autocast else nullcontext():
            wide = [value.to(torch.promote_types(value.dtype, torch.float32)) for value in values]
            return {"sigmoid": SigLipLoss(rank=rank, world_size=world_size)(*wide)}


def _no_bias(owner: str) -> ConfigError:
    """Return the error of a model that was trained with another loss."""
    return ConfigError(
        f"The model of {owner} has no logit bias, which the sigmoid loss needs: it was trained "
        "with another loss.",
        do="Give one that a sigmoid loss trained; the paradigm 'clip' is for those without.",
    )
