"""Mutations of configs: each is refused in one message before any work, or can be run.

The pool is what goes wrong in practice: other types, numbers out of range, not finite or absurdly
large, text that no file system takes, keys that are missing or unknown.
"""

from __future__ import annotations

import contextlib
import copy
import io
import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st
from mmengine.config import Config

from compt import cli
from compt.config import load_config
from compt.errors import ComptError
from compt.planning.planner import plan
from compt.training.preflight import preflight
from tests.config.conftest import write
from tests.environments import ROOT

BAD = (
    *(None, True, False, 0, -1, 1, 2, 3, 1.5, -0.5, 0.0, 10**9, 10**30, -(10**12), 1e30),
    *(math.nan, math.inf, -math.inf, "", "x", "1", "a\0b", "\ud800", "ü", "x" * 300, b"x", 1j),
    *([], [1], ["x"], (-1, -1), [[[]]], [None], [math.nan], {1, 2}),
    *({}, {"x": 1}, {"type": "nope"}, {"type": None}, {"type": "AdamW"}, {1: 2, "a": 3}),
)
KEYS = ("nope", "type", "lr", "begin", "end", "by_epoch", "interval", "priority")
TOY: dict[str, Any] = dict(
    custom_imports=dict(imports=["compt.testing.toy"]),
    paradigm=dict(type="toy", samples=256, noise=0.5),
    grower=dict(type="compose", width="clone", depth=dict(type="stack", order="solar")),
    transfer=dict(type="compose", transfers=[dict(type="feature_mse", weight=1.0, limit=0.5)]),
    train_dataloader=dict(batch_size=32, num_workers=0),
    val_dataloader=dict(batch_size=64),
    optim_wrapper=dict(
        type="OptimWrapper",
        optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.1, betas=(0.9, 0.98)),
        clip_grad=dict(max_norm=1.0, norm_type=2),
        accumulative_counts=1,
    ),
    param_scheduler=[
        dict(type="LinearLR", start_factor=1e-3, begin=0.0, end=0.5),
        dict(type="CosineAnnealingLR", eta_min=0.0, begin=0.5, end=1.0),
    ],
    default_hooks=dict(
        logger=dict(type="LoggerHook", interval=2), timer=dict(type="IterTimerHook")
    ),
    custom_hooks=[dict(type="EMAHook", momentum=0.001, priority="NORMAL")],
    log_processor=dict(by_epoch=False, window_size=2),
    env_cfg=dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method="fork")),
    visualizer=dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend")]),
    default_scope="mmengine",
    grown=dict(lr_mult=1.0, new_lr_mult=1.5),
    individual=dict(budget="chain"),
    published=dict(source="a paper", relative_compute={"a->b": 0.3}),
    checkpoint=dict(interval=3, keep=2),
    evaluations=2,
    seed=0,
    chain=[
        dict(name="a", model=dict(width=8, depth=1), iters=3),
        dict(
            name="b",
            model=dict(width=16, depth=2),
            epochs=0.5,
            stopping=dict(type="gain", minimum=0.1, patience=1),
            param_scheduler=[dict(type="MultiStepLR", milestones=[1, 2], gamma=0.5)],
        ),
    ],
)
SHIPPED = ("clip_chain", "mae_chain", "lm_chain")


def bounded(max_examples: int) -> Callable[[Any], Any]:
    """The same mutations in every run, so many of them."""
    return settings(
        max_examples=max_examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@cache
def shipped(name: str) -> dict[str, Any]:
    """A config that compt ships, with two members and budgets that no data is opened for."""
    config = Config.fromfile(str(ROOT / "configs" / f"{name}.py")).to_dict()
    chain = [{**stage, "iters": 3} for stage in config["chain"][:2]]
    chain = [{key: stage[key] for key in stage if key != "epochs"} for stage in chain]
    content = {key: value for key, value in config.items() if not callable(value)}
    return {**content, "chain": chain}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a config can be changed: every key and entry, at any depth."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in entries:
        if not isinstance(value, tuple):
            yield (*path, key)
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*path, key))


@st.composite
def mutated(draw: Any, base: dict[str, Any]) -> dict[str, Any]:
    """A config with one or two of its values replaced, removed, doubled or joined by others."""
    config = copy.deepcopy(base)
    for _ in range(draw(st.sampled_from((1, 1, 1, 2)))):
        if not (found := list(places(config))):
            break
        *above, key = draw(st.sampled_from(found))
        parent: Any = config
        for step in above:
            parent = parent[step]
        change = draw(st.sampled_from(("replace",) * 6 + ("remove", "add", "double")))
        if change == "remove":
            del parent[key]
        elif change == "add" and isinstance(parent, dict):
            parent[draw(st.sampled_from(KEYS))] = copy.deepcopy(draw(st.sampled_from(BAD)))
        elif change == "double" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        else:
            parent[key] = copy.deepcopy(draw(st.sampled_from(BAD)))
    return config


def judge(config: dict[str, Any], *, parts: bool) -> None:
    """Load and plan; a ComptError of bad input is the one thing that may be raised."""
    try:
        checked = load_config(config)
        planned = plan(checked)
        if parts:
            preflight(checked, planned)
    except ComptError as error:
        refusal = error
    else:
        return
    assert refusal.exit_code == 2, refusal
    assert "Traceback" not in str(refusal)


@bounded(150)
@given(mutated(TOY))
def test_a_mutation_of_every_key_is_refused_or_runs(config):
    judge(config, parts=True)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_mutation_of_a_shipped_config_is_refused_or_planned(name):
    @bounded(12)
    @given(mutated(shipped(name)))
    def check(config: dict[str, Any]) -> None:
        judge(config, parts=False)

    check()


@bounded(25)
@given(mutated(TOY))
def test_the_command_says_it_in_one_message(tmp_path_factory, config):
    code, said = call("plan", written(tmp_path_factory, config))
    assert code in (0, 2), said
    assert said.count("compt: ") == (code == 2), said


@bounded(8)
@given(mutated({**TOY, "custom_hooks": []}))
def test_what_is_accepted_can_be_trained(tmp_path_factory, config):
    with contextlib.suppress(ComptError):
        assume(sum(stage.iters for stage in plan(load_config(config)).stages) < 20)
    folder = tmp_path_factory.mktemp("run")
    code, said = call("train", written(tmp_path_factory, config), "--work-dir", folder / "run")
    assert code in (0, 2) or "not finite" in said, said
    assert said.count("compt: ") == (code != 0), said


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", ["toy", *SHIPPED])
def test_a_thousand_mutations(name):
    config = TOY if name == "toy" else shipped(name)

    @bounded(1000)
    @given(mutated(config))
    def check(config: dict[str, Any]) -> None:
        judge(config, parts=name == "toy")

    check()


def written(tmp_path_factory: Any, config: dict[str, Any]) -> Path:
    """A config file, in which what is no literal is a fault of its own."""
    text = "".join(f"{key} = {value!r}\n" for key, value in config.items())
    text = text.encode("utf-8", "replace").decode()
    return write(tmp_path_factory.mktemp("config") / "toy.py", text)


def call(*arguments: Any) -> tuple[int, str]:
    """Run the command line in this process; return its code and what it says of errors."""
    with (
        contextlib.redirect_stderr(io.StringIO()) as errors,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        code = cli.main([str(argument) for argument in arguments])
    assert "Traceback" not in errors.getvalue()
    return code, errors.getvalue()
