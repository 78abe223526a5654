"""Try the parts that mmengine builds of a stage's config, on a model of one weight."""

from __future__ import annotations

import copy
import inspect
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.optim import (
    AmpOptimWrapper,
    ApexOptimWrapper,
    OptimWrapper,
    OptimWrapperDict,
    build_optim_wrapper,
)
from mmengine.registry import (
    HOOKS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    Registry,
)
from mmengine.runner.priority import get_priority
from torch import nn

from compt.config.faults import Faults
from compt.errors import ComptError, ConfigError, did_you_mean
from compt.planning.plans import ChainPlan
from compt.registry.arguments import annotated, shown
from compt.registry.values import ValueOptions, alternatives, names_a_type, problem_of

BYTES_A_WEIGHT = 4
PARAMWISE = frozenset(
    (
        "custom_keys",
        "bias_lr_mult",
        "bias_decay_mult",
        "norm_decay_mult",
        "flat_decay_mult",
        "dwconv_decay_mult",
        "dcn_offset_lr_mult",
        "bypass_duplicate",
    )
)
"""What mmengine's default constructor reads of ``paramwise_cfg``; it passes over all else."""
FACTORS = frozenset(("lr_mult", "decay_mult"))
CONSTRUCTORS = ("DefaultOptimWrapperConstructor", "ComptOptimWrapperConstructor")
NUMBERS = frozenset((bool, int, float, type(None)))


@contextmanager
def noting(faults: Faults, where: str) -> Iterator[None]:
    """Add whatever is raised to the faults, once."""
    try:
        yield
    except ComptError as error:
        faults.add(f"{where}: {error.one_line}")
    except Exception as error:  # a constructor raises what it likes
        first_line = (str(error).splitlines() or [""])[0]
        faults.add(f"{where}: {type(error).__name__}: {first_line}")


def check_scope(scope: str, registries: Sequence[Registry]) -> None:
    """Raise ConfigError for a scope that mmengine would pass over, as it takes any name."""
    known = {"mmengine", *(child for registry in registries for child in registry.children)}
    package = MODULE2PACKAGE.get(scope, scope)
    if scope not in known and find_spec(scope) is None:
        raise ConfigError(
            f"No package '{scope}' is installed.{did_you_mean(scope, MODULE2PACKAGE)}",
            do=f"pip install {package}, or leave default_scope out.",
        )


def check_part(registry: Registry, cfg: Any, *, unbuilt: bool = False) -> None:
    """Raise ConfigError where mmengine has no such part, or a number of it is none.

    Other arguments are its constructor's to judge, or, where it is not built before training, at
    least its signature's.
    """
    if not isinstance(cfg, Mapping) or not names_a_type(cfg.get("type")):
        raise ConfigError(f"{shown(cfg)} is not a dict(type=..., ...).")
    kind = cfg["type"]
    part = registry.get(kind) if isinstance(kind, str) else kind
    if part is None:
        near = did_you_mean(kind, registry.module_dict)
        raise ConfigError(f"mmengine has no {registry.name} '{kind}'.{near}")
    if not (inspect.isclass(part) or inspect.isfunction(part)):
        return
    arguments = {name: value for name, value in cfg.items() if name != "type"}
    if unbuilt:
        taken = inspect.signature(part).parameters
        takes_any = any(param.kind is param.VAR_KEYWORD for param in taken.values())
        if unknown := [] if takes_any else sorted(arguments.keys() - taken):
            near = did_you_mean(unknown[0], taken)
            raise ConfigError(f"'{kind}' takes no argument '{unknown[0]}'.{near}")
    for name, annotation, value in annotated(part, arguments):
        if problem := _number_problem(value, annotation):
            raise ConfigError(f"{name}: {shown(value)} {problem}")


def _number_problem(value: Any, annotation: Any) -> str:
    """Say what is wrong with a value where a library asks for nothing but a number or a flag."""
    kinds = set(alternatives(annotation))
    is_flag = bool in kinds and value in (0, 1)
    if not kinds <= NUMBERS or is_flag:
        return ""
    return problem_of(value, annotation, ValueOptions())


def check_hook(cfg: Any) -> None:
    """Build a hook, and look up where it stands among the others."""
    if not isinstance(cfg, Hook):
        check_part(HOOKS, cfg)
        arguments = {name: value for name, value in cfg.items() if name != "priority"}
        priority = cfg.get("priority", HOOKS.build(arguments).priority)
        get_priority(priority)


def check_optimizer(config: Mapping[str, Any]) -> None:
    """Take two steps of an optimizer.

    Raises:
        ConfigError: a part does not exist, or a step leaves no finite weight.
    """
    check_part(OPTIM_WRAPPERS, config)
    check_part(OPTIMIZERS, config["optimizer"])
    kind = config["type"]
    wrapper_class = OPTIM_WRAPPERS.get(kind) if isinstance(kind, str) else kind
    needs_gpu = issubclass(wrapper_class, AmpOptimWrapper) and not torch.cuda.is_available()
    if needs_gpu or issubclass(wrapper_class, ApexOptimWrapper):
        reason = "needs a GPU" if needs_gpu else "changes the model that a stage has to save"
        do = "Give precision='bf16', or AmpOptimWrapper where there is a GPU."
        raise ConfigError(f"{wrapper_class.__name__} {reason}.", do=do)
    if config.get("constructor", CONSTRUCTORS[0]) in CONSTRUCTORS:
        _check_paramwise(config.get("paramwise_cfg") or {})
    model = nn.Linear(1, 1).to(get_device())
    wrapper = build_optim_wrapper(model, config)
    if isinstance(wrapper, OptimWrapperDict) or not isinstance(wrapper, OptimWrapper):
        raise ConfigError(
            f"The constructor makes a {type(wrapper).__name__}, and a stage has one optimizer.",
            do="Give the parts other rates with optim_wrapper.paramwise_cfg.",
        )
    for _ in range(2):
        wrapper.backward(model(torch.ones(1, 1, device=get_device())).sum())
        wrapper.step()
        wrapper.zero_grad()
    if not all(math.isfinite(param.item()) for param in model.parameters()):
        raise ConfigError("After two steps of the optimizer a weight is not finite.")


def check_entrywise(config: Mapping[str, Any]) -> None:
    """Raise ConfigError unless single entries can have learning rates of their own."""
    if not _steps_by_entry(config):
        raise ConfigError(
            f"grown.new_lr_mult and grown.new_warmup scale the steps of single entries, and "
            f"{config['optimizer']['type']} does not step entry by entry.",
            do="Leave them out, or take an optimizer that does, such as AdamW or SGD.",
        )


def _steps_by_entry(config: Mapping[str, Any]) -> bool:
    """Try whether an optimizer's step of one entry depends on that one's gradient alone.

    It is not so for Adafactor and Muon.
    """
    model = nn.Linear(4, 4, bias=False).to(get_device())
    stepped = []
    for gradient in (1.0, 3.0):
        copied = copy.deepcopy(model)
        optimizer = build_optim_wrapper(copied, config).optimizer
        for _ in range(2):
            copied.weight.grad = torch.ones_like(copied.weight)
            copied.weight.grad[0, 0] = gradient
            optimizer.step()
        stepped.append(copied.weight.detach().flatten()[1:])
    return torch.equal(*stepped)


def check_rates_by_width(config: Mapping[str, Any]) -> None:
    """Raise ConfigError for an optimizer to which the rule of Adam does not apply.

    Its steps must not grow with the gradient, as SGD's do, and what its weight decay takes off
    must be a share of the weight.
    """
    weight = torch.linspace(0.1, 1.6, 16).view(4, 4)
    gradient = torch.linspace(1.0, 2.0, 16).view(4, 4)
    step, same = (_change(config, weight, factor * gradient) for factor in (1.0, 1024.0))
    name = config["optimizer"]["type"]
    do = "Leave out rates_by_width, or take AdamW."
    if not torch.allclose(step, same, rtol=0.01, atol=1e-7):
        raise ConfigError(
            "rates_by_width needs an optimizer whose steps do not grow with the gradient, as "
            f"AdamW's; those of {name} do.",
            do=do,
        )
    if not _steps_by_entry(config):
        raise ConfigError(
            "rates_by_width needs an optimizer that steps entry by entry, as AdamW does; "
            f"{name} does not.",
            do=do,
        )
    decay, twice = (_change(config, factor * weight, 0 * gradient) for factor in (1.0, 2.0))
    if not torch.allclose(2 * decay, twice, rtol=0.01, atol=1e-7):
        raise ConfigError(
            f"rates_by_width keeps what weight decay takes off a weight, and {name} adds decay to "
            "the gradient, whose size its steps do not tell.",
            do="Take AdamW, or weight_decay=0.0.",
        )


def _change(config: Mapping[str, Any], weight: torch.Tensor, gradient: torch.Tensor) -> Any:
    """Return what an optimizer's first step adds to a matrix [4, 4]."""
    model = nn.Linear(4, 4, bias=False).to(get_device())
    optimizer = build_optim_wrapper(model, config).optimizer
    with torch.no_grad():
        model.weight.copy_(weight)
    model.weight.grad = gradient.to(model.weight)
    optimizer.step()
    return model.weight.detach().cpu() - weight


def _check_paramwise(paramwise: Mapping[str, Any]) -> None:
    """Raise ConfigError for an entry that mmengine's constructor passes over."""
    places = [("paramwise_cfg", paramwise, PARAMWISE)]
    for name, factors in (paramwise.get("custom_keys") or {}).items():
        places.append((f"paramwise_cfg.custom_keys[{name!r}]", factors, FACTORS))
    for place, content, known in places:
        for entry in content.keys() - known:
            near = did_you_mean(entry, known)
            raise ConfigError(f"{place} has no entry '{entry}' to mmengine.{near}")


def check_memory(plan: ChainPlan, faults: Faults) -> None:
    """Note members whose weights alone are larger than the memory of this machine."""
    if not hasattr(os, "sysconf"):
        return
    room = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for stage in plan.stages:
        need = BYTES_A_WEIGHT * stage.params
        if need > room:
            faults.add(
                f"chain.{stage.index}.model: its {stage.params:,} weights take "
                f"{need / 1e9:,.0f} GB, and this machine has {room / 1e9:,.0f} GB of memory."
            )
