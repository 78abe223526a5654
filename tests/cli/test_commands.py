"""``compt plan``, ``list``, ``check``, ``report`` and help: what they print and write."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import compt
from compt.config import load_config
from compt.files import read_json
from compt.scaffold import KINDS
from tests.cli.conftest import refused, shell
from tests.conftest import TOY, config_file

PLOTS = ("quality_vs_compute.png", "quality_vs_compute.svg")


# plan


def test_a_plan_as_json_is_the_plan(run, toy, tmp_path):
    file = config_file(tmp_path, toy)
    code, out, err = run("plan", file, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == compt.plan(toy).to_dict()
    out = run(
        "plan",
        file,
        "--json",
        "--individual",
        "--cfg-options",
        "individual.iters=5",
        "chain.1.iters=2",
    ).out
    changed = load_config(toy, {"individual.iters": 5, "chain.1.iters": 2})
    assert json.loads(out) == compt.plan(changed, individual=True).to_dict()
    assert json.loads(out)["flops"] == 5 * 32 * (2272 + 13760 + 43680)
    assert sorted(tmp_path.iterdir()) == [file]


def test_a_plan_is_a_table_with_its_warnings(run, toy, tmp_path):
    code, out, _ = run("plan", config_file(tmp_path, toy))
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    # 256 * 2272 = 582 k; 256 * (13760 + 800) = 3.73 M; 192 * (43680 + 4672) = 9.28 M; together 13.6
    # M
    assert [f"{n} %" in rows[m] for m, n in zip("abc", (4, 27, 68))] == [True] * 3
    assert "582 k" in rows["a"] and "3.73 M" in rows["b"] and "9.28 M" in rows["c"]
    assert "chain 13.6 MFLOP; every member alone 15.3 MFLOP (1.12x the chain)" in out
    assert "warning: 'a' -> 'b' grows 5.4x" in out


def test_a_plan_in_a_process_of_its_own(toy, tmp_path):
    config_file(tmp_path, toy)
    code, out, err = shell("-m", "compt", "plan", "toy.py", "--json", folder=tmp_path)
    assert code == 0, err
    assert json.loads(out)["flops"] == compt.plan(toy).flops


# list, check


def test_list_and_check_are_json(run):
    code, out, _ = run("list", "--json")
    rows = {(row["registry"], row["name"]): row for row in json.loads(out)}
    assert code == 0
    assert {
        ("growers", "lossless"),
        ("transfers", "feature_mse"),
        ("paradigms", "clip"),
    } <= rows.keys()
    assert rows["growers", "lossless"]["target"] == "compt.growers.lossless:Lossless"
    code, out, _ = run("check", "--json")
    checked = {(row["registry"], row["name"]): row for row in json.loads(out)}
    assert checked.keys() == rows.keys()
    assert checked["growers", "lossless"]["ok"] is True
    assert code == (0 if all(row["ok"] for row in checked.values()) else 2)


def test_list_is_a_table(run):
    code, out, _ = run("list")
    assert code == 0
    assert re.search(
        r"growers +leading_block +compt +\S+ +compt\.growers\.leading_block:LeadingBlock", out
    )


# report


def test_a_report_prints_a_table_and_writes_plots(run, finished, tmp_path):
    code, out, err = run("report", finished, "-o", tmp_path / "out")
    assert code == 0, err
    rows = [line.split() for line in out.splitlines()]
    assert [row[0] for row in rows if row and row[0] in "abc"] == ["a", "b", "c"]
    for name in ("report.json", *PLOTS):
        assert (tmp_path / "out" / name).stat().st_size > 500
        assert f"wrote {tmp_path / 'out' / name}" in out
    assert not (finished / "report.json").exists()


def test_a_report_goes_into_the_first_folder_and_is_json(run, finished):
    code, out, err = run("report", finished, "--json")
    assert code == 0, err
    assert json.loads(out) == json.loads((finished / "report.json").read_text())
    manifests = [read_json(p) for p in sorted(finished.glob("*/manifest.json"))]
    members = json.loads(out)["runs"][0]["members"]
    assert [m["flops"] for m in members] == [m["flops"]["total"] for m in manifests]
    assert [m["flops"] for m in members] == [s.flops for s in compt.plan(TOY).stages]
    for name in ("report.json", *PLOTS):
        (finished / name).unlink()


def test_what_is_no_run_has_no_report(run, tmp_path):
    refused(run("report", tmp_path), str(tmp_path))
    refused(run("report", tmp_path / "gone"), "gone")
    assert list(tmp_path.iterdir()) == []


# new-plugin


def test_every_kind_of_plug_in_is_a_choice(run):
    result = run("new-plugin", "x", "--kind", "nothing")
    assert result.code == 2
    for kind in KINDS:
        assert kind in result.err.partition("choose from")[2]


# Help


def test_help_needs_no_torch(tmp_path):
    code = """
import sys
from compt import cli
for line in ([], ["train"], ["plan"], ["grow"], ["list"], ["check"], ["report"]):
    try:
        cli.main([*line, "-h"])
    except SystemExit as stop:
        assert stop.code == 0
try:
    cli.train_main(["-h"])
except SystemExit as stop:
    assert stop.code == 0
print("loaded", sorted({"torch", "mmengine", "open_clip", "rich", "matplotlib"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "loaded []" in done.stdout
    for word in (
        "--work-dir",
        "--resume",
        "--individual",
        "--launcher",
        "--cfg-options",
        "--grower",
        "--json",
    ):
        assert word in done.stdout
