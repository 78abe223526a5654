"""Shard a stage over several processes by torch's FSDP2, and see its sharded tensors as whole.

The stage's model is the root: all that a paradigm calls runs within its forward pass, where what
is in no block is gathered, so that a paradigm may call any method of a model, and a tied tensor is
one. Blocks gather their own weights when they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from mmengine.device import get_device
from mmengine.dist import all_reduce, get_world_size, is_main_process
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from compt.config.parallel import Sharded
from compt.errors import ConfigError
from compt.registry.loading import first_line
from compt.training.performance import blocks

if TYPE_CHECKING:
    from compt.training.stage import StageModel

SMALLEST_NORM = 1e-6
"""What torch adds to the norm of gradients before it divides by it."""
NO_BACKWARD = -1
"""What torch calls the backward pass where none runs."""
T = TypeVar("T")


class Held(nn.Module):
    """A sharded model with functions run on it, whatever methods of it they call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., T], *args: Any) -> T:
        """Return ``function(model, *args)``, while what is in no block of the model is gathered."""
        return function(self.model, *args)


def shard_stage(stage: StageModel, options: Sharded) -> StageModel:
    """Shard a stage's student and projection heads in place, and the teacher if that is wanted.

    Every process has to hold the same weights.

    Raises:
        ConfigError: the processes cannot be divided as the options say.
    """
    mesh, device = process_mesh(options), get_device()
    whole = kept_whole(stage)
    for param in whole:
        param.data = param.data.to(device)
        if param.requires_grad:
            param.register_post_accumulate_grad_hook(_average_gradient)
    policy = MixedPrecisionPolicy()
    if options.gather == "bf16":
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    shared: dict[str, Any] = {"mesh": mesh, "ignored_params": whole}
    with stage.layouts():
        for block in separate_blocks(stage.student):
            fully_shard(block, mp_policy=policy, reshard_after_forward=options.reshard, **shared)
            if options.reshard and stage.performance.mini_batch_size is not None:
                block.register_forward_hook(_free_recomputed)
        for teacher in stage.teachers():
            if options.teacher == "sharded":
                for block in separate_blocks(teacher):
                    fully_shard(block, mp_policy=policy, **shared)
                held = Held(teacher)
                fully_shard(held, reshard_after_forward=True, **shared)
                stage.hold(held)
    fully_shard(stage, **shared)
    stage.to(device)
    return stage


def process_mesh(options: Sharded) -> DeviceMesh:
    """Return the processes in one row, or one row for each copy of the weights.

    Raises:
        ConfigError: they are no multiple of the processes of a copy.
    """
    check_processes(options)
    world_size, device = get_world_size(), get_device()
    processes = options.processes or world_size
    if processes == world_size:
        return init_device_mesh(device, (world_size,))
    shape = (world_size // processes, processes)
    return init_device_mesh(device, shape, mesh_dim_names=("copies", "shards"))


def check_processes(options: Sharded) -> None:
    """Raise ConfigError unless all processes are a multiple of those of one copy."""
    world_size, processes = get_world_size(), options.processes
    if processes is not None and world_size % processes:
        raise ConfigError(
            f"{world_size} processes cannot be divided into copies of {processes}.",
            where="parallel.processes",
            do=f"Give a divisor of {world_size}, or leave it out.",
        )


def kept_whole(stage: StageModel) -> set[nn.Parameter]:
    """Return the parameters that every process keeps.

    Scalars cannot be sharded. What the processes bring together by a rule is each one's own.
    """
    ruled = {*stage.ruled_parameters()}
    return {param for param in stage.parameters() if param.ndim == 0 or param in ruled}


def separate_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the blocks that share no parameter with anything else, inner ones first.

    The others are gathered with the rest of the model, where a shared tensor is one.
    """
    own = blocks(model)
    users: dict[nn.Parameter, list[str]] = {}
    for name, param in model.named_parameters(remove_duplicate=False):
        users.setdefault(param, []).append(name)
    separate = []
    for path, block in own.items():
        is_own = (name.startswith(f"{path}.") for p in block.parameters() for name in users[p])
        if all(is_own):
            separate.append((path.count("."), block))
    return [block for _, block in sorted(separate, key=lambda entry: -entry[0])]


def _free_recomputed(block: nn.Module, *_: Any) -> None:
    """Free the weights of a block whose forward pass is repeated in the backward pass.

    torch leaves that to the block's own backward pass, as if blocks were repeated one by one. In a
    mini-batch all of them are, and would be gathered together.
    """
    if is_sharded(block) and torch._C._current_graph_task_id() != NO_BACKWARD:
        block.reshard()  # type: ignore[operator]


def _average_gradient(param: Tensor) -> None:
    """Give every process the mean of the gradients of a parameter that it keeps whole."""
    if param.grad is not None:
        all_reduce(param.grad, op="mean")


def forget_order(held: Held) -> None:
    """Drop the order in which a model's blocks ran, which torch keeps for a backward pass.

    A teacher has none, and the list would grow with every iteration.
    """
    reset = getattr(held, "reset_iter_state", None)  # not in torch 2.11
    if reset is not None:
        reset()


def is_sharded(module: nn.Module) -> bool:
    """Tell whether a module is sharded over processes."""
    return isinstance(module, FSDPModule)


def local(tensor: Tensor) -> Tensor:
    """Return this process's share of a tensor, all of it where it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shared_like(tensor: Tensor, like: Any) -> Tensor:
    """Return a whole tensor, the same in every process, sharded as one of the same shape is."""
    if not isinstance(like, DTensor) or like.shape != tensor.shape:
        return tensor
    moved = tensor.to(like.device)
    return distribute_tensor(moved, like.device_mesh, like.placements, src_data_rank=None)


def share_entries(tensors: Mapping[str, Any], like: Any) -> dict[str, Any]:
    """Return what an optimizer remembers of a parameter, sharded as that is."""
    return {
        name: shared_like(value, like) if isinstance(value, Tensor) else value
        for name, value in tensors.items()
    }


def tensors_alone(module: nn.Module, seen: dict[nn.Module, nn.Module] | None = None) -> nn.Module:
    """Return a module that has the tensors of another one by the same names, and no methods.

    It can be copied where torch refuses to copy what is sharded.
    """
    seen = {} if seen is None else seen
    if module in seen:
        return seen[module]
    alone = seen[module] = nn.Module()
    for name, param in module._parameters.items():
        alone.register_parameter(name, param)
    for name, buffer in module._buffers.items():
        is_kept = name not in module._non_persistent_buffers_set
        alone.register_buffer(name, buffer, persistent=is_kept)
    for name, child in module._modules.items():
        alone.add_module(name, None if child is None else tensors_alone(child, seen))
    return alone


def load_shared(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load whole tensors into a module, sharded as it is."""
    own = module.state_dict()
    module.load_state_dict({name: shared_like(t, own.get(name)) for name, t in state.items()})


@torch.no_grad()
def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return whole tensors on the CPU, in the first process, and none elsewhere.

    Every process has to call it, with the same names. One tensor under two names stays one.
    """
    whole: dict[int, Tensor] = {}
    for tensor in tensors.values():
        if id(tensor) not in whole:
            full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            whole[id(tensor)] = full.detach().cpu() if is_main_process() else full.new_empty(0)
    return {name: whole[id(t)] for name, t in tensors.items()} if is_main_process() else {}


@torch.no_grad()
def gather_into(target: nn.Module | None, module: nn.Module) -> None:
    """Fill a whole model in the first process from a sharded one, one tensor after the other.

    Every process has to call it; the others give no target, and hold one whole tensor at a time.
    """
    own = {} if target is None else target.state_dict(keep_vars=True)
    seen: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if target is not None:
            own[name].copy_(full)


def adapt(wrapper: OptimWrapper, params: Iterable[nn.Parameter]) -> None:
    """Let an optimizer step, and clip, sharded and whole parameters side by side.

    torch computes many parameters at once, and not where some are sharded and some are not.
    """
    if wrapper.clip_grad_kwargs:
        clip = clip_norm if wrapper.clip_func is nn.utils.clip_grad_norm_ else None
        wrapper.clip_func = clip or _each_kind(wrapper.clip_func)
    if any(not isinstance(param, DTensor) for param in params):
        _step_apart(wrapper.optimizer)


def try_step(options: Sharded, config: Mapping[str, Any]) -> None:
    """Take a step of an optimizer with one sharded weight and one whole one.

    Every process has to call it.

    Raises:
        ConfigError: it cannot step them.
    """
    model = nn.Linear(1, 1)
    model.scale = nn.Parameter(torch.tensor(1.0))
    fully_shard(model, mesh=process_mesh(options), ignored_params={model.scale})
    model.to(get_device())
    wrapper = build_optim_wrapper(model, config)
    adapt(wrapper, model.parameters())
    try:
        wrapper.update_params(model(torch.ones(1, 1, device=get_device())).sum() * model.scale)
    except Exception as error:  # torch and other libraries raise what they like
        raise ConfigError(
            f"{type(wrapper.optimizer).__name__} cannot step sharded weights: {first_line(error)}",
            do="Leave out what chooses how it computes (fused, foreach), or give another "
            "optimizer, or parallel=dict(type='ddp').",
        ) from error


def _kinds(params: Iterable[Tensor]) -> list[list[Tensor]]:
    """Return sharded and whole parameters in a list each, without an empty one."""
    every = list(params)
    sharded: list[Tensor] = [param for param in every if isinstance(param, DTensor)]
    whole = [param for param in every if not isinstance(param, DTensor)]
    return [params for params in (sharded, whole) if params]


def _each_kind(clip: Callable[..., Any]) -> Callable[..., None]:
    def run(params: Iterable[Tensor], **options: Any) -> None:
        for kind in _kinds(params):
            clip(kind, **options)

    return run


def clip_norm(
    params: Sequence[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Clip the norm of all gradients as :func:`torch.nn.utils.clip_grad_norm_`, and return it."""
    gradients = [[p.grad for p in kind if p.grad is not None] for kind in _kinds(params)]
    norms = [get_total_norm(kind, norm_type, foreach=foreach) for kind in gradients]
    whole = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
    total: Tensor = torch.linalg.vector_norm(torch.stack(whole), norm_type)
    if error_if_nonfinite and not torch.isfinite(total):
        raise RuntimeError(f"The norm of the gradients is {total.item()}.")
    factor = (max_norm / (total + SMALLEST_NORM)).clamp(max=1.0)
    for kind in gradients:
        for gradient in kind:
            local(gradient).mul_(factor)
    return total


def _step_apart(optimizer: Optimizer) -> None:
    """Split each group of parameters by kind while the optimizer steps.

    Outside of steps, in schedules and checkpoints, the groups are those of a run in one process.
    """
    own: list[dict[str, Any]] = []

    def split(*_: Any) -> None:
        own[:] = optimizer.param_groups
        optimizer.param_groups = [
            {**group, "params": kind} for group in own for kind in _kinds(group["params"])
        ]

    def join(*_: Any) -> None:
        optimizer.param_groups = own[:]

    optimizer.register_step_pre_hook(split)
    optimizer.register_step_post_hook(join)


def agreed(is_so: bool) -> bool:
    """Tell whether something is so in any process; every one of them has to ask."""
    flag = torch.tensor(int(is_so), device=get_device())
    all_reduce(flag, op="max")
    return bool(flag)


def any_sharded(tensors: Iterable[Any]) -> bool:
    """Tell whether one of these tensors is sharded."""
    return any(isinstance(tensor, DTensor) for tensor in tensors)
