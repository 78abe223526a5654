"""The contract of layouts."""

from __future__ import annotations

import copy
from functools import partial

import torch
from torch import Tensor, nn

from compt.errors import ComptError
from compt.growth.axes import describe, evaluating, find_layout
from compt.growth.run import build_grower
from compt.interfaces import Layout
from compt.testing._contract import Contract, require_signatures
from compt.testing._shared import (
    Violation,
    must_work,
    on_meta,
    randomised,
    require,
    some,
    without_gradient,
)
from compt.testing.growers.reports import require_true_report
from compt.testing.growers.watched import Grown, Watched, grow_watched
from compt.testing.layouts.axes import (
    advice,
    described_by,
    require_every_tensor,
    require_growing_axes,
    require_known_roles,
)
from compt.testing.layouts.probes import (
    probed,
    require_comparable,
    require_no_traces,
    require_repeatable,
    require_sight,
)

Pair = tuple[nn.Module, nn.Module]
"""A small and a larger model."""


class LayoutContract(Contract):
    """Tests that a layout describes every tensor, well enough for growth to keep the function.

    Usage, in a plug-in's own tests::

        class TestMine(compt.testing.LayoutContract):
            def pair(self):
                return Net(16, 2), Net(24, 3)
    """

    def pair(self) -> Pair:
        """Return a small and a larger model of the class that the layout is for."""
        raise NotImplementedError("return a small and a larger model")

    def plugin_class(self) -> type:
        """Return the class of the layout."""
        return type(find_layout(self.pair()[0]))

    def loss(self, module: nn.Module) -> Tensor:
        """Return a loss, [], that depends on every parameter.

        By default it is the squared distance of what the layout probes from random targets.
        """
        outputs = probed(module, torch.Generator().manual_seed(0))
        noise = torch.Generator().manual_seed(1)
        distances = []
        for output in outputs.values():
            target = torch.randn(output.shape, generator=noise, dtype=torch.float64).to(output)
            distances.append((output - target).square().sum())
        return torch.stack(distances).sum()

    # What is checked

    def test_methods_take_what_the_core_gives(self) -> None:
        """Require the signatures of the interface."""
        require_signatures(find_layout(self.pair()[0]), Layout)

    def test_describes_every_tensor(self) -> None:
        """Require axes of every parameter and buffer, whose sizes make its shape."""
        for module in self.pair():
            require_every_tensor(module)

    def test_describes_on_meta(self) -> None:
        """Require the same axes on the meta device, where the planner describes models."""
        for module in self.pair():
            with must_work(
                "The layout cannot describe a model on the meta device, where plans do",
                "Take sizes() from shapes and the model's own config; read no values of tensors.",
            ):
                planned = describe(on_meta(module))
            require(
                planned == described_by(module),
                "On the meta device the layout describes other axes.",
                "Let sizes() and axis_aliases() depend on nothing but shapes and the model's own "
                "config.",
            )

    def test_describes_a_copy_alike(self) -> None:
        """Require the same axes of a deep copy, so that nothing hangs on the one object."""
        for module in self.pair():
            arch = described_by(module)
            with must_work(
                "The layout cannot describe a deep copy of a model",
                "Keep nothing about single modules in the layout.",
            ):
                copied = describe(copy.deepcopy(module))
            require(
                copied == arch,
                "The layout describes a deep copy by other axes.",
                "Let sizes() and axis_aliases() depend on nothing but the module's attributes.",
            )

    def test_axes_agree(self) -> None:
        """Require the same axes and stacks of both members, of sizes that roles allow."""
        small, large = map(described_by, self.pair())
        require_growing_axes(small, large)

    def test_roles_are_known(self) -> None:
        """Require ``roles`` of axes that there are, with the words that growers know."""
        layouts = {type(layout): layout for layout in map(find_layout, self.pair())}
        for layout in layouts.values():
            require_known_roles(layout, self.pair())

    def test_lossless_growth_keeps_the_function(self) -> None:
        """Require equal outputs of random weights in float64, or a reason in the report."""
        grown = self._grow("lossless")
        report = grown.report
        require(
            report.function_preserving or grown.claim.reason,
            f"The lossless grower should keep the function, and {report.reason}.",
            "Check patterns and sizes(): which axis is written, which is read, the order of folded "
            "axes, norms; probe() must run both models alike.",
        )
        require(
            report.error is not None,
            "The outputs of the two models cannot be compared.",
            "Write probe(), with at least one output that has the same shape at every width.",
        )
        require_true_report(grown)

    def test_leading_block_fills_the_corner(self) -> None:
        """Require that the paper's grower finds a source tensor for every target tensor."""
        grown = self._grow("leading_block")
        require_true_report(grown)
        require(
            not grown.claim.dropped,
            f"Growing drops {some(grown.claim.dropped)} of the smaller model.",
            "Give the larger model's tensors the same names, or pair() models of one design.",
        )

    def test_everything_learns(self) -> None:
        """Require that every parameter has a gradient within a few steps of growing."""
        for grower in ("lossless", "leading_block", "clone"):
            target = self._grow(grower).target
            with evaluating(target):
                dead = without_gradient(target, partial(self.loss, target))
            require(
                not dead,
                f"After growing by {grower}, no gradient reaches {some(dead)} in 20 steps.",
                "Let probe() use every part of the module, or override loss(module) with the "
                "model's own loss. In new blocks name in the pattern of a weight the norm, factor "
                "or gate behind it ('embed <- mlp * ls.gamma'), so that one alone is zeroed; "
                "until then grow with blocks='copy' (clone, stack).",
            )

    def test_probe_is_repeatable(self) -> None:
        """Require a probe that depends on the generator's seed, and on nothing else."""
        require_repeatable(self._randomised())

    def test_probe_leaves_everything_alone(self) -> None:
        """Require that a probe changes neither the module nor a global random state."""
        module = self._randomised()
        for training in (True, False):
            require_no_traces(module, training=training)

    def test_probe_compares_sizes(self) -> None:
        """Require input that no width changes, and an output of one shape at every width."""
        require_comparable(self.pair())

    def test_probe_sees_the_weights(self) -> None:
        """Require other outputs of other weights."""
        require_sight(self._randomised())

    # How it is done

    def _randomised(self) -> nn.Module:
        """Return the smaller model in float64, with random gains, biases and tokens."""
        return randomised(self.pair()[0].double())

    def _grow(self, grower: str) -> Grown:
        """Grow the smaller model, with random weights in float64, into the larger."""
        source, target = (module.double() for module in self.pair())
        randomised(source)
        try:
            return grow_watched(Watched(build_grower(grower)), source, target)
        except ComptError as error:
            reason = f"{error.what} {error.where}".rstrip()
            raise Violation(f"'{grower}' cannot grow the pair: {reason}", advice(error)) from error
