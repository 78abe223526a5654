"""Build a paradigm that follows a checkpoint, in chains and by itself."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import compt
from compt import ConfigError
from compt.config import load_config
from compt.growth.models import build_paradigm
from compt.interfaces.paradigm import FOLLOW
from compt.testing.toy import Toy


class Follower(Toy):
    """Remember what is followed."""

    followed: Path | None = None

    def follow(self, path: Path) -> None:
        self.followed = path


def test_a_paradigm_follows_what_its_config_names(tmp_path):
    paradigm: Any = build_paradigm({"type": Follower, FOLLOW: str(tmp_path)})
    assert paradigm.followed == tmp_path
    assert build_paradigm({"type": Follower}).followed is None  # type: ignore[attr-defined]


def test_a_checkpoint_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="'nowhere'"):
        build_paradigm({"type": Toy, FOLLOW: "nowhere"})


def test_a_paradigm_that_follows_nothing_takes_any_checkpoint(tmp_path):
    paradigm = build_paradigm({"type": Toy, FOLLOW: str(tmp_path)})
    assert paradigm.notes == () and paradigm.weight_dtype(tmp_path) is None


def test_the_first_members_checkpoint_is_followed(toy, tmp_path):
    assert FOLLOW not in load_config(copy.deepcopy(toy)).paradigm
    toy["chain"][0]["init"] = str(tmp_path)
    assert load_config(copy.deepcopy(toy)).paradigm[FOLLOW] == str(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    weights = str(tmp_path / "weights.safetensors")
    assert load_config(copy.deepcopy(toy)).paradigm[FOLLOW] == weights
    (tmp_path / "export").mkdir()
    assert load_config(toy).paradigm[FOLLOW] == str(tmp_path / "export")


def test_a_plan_says_what_is_not_taken_over(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(Toy, "notes", ("what is not taken over",))
    monkeypatch.setattr(Toy, "weight_dtype", lambda self, path: torch.bfloat16)
    warnings = compt.plan(copy.deepcopy(toy)).warnings
    assert "what is not taken over" not in warnings
    toy["chain"][0]["init"] = str(tmp_path)
    warnings = compt.plan(toy).warnings
    assert "what is not taken over" in warnings
    assert any("holds bfloat16; members are trained" in warning for warning in warnings)
