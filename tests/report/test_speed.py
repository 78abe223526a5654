"""How fast stages trained, and what share of a device's peak that is, worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compt.errors import ConfigError
from compt.planning.devices import DEVICES, REPORTED, peak_of
from compt.report.build import report
from compt.report.card_sections import costs_text
from compt.report.html.tables import costs
from compt.report.record import Flops, StageRecord
from compt.report.speed import device_peak, mfu, rate_text, speed_note
from compt.report.terminal import sentences, tables
from compt.report.watch.lines import done_line, parse_line
from tests.report.records import stage_record
from tests.report.work_folders import CHAIN, change, make_run

H200 = {"device": "NVIDIA H200"}


def trained(**changes: Any) -> StageRecord:
    """4 devices do 7,912 TFLOP in 2 of 3 seconds: 989 TFLOP/s each. The other is of growth."""
    keys: dict[str, Any] = dict(
        seconds=3.0, growth_seconds=1.0, processes=4, precision="bf16", environment=H200
    )
    record = stage_record("a", [(1, 1.0, 1.0, 1.0)], **(keys | changes))
    return replace(record, flops=Flops(8000e12, growth=88e12))


def test_training_is_divided_by_its_own_seconds_and_by_the_devices() -> None:
    assert trained().flops_per_second == 989e12
    assert trained(processes=1).flops_per_second == 4 * 989e12
    assert trained(processes=None).flops_per_second is None, "an older version's"
    assert trained(seconds=1.0).flops_per_second is None, "grown alone"
    assert replace(trained(), flops=Flops(88e12, growth=88e12)).flops_per_second is None


def test_a_log_says_how_fast_a_stage_was() -> None:
    said = parse_line(done_line(trained()))
    assert (said["device_tflops"], said["mfu"]) == ("989", "1.000")
    on_cpu = parse_line(done_line(trained(environment={"device": "cpu, 2 threads"})))
    assert on_cpu["device_tflops"] == "989" and "mfu" not in on_cpu
    assert "device_tflops" not in parse_line(done_line(trained(processes=None)))


@pytest.mark.parametrize(
    ("device", "precision", "share"),
    [
        ("NVIDIA H200", "bf16", 1.0),
        ("NVIDIA H200", "fp16", 1.0),
        ("NVIDIA H200", "fp32", 989 / 67),
        ("NVIDIA H200", "tf32", None),
        ("NVIDIA H200", None, None),
        ("AMD Instinct MI300X", "bf16", 989 / 1307),
        ("NVIDIA H200 MIG 1g.18gb", "bf16", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16", None),
        ("cpu, 2 threads", "fp32", None),
    ],
)
def test_the_peak_is_that_of_the_number_format(
    device: str, precision: str | None, share: float | None
) -> None:
    record = trained(environment={"device": device}, precision=precision)
    assert mfu(record, device_peak(record)) == (share and pytest.approx(share))


def test_every_data_sheet_is_found_by_a_name_that_torch_reports() -> None:
    assert set(REPORTED.values()) == {device.name for device in DEVICES}
    assert [peak_of("Tesla T4", precision) for precision in ("fp16", "fp32")] == [65e12, 8.1e12]


def test_rates_are_written_with_their_share() -> None:
    assert rate_text(346.15e12, 0.35) == "346 TFLOP/s (35.0 %)"
    assert rate_text(12.34e9) == "12.3 GFLOP/s"
    assert rate_text(None) == ""


def measured(folder: Path, **changes: Any) -> Path:
    """A chain whose second member did 10 FLOP of growth and 90 of training, in 2 + 18 seconds."""
    run = make_run(folder, "chain", CHAIN)
    flops = {"total": 100, "student_per_sample": 3, "teacher_per_sample": 1, "growth": 10}
    keys = dict(flops=flops, seconds=20, growth_seconds=2, processes=1, precision="fp32")
    change(run / "02_small" / "manifest.json", **(keys | changes))
    return run


def test_reports_show_rates_where_they_are_known(tmp_path: Path) -> None:
    result = report([measured(tmp_path / "c")])
    cost_table = tables(result)[0]
    column = next(column for column in cost_table.columns if column.header == "per device")
    assert list(column.cells) == ["", "5 FLOP/s"]
    assert "Per device: FLOPs of training a second, with those of teachers." in sentences(result)
    page = costs(result.runs)
    assert page is not None
    assert dict(zip(page.headers, page.rows[1], strict=True))["per device"] == "5 FLOP/s"
    assert "MFU" not in page.headers, "a CPU has no peak here"
    old = report([make_run(tmp_path / "old", "chain", CHAIN)])
    assert all("per device" not in str(column.header) for column in tables(old)[0].columns)
    assert not speed_note(old.runs)


def test_a_share_is_of_the_peak_that_is_given(tmp_path: Path) -> None:
    folder = measured(tmp_path / "c")
    result = report([folder], tflops=20e-12)
    _, small = result.runs[0].members
    assert small.mfu == 0.25
    written = small.to_json()
    assert (written["flops_per_second"], written["peak_flops_per_second"]) == (5, 20)
    assert (written["mfu"], written["processes"], written["precision"]) == (0.25, 1, "fp32")
    column = next(c for c in tables(result)[0].columns if c.header == "per device (MFU)")
    assert list(column.cells) == ["", "5 FLOP/s (25.0 %)"]
    assert speed_note(result.runs).endswith("the peak of cpu in float32, 20 FLOP/s.")
    page = costs(result.runs)
    assert page is not None
    assert dict(zip(page.headers, page.rows[1], strict=True))["MFU"] == "25.0 %"
    for peak in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="is no peak"):
            report([folder], tflops=peak)


def test_a_share_is_of_the_data_sheet_of_a_known_gpu(tmp_path: Path) -> None:
    flops = {"total": 346.15e12, "student_per_sample": 3, "teacher_per_sample": 0, "growth": 0}
    changes = dict(seconds=1, growth_seconds=0, flops=flops, precision="bf16", environment=H200)
    result = report([measured(tmp_path / "c", **changes)])
    assert result.runs[0].members[1].mfu == pytest.approx(0.35)
    assert speed_note(result.runs) == (
        "Per device: FLOPs of training a second, with those of teachers; MFU: their share of the "
        "peak of NVIDIA H200 in 16 bits, 989 TFLOP/s."
    )


def test_a_model_card_has_a_column_of_rates() -> None:
    old = stage_record("b", [(1, 1.0, 1.0, 1.0)])
    rows = costs_text([trained(), old]).splitlines()
    assert rows[0].endswith("| time | per device (MFU) |")
    assert rows[2].endswith("| 3 s | 989 TFLOP/s (100.0 %) |")
    assert rows[4].startswith("| all of them |") and rows[4].endswith("|  |")
    assert "per device" not in costs_text([old])
