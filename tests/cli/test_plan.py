"""`compt plan --explain`, `--device` and `--devices`."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import refused
from tests.conftest import config_file


def test_the_command_explains_and_estimates(run, toy, tmp_path):
    file = config_file(tmp_path, toy)
    code, out, err = run("plan", file, "--explain", "--device", "h200")
    assert (code, err) == (0, "")
    assert "estimate for one H200" in out and "mfu = 0.35" in out
    assert "may not pay: 'b' is trained for 100% of what it has alone. That long" in out
    brief = run("plan", file).out
    assert "may not pay: 'b' is trained" in brief and "That long" not in brief


def test_the_command_estimates_as_json(run, toy, tmp_path):
    file = config_file(tmp_path, toy)
    content = json.loads(run("plan", file, "--json", "--explain", "--device", "T4").out)
    assert content["estimate"]["device"]["memory"] == 16
    members = content["estimate"]["members"]
    assert [member["name"] for member in members] == ["a", "b", "c"]
    assert content["estimate"]["hours"] == sum(m["ways"][m["chosen"]]["hours"] for m in members)
    assert content["doubts"][0]["what"].startswith("'b' is trained")


def test_a_plan_is_for_several_devices_that_are_described(run, toy, tmp_path):
    file = config_file(tmp_path, toy)
    flags = ("--devices", "8", "--memory", "80GB", "--tflops", "312")
    content = json.loads(run("plan", file, "--json", *flags).out)
    assert content["stages"][0]["batch_size"] == 8 * 32
    estimate = content["estimate"]
    assert (estimate["devices"], estimate["device"]["memory"]) == (8, 80)
    ways = estimate["members"][2]["ways"]
    assert [(way["way"], way["recomputed"], way["fits"]) for way in ways] == [
        (way, recomputed, True) for way in ("ddp", "fsdp") for recomputed in (False, True)
    ]
    again = json.loads(run("plan", file, "--json", *flags, "--mfu", "0.7").out)["estimate"]
    assert again["hours"] == pytest.approx(estimate["hours"] / 2)


def test_a_named_device_may_have_other_numbers(run, toy, tmp_path):
    flags = ("--device", "H200", "--memory", "100GB", "--tflops", "500")
    device = json.loads(run("plan", config_file(tmp_path, toy), "--json", *flags).out)["estimate"]
    assert device["device"] == dict(name="H200", memory=100, half=500, single=500)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--mfu", "0.5"), "--mfu needs a device, and --memory and --tflops are not given"),
        (("--devices", "8", "--memory", "80GB"), "--devices needs a device, and --tflops is not"),
        (("--device", "H200", "--devices", "0"), "--devices 0 is no number of devices"),
        (("--memory", "lots", "--tflops", "1"), "--memory 'lots' is no size"),
        (("--memory", "80GB", "--tflops", "-1"), "--tflops -1 is no peak"),
        (("--memory", "80GB", "--tflops", "nan"), "--tflops nan is no peak"),
        (("--device", "H200", "--mfu", "35"), "--mfu 35 is no share"),
    ],
)
def test_devices_that_are_none_are_refused(run, toy, tmp_path, flags, words):
    refused(run("plan", config_file(tmp_path, toy), *flags), words)


def test_devices_have_to_divide_into_copies(run, toy, tmp_path):
    toy["parallel"] = dict(type="fsdp", processes=3)
    file = config_file(tmp_path, toy)
    refused(run("plan", file, "--device", "H200", "--devices", "8"), "copies of 3")
