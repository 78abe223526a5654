"""The optimizer of a stage, and what a grown member's takes over from its source's."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.optim import Optimizer

from compt.growth.names import matcher
from compt.training.sharding import is_sharded, share_entries, shared_like
from compt.training.stage import stage_model
from compt.weights import read_state

IMPLEMENTATIONS = {"fused", "foreach", "differentiable"}
"""Options by which a config chooses how an optimizer of torch computes."""
MOST_UNREAD = 1000
"""Norms of gradients that are kept where nothing reads them."""


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(name="ComptOptimWrapperConstructor")
class OptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Weight decay for matrices, none for gains, biases and scalars, as is usual.

    In few groups, not one a parameter as mmengine builds them. With a ``paramwise_cfg`` they are
    those of mmengine's own constructor.

    ``rate_factors`` in the wrapper's config are learning rates relative to those, by the names or
    templates of parameters (:class:`compt.growth.width_rates.WidthRates`). What an optimizer such
    as AdamW takes off a weight in a step, learning rate times weight decay, stays as it is.
    """

    def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: Any = None) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        self.rate_factors: Mapping[str, float] = self.optim_wrapper_cfg.pop("rate_factors", {})

    def __call__(self, model: nn.Module) -> Any:
        """Build the optimizer and its wrapper for all trainable parameters of the model."""
        model = getattr(model, "module", model)
        factors = _factors(model, self.rate_factors)
        if self.paramwise_cfg:
            wrapper = super().__call__(model)
            own = wrapper.optimizer.param_groups
            # mmengine keeps a group for each parameter that is not trained
            own[:] = [group for group in own if any(p.requires_grad for p in group["params"])]
            _scale_rates(own, factors)
            return wrapper
        params = [p for p in model.parameters() if p.requires_grad]
        matrices = [p for p in params if p.ndim >= 2]
        vectors = [p for p in params if p.ndim < 2]
        groups: list[dict[str, Any]] = [
            {"params": matrices},
            {"params": vectors, "weight_decay": 0.0},
        ]
        groups = [part for group in groups for part in _by_factor(group, factors)]
        optimizer = OPTIMIZERS.build(
            {**_fused(self.optimizer_cfg, model), **self.optimizer_cfg, "params": groups}
        )
        _scale_rates(optimizer.param_groups, factors)
        config = {"type": "OptimWrapper", **self.optim_wrapper_cfg}
        return OPTIM_WRAPPERS.build(config, default_args={"optimizer": optimizer})


def _factors(model: nn.Module, by_name: Mapping[str, float]) -> dict[nn.Parameter, float]:
    """Return the learning rates of parameters relative to the others', for those that have one."""
    patterns = [(matcher(name), factor) for name, factor in by_name.items()]
    factors: dict[nn.Parameter, float] = {}
    # A layout may know a tied parameter by another of its names than comes first here.
    for name, param in model.named_parameters(remove_duplicate=False):
        fitting = (factor for pattern, factor in patterns if pattern.match(name))
        if (factor := next(fitting, None)) is not None:
            factors.setdefault(param, factor)
    return factors


def _by_factor(
    group: dict[str, Any], factors: Mapping[nn.Parameter, float]
) -> list[dict[str, Any]]:
    """Return a group as one for each factor in it, the rate as written first, as logs show it."""
    parts: dict[float, list[nn.Parameter]] = {}
    for param in group["params"]:
        parts.setdefault(factors.get(param, 1.0), []).append(param)
    order = sorted(parts, key=lambda factor: (factor != 1, -factor))
    return [{**group, "params": parts[factor]} for factor in order]


def _scale_rates(groups: list[dict[str, Any]], factors: Mapping[nn.Parameter, float]) -> None:
    """Scale the rate of each group, whose parameters share a factor, and not rate times decay."""
    for group in groups:
        factor = factors.get(group["params"][0], 1.0)
        if factor != 1:
            group["lr"] = factor * group["lr"]
            if "weight_decay" in group:
                group["weight_decay"] /= factor


def _fused(config: Mapping[str, Any], model: nn.Module) -> dict[str, bool]:
    """Return ``fused=True`` for an optimizer that has it, unless the config chooses for itself.

    torch's own default is a loop over the parameters on CPU, several times slower. Sharded
    parameters it fuses for Adam alone.
    """
    optimizer = OPTIMIZERS.get(config["type"])
    options = inspect.signature(optimizer).parameters
    is_default = "fused" in options and not IMPLEMENTATIONS & {*config}
    can_fuse = not is_sharded(model) or issubclass(optimizer, torch.optim.Adam)
    if issubclass(optimizer, torch.optim.SGD):  # which cannot begin to train what was frozen
        can_fuse = can_fuse and not getattr(getattr(model, "frozen", None), "until", None)
    return {"fused": True} if is_default and can_fuse else {}


class UnreadNorms:
    """The norms of gradients since the log was last written, which are still on their device.

    mmengine reads each of them at once, and so waits for the device in every iteration.

    Args:
        wrapper: whose gradients are clipped.
    """

    def __init__(self, wrapper: OptimWrapper) -> None:
        self._clip, self._wrapper = wrapper.clip_func, wrapper
        self._norms: deque[Tensor] = deque(maxlen=MOST_UNREAD)
        wrapper.clip_func = self

    def __call__(self, params: Any, **options: Any) -> None:
        """Clip gradients, and keep their norm, where there is one."""
        norm = self._clip(params, **options)
        if norm is not None:
            self._norms.append(torch.as_tensor(norm).detach().reshape(()))

    def note(self) -> None:
        """Pass them on to the log."""
        if not self._norms:
            return
        hub, name = self._wrapper.message_hub, f"train/{self._wrapper.grad_name}"
        for norm in torch.stack([norm.double() for norm in self._norms]).tolist():
            hub.update_scalar(name, norm)
        self._norms.clear()

    def forget(self) -> None:
        """Drop them, as the log goes on from a checkpoint."""
        self._norms.clear()


def unread_norms(wrapper: Any) -> UnreadNorms | None:
    """Return the norms that a wrapper keeps, None where it keeps none."""
    clip = getattr(wrapper, "clip_func", None)
    return clip if isinstance(clip, UnreadNorms) else None


def named_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return what an optimizer remembers of a model's parameters.

    By 'key:parameter', as ``exp_avg:head.weight``. The optimizer may have other parameters
    too, as a transferer's.

    torch has the like in :mod:`torch.distributed.checkpoint.state_dict`, but that takes a
    step with zero gradients where there is no state yet: a member that is not trained would
    hand on a state that counts a step, and loading one would run the optimizer and its hooks.
    """
    return {
        f"{key}:{name}": value
        for name, param in model.named_parameters()
        for key, value in optimizer.state.get(param, {}).items()
        if isinstance(value, Tensor)
    }


def load_named_state(model: nn.Module, optimizer: Optimizer, state: Mapping[str, Tensor]) -> None:
    """Let an optimizer go on from :func:`named_state`.

    Parameters without an entry start anew. Learning rates and other options stay the
    optimizer's own.
    """
    by_name: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        kind, _, name = key.partition(":")
        by_name.setdefault(name, {})[kind] = value
    names = {param: name for name, param in model.named_parameters()}
    params = [param for group in optimizer.param_groups for param in group["params"]]
    by_index = {
        index: share_entries(by_name[names[param]], param)
        for index, param in enumerate(params)
        if names.get(param) in by_name
    }
    # A fused SGD wants momentum for all of its parameters or for none: a projection of the
    # transferer, which is in no member, has none yet. Zeros give the same steps, dampening aside.
    if any("momentum_buffer" in own for own in by_index.values()):
        by_index = {
            index: by_index.get(index) or {"momentum_buffer": torch.zeros_like(param)}
            for index, param in enumerate(params)
        }
    optimizer.load_state_dict({**optimizer.state_dict(), "state": by_index})


@HOOKS.register_module(name="ComptGrownHook")
class GrownHook(Hook):
    """Gives a grown member its source's optimizer state, and new entries a rate of their own.

    The step of a new entry, weight decay included, is scaled: for optimizers that work entry
    by entry this is another learning rate.

    Args:
        state: file of the grown optimizer state; a checkpoint of the stage itself replaces it.
        new: file of the masks of new entries.
        ratio: their learning rate relative to the others'.
        warmup_iters: iterations over which that rises to ``ratio`` from 0.
    """

    def __init__(
        self,
        *,
        state: str | None = None,
        new: str | None = None,
        ratio: float = 1.0,
        warmup_iters: int = 0,
    ) -> None:
        self.state, self.new = state, new
        self.ratio, self.warmup_iters = ratio, warmup_iters
        self.current_ratio = ratio

    def before_train(self, runner: Runner) -> None:
        """Load the state, and hook into the optimizer's steps."""
        student = stage_model(runner).student
        optimizer = runner.optim_wrapper.optimizer
        if self.state is not None:
            load_named_state(student, optimizer, read_state(Path(self.state)))
        if self.new is not None:
            params = dict(student.named_parameters())
            masks = {
                params[name]: shared_like(mask.to(params[name].device), params[name])
                for name, mask in read_state(Path(self.new)).items()
                if mask.any()
            }
            scale_steps(optimizer, masks, lambda: self.current_ratio)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Set the rate of new entries, which follows from the iteration alone."""
        if self.warmup_iters:
            self.current_ratio = self.ratio * min(1.0, runner.iter / self.warmup_iters)


def scale_steps(
    optimizer: Optimizer,
    masks: Mapping[nn.Parameter, Tensor],
    ratio: float | Callable[[], float],
) -> None:
    """Scale every step that an optimizer takes with the entries of these masks.

    It is the change of the weights that is scaled, whatever the optimizer computes it from:
    momentum and moments are those of the unscaled gradients, as with another learning rate.

    Args:
        optimizer: steps entry by entry, as Adam and SGD do, fused or not.
        masks: True for the entries to scale, by parameter.
        ratio: what steps are multiplied by, or what returns it at each of them.
    """
    previous: dict[nn.Parameter, Tensor] = {}
    current = ratio if callable(ratio) else lambda: ratio

    def remember(*_: Any) -> None:
        if current() != 1:
            previous.update({param: param.detach().clone() for param in masks})

    def scale(*_: Any) -> None:
        with torch.no_grad():
            for param, value in previous.items():
                scaled = torch.lerp(value, param, current())
                param.copy_(torch.where(masks[param], scaled, param))
        previous.clear()

    optimizer.register_step_pre_hook(remember)
    optimizer.register_step_post_hook(scale)
