"""The contract of paradigms, which passes good ones and catches broken ones."""

from __future__ import annotations

import os
import random

import pytest
import torch
from safetensors.torch import save_file

from compt.interfaces import ConfigDraft, Metric, Paradigm, Starter
from compt.testing import ParadigmContract
from compt.testing.toy import Toy, ToyNet
from tests.testing.broken import (
    Case,
    blamed_alone,
    check,
    check_complete,
    check_good,
    check_others,
    outcome,
)
from tests.training.self_taught import SelfTaught


class Good(ParadigmContract):
    paradigm = dict(type="toy", samples=32)
    model = dict(width=8, depth=1)
    larger = dict(width=16, depth=2)


class Alone(ParadigmContract):
    """Without a larger member, which is optional."""

    paradigm = dict(type="toy", samples=32)
    model = dict(width=8, depth=1, rms=True)


class Taught(ParadigmContract):
    """With an average, buffers, rules, crops, numbered samples and a bank."""

    paradigm = dict(type=SelfTaught, samples=32)
    model = dict(width=8, depth=1)
    larger = dict(width=16, depth=2)


class ToyStarter(Starter):
    needs, data_noun = (("image",), ("text",)), "images or text"
    example_data = "stdlib"
    sizes = {"tiny": "8x1,16x1", "small": "16x2,32x2"}
    models = "dict(width={size.width}, depth={size.layers})"
    code = dict(optimizer='dict(type="SGD", lr=0.1)', options="samples=64,")

    def draft(self, seen, sizes, *, preset):
        models = [self.models.format(size=size) for size in sizes]
        return ConfigDraft(models=models, num_samples=seen.num_samples, **self.code)


@pytest.mark.parametrize("good", [Good, Alone, Taught], ids=lambda c: c.__name__)
def test_good_paradigms_pass(good, tmp_path):
    check_good(good, tmp_path)


def test_a_good_starter_passes(tmp_path):
    assert outcome(started(), "test_starts_a_chain", tmp_path) is None


def test_too_little_data_is_said_to_be_that(tmp_path):
    class Little(Good):
        paradigm = dict(type="toy", samples=8)

    error = outcome(Little, "test_metrics_are_figures", tmp_path)
    assert isinstance(error, AssertionError) and "'val' has fewer than 4 samples" in str(error)


# Broken paradigms


class AfterStepLacksTheModel(Toy):
    def after_step(self):
        self.steps += 1


class ReadsValues(Toy):
    def build_model(self, member):
        model = super().build_model(member)
        model.size = float(model.head.weight.detach().norm())
        return model


class NamesADevice(Toy):
    def build_model(self, member):
        model = super().build_model(member)
        model.head.bias = torch.nn.Parameter(torch.zeros(10, device="cpu"))
        return model


class ExampleOnTheCpu(Toy):
    def example_batch(self, model, batch_size):
        return {"x": torch.zeros(batch_size, 8), "label": torch.zeros(batch_size, dtype=torch.long)}


class DrawsWeightsElsewhere(Toy):
    def build_model(self, member):
        model = super().build_model(member)
        torch.nn.init.constant_(model.head.bias, int.from_bytes(os.urandom(4), "little") / 2**32)
        return model


class SetsTheSeed(Toy):
    def build_model(self, member):
        torch.manual_seed(0)
        return super().build_model(member)


class NamesTooMany(Toy):
    def __init__(self, **options):
        super().__init__(**options)
        self.outputs = self.outputs | {"tokens"}


class FeaturesNotAmongOutputs(Toy):
    features = ("tokens",)


class FlatFeatures(Toy):
    def forward(self, model, batch):
        outputs = super().forward(model, batch)
        return {**outputs, "features": outputs["features"].flatten()}


class ExampleTooLarge(Toy):
    def example_batch(self, model, batch_size):
        return super().example_batch(model, batch_size + 1)


class PreparesFromTorch(Toy):
    def prepare(self, batch, *, generator):
        return {**batch, "x": batch["x"] + 0.1 * torch.randn(batch["x"].shape)}


class PreparesFromPython(Toy):
    def prepare(self, batch, *, generator):
        return {**batch, "x": batch["x"] + random.random()}


class PreparesFromNowhere(Toy):
    def prepare(self, batch, *, generator):
        return {**batch, "x": batch["x"] + int.from_bytes(os.urandom(4), "little") / 2**42}


class PreparesEvaluationFromTorch(Toy):
    def prepare(self, batch, *, generator, training):
        return batch if training else {**batch, "x": batch["x"] + 0.1 * torch.randn(8)}


class NoTerms(Toy):
    def loss(self, outputs, batch):
        return {}


class TermsNotReduced(Toy):
    def loss(self, outputs, batch):
        return {"cross_entropy": torch.stack(2 * [super().loss(outputs, batch)["cross_entropy"]])}


class NoGradients(Toy):
    def loss(self, outputs, batch):
        return {"nothing": 0 * outputs["logits"].sum()}


class Detached(Toy):
    def loss(self, outputs, batch):
        return super().loss({n: o.detach() for n, o in outputs.items()}, batch)


class TeachesTooLittle(Toy):
    def teacher_forward(self, model, batch, needs):
        return {"features": model.features(batch["x"])}


class TeachesOtherwise(Toy):
    def teacher_forward(self, model, batch, needs):
        return {n: o + (n == "features") for n, o in self.forward(model, batch).items()}


class NoMetrics(Toy):
    def metrics(self, model, split, batches):
        return {}


class BareMetrics(Toy):
    def metrics(self, model, split, batches):
        return {
            name: metric.value for name, metric in super().metrics(model, split, batches).items()
        }


class NanMetric(Toy):
    def metrics(self, model, split, batches):
        return {"accuracy": Metric(float("nan"))}


class ChanceInPercent(Toy):
    def metrics(self, model, split, batches):
        return {
            "accuracy": Metric(
                super().metrics(model, split, batches)["accuracy"].value, chance=10.0
            )
        }


class MetricsChangeTheModel(Toy):
    def metrics(self, model, split, batches):
        model.head.bias.mul_(0)
        return super().metrics(model, split, batches)


class MetricsInAnyOrder(Toy):
    calls = 0

    def metrics(self, model, split, batches):
        type(self).calls += 1
        metrics = super().metrics(model, split, batches)
        return metrics if self.calls % 2 else dict(reversed(metrics.items()))


class MetricsThatWander(Toy):
    def metrics(self, model, split, batches):
        return {"accuracy": Metric(int.from_bytes(os.urandom(4), "little") / 2**32)}


class MiscountsSamples(Toy):
    def num_samples(self, split):
        return self.samples


class ExportsHalf(Toy):
    def export(self, model, folder):
        state = {name: value.bfloat16() for name, value in model.state_dict().items()}
        save_file(state, str(folder / "toy.safetensors"))


class ExportsTooLittle(Toy):
    def export(self, model, folder):
        save_file({"embed.weight": model.embed.weight.detach()}, str(folder / "toy.safetensors"))


class ExportFails(Toy):
    def export(self, model, folder):
        save_file(model.state_dict(), str(folder / "missing" / "toy.safetensors"))


class ExportChangesTheModel(Toy):
    def export(self, model, folder):
        super().export(model, folder)
        torch.nn.init.zeros_(model.head.bias)


class RecognisesAnything(Toy):
    def recognises(self, path):
        return True


class RecognisesNothing(Toy):
    def recognises(self, path):
        return False


class StumblesOverFiles(Toy):
    def recognises(self, path):
        return any(file.name == "toy.safetensors" for file in path.iterdir())


class LoadsNoWeights(Toy):
    def load_weights(self, model, path):
        if path.name != "damaged.safetensors":
            return
        super().load_weights(model, path)


class LoadsExportsAlone(Toy):
    def load_weights(self, model, path):
        model.load_state_dict(self.load(path).state_dict())


class AcceptsDamage(Toy):
    def load_weights(self, model, path):
        if path.name != "damaged.safetensors":
            super().load_weights(model, path)


class RaisesOfItsOwn(Toy):
    def load_weights(self, model, path):
        if path.name == "damaged.safetensors":
            raise OSError("cannot be read")
        super().load_weights(model, path)


class CountsItsSteps(Toy):
    def prepare(self, batch, *, generator):
        return {**super().prepare(batch, generator=generator), "x": batch["x"] + self.steps}


class AveragesInTheParadigm(Toy):
    mean = 0.0

    def after_step(self, model, *, outputs):
        self.mean = 0.9 * self.mean + outputs["logits"].mean()
        model.head.bias.sub_(self.mean)


class CountsInTheModel(Toy):
    def after_step(self, model):
        model.num_steps = getattr(model, "num_steps", 0) + 1
        model.head.bias.add_(model.num_steps)


class BufferIsNotSaved(SelfTaught):
    def build_model(self, member):
        model = super().build_model(member)
        model.register_buffer("centre", model.centre, persistent=False)
        return model


class MarksWhileTraining(Toy):
    def after_step(self, model, *, progress):
        model.embed.requires_grad_(progress < 0.5)


class AsksForAnotherOutput(Toy):
    def after_step(self, model, *, outputs):
        model.head.bias.sub_(outputs["mean"])


class MarksOnOneDevice(Toy):
    def build_model(self, member):
        model = super().build_model(member)
        model.embed.requires_grad_(model.embed.weight.is_meta)
        return model


class UnknownRule(SelfTaught):
    buffer_rules = {"centre": "median"}


class RuleForNothing(SelfTaught):
    buffer_rules = {"*.centre": "mean"}


class MeanOfCounts(SelfTaught):
    buffer_rules = {"num_steps": "mean"}


class ResetsWhatIsTrained(SelfTaught):
    def after_growth(self, model):
        model.student.head.bias.fill_(1.0)


class ResetsHalf(SelfTaught):
    def after_growth(self, model):
        model.queue[:8] = 0.0


class ResetsByAnotherTensor(SelfTaught):
    def after_growth(self, model):
        model.queue = torch.zeros(2, 8)


class AsksForAnotherSplit(Toy):
    def metrics(self, model, split, batches, *, batches_of):
        return super().metrics(model, split, batches_of("trian"))


class FailsInTheMiddle(Toy):
    def after_step(self, model):
        raise RuntimeError("one step is enough")


class Unknown(torch.nn.Module):
    """A model without a layout."""

    def __init__(self, width, depth):
        super().__init__()
        self.net = ToyNet(width, depth)
        self.features, self.head = self.net.features, self.net.head


class LargerWithoutALayout(Toy):
    def build_model(self, member):
        return (
            super().build_model(member) if member.model["width"] < 10 else Unknown(**member.model)
        )


def contract(paradigm: type[Paradigm]) -> type:
    return type(paradigm.__name__, (Good,), {"paradigm": dict(type=paradigm, samples=32)})


def started(**changes) -> type:
    """Return a contract around a toy whose starter is changed."""
    starter = type("Changed", (ToyStarter,), changes)()
    paradigm = type("StartedToy", (Toy,), {"starter": starter})
    return type("Started", (Good,), {"paradigm": dict(type=paradigm, samples=32)})


def taught(paradigm: type[Paradigm]) -> type:
    """Return a contract without a larger model."""
    return type(paradigm.__name__, (Taught,), {"paradigm": dict(type=paradigm, samples=32)})


def no_models(self, seen, sizes, *, preset):
    return ConfigDraft(models=[], num_samples=1, optimizer='dict(type="SGD")')


STARTS = ("test_starts_a_chain",)
STATE, RULES = ("test_keeps_its_state_in_the_model",), "test_buffers_have_known_rules"
EXPORTS = ("test_exports_what_it_loads",)
META, LOADS = ("test_builds_on_meta",), ("test_loads_weights",)
TEACHES = ("test_teaches_what_it_forwards",)
CASES = [
    Case(
        contract(AfterStepLacksTheModel),
        "test_methods_take_what_the_core_gives",
        "it may leave out outputs, batch, progress",
        STATE,
    ),
    Case(
        contract(ReadsValues), "test_builds_on_meta", "Read no values of tensors in build_model()"
    ),
    Case(contract(NamesADevice), "test_builds_on_meta", "Do not name a device"),
    Case(contract(ExampleOnTheCpu), "test_builds_on_meta", "Override example_batch()"),
    Case(
        contract(DrawsWeightsElsewhere),
        "test_fresh_weights_depend_on_the_seed_alone",
        "Draw fresh weights from",
        STATE,
    ),
    Case(
        contract(SetsTheSeed),
        "test_fresh_weights_depend_on_the_seed_alone",
        "Set no seed in build_model()",
    ),
    Case(
        contract(NamesTooMany),
        "test_outputs_are_those_it_names",
        "Return every output under its name",
        TEACHES,
    ),
    Case(
        contract(FeaturesNotAmongOutputs),
        "test_outputs_are_those_it_names",
        "Name in outputs",
        TEACHES,
    ),
    Case(
        contract(FlatFeatures),
        "test_outputs_are_those_it_names",
        "floating-point [batch, ..., width]",
    ),
    Case(
        contract(ExampleTooLarge),
        "test_example_has_the_shapes_of_real_batches",
        "Override example_batch()",
    ),
    Case(
        contract(PreparesFromTorch), "test_prepare_draws_from_its_generator", "generator=generator"
    ),
    Case(
        contract(PreparesFromPython), "test_prepare_draws_from_its_generator", "generator=generator"
    ),
    Case(
        contract(PreparesFromNowhere),
        "test_prepare_draws_from_its_generator",
        "generator=generator",
        STATE,
    ),
    Case(
        contract(PreparesEvaluationFromTorch),
        "test_prepare_draws_from_its_generator",
        "generator=generator",
    ),
    Case(
        contract(NoTerms),
        "test_loss_has_gradients",
        "Return a dict of at least one term",
        META + STATE,
    ),
    Case(contract(TermsNotReduced), "test_loss_has_gradients", "Reduce every term", META + STATE),
    Case(contract(NoGradients), "test_loss_has_gradients", "without detach()"),
    Case(contract(Detached), "test_loss_has_gradients", "without detach()", META + STATE),
    Case(contract(AveragesInTheParadigm), *STATE, "Keep what steps change in buffers"),
    Case(contract(CountsInTheModel), *STATE, "not in attributes of model or paradigm"),
    Case(taught(BufferIsNotSaved), *STATE, "(register_buffer, persistent)", LOADS + EXPORTS),
    Case(contract(MarksWhileTraining), *STATE, "Mark them in build_model()"),
    Case(contract(AsksForAnotherOutput), *STATE, "Use what it is given"),
    Case(contract(MarksOnOneDevice), "test_builds_on_meta", "on every device"),
    Case(taught(UnknownRule), RULES, "One of ('mean', 'max', 'min', 'first')"),
    Case(taught(RuleForNothing), RULES, "Name buffers as named_buffers() does"),
    Case(taught(MeanOfCounts), RULES, "Use 'max', 'min' or 'first' for whole numbers"),
    Case(taught(ResetsWhatIsTrained), "test_resets_what_is_not_inherited", "for the grower"),
    Case(taught(ResetsHalf), "test_resets_what_is_not_inherited", "Overwrite the whole tensor"),
    Case(taught(ResetsByAnotherTensor), "test_resets_what_is_not_inherited", "in place"),
    Case(
        contract(TeachesTooLittle),
        "test_teaches_what_it_forwards",
        "Return at least the outputs in needs",
    ),
    Case(
        contract(TeachesOtherwise),
        "test_teaches_what_it_forwards",
        "Compute in teacher_forward() what forward() computes",
    ),
    Case(contract(NoMetrics), "test_metrics_are_figures", "Return at least one from metrics()"),
    Case(contract(BareMetrics), "test_metrics_are_figures", "Return compt.Metric("),
    Case(contract(NanMetric), "test_metrics_are_figures", "Return a finite float"),
    Case(contract(ChanceInPercent), "test_metrics_are_figures", "in the unit of the value"),
    Case(
        contract(AsksForAnotherSplit),
        "test_metrics_are_figures",
        "Ask batches_of() for one of ('train', 'val')",
        ("test_the_main_metric_is_stable",),
    ),
    Case(contract(MetricsChangeTheModel), "test_metrics_are_figures", "Measure on a copy"),
    Case(
        contract(MetricsInAnyOrder),
        "test_the_main_metric_is_stable",
        "Return the metrics in one order",
    ),
    Case(
        contract(MetricsThatWander), "test_the_main_metric_is_stable", "Draw nothing in metrics()"
    ),
    Case(
        contract(MiscountsSamples),
        "test_knows_how_many_samples_there_are",
        "Leave num_samples() out",
    ),
    Case(contract(ExportsHalf), "test_exports_what_it_loads", "in full precision", LOADS),
    Case(
        contract(ExportsTooLittle),
        "test_exports_what_it_loads",
        "Write all that load() needs",
        LOADS,
    ),
    Case(
        contract(ExportFails), "test_exports_what_it_loads", "Write the model into the folder", None
    ),
    Case(contract(ExportChangesTheModel), "test_exports_what_it_loads", "Convert a copy", None),
    Case(contract(RecognisesAnything), "test_recognises_its_exports", "Look for the files", LOADS),
    Case(
        contract(RecognisesNothing),
        "test_recognises_its_exports",
        "Override recognises(path)",
        LOADS,
    ),
    Case(
        contract(StumblesOverFiles), "test_recognises_its_exports", "Return False for what", LOADS
    ),
    Case(contract(LoadsNoWeights), "test_loads_weights", "Load strictly"),
    Case(contract(LoadsExportsAlone), "test_loads_weights", "End load_weights() with super()"),
    Case(contract(AcceptsDamage), "test_loads_weights", "Raise compt.ConfigError."),
    Case(contract(RaisesOfItsOwn), "test_loads_weights", "compt.weights.read_state does"),
    Case(
        contract(CountsItsSteps), "test_trains_and_resumes", "Keep in the paradigm nothing", STATE
    ),
    Case(contract(FailsInTheMiddle), "test_trains_and_resumes", "Mend what it says", STATE),
    Case(started(needs=(("text",),), example_data="icons"), *STARTS, "Name in example_data", None),
    Case(started(sizes={}), *STARTS, "Name presets in sizes", None),
    Case(started(sizes={"tiny": "small"}), *STARTS, "Write sizes as widths", None),
    Case(started(models="dict(width=8, depth=1)"), *STARTS, "a larger model", None),
    Case(started(models="net({size.width})"), *STARTS, "Write Python as a config has it", None),
    Case(started(models="dict(wide={size.width})"), *STARTS, "that the paradigm takes", None),
    Case(started(code=dict(optimizer="{}", options="")), *STARTS, "Write Python as a config", None),
    Case(
        started(draft=lambda self, seen, sizes, *, preset: {}), *STARTS, "compt.ConfigDraft", None
    ),
    Case(started(draft=no_models), *STARTS, "one model for each size", None),
    Case(contract(LargerWithoutALayout), "test_grows_a_chain", "a layout of the model's class"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_every_broken_paradigm_is_caught(case, tmp_path):
    check(case, tmp_path)


@pytest.mark.parametrize("case", blamed_alone(CASES))
def test_no_other_test_blames_a_broken_paradigm(case, tmp_path):
    check_others(case, tmp_path)


def test_every_test_of_the_contract_can_fail():
    check_complete(ParadigmContract, CASES)
