"""Let programs take turns, and compare only those that train the same."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import throughput
from measuring import contest
from measuring.contest import WARM_UP, Baton, Finished, Turns, fastest, hold, medians, ratios

from tests.environments import ROOT


class Connection:
    """The parent's end, which says go so many times."""

    def __init__(self, num_turns: int) -> None:
        self.answers = ["go"] * num_turns + ["stop"]
        self.sent: list[dict] = []

    def send(self, message: dict) -> None:
        self.sent.append(message)

    def recv(self) -> str:
        return self.answers.pop(0)


def test_a_turn_is_timed_from_its_go_to_its_last_iteration(monkeypatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(contest, "now", lambda: (clock.now, clock.now / 2, int(8 * clock.now)))
    connection = Connection(2)
    baton, num_steps = Baton(connection, 4), WARM_UP + 2 * 4
    for i in range(num_steps - 1):
        clock.now += 0.5
        baton.step(float(i + 1))
    clock.now += 0.5
    with pytest.raises(Finished):
        baton.step(float(num_steps))
    losses, *turns = connection.sent
    assert losses == {"losses": [float(i + 1) for i in range(WARM_UP)]}
    assert turns == [{"wall": 500.0, "processor": 250.0, "faults": 4.0}] * 2


def test_ratios_are_to_one_other_loop_the_fastest_in_the_median() -> None:
    turns = {
        "own": Turns([], [2.0, 4.0, 5.0]),
        "a": Turns([], [1.0, 8.0, 8.0]),
        "b": Turns([], [4.0, 6.0, 5.0]),
    }
    assert fastest(turns, ["a", "b"]) == "b"
    assert ratios(turns, "own", "b") == [2.0, 1.5, 1.0]
    assert medians([1.0, 2.0, 9.0, 3.0, 1.0, 5.0], 2) == [2.0, 3.0]


def test_loops_that_train_otherwise_are_no_comparison() -> None:
    same = {"a": Turns([2.0, 1.0]), "b": Turns([2.001, 1.0])}
    throughput.compared(same, 2e-3)
    with pytest.raises(SystemExit, match="a and b do not train the same"):
        throughput.compared({**same, "b": Turns([2.0, 1.1])}, 2e-3)


def trained(task: dict, baton: Baton) -> None:
    """A program that takes its turns."""
    while True:
        baton.step(task["loss"])


def failing(task: dict, baton: Baton) -> None:
    """A program whose library is missing."""
    raise ImportError("no such library")


@pytest.mark.slow
def test_a_program_that_fails_is_left_out_with_its_reason() -> None:
    programs = {"a": trained, "b": failing, "c": trained}
    turns, failed = hold(programs, {"loss": 3.0}, starts=2, rounds=2, iters=3)
    assert list(turns) == ["a", "c"] and failed == {"b": "ImportError: no such library"}
    assert all(len(one.wall) == 4 and one.losses == [3.0] * WARM_UP for one in turns.values())


@pytest.mark.slow
@pytest.mark.parametrize("paradigm", ["clip", "mae", "lm"])
def test_all_loops_of_a_paradigm_train_the_same(paradigm, tmp_path) -> None:
    """Losses are compared by the command itself."""
    result = tmp_path / "result.json"
    options = ["--starts", "1", "--rounds", "1", "--iters", "1", "--json", str(result)]
    command = [sys.executable, "benchmarks/throughput.py", paradigm, *options]
    subprocess.run(command, cwd=ROOT, check=True, timeout=1800)
    content = json.loads(result.read_text())
    assert {"compt", "by hand", "compt, with teacher"} <= content["turns"].keys()
    assert all("accelerate" in reason for reason in content["left_out"].values())
    assert len(content["ratios"]) == 2
