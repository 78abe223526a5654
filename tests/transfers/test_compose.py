"""Composed transfers add up, and each stops at its own time."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import compt
from compt import describe
from compt.registry import TRANSFERERS
from compt.testing import TransfererContract
from compt.testing.toy import ToyNet
from compt.transfers.cosine import cosine_distance


class TestCompose(TransfererContract):
    transfer = dict(
        type="compose",
        transfers=[dict(type="cosine", weight=0.5), dict(type="relation", until=0.7)],
    )


def bound(config, teacher=6, student=6):
    transfer = TRANSFERERS.build(config)
    arch = describe(ToyNet(16, 1))
    transfer.bind(
        replace(arch, features={"features": teacher}), replace(arch, features={"features": student})
    )
    return transfer


def test_compose_adds_weighted_parts_and_stops_each_at_its_time():
    configs = [
        dict(type="cosine", weight=3.0),
        dict(type="cosine", weight=0.5, until=0.5),
        dict(type="none"),
    ]
    transfer = bound(dict(type="compose", transfers=configs))
    student, teacher = (
        {"features": torch.randn(4, 6, generator=torch.Generator().manual_seed(i))} for i in (0, 1)
    )
    plain = cosine_distance(student["features"], teacher["features"])
    early, late = (transfer(student, teacher, progress=p) for p in (0.2, 0.7))
    assert early == {"cosine": 3.0 * plain, "cosine_2": 0.5 * plain}
    assert late == {"cosine": 3.0 * plain}
    assert transfer.needs == {"features"}
    assert (transfer.strength(0.0), transfer.strength(0.99)) == (1.0, 1.0)


class Labelled(compt.Transferer):
    """Reads labels and numbers, and counts them."""

    buffer_rules = {"count": "max"}
    sample_index = True

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, student, teacher, *, progress, batch):
        self.count += len(batch["index"])
        return {"labelled": student["features"][batch["label"]].mean()}


def test_compose_passes_on_batches_rules_and_numbers():
    TRANSFERERS.register_module(name="labelled", module=Labelled)
    try:
        configs = [dict(type="cosine"), dict(type="labelled")]
        transfer = bound(dict(type="compose", transfers=configs))
    finally:
        TRANSFERERS.module_dict.pop("labelled")
    assert transfer.buffer_rules == {"parts.1.count": "max"}
    assert transfer.sample_index
    assert not bound(dict(type="compose", transfers=configs[:1])).sample_index
    features = {"features": torch.randn(4, 6)}
    batch = {"label": torch.tensor([2, 2]), "index": torch.tensor([7, 8])}
    terms = transfer(features, features, progress=0.0, batch=batch)
    assert terms["labelled"] == features["features"][[2, 2]].mean()
    assert transfer.parts[1].count == 2


def test_compose_runs_no_teacher_once_all_parts_have_ended(toy, tmp_path):
    configs = [dict(type="cosine", until=0.5), dict(type="relation", until=0.25, schedule="linear")]
    toy["transfer"] = dict(type="compose", transfers=configs)
    plan = compt.plan(toy)
    assert [stage.teacher_iters for stage in plan.stages] == [0, 4, 3]
    toy["transfer"] = dict(
        type="compose", transfers=[dict(type="none"), dict(type="cosine", weight=0.0)]
    )
    assert [stage.teacher_iters for stage in compt.plan(toy).stages] == [0, 0, 0]
    toy["transfer"] = dict(type="compose", transfers=configs)
    folder = compt.train(toy, work_dir=tmp_path / "work")
    flops = json.loads((folder / "02_b" / "manifest.json").read_text())["flops"]
    assert flops["teacher_per_sample"] > 0
    charged = 32 * (8 * flops["student_per_sample"] + 4 * flops["teacher_per_sample"])
    assert flops["total"] == pytest.approx(charged), "four of eight iterations are taught"
