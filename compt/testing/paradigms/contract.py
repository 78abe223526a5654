"""The contract of paradigms."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from compt.files import WEIGHTS, stage_name
from compt.growth.axes import evaluating
from compt.growth.models import build_member
from compt.interfaces import Batch, Member, Metric, Outputs, Paradigm, accepted
from compt.registry import PARADIGMS
from compt.testing._chains import by_name, chain_config, require_results, trained
from compt.testing._contract import Contract, require_fitting_rules, require_signatures
from compt.testing._shared import (
    changed,
    must_work,
    require,
    seeded,
    snapshot,
    some,
)
from compt.testing.paradigms.comparison import total
from compt.testing.paradigms.folders import (
    export_randomised,
    require_damage_refused,
    require_loaded_weights,
    require_recognised,
)
from compt.testing.paradigms.metrics import require_equal_metrics, require_metrics
from compt.testing.paradigms.outputs import (
    require_declared_outputs,
    require_equal_shapes,
    require_gradients,
    require_outputs,
    require_seeded_batch,
    require_teacher_outputs,
)
from compt.testing.paradigms.starting import require_draft, require_example_data
from compt.testing.paradigms.state import (
    require_equal_marks,
    require_state_in_model,
    require_true_reset,
)
from compt.training.numbered import NumberedCollate

SAMPLES = 4
"""The samples in every batch of the contract."""


class ParadigmContract(Contract):
    """Tests that a paradigm builds, measures, exports and loads models as the core expects.

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
        """Return the paradigm and a model of it."""
        paradigm = self._build()
        return paradigm, paradigm.build_model(self._member)

    def batch(self, paradigm: Paradigm, split: str = "train") -> Batch:
        """Return a prepared batch of four real samples, for training if they are of 'train'."""
        return self._prepared(paradigm, self._raw(paradigm, split), training=split == "train")

    # What is checked

    def test_methods_take_what_the_core_gives(self) -> None:
        """Require the signatures of the interface."""
        require_signatures(self._build(), Paradigm)

    def test_builds_on_meta(self) -> None:
        """Require that a model on the meta device runs one step, as the planner has it do."""
        paradigm = self._build()
        with (
            must_work(
                "build_model() fails under torch.device('meta'), where plans call it",
                "Read no values of tensors in build_model(), and load no weights there.",
            ),
            torch.device("meta"),
        ):
            model = paradigm.build_model(self._member)
        real = [n for n, p in model.named_parameters() if not p.is_meta]
        require(
            not real,
            f"Under torch.device('meta') build_model() makes {some(real)} on another device.",
            "Do not name a device in build_model(): the core moves the model.",
        )
        require_equal_marks(model, self.make()[1])
        with must_work(
            "A model on the meta device cannot run one step on example_batch()",
            "Override example_batch() to make a batch on the model's device, and read no values of "
            "tensors in forward() and loss().",
        ):
            batch = paradigm.example_batch(model, 2)
            total(paradigm.loss(paradigm.forward(model, batch), batch)).backward()

    def test_fresh_weights_depend_on_the_seed_alone(self) -> None:
        """Require that ``torch.manual_seed`` decides all fresh weights, and nothing else does."""
        first, again, other = (
            snapshot(build_member(self._build(), self._member, seed=seed)) for seed in (1, 1, 2)
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
        """Require all that ``outputs`` names of ``forward``, and features [batch, ..., width]."""
        paradigm, model = self.make()
        require_declared_outputs(paradigm)
        with torch.no_grad():
            outputs = paradigm.forward(model, self.batch(paradigm))
        require_outputs(paradigm, outputs, SAMPLES)

    def test_example_has_the_shapes_of_real_batches(self) -> None:
        """Require outputs of the example batch as large as those of real data."""
        paradigm, model = self.make()
        with torch.no_grad():
            example = paradigm.forward(model, paradigm.example_batch(model, SAMPLES))
            real = paradigm.forward(model, self.batch(paradigm))
        require_equal_shapes(example, real)

    def test_prepare_draws_from_its_generator(self) -> None:
        """Require one batch of one seed of the generator, whatever the global random states.

        That is so in training and in evaluation.
        """
        paradigm, _ = self.make()
        for training in (True, False):
            require_seeded_batch(paradigm, self._raw(paradigm), training=training)

    def test_loss_has_gradients(self) -> None:
        """Require finite loss terms, scalars whose sum has gradients."""
        paradigm, model = self.make()
        batch = self.batch(paradigm)
        terms = paradigm.loss(paradigm.forward(model, batch), batch)
        require_gradients(terms, model)

    def test_keeps_its_state_in_the_model(self) -> None:
        """Require that a new paradigm trains a model on as the one before it would have."""

        def make() -> tuple[Paradigm, nn.Module]:
            paradigm = self._build()
            return paradigm, build_member(paradigm, self._member, seed=1)

        require_state_in_model(make, self.batch)

    def test_buffers_have_known_rules(self) -> None:
        """Require of ``buffer_rules`` that each is known and fits a buffer of the model."""
        paradigm, model = self.make()
        require_fitting_rules(paradigm.buffer_rules, model)

    def test_resets_what_is_not_inherited(self) -> None:
        """Require that ``after_growth`` leaves nothing of what it resets, and what is trained."""
        paradigm, model = self.make()
        require_true_reset(paradigm, model, copy.deepcopy(model))

    def test_teaches_what_it_forwards(self) -> None:
        """Require a teacher's outputs to be those of ``forward``, whichever are needed."""
        paradigm, model = self.make()
        batch = self.batch(paradigm)
        with torch.no_grad(), evaluating(model):
            require_teacher_outputs(paradigm, model, batch)

    def test_metrics_are_figures(self) -> None:
        """Require finite metrics of every split, and a model that stays as it is."""
        paradigm, model = self.make()
        values = snapshot(model)
        for split in paradigm.splits:
            require_metrics(self._metrics(paradigm, model, split), split)
        touched = changed(values, model)
        require(
            not touched,
            f"metrics() changes {some(touched)} of the model.",
            "Measure on a copy what must change.",
        )

    def test_the_main_metric_is_stable(self) -> None:
        """Require that measuring twice gives the same metrics, the report's main one first."""
        paradigm, model = self.make()
        for split in paradigm.splits[:1]:
            first, second = (self._metrics(paradigm, model, split) for _ in range(2))
            require_equal_metrics(first, second)

    def test_knows_how_many_samples_there_are(self) -> None:
        """Require of ``num_samples`` the length of the data set, which epochs are planned from."""
        paradigm, _ = self.make()
        for split in ("train", *paradigm.splits):
            planned = paradigm.num_samples(split)
            built = len(paradigm.build_dataset(split))  # type: ignore[arg-type]
            require(
                planned == built,
                f"num_samples('{split}') is {planned}, and its data set has {built} samples.",
                "Leave num_samples() out, or let it tell the length of what build_dataset() "
                "returns.",
            )

    def test_exports_what_it_loads(self, tmp_path: Path) -> None:
        """Require equal outputs of a model that was exported and loaded."""
        paradigm, model = self.make()
        export_randomised(paradigm, model, tmp_path)
        with must_work(
            "load() cannot read what export() wrote", "Write all that load() needs into the folder."
        ):
            loaded = paradigm.load(tmp_path)
        batch = self.batch(paradigm)
        outputs: list[Outputs] = []
        for module in (model, loaded):
            with torch.no_grad(), evaluating(module):
                outputs.append(paradigm.forward(module, batch))
        different = changed(*outputs)
        require(
            not different,
            f"A model that was exported and loaded gives another {some(different)}.",
            "Write all weights in export(), in full precision, with what else the outputs depend "
            "on.",
        )

    def test_recognises_its_exports(self, tmp_path: Path) -> None:
        """Require that ``recognises`` tells an export from other folders and files."""
        export, empty, file = tmp_path / "export", tmp_path / "empty", tmp_path / "notes.txt"
        export.mkdir()
        empty.mkdir()
        file.write_text("no model")
        paradigm, model = self.make()
        export_randomised(paradigm, model, export)
        others = {"an empty folder": empty, "a text file": file, "nothing": tmp_path / "nowhere"}
        require_recognised(paradigm, export, others)

    def test_loads_weights(self, tmp_path: Path) -> None:
        """Require that ``load_weights`` fills a model, or raises ConfigError."""
        export = tmp_path / "export"
        export.mkdir()
        paradigm, model = self.make()
        export_randomised(paradigm, model, export)
        require_loaded_weights(
            paradigm, model, export, lambda: build_member(paradigm, self._member, seed=5)
        )
        require_damage_refused(paradigm, model, tmp_path / "damaged.safetensors")

    def test_trains_and_resumes(self, tmp_path: Path) -> None:
        """Require that a stage that was interrupted and resumed ends in the same bytes."""
        whole, interrupted = tmp_path / "whole", tmp_path / "interrupted"
        with by_name(PARADIGMS, self.paradigm) as paradigm:
            config = chain_config(paradigm, [self.model], iters=2, batch_size=SAMPLES)
            do = f"Mend what it says; the training split needs at least {SAMPLES} samples."
            trained(config, whole, do)
            require_results(config, whole)
            trained(config, interrupted, do, stop=True)
            do = "Let a second paradigm of one config go on where the first one stopped."
            trained(config, interrupted, do, resume=True)
        files = [folder / stage_name(0, "member_0") / WEIGHTS for folder in (whole, interrupted)]
        require(
            files[0].read_bytes() == files[1].read_bytes(),
            "A stage that was interrupted and resumed ends in other weights than one that was not.",
            "Keep in the paradigm nothing that iterations change, and take what is random in "
            "prepare() from its generator: a resumed stage has a new paradigm.",
        )

    def test_grows_a_chain(self, tmp_path: Path) -> None:
        """Train a larger member, which inherits the first one's weights and learns from it."""
        if self.larger is None:
            return
        with by_name(PARADIGMS, self.paradigm) as paradigm:
            config = chain_config(paradigm, [self.model, self.larger], iters=2, batch_size=SAMPLES)
            do = (
                "Mend what it says: growing needs a layout of the model's class, transfer needs "
                "features."
            )
            trained(config, tmp_path / "chain", do)
            require_results(config, tmp_path / "chain")

    def test_starts_a_chain(self) -> None:
        """Require of a ``starter`` a config of every preset, whose models are built."""
        starter = self._build().starter
        if starter is None:
            return
        require(
            starter.sizes and starter.needs,
            "Its starter has no sizes, or no needs.",
            "Name presets in sizes, and in needs what samples of the data must hold.",
        )
        require_example_data(starter)
        with by_name(PARADIGMS, self.paradigm) as paradigm:
            for preset in starter.sizes:
                require_draft(starter, preset, paradigm)

    # How it is done

    @property
    def _member(self) -> Member:
        return Member("member", self.model)

    def _build(self) -> Paradigm:
        """Return a new paradigm."""
        paradigm: Paradigm = PARADIGMS.build(dict(self.paradigm))
        return paradigm

    def plugin_class(self) -> type:
        """Return the class of the paradigm."""
        return type(self._build())

    def _prepared(self, paradigm: Paradigm, raw: Batch, *, training: bool) -> Batch:
        generator = torch.Generator().manual_seed(0)
        arguments = accepted(paradigm.prepare, training=training)
        return paradigm.prepare(raw, generator=generator, **arguments)

    def _raw(self, paradigm: Paradigm, split: str = "train", *, reference: bool = False) -> Batch:
        """Return real samples, collated."""
        build = paradigm.build_reference if reference else paradigm.build_dataset
        dataset = build(split)
        require(
            len(dataset) >= SAMPLES,  # type: ignore[arg-type]
            f"The split '{split}' has fewer than {SAMPLES} samples.",
            "Give the contract's paradigm data of a few samples in every split.",
        )
        if paradigm.sample_index:
            return NumberedCollate(paradigm.collate)([(i, dataset[i]) for i in range(SAMPLES)])
        return paradigm.collate([dataset[i] for i in range(SAMPLES)])

    @torch.no_grad()
    def _metrics(self, paradigm: Paradigm, model: nn.Module, split: str) -> Mapping[str, Metric]:
        """Measure a model on a batch that is read anew, under one random state."""

        def batches_of(other: str) -> list[Batch]:
            splits = ("train", *paradigm.splits)
            require(
                other in splits,
                f"metrics() asks for the batches of a split '{other}'.",
                f"Ask batches_of() for one of {splits}.",
            )
            raw = self._raw(paradigm, other, reference=True)
            return [self._prepared(paradigm, raw, training=False)]

        arguments = accepted(paradigm.metrics, batches_of=batches_of)
        with seeded(0), evaluating(model):
            batches = [self.batch(paradigm, split)]
            return paradigm.metrics(model, split, batches, **arguments)
