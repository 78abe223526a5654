"""A stage over several processes, sharded or not, is the stage of one process."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

import compt
from compt.config import load_config
from compt.config.parallel import Sharded
from compt.errors import ConfigError
from compt.interfaces import Draws
from compt.testing.toy import TiedNet, ToyNet
from compt.training import preflight, sharding, shards, stage as stage_module
from compt.training.drawn import noted_draws
from compt.training.loader import SeededFetch, sample_seed
from compt.training.sharding import any_sharded, check_processes, clip_norm, separate_blocks
from compt.training.stage import StageModel
from tests.environments import ROOT
from tests.training.spread import CHAINS, Spread

FSDP = dict(type="fsdp")
ADAM = dict(type="AdamW", lr=1e-3, eps=1e-5)
CASES = {
    "accumulated": dict(
        optim_wrapper=dict(optimizer=ADAM, accumulative_counts=2, clip_grad=dict(max_norm=0.5))
    ),
    "recomputed": dict(grad_checkpointing=True),
    "in mini-batches": dict(mini_batch_size=2),
    "in mini-batches, recomputed": dict(mini_batch_size=2, grad_checkpointing=True),
    "compiled": dict(grad_checkpointing=True, compile=dict(backend="aot_eager")),
    "clipped by value": dict(
        optim_wrapper=dict(
            optimizer=dict(type="SGD", lr=1e-2, momentum=0.9),
            clip_grad=dict(type="value", clip_value=0.01),
        )
    ),
    "averaged": dict(average=dict(type="ema", half_life=4)),
    "inherited optimizer": dict(
        grown=dict(optimizer_state=True, new_lr_mult=2.0, new_warmup=0.3),
        checkpoint=dict(interval=4, optimizer=True),
    ),
    "averaged, grown from the plateau": dict(
        trunk=True,
        average=dict(type="mean", begin=0.7),
        param_scheduler=[
            dict(type="LinearLR", start_factor=1e-3, begin=0.0, end=0.1),
            dict(type="CosineAnnealingLR", eta_min=0.0, begin=0.6, end=1.0),
        ],
    ),
}


OUTSIDE = f"""
import sys
sys.path += [r"{ROOT}/plugins/compt-ligo", r"{ROOT}/plugins/compt-siglip"]
from compt import GROWERS, PARADIGMS
from compt_ligo import Ligo
from compt_siglip import SigLip
GROWERS.register_module(name="ligo", module=Ligo)
PARADIGMS.register_module(name="siglip", module=SigLip)
"""


def same(chain: Spread, name: str, noted: dict, expected: dict, *, tolerance: float = 1e-5) -> None:
    """Compare each step's loss and the delivered weights with those of the run ``one``."""
    for stage, losses in expected["losses"].items():
        assert noted["losses"][stage] == pytest.approx(losses, abs=tolerance), stage
    for stage in ("01_a", "02_b"):
        weights = chain.weights(name, stage)
        for key, value in chain.weights("one", stage).items():
            torch.testing.assert_close(weights[key], value, rtol=0, atol=tolerance, msg=key)


def test_a_sharded_chain_with_a_transfer_is_that_of_one_process(tmp_path):
    """Losses, weights and metrics are the same, and a process has half of all that is trained."""
    chain = CHAINS["toy"](tmp_path)
    expected = chain.run("one")
    noted = chain.run("two", 2, parallel=dict(FSDP, teacher="sharded"))
    same(chain, "two", noted, expected)
    assert chain.metrics("two") == pytest.approx(chain.metrics("one"), abs=1e-5)
    (whole,) = expected["memory"]
    for stage, bytes_of in whole.items():
        for half in noted["memory"]:
            for key in (
                "params",
                "gradients",
                "optimizer",
            ):  # tensors of an odd length are cut unevenly
                assert half[stage][key] < 0.55 * bytes_of[key], (stage, key)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_options_do_the_same_where_a_chain_is_sharded(case, tmp_path):
    chain = CHAINS["toy"](tmp_path, **CASES[case])
    expected = chain.run("one")
    same(chain, "two", chain.run("two", 2, parallel=FSDP), expected)


@pytest.mark.slow
def test_bfloat16_is_nearly_the_same_where_a_chain_is_sharded(tmp_path):
    """Gradients of each process are rounded before they are summed."""
    chain = CHAINS["toy"](tmp_path, precision="bf16")
    parallel = dict(FSDP, gather="bf16", teacher="sharded")
    same(chain, "two", chain.run("two", 2, parallel=parallel), chain.run("one"), tolerance=1e-2)


@pytest.mark.slow
def test_growth_is_learned_and_a_rule_ends_a_stage_where_a_chain_is_sharded(tmp_path):
    (tmp_path / "outside.py").write_text(OUTSIDE)
    chain = CHAINS["toy"](
        tmp_path,
        custom_imports=dict(imports=["compt.testing.toy", "outside"]),
        grower=dict(type="ligo", steps=3),
        evaluations=3,
    )
    chain.config["chain"][0]["stopping"] = dict(type="until", metric="val/loss", target=10.0)
    expected = chain.run("one")
    assert len(expected["losses"]["01_a"]) == 5
    same(chain, "two", chain.run("two", 2, parallel=FSDP), expected)


@pytest.mark.slow
def test_a_paradigm_of_another_package_is_sharded(tmp_path):
    (tmp_path / "outside.py").write_text(OUTSIDE)
    chain = CHAINS["clip"](tmp_path, custom_imports=dict(imports=["outside"]))
    chain.config["paradigm"]["type"] = "siglip"
    same(chain, "two", chain.run("two", 2, parallel=FSDP), chain.run("one"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clip", "mae", "lm"])
def test_a_run_does_not_depend_on_how_it_is_spread(kind, tmp_path):
    """Crops, captions and masks are the samples'; the loss is that of the global batch."""
    chain = CHAINS[kind](tmp_path)
    expected = chain.run("one")
    hybrid = dict(FSDP, processes=2, teacher="sharded", reshard=False)
    for world_size, parallel in ((2, dict(type="ddp")), (2, FSDP), (4, FSDP), (4, hybrid)):
        name = f"{parallel['type']}_{world_size}_{len(parallel)}"
        same(chain, name, chain.run(name, world_size, parallel=parallel), expected)


@pytest.mark.slow
@pytest.mark.parametrize("owner", ["a", "b"])
def test_a_teacher_of_another_tokenizer_teaches_the_same_over_processes(owner, tmp_path):
    """The texts of a batch, and so the teacher's tokens, are of other lengths in each process."""
    from tests.paradigms.lm_models import save_bpe

    chain = CHAINS["lm"](
        tmp_path, grower=dict(type="scratch"), transfer=dict(type="feature_mse", until=0.6)
    )
    bpe = save_bpe(tmp_path / "bpe", texts=["    return a + b\n"], size=270)
    lines = [f"x{'abc'[i % 3]} = {i * i}\n" + "    return a + b\n" * (i % 4) for i in range(120)]
    for split in ("train", "val"):
        (tmp_path / f"{split}.txt").write_text("".join(lines))
    chain.config["paradigm"]["tokenizers"] = {owner: bpe}
    expected = chain.run("one")
    for name, parallel in (("ddp", dict(type="ddp")), ("fsdp", dict(FSDP, teacher="sharded"))):
        same(chain, name, chain.run(name, 2, parallel=parallel), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_before", "num_after", "asynchronous"), [(4, 2, True), (4, 1, False), (1, 2, True)]
)
def test_what_some_processes_saved_others_go_on_with(num_before, num_after, asynchronous, tmp_path):
    chain = CHAINS["toy"](
        tmp_path,
        checkpoint=dict(interval=4, keep=2, asynchronous=asynchronous),
        average=dict(type="ema", half_life=4),
    )
    expected = chain.run("one")
    stopped = chain.run("run", num_before, "stop", parallel=FSDP)
    assert stopped["losses"]["02_b"] == pytest.approx(expected["losses"]["02_b"][:5], abs=1e-5)
    resumed = chain.run("run", num_after, "resume", parallel=FSDP)
    assert resumed["losses"] == {"02_b": pytest.approx(expected["losses"]["02_b"][4:], abs=1e-5)}
    for key, value in chain.weights("one").items():
        torch.testing.assert_close(chain.weights("run")[key], value, rtol=0, atol=1e-5, msg=key)


# Parts, in this process


@pytest.fixture
def alone(tmp_path) -> Iterator[None]:
    """A process group of this process."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def stage(model: str = "toy", **options) -> StageModel:
    member = dict(name="a", model=dict(width=8, depth=2))
    return StageModel(dict(type=model), member, **options)


def test_only_blocks_with_parameters_of_their_own_are_sharded_alone():
    model = ToyNet(8, 3)
    assert separate_blocks(model) == list(model.blocks)
    model.blocks[1].fc1.bias = model.blocks[2].fc1.bias
    assert separate_blocks(model) == [model.blocks[0]]
    assert separate_blocks(TiedNet(8, 2))  # what is tied is in no block


def test_tied_tensors_and_scalars_stay_what_they_are(alone):
    """A tie is one tensor, sharded once; every process keeps a scalar."""
    model = stage()
    model.student = TiedNet(8, 2)
    model.scale = nn.Parameter(torch.tensor(2.0))
    sharding.shard_stage(model, Sharded())
    assert isinstance(model.student.blocks[0], FSDPModule)
    assert model.student.head.weight is model.student.embed.weight
    assert isinstance(model.student.embed.weight, DTensor)
    assert not isinstance(model.scale, DTensor)
    assert model.scale.item() == 2
    whole, expected = TiedNet(8, 2), sharding.gathered(model.student.state_dict())
    sharding.gather_into(whole, model.student)
    sharding.gather_into(None, model.student)
    assert whole.head.weight is whole.embed.weight
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("reshard", [True, False])
def test_mini_batches_do_not_gather_all_blocks_together(reshard, alone):
    """Their forward passes are repeated in the backward pass, where torch frees no block."""
    model = StageModel(
        dict(type="toy"),
        dict(name="a", model=dict(width=8, depth=6)),
        performance=dict(mini_batch_size=2),
    )
    sharding.shard_stage(model, Sharded(reshard=reshard))
    blocks, gathered = model.student.blocks, []

    def note(*_) -> None:
        whole = [not isinstance(block.fc1.weight, DTensor) for block in blocks]
        gathered.append(sum(whole))

    for block in blocks:
        block.register_forward_pre_hook(note)
    batch = model.paradigm.example_batch(model.student, 6)
    loss = model(mode="loss", **batch)["loss"]
    num_forward = len(gathered)
    loss.backward()
    again = gathered[num_forward:]
    assert len(again) == 3 * len(blocks), "every mini-batch once more"
    assert max(again) <= 2 if reshard else max(again) == len(blocks)


def test_shards_are_read_into_whole_and_sharded_models_unless_they_are_damaged(alone, tmp_path):
    """Weights and moments come back, and every damaged or missing file is noticed."""
    model = stage()
    model.student = TiedNet(8, 2)
    sharding.shard_stage(model, Sharded())
    params = list(model.parameters())
    moments = {i: {"exp_avg": 2 * p.detach(), "step": torch.ones(())} for i, p in enumerate(params)}
    averages = {f"module.{name}": 3 * t for name, t in model.state_dict().items()}
    checkpoint = {
        "state_dict": dict(model.state_dict()),
        "ema_state_dict": {**averages, "steps": torch.tensor(7)},
        "optimizer": {"state": moments},
    }
    expected = sharding.gathered(checkpoint["state_dict"])
    hashes = shards.write_shards(shards.take_out(checkpoint, model), tmp_path / "iter_4.r0.shards")
    assert not any_sharded(checkpoint["state_dict"].values())
    assert {*checkpoint["ema_state_dict"]} == {"steps"}
    assert {tuple(own) for own in checkpoint["optimizer"]["state"].values()} == {("step",)}
    whole = stage()
    whole.student = TiedNet(8, 2)
    shards.read_shards(checkpoint, tmp_path / "iter_4.r0.shards", whole, list(whole.parameters()))
    for name, tensor in expected.items():
        assert torch.equal(whole.state_dict()[name], tensor), name
        assert torch.equal(checkpoint["ema_state_dict"][f"module.{name}"], 3 * tensor), name
    for param, own in zip(whole.parameters(), checkpoint["optimizer"]["state"].values()):
        assert torch.equal(own["exp_avg"], 2 * param)
    shards.check_shards(hashes, tmp_path / "iter_4.r0.shards")
    (file,) = (tmp_path / "iter_4.r0.shards").iterdir()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="not what was written"):
        shards.check_shards(hashes, tmp_path / "iter_4.r0.shards")
    file.unlink()
    with pytest.raises(ValueError, match="missing"):
        shards.check_shards(hashes, tmp_path / "iter_4.r0.shards")


def test_shards_go_with_their_checkpoints(tmp_path):
    for name in ("iter_2.r0", "iter_4.r0", "iter_4.r1", "iter_8.r0", "iter_6.r1"):
        (tmp_path / f"{name}.shards").mkdir()
    shards.remove_stale(tmp_path, ["iter_4", "iter_6"], "iter_4.r1.shards")
    kept = sorted(path.name for path in tmp_path.iterdir() if path.name.endswith(".shards"))
    assert kept == ["iter_4.r1.shards", "iter_6.r1.shards"]


def test_modules_that_draw_random_numbers_are_named(monkeypatch):
    """One process, a model without dropout, and later steps warn of nothing."""

    def step(world_size: int, dropout: float, num_steps: int = 1) -> None:
        monkeypatch.setattr(stage_module, "get_world_size", lambda: world_size)
        member = dict(name="a", model=dict(width=8, depth=2, dropout=dropout))
        model = StageModel(dict(type="toy"), member).train()
        batch = model.paradigm.example_batch(model.student, 4)
        for _ in range(num_steps):
            model(mode="loss", **batch)

    with pytest.warns(UserWarning, match=r"in blocks\.0\.dropout; blocks\.1\.dropout\)") as noted:
        step(2, 0.1, num_steps=2)
    assert len(noted) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(1, 0.1)
        step(2, 0.0)


def test_a_compiled_model_is_not_looked_into(monkeypatch):
    model = ToyNet(8, 1)
    with noted_draws(model, inside=False) as names:
        model(torch.zeros(2, 8))
    assert names == [""]
    assert not model.blocks[0]._forward_hooks


def test_gradients_are_clipped_by_the_norm_of_sharded_and_whole_ones(alone):
    model = sharding.shard_stage(stage(), Sharded())
    sharded = next(model.student.parameters())
    sharded.grad = torch.full_like(sharded, 3.0)
    scalar = nn.Parameter(torch.tensor(1.0))
    scalar.grad = torch.tensor(4.0)
    plain = [nn.Parameter(torch.zeros(sharded.shape)), nn.Parameter(torch.tensor(1.0))]
    plain[0].grad, plain[1].grad = torch.full(sharded.shape, 3.0), torch.tensor(4.0)
    norm = clip_norm([sharded, scalar], max_norm=2.0)
    assert norm == nn.utils.clip_grad_norm_(plain, 2.0)
    assert torch.equal(sharded.grad.full_tensor(), plain[0].grad)
    assert torch.equal(scalar.grad, plain[1].grad)


def test_samples_draw_the_same_however_they_are_spread():
    class Data(torch.utils.data.Dataset):
        def __getitem__(self, index):
            return index, torch.rand(()).item()

    def generator():
        return torch.Generator().manual_seed(5)

    whole = SeededFetch(Data()).__getitems__([7, *range(8)])
    halves = [SeededFetch(Data(), r, 2).__getitems__([7, *range(r, 8, 2)]) for r in (0, 1)]
    assert sorted(halves[0] + halves[1]) == whole
    assert len({value for _, value in whole}) == 8
    every = Draws(generator()).randn(6, 3)
    assert torch.equal(Draws(generator(), 1, 2).randn(3, 3), every[1::2])
    seeds = {sample_seed(seed, position) for seed in range(50) for position in range(50)}
    assert len(seeds) == 2500


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(parallel=dict(FSDP, processes=3)), "4 processes cannot be divided"),
        (dict(custom_hooks=[dict(type="EMAHook")]), "EMAHook copies the model"),
    ],
)
def test_what_cannot_be_sharded_is_refused_before_training(
    changes, message, toy, tmp_path, monkeypatch
):
    monkeypatch.setattr(sharding, "get_world_size", lambda: 4)
    monkeypatch.setattr(preflight, "is_distributed", lambda: True)
    with pytest.raises(ConfigError, match=message):
        compt.train({**toy, "parallel": FSDP, **changes}, work_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_copies_have_to_divide_all_processes(monkeypatch):
    monkeypatch.setattr(sharding, "get_world_size", lambda: 4)
    for processes in (1, 2, 4, None):
        check_processes(Sharded(processes=processes))


def test_a_sharded_model_has_no_other_wrapper(toy):
    wrapper = dict(type="MMDistributedDataParallel")
    with pytest.raises(ConfigError, match="wraps the model itself"):
        load_config({**toy, "parallel": FSDP, "model_wrapper_cfg": wrapper})
