"""`compt plan --explain` and `--device`."""

from __future__ import annotations

import json

from tests.conftest import config_file


def test_the_command_explains_and_estimates(run, toy, tmp_path):
    file = config_file(tmp_path, toy)
    code, out, err = run("plan", file, "--explain", "--device", "h200")
    assert (code, err) == (0, "")
    assert "estimate for one H200" in out and "mfu = 0.35" in out
    assert "may not pay: 'b' is trained for 100% of what it has alone. A hop saves" in out
    brief = run("plan", file).out
    assert "may not pay: 'b' is trained" in brief and "A hop saves" not in brief


def test_the_command_estimates_as_json(run, toy, tmp_path):
    file = config_file(tmp_path, toy)
    content = json.loads(run("plan", file, "--json", "--explain", "--device", "T4").out)
    assert content["estimate"]["device"]["memory"] == 16
    assert len(content["estimate"]["hours"]) == len(content["estimate"]["memory"]) == 3
    assert content["doubts"][0]["what"].startswith("'b' is trained")


def test_a_share_without_a_device_is_refused(run, toy, tmp_path):
    code, _, err = run("plan", config_file(tmp_path, toy), "--mfu", "0.5")
    assert code == 2 and "--device" in err
