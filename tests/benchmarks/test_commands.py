"""The commands on the toy family: measured, stopped, repeated, drawn, and put into documents."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import map as map_command
import on_gpu
import pytest
import saving
import study
import torch
from measuring import row as row_module
from measuring.command import repeating
from measuring.rule import Gate, gate

from tests.benchmarks.toys import FAMILY, family_file
from tests.benchmarks.worlds import ITERS, FakeBench, World

KNOWN = {2: dict(fractions=(1.0, 0.5), lr_mults=(1.0, 0.5))}
SHORT = dict(lengths=(2,), seeds=1, chains=KNOWN)
PRESETS = {"smoke": {**FAMILY["presets"]["smoke"], **SHORT}}


def opened(*qualities: Any) -> Gate:
    """The gate of members that hardly train, held open."""
    return replace(gate(*qualities), gaps=(1.0,), errors=(0.1,), smallest_longer=0.0, largest=1.0)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Calls a command as a user would, and returns its exit code and what it printed."""

    def call(module: Any, *arguments: str | Path) -> tuple[int, str]:
        capsys.readouterr()
        argv = [f"benchmarks/{Path(module.__file__).name}", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", argv)
        code = module.main()
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call


def test_a_family_of_ones_own_by_config_alone(
    tmp_path: Path, call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped, measured, read again, studied, and put into a document."""
    monkeypatch.setattr(row_module, "gate", opened)
    result, runs = tmp_path / "saving.json", tmp_path / "runs"
    family = family_file(tmp_path, presets=PRESETS)
    arguments = [family, "--work-dir", runs, "--workers", "1", "--json", result]
    code, printed = call(saving, *arguments, "--minutes", "0.0001")
    assert code == 0 and "the same command goes on" in printed and not result.is_file()
    code, printed = call(saving, *arguments)
    assert code == 0 and "undecided: 1 of 5 seeds" in printed
    (row,) = json.loads(result.read_text())
    assert row["command"] == f"python benchmarks/saving.py {family} --json {result}"
    assert row["fractions"] == [1.0, 0.5] and row["search"] is None
    assert row["chain"][0] == row["members"][0]["alone"], "the same runs"
    small, large = (member["alone_flops"] for member in row["members"])
    assert row["chain_flops"] == pytest.approx([small, large / 2]), "no teacher, no more"
    assert row["equal_samples"]["flops"] == pytest.approx(1.5 * large)
    lengths = [reached["iters"] for reached in row["published"]]
    assert lengths == [2, 1] and row["published"][1]["flops"] > large / 2, "with a teacher"
    assert row["floor"] == FAMILY["floor"] and row["batch_size"] == 32
    trained = {path: path.stat().st_mtime_ns for path in runs.rglob("manifest.json")}
    call(saving, *arguments)
    assert json.loads(result.read_text()) == [row]
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("manifest.json")} == trained

    study_result = tmp_path / "study.json"
    code, printed = call(
        study, family, "--work-dir", runs, "--workers", "1", "--json", study_result
    )
    assert code == 0 and "| grower=leading_block |" in printed
    added = {path.relative_to(runs).parts for path in runs.rglob("manifest.json")}
    added -= {path.relative_to(runs).parts for path in trained}
    assert {parts[4] for parts in added} == {"seed_101", "seed_102", "seed_103"}
    assert {parts[4] for parts in added if parts[1] == "alone"} == {"seed_103"}, "shared"

    document, plot = tmp_path / "x.md", tmp_path / "x.svg"
    places = ("saving", "controls", "restart")
    document.write_text("".join(f"<!-- {place} -->\n<!-- end -->\n" for place in places))
    options = ("--plot", plot, "--write", document)
    code, printed = call(map_command, result, study_result, *options)
    text = document.read_text()
    assert code == 0 and text.count("| toys, 2 members | 2 |") == 2 and plot.is_file()
    assert "| grower=leading_block |" in text and "toys, 2 members" in printed
    document.write_text("no place")
    code, printed = call(map_command, result, "--write", document)
    assert code == 2 and "Add <!--" in printed
    (tmp_path / "other.json").write_text('{"a": 1}')
    code, printed = call(map_command, tmp_path / "other.json")
    assert code == 2 and "other.json' has no results" in printed


def test_errors_are_told_and_end_with_a_code(tmp_path: Path, call) -> None:
    code, printed = call(saving, "nobody")
    assert code == 2 and "There is no family 'nobody'" in printed
    code, printed = call(saving, family_file(tmp_path), "--iters", "9", "--work-dir", tmp_path)
    assert code == 2 and "One of: 8" in printed
    code, printed = call(study, family_file(tmp_path, study=()), "--work-dir", tmp_path)
    assert code == 2 and "has no study" in printed


def test_the_command_of_a_result_is_what_anyone_can_repeat() -> None:
    argv = ["benchmarks/saving.py", "lm", "--work-dir", "x", "--minutes", "5", "--preset", "cpu"]
    assert repeating(argv) == "python benchmarks/saving.py lm --preset cpu"
    assert repeating([*argv[:2], "--workers=2", "--json", "a b"]).endswith("lm --json 'a b'")


@pytest.mark.parametrize("module", [saving, study])
def test_the_gpu_preset_says_that_there_is_no_gpu(tmp_path: Path, call, module) -> None:
    """And is no failure."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    code, printed = call(module, family_file(tmp_path), "--preset", "gpu", "--work-dir", tmp_path)
    assert code == 0 and "nothing was measured" in printed
    assert "nothing was measured" in call(on_gpu)[1]


def test_pieces_on_a_gpu_go_on_until_all_is_there(
    tmp_path: Path, call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On whatever device there is: what is measured is made up."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        on_gpu, "torch", SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True))
    )
    monkeypatch.setattr(on_gpu, "device", lambda end: True)
    monkeypatch.setattr(on_gpu, "FAMILIES", (str(family_file(tmp_path)),))
    monkeypatch.setattr(on_gpu, "MINUTES", 0.0)
    code, printed = call(on_gpu)
    assert code == 0 and "not finished, run it again" in printed
    monkeypatch.setattr(on_gpu, "MINUTES", 8.0)
    monkeypatch.setattr(on_gpu, "Bench", lambda *_, **__: FakeBench(World(), lengths=(ITERS,)))
    monkeypatch.setattr(on_gpu, "read_family", lambda *_: FakeBench(World()).family)
    code, printed = call(on_gpu)
    assert code == 0 and "all is there" in printed and "| made, 3 members |" in printed
    assert (on_gpu.WORK_DIR / "made-smoke.json").is_file()
