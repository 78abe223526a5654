"""``compt status``: what it prints of runs, and when it stops watching."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from compt.report.state import ChainState
from compt.report.watch import machine, status_view
from compt.report.watch.lines import parse_line
from tests.cli.conftest import refused
from tests.report.watch.statuses import RUNNING, run_status, stage


@pytest.fixture
def folder(tmp_path):
    """The folder of a run of this process, which is at its second stage."""
    path = tmp_path / "work"
    ChainState("chain", ("a", "b"), {}).write(path / "chain.json")
    write(path)
    return path


def write(path, **changes):
    pid, now = os.getpid(), time.time()
    keys = dict(host=machine.host_name(), boot=machine.boot_id(), pid=pid, started=now, written=now)
    keys["process_started"] = machine.process_started(pid)
    run_status(stage("a", "done"), RUNNING, **{**keys, **changes}).write(path / "status.json")


def test_a_log_gets_one_line_a_run(run, folder):
    (line,) = run("status", folder).out.splitlines()
    pairs = parse_line(line)
    expected = dict(folder=str(folder), run="running", stages_done="1/2", done="70%", stage="b")
    expected |= {"iter": "40/100", "loss": "2", "samples_per_s": "812", "left": "0:34"}
    assert pairs.items() >= expected.items()
    write(folder, state="interrupted", reason="Stopped by SIGTERM.", seconds_left=5.0)
    pairs = parse_line(run("status", folder).out)
    expected = dict(run="interrupted", reason="Stopped by SIGTERM.", iter="40/100")
    assert pairs.items() >= expected.items()
    assert not pairs.keys() & {"left", "chain_left", "state"}, "nothing is left to wait for"


def test_a_terminal_gets_the_view(run, folder, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    out = run("status", folder).out
    for word in ("running", str(os.getpid()), "last sign of life", "40/100", "812 samples/s"):
        assert word in out
    write(folder, pid=2**22 + 1)
    assert "is gone, and did not say why. --resume" in " ".join(run("status", folder).out.split())
    (folder / "status.json").unlink()
    assert "without a status.json" in " ".join(run("status", folder).out.split())


def test_several_runs_as_json(run, folder, tmp_path):
    other = tmp_path / "other"
    ChainState("chain", ("c",), {}).write(other / "chain.json")
    code, out, _ = run("status", folder, other, "--json")
    assert code == 0
    content = json.loads(out)
    assert [run["folder"] for run in content["runs"]] == [str(folder), str(other)]
    assert [run["life"] for run in content["runs"]] == ["running", "stopped"]


def test_watching_ends_with_the_last_run(run, folder, monkeypatch):
    steps = iter([dict(progressed=2.0), dict(progressed=2.0), dict(state="finished")])
    monkeypatch.setattr(status_view.time, "sleep", lambda seconds: write(folder, **next(steps)))
    lines = list(map(parse_line, run("status", folder, "--watch").out.splitlines()))
    assert [line["run"] for line in lines] == ["running", "running", "finished"], "not what is old"


def test_watching_is_left_with_ctrl_c(run, folder, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(status_view.time, "sleep", interrupt)
    code, out, err = run("status", folder, "--watch")
    assert (code, out.count("\n"), err) == (0, 1, "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    code, out, err = run("status", folder, "--watch")
    assert (code, err) == (0, "")
    assert "\x1b[?25h" in out, "the cursor is back"


def test_bad_folders_are_named(run, folder, tmp_path):
    refused(run("status", tmp_path / "none"), "none", "does not exist", "--work-dir")
    refused(run("status", tmp_path), "not the work folder")
    (folder / "status.json").write_text("{")
    refused(run("status", folder), "status.json")
    assert run("status", folder, "--watch", "--json").code == 2


def test_it_starts_without_torch(folder):
    code = (
        "import sys; from compt.cli import main; main(sys.argv[1:]); "
        "sys.exit('torch' in sys.modules or 'mmengine' in sys.modules)"
    )
    command = [sys.executable, "-c", code, "status", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "stage=b" in done.stdout
