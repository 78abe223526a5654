"""What plug-ins are told at every step, and the state that they keep."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import compt
import tests.training.self_taught  # noqa: F401 - registers the paradigm
from compt.errors import ConfigError, PluginError
from compt.growth.convert import grow_checkpoint
from compt.growth.inherited import finish_growth
from compt.interfaces import Member, Paradigm, Transferer
from compt.registry import PARADIGMS, TRANSFERERS
from compt.testing.toy import Toy, ToyNet
from compt.training.numbered import NumberedCollate
from compt.training.stage import StageModel
from tests.training.self_taught import SelfTaught, SelfTaughtNet


@pytest.fixture
def register() -> Iterator[Any]:
    """Register classes under names for one test."""
    names: list[tuple[Any, str]] = []

    def add(registry, name: str, cls: type) -> str:
        registry.register_module(name=name, module=cls, force=True)
        names.append((registry, name))
        return name

    yield add
    for registry, name in names:
        registry.module_dict.pop(name)


def chain(paradigm: str, *models: dict[str, Any], iters: int = 4, **keys: Any) -> dict[str, Any]:
    config = dict(
        paradigm=dict(type=paradigm, samples=64),
        train_dataloader=dict(batch_size=16),
        checkpoint=dict(interval=2),
        evaluations=1,
        chain=[dict(name=f"m{i}", model=model, iters=iters) for i, model in enumerate(models)],
    )
    return config | keys


SMALL, LARGE = dict(width=8, depth=1), dict(width=16, depth=2)


# After a step


class Watching(Toy):
    seen: list[Any]

    def after_step(self, model, outputs, batch, progress):
        self.seen.append(
            {
                "progress": progress,
                "outputs": {name: output.requires_grad for name, output in outputs.items()},
                "batch": sorted(batch),
                "grad": torch.is_grad_enabled(),
            }
        )


@pytest.mark.parametrize(
    ("counts", "progress"), [(1, [i / 10 for i in range(1, 11)]), (4, [0.4, 0.8, 1.0])]
)
def test_after_step_runs_once_a_step_of_the_optimizer(register, tmp_path, counts, progress):
    """The last step is one too, however few iterations it sums up."""
    Watching.seen = []
    config = chain(register(PARADIGMS, "watching", Watching), SMALL, iters=10)
    optimizer = dict(type="AdamW", lr=1e-3)
    config["optim_wrapper"] = dict(optimizer=optimizer, accumulative_counts=counts)
    compt.train(config, work_dir=tmp_path / "run")
    assert [step["progress"] for step in Watching.seen] == pytest.approx(progress)
    for step in Watching.seen:
        assert step["outputs"] == {"features": False, "logits": False}
        assert step["batch"] == ["label", "x"]
        assert not step["grad"]


class OfApi11(Toy):
    """Written before there was more to take, and calls its base as it was then."""

    api_version = "1.1"
    calls: list[str]

    def prepare(self, batch, *, generator):
        self.calls.append("prepare")
        return super(Toy, self).prepare(batch, generator=generator)

    def after_step(self, model):
        self.calls.append("after_step")
        super(Toy, self).after_step(model)

    def metrics(self, model, split, batches):
        self.calls.append("metrics")
        return super().metrics(model, split, batches)


class TransferOfApi11(Transferer):
    api_version = "1.1"

    def forward(self, student, teacher, *, progress):
        return {"mean": (student["features"].mean() - teacher["features"].mean()).square()}


def test_plug_ins_of_the_version_before_run_as_they_did(register, tmp_path):
    OfApi11.calls = []
    config = chain(register(PARADIGMS, "old", OfApi11), SMALL, LARGE, iters=2)
    config["transfer"] = dict(type=register(TRANSFERERS, "old_transfer", TransferOfApi11))
    compt.train(config, work_dir=tmp_path / "run")
    assert OfApi11.calls.count("after_step") == 4
    assert set(OfApi11.calls) == {"prepare", "after_step", "metrics"}


def test_outputs_are_without_gradients_whatever_they_are_nested_in(make, batch):
    stage = make(teacher=None)
    stage.paradigm.after_step = lambda model, outputs: None
    leaf = torch.ones(2, requires_grad=True)
    stage._remember({"crops": [2 * leaf, {"half": 3 * leaf}], "name": "crops"}, batch)
    outputs, kept_batch = stage._last
    assert not outputs["crops"][0].requires_grad
    assert not outputs["crops"][1]["half"].requires_grad
    assert outputs["name"] == "crops"
    assert kept_batch == {}, "it was not asked for"


def test_nothing_is_kept_for_who_does_not_ask(make, batch):
    stage = make(teacher=None)
    stage(mode="loss", **batch)
    assert stage._last == ({}, {})


class WithoutAfterStep(Toy):
    after_step = Paradigm.after_step


def test_nothing_is_kept_where_nothing_is_done_after_a_step(register, batch):
    name = register(PARADIGMS, "without_after_step", WithoutAfterStep)
    stage = StageModel(dict(type=name), dict(name="a", model=dict(width=8, depth=1)))
    stage(mode="loss", **batch)
    assert stage._last == ({}, {})


class TakesProgressAlone(Toy):
    def after_step(self, model, *, progress):
        self.progress = progress


def test_a_method_gets_what_it_names_and_no_more(register):
    name = register(PARADIGMS, "progress_alone", TakesProgressAlone)
    stage = StageModel(dict(type=name), dict(name="m", model=SMALL))
    stage.iteration, stage.max_iters = 2, 4
    stage.after_step()
    assert stage.paradigm.progress == 0.75


class TakesWhatIsNotThere(Toy):
    def after_step(self, model, *, loss):
        pass


class RulesForNoBuffer(Toy):
    buffer_rules = {"center": "mean"}


@pytest.mark.parametrize(
    ("paradigm", "words"),
    [
        (TakesWhatIsNotThere, r"TakesWhatIsNotThere\.after_step\(\).*'loss'"),
        (RulesForNoBuffer, r"RulesForNoBuffer\.buffer_rules names 'center'"),
    ],
)
def test_what_cannot_be_is_said_when_the_chain_is_planned(register, paradigm, words):
    name = register(PARADIGMS, "cannot_be", paradigm)
    with pytest.raises(PluginError, match=words):
        compt.plan(chain(name, SMALL))


class TransferOfMore(TransferOfApi11):
    def forward(self, student, teacher, *, progress, labels):
        return {}


class RulesOfTransfer(TransferOfApi11):
    buffer_rules = {"centre": "mean"}


@pytest.mark.parametrize("transfer", [TransferOfMore, RulesOfTransfer])
def test_so_it_is_for_transferers(register, transfer):
    name = register(TRANSFERERS, "cannot_be", transfer)
    with pytest.raises(PluginError, match=transfer.__name__):
        compt.plan(chain("toy", SMALL, LARGE, transfer=dict(type=name)))


# Training and evaluation


def test_prepare_and_the_model_know_training_from_evaluation(make, batch):
    stage = make(teacher=None)
    stage.paradigm.prepare = lambda raw, *, generator, training: {**raw, "training": training}
    known = []
    stage._student_forward = lambda model, ready: known.append((ready["training"], model.training))
    stage.train()(**batch)
    stage.eval()(**batch)
    assert known == [(True, True), (False, False)]


class Modes(Toy):
    modes: set[Any]

    def prepare(self, batch, *, generator, training):
        self.modes.add(("prepare", training))
        return batch

    def forward(self, model, batch):
        self.modes.add(("forward", model.training))
        return super().forward(model, batch)

    def metrics(self, model, split, batches, *, batches_of):
        self.modes.clear()
        metrics = super().metrics(model, split, batches)
        assert self.modes == {("prepare", False), ("forward", False)}
        return metrics


def test_evaluations_are_no_training(register, tmp_path):
    Modes.modes = set()
    config = chain(register(PARADIGMS, "modes", Modes), SMALL, evaluations=2)
    compt.train(config, work_dir=tmp_path / "run")
    # what follows the first of the two evaluations is training again
    assert Modes.modes == {("prepare", False), ("forward", False)}


class WithBank(Toy):
    banks: list[Any]

    def build_dataset(self, split):
        dataset = super().build_dataset(split)
        return [(x + 9, label) for x, label in dataset] if split == "train" else dataset

    def build_reference(self, split):
        return super().build_dataset(split)

    def prepare(self, batch, *, generator):
        return batch

    def metrics(self, model, split, batches, *, batches_of):
        points = torch.cat([batch["x"] for batch in batches_of("train")])
        again = torch.cat([batch["x"] for batch in batches_of("train")])
        self.banks.append((points, again, torch.cat([b["x"] for b in batches_of("val")])))
        return super().metrics(model, split, batches)


def test_metrics_may_read_other_splits(register, tmp_path):
    """Every sample, in order, and without what the training set adds to it."""
    WithBank.banks = []
    config = chain(register(PARADIGMS, "with_bank", WithBank), SMALL)
    compt.train(config, work_dir=tmp_path / "run")
    toy = Toy(samples=64)
    (points, again, val), *_ = WithBank.banks
    assert torch.equal(points, toy.build_dataset("train").tensors[0])
    assert torch.equal(points, again)
    assert torch.equal(val, toy.build_dataset("val").tensors[0])


class AsksForNone(Toy):
    def metrics(self, model, split, batches, *, batches_of):
        return super().metrics(model, split, batches_of("trian"))


def test_a_split_that_is_not_there_is_named(register, tmp_path):
    config = chain(register(PARADIGMS, "asks_for_none", AsksForNone), SMALL, iters=1)
    with pytest.raises(PluginError, match=r"AsksForNone\.metrics\(\).*'trian'.*'train'"):
        compt.train(config, work_dir=tmp_path / "run")


# The numbers of samples


class Numbered(Toy):
    """Points that are their own number."""

    sample_index = True
    seen: list[Any]

    def build_dataset(self, split):
        return [(torch.full((8,), float(i)), i % 10) for i in range(64)]

    def collate(self, samples):
        points, labels = zip(*samples, strict=True)
        return {"x": torch.stack(points), "label": torch.tensor(labels)}

    def example_batch(self, model, batch_size):
        example = super().example_batch(model, batch_size)
        return {**example, "index": torch.zeros_like(example["label"])}

    def prepare(self, batch, *, generator, training):
        self.seen.append((training, batch["index"]))
        return {name: batch[name] for name in ("x", "label")}

    def loss(self, outputs, batch):
        if not batch["x"].is_meta:
            assert torch.equal(batch["x"][:, 0].long(), batch["index"])
        return super().loss(outputs, batch)


def test_batches_hold_the_numbers_of_their_samples(register, tmp_path):
    """Also where prepare() leaves them out."""
    Numbered.seen = []
    config = chain(register(PARADIGMS, "numbered", Numbered), SMALL)
    config["val_dataloader"] = dict(batch_size=64)
    compt.train(config, work_dir=tmp_path / "run")
    training = torch.cat([numbers for training, numbers in Numbered.seen if training])
    evaluating = [numbers for training, numbers in Numbered.seen if not training]
    assert sorted(training.tolist()) == list(range(64))
    assert training.tolist() != list(range(64))
    assert evaluating[-1].tolist() == list(range(64))


@pytest.mark.parametrize(
    ("batch", "words"), [({"index": 0}, "returns 'index'"), ([0], "returns a list")]
)
def test_a_batch_without_room_for_them_is_refused(batch, words):
    with pytest.raises(PluginError, match=words):
        NumberedCollate(lambda samples: batch)([(0, "sample")])


# What transferers read and keep


class Remembering(Transferer):
    """Draws students to a running mean of the teacher's features by class."""

    sample_index = True

    def bind(self, teacher, student):
        self.needs = frozenset({"features"})
        width = teacher.features["features"]
        self.head = nn.Linear(student.features["features"], width)
        self.register_buffer("means", torch.zeros(10, width))
        self.register_buffer("num_seen", torch.zeros(64, dtype=torch.long))

    def forward(self, student, teacher, *, progress, batch):
        with torch.no_grad():
            self.means[batch["label"]] = 0.5 * self.means[batch["label"]] + teacher["features"]
            self.num_seen[batch["index"]] += 1
        target = self.means[batch["label"]].clone()
        return {"means": (self.head(student["features"]) - target).square().mean()}


@pytest.mark.parametrize("composed", [False, True])
def test_a_transferer_reads_the_batch_and_resumes_with_its_state(
    register, tmp_path, monkeypatch, composed
):
    transfer = dict(type=register(TRANSFERERS, "remembering", Remembering))
    if composed:
        transfer = dict(type="compose", transfers=[dict(type="cosine"), transfer])
    config = chain("toy", SMALL, LARGE, iters=3, transfer=transfer)
    whole, interrupted = tmp_path / "whole", tmp_path / "interrupted"
    after_step, num_seen = StageModel.after_step, []

    def counting(self):
        after_step(self)
        if self.transfer is not None:
            buffers = dict(self.transfer.named_buffers())
            (seen,) = [buffer for name, buffer in buffers.items() if name.endswith("num_seen")]
            num_seen.append(seen.sum().item() // 16)

    def stopping(self):
        counting(self)
        if num_seen[-1:] == [3]:
            raise KeyboardInterrupt

    compt.train(config, work_dir=whole)
    with monkeypatch.context() as patch:
        patch.setattr(StageModel, "after_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            compt.train(config, work_dir=interrupted)
        patch.setattr(StageModel, "after_step", counting)
        compt.train(config, work_dir=interrupted, resume=True)
    assert num_seen == [1, 2, 3, 3], "the third step is made again, from the state of the second"
    weights = [folder / "02_m1" / "weights.safetensors" for folder in (whole, interrupted)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


class NeedsNoNumbers(Toy):
    def prepare(self, batch, *, generator):
        assert set(batch) == {"x", "label"}
        return batch


def test_only_who_asks_sees_the_numbers(register, make, batch):
    name = register(PARADIGMS, "needs_no_numbers", NeedsNoNumbers)
    transfer = dict(type=register(TRANSFERERS, "remembering", Remembering))
    stage = make(transfer=transfer)
    stage.paradigm = PARADIGMS.build(dict(type=name))
    stage(mode="loss", **batch, index=torch.arange(8))
    assert stage.transfer.num_seen.sum() == 8


# What is not trained


def test_what_is_not_trained_is_neither_counted_nor_in_the_optimizer(tmp_path):
    plan = compt.plan(chain("self_taught", SMALL, LARGE))
    trained = [sum(p.numel() for p in ToyNet(**model).parameters()) for model in (SMALL, LARGE)]
    assert [stage.params for stage in plan.stages] == trained
    assert plan.stages[1].expansion == trained[1] / trained[0]
    stage = StageModel(dict(type="self_taught"), dict(name="m", model=SMALL))
    from tests.training.conftest import optimizer

    groups = optimizer(stage).optimizer.param_groups
    held = {id(param) for group in groups for param in group["params"]}
    assert held == {id(param) for param in stage.student.student.parameters()}


def test_mmengines_constructor_leaves_out_what_is_not_trained():
    from mmengine.optim import build_optim_wrapper

    stage = StageModel(dict(type="self_taught"), dict(name="m", model=SMALL))
    config = dict(
        constructor="ComptOptimWrapperConstructor",
        optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.1),
        paramwise_cfg=dict(norm_decay_mult=0.0),
    )
    groups = build_optim_wrapper(stage, config).optimizer.param_groups
    held = {id(param) for group in groups for param in group["params"]}
    assert held == {id(param) for param in stage.student.student.parameters()}


class AllFrozen(Toy):
    def build_model(self, member):
        return super().build_model(member).requires_grad_(False)


def test_a_model_with_nothing_to_train_is_refused(register):
    name = register(PARADIGMS, "all_frozen", AllFrozen)
    with pytest.raises(ConfigError, match="No parameter of the model is trained"):
        compt.plan(chain(name, SMALL))


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A trained chain of two that teach themselves."""
    folder = tmp_path_factory.mktemp("taught") / "run"
    compt.train(chain("self_taught", SMALL, LARGE, transfer=dict(type="cosine")), work_dir=folder)
    return folder


def test_what_is_not_trained_is_not_inherited(taught):
    """The grown average is the grown student, and counts begin anew."""
    first = load_file(taught / "01_m0" / "weights.safetensors")
    assert first["num_steps"] == 4
    assert first["centre"].any()
    grown = load_file(taught / "02_m1" / "grown.safetensors")
    for name, value in grown.items():
        if name.startswith("average."):
            assert torch.equal(value, grown[name.replace("average.", "student.")]), name
    assert not grown["num_steps"]
    assert not grown["centre"].any()
    assert not grown["queue"].any()
    growth = json.loads((taught / "02_m1" / "growth.json").read_text())["growth"]
    assert {"centre", "queue", "num_steps"} <= set(growth["reset"])
    assert not any(name.startswith("student.") for name in growth["reset"])


def test_a_checkpoint_grown_by_hand_is_reset_too(taught, tmp_path):
    (tmp_path / "large.json").write_text(json.dumps(LARGE))
    report = grow_checkpoint(
        taught / "01_m0", str(tmp_path / "large.json"), tmp_path / "out", paradigm="self_taught"
    )
    assert {"centre", "queue", "num_steps"} <= set(report["reset"])
    assert not load_file(tmp_path / "out" / "self_taught.safetensors")["queue"].any()


class ShiftsTheOutputs(SelfTaught):
    """Its model has a shift that is not trained, and that it sets anew."""

    def build_model(self, member):
        model = ToyNet(**member.model)
        model.head.bias.requires_grad_(False)
        return model

    def after_growth(self, model):
        model.head.bias.fill_(1.0)


def test_the_report_is_true_after_the_reset():
    paradigm = ShiftsTheOutputs(samples=8)
    small, large = (paradigm.build_model(Member("m", model)) for model in (SMALL, LARGE))
    growth = compt.grow(small, large)
    assert growth.function_preserving
    growth, reset = finish_growth(paradigm, small, large, growth)
    assert reset == ("head.bias",)
    assert not growth.function_preserving
    assert growth.error > 0.1
    assert "ShiftsTheOutputs.after_growth()" in growth.reason


class SetsWhatIsTrained(SelfTaught):
    def after_growth(self, model):
        model.student.head.bias.zero_()


def test_what_is_trained_stays_the_growers(register, tmp_path):
    name = register(PARADIGMS, "sets_what_is_trained", SetsWhatIsTrained)
    with pytest.raises(PluginError, match=r"SetsWhatIsTrained\.after_growth\(\) changes"):
        compt.train(chain(name, SMALL, LARGE, iters=1), work_dir=tmp_path / "run")


def test_examples_of_crops_are_moved_to_the_models_device():
    """Whatever they are nested in."""

    class Crops(SelfTaught):
        sample_index = False
        example_batch = Toy.__mro__[1].example_batch

    paradigm = Crops(samples=8)
    with torch.device("meta"):
        model = paradigm.build_model(Member("m", SMALL))
    batch = paradigm.example_batch(model, 2)
    assert {name: crop.device.type for name, crop in batch["crops"].items()} == {
        "whole": "meta",
        "half": "meta",
    }
    assert copy.deepcopy(model).centre.is_meta
    assert isinstance(model, SelfTaughtNet)
