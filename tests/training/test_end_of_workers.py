"""A stage's processes that read samples end with it, whenever its cycle is collected."""

from __future__ import annotations

import gc
import multiprocessing

import pytest

import compt
from compt.training.loops import TrainLoop


@pytest.mark.parametrize("persistent_workers", [False, True])
def test_no_reader_of_a_stage_lives_in_the_next(toy, tmp_path, monkeypatch, persistent_workers):
    alive, evaluate_again = [], TrainLoop._measure_again

    def noting(loop):
        alive.append(multiprocessing.active_children())
        evaluate_again(loop)

    monkeypatch.setattr(TrainLoop, "_measure_again", noting)
    workers = dict(num_workers=1, persistent_workers=persistent_workers)
    toy["train_dataloader"] = {**toy["train_dataloader"], **workers}
    toy["val_dataloader"] = dict(num_workers=0)
    gc.disable()
    try:
        compt.train({**toy, "chain": toy["chain"][:2]}, work_dir=tmp_path / "work")
    finally:
        gc.enable()
    assert alive == [[], []]
