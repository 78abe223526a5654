"""Memory, hours and bytes on the disk, as they are shown."""

from __future__ import annotations

import pytest
from rich.console import Console

from compt.planning.devices import Device
from compt.planning.estimate import Estimate, StageEstimate
from compt.planning.live import Change
from compt.planning.memory import StageMemory, Step
from compt.planning.sharing import Spread
from compt.planning.volume import Volume
from compt.report.device_table import device_table, device_text, hours_text

GB = 10**9


def estimate(
    *, weights=1, activations=1, recomputed=1, memory=16, devices=4, is_half=False, **options
):
    """An estimate of one stage, in GB; the optimizer takes twice the weights."""
    from compt.config.parallel import Replicated, Sharded

    def step(num_bytes):
        changes = (Change(num_bytes * GB, 0),)
        return Step(num_bytes * GB, GB if is_half else 0, changes, copies=frozenset())

    size = weights * GB
    parts = StageMemory(
        size, size, 2 * size, 0, size // 10, 0, 10, is_half, False, False,
        {False: step(activations), True: step(recomputed)},
    )  # fmt: skip
    spread = Spread.of(Sharded(**options) if options else Replicated(), devices)
    ways = tuple(spread.ways(parts))
    chosen = spread.chosen(ways, recomputed=False)
    volume = Volume(3 * GB, 9 * GB, 20, 60 * GB, 2 * GB)
    stage = StageEstimate("a", parts, ways, chosen, 3.0, 4.0, volume)
    return Estimate(Device("T9", memory, 312, 19.5), devices, 0.4, (stage,))


def shown(content):
    console = Console(width=200)
    with console.capture() as captured:
        console.print(device_table(content))
    return [" ".join(line.split()) for line in captured.get().splitlines()]


@pytest.mark.parametrize(
    ("hours", "text"),
    [(12_345, "12,345 h"), (2.5, "2.5 h"), (0.5, "30 min"), (1 / 3600, "1 s")],
)
def test_hours_are_written_as_people_say_them(hours, text):
    assert hours_text(hours) == text


def test_every_way_has_a_row_and_the_configs_own_a_star():
    lines = shown(estimate(activations=20))
    assert lines[0] == "estimate for 4 x T9, with 10 samples each and 40 an iteration"
    rows = [line for line in lines if "ddp" in line or "fsdp" in line]
    assert rows == [
        "a ddp * 1 GB 2 GB 2 GB - 20 GB - 24 GB no 3 h",
        "ddp, recomputing 1 GB 2 GB 2 GB - 1 GB - 5 GB yes 4 h",
        "fsdp 250 MB 250 MB 500 MB - 20 GB 500 MB 21.2 GB no 3 h",
        "fsdp, recomputing 250 MB 250 MB 500 MB - 1 GB 500 MB 2.25 GB yes 4 h",
    ]
    assert "a 3 GB 9 GB 20 x = 60 GB 2 GB" in lines


def test_one_device_has_nothing_to_share():
    lines = shown(estimate(devices=1))
    assert lines[0] == "estimate for one T9"
    assert not any("ddp" in line or "fsdp" in line or "gathered" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(activations=20), "'ddp, recomputing' or 'fsdp, recomputing' would fit"),
        (dict(activations=20, recomputed=20), "smaller train_dataloader.batch_size, activations"),
        (dict(weights=100), "no way fits whatever the batch"),
        (dict(), None),
    ],
)
def test_what_does_not_fit_is_said(options, words):
    text = device_text(estimate(**options))
    assert ("warning: 'a' needs" in text) is (words is not None)
    assert words is None or words in text


def test_copies_of_weights_are_said_where_they_are_shards():
    assert "gather='bf16' does without" not in device_text(estimate(is_half=True))
    text = device_text(estimate(is_half=True, reshard=True))
    assert "autocast keeps all weights in 16 bits beside, 1 GB" in text
    assert "gather='bf16') does without" in text
    assert "does without" not in device_text(estimate(is_half=True, gather="bf16"))


def test_the_number_format_decides_the_peak():
    assert "19.5 TFLOP/s in float32" in device_text(estimate())
    assert "precision='bf16' would have 312 TFLOP/s" in device_text(estimate())
    assert "312 TFLOP/s in 16 bits" in device_text(estimate(is_half=True))
