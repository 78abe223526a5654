"""The optimizer of a stage: two parameter groups, as the field trains transformers; and what it
takes over.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import HOOKS, OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.optim import Optimizer

from compt.weights import read_state


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(name="ComptOptimWrapperConstructor")
class OptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Weight decay for matrices, none for gains, biases and scalars: two groups, not one a
    parameter.

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
            {
                **_fused(self.optimizer_cfg),
                **self.optimizer_cfg,
                "params": [g for g in groups if g["params"]],
            }
        )
        wrapper = {"type": "OptimWrapper", **self.optim_wrapper_cfg}
        return OPTIM_WRAPPERS.build(wrapper, default_args={"optimizer": optimizer})


def _fused(config: Mapping[str, Any]) -> dict[str, bool]:
    """``fused=True`` for an optimizer of torch that has it, if the config does not choose for
    itself.

    torch's own default is a loop over the parameters on CPU, several times slower.
    """
    known = inspect.signature(OPTIMIZERS.get(config["type"])).parameters
    return (
        {"fused": True}
        if "fused" in known and not {"fused", "foreach", "differentiable"} & {*config}
        else {}
    )


def named_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """What an optimizer remembers of a model's parameters, by 'key:parameter'."""
    return {
        f"{key}:{name}": value
        for name, param in model.named_parameters()
        for key, value in optimizer.state.get(param, {}).items()
        if isinstance(value, Tensor)
    }


def load_named_state(model: nn.Module, optimizer: Optimizer, state: Mapping[str, Tensor]) -> None:
    """Let an optimizer go on from :func:`named_state`; parameters without an entry start anew."""
    known: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        kind, _, name = key.partition(":")
        known.setdefault(name, {})[kind] = value
    names = {param: name for name, param in model.named_parameters()}
    content = optimizer.state_dict()
    params = [param for group in optimizer.param_groups for param in group["params"]]
    found = {i: known[names[p]] for i, p in enumerate(params) if names.get(p) in known}
    if any("momentum_buffer" in own for own in found.values()):
        found = {
            i: found.get(i) or {"momentum_buffer": torch.zeros_like(p)}
            for i, p in enumerate(params)
        }
    content["state"] = found
    optimizer.load_state_dict(content)


@HOOKS.register_module(name="ComptGrownHook")
class GrownHook(Hook):
    """Let a grown member start with its source's optimizer state, and train its new entries at a
    rate of their own.

    The step of a new entry, weight decay included, is scaled: for optimizers that work entry by
    entry this is another learning rate.

    Args:
        state: file of the grown optimizer state; a checkpoint of the stage itself replaces it.
        new: file of the masks of new entries.
        ratio: their learning rate relative to the others'.
    """

    def __init__(
        self, *, state: str | None = None, new: str | None = None, ratio: float = 1.0
    ) -> None:
        self.state, self.new, self.ratio = state, new, ratio

    def before_train(self, runner: Runner) -> None:
        """Load the state, and hook into the optimizer's steps."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        optimizer = runner.optim_wrapper.optimizer
        if self.state is not None:
            load_named_state(model.student, optimizer, read_state(Path(self.state)))
        if self.new is not None:
            params = dict(model.student.named_parameters())
            masks = {
                params[name]: mask
                for name, mask in read_state(Path(self.new)).items()
                if mask.any()
            }
            scale_steps(optimizer, {p: mask.to(p.device) for p, mask in masks.items()}, self.ratio)


def scale_steps(optimizer: Optimizer, masks: Mapping[nn.Parameter, Tensor], ratio: float) -> None:
    """Scale every step that an optimizer takes with the entries of these masks."""
    before: dict[nn.Parameter, Tensor] = {}

    def remember(*_: Any) -> None:
        before.update({param: param.detach().clone() for param in masks})

    def scale(*_: Any) -> None:
        with torch.no_grad():
            for param, mask in masks.items():
                param.copy_(torch.where(mask, torch.lerp(before[param], param, ratio), param))
        before.clear()

    optimizer.register_step_pre_hook(remember)
    optimizer.register_step_post_hook(scale)
