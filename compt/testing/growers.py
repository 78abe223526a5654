"""What every grower is held to."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from compt.errors import GrowthError
from compt.growth.axes import describe
from compt.growth.operators import tensors_of
from compt.growth.run import TOLERANCE, build_grower, grow, output_error
from compt.interfaces import Architecture, Grower, Growth, Objective
from compt.random_state import random_state
from compt.registry import GROWERS
from compt.testing._chains import by_name, require_results, toy_chain, trained
from compt.testing._shared import (
    Violation,
    changed,
    described,
    drawn_since,
    must_work,
    on_meta,
    randomised,
    require,
    require_signatures,
    same,
    skip,
    snapshot,
    some,
    traces,
    without_gradient,
)
from compt.testing.toy import INPUTS, TiedNet, ToyNet

Pair = tuple[nn.Module, nn.Module]


class Watched(Grower):
    """A grower that notes what the one inside it does to the modules, the random state and the
    objective.
    """

    def __init__(self, inner: Grower) -> None:
        self.inner = inner
        self.calls = 0
        self.claims: list[Growth] = []
        """What the grower itself returned: ``compt.grow`` corrects a claim that its measurement
        refutes.
        """
        self.drawn: list[str] = []
        self.touched: list[str] = []

    def check(self, source: Architecture, target: Architecture) -> None:
        """Ask the grower."""
        self.inner.check(source, target)

    def grow(
        self,
        source: nn.Module,
        target: nn.Module,
        *,
        objective: Objective | None = None,
        **given: Any,
    ) -> Growth:
        """Grow, and compare what was there before with what is there after."""
        modules = {"source": source, "target": target}
        before = {role: (snapshot(m), traces(m)) for role, m in modules.items()}
        state = random_state()
        counted = None if objective is None else self._counted(objective)
        claim = self.inner.grow(source, target, objective=counted, **given)
        self.drawn = drawn_since(state)
        for role, module in modules.items():
            values, left = before[role]
            self.touched += [f"'{name}' of the {role}" for name in sorted(changed(values, module))]
            self.touched += [
                f"{what} of the {role}" for what, was in traces(module).items() if was != left[what]
            ]
        self.claims.append(claim)
        return claim

    def _counted(self, objective: Objective) -> Objective:
        def ask(params: Mapping[str, Tensor]) -> Tensor:
            self.calls += 1
            with torch.random.fork_rng(devices=[]):  # the target may have dropout
                return objective(params)

        return ask


@dataclass
class Grown:
    """One growth: the modules after it, the target's values before it, the grower's own report and
    compt's.
    """

    source: nn.Module
    target: nn.Module
    fresh: dict[str, Tensor]
    claim: Growth
    report: Growth
    watched: Watched = field(repr=False)


def require_true_report(grown: Grown) -> None:
    """Every status of the report says what became of its tensor."""
    values = tensors_of(grown.source)
    arch = describe(grown.target)
    for name, tensor in tensors_of(grown.target).items():
        status = grown.claim.params[name]
        twins = [n for n, value in values.items() if same(value, tensor)]
        kept, param = same(tensor, grown.fresh[name]), arch.params[name]
        said = f"'{name}' is reported as '{status}'"
        if param.tied_to:
            require(
                status == "shared",
                f"{said}, and is the tensor '{param.tied_to}' under another name.",
                "Report all but the first name of a tied tensor as 'shared' in Growth.params (ParamAxes.tied_to).",
            )
        elif status == "shared":
            raise Violation(
                f"{said}, and is no other parameter.",
                "Keep 'shared' for names with ParamAxes.tied_to.",
            )
        elif status == "copied":
            require(
                twins,
                f"{said}, and equals no tensor of the source.",
                "Report it as 'expanded' in Growth.params; compt.growth.operators.status tells a grown value's status.",
            )
        elif status == "initialised":
            require(
                kept or not tensor.any(),
                f"{said}, and is neither as the target had it nor zero.",
                "Report what holds values of the source, or was learned, as 'expanded' in Growth.params.",
            )
        else:
            require(
                status == "expanded",
                f"{said}.",
                "The statuses of Growth.params are 'copied', 'expanded', 'initialised' and 'shared'.",
            )
            require(
                not twins,
                f"{said}, and equals the source's '{twins[:1]}'.",
                "Report it as 'copied'.",
            )
            require(
                param.buffer or not kept,
                f"{said}, and is as the target had it.",
                "Put its grown value into Growth.tensors, or report it as 'initialised' in Growth.params.",
            )


class GrowerContract:
    """A grower leaves its source, its failures and the random state alone, and reports everything
    it does.

    Usage, in a plug-in's own tests::

        class TestMine(compt.testing.GrowerContract):
            grower = dict(type="mine")
    """

    grower: ClassVar[Any]
    """Name, config or instance."""

    def pairs(self) -> list[Pair]:
        """(source, target) pairs to grow, float64: override it for growers that need other sizes or
        modules.
        """
        sizes = [
            ((16, 2), (32, 4)),
            ((16, 2), (24, 3)),
            ((16, 2), (40, 2)),
            ((16, 2), (16, 5)),
            ((16, 2), (16, 2)),
        ]
        return [
            (randomised(ToyNet(*small, rms=rms).double()), ToyNet(*large, rms=rms).double())
            for small, large in sizes
            for rms in (False, True)
        ]

    def objective(self, target: nn.Module) -> Objective | None:
        """The loss of a target with given parameters, batch after batch: override it for modules
        that are no ToyNet.
        """
        return _classification(target) if isinstance(target, ToyNet) else None

    def chain(self) -> dict[str, Any]:
        """Config of the chain to try the grower in: override it for growers that cannot grow the
        toy's members.
        """
        return toy_chain()

    # What is checked

    def test_methods_take_what_the_core_gives(self) -> None:
        """Signatures are those of the interface."""
        require_signatures(build_grower(self.grower), Grower)

    def test_keeps_what_it_declares(self) -> None:
        """Where the grower says that the function is kept the outputs are equal, elsewhere it says
        why not.
        """
        kept = []
        for grown in self._grown():
            error = output_error(grown.source, grown.target, seed=1)
            if error is None:
                raise Violation(
                    "The outputs of a pair of pairs() cannot be compared.",
                    "Write probe() in the layout of its modules.",
                )
            kept.append(grown.claim.function_preserving)
            _require_claim(grown, error, torch.float64)
        require(
            any(kept) or not build_grower(self.grower).function_preserving,
            "The class says function_preserving = True, and no pair of pairs() keeps its function.",
            "Set function_preserving = False in the class, or give pairs() one that the grower keeps.",
        )

    def test_works_in_float32(self) -> None:
        """Grown values fit the modules' number format, and claims hold in it."""
        for source, target in self.pairs():
            with must_work(
                "float64 modules are grown, and float32 ones are not",
                "Compute in one number format and return Growth.tensors in the target's: value.to(tensor.dtype).",
            ):
                grown = self._grow(source.float(), target.float())
            wrong = [
                n
                for n, value in grown.claim.tensors.items()
                if value.dtype != tensors_of(target)[n].dtype
            ]
            require(
                not wrong,
                f"Growth.tensors of a float32 target are of another number format: {some(wrong)}.",
                "Return them in the target's: value.to(tensor.dtype).",
            )
            _require_claim(grown, output_error(source, target, seed=1) or 0.0, torch.float32)

    def test_reports_every_tensor_once(self) -> None:
        """The report names all parameters and buffers of the target, and what the source had left
        over.
        """
        for source, target in self.pairs():
            watched = Watched(build_grower(self.grower))
            try:
                self._run(source, copy.deepcopy(target), watched)
            except GrowthError as error:
                if not watched.claims:
                    raise self._refused(source, target, error) from error
            claim = watched.claims[-1]
            named, known = set(claim.params), set(tensors_of(target))
            require(
                named == known,
                f"Growth.params lacks {some(known - named) or 'nothing'} and has {some(named - known) or 'nothing'} "
                "that the target has not.",
                "List every name of target_arch.params in Growth.params, and no other.",
            )
            unlisted = set(claim.tensors) - known
            require(
                not unlisted,
                f"Growth.tensors has {some(unlisted)}, which the target has not.",
                "Name the values in Growth.tensors as target_arch.params does.",
            )
            wrong = [n for n, v in claim.tensors.items() if v.shape != tensors_of(target)[n].shape]
            require(
                not wrong,
                f"Growth.tensors has other shapes than the target at {some(wrong)}.",
                "Return each value in the shape of the target's tensor.",
            )
            infinite = [n for n, v in claim.tensors.items() if not torch.isfinite(v).all()]
            require(
                not infinite,
                f"Growth.tensors has values that are not finite at {some(infinite)}.",
                "Guard divisions and logarithms in grow().",
            )
            dropped = list(claim.dropped)
            foreign = set(dropped) - set(tensors_of(source))
            require(
                not foreign and len(dropped) == len(set(dropped)),
                f"Growth.dropped is no list of different tensors of the source: {some(foreign) or dropped}.",
                "List there, once each, the names of source_arch.params that were not used.",
            )

    def test_report_is_true(self) -> None:
        """'copied' tensors equal a source tensor, 'initialised' ones owe it nothing, 'expanded'
        ones do.
        """
        for grown in self._grown():
            require_true_report(grown)

    def test_dropped_is_true(self) -> None:
        """What is reported as dropped does not matter; every other parameter of the source does."""
        source, target = self.pairs()[0]
        first = self._grow(source, copy.deepcopy(target))
        dropped = set(first.claim.dropped)
        other = self._grow(_noisy(source, dropped), copy.deepcopy(target))
        require(
            not changed(tensors_of(first.target), other.target),
            f"Growth.dropped names {some(dropped)}, and the grown weights depend on them.",
            "List in Growth.dropped only what grow() does not read; compt.growth.operators.AxisGrower does so.",
        )
        constant = {
            n for n, p in describe(source).params.items() if p.buffer or p.kind == "constant"
        }
        for name in sorted(set(tensors_of(source)) - dropped - constant):
            other = self._grow(_noisy(source, {name}), copy.deepcopy(target))
            require(
                changed(tensors_of(first.target), other.target),
                f"The grown weights do not depend on '{name}' of the source, which is not reported as dropped.",
                f"List '{name}' in Growth.dropped, or use it.",
            )

    def test_leaves_the_modules_alone(self) -> None:
        """``grow`` returns the new weights; it changes neither module, and leaves no gradients in
        them.
        """
        for grown in self._grown():
            touched = grown.watched.touched
            require(
                not touched,
                f"grow() changes {some(touched)}.",
                "Work on copies (tensor.clone()) and return the new values in Growth.tensors; take gradients with "
                "torch.autograd.grad, or of tensors of your own.",
            )

    def test_leaves_the_random_state_alone(self) -> None:
        """What is random comes from the generator that ``grow`` is given."""
        for grown in self._grown():
            require(
                not grown.watched.drawn,
                f"grow() draws from the global random state of {some(grown.watched.drawn)}.",
                "Draw on the CPU from the generator that grow() is given: torch.randn(shape, generator=generator).",
            )

    def test_same_seed_same_bytes(self) -> None:
        """Growing twice with one seed gives the same weights and the same report."""
        for source, target in self.pairs():
            one, two = (self._grow(source, copy.deepcopy(target), seed=3) for _ in range(2))
            different = changed(tensors_of(one.target), two.target)
            require(
                not different and one.claim.params == two.claim.params,
                f"Growing twice with one seed gives different values of {some(different) or 'Growth.params'}.",
                "Take all that is random from the generator that grow() is given, and keep nothing between two calls.",
            )

    def test_same_sizes_keep_every_bit(self) -> None:
        """A target of the source's own sizes becomes the source, unless nothing is inherited at
        all.
        """
        for source, _ in self.pairs():
            grown = self._grow(source, randomised(copy.deepcopy(source), seed=5))
            if set(grown.claim.params.values()) <= {"initialised", "shared"}:
                continue
            different = changed(tensors_of(source), grown.target)
            require(
                not different,
                f"Source and target have the same sizes, and the grown weights differ at {some(different)}.",
                "Return the source's tensors as they are where source_arch.sizes and depths equal target_arch's.",
            )

    def test_tied_parameters_stay_one(self) -> None:
        """Of a tensor with two names the report names both, and there is one value."""
        source, target = randomised(TiedNet(16, 2).double()), TiedNet(32, 3).double()
        with must_work(
            "A model whose head is tied to its embedding cannot be grown",
            "Grow a tied tensor once, under its first name: ParamAxes.tied_to is set on the others.",
        ):
            try:
                grown = self._grow(source, target, refusable=True)
            except GrowthError as error:
                return _require_named(error, source, target)
        require(
            target.head.weight is target.embed.weight,
            "After growing, the tied tensors of the target are two.",
            "Return values in Growth.tensors; do not assign parameters of the target.",
        )
        _require_one_value(grown)
        require_true_report(grown)
        _require_claim(grown, output_error(source, target, seed=1) or 0.0, torch.float64)

    def test_a_refusal_is_a_growth_error(self) -> None:
        """Pairs that do not fit are grown completely or refused with GrowthError, by name."""
        for what, source, target in _misfits():
            error = self._try(source, target)
            require(
                error is None or isinstance(error, GrowthError),
                f"A target with {what} ends in {described(error) if error else ''}.",
                "Raise compt.GrowthError in check(); compt.check_growable(source, target) does it for most growers.",
            )
            if isinstance(error, GrowthError):
                _require_named(error, source, target)

    def test_a_refusal_changes_nothing(self) -> None:
        """A pair that is refused stays as it was."""
        for what, source, target in _misfits():
            before = {"source": snapshot(source), "target": snapshot(target)}
            if self._try(source, target) is not None:
                for role, module in {"source": source, "target": target}.items():
                    touched = changed(before[role], module)
                    require(
                        not touched,
                        f"A target with {what} is refused, and {some(touched)} of the {role} has changed before.",
                        "Refuse in check(), and write nothing into the modules: return values in Growth.tensors.",
                    )

    def test_check_refuses_what_grow_refuses(self) -> None:
        """The planner only calls ``check``: what cannot be grown is refused there."""
        for what, source, target in _misfits():
            try:
                build_grower(self.grower).check(describe(source), describe(target))
            except Exception:
                continue
            error = self._try(source, target)
            require(
                error is None,
                f"check() accepts a target with {what}, and growing it fails: {described(error) if error else ''}.",
                "Raise the GrowthError in check(), which plans call before anything is trained.",
            )

    def test_checks_on_meta(self) -> None:
        """``check`` works from architectures alone, as the planner calls it."""
        for source, target in self.pairs():
            small, large = (describe(on_meta(m)) for m in (source, target))
            with must_work(
                "check() refuses, from the architectures alone, a pair that is to be grown",
                "Read nothing but the two Architectures in check(); give pairs() what the grower can grow.",
            ):
                build_grower(self.grower).check(small, large)

    def test_everything_learns(self) -> None:
        """After a few steps every parameter has had a gradient, all its elements where the toy
        grows: none is dead.
        """
        for grown in self._grown():
            objective = self.objective(grown.target)
            if objective is None:
                skip("override objective(target) to see whether everything learns after growing")
            dead = without_gradient(
                grown.target,
                partial(_asked, objective, grown.target),
                elements=isinstance(grown.target, ToyNet),
            )
            require(
                not dead,
                f"No gradient ever reaches some of {some(dead)}.",
                "Never zero both what a unit reads and what it writes: leave one side random.",
            )

    def test_asks_no_more_than_it_declares(self) -> None:
        """Plans and reports charge ``objective_calls``; the objective is not called more often."""
        declared = build_grower(self.grower).objective_calls
        require(
            isinstance(declared, int) and declared >= 0,
            f"objective_calls is {declared!r}.",
            "Set objective_calls, in the class or in __init__, to how often grow() calls its objective at most.",
        )
        for grown in self._grown():
            calls = grown.watched.calls
            require(
                calls <= declared,
                f"grow() calls its objective {calls} times, and the grower declares objective_calls = {declared}.",
                f"Set objective_calls = {calls} (in the class, or in __init__): plans and reports charge it.",
            )

    def test_without_an_objective(self) -> None:
        """Outside a chain there is no objective: the grower does without, or says that it needs
        one.
        """
        for source, target in self.pairs():
            try:
                grow(source, target, self.grower)
            except GrowthError:
                continue
            except Exception as error:
                raise Violation(
                    f"Without an objective grow() ends in {described(error)}.",
                    "Do without where objective is None, or raise compt.GrowthError that says to train in a chain.",
                ) from error

    def test_trains_a_chain(self, tmp_path: Path) -> None:
        """A chain of three small members is grown and trained, in seconds."""
        do = "Mend what it says; override chain() if the grower is not for the toy's members."
        with by_name(GROWERS, self._config()) as grower:
            config = {**self.chain(), "grower": grower}
            trained(config, tmp_path / "chain", do)
            require_results(config, tmp_path / "chain")

    # How it is done

    def _grown(self) -> Iterator[Grown]:
        """Each pair, grown."""
        for source, target in self.pairs():
            yield self._grow(source, target)

    def _grow(
        self, source: nn.Module, target: nn.Module, *, seed: int = 0, refusable: bool = False
    ) -> Grown:
        """Grow a target in place, with an objective; a refusal is a Violation unless it is
        ``refusable``.
        """
        watched, fresh = Watched(build_grower(self.grower)), snapshot(target)
        try:
            report = self._run(source, target, watched, seed=seed)
        except GrowthError as error:
            if refusable and not watched.claims:
                raise
            raise self._refused(source, target, error) from error
        return Grown(source, target, fresh, watched.claims[-1], report, watched)

    def _run(
        self, source: nn.Module, target: nn.Module, watched: Watched, *, seed: int = 0
    ) -> Growth:
        objective = self.objective(target)
        require(
            objective is not None or not watched.inner.objective_calls,
            f"The grower learns, and the contract has no objective for {type(target).__name__}.",
            "Override objective(target): return a function of parameters by name that returns a loss.",
        )
        return grow(source, target, watched, seed=seed, objective=objective)

    def _refused(self, source: nn.Module, target: nn.Module, error: GrowthError) -> Violation:
        small, large = (dict(describe(m).sizes) for m in (source, target))
        return Violation(
            f"The pair {small} -> {large} of pairs() cannot be grown: {error.what} {error.where}".rstrip(),
            error.do or "Override pairs() with pairs that this grower can grow.",
        )

    def _try(self, source: nn.Module, target: nn.Module) -> Exception | None:
        """What growing raises, None if all goes well."""
        try:
            self._run(source, target, Watched(build_grower(self.grower)))
        except Exception as error:
            return error
        return None

    def _config(self) -> dict[str, Any]:
        """The grower as a config names it; an instance by its class, if that needs no arguments."""
        if isinstance(self.grower, str):
            return dict(type=self.grower)
        if isinstance(self.grower, Mapping):
            return dict(self.grower)
        config = dict(type=type(self.grower))
        if faults := GROWERS.signature_faults(config):
            skip(
                f"a chain builds its grower from a config, and this is an instance: {' '.join(faults)}"
            )
        return config


def _classification(target: ToyNet) -> Objective:
    """Cross entropy of random points in random classes, another batch at every call."""
    batches = torch.Generator().manual_seed(0)
    classes = target.head.out_features

    def loss(params: Mapping[str, Tensor]) -> Tensor:
        points = torch.randn(64, INPUTS, generator=batches, dtype=torch.float64).to(
            target.head.weight
        )
        labels = torch.randint(classes, (64,), generator=batches).to(points.device)
        return F.cross_entropy(functional_call(target, dict(params), (points,)), labels)

    return loss


def _asked(objective: Objective, target: nn.Module) -> Tensor:
    """The loss of the target's own parameters."""
    return objective(dict(target.named_parameters()))


def _misfits() -> list[tuple[str, nn.Module, nn.Module]]:
    """Pairs that hardly any grower can grow: what is wrong, source, target."""
    return [
        (what, randomised(source.double()), target.double())
        for what, source, target in (
            ("fewer units and blocks", ToyNet(32, 4), ToyNet(16, 2)),
            ("fewer blocks", ToyNet(16, 4), ToyNet(16, 2)),
            ("more classes, which are fixed", ToyNet(16, 2), ToyNet(32, 4, classes=12)),
            ("biases that the source lacks", ToyNet(16, 2, rms=True), ToyNet(32, 4)),
        )
    ]


def _noisy(source: nn.Module, names: set[str]) -> nn.Module:
    """A copy with noise on the tensors of these names."""
    noisy, generator = copy.deepcopy(source), torch.Generator().manual_seed(9)
    for name, tensor in tensors_of(noisy).items():
        if name in names and tensor.is_floating_point():
            tensor.add_(
                torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)
            )
    return noisy


def _require_claim(grown: Grown, error: float, dtype: torch.dtype) -> None:
    """Where the grower claims to keep the function, the outputs are equal; elsewhere it says why
    they are not.
    """
    if grown.claim.function_preserving:
        largest = max(error, grown.report.error or 0.0)
        require(
            largest <= TOLERANCE[dtype],
            f"The grower reports that the function is kept, and outputs in {dtype} differ by {largest:.1e}.",
            "Return Growth(function_preserving=False, reason=...) for such pairs.",
        )
    else:
        require(
            grown.claim.reason,
            "Growth.function_preserving is False, without a reason.",
            "Say in Growth.reason why the function is not kept.",
        )


def _require_one_value(grown: Grown) -> None:
    """Names of one tensor have one value in ``Growth.tensors``."""
    values = grown.claim.tensors
    for name, param in describe(grown.target).params.items():
        if param.tied_to and name in values:
            require(
                same(values[name], values.get(param.tied_to, grown.fresh[name])),
                f"Growth.tensors has other values for '{name}' than for '{param.tied_to}', which is the same tensor.",
                "Give a tied tensor's values once, under its first name (ParamAxes.tied_to of the others).",
            )


def _require_named(error: GrowthError, source: nn.Module, target: nn.Module) -> None:
    """A refusal names a tensor, an axis or a stack of blocks."""
    names = set()
    for arch in (describe(source), describe(target)):
        names |= {*arch.params, *arch.sizes, *arch.depths}
    require(
        any(name in str(error) for name in names),
        f"A refusal does not say which tensor or axis is wrong: {described(error)}.",
        "Name the tensor, the axis and its sizes in the GrowthError, as compt.check_growable does.",
    )
