"""What every paradigm is held to."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from compt.errors import ConfigError
from compt.files import WEIGHTS, stage_name
from compt.growth.axes import evaluating
from compt.growth.operators import tensors_of
from compt.interfaces import Batch, Member, Metric, Outputs, Paradigm
from compt.random_state import random_state
from compt.registry import PARADIGMS
from compt.testing._chains import by_name, chain_config, require_results, trained
from compt.testing._shared import (
    Violation,
    changed,
    described,
    drawn_since,
    is_finite_scalar,
    must_work,
    randomised,
    require,
    require_signatures,
    seeded,
    snapshot,
    some,
)
from compt.training.stage import build_member
from compt.weights import save_weights

SAMPLES = 4
"""In every batch of the contract."""


class ParadigmContract:
    """A paradigm builds on the meta device, gives the outputs it names, and exports what it can
    load.

    Usage, in a plug-in's own tests::

        class TestMine(compt.testing.ParadigmContract):
            paradigm = dict(type="mine", data=...)
            model = dict(width=16)
            larger = dict(width=32)
    """

    paradigm: ClassVar[Mapping[str, Any]]
    model: ClassVar[Any]
    """A member's model, small."""
    larger: ClassVar[Any] = None
    """A larger member's model, if models of this paradigm can grow."""

    def make(self) -> tuple[Paradigm, nn.Module]:
        """The paradigm and a model of it."""
        paradigm: Paradigm = PARADIGMS.build(dict(self.paradigm))
        return paradigm, paradigm.build_model(Member("member", self.model))

    def batch(self, paradigm: Paradigm, split: str = "train") -> Batch:
        """A prepared batch of four real samples."""
        return paradigm.prepare(
            self._raw(paradigm, split), generator=torch.Generator().manual_seed(0)
        )

    # What is checked

    def test_methods_take_what_the_core_gives(self) -> None:
        """Signatures are those of the interface."""
        require_signatures(PARADIGMS.build(dict(self.paradigm)), Paradigm)

    def test_builds_on_meta(self) -> None:
        """The planner builds models without memory, and runs one step on an example batch."""
        paradigm: Paradigm = PARADIGMS.build(dict(self.paradigm))
        with (
            must_work(
                "build_model() fails under torch.device('meta'), where plans call it",
                "Read no values of tensors in build_model(), and load no weights there.",
            ),
            torch.device("meta"),
        ):
            model = paradigm.build_model(Member("member", self.model))
        real = [n for n, p in model.named_parameters() if not p.is_meta]
        require(
            not real,
            f"Under torch.device('meta') build_model() makes {some(real)} on another device.",
            "Do not name a device in build_model(): the core moves the model.",
        )
        with must_work(
            "A model on the meta device cannot run one step on example_batch()",
            "Override example_batch() to make a batch on the model's device, and read no values of tensors in "
            "forward() and loss().",
        ):
            batch = paradigm.example_batch(model, 2)
            _total(paradigm.loss(paradigm.forward(model, batch), batch)).backward()

    def test_fresh_weights_depend_on_the_seed_alone(self) -> None:
        """``torch.manual_seed`` decides all of them, and nothing else does."""
        first, again, other = (
            snapshot(
                build_member(
                    PARADIGMS.build(dict(self.paradigm)), Member("member", self.model), seed=seed
                )
            )
            for seed in (1, 1, 2)
        )
        different = changed(first, again)
        require(
            not different,
            f"Under one seed build_model() makes different {some(different)}.",
            "Draw fresh weights from torch's global random state alone, as torch.nn.init does.",
        )
        require(
            changed(first, other),
            "Under another seed build_model() makes the same weights.",
            "Set no seed in build_model(), and load no weights there: init= does that.",
        )

    def test_outputs_are_those_it_names(self) -> None:
        """``forward`` returns every name in ``outputs``, and ``features`` are [batch, ...,
        width].
        """
        paradigm, model = self.make()
        require(
            isinstance(paradigm.outputs, frozenset) and set(paradigm.features) <= paradigm.outputs,
            f"outputs is {paradigm.outputs!r} and features is {paradigm.features!r}.",
            "Name in outputs, a frozenset, what forward() returns, and in features those to compare by default.",
        )
        with torch.no_grad():
            outputs = paradigm.forward(model, self.batch(paradigm))
        require(
            paradigm.outputs <= set(outputs),
            f"forward() does not return {some(paradigm.outputs - set(outputs))}, which outputs names.",
            "Return every output under its name, or leave it out of outputs.",
        )
        for name in paradigm.features:
            shape, floating = list(outputs[name].shape), outputs[name].is_floating_point()
            require(
                len(shape) > 1 and shape[0] == SAMPLES and floating,
                f"Of {SAMPLES} samples the feature '{name}' is a {outputs[name].dtype} of shape {shape}.",
                "Return features as floating-point [batch, ..., width], or leave the output out of features.",
            )

    def test_example_has_the_shapes_of_real_batches(self) -> None:
        """Outputs of the example batch are as large as those of real data."""
        paradigm, model = self.make()
        with torch.no_grad():
            example = paradigm.forward(model, paradigm.example_batch(model, SAMPLES))
            real = paradigm.forward(model, self.batch(paradigm))
        sizes = [{name: list(output.shape) for name, output in o.items()} for o in (example, real)]
        require(
            sizes[0] == sizes[1],
            f"Outputs of example_batch() are of shapes {sizes[0]}, those of a real batch {sizes[1]}.",
            "Override example_batch(): its batch must have the shapes of a prepared batch of real samples.",
        )

    def test_prepare_draws_from_its_generator(self) -> None:
        """One seed of the generator makes one batch, and global random states have no part in
        it.
        """
        paradigm, _ = self.make()
        raw = self._raw(paradigm)
        state = random_state()
        one, two = (
            paradigm.prepare(copy.deepcopy(raw), generator=torch.Generator().manual_seed(7))
            for _ in range(2)
        )
        drawn = drawn_since(state)
        do = "Draw only from the generator that prepare() is given: torch.randn(shape, generator=generator)."
        require(not drawn, f"prepare() draws from the global random state of {some(drawn)}.", do)
        different = _differences(one, two)
        require(
            not different,
            f"With one seed of its generator prepare() makes different {some(different)}.",
            do,
        )

    def test_loss_has_gradients(self) -> None:
        """The loss terms are finite scalars whose sum has gradients."""
        paradigm, model = self.make()
        batch = self.batch(paradigm)
        terms = paradigm.loss(paradigm.forward(model, batch), batch)
        require(
            isinstance(terms, Mapping) and terms,
            f"loss() returns {terms!r}.",
            "Return a dict of at least one term.",
        )
        wrong = [name for name, term in terms.items() if not is_finite_scalar(term)]
        require(
            not wrong,
            f"loss() returns terms that are no finite scalars: {some(wrong)}.",
            "Reduce every term to one number (.mean()), and guard divisions and logarithms.",
        )
        total = _total(terms)
        if total.requires_grad:
            total.backward()
        require(
            any(p.grad is not None and p.grad.any() for p in model.parameters()),
            "The loss has no gradient for any parameter of the model.",
            "Compute loss() from the outputs, without detach() and outside torch.no_grad().",
        )

    def test_teaches_what_it_forwards(self) -> None:
        """A teacher's outputs are those of ``forward``, whichever are needed."""
        paradigm, model = self.make()
        batch = self.batch(paradigm)
        wanted = [frozenset(paradigm.features), *({name} for name in sorted(paradigm.outputs))]
        with torch.no_grad(), evaluating(model):
            outputs = paradigm.forward(model, batch)
            for needs in wanted:
                taught = paradigm.teacher_forward(model, batch, frozenset(needs))
                missing = set(needs) - set(taught)
                require(
                    not missing,
                    f"teacher_forward() does not return {some(missing)}, which is needed.",
                    "Return at least the outputs in needs; fall back to forward() for what is not cheaper.",
                )
                different = [n for n in needs if not _close(taught[n], outputs[n])]
                require(
                    not different,
                    f"teacher_forward() returns another {some(different)} than forward() on the same batch.",
                    "Compute in teacher_forward() what forward() computes, or leave teacher_forward() out.",
                )

    def test_metrics_are_figures(self) -> None:
        """Every split has finite metrics, with a chance level where that has a meaning; the model
        stays as it is.
        """
        paradigm, model = self.make()
        before = snapshot(model)
        for split in paradigm.splits:
            metrics = self._metrics(paradigm, model, split)
            require(
                metrics,
                f"There is no metric for the split '{split}'.",
                "Return at least one from metrics().",
            )
            for name, metric in metrics.items():
                require(
                    isinstance(metric, Metric),
                    f"The metric '{name}' is {metric!r}.",
                    "Return compt.Metric(value, chance=..., higher_is_better=...) from metrics().",
                )
                require(
                    _is_figure(metric.value),
                    f"The metric '{name}' is {metric.value!r}.",
                    "Return a finite float: tensor.item(), and guard divisions by a count of 0.",
                )
                share = metric.higher_is_better and 0 <= metric.value <= 1
                require(
                    metric.chance is None
                    or (_is_figure(metric.chance) and (0 <= metric.chance <= 1 or not share)),
                    f"The chance level of the metric '{name}' is {metric.chance!r}.",
                    "Give Metric(chance=...) what guessing reaches, in the unit of the value, or None.",
                )
        touched = changed(before, model)
        require(
            not touched,
            f"metrics() changes {some(touched)} of the model.",
            "Measure on a copy what must change.",
        )

    def test_the_main_metric_is_stable(self) -> None:
        """Measuring twice gives the same figures in the same order: the first one is the report's
        main figure.
        """
        paradigm, model = self.make()
        for split in paradigm.splits[:1]:
            first, again = (self._metrics(paradigm, model, split) for _ in range(2))
            require(
                list(first) == list(again),
                f"Two measurements give metrics in different orders: {list(first)} and {list(again)}.",
                "Return the metrics in one order; the first of the first split is the main figure of the report.",
            )
            name = next(iter(first), "")
            require(
                not first or repr(first[name]) == repr(again[name]),
                f"Two measurements of one model give '{name}' two values.",
                "Draw nothing in metrics() and for held-out splits, or only from the global random states.",
            )

    def test_knows_how_many_samples_there_are(self) -> None:
        """``num_samples`` tells the length of the data set, which epochs are planned from."""
        paradigm, _ = self.make()
        for split in ("train", *paradigm.splits):
            told, there = paradigm.num_samples(split), len(paradigm.build_dataset(split))  # type: ignore[arg-type]
            require(
                told == there,
                f"num_samples('{split}') is {told}, and its data set has {there} samples.",
                "Leave num_samples() out, or let it tell the length of what build_dataset() returns.",
            )

    def test_exports_what_it_loads(self, tmp_path: Path) -> None:
        """A model that was exported and loaded gives equal outputs."""
        paradigm, model = self._exported(tmp_path)
        with must_work(
            "load() cannot read what export() wrote", "Write all that load() needs into the folder."
        ):
            loaded = paradigm.load(tmp_path)
        batch = self.batch(paradigm)
        outputs: list[Outputs] = []
        for one in (model, loaded):
            with torch.no_grad(), evaluating(one):
                outputs.append(paradigm.forward(one, batch))
        different = changed(*outputs)
        require(
            not different,
            f"A model that was exported and loaded gives another {some(different)}.",
            "Write all weights in export(), in full precision, with what else the outputs depend on.",
        )

    def test_recognises_its_exports(self, tmp_path: Path) -> None:
        """``recognises`` tells an export from other folders, files, and what is not there."""
        export, empty, file = tmp_path / "export", tmp_path / "empty", tmp_path / "notes.txt"
        export.mkdir()
        empty.mkdir()
        file.write_text("no model")
        paradigm, _ = self._exported(export)
        require(
            paradigm.recognises(export),
            "recognises() is False for what export() wrote.",
            "Override recognises(path): True where load() can read the path.",
        )
        for what, path in (
            ("an empty folder", empty),
            ("a text file", file),
            ("nothing", tmp_path / "nowhere"),
        ):
            with must_work(
                f"recognises() fails for {what}", "Return False for what load() cannot read."
            ):
                found = paradigm.recognises(path)
            require(
                not found,
                f"recognises() is True for {what}.",
                "Look for the files that load() reads.",
            )

    def test_loads_weights(self, tmp_path: Path) -> None:
        """``load_weights`` fills a model from a stage's weights and from an export, or raises
        ConfigError.
        """
        export, weights, damaged = (
            tmp_path / "export",
            tmp_path / WEIGHTS,
            tmp_path / "damaged.safetensors",
        )
        export.mkdir()
        damaged.write_bytes(b"no weights")
        paradigm, model = self._exported(export)
        save_weights(model, weights)
        for what, path in (("a stage's weights.safetensors", weights), ("its export", export)):
            other = build_member(paradigm, Member("member", self.model), seed=5)
            with must_work(
                f"load_weights() cannot read {what}",
                "End load_weights() with super().load_weights().",
            ):
                paradigm.load_weights(other, path)
            different = changed(tensors_of(model), other)
            require(
                not different,
                f"load_weights() of {what} leaves {some(different)} as it was.",
                "Load strictly, with compt.weights.load_state: all of the model's tensors, or ConfigError.",
            )
        try:
            paradigm.load_weights(model, damaged)
        except ConfigError:
            return
        except Exception as error:
            raise Violation(
                f"load_weights() of a damaged file raises {described(error)}.",
                "Raise compt.ConfigError: compt.weights.read_state does.",
            ) from error
        raise Violation("load_weights() accepts a damaged file.", "Raise compt.ConfigError.")

    def test_trains_and_resumes(self, tmp_path: Path) -> None:
        """A stage that was interrupted goes on from its checkpoint, and ends in the same bytes."""
        whole, broken = tmp_path / "whole", tmp_path / "broken"
        with by_name(PARADIGMS, self.paradigm) as paradigm:
            config = chain_config(paradigm, [self.model], iters=2, batch_size=SAMPLES)
            do = f"Mend what it says; the training split needs at least {SAMPLES} samples."
            trained(config, whole, do)
            require_results(config, whole)
            trained(config, broken, do, stop=True)
            do = "Let a second paradigm of one config go on where the first one stopped."
            trained(config, broken, do, resume=True)
        one, two = (
            (folder / stage_name(0, "member_0") / WEIGHTS).read_bytes()
            for folder in (whole, broken)
        )
        require(
            one == two,
            "A stage that was interrupted and resumed ends in other weights than one that was not.",
            "Keep in the paradigm nothing that iterations change, and take what is random in prepare() from its "
            "generator: a resumed stage has a new paradigm.",
        )

    def test_grows_a_chain(self, tmp_path: Path) -> None:
        """A second, larger member inherits the first one's weights, and learns from it."""
        if self.larger is None:
            return
        with by_name(PARADIGMS, self.paradigm) as paradigm:
            config = chain_config(paradigm, [self.model, self.larger], iters=2, batch_size=SAMPLES)
            do = "Mend what it says: growing needs a layout of the model's class, transfer needs features."
            trained(config, tmp_path / "chain", do)
            require_results(config, tmp_path / "chain")

    # How it is done

    def _raw(self, paradigm: Paradigm, split: str = "train") -> Batch:
        """Real samples, collated."""
        dataset = paradigm.build_dataset(split)
        require(
            len(dataset) >= SAMPLES,  # type: ignore[arg-type]
            f"The split '{split}' has fewer than {SAMPLES} samples.",
            "Give the contract's paradigm data of a few samples in every split.",
        )
        return paradigm.collate([dataset[i] for i in range(SAMPLES)])

    @torch.no_grad()
    def _metrics(self, paradigm: Paradigm, model: nn.Module, split: str) -> Mapping[str, Metric]:
        """Metrics of a batch that is read anew, under one random state."""
        with seeded(0), evaluating(model):
            return paradigm.metrics(model, split, [self.batch(paradigm, split)])

    def _exported(self, folder: Path) -> tuple[Paradigm, nn.Module]:
        """The paradigm and a model with random gains and biases, exported; it is as it was
        before.
        """
        paradigm, model = self.make()
        before = snapshot(randomised(model, scale=0.05))
        with must_work(
            "export() fails",
            "Write the model into the folder, which is empty, in its library's format.",
        ):
            paradigm.export(model, folder)
        touched = changed(before, model)
        require(not touched, f"export() changes {some(touched)} of the model.", "Convert a copy.")
        return paradigm, model


def _total(terms: Mapping[str, Tensor]) -> Tensor:
    first, *others = terms.values()
    return sum(others, start=first)


def _is_figure(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _close(one: Tensor, other: Tensor) -> bool:
    """Equal but for rounding, which a cheaper path may change."""
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def _differences(one: Any, other: Any, name: str = "batch") -> list[str]:
    """Names of the tensors that differ in two batches, whatever they are nested in."""
    if isinstance(one, Tensor):
        return [] if isinstance(other, Tensor) and not changed({"": one}, {"": other}) else [name]
    if isinstance(one, Mapping):
        keys = {*one, *other}
        return [
            found for key in keys for found in _differences(one.get(key), other.get(key), str(key))
        ]
    if isinstance(one, (list, tuple)):
        return [
            found for pair in zip(one, other, strict=True) for found in _differences(*pair, name)
        ]
    return []
