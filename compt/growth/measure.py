"""Measure how far apart the outputs of two models are, in full precision.

A model is run by the probe of its layout or, where that has none, on a guessed input.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compt.growth.axes import evaluating, find_layout
from compt.interfaces import Outputs
from compt.interfaces.plugin import accepted

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest relative error of outputs that rounding explains, by the number format of the weights."""

WIDE = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex64: torch.complex128,
}
"""The number format that takes another's place in full precision."""

IMAGE_SIZES = (32, 16, 64, 8, 224)
"""Edges of the images that are tried on a model whose layout cannot run it."""

MAX_LAYERS_TRIED = 4
"""How many of a model's layers may be taken for its first."""

Run = Callable[[nn.Module], Outputs | None]
"""Runs a module on an input that does not depend on it, None where it cannot."""


def output_error(
    source: nn.Module,
    target: nn.Module,
    seed: int = 0,
    *,
    common: Mapping[str, int] | None = None,
) -> float | None:
    """Measure the largest difference of two modules' outputs on one random input.

    Both compute in float64 and eval mode, whatever number formats they have or cast to,
    unless an operation of theirs does not know float64. The difference is relative to
    the largest entry of the source's output. None where no output of the two has the
    same shape.

    ``common`` are sizes that both have at least, for probes that take it: of a vocabulary
    that has grown, what both know is compared.
    """
    for run in _runs(source, target, seed, common):
        expected, actual = _outputs(run, (source, target))
        error = _largest_error(expected, actual)
        if error is not None:
            return error
    return None


def rounding_error(
    source: nn.Module,
    target: nn.Module,
    dtype: torch.dtype,
    seed: int = 0,
    *,
    common: Mapping[str, int] | None = None,
) -> float | None:
    """Measure how far the source's outputs move where its weights are rounded to a format.

    It is measured where :func:`output_error` measures. 0 means that the outputs do not
    depend on the weights, as those of a last layer of zeros, so that they tell nothing.
    None where the source cannot compute in full precision.
    """
    for run in _runs(source, target, seed, common):
        expected = _in_full_precision(run, (source,))
        rounded = _in_full_precision(run, (source,), rounded_to=dtype)
        if expected is None or rounded is None:
            return None
        error = _largest_error(expected[0], rounded[0])
        if error is not None:
            return error
    return None


def _largest_error(expected: Outputs | None, actual: Outputs | None) -> float | None:
    """Return the largest relative error of the outputs that have one shape, None without any."""
    errors = [
        _relative_error(output, actual[name])
        for name, output in (expected or {}).items()
        if actual and name in actual and output.shape == actual[name].shape
    ]
    # Not max(), which passes over an error that is no number.
    return torch.tensor(errors, dtype=torch.float64).max().item() if errors else None


def _relative_error(expected: Tensor, actual: Tensor) -> float:
    largest = expected.abs().max().clamp_min(1e-30)  # an output may be all zeros
    return ((expected - actual).abs().max() / largest).item()


# How modules are run


@torch.no_grad()
def _outputs(run: Run, modules: Sequence[nn.Module]) -> list[Outputs | None]:
    """Return the outputs of modules in eval mode, in full precision if they can compute in it."""
    wide = _in_full_precision(run, modules)
    return [_undisturbed(run, module) for module in modules] if wide is None else wide


@torch.no_grad()
def _in_full_precision(
    run: Run, modules: Sequence[nn.Module], *, rounded_to: torch.dtype | None = None
) -> list[Outputs | None] | None:
    """Return the outputs of modules in float64, None where one of them cannot compute in it."""
    try:
        with _full_precision(rounded_to):
            return [_undisturbed(run, module) for module in modules]
    except Exception:  # an operation without float64, as scripts and extensions have
        return None


def _undisturbed(run: Run, module: nn.Module) -> Outputs | None:
    # Forked, as a model's forward may draw from the global state (masks do).
    with torch.random.fork_rng(devices=[]), evaluating(module):
        return run(module)


def _runs(
    source: nn.Module, target: nn.Module, seed: int, common: Mapping[str, int] | None
) -> Iterator[Run]:
    """Yield ways to run both modules, at first the probe of their layouts."""

    def probe(module: nn.Module) -> Outputs | None:
        method = find_layout(module).probe
        generator = torch.Generator().manual_seed(seed)
        return method(module, generator, **accepted(method, common=common or {}))

    yield probe
    if not (_takes_one_tensor(source) and _takes_one_tensor(target)):
        return
    for inputs in _guessed_inputs(source, torch.Generator().manual_seed(seed)):
        run = _run_on(inputs)
        if _works(run, source) and _works(run, target):
            yield run
            return  # outputs that have other shapes here have them everywhere


def _takes_one_tensor(module: nn.Module) -> bool:
    """Return whether a module's forward needs no argument but its first."""
    first, *others = [*inspect.signature(module.forward).parameters.values(), None]
    if first is None or first.kind not in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD):
        return False
    optional = (first.VAR_POSITIONAL, first.VAR_KEYWORD)
    return all(
        param is None or param.default is not param.empty or param.kind in optional
        for param in others
    )


def _guessed_inputs(module: nn.Module, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield random inputs of the shapes that a module's first layers take, in float64."""
    layers = [layer for layer in module.modules() if isinstance(layer, FIRST_LAYERS)]
    for layer in layers[:MAX_LAYERS_TRIED]:
        if isinstance(layer, nn.Embedding):
            yield torch.randint(layer.num_embeddings, (2, 8), generator=generator)
            continue
        for shape in _input_shapes(layer):
            yield torch.randn(shape, generator=generator, dtype=torch.float64)


FIRST_LAYERS = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose input can be guessed."""


def _input_shapes(layer: nn.Module) -> list[tuple[int, ...]]:
    """Return the shapes that an input of a linear layer or convolution may have."""
    if isinstance(layer, nn.Linear):
        return [(4, layer.in_features), (2, 6, layer.in_features)]
    assert isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    num_dims = len(layer.kernel_size)
    return [(2, layer.in_channels, *[size] * num_dims) for size in IMAGE_SIZES]


def _run_on(inputs: Tensor) -> Run:
    def run(module: nn.Module) -> Outputs | None:
        like = next(module.parameters())
        if not inputs.is_floating_point():
            return dict(_named("output", module(inputs.to(like.device))))
        return dict(_named("output", module(inputs.to(like))))

    return run


def _works(run: Run, module: nn.Module) -> bool:
    try:
        return all(_outputs(run, (module,)))
    except Exception:  # whatever a model says to an input that is not meant for it
        return False


def _named(name: str, outputs: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield every floating-point tensor in a model's output, by where it is."""
    if isinstance(outputs, Tensor):
        if outputs.is_floating_point() and outputs.numel():
            yield name, outputs
    elif isinstance(outputs, Mapping):
        for key, value in outputs.items():
            yield from _named(f"{name}.{key}", value)
    elif isinstance(outputs, (tuple, list)):
        for index, value in enumerate(outputs):
            yield from _named(f"{name}.{index}", value)


# Full precision


@contextmanager
def _full_precision(rounded_to: torch.dtype | None = None) -> Iterator[None]:
    """Compute in float64 within, as :class:`_FullPrecision` does, whatever the default is."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _FullPrecision(rounded_to):
            yield
    finally:
        torch.set_default_dtype(default)


class _FullPrecision(TorchFunctionMode):
    """Widen every tensor as it is used, and every number format that is asked for.

    So no copy of a model is made, and casts within outside models (norms and softmax in
    float32) round nothing.

    Args:
        rounded_to: a number format to whose precision parameters are rounded, at
            random, None for none.
    """

    def __init__(self, rounded_to: torch.dtype | None) -> None:
        super().__init__()
        self.epsilon = 0.0 if rounded_to is None else torch.finfo(rounded_to).eps
        self.generator = torch.Generator().manual_seed(0)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a function of torch with its arguments in full precision."""
        if func == DTYPE_OF:
            return WIDE.get(args[0].dtype, args[0].dtype)
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__", "__delete__"):
            return func(*args, **(kwargs or {}))
        if func in NARROWING:
            func = Tensor.double
        # What is written in place has to stay the tensor that it is.
        in_place = name in IN_PLACE or (name.endswith("_") and not name.startswith("__"))
        num_written = int(in_place)
        wide = [*args[:num_written], *map(self._widened, args[num_written:])]
        options = {
            key: value if key == "out" else self._widened(value)
            for key, value in (kwargs or {}).items()
        }
        return func(*wide, **options)

    def _widened(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._widened_tensor(value)
        if isinstance(value, torch.dtype):
            return WIDE.get(value, value)
        if type(value) in (tuple, list):
            return type(value)(map(self._widened, value))
        return value

    def _widened_tensor(self, tensor: Tensor) -> Tensor:
        wide = tensor.to(WIDE.get(tensor.dtype, tensor.dtype))
        if not self.epsilon or not isinstance(tensor, nn.Parameter) or not wide.is_floating_point():
            return wide
        draw = torch.rand(wide.shape, generator=self.generator, dtype=torch.float64)
        # In place, as the draw is as large as the tensor and may be the largest of all.
        return draw.to(wide.device).sub_(0.5).mul_(self.epsilon).add_(1).mul_(wide)


DTYPE_OF = Tensor.dtype.__get__  # type: ignore[attr-defined]
"""Reads ``tensor.dtype``."""

IN_PLACE = frozenset(
    {"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__", "__imatmul__"}
)
"""Operators that write their first argument; other functions that do end in '_'."""

NARROWING = (Tensor.float, Tensor.half, Tensor.bfloat16)
"""Casts that lose precision."""
