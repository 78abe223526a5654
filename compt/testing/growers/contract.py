"""The contract of growers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from compt.errors import GrowthError
from compt.growth.axes import describe
from compt.growth.measure import output_error
from compt.growth.operators import tensors_of
from compt.interfaces import Grower, Objective
from compt.registry import GROWERS
from compt.testing._chains import by_name, require_results, toy_chain, trained
from compt.testing._contract import Contract, require_signatures
from compt.testing._shared import (
    Violation,
    changed,
    must_work,
    on_meta,
    randomised,
    require,
    skip,
    some,
)
from compt.testing.growers.learning import (
    require_distinct_units,
    require_learning,
    require_learning_blocks,
)
from compt.testing.growers.refusals import (
    require_alone,
    require_early_refusals,
    require_growth_errors,
    require_named,
    require_no_traces,
)
from compt.testing.growers.reports import (
    require_claim,
    require_complete_report,
    require_number_format,
    require_one_value,
    require_true_dropped,
    require_true_report,
)
from compt.testing.growers.samples import Pair, classification, toy_pairs
from compt.testing.growers.trial import Trial
from compt.testing.growers.watched import Grown
from compt.testing.toy import TiedNet, ToyNet


class GrowerContract(Contract):
    """Tests that a grower touches nothing but its target and reports everything it does.

    Usage, in a plug-in's own tests::

        class TestMine(compt.testing.GrowerContract):
            grower = dict(type="mine")
    """

    grower: ClassVar[Any]
    """Name, config or instance."""

    def pairs(self) -> list[Pair]:
        """Return the (source, target) pairs to grow, in float64.

        Override it for growers that need other sizes or modules.
        """
        return toy_pairs()

    def objective(self, target: nn.Module) -> Objective | None:
        """Return a function of a target's parameters that gives the loss of its next batch.

        Override it for modules that are no ToyNet.
        """
        return classification(target) if isinstance(target, ToyNet) else None

    def plugin_class(self) -> type:
        """Return the class of the grower."""
        return type(self._trial.build())

    def chain(self) -> dict[str, Any]:
        """Return the config of the chain to try the grower in.

        Override it for growers that cannot grow the toy's members.
        """
        return toy_chain()

    # What is checked

    def test_methods_take_what_the_core_gives(self) -> None:
        """Require the signatures of the interface."""
        require_signatures(self._trial.build(), Grower)

    def test_keeps_what_it_declares(self) -> None:
        """Require equal outputs where the grower claims them, and a reason elsewhere."""
        claims = []
        for grown in self._grown():
            error = output_error(grown.source, grown.target, seed=1)
            if error is None:
                raise Violation(
                    "The outputs of a pair of pairs() cannot be compared.",
                    "Write probe() in the layout of its modules.",
                )
            claims.append(grown.claim.function_preserving)
            require_claim(grown, error, torch.float64)
        require(
            any(claims) or not self._trial.build().function_preserving,
            "The class says function_preserving = True, and no pair of pairs() keeps its function.",
            "Set function_preserving = False in the class, or give pairs() one that the grower "
            "keeps.",
        )

    def test_works_in_float32(self) -> None:
        """Require grown values of the modules' number format, and claims that hold in it."""
        for source, target in self.pairs():
            with must_work(
                "float64 modules are grown, and float32 ones are not",
                "Compute in one number format and return Growth.tensors in the target's: "
                "value.to(tensor.dtype).",
            ):
                grown = self._trial.grow(source.float(), target.float())
            require_number_format(grown.claim.tensors, target)
            require_claim(grown, output_error(source, target, seed=1) or 0.0, torch.float32)

    def test_reports_every_tensor_once(self) -> None:
        """Require a report that names all tensors of the target and all that is left over."""
        for source, target in self.pairs():
            claim = self._trial.claim(source, copy.deepcopy(target))
            require_complete_report(claim, source, target)

    def test_report_is_true(self) -> None:
        """Require that the status of every tensor says what became of it."""
        for grown in self._grown():
            require_true_report(grown)

    def test_dropped_is_true(self) -> None:
        """Require that all parameters of the source matter but those reported as dropped."""
        require_true_dropped(self._trial, *self.pairs()[0])

    def test_leaves_the_modules_alone(self) -> None:
        """Require that ``grow`` changes neither module and leaves no gradients in them."""
        for grown in self._grown():
            touched = grown.watched.touched
            require(
                not touched,
                f"grow() changes {some(touched)}.",
                "Work on copies (tensor.clone()) and return the new values in Growth.tensors; take "
                "gradients with torch.autograd.grad, or of tensors of your own.",
            )

    def test_leaves_the_random_state_alone(self) -> None:
        """Require that all random numbers come from the generator that ``grow`` is given."""
        for grown in self._grown():
            require(
                not grown.watched.drawn,
                f"grow() draws from the global random state of {some(grown.watched.drawn)}.",
                "Draw on the CPU from the generator that grow() is given: "
                "torch.randn(shape, generator=generator).",
            )

    def test_same_seed_same_bytes(self) -> None:
        """Require that growing twice with one seed gives the same weights and report."""
        for source, target in self.pairs():
            targets = [copy.deepcopy(target) for _ in range(2)]
            first, second = (self._trial.grow(source, fresh, seed=3) for fresh in targets)
            different = changed(tensors_of(first.target), second.target)
            require(
                not different and first.claim.params == second.claim.params,
                "Growing twice with one seed gives different values of "
                f"{some(different) or 'Growth.params'}.",
                "Take all that is random from the generator that grow() is given, and keep nothing "
                "between two calls.",
            )

    def test_same_sizes_keep_every_bit(self) -> None:
        """Require that a target of the source's sizes becomes the source."""
        for source, _ in self.pairs():
            grown = self._trial.grow(source, randomised(copy.deepcopy(source), seed=5))
            # a grower such as scratch, which inherits nothing, has nothing to keep
            if set(grown.claim.params.values()) <= {"initialised", "shared"}:
                continue
            different = changed(tensors_of(source), grown.target)
            require(
                not different,
                "Source and target have the same sizes, and the grown weights differ at "
                f"{some(different)}.",
                "Return the source's tensors as they are where source_arch.sizes and depths equal "
                "target_arch's.",
            )

    def test_tied_parameters_stay_one(self) -> None:
        """Require one value of a tensor with two names, and a report that names both."""
        source, target = randomised(TiedNet(16, 2).double()), TiedNet(32, 3).double()
        with must_work(
            "A model whose head is tied to its embedding cannot be grown",
            "Grow a tied tensor once, under its first name: ParamAxes.tied_to is set on the "
            "others.",
        ):
            try:
                grown = self._trial.grow(source, target, refusable=True)
            except GrowthError as error:
                return require_named(error, source, target)
        require(
            target.head.weight is target.embed.weight,
            "After growing, the tied tensors of the target are two.",
            "Return values in Growth.tensors; do not assign parameters of the target.",
        )
        require_one_value(grown)
        require_true_report(grown)
        require_claim(grown, output_error(source, target, seed=1) or 0.0, torch.float64)

    def test_a_refusal_is_a_growth_error(self) -> None:
        """Require that pairs that do not fit are grown or refused with GrowthError, by name."""
        require_growth_errors(self._trial)

    def test_a_refusal_changes_nothing(self) -> None:
        """Require that a pair that is refused stays as it was."""
        require_no_traces(self._trial)

    def test_check_refuses_what_grow_refuses(self) -> None:
        """Require that ``check``, all that a plan calls, refuses what cannot be grown."""
        require_early_refusals(self._trial)

    def test_checks_on_meta(self) -> None:
        """Require that ``check`` works from architectures alone, as the planner calls it."""
        for source, target in self.pairs():
            small, large = (describe(on_meta(module)) for module in (source, target))
            with must_work(
                "check() refuses, from the architectures alone, a pair that is to be grown",
                "Read nothing but the two Architectures in check(); give pairs() what the grower "
                "can grow.",
            ):
                self._trial.build().check(small, large)

    def test_everything_learns(self) -> None:
        """Require that every parameter has a gradient within a few steps of growing."""
        for grown in self._grown():
            objective = self.objective(grown.target)
            if objective is None:
                skip("override objective(target) to see whether everything learns after growing")
            # elements of modules of the author's own may have none for reasons of theirs
            of_toy = isinstance(grown.target, ToyNet)
            require_learning(grown.target, objective, elements=of_toy)

    def test_new_blocks_learn(self) -> None:
        """Require the same of new blocks that end in a norm, a layer scale or a gate."""
        require_learning_blocks(self._trial)

    def test_copies_part_ways(self) -> None:
        """Require that no two units are alike in all that they read and write."""
        for grown in self._grown():
            require_distinct_units(grown)

    def test_asks_no_more_than_it_declares(self) -> None:
        """Require at most ``objective_calls`` calls, which plans and reports charge."""
        declared = self._trial.build().objective_calls
        require(
            isinstance(declared, int) and declared >= 0,
            f"objective_calls is {declared!r}.",
            "Set objective_calls, in the class or in __init__, to how often grow() calls its "
            "objective at most.",
        )
        for grown in self._grown():
            calls = grown.watched.calls
            require(
                calls <= declared,
                f"grow() calls its objective {calls} times, and the grower declares "
                f"objective_calls = {declared}.",
                f"Set objective_calls = {calls} (in the class, or in __init__): plans and reports "
                "charge it.",
            )

    def test_without_an_objective(self) -> None:
        """Require that the grower does without an objective or says that it needs one."""
        for source, target in self.pairs():
            require_alone(self._trial, source, target)

    def test_trains_a_chain(self, tmp_path: Path) -> None:
        """Grow and train a chain of three small members, in seconds."""
        do = "Mend what it says; override chain() if the grower is not for the toy's members."
        with by_name(GROWERS, self._trial.config()) as grower:
            config = {**self.chain(), "grower": grower}
            trained(config, tmp_path / "chain", do)
            require_results(config, tmp_path / "chain")

    # How it is done

    @property
    def _trial(self) -> Trial:
        return Trial(self.grower, self.objective)

    def _grown(self) -> Iterator[Grown]:
        """Yield each pair, grown."""
        for source, target in self.pairs():
            yield self._trial.grow(source, target)
