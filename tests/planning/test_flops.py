"""Plans: FLOPs worked out by hand, lengths, and what a family costs alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.registry import DATASETS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import compt
from compt.errors import ConfigError
from compt.planning import flops as flops_module
from compt.planning.flops import FlopCounter
from compt.training.loader import EndlessBatches
from compt.training.stage import StageModel
from tests.planning.conftest import BOTH, FORWARD, stages


def test_flops_of_a_sample_are_those_of_its_matrix_products(toy):
    a, b, c = stages(toy)
    assert BOTH == {"a": 2272, "b": 13760, "c": 43680}
    assert {s.name: s.student_flops for s in (a, b, c)} == BOTH
    assert [s.teacher_flops for s in (a, b, c)] == [0, FORWARD["a"], FORWARD["b"]]


@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_flops_of_a_sample_do_not_depend_on_the_batch(toy, batch_size):
    toy["train_dataloader"]["batch_size"] = batch_size
    assert [s.student_flops for s in stages(toy)] == list(BOTH.values())


def test_parameters_are_counted(toy):
    # a: 8*8+8 | 2*8 + (8*16+16) + (16*8+8) | 2*8 | 8*10+10
    assert stages(toy)[0].params == 72 + 296 + 16 + 90
    assert stages(toy)[1].expansion == stages(toy)[1].params / 474


def test_a_chain_costs_what_its_stages_cost(toy):
    plan = compt.plan(toy)
    costs = [256 * 2272, 256 * (13760 + 800), 192 * (43680 + 4672)]
    assert [s.flops for s in plan.stages] == costs
    assert plan.flops == sum(costs) == 13_592_576
    table = plan.to_dict()
    assert table["flops"] == plan.flops
    assert [s["flops"] for s in table["stages"]] == costs
    assert [s["share"] for s in table["stages"]] == [cost / 13_592_576 for cost in costs]
    assert sum(s["share"] for s in table["stages"]) == pytest.approx(1)


def test_flops_up_to_an_iteration(toy):
    b = stages(toy)[1]
    assert b.flops_until(0) == 0
    assert b.flops_until(3) == 3 * 32 * (13760 + 800)
    assert b.flops_until(8) == b.flops


@pytest.mark.parametrize(("iters", "taught"), [(6, 3), (5, 3), (1, 1)])
def test_a_teacher_is_charged_only_while_it_is_run(toy, iters, taught):
    # with until=0.5 iteration i of n has a teacher where i / n < 0.5
    toy["chain"][2] |= dict(iters=iters, transfer=dict(type="feature_mse", until=0.5))
    c = stages(toy)[2]
    assert (c.teacher_iters, c.transfer) == (taught, "feature_mse")
    assert c.flops == 32 * (iters * 43680 + taught * 4672)
    if iters > 1:
        assert c.flops_until(2) == 32 * 2 * (43680 + 4672)
        assert c.flops_until(5) == 32 * (5 * 43680 + 3 * 4672)


def test_the_iterations_charged_are_those_a_stage_runs_its_teacher_at(toy, monkeypatch, tmp_path):
    toy["chain"] = toy["chain"][:2]
    toy["chain"][1] |= dict(iters=7, transfer=dict(type="feature_mse", until=0.4))
    taught = []
    transfer_loss = StageModel._transfer_loss
    monkeypatch.setattr(
        StageModel,
        "_transfer_loss",
        lambda self, *args: taught.append(1) or transfer_loss(self, *args),
    )
    compt.train(toy, work_dir=tmp_path / "run")
    assert len(taught) == stages(toy)[1].teacher_iters == 3


@pytest.mark.parametrize(
    "transfer",
    [dict(type="none"), dict(type="feature_mse", weight=0.0), dict(type="feature_mse", until=0.0)],
)
def test_a_transfer_of_no_weight_has_no_teacher(toy, transfer):
    toy["transfer"] = transfer
    b = stages(toy)[1]
    assert (b.transfer, b.teacher_iters, b.teacher_flops) == (None, 0, 0)
    assert b.flops == 256 * 13760


# An operator is run once for its shapes


def test_what_repeats_is_counted_as_torch_counts_it_and_run_once(monkeypatch, tmp_path):
    num_run = []
    described = flops_module._described
    monkeypatch.setattr(flops_module, "_described", lambda *a: num_run.append(1) or described(*a))
    monkeypatch.setenv("COMPT_CACHE_DIR", str(tmp_path))

    def trained(layers: nn.Module) -> None:
        layers(torch.empty(3, 7, 8, device="meta")).sum().backward()

    def layers(count: int) -> nn.Module:
        block = nn.TransformerEncoderLayer(8, 2, 16, device="meta", batch_first=True)
        return nn.TransformerEncoder(block, count)

    counter = FlopCounter()
    counted = [counter.count(lambda count=count: trained(layers(count)))[0] for count in (1, 5)]
    for count, flops in zip((1, 5), counted):
        with FlopCounterMode(display=False) as expected:
            trained(layers(count))
        assert flops == expected.get_total_flops() > 0
    several = len(num_run)
    assert several > 0
    assert counter.count(lambda: trained(layers(9)))[0] > counted[1]
    assert len(num_run) == several


def test_a_number_of_another_type_is_another_operator():
    def added() -> list[torch.dtype]:
        whole = torch.empty(2, dtype=torch.int64, device="meta")
        return [(whole + number).dtype for number in (1, 1.0, 1, 1.0)]

    _, dtypes = FlopCounter().count(added)
    assert dtypes == [torch.int64, torch.float32] * 2


def test_values_that_there_are_are_computed():
    def doubled() -> list[float]:
        return [(torch.tensor(float(number)) * 2).item() for number in range(3)]

    assert FlopCounter().count(doubled)[1] == [0, 2, 4]


def test_what_changes_its_input_changes_it_every_time():
    def changed() -> list[torch.Size]:
        return [torch.empty(2, 3, device="meta").unsqueeze_(0).shape for _ in range(3)]

    assert FlopCounter().count(changed)[1] == [(1, 2, 3)] * 3


def test_what_is_written_into_is_returned():
    weights = [torch.empty(4, device="meta") for _ in range(3)]
    written = FlopCounter().count(lambda: [weight.normal_().clamp_(0) for weight in weights])[1]
    assert all(one is weight for one, weight in zip(written, weights))


# Lengths


def lengths(config: dict[str, Any], **options: Any) -> list[tuple[int, int]]:
    return [(s.iters, s.samples) for s in stages(config, **options)]


def budgets(toy: dict[str, Any], *given: dict[str, Any]) -> dict[str, Any]:
    for stage, budget in zip(toy["chain"], given, strict=True):
        del stage["iters"]
        stage |= budget
    return toy


def test_epochs_have_no_short_batch(toy):
    toy["paradigm"]["samples"] = 250  # 7 batches of 32, 26 samples left over
    budgets(toy, dict(epochs=2), dict(epochs=1.5), dict(epochs=0.01))
    assert lengths(toy) == [(14, 448), (10, 320), (1, 32)]  # 1.5 * 7 = 10.5 rounds to even


def test_iterations_and_samples(toy):
    budgets(toy, dict(iters=5), dict(samples=100), dict(samples=1))
    assert lengths(toy) == [(5, 160), (3, 96), (1, 32)]


def test_processes_share_an_iteration(toy):
    toy["paradigm"]["samples"] = 250  # 3 batches of 2 * 32
    budgets(toy, dict(epochs=2), dict(samples=100), dict(iters=5))
    assert lengths(toy, world_size=2) == [(6, 384), (2, 128), (5, 320)]
    assert [s.batch_size for s in stages(toy, world_size=2)] == [64, 64, 64]
    assert [s.student_flops for s in stages(toy, world_size=2)] == list(BOTH.values())
    assert len(EndlessBatches(250, 32, seed=0, world_size=2)) == 3


def test_a_stage_may_have_a_batch_size_of_its_own(toy):
    toy["chain"][1]["train_dataloader"] = dict(batch_size=64)
    budgets(toy, dict(epochs=1), dict(epochs=1), dict(samples=256))
    assert lengths(toy) == [(8, 256), (4, 256), (8, 256)]


@pytest.mark.parametrize(("batch_size", "world"), [(257, 1), (129, 2)])
def test_a_batch_larger_than_the_data_is_refused(toy, batch_size, world):
    toy["train_dataloader"]["batch_size"] = batch_size
    budgets(toy, dict(epochs=1), dict(epochs=1), dict(epochs=1))
    with pytest.raises(ConfigError, match=rf"{batch_size} x {world}.*256"):
        compt.plan(toy, world_size=world)


@DATASETS.register_module(name="PlannedPoints")
class PlannedPoints(torch.utils.data.TensorDataset):
    def __init__(self) -> None:
        super().__init__(torch.zeros(64, 8), torch.zeros(64, dtype=torch.long))


def test_an_epoch_is_one_of_the_data_set_that_is_trained_on(toy):
    toy["train_dataloader"]["dataset"] = dict(
        type="PlannedPoints"
    )  # 64 samples; the paradigm has 256
    budgets(toy, dict(epochs=3), dict(epochs=1), dict(epochs=1))
    assert lengths(toy) == [(6, 192), (2, 64), (2, 64)]


# Members trained alone


@pytest.mark.parametrize(
    ("individual", "samples"),
    [
        (None, (256, 256, 256)),
        (dict(budget="chain"), (256, 256, 192)),
        (dict(epochs=3), (768, 768, 768)),
        (dict(iters=5), (160, 160, 160)),
        (dict(samples=640), (640, 640, 640)),
    ],
)
def test_what_the_family_would_cost_alone(toy, individual, samples):
    toy["individual"] = individual
    plan = compt.plan(toy)
    assert tuple(s.alone_samples for s in plan.stages) == samples
    alone = sum(n * flops for n, flops in zip(samples, BOTH.values()))
    assert plan.alone_flops == alone
    table = plan.to_dict()
    assert table["alone_flops"] == sum(s["alone_flops"] for s in table["stages"]) == alone
    assert table["acceleration"] == alone / 13_592_576
    # as many samples as the first member, whatever the individual budget
    assert table["first_budget_flops"] == 256 * (2272 + 13760 + 43680)
    assert table["largest_alone_flops"] == 256 * 43680


def test_members_planned_alone_have_neither_growth_nor_teacher(toy):
    toy["individual"] = dict(iters=4)
    plan = compt.plan(toy, individual=True)
    assert [(s.grower, s.transfer, s.teacher_flops) for s in plan.stages] == [(None, None, 0)] * 3
    assert [s.flops for s in plan.stages] == [4 * 32 * flops for flops in BOTH.values()]
    assert plan.flops == plan.alone_flops
    assert plan.warnings == ()


def test_a_given_first_member_has_no_budget_for_the_others(toy):
    toy["chain"][0] |= dict(init="some/folder", iters=0)
    assert stages(toy)[0].flops == 0
    with pytest.raises(ConfigError, match="individual"):
        compt.plan(toy, individual=True)
    toy["individual"] = dict(budget="chain")
    with pytest.raises(ConfigError, match="individual"):  # its own in the chain: zero
        compt.plan(toy, individual=True)
    toy["individual"] = dict(iters=4)
    assert [s.iters for s in stages(toy, individual=True)] == [4, 4, 4]
