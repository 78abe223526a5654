"""The contract of growers, which passes good ones and catches broken ones."""

from __future__ import annotations

import os
import random
from dataclasses import replace

import pytest
import torch

from compt.errors import GrowthError
from compt.growers.leading_block import LeadingBlock
from compt.growth.operators import AxisGrower, check_growable
from compt.interfaces import Grower
from compt.testing import GrowerContract
from compt.testing.contracts import randomised
from compt.testing.toy import TiedNet, ToyNet
from tests.testing.broken import (
    Case,
    blamed_alone,
    check,
    check_complete,
    check_good,
    check_others,
    outcome,
)


class Good(AxisGrower):
    """A grower that puts the source into the leading corner, from which broken ones derive."""

    def expand(self, source, target, pair):
        target[pair.corner] = source
        return target


class Small(GrowerContract):
    """Two pairs, to be quick."""

    def pairs(self):
        return [
            (randomised(ToyNet(8, 1).double()), ToyNet(16, 3).double()),
            (randomised(ToyNet(8, 1, rms=True).double()), ToyNet(12, 1, rms=True).double()),
        ]


def same(small, large):
    """Return whether two architectures are of one size."""
    return small.sizes == large.sizes and small.depths == large.depths


def learn(target, values, objective, steps):
    """Learn a few steps from grown values, without the further names of tied tensors."""
    learned = {name: value.clone().requires_grad_() for name, value in values.items()}
    optimizer = torch.optim.AdamW(learned.values(), lr=1e-2)
    for _ in range(steps):
        for value, gradient in zip(
            learned.values(), torch.autograd.grad(objective(learned), list(learned.values()))
        ):
            value.grad = gradient
        optimizer.step()
    return {name: value.detach() for name, value in learned.items()}


class Learner(Good):
    """Learns a little, from an objective alone, and copies where there is nothing to grow."""

    objective_calls = 3
    steps = 3

    def grow(self, source, target, *, source_arch, target_arch, generator, objective=None):
        growth = super().grow(
            source,
            target,
            source_arch=source_arch,
            target_arch=target_arch,
            generator=generator,
            objective=objective,
        )
        if objective is None:
            raise GrowthError("A learner needs an objective.", do="Train it in a chain.")
        if same(source_arch, target_arch):
            return growth
        statuses = {
            name: "expanded" if name in growth.tensors else s for name, s in growth.params.items()
        }
        return replace(
            growth, tensors=learn(target, growth.tensors, objective, self.steps), params=statuses
        )


@pytest.mark.parametrize("grower", [Good, Learner, LeadingBlock], ids=lambda g: g.__name__)
def test_good_growers_pass(grower, tmp_path):
    check_good(type("GoodContract", (Small,), {"grower": dict(type=grower)}), tmp_path)


def test_instances_are_tried_in_a_chain_by_their_class(tmp_path):
    class Instance(Small):
        grower = LeadingBlock(fused="whole")

    assert outcome(Instance, "test_trains_a_chain", tmp_path) is None


def test_instances_that_need_arguments_are_not(tmp_path):
    class Needy(Good):
        def __init__(self, size):
            self.size = size

    contract = type("Instance", (Small,), {"grower": Needy(3)})()
    with pytest.raises(pytest.skip.Exception, match="needs the argument 'size'"):
        contract.test_trains_a_chain(tmp_path / "chain")


def test_modules_of_their_own_need_an_objective_if_the_grower_learns(tmp_path, monkeypatch):
    class Other(Small):
        grower = dict(type=Learner)

        def objective(self, target):
            return None

    error = outcome(Other, "test_keeps_what_it_declares", tmp_path)
    assert isinstance(error, AssertionError) and "Override objective(target)" in str(error)


def test_a_pair_that_the_grower_refuses_is_named(tmp_path):
    class Shrinking(Small):
        grower = dict(type=Good)

        def pairs(self):
            return [(ToyNet(16, 1).double(), ToyNet(8, 1).double())]

    error = outcome(Shrinking, "test_keeps_what_it_declares", tmp_path)
    assert (
        isinstance(error, AssertionError)
        and "'embed': 16" in str(error)
        and "Order the chain" in str(error)
    )


# Broken growers


def after(change):
    """Make a Good whose growth is changed.

    It is change(growth, source, target, source_arch, target_arch, generator).
    """

    class Changed(Good):
        def grow(self, source, target, *, source_arch, target_arch, generator, objective=None):
            growth = super().grow(
                source,
                target,
                source_arch=source_arch,
                target_arch=target_arch,
                generator=generator,
            )
            return change(growth, source, target, source_arch, target_arch, generator)

    return Changed


class NoObjective(Good):
    def grow(self, source, target, *, source_arch, target_arch, generator):
        return super().grow(
            source, target, source_arch=source_arch, target_arch=target_arch, generator=generator
        )


def preserving(growth, *_):
    return replace(growth, function_preserving=True, reason="")


def without_reason(growth, *_):
    return replace(growth, reason="") if not growth.function_preserving else growth


class AimsHigh(Good):
    function_preserving = True

    def why_not_preserving(self, source, target):
        return ["it is not true"]


def in_double(growth, *_):
    return replace(growth, tensors={name: value.double() for name, value in growth.tensors.items()})


def only_double(growth, source, *_):
    torch.eye(8, dtype=torch.float64) @ source.embed.weight[:8, :8]
    return growth


def lossy_in_float32(growth, source, *_):
    single = source.head.weight.dtype == torch.float32
    return replace(growth, function_preserving=True, reason="") if single else growth


def with_params(**changes):
    def change(growth, *_):
        params = {name: changes.get(name.replace(".", "_"), s) for name, s in growth.params.items()}
        return replace(growth, params={name: s for name, s in params.items() if s})

    return after(change)


def with_one_more(growth, *_):
    return replace(growth, params={**growth.params, "nothing.weight": "initialised"})


def with_unlisted_values(growth, *_):
    return replace(growth, tensors={**growth.tensors, "nothing.weight": torch.zeros(2)})


def with_other_shapes(growth, *_):
    return replace(
        growth, tensors={**growth.tensors, "norm.weight": growth.tensors["norm.weight"][:3]}
    )


def with_nan(growth, *_):
    return replace(
        growth,
        tensors={**growth.tensors, "norm.weight": growth.tensors["norm.weight"] * float("nan")},
    )


def drops_strangers(growth, *_):
    return replace(growth, dropped=("nothing.weight",))


def says_initialised(growth, source, target, small, large, generator):
    return (
        growth
        if same(small, large)
        else replace(growth, params={**growth.params, "embed.weight": "initialised"})
    )


def says_expanded_of_copies(growth, *_):
    return replace(growth, params={**growth.params, "head.bias": "expanded"})


def says_expanded_of_nothing(growth, source, target, small, large, generator):
    if same(small, large):
        return growth
    values = {name: value for name, value in growth.tensors.items() if name != "norm.weight"}
    return replace(growth, tensors=values, dropped=("norm.weight",))


def drops_what_it_uses(growth, *_):
    return replace(growth, dropped=("head.bias",))


def uses_less_than_it_says(growth, source, target, small, large, generator):
    if same(small, large):
        return growth
    values = {name: value for name, value in growth.tensors.items() if name != "norm.weight"}
    return replace(growth, tensors=values, params={**growth.params, "norm.weight": "initialised"})


def changes_the_target(growth, source, target, *_):
    with torch.no_grad():
        target.head.bias.add_(1)
    return growth


def changes_its_mode(growth, source, target, *_):
    target.eval()
    return growth


class LeavesGradients(Learner):
    def grow(self, source, target, *, objective=None, **options):
        growth = super().grow(source, target, objective=objective, **options)
        if not same(options["source_arch"], options["target_arch"]):
            target.head.bias.grad = torch.ones_like(target.head.bias)
        return growth


def draws_from_torch(growth, *_):
    torch.rand(1)
    return growth


def draws_from_python(growth, *_):
    random.random()
    return growth


def differs_every_time(growth, source, target, small, large, generator):
    if same(small, large):
        return growth
    own = torch.Generator().manual_seed(int.from_bytes(os.urandom(4), "little"))
    value = growth.tensors["norm.weight"] + torch.rand(1, generator=own, dtype=torch.float64).to(
        growth.tensors["norm.weight"]
    )
    return replace(growth, tensors={**growth.tensors, "norm.weight": value})


def changes_equal_sizes(growth, source, target, small, large, generator):
    if not same(small, large):
        return growth
    return replace(
        growth,
        tensors={name: 1.5 * value for name, value in growth.tensors.items()},
        params=dict.fromkeys(growth.params, "expanded"),
        function_preserving=False,
        reason="it was changed",
    )


def two_values_for_tied(growth, source, target, small, large, generator):
    tied = {n: growth.tensors[str(p.tied_to)] + 1 for n, p in large.params.items() if p.tied_to}
    return replace(growth, tensors={**growth.tensors, **tied})


def tied_is_copied(growth, source, target, small, large, generator):
    return replace(
        growth,
        params={n: "expanded" if p.tied_to else growth.params[n] for n, p in large.params.items()},
    )


class FailsWhereTied(Good):
    def grow(self, source, target, *, target_arch, **options):
        {
            n: options["generator"]
            for n in target_arch.params
            if n != "head.weight" or "embed.bias" in target_arch.params
        }["head.weight"]
        return super().grow(source, target, target_arch=target_arch, **options)


class UntiesTheTarget(Good):
    def grow(self, source, target, **options):
        growth = super().grow(source, target, **options)
        if isinstance(target, TiedNet):
            target.head.weight = torch.nn.Parameter(target.head.weight.detach().clone())
        return growth


class RefusesWithValueError(Good):
    def check(self, source, target):
        try:
            check_growable(source, target)
        except GrowthError as error:
            raise ValueError(str(error)) from error


class RefusesWithoutNames(Good):
    def check(self, source, target):
        try:
            check_growable(source, target)
        except GrowthError:
            raise GrowthError("This will not do.") from None


class RefusesTooLate(Good):
    def check(self, source, target):
        pass

    def grow(self, source, target, *, source_arch, target_arch, **options):
        check_growable(source_arch, target_arch)
        return super().grow(
            source, target, source_arch=source_arch, target_arch=target_arch, **options
        )


class WritesBeforeItRefuses(RefusesTooLate):
    def grow(self, source, target, *, source_arch, target_arch, **options):
        try:
            return super().grow(
                source, target, source_arch=source_arch, target_arch=target_arch, **options
            )
        except GrowthError:
            torch.nn.init.zeros_(target.head.bias)
            raise


class ChecksValues(Good):
    def check(self, source, target):
        super().check(source, target)
        if not hasattr(source, "weights"):
            raise GrowthError("'embed' cannot be checked without weights.")


class ZeroBlocks(Good):
    """Blocks that are repeated are zero on both sides."""

    def expand(self, source, target, pair):
        value = super().expand(source, target, pair)
        return value.zero_() if pair.repeat else value


class ZeroUnits(Good):
    """New hidden units read nothing and write nothing."""

    def expand(self, source, target, pair):
        if "fc" in pair.param.name and pair.param.axes != ("embed",):
            target.zero_()
        return super().expand(source, target, pair)


class ZeroesAllThatWrites(Good):
    """A weight and the norm, factor or gate behind it are zero in new blocks."""

    def init_new_block(self, value, target, pair):
        writes = any(use == ("embed", "writes") for use in pair.param.directions)
        return torch.zeros_like(value) if writes or pair.param.kind == "scale" else value


class SharesOutEvenly(Good):
    """Units are tiled, and nothing tells the copies apart."""

    def expand(self, source, target, pair):
        for dim, (_, direction) in enumerate(pair.param.directions):
            copies = target.shape[dim] / source.shape[dim]
            source = source.index_select(
                dim, torch.arange(target.shape[dim]) % source.shape[dim]
            ) / (copies if direction == "reads" else 1)
        return source


class AsksTooOften(Learner):
    objective_calls = 2


class DeclaresNonsense(Good):
    objective_calls = -1


class NeedsAnObjective(Learner):
    def grow(self, source, target, *, objective=None, **options):
        objective({})
        return super().grow(source, target, objective=lambda params: objective(params), **options)

    objective_calls = 4


class RefusesMembers(Good):
    """Works on modules, and not on the architectures of a chain, which tell their outputs."""

    def check(self, source, target):
        super().check(source, target)
        if source.outputs:
            raise GrowthError(f"Nothing is known of {sorted(source.outputs)}.")


def contract(grower: type[Grower], **members) -> type:
    return type(grower.__name__, (Small,), {"grower": dict(type=grower), **members})


def named(change) -> type:
    return type(change.__name__, (Small,), {"grower": dict(type=after(change))})


class Unprobed(ToyNet):
    """Its layout has no probe, and its signature does not say what it takes."""

    def forward(self, *inputs):
        return super().forward(*inputs)


class PairsWithoutProbe(Small):
    grower = dict(type=Good)

    def pairs(self):
        return [(randomised(Unprobed(8, 1).double()), Unprobed(12, 2).double())]


@pytest.fixture(autouse=True)
def unprobed_layout():
    from compt.registry import LAYOUTS
    from compt.testing.toy import ToyLayout

    name = f"{__name__}.Unprobed"
    LAYOUTS.register_module(
        name=name,
        module=type(
            "UnprobedLayout", (ToyLayout,), {"probe": lambda self, module, generator: None}
        ),
    )
    yield
    LAYOUTS.module_dict.pop(name)


CLAIMS = ("test_works_in_float32", "test_tied_parameters_stay_one", "test_new_blocks_learn")
TRUTH = ("test_tied_parameters_stay_one",)
CASES = [
    Case(contract(NoObjective), "test_methods_take_what_the_core_gives", "def grow(", None),
    Case(
        named(preserving),
        "test_keeps_what_it_declares",
        "function_preserving=False, reason=",
        CLAIMS,
    ),
    Case(named(without_reason), "test_keeps_what_it_declares", "Say in Growth.reason", CLAIMS),
    Case(
        contract(AimsHigh),
        "test_keeps_what_it_declares",
        "Set function_preserving = False in the class",
    ),
    Case(PairsWithoutProbe, "test_keeps_what_it_declares", "Write probe()"),
    Case(named(in_double), "test_works_in_float32", "value.to(tensor.dtype)"),
    Case(named(only_double), "test_works_in_float32", "value.to(tensor.dtype)"),
    Case(named(lossy_in_float32), "test_works_in_float32", "function_preserving=False, reason="),
    Case(
        contract(with_params(norm_weight=None)),
        "test_reports_every_tensor_once",
        "List every name",
        None,
    ),
    Case(named(with_one_more), "test_reports_every_tensor_once", "List every name", None),
    Case(
        named(with_unlisted_values),
        "test_reports_every_tensor_once",
        "Name the values in Growth.tensors",
        None,
    ),
    Case(
        named(with_other_shapes),
        "test_reports_every_tensor_once",
        "in the shape of the target's tensor",
        None,
    ),
    Case(named(with_nan), "test_reports_every_tensor_once", "Guard divisions", None),
    Case(named(drops_strangers), "test_reports_every_tensor_once", "List there, once each"),
    Case(
        contract(with_params(embed_weight="copied")),
        "test_report_is_true",
        "Report it as 'expanded'",
        TRUTH,
    ),
    Case(named(says_initialised), "test_report_is_true", "as 'expanded' in Growth.params", TRUTH),
    Case(named(says_expanded_of_copies), "test_report_is_true", "Report it as 'copied'", TRUTH),
    Case(
        named(says_expanded_of_nothing),
        "test_report_is_true",
        "Put its grown value into Growth.tensors",
        TRUTH,
    ),
    Case(
        contract(with_params(norm_weight="grown")),
        "test_report_is_true",
        "'copied', 'expanded'",
        TRUTH,
    ),
    Case(
        contract(with_params(norm_weight="shared")),
        "test_report_is_true",
        "Keep 'shared' for",
        TRUTH,
    ),
    Case(named(drops_what_it_uses), "test_dropped_is_true", "only what grow() does not read"),
    Case(
        named(uses_less_than_it_says),
        "test_dropped_is_true",
        "List 'norm.weight' in Growth.dropped",
    ),
    Case(named(changes_the_target), "test_leaves_the_modules_alone", "Work on copies"),
    Case(named(changes_its_mode), "test_leaves_the_modules_alone", "Work on copies"),
    Case(contract(LeavesGradients), "test_leaves_the_modules_alone", "torch.autograd.grad"),
    Case(named(draws_from_torch), "test_leaves_the_random_state_alone", "generator=generator"),
    Case(named(draws_from_python), "test_leaves_the_random_state_alone", "generator=generator"),
    Case(
        named(differs_every_time),
        "test_same_seed_same_bytes",
        "from the generator",
        ("test_dropped_is_true",),
    ),
    Case(
        named(changes_equal_sizes),
        "test_same_sizes_keep_every_bit",
        "Return the source's tensors as they are",
    ),
    Case(named(two_values_for_tied), "test_tied_parameters_stay_one", "once, under its first name"),
    Case(named(tied_is_copied), "test_tied_parameters_stay_one", "as 'shared' in Growth.params"),
    Case(contract(FailsWhereTied), "test_tied_parameters_stay_one", "Grow a tied tensor once"),
    Case(contract(UntiesTheTarget), "test_tied_parameters_stay_one", "do not assign parameters"),
    Case(
        contract(RefusesWithValueError),
        "test_a_refusal_is_a_growth_error",
        "Raise compt.GrowthError in check()",
    ),
    Case(
        contract(RefusesWithoutNames),
        "test_a_refusal_is_a_growth_error",
        "Name the tensor, the axis",
    ),
    Case(
        contract(WritesBeforeItRefuses),
        "test_a_refusal_changes_nothing",
        "Refuse in check()",
        ("test_check_refuses_what_grow_refuses",),
    ),
    Case(
        contract(RefusesTooLate),
        "test_check_refuses_what_grow_refuses",
        "Raise the GrowthError in check()",
    ),
    Case(
        contract(ChecksValues),
        "test_checks_on_meta",
        "Read nothing but the two Architectures",
        None,
    ),
    Case(
        contract(ZeroBlocks),
        "test_everything_learns",
        "leave one side random",
        ("test_new_blocks_learn",),
    ),
    Case(
        contract(ZeroUnits),
        "test_everything_learns",
        "leave one side random",
        ("test_copies_part_ways",),
    ),
    Case(contract(ZeroesAllThatWrites), "test_new_blocks_learn", "compt.writes_stream"),
    Case(contract(SharesOutEvenly), "test_copies_part_ways", "noise=1.0"),
    Case(contract(AsksTooOften), "test_asks_no_more_than_it_declares", "Set objective_calls = 3"),
    Case(
        contract(DeclaresNonsense),
        "test_asks_no_more_than_it_declares",
        "how often grow() calls",
        None,
    ),
    Case(
        contract(NeedsAnObjective),
        "test_without_an_objective",
        "Do without where objective is None",
    ),
    Case(contract(RefusesMembers), "test_trains_a_chain", "override chain()", None),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_every_broken_grower_is_caught(case, tmp_path):
    check(case, tmp_path)


@pytest.mark.parametrize("case", blamed_alone(CASES))
def test_no_other_test_blames_a_broken_grower(case, tmp_path):
    check_others(case, tmp_path)


def test_every_test_of_the_contract_can_fail():
    check_complete(GrowerContract, CASES)
