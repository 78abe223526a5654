"""An export is there as a whole or not at all, after a power cut too."""

from __future__ import annotations

import os

import pytest

from compt.workdir import StageFolder


def test_an_export_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    brought: set[int] = set()
    fsync = os.fsync

    def noting(descriptor):
        brought.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    stage = StageFolder(tmp_path)
    with stage.exporting() as folder:
        (folder / "inner").mkdir()
        for name in ("model.safetensors", "inner/words.json"):
            (folder / name).write_text("content")
        brought.clear()
    written = [stage.export, *stage.export.rglob("*")]
    assert len(written) == 4
    assert {path.stat().st_ino for path in written} <= brought


def test_an_interrupted_export_leaves_the_one_before(tmp_path):
    stage = StageFolder(tmp_path)
    with stage.exporting() as folder:
        (folder / "model").write_text("first")

    def interrupted():
        with stage.exporting() as folder:
            (folder / "model").write_text("sec")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (stage.export / "model").read_text() == "first"
