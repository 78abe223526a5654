"""Give growers an objective to learn from.

It is the stage's own loss, changes nothing, and its cost is planned and charged.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

import compt
import tests.learner  # noqa: F401 - registers the grower
from compt.config import load_config
from compt.errors import GrowthError
from compt.interfaces import Member
from compt.planning.planner import plan
from compt.registry import PARADIGMS
from compt.report.plan_table import plan_text
from compt.testing.toy import Toy, ToyNet
from compt.training.objective import StageObjective
from compt.training.stage import StageModel, build_member
from compt.training.stage_config import stage_config
from tests.conftest import TOY, config_file
from tests.training.test_distributed import python, two_processes


def runner_config(toy, **changes) -> Config:
    """The Runner config of the toy chain's second stage."""
    config = load_config({**toy, **changes})
    stage = config.stages[1]
    return stage_config(
        config, stage, plan(config).stages[1], Path("02_b"), init=None, teacher=None
    )


def target(config: Config) -> nn.Module:
    paradigm = PARADIGMS.build(dict(config.model.paradigm))
    return build_member(paradigm, Member("b", config.model.member["model"]), seed=7)


def parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}


@pytest.mark.parametrize("performance", [{}, {"grad_checkpointing": True, "precision": "bf16"}])
def test_it_is_the_loss_and_the_gradients_of_the_stage(toy, performance):
    toy["chain"][1]["model"]["dropout"] = 0.0
    config = runner_config(toy, **performance)
    model = target(config)
    params = parameters(model)
    objective = StageObjective(config, model, num_calls=3)
    batches = iter(objective._loader(objective._build()))
    stage = StageModel(**{k: v for k, v in config.model.items() if k != "type"})
    stage.student.load_state_dict(model.state_dict())
    for step in range(3):
        loss = objective(params)
        gradients = torch.autograd.grad(loss, list(params.values()))
        stage.iteration = step
        stage.zero_grad()
        expected = stage(**stage.data_preprocessor(next(batches), True), mode="loss")["loss"]
        expected.backward()
        assert loss.item() == expected.item()
        for (name, param), gradient in zip(
            stage.student.named_parameters(), gradients, strict=True
        ):
            assert torch.equal(param.grad, gradient), name
    assert objective.summary()["calls"] == 3
    assert all(p.grad is None for p in model.parameters())


def test_parameters_that_are_not_given_keep_their_values(toy):
    toy["chain"][1]["model"]["dropout"] = 0.0
    config = runner_config(toy)
    model = target(config)
    objective, other = (StageObjective(config, model, num_calls=1) for _ in range(2))
    assert objective({}).item() == other(parameters(model)).item()
    with pytest.raises(GrowthError, match=r"lacks: \['head.nothing'\]"):
        objective({"head.nothing": torch.zeros(1)})


class Counting(nn.Module):
    """A ToyNet behind a batch norm, whose statistics every forward pass in training would move."""

    def __init__(self, width, depth):
        super().__init__()
        self.norm, self.net = nn.BatchNorm1d(8), ToyNet(width, depth)
        self.head = self.net.head

    def features(self, x):
        return self.net.features(self.norm(x))


def test_the_target_and_its_buffers_stay_as_they_are(toy, monkeypatch):
    monkeypatch.setattr(Toy, "build_model", lambda self, member: Counting(**member.model))
    config = runner_config_without_layout(toy)
    model = target(config)
    unchanged = copy.deepcopy(model.state_dict())
    objective = StageObjective(config, model, num_calls=2)
    losses = {objective({}).item() for _ in range(2)}
    assert len(losses) == 2, "each call has a batch of its own"
    assert all(torch.equal(unchanged[name], value) for name, value in model.state_dict().items())


def runner_config_without_layout(toy) -> Config:
    return Config(
        dict(
            model=dict(
                type="ComptStageModel",
                paradigm=toy["paradigm"],
                member=dict(name="b", model=dict(width=16, depth=2)),
                init=None,
                teacher=None,
                transfer=None,
                performance={},
                seed=1,
            ),
            train_dataloader=dict(batch_size=32),
            default_scope="mmengine",
        )
    )


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Path:
    toy = {**copy.deepcopy(TOY), "grower": dict(type="learner", steps=6), "evaluations": 2}
    return compt.train(toy, work_dir=tmp_path_factory.mktemp("learned") / "work")


def test_a_chain_gives_growers_their_objective_and_charges_it(learned):
    manifest = json.loads((learned / "02_b" / "manifest.json").read_text())
    flops = manifest["flops"]
    assert manifest["growth"]["objective"]["calls"] == 6
    assert flops["growth"] == 6 * 32 * flops["student_per_sample"]
    trained = 8 * 32 * (flops["student_per_sample"] + flops["teacher_per_sample"])
    assert flops["total"] == pytest.approx(flops["growth"] + trained)
    assert manifest["curve"][0]["flops"] == pytest.approx(flops["growth"] + trained / 2)
    assert manifest["seconds"] > manifest["growth_seconds"] > 0
    assert manifest["curve"][-1]["seconds"] <= manifest["seconds"]
    first = json.loads((learned / "01_a" / "manifest.json").read_text())
    assert first["flops"]["growth"] == 0


def test_the_same_seed_learns_the_same_weights_with_dropout(learned, tmp_path):
    toy = {**copy.deepcopy(TOY), "grower": dict(type="learner", steps=6), "evaluations": 2}
    torch.rand(3)  # the global random state is another one than before
    again = compt.train(toy, work_dir=tmp_path / "work")
    for name in ("grown.safetensors", "weights.safetensors"):
        assert (again / "02_b" / name).read_bytes() == (learned / "02_b" / name).read_bytes()


def test_the_plan_charges_what_a_grower_announces(toy):
    free = plan({**toy, "grower": dict(type="leading_block")})
    learning = plan({**toy, "grower": dict(type="learner", steps=5)})
    for free_stage, stage in zip(free.stages, learning.stages, strict=True):
        growth_flops = 5 * 32 * stage.student_flops if stage.index else 0
        assert stage.flops - free_stage.flops == pytest.approx(growth_flops)
    assert learning.flops == sum(stage.flops for stage in learning.stages)
    assert "growing 'b' with learner learns on 5 batches" in plan_text(learning)
    assert "learns on" not in plan_text(free)
    alone = plan({**toy, "grower": dict(type="learner", steps=5)}, individual=True)
    assert all(stage.growth_iters == 0 for stage in alone.stages)


SCRIPT = '''
"""Save an objective's loss and gradients, of a whole batch or of each process's half of it."""
import os
import sys

import torch
from compt.training.distributed import start
from compt.training.objective import StageObjective
from compt.registry import PARADIGMS
from compt.testing.toy import Toy, ToyNet
from tests.training.test_objective import runner_config_without_layout

Toy.prepare = lambda self, batch, *, generator: batch
torch.set_num_threads(1)
if "RANK" in os.environ:
    start("pytorch")
world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
config = runner_config_without_layout(dict(paradigm=dict(type="toy", samples=256)))
config.train_dataloader = dict(batch_size=32 // world)
torch.manual_seed(0)
model = ToyNet(16, 2, dropout=0.0)
params = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
if sys.argv[1] == "silent":
    StageObjective(config, model, num_calls=0)(params)
loss = StageObjective(config, model, num_calls=1)(params)
loss.backward()
gradients = {name: p.grad for name, p in params.items()}
process = os.environ.get("RANK", "alone")
torch.save({"loss": loss.detach(), "gradients": gradients}, f"{sys.argv[1]}_{process}.pt")
if world > 1:  # else a thread of gloo may abort the exit
    torch.distributed.destroy_process_group()
'''


def test_two_processes_learn_from_both_batches_alike(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    alone = python("script.py", "step", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    for done in two_processes("script.py", "step", cwd=tmp_path):
        assert done.returncode == 0, done.stderr
    whole, first, second = (
        torch.load(tmp_path / f"step_{name}.pt") for name in ("alone", "0", "1")
    )
    assert (
        first["loss"].item()
        == second["loss"].item()
        == pytest.approx(whole["loss"].item(), abs=1e-6)
    )
    for name, gradient in whole["gradients"].items():
        assert torch.equal(first["gradients"][name], second["gradients"][name]), name
        assert (first["gradients"][name] - gradient).abs().max() < 1e-6, name


@pytest.mark.slow
def test_a_grower_that_announces_nothing_is_refused_where_there_are_two_processes(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = two_processes("script.py", "silent", cwd=tmp_path)
    assert "Set `objective_calls` in the grower" in "".join(result.stderr for result in done)


@pytest.mark.slow
def test_a_chain_over_two_processes_grows_once_from_both(tmp_path):
    toy = copy.deepcopy(TOY)
    toy["custom_imports"] = dict(imports=["compt.testing.toy", "tests.learner"])
    toy["grower"] = dict(type="learner")
    config_file(tmp_path, toy)
    command = ("-m", "compt", "train", "toy.py", "--work-dir", "work", "--launcher", "pytorch")
    for done in two_processes(*command, cwd=tmp_path):
        assert done.returncode == 0, done.stdout + done.stderr
    for stage in ("02_b", "03_c"):
        manifest = json.loads((tmp_path / "work" / stage / "manifest.json").read_text())
        assert manifest["growth"]["objective"]["calls"] == 4
