"""What every layout is held to."""

from __future__ import annotations

import copy
import re
from functools import partial
from typing import get_args

import torch
from torch import Tensor, nn

from compt.errors import ComptError
from compt.growth.axes import describe, evaluating, find_layout
from compt.growth.operators import tensors_of
from compt.growth.run import build_grower, grow, output_error
from compt.interfaces import Architecture, Layout, Outputs, Role
from compt.random_state import random_state
from compt.testing._shared import (
    Violation,
    changed,
    drawn_since,
    must_work,
    on_meta,
    randomised,
    require,
    require_signatures,
    seeded,
    snapshot,
    some,
    traces,
    without_gradient,
)
from compt.testing.growers import Grown, Watched, require_true_report

Pair = tuple[nn.Module, nn.Module]


class LayoutContract:
    """A layout describes every tensor, and the lossless grower keeps the function through it.

    Usage, in a plug-in's own tests::

        class TestMine(compt.testing.LayoutContract):
            def pair(self):
                return Net(16, 2), Net(24, 3)
    """

    def pair(self) -> Pair:
        """A small and a larger model of the class that the layout is for."""
        raise NotImplementedError("return a small and a larger model")

    def loss(self, module: nn.Module) -> Tensor:
        """A loss that depends on every parameter: of what the layout probes, unless it is
        overridden.
        """
        outputs = self._probed(module)
        noise = torch.Generator().manual_seed(1)
        targets = {
            n: torch.randn(o.shape, generator=noise, dtype=torch.float64).to(o)
            for n, o in outputs.items()
        }
        return torch.stack(
            [(output - targets[name]).square().sum() for name, output in outputs.items()]
        ).sum()

    # What is checked

    def test_methods_take_what_the_core_gives(self) -> None:
        """Signatures are those of the interface."""
        require_signatures(find_layout(self.pair()[0]), Layout)

    def test_describes_every_tensor(self) -> None:
        """Every parameter and buffer has axes, and their sizes make its shape."""
        for module in self.pair():
            arch = _described(module)
            for name, tensor in tensors_of(module).items():
                require(
                    name in arch.params
                    and torch.Size(arch.shape(arch.params[name])).numel() == tensor.numel(),
                    f"'{name}' {list(tensor.shape)} has no axes of its size.",
                    "Give it a pattern in the layout's patterns.",
                )

    def test_describes_on_meta(self) -> None:
        """The planner describes models without memory; the axes are the same there."""
        for module in self.pair():
            with must_work(
                "The layout cannot describe a model on the meta device, where plans do",
                "Take sizes() from shapes and the model's own config; read no values of tensors.",
            ):
                planned = describe(on_meta(module))
            require(
                planned == _described(module),
                "On the meta device the layout describes other axes.",
                "Let sizes() and same() depend on nothing but shapes and the model's own config.",
            )

    def test_describes_a_copy_alike(self) -> None:
        """A deep copy has the same axes: nothing hangs on the one object."""
        for module in self.pair():
            arch = _described(module)
            with must_work(
                "The layout cannot describe a deep copy of a model",
                "Keep nothing about single modules in the layout.",
            ):
                copied = describe(copy.deepcopy(module))
            require(
                copied == arch,
                "The layout describes a deep copy by other axes.",
                "Let sizes() and same() depend on nothing but the module's attributes.",
            )

    def test_axes_agree(self) -> None:
        """Both members have the same axes and stacks, which keep their size where they are fixed,
        or grow.
        """
        small, large = map(_described, self.pair())
        require(
            dict(small.roles) == dict(large.roles) and small.depths.keys() == large.depths.keys(),
            f"Two sizes of the class have different axes: {sorted(small.roles)} and {sorted(large.roles)}.",
            "Let patterns, roles and same() depend on the design alone, not on its sizes.",
        )
        for axis, role in large.roles.items():
            if axis not in small.sizes or axis not in large.sizes:
                continue
            sizes = small.sizes[axis], large.sizes[axis]
            require(
                sizes[0] == sizes[1] or (role != "fixed" and sizes[0] < sizes[1]),
                f"The axis '{axis}', whose role is '{role}', has {sizes[0]} units in the smaller model and {sizes[1]} "
                "in the larger.",
                f"Say in roles how '{axis}' may grow ('stream', 'hidden' or 'output'), or give pair() models that "
                "do not differ in it.",
            )

    def test_roles_are_known(self) -> None:
        """``roles`` speaks of axes that there are, with the words that growers know."""
        for layout in {type(layout): layout for layout in map(find_layout, self.pair())}.values():
            text = " ".join(
                [
                    *layout.patterns.values(),
                    *(v for m in self.pair() for v in layout.axis_aliases(m).values()),
                ]
            )
            axes = set(re.findall(r"[\w.{}]+", text))
            unknown = {
                axis for axis in layout.roles if axis not in axes and not _is_numbered(axis, axes)
            }
            require(
                not unknown,
                f"roles has {some(unknown)}, and no pattern has such an axis.",
                "Name in roles the axes that patterns or same() name.",
            )
            wrong = {
                axis: role for axis, role in layout.roles.items() if role not in get_args(Role)
            }
            require(not wrong, f"roles has no such role: {wrong}.", f"Roles are {get_args(Role)}.")

    def test_lossless_growth_keeps_the_function(self) -> None:
        """Random gains, biases and tokens in float64: the outputs stay equal, or the report says
        why not.
        """
        grown = self._grow("lossless")
        report = grown.report
        require(
            report.function_preserving or grown.claim.reason,
            f"The lossless grower should keep the function, and {report.reason}.",
            "Check patterns and sizes(): which axis is written, which is read, the order of folded axes, norms; "
            "probe() must run both models alike.",
        )
        require(
            report.error is not None,
            "The outputs of the two models cannot be compared.",
            "Write probe(), with at least one output that has the same shape at every width.",
        )
        require_true_report(grown)

    def test_leading_block_fills_the_corner(self) -> None:
        """The paper's grower finds a source tensor for every target tensor, and says so truly."""
        grown = self._grow("leading_block")
        require_true_report(grown)
        require(
            not grown.claim.dropped,
            f"Growing drops {some(grown.claim.dropped)} of the smaller model.",
            "Give the larger model's tensors the same names, or pair() models of one design.",
        )

    def test_everything_learns(self) -> None:
        """After growth and a few steps, every parameter of the larger model has had a gradient."""
        for grower in ("lossless", "leading_block"):
            target = self._grow(grower).target
            with evaluating(target):
                dead = without_gradient(target, partial(self.loss, target))
            require(
                not dead,
                f"After growing by {grower}, no gradient ever reaches {some(dead)}.",
                "Let probe() use every part of the module, or override loss(module) with the model's own loss.",
            )

    def test_probe_is_repeatable(self) -> None:
        """What is probed depends on the generator's seed, and on nothing else."""
        module = self._randomised()
        first, again, other = (_plain(self._probed(module, seed)) for seed in (3, 3, 4))
        different = changed(first, again)
        require(
            not different,
            f"With one seed of its generator probe() returns different {some(different)}.",
            "Draw the input of probe() from the generator that it is given.",
        )
        require(
            changed(first, other),
            "probe() returns the same for every seed of its generator.",
            "Draw a random input from the generator: constant input hides errors of growth.",
        )

    def test_probe_leaves_everything_alone(self) -> None:
        """Neither the module nor a global random state is changed by a probe."""
        module = self._randomised()
        for mode in (True, False):
            for part in module.modules():
                part.training = mode
            before, state, marks = snapshot(module), random_state(), traces(module)
            with torch.no_grad():
                find_layout(module).probe(module, torch.Generator().manual_seed(0))
            drawn = [] if mode else drawn_since(state)  # a model in training mode may have dropout
            require(
                not drawn,
                f"probe() draws from the global random state of {some(drawn)}.",
                "Draw the input from the generator that probe() is given.",
            )
            left = [what for what, was in marks.items() if traces(module)[what] != was]
            touched = [] if mode else changed(before, module)  # batch norms learn in training mode
            require(
                not touched and not left,
                f"probe() changes {some([*left, *touched])} of the module.",
                "Put everything back (try ... finally); the core sets eval mode and turns gradients off.",
            )

    def test_probe_compares_sizes(self) -> None:
        """Input depends on the generator and fixed sizes alone, and some output has one shape at
        every width.
        """
        draws, shapes = [], []
        for module in self.pair():
            generator = torch.Generator().manual_seed(5)
            outputs = self._probed(module.double(), generator=generator)
            draws.append(generator.get_state())
            shapes.append({name: output.shape for name, output in outputs.items()})
        require(
            torch.equal(*draws),
            "probe() draws more for a larger model.",
            "Let the input depend on fixed sizes alone (image size, vocabulary): both models must see the same.",
        )
        require(
            set(shapes[0].items()) & set(shapes[1].items()),
            f"No output of probe() has the same shape in both models: {shapes[0]} and {shapes[1]}.",
            "Return logits, or how alike features are (cosines), which no width changes.",
        )

    def test_probe_sees_the_weights(self) -> None:
        """Other weights give other outputs."""
        module = self._randomised()
        self._probed(module)
        other = randomised(copy.deepcopy(module), scale=0.1, seed=1)
        require(
            (output_error(module, other) or 0.0) > 1e-6,
            "Other weights do not change what probe() returns.",
            "Return outputs of the module itself on a random input.",
        )

    # How it is done

    def _randomised(self) -> nn.Module:
        """The smaller model in float64, with random gains, biases and tokens."""
        return randomised(self.pair()[0].double())

    def _probed(
        self, module: nn.Module, seed: int = 0, *, generator: torch.Generator | None = None
    ) -> Outputs:
        """What the layout probes in eval mode; a layout without a probe is a Violation."""
        with seeded(0), evaluating(module):
            found = find_layout(module).probe(
                module, generator or torch.Generator().manual_seed(seed)
            )
        if not found:
            raise Violation(
                "The layout cannot probe the module, so nothing tells whether growth keeps its function.",
                "Write probe(module, generator): run the module on small random input and return its outputs by name.",
            )
        return found

    def _grow(self, grower: str) -> Grown:
        """Grow the smaller model, with random weights in float64, into the larger."""
        source, target = (module.double() for module in self.pair())
        randomised(source)
        fresh, watched = snapshot(target), Watched(build_grower(grower))
        try:
            report = grow(source, target, watched)
        except ComptError as error:
            raise Violation(
                f"'{grower}' cannot grow the pair: {error.what} {error.where}".rstrip(),
                _advice(error),
            ) from error
        return Grown(source, target, fresh, watched.claims[-1], report, watched)


def _described(module: nn.Module) -> Architecture:
    """The module's architecture, with a Violation where the layout does not fit."""
    try:
        return describe(module)
    except ComptError as error:
        raise Violation(f"{error.what} {error.where}".rstrip(), _advice(error)) from error


def _advice(error: ComptError) -> str:
    return (
        error.do
        or "Check the layout's patterns, sizes() and roles; the notation is explained in compt.growth.patterns."
    )


def _is_numbered(axis: str, known: set[str]) -> bool:
    """Whether an axis is one that a pattern with ``{name}`` makes: 'embed_0' of 'embed_{stage}'."""
    return any(
        re.fullmatch(re.sub(r"\\\{\w+\\\}", r"\\d+", re.escape(k)), axis) for k in known if "{" in k
    )


def _plain(outputs: Outputs) -> dict[str, Tensor]:
    return {name: output.detach() for name, output in outputs.items()}
