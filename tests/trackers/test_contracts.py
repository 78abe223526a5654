"""The built-in trackers keep the contract, with real runs where their packages are installed."""

from __future__ import annotations

import os

import pytest

from compt.testing import TrackerContract

REAL = ("test_a_run_goes_on", "test_its_back_end_is_registered")
"""Tests that need the tracker's own package."""


class _BuiltIn(TrackerContract):
    @pytest.fixture(autouse=True)
    def _offline(self, request, monkeypatch, tmp_path):
        for name in list(os.environ):
            if name.startswith(("WANDB_", "MLFLOW_", "SWANLAB_")):
                monkeypatch.delenv(name)
        if request.node.name in REAL:
            pytest.importorskip(self.make().package)
            monkeypatch.setenv("WANDB_MODE", "offline")
            monkeypatch.setenv("SWANLAB_MODE", "offline")
        monkeypatch.chdir(tmp_path)


class TestWandb(_BuiltIn):
    backend = dict(
        type="WandbVisBackend",
        init_kwargs=dict(project="tests", settings=dict(console="off")),
    )


class TestMlflow(_BuiltIn):
    backend = dict(type="MLflowVisBackend", exp_name="mine", tags=dict(owner="me"))


class TestSwanlab(_BuiltIn):
    backend = dict(type="SwanlabVisBackend", init_kwargs=dict(project="tests"))
