"""Show what runs are doing to whoever asks, once or until they have ended."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from compt.files import FORMAT
from compt.report.format import duration, plain_console
from compt.report.watch.inspection import Life, Sighting, goes_on, inspect, with_companions
from compt.report.watch.lines import chain_left, line, stage_pairs
from compt.report.watch.live import View, glyphs_of

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

REFRESHED_EVERY = 2.0
"""Seconds between two looks at the files."""
RESUME = "--resume goes on from what is saved."
STYLES: dict[Life, str] = {
    "running": "bold cyan",
    "finished": "bold green",
    "interrupted": "bold yellow",
    "failed": "bold red",
    "killed": "bold red",
    "silent": "bold yellow",
    "stopped": "bold yellow",
}


def status_command(work_dirs: Sequence[str], *, as_json: bool, watch: bool) -> int:
    """Show what the runs in work folders are doing.

    Args:
        work_dirs: the folders.
        as_json: print JSON, once.
        watch: go on until all have ended, or a signal comes.

    Raises:
        WorkDirError: one is no work folder of compt, or damaged.
    """
    folders = with_companions([Path(folder) for folder in work_dirs])
    if as_json:
        runs = [inspect(folder).to_json() for folder in folders]
        print(json.dumps({"format": FORMAT, "runs": runs}, indent=1, allow_nan=False))
        return 0
    console = plain_console()
    if not watch:
        _show_once(console, folders)
    elif console.is_terminal and not console.is_dumb_terminal:
        _watch_live(console, folders)
    else:
        _watch_lines(console, folders)
    return 0


def _show_once(console: Console, folders: Sequence[Path]) -> None:
    sightings = [inspect(folder) for folder in folders]
    if console.is_terminal:
        console.print(_view(console, sightings))
        return
    for sighting in sightings:
        console.print(status_line(sighting, time.time()), markup=False)


def _watch_live(console: Console, folders: Sequence[Path]) -> None:
    from rich.live import Live

    sightings = [inspect(folder) for folder in folders]
    with Live(_view(console, sightings), console=console, auto_refresh=False) as live:
        console.show_cursor(True)  # rich hides it, and what kills a program leaves it hidden
        try:
            while goes_on(sightings):
                time.sleep(REFRESHED_EVERY)
                sightings = [inspect(folder) for folder in with_companions(folders)]
                live.update(_view(console, sightings), refresh=True)
        except KeyboardInterrupt:  # how one leaves
            return


def _watch_lines(console: Console, folders: Sequence[Path]) -> None:
    """Print a line for every run that has got on."""
    shown: dict[Path, tuple[float, str]] = {}
    try:
        while True:
            sightings = [inspect(folder) for folder in with_companions(folders)]
            for sighting in sightings:
                state = (sighting.status.progressed, sighting.life)
                if shown.get(sighting.folder) != state:
                    shown[sighting.folder] = state
                    console.print(status_line(sighting, time.time()), markup=False)
            if not goes_on(sightings):
                return
            time.sleep(REFRESHED_EVERY)
    except KeyboardInterrupt:
        return


def status_line(sighting: Sighting, now: float) -> str:
    """Write what a run is doing as one line of ``key=value``."""
    status = sighting.status
    stage = status.current
    is_running = sighting.life == "running"
    num_done = sum(stage.state == "done" for stage in status.stages)
    return line(
        folder=sighting.folder,
        run=sighting.life,
        stages_done=f"{num_done}/{len(status.stages)}",
        done=f"{100 * status.share:.0f}%" if sighting.is_recorded else None,
        **(chain_left(status) if is_running else {}),
        last_sign_s=f"{max(0.0, now - status.written):.0f}",
        **(stage_pairs(stage, is_running=is_running) if stage else {}),
        reason=status.reason or None,
    )


def _view(console: Console, sightings: Sequence[Sighting]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    now, parts = time.time(), list[Text]()
    for sighting in sightings:
        if parts:
            parts.append(Text())
        parts += _head(console, sighting, now)
        view = View(sighting.status, console.width, glyphs_of(console))
        parts += view.lines(now, is_alive=sighting.life == "running")
    return Group(*parts)


def _head(console: Console, sighting: Sighting, now: float) -> list[Text]:
    """Return which run it is, how it is, and what can be done."""
    from rich.text import Text

    head = Text(f"{sighting.folder}: ")
    head.append(sighting.life, STYLES[sighting.life]).append(_explanation(sighting, now))
    return list(head.wrap(console, console.width))


def _explanation(sighting: Sighting, now: float) -> str:
    """Return since when, why, and what can be done."""
    status = sighting.status
    process = f"process {status.pid} on {status.host}"
    since, age = _time(status.written, now), duration(max(0.0, now - status.written))
    if not sighting.is_recorded:
        return f", {since}; without a status.json, as of older versions, only what is done is known"
    texts: dict[Life, str] = {
        "running": f", {process}, since {_time(status.started, now)}; last sign of life {age} ago",
        "finished": f", {since}",
        "interrupted": f", {since}. {status.reason or RESUME}",
        "failed": f", {since}. {status.reason}",
        "killed": f", {since}: {process} is gone, and did not say why. {RESUME}",
        "silent": f" for {age}, since {since}; {process} cannot be asked from here",
    }
    return texts[sighting.life]


def _time(stamp: float, now: float) -> str:
    """Write a time, with its day where it is another one."""
    then, today = time.localtime(stamp), time.localtime(now)
    form = "%H:%M" if then[:3] == today[:3] else "%Y-%m-%d %H:%M"
    return time.strftime(form, then)
