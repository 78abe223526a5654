"""What every grower, transferer, paradigm and layout is held to.

Usage, in a plug-in's own tests::

    class TestMine(compt.testing.GrowerContract):
        grower = dict(type="mine")
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from compt.axes import describe, find_layout
from compt.errors import GrowthError
from compt.growth import TOLERANCE, build_grower, grow, output_error
from compt.interfaces import Member, Paradigm, Transferer
from compt.operators import tensors_of
from compt.registry import PARADIGMS, TRANSFERERS
from compt.testing.toy import ToyNet


def randomised(module: nn.Module, *, scale: float = 0.2, seed: int = 0) -> nn.Module:
    """Add noise to every parameter, gains, biases and tokens included: default values hide most bugs."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for param in module.parameters():
            param.add_(scale * torch.randn(param.shape, generator=generator, dtype=torch.float64).to(param))
    return module


def is_finite_scalar(value: Tensor) -> bool:
    """Whether a tensor is one finite number."""
    return value.ndim == 0 and bool(torch.isfinite(value))


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers."""
    return {name: tensor.clone() for name, tensor in tensors_of(module).items()}


class GrowerContract:
    """A grower leaves its source, its failures and the random state alone, and reports everything it does."""

    grower: ClassVar[Any]
    """Name, config or instance."""

    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """(source, target) pairs to grow, float64: override it for growers that need other sizes."""
        sizes = [((16, 2), (32, 4)), ((16, 2), (24, 3)), ((16, 2), (40, 2)), ((16, 2), (16, 5)), ((16, 2), (16, 2))]
        return [
            (randomised(ToyNet(*small, rms=rms).double()), ToyNet(*large, rms=rms).double())
            for small, large in sizes
            for rms in (False, True)
        ]

    def test_keeps_what_it_declares(self) -> None:
        """Where the report says the function is kept, the outputs are equal."""
        for source, target in self.pairs():
            growth = grow(source, target, self.grower)
            error = output_error(source, target, seed=1)
            assert error is not None, "the layout of the pair has no probe"
            if growth.function_preserving:
                assert error <= TOLERANCE[torch.float64], (
                    f"outputs differ by {error:.1e}; report function_preserving=False"
                )
            else:
                assert growth.reason, "say in Growth.reason why the function is not kept"

    def test_reports_every_tensor_once(self) -> None:
        """The report names all parameters and buffers of the target, and what the source had left over."""
        for source, target in self.pairs():
            growth = grow(source, target, self.grower)
            assert set(growth.params) == set(tensors_of(target))
            assert sum(growth.counts.values()) == len(growth.params)
            assert set(growth.dropped) <= set(tensors_of(source))

    def test_report_is_true(self) -> None:
        """'copied' tensors equal a source tensor, 'initialised' ones owe it nothing."""
        for source, target in self.pairs():
            before = snapshot(target)
            growth = grow(source, target, self.grower)
            values = list(tensors_of(source).values())
            for name, tensor in tensors_of(target).items():
                if growth.params[name] == "copied":
                    assert any(tensor.shape == v.shape and torch.equal(tensor, v) for v in values), f"{name} is no copy"
                elif growth.params[name] == "initialised":
                    unchanged = torch.equal(tensor, before[name]) or not tensor.any()
                    assert unchanged, f"{name} changed: report it as 'expanded'"

    def test_leaves_the_source_and_the_random_state_alone(self) -> None:
        """Neither the source's values nor the global random state change, and nothing shares storage."""
        for source, target in self.pairs():
            before, state = snapshot(source), torch.get_rng_state()
            grow(source, target, self.grower)
            assert torch.equal(torch.get_rng_state(), state), "draw from the generator you are given"
            after = tensors_of(source)
            assert all(torch.equal(before[n], after[n]) for n in before), "the source changed"
            storages = {t.untyped_storage().data_ptr() for t in after.values()}
            assert not storages & {t.untyped_storage().data_ptr() for t in tensors_of(target).values()}

    def test_same_seed_same_bytes(self) -> None:
        """Growing twice with one seed gives the same weights."""
        for source, target in self.pairs():
            other = copy.deepcopy(target)
            grow(source, target, self.grower, seed=3)
            grow(source, other, self.grower, seed=3)
            assert all(
                torch.equal(a, b)
                for a, b in zip(target.state_dict().values(), other.state_dict().values(), strict=True)
            )

    def test_a_refusal_changes_nothing(self) -> None:
        """A pair that shrinks is grown completely or refused before any write."""
        source, target = ToyNet(32, 4).double(), ToyNet(16, 2).double()
        before = snapshot(target)
        try:
            grow(source, target, self.grower)
        except GrowthError:
            after = tensors_of(target)
            assert all(torch.equal(before[n], after[n]) for n in before), "the target changed before the refusal"

    def test_everything_learns(self) -> None:
        """After two steps every parameter has had a gradient: none is dead."""
        source, target = randomised(ToyNet(16, 2, dropout=0.0)), ToyNet(32, 4, dropout=0.0)
        grow(source, target, self.grower)
        dead = set(dict(target.named_parameters()))
        optimizer = torch.optim.AdamW(target.parameters(), lr=1e-3)
        for step in range(2):
            x = torch.randn(64, 8, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            nn.functional.cross_entropy(target(x), torch.arange(64) % 10).backward()
            dead -= {n for n, p in target.named_parameters() if p.grad is not None and p.grad.any()}
            optimizer.step()
        assert not dead, f"no gradient ever reaches {sorted(dead)}"

    def test_checks_on_meta(self) -> None:
        """``check`` works from architectures alone, as the planner calls it."""
        with torch.device("meta"):
            source, target = describe(ToyNet(16, 2)), describe(ToyNet(32, 4))
        build_grower(self.grower).check(source, target)


class TransfererContract:
    """A transferer returns finite scalars with gradients for the student, and none for the teacher."""

    transfer: ClassVar[Mapping[str, Any]]
    features: ClassVar[tuple[str, ...]] = ("features",)
    """Outputs to offer, ``[batch, width]`` each."""

    def make(self, teacher: int = 12, student: int = 20) -> Transferer:
        """The transferer, bound to a teacher and a student of these widths."""
        arch = describe(ToyNet(16, 1))
        transferer: Transferer = TRANSFERERS.build(dict(self.transfer))
        transferer.bind(*(replace(arch, features=dict.fromkeys(self.features, width)) for width in (teacher, student)))
        return transferer

    def outputs(self, width: int, seed: int) -> dict[str, Tensor]:
        """Random outputs of every name the transferer needs."""
        generator = torch.Generator().manual_seed(seed)
        return {n: torch.randn(8, width, generator=generator).requires_grad_() for n in self.features}

    def test_terms_are_finite_scalars(self) -> None:
        """Every term is one finite number."""
        for name, term in self.make()(self.outputs(20, 0), self.outputs(12, 1), progress=0.5).items():
            assert is_finite_scalar(term), f"{name} is not a finite scalar"

    def test_the_student_learns(self) -> None:
        """Gradients reach the student's features and every trainable parameter of the transferer."""
        transferer, student = self.make(), self.outputs(20, 0)
        teacher = {n: t.detach() for n, t in self.outputs(12, 1).items()}
        terms = transferer(student, teacher, progress=0.5)
        if terms:
            sum(terms.values()).backward()  # type: ignore[union-attr]
            assert any(t.grad is not None and t.grad.any() for t in student.values()), "no gradient for the student"
            assert all(p.grad is not None for p in transferer.parameters()), "a projection is not used"

    def test_strength_is_a_weight(self) -> None:
        """The weight is finite and not negative all along the stage."""
        transferer = self.make()
        assert all(0 <= transferer.strength(i / 10) < float("inf") for i in range(10))

    def test_heads_are_saved(self) -> None:
        """A second transferer with the first one's state gives the same terms."""
        one, two = self.make(), self.make()
        two.load_state_dict(one.state_dict())
        args = self.outputs(20, 0), self.outputs(12, 1)
        first, second = one(*args, progress=0.2), two(*args, progress=0.2)
        assert all(torch.equal(first[k], second[k]) for k in first), "keep state in parameters or buffers"


class ParadigmContract:
    """A paradigm builds on the meta device, gives the outputs it names, and exports what it can load."""

    paradigm: ClassVar[Mapping[str, Any]]
    model: ClassVar[Any]
    """A member's model, small."""

    def make(self) -> tuple[Paradigm, nn.Module]:
        """The paradigm and a model of it."""
        paradigm: Paradigm = PARADIGMS.build(dict(self.paradigm))
        return paradigm, paradigm.build_model(Member("member", self.model))

    def batch(self, paradigm: Paradigm, split: str = "train") -> Mapping[str, Any]:
        """A prepared batch of four real samples."""
        dataset = paradigm.build_dataset(split)
        raw = paradigm.collate([dataset[i] for i in range(4)])
        return paradigm.prepare(raw, generator=torch.Generator().manual_seed(0))

    def test_builds_on_meta(self) -> None:
        """The planner builds models without memory, and runs them on an example batch."""
        paradigm = PARADIGMS.build(dict(self.paradigm))
        with torch.device("meta"):
            model = paradigm.build_model(Member("member", self.model))
        assert all(p.device.type == "meta" for p in model.parameters())
        outputs = paradigm.forward(model, paradigm.example_batch(model, 2))
        assert set(outputs) >= paradigm.outputs

    def test_example_has_the_shapes_of_real_batches(self) -> None:
        """Outputs of the example batch are as wide as those of real data."""
        paradigm, model = self.make()
        with torch.no_grad():
            example = paradigm.forward(model, paradigm.example_batch(model, 4))
            real = paradigm.forward(model, self.batch(paradigm))
        assert {k: v.shape for k, v in example.items()} == {k: v.shape for k, v in real.items()}

    def test_loss_has_gradients(self) -> None:
        """The loss terms are finite scalars whose sum has gradients."""
        paradigm, model = self.make()
        batch = self.batch(paradigm)
        terms = paradigm.loss(paradigm.forward(model, batch), batch)
        assert terms, "return at least one loss term"
        assert all(map(is_finite_scalar, terms.values())), "loss terms are finite scalars"
        sum(terms.values()).backward()  # type: ignore[union-attr]
        assert any(p.grad is not None and p.grad.any() for p in model.parameters())

    def test_metrics_say_what_chance_is(self) -> None:
        """Every split has metrics; they are finite, and shares have their chance level."""
        paradigm, model = self.make()
        for split in paradigm.splits:
            with torch.no_grad():
                metrics = paradigm.metrics(model.eval(), split, [self.batch(paradigm, split)])
            assert metrics, f"no metric for the split '{split}'"
            assert all(m.value == m.value for m in metrics.values())

    def test_exports_what_it_loads(self, tmp_path: Path) -> None:
        """A model that was exported and loaded gives equal outputs."""
        paradigm, model = self.make()
        randomised(model, scale=0.05)
        paradigm.export(model, tmp_path)
        assert paradigm.recognises(tmp_path)
        loaded = paradigm.load(tmp_path)
        batch = self.batch(paradigm)
        with torch.no_grad():
            before, after = paradigm.forward(model.eval(), batch), paradigm.forward(loaded.eval(), batch)
        assert all(torch.equal(before[k], after[k]) for k in before)


class LayoutContract:
    """A layout describes every tensor, and the lossless grower keeps the function through it."""

    def pair(self) -> tuple[nn.Module, nn.Module]:
        """A small and a larger model of the class that the layout is for."""
        raise NotImplementedError("return a small and a larger model")

    def test_describes_every_tensor(self) -> None:
        """Shapes and axes agree in both models."""
        for module in self.pair():
            arch = describe(module)
            for name, tensor in tensors_of(module).items():
                shape = arch.shape(arch.params[name])
                assert torch.Size(shape).numel() == tensor.numel(), name

    def test_lossless_growth_keeps_the_function(self) -> None:
        """Random gains, biases and tokens in float64: the outputs stay equal, or the report says why not."""
        source, target = (m.double() for m in self.pair())
        randomised(source)
        growth = grow(source, target, "lossless")
        assert growth.function_preserving or growth.reason
        if growth.function_preserving:
            assert growth.error is not None, "write the layout's probe()"
            assert growth.error <= TOLERANCE[torch.float64]

    def test_probe_sees_the_weights(self) -> None:
        """A change of any one weight tensor changes what the probe returns."""
        module = randomised(self.pair()[0].double())
        module.eval()
        other = randomised(copy.deepcopy(module), scale=0.1, seed=1)
        assert (output_error(module, other) or 0) > 1e-6, "the probe's outputs do not depend on the weights"
        assert find_layout(module).probe(module, torch.Generator()) is not None
