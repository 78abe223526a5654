"""What operators' outputs look like is remembered from one program to the next, or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import flop_counter

from compt.planning import flops, looks
from compt.planning.flops import FlopCounter

FORWARD = 2 * 3 * 8 * 16


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of a cache that is empty, where nothing else writes."""
    monkeypatch.setenv("COMPT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "planning"


@pytest.fixture
def num_run(monkeypatch):
    """Counts operators that are run, as its only entry."""
    number = [0]
    described = flops._described

    def counting(*arguments):
        number[0] += 1
        return described(*arguments)

    monkeypatch.setattr(flops, "_described", counting)
    return number


def trained() -> list[tuple]:
    """Train a layer and a convolution, and return what gradients look like."""
    layer = nn.Linear(8, 16, device="meta")
    images = torch.empty(2, 3, 8, 8, device="meta")
    convolved = nn.Conv2d(3, 4, 3, device="meta")(images)  # its images have no gradient
    (layer(torch.empty(3, 8, device="meta")).sum() + convolved.sum()).backward()
    weight = layer.weight.grad
    assert weight is not None
    return [(weight.shape, weight.stride(), weight.dtype), (convolved.shape, convolved.stride())]


def counted(run: Callable[[], Any] = trained) -> tuple[float, Any]:
    """Count as a program of its own would."""
    looks._opened.cache_clear()
    counter = FlopCounter()
    result = counter.count(run)
    counter._known.write()
    return result


def exponential(width: int) -> Callable[[], Any]:
    return lambda: torch.empty(width, device="meta").exp()


def test_a_second_program_runs_no_operator_and_counts_the_same(cache, num_run):
    first = counted()
    assert first[0] > 3 * FORWARD
    assert num_run[0] > 0
    num_run[0] = 0
    assert counted() == first
    assert num_run[0] == 0
    (file,) = cache.iterdir()
    assert json.loads(file.read_text())


def every(entry):
    """Make damage that puts an entry in the place of all that are known."""
    return lambda content: json.dumps(dict.fromkeys(json.loads(content), entry))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: "",
        lambda content: content[:-20],
        lambda content: "[]",
        every(3),
        every([False, [[[8], [1], "load"]]]),
        every([False, [[["8"], [1], "float"]]]),
        every([False, [[[8], [], "float"]]]),
    ],
)
def test_a_damaged_file_is_as_none(cache, num_run, damage):
    first = counted()
    (file,) = cache.iterdir()
    file.write_text(damage(file.read_text()))
    num_run[0] = 0
    assert counted() == first
    assert num_run[0] > 0
    num_run[0] = 0
    assert counted() == first
    assert num_run[0] == 0, "it was mended"


def test_a_folder_that_cannot_be_written_is_done_without(cache, num_run):
    cache.parent.write_text("no folder")
    assert counted() == counted()
    assert num_run[0] > 0


def test_another_torch_and_another_number_format_have_files_of_their_own(cache, monkeypatch):
    counted()
    monkeypatch.setattr(torch, "__version__", "9.9")
    counted()
    torch.set_default_dtype(torch.float64)
    try:
        assert counted()[1][0][2] is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert len(list(cache.iterdir())) == 3


def test_two_programs_at_once_keep_what_both_have_seen(cache, num_run):
    counters = []
    for width in (5, 6):
        looks._opened.cache_clear()
        counters.append(FlopCounter())
        counters[-1].count(exponential(width))
    for counter in counters:
        counter._known.write()
    num_run[0] = 0
    for width in (5, 6):
        counted(exponential(width))
    assert num_run[0] == 0


def test_one_program_runs_an_operator_once_for_all_of_its_counters(cache, num_run):
    for _ in range(2):
        FlopCounter().count(exponential(5))
    assert num_run[0] == 2, "one to make it and one to change it"
    assert not cache.exists()
    looks.known_looks().write()
    assert cache.exists()


def test_a_full_file_begins_anew(cache, monkeypatch):
    monkeypatch.setattr(looks, "MOST", 2)
    for width in (5, 6):
        counted(exponential(width))
    (file,) = cache.iterdir()
    names = list(json.loads(file.read_text()))
    assert names and not any("[5]" in name for name in names)


def test_a_formula_that_a_program_registers_counts_though_the_looks_are_known(cache, monkeypatch):
    assert counted()[0] == counted()[0]
    without = counted()[0]
    formula = flop_counter.shape_wrapper(lambda *shapes, **options: 1000)
    monkeypatch.setitem(flop_counter.flop_registry, torch.ops.aten.sum, formula)
    assert counted()[0] >= without + 1000


PLAN = """
import sys
from compt.cli.command_line import main
sys.argv = ["compt", "plan", "configs/clip_chain.py", "--cfg-options", *sys.argv[1:]]
code = main()
heavy = ("torch._dynamo", "sympy", "transformers", "timm", "mmengine.optim")
print(code, *(name for name in heavy if name in sys.modules), file=sys.stderr)
"""


@pytest.mark.slow
def test_a_second_plan_imports_neither_compilers_nor_other_libraries_of_models(tmp_path):
    pytest.importorskip("open_clip")
    environment = {**os.environ, "COMPT_CACHE_DIR": str(tmp_path)}
    told = [f"chain.{index}.epochs=1" for index in range(3)]
    shown = []
    for _ in range(2):
        command = [sys.executable, "-c", PLAN, *told]
        root = Path(__file__).parents[2]
        shown.append(
            subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
        )
    first, second = shown
    assert second.stderr.split() == ["0"]
    assert first.stdout == second.stdout
    assert {"transformers", "timm", "mmengine.optim"}.isdisjoint(first.stderr.split())
