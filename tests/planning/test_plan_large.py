"""The page that plans two large families: its tables are worked out again.

``python -m tests.planning.test_plan_large`` writes the tables anew.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import compt
from compt.config import load_config
from compt.planning.devices import MFU, device
from compt.planning.estimate import estimate
from compt.report.device_table import hours_text, way_text
from compt.report.format import quantity
from tests.environments import ROOT

PAGE = ROOT / "docs" / "plan_large.md"
TABLE = re.compile(r"(<!-- plan: (\S+) (\d+) (\S+) -->\n\n)((?:\|.*\n)+)")
LIBRARIES = {
    "laion2b_vit": "open_clip",
    "web_llama_1b": "transformers",
    "web_llama_7b": "transformers",
}
TABLES = TABLE.findall(PAGE.read_text(encoding="utf-8"))


def table(name: str, devices: int, device_name: str) -> str:
    """Return what a chain takes on a cluster, a row a member."""
    config = load_config(ROOT / name)
    plan = compt.plan(config, world_size=devices)
    known = device(device_name)
    content = estimate(config, plan, known, devices=devices, mfu=MFU)
    ways = [way_text(way) for way in content.stages[0].ways]
    head = ("member", "parameters", *ways, "hours", "a checkpoint")
    rows = [head, ["---"] * len(head)]
    for stage, planned in zip(content.stages, plan.stages, strict=True):
        cells = []
        for way in stage.ways:
            text = quantity(way.peak, "B")
            text = text if way.fits(known.num_bytes) else f"~~{text}~~"
            cells.append(f"**{text}**" if way is stage.chosen else text)
        hours = hours_text(stage.hours_of(stage.chosen))
        checkpoint = quantity(stage.volume.checkpoint, "B")
        rows.append([stage.name, quantity(planned.params), *cells, hours, checkpoint])
    hours = hours_text(content.hours)
    rows.append(["all", "", *[""] * len(ways), hours, f"{quantity(content.left, 'B')} left"])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


@pytest.mark.slow
@pytest.mark.parametrize("found", TABLES, ids=lambda found: Path(found[1]).stem)
def test_a_table_is_what_a_plan_says(found):
    _, name, devices, device_name, rows = found
    pytest.importorskip(LIBRARIES[Path(name).stem])
    assert rows == table(name, int(devices), device_name)


def test_every_config_of_the_page_is_there():
    assert {Path(name).stem for _, name, *_ in TABLES} == LIBRARIES.keys()
    assert PAGE.read_text(encoding="utf-8").count("<!-- plan:") == len(TABLES)


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(
        TABLE.sub(lambda match: match[1] + table(match[2], int(match[3]), match[4]), text),
        encoding="utf-8",
    )
