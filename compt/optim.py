"""The optimizer of a stage: two parameter groups, as the field trains transformers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(name="ComptOptimWrapperConstructor")
class OptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Weight decay for matrices, none for gains, biases and scalars: two groups, not one a parameter.

    With a ``paramwise_cfg`` it is mmengine's own constructor.
    """

    def __call__(self, model: nn.Module) -> Any:
        """Build the optimizer and its wrapper for all trainable parameters of the model."""
        if self.paramwise_cfg:
            return super().__call__(model)
        model = getattr(model, "module", model)
        params = [p for p in model.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in params if p.ndim >= 2]},
            {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = OPTIMIZERS.build(
            {**_fused(self.optimizer_cfg), **self.optimizer_cfg, "params": [g for g in groups if g["params"]]}
        )
        wrapper = {"type": "OptimWrapper", **self.optim_wrapper_cfg}
        return OPTIM_WRAPPERS.build(wrapper, default_args={"optimizer": optimizer})


def _fused(config: Mapping[str, Any]) -> dict[str, bool]:
    """``fused=True`` for an optimizer of torch that has it, if the config does not choose for itself.

    torch's own default is a loop over the parameters on CPU, several times slower.
    """
    known = inspect.signature(OPTIMIZERS.get(config["type"])).parameters
    return {"fused": True} if "fused" in known and not {"fused", "foreach", "differentiable"} & {*config} else {}
