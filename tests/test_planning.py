"""Plans: FLOPs worked out by hand, lengths, what a chain costs, and what is refused or warned about."""

from __future__ import annotations

import copy
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import DATASETS

import compt
from compt.config import load_config
from compt.errors import ComptError, ConfigError, GrowthError
from compt.loader import EndlessBatches
from compt.stage import StageModel

# One sample through ToyNet, two FLOPs a multiply-add. Forward: embedding, blocks of two layers, head.
#   a (8 wide, 1 block):    2*8*8  + 1 * 2*(2*8*16)  + 2*8*10  =   128 +   512 + 160 =   800
#   b (16 wide, 2 blocks):  2*8*16 + 2 * 2*(2*16*32) + 2*16*10 =   256 +  4096 + 320 =  4672
#   c (24 wide, 3 blocks):  2*8*24 + 3 * 2*(2*24*48) + 2*24*10 =   384 + 13824 + 480 = 14688
# Backward: as much again for the weights, and for the inputs of all layers but the embedding.
FORWARD = {"a": 800, "b": 4672, "c": 14688}
BOTH = {"a": 3 * 800 - 128, "b": 3 * 4672 - 256, "c": 3 * 14688 - 384}


def stages(config: Any, **options: Any) -> tuple[compt.planning.StagePlan, ...]:
    return compt.plan(config, **options).stages


# FLOPs


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
        StageModel, "_transfer_loss", lambda self, *args: taught.append(1) or transfer_loss(self, *args)
    )
    compt.train(toy, work_dir=tmp_path / "run")
    assert len(taught) == stages(toy)[1].teacher_iters == 3


@pytest.mark.parametrize(
    "transfer", [dict(type="none"), dict(type="feature_mse", weight=0.0), dict(type="feature_mse", until=0.0)]
)
def test_a_transfer_of_no_weight_has_no_teacher(toy, transfer):
    toy["transfer"] = transfer
    b = stages(toy)[1]
    assert (b.transfer, b.teacher_iters, b.teacher_flops) == ("none", 0, 0)
    assert b.flops == 256 * 13760


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
    assert lengths(toy, world=2) == [(6, 384), (2, 128), (5, 320)]
    assert [s.batch_size for s in stages(toy, world=2)] == [64, 64, 64]
    assert [s.student_flops for s in stages(toy, world=2)] == list(BOTH.values())
    assert len(EndlessBatches(250, 32, seed=0, world=2)) == 3


def test_a_stage_may_have_a_batch_size_of_its_own(toy):
    toy["chain"][1]["train_dataloader"] = dict(batch_size=64)
    budgets(toy, dict(epochs=1), dict(epochs=1), dict(samples=256))
    assert lengths(toy) == [(8, 256), (4, 256), (8, 256)]


@pytest.mark.parametrize(("batch_size", "world"), [(257, 1), (129, 2)])
def test_a_batch_larger_than_the_data_is_refused(toy, batch_size, world):
    toy["train_dataloader"]["batch_size"] = batch_size
    budgets(toy, dict(epochs=1), dict(epochs=1), dict(epochs=1))
    with pytest.raises(ConfigError, match=rf"{batch_size} x {world}.*256"):
        compt.plan(toy, world=world)


@DATASETS.register_module(name="PlannedPoints")
class PlannedPoints(torch.utils.data.TensorDataset):
    def __init__(self) -> None:
        super().__init__(torch.zeros(64, 8), torch.zeros(64, dtype=torch.long))


def test_an_epoch_is_one_of_the_data_set_that_is_trained_on(toy):
    toy["train_dataloader"]["dataset"] = dict(type="PlannedPoints")  # 64 samples; the paradigm has 256
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
    assert [(s.grower, s.transfer, s.teacher_flops) for s in plan.stages] == [("scratch", "none", 0)] * 3
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


# Refused


def refused(config: Any, kind: type[ComptError], *words: str) -> str:
    """Plan what cannot be; the message has to name both members and the words."""
    with pytest.raises(kind) as caught:
        compt.plan(config)
    message = str(caught.value)
    for word in ("'a'", "'b'", *words):
        assert word in message
    assert caught.value.exit_code == 2
    return message


def test_members_have_to_ascend(toy):
    toy["chain"][1]["model"] = dict(width=8, depth=1)
    refused(toy, ConfigError, "not in ascending size", "474")


@pytest.mark.parametrize(
    ("small", "large", "message"),
    [
        (dict(width=8, depth=3), dict(width=24, depth=2), "shrink from 3 to 2 blocks"),
        (dict(width=20, depth=1), dict(width=16, depth=4), "'embed' would shrink from 20 to 16"),
        (dict(width=8, depth=1, rms=True), dict(width=16, depth=1), "no tensor that could grow into"),
    ],
)
def test_what_cannot_be_grown_into_is_refused(toy, small, large, message):
    toy["chain"] = [dict(name="a", model=small, iters=4), dict(name="b", model=large, iters=4)]
    refused(toy, GrowthError, message)
    toy["grower"] = dict(type="scratch")
    assert stages(toy)[1].grower == "scratch"


def test_a_transfer_names_the_outputs_there_are(toy):
    toy["chain"][1]["transfer"] = dict(type="feature_mse", features=["featurs"])
    refused(toy, ConfigError, "feature_mse", "featurs", "features", "logits")


def test_any_output_with_a_width_can_be_transferred(toy):
    toy["transfer"] = dict(type="feature_mse", features=["logits"])
    assert [s.transfer for s in stages(toy)] == ["none", "feature_mse", "feature_mse"]


def test_all_hops_are_checked_before_one_is_reported(toy):
    toy["chain"][1]["transfer"] = dict(type="feature_mse", features=["nope"])
    toy["chain"][2]["model"] = dict(width=16, depth=1)
    refused(toy, ConfigError, "'a' -> 'b'", "nope", "'b' -> 'c'", "not in ascending size")


def test_a_model_that_cannot_be_built_is_named(toy):
    toy["chain"][1]["model"] = dict(widht=16)
    with pytest.raises(ConfigError, match=r"member 'b'.*widht"):
        compt.plan(toy)


# Warned about


@pytest.mark.parametrize(
    ("width", "depth", "params", "growth"), [(8, 3, 1066, None), (9, 1, 568, "1.2x"), (16, 2, 2554, "5.4x")]
)
def test_neighbours_should_differ_by_two_to_four_times(toy, width, depth, params, growth):
    toy["chain"] = toy["chain"][:2]
    toy["chain"][1]["model"] = dict(width=width, depth=depth)
    plan = compt.plan(toy)
    assert [s.params for s in plan.stages] == [474, params]
    said = [w for w in plan.warnings if w.startswith("'a' -> 'b' grows ")]
    assert [w.split()[4] for w in said] == ([growth] if growth else [])


def test_samples_should_fall_along_the_chain(toy):
    toy["chain"][2]["iters"] = 9
    (said,) = [w for w in compt.plan(toy).warnings if "samples" in w]
    assert said.startswith("'c' sees more samples")
    assert compt.plan(toy).to_dict()["warnings"] == list(compt.plan(toy).warnings)


# Plain types, no side effects


def test_a_plan_is_json(toy):
    for individual in (False, True):
        table = compt.plan(toy, individual=individual).to_dict()
        assert json.loads(json.dumps(table, allow_nan=False)) == table


def test_a_plan_of_nothing_to_do_is_json(toy):
    toy["chain"] = [toy["chain"][0] | dict(init="some/folder", iters=0)]
    table = compt.plan(toy).to_dict()
    assert (table["flops"], table["acceleration"], table["stages"][0]["share"]) == (0, None, 0)
    json.dumps(table, allow_nan=False)


def test_planning_changes_neither_config_nor_random_state(toy):
    before, state = copy.deepcopy(toy), torch.get_rng_state()
    compt.plan(toy)
    assert toy == before
    assert torch.equal(torch.get_rng_state(), state)


def test_a_path_a_dict_and_a_checked_config_give_the_same_plan(toy, tmp_path):
    file = tmp_path / "toy.py"
    file.write_text("\n".join(f"{k} = {v!r}" for k, v in toy.items()))
    assert compt.plan(str(file)) == compt.plan(toy) == compt.plan(load_config(file))


# Memory


@contextmanager
def little_memory(size: int) -> Iterator[None]:
    """Let this process take at most ``size`` bytes more."""
    status = Path("/proc/self/statm")
    if not status.is_file():
        pytest.skip("needs /proc")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(status.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_little_memory_is_a_limit():
    with little_memory(2**28), pytest.raises((MemoryError, RuntimeError)):
        torch.empty(2**28)


def test_planning_allocates_no_weights(toy):
    compt.plan(toy)  # what is imported on the way is not counted
    # 4 blocks of 4 w^2 weights: 26e9 parameters, 102 GB
    models = [dict(width=20_000, depth=4), dict(width=40_000, depth=4)]
    toy["chain"] = [dict(name=n, model=m, iters=10) for n, m in zip("ab", models)]
    with little_memory(2**28):
        plan = compt.plan(toy)
    assert plan.stages[1].params == pytest.approx(4 * 4 * 40_000**2, rel=1e-3)
    assert plan.stages[1].student_flops == 3 * (2 * 8 * 40_000 + 4 * 8 * 40_000**2 + 2 * 40_000 * 10) - 16 * 40_000


# open_clip


def clip(width: int, layers: int, text_layers: int, head: int = 32) -> dict[str, Any]:
    return dict(
        embed_dim=48,
        vision_cfg=dict(image_size=32, patch_size=8, width=width, layers=layers, head_width=head),
        text_cfg=dict(context_length=10, vocab_size=99, width=width, layers=text_layers, heads=width // 32),
    )


def clip_chain(*models: Any, **changes: Any) -> dict[str, Any]:
    """A chain on data that is not there, its size given."""
    pytest.importorskip("open_clip")
    data = dict(type="webdataset", train="/nowhere/{000..331}.tar", val="/nowhere/val.tar", num_samples=1000)
    return {
        **dict(paradigm=dict(type="clip", data=data), grower=dict(type="lossless")),
        **dict(train_dataloader=dict(batch_size=16)),
        **dict(chain=[dict(name=n, model=m, iters=4) for n, m in zip("abc", models)]),
        **changes,
    }


def clip_forward(width: int, layers: int, text_layers: int) -> int:
    """Per token 2 FLOPs a weight of qkv, out and mlp (12 w^2), and 2 * 2 * tokens * w for scores and values.

    The image has 4 x 4 patches and a class token, the text 10 tokens; both end in a projection to 48.
    """

    def tower(tokens: int, blocks: int) -> int:
        return blocks * tokens * (2 * 12 * width**2 + 2 * 2 * tokens * width)

    patches = 2 * 16 * (3 * 8 * 8) * width
    return patches + tower(17, layers) + tower(10, text_layers) + 2 * (2 * width * 48)


def test_flops_of_a_clip_model_equal_the_formula():
    a, b = stages(clip_chain(clip(64, 3, 2), clip(96, 4, 3)))
    assert b.teacher_flops == clip_forward(64, 3, 2)
    # backward is twice the forward pass but for the pixels' gradient; both logit matrices, once and twice
    for stage, (width, *layers) in ((a, (64, 3, 2)), (b, (96, 4, 3))):
        patches, logits = 2 * 16 * (3 * 8 * 8) * width, 2 * 2 * 16 * 48
        assert stage.student_flops == 3 * clip_forward(width, *layers) - patches + 3 * logits


def test_epochs_are_counted_without_the_data():
    config = clip_chain(clip(64, 2, 2), clip(96, 3, 2))
    for stage in config["chain"]:
        stage |= dict(iters=None, epochs=2)
    assert [s.iters for s in stages(config)] == [124, 124]  # 1000 // 16 = 62
    del config["paradigm"]["data"]["num_samples"]
    with pytest.raises(ConfigError, match="num_samples"):
        compt.plan(config)


def test_heads_of_another_width_are_refused_or_warned_about():
    config = clip_chain(clip(64, 2, 2), clip(128, 2, 2, head=64))
    for grower in ("lossless", "leading_block"):
        config["grower"] = dict(type=grower)
        refused(config, GrowthError, "head_dim' changes from 32 to 64")
    config["grower"] = dict(type="scratch")
    assert any("'a' -> 'b'" in w and "head_dim' changes from 32 to 64" in w for w in compt.plan(config).warnings)


def test_an_output_without_a_width_cannot_be_transferred():
    config = clip_chain(clip(64, 2, 2), clip(96, 3, 2), transfer=dict(type="feature_mse", features=["logit_scale"]))
    refused(config, ConfigError, "logit_scale")


def test_members_with_another_input_are_refused():
    other = clip(96, 3, 2)
    other["vision_cfg"]["image_size"] = 64
    with pytest.raises(ConfigError, match=r"'b' has image size \(64, 64\)"):
        compt.plan(clip_chain(clip(64, 2, 2), other))


def test_a_large_clip_model_is_planned_without_data_or_memory():
    config = clip_chain("ViT-H-14")
    config["chain"][0] |= dict(iters=None, epochs=1)
    compt.plan(clip_chain(clip(64, 2, 2)))  # what is imported on the way is not counted
    with little_memory(2**30):
        (stage,) = stages(config)
    assert stage.params == 986_109_441  # 3.9 GB
    assert (stage.iters, stage.samples) == (62, 992)
