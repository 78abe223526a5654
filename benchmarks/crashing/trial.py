"""One trial: a fault drawn by number, the run that it befalls, its resumption, and the verdict.

What is meant by the verdicts was set before the first campaign:

* ``alike``: after what the fault itself asks of a person (the disk has room again, the folder may
  be written again), the same command with ``--resume`` ends well, and its results are those of the
  uninterrupted run, byte by byte where they are weights or exports.
* ``advised``: compt refused, or went on and said, in one error or note that names the damaged file
  and what to do; once that was done, the results were alike.
* ``lost``: all else, such as other bytes, a traceback, an error that does not name the file, advice
  that does not help, a process that goes on for more than a minute after another has died, or
  something left behind.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from sysconfig import get_paths
from typing import Any

from compt.files import LOCK, MANIFEST, STATE
from crashing import judge
from crashing.chains import STAGES
from crashing.processes import Ended, run
from crashing.strikes import (
    BALLAST,
    MARK,
    MOST_LATER,
    YEAR,
    Moment,
    Strike,
    drop_capabilities,
    move_clock,
    set_writable,
)

FAULTS = (
    "SIGKILL",
    "SIGTERM",
    "Ctrl-C",
    "data worker killed",
    "rank killed",
    "out of memory",
    "disk full",
    "file damaged",
    "manifest deleted",
    "folder moved",
    "read-only folder",
    "clock jump",
)
"""A campaign takes them by turns."""
POWER_CUTS = frozenset(
    ("SIGKILL", "file damaged", "manifest deleted", "folder moved", "clock jump")
)
"""Faults that begin with the death of all processes at once."""
SIGNALS = frozenset(("SIGTERM", "Ctrl-C"))
SPOKEN = frozenset(FAULTS) - POWER_CUTS
"""Faults of which a process that goes on has to say in a word what ended it."""
DISK = "24m"
MOST_ATTEMPTS = 4


@dataclass(frozen=True)
class Drawn:
    """What a trial's number stands for."""

    number: int
    fault: str
    world_size: int
    num_workers: int
    num_workers_resumed: int
    rank: int
    """Of the process that is struck."""
    moment: Moment
    options: Mapping[str, Any]


@dataclass
class Trial:
    """What became of a trial."""

    drawn: Drawn
    verdict: str = ""
    reasons: list[str] = field(default_factory=list)
    """Why it is lost."""
    is_struck: bool = False
    """Whether the run was still there when the moment came, or a little later."""
    codes: tuple[int, ...] = ()
    """Exit codes of the struck run."""
    is_clear: bool = True
    """Whether the struck run ended without a traceback, and with a word where it could speak."""
    said: str = ""
    """What the struck run wrote last to stderr, where it is not clear."""
    damaged: str = ""
    advice: list[str] = field(default_factory=list)
    """What was followed, one entry an attempt."""
    repeated: int = 0
    """Iterations that were trained twice."""
    others_seconds: float = 0.0
    """From the end of the struck process to that of the last."""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types, without where this machine has its libraries."""
        said = self.said
        for place in sorted(filter(None, {*sys.path, *get_paths().values()}), key=len)[::-1]:
            said = said.replace(f"{place}/", "")
        return {**asdict(self), "said": said}


def draw(number: int, paradigm: str, counts: Mapping[int, list[dict[str, int]]]) -> Drawn | None:
    """Return what the trial of a number is, alike each time.

    None where it is over a number of processes that is not counted.

    Args:
        number: from 0.
        paradigm: of the chain.
        counts: moments of an uninterrupted run, by number of processes and rank.
    """
    dice = random.Random(f"{paradigm} {number}")
    fault = FAULTS[number % len(FAULTS)]
    world_size = 2 if fault == "rank killed" else dice.choice((1, 2))
    if world_size not in counts:
        return None
    rank = dice.randrange(world_size)
    num_workers = 2 if fault == "data worker killed" else dice.choice((0, 2))
    kind = "step" if fault == "data worker killed" else dice.choice(("step", "access"))
    later = dice.choice((0.0, dice.uniform(0.0, MOST_LATER)))
    moment = Moment(kind, dice.randint(1, counts[world_size][rank][kind]), later)
    options: dict[str, Any] = {
        "torn_write": dice.random() < 0.5,
        "to_all": fault == "Ctrl-C" or dice.random() < 0.5,
        "again": dice.uniform(0.0, 0.3) if dice.random() < 0.25 else None,
        "way": dice.choice(("limit", "limit", "torch", "python")),
        "room": dice.choice((0, 1 << 12, 1 << 16, 1 << 20, 1 << 22)),
        "seconds": dice.choice((-1, 1)) * dice.choice((1.0, 3600.0, YEAR)) * dice.uniform(0.5, 2),
        "death": dice.randint(1, counts[world_size][rank]["access"]),
        "same_second": dice.random() < 0.5,
        "flipped": dice.random() < 0.5,
        "position": dice.random(),
    }
    return Drawn(
        number,
        fault,
        world_size,
        num_workers,
        dice.choice((0, 2)),
        rank,
        moment,
        options,
    )


SWEPT = "--resume removes them"
"""What a run says that has ended well, and could not remove what it needs no longer."""


class Stage:
    """Where trials of one paradigm run.

    Args:
        folder: for the runs.
        configs: paths of the chain's config, by number of processes.
        references: work folders of uninterrupted runs, by number of processes.
    """

    def __init__(
        self, folder: Path, configs: Mapping[int, Path], references: Mapping[int, Path]
    ) -> None:
        self.folder, self.configs, self.references = folder, configs, references
        self.num_steps = 0
        """Of the optimizer in an uninterrupted run, once that is known."""

    def command(self, run_folder: Path, world_size: int, *, num_workers: int) -> list[str]:
        """Return the command of a run."""
        command = ["train", str(self.configs[world_size]), "--work-dir", str(run_folder)]
        if world_size > 1:
            command += ["--launcher", "pytorch"]
        return [*command, "--cfg-options", f"train_dataloader.num_workers={num_workers}"]

    def play(self, drawn: Drawn) -> Trial:
        """Run a trial, and return what became of it."""
        trial, begin = Trial(drawn), time.monotonic()
        disk = self.folder / f"trial{drawn.number}"
        disk.mkdir(parents=True)
        is_mounted = drawn.fault == "disk full" and mounted(disk)
        try:
            self._play(trial, disk, is_mounted)
        finally:
            if is_mounted:
                subprocess.run(["umount", "--lazy", str(disk)], check=True)
            trial.seconds = time.monotonic() - begin
        return trial

    def _play(self, trial: Trial, disk: Path, is_small: bool) -> None:
        drawn, folder, begun = trial.drawn, disk / "run", time.time()
        streams = self.folder / f"trial{drawn.number}.out"
        streams.mkdir(exist_ok=True)
        ended = self._strike(drawn, folder, streams, is_small)
        trial.codes, trial.others_seconds = ended.codes, ended.others_seconds
        mark = disk / MARK
        trial.is_struck = mark.exists()
        had_steps_left = trial.is_struck and int(mark.read_text() or 0) < self.num_steps
        is_ignored = had_steps_left and ended.is_done and drawn.fault in SIGNALS
        trial.is_clear = is_clear(drawn.fault, ended) and not is_ignored
        if not trial.is_clear:
            trial.said = "\n".join(error[-3000:] for error in ended.errors)
        if ended.is_hung:
            trial.reasons.append("a process went on after another had ended")
        folder = self._aftermath(trial, folder, disk)
        is_over = ended.is_done and not (trial.damaged or drawn.fault == "folder moved")
        is_over &= SWEPT not in ended.out
        if is_over or self._resumed(trial, folder, streams, begun):
            self._judge(trial, folder)
        trial.verdict = "lost" if trial.reasons else "advised" if trial.advice else "alike"

    def _strike(self, drawn: Drawn, folder: Path, streams: Path, is_small: bool) -> Ended:
        kind = drawn.fault if drawn.fault not in POWER_CUTS - {"clock jump"} else "SIGKILL"
        if kind == "disk full" and not is_small:
            kind = "writes refused"
        strikes = [Strike(kind, folder, drawn.number, drawn.moment, drawn.options)]
        if drawn.fault == "clock jump":
            death = Moment("access", drawn.options["death"])
            strikes.append(Strike("SIGKILL", folder, drawn.number, death, drawn.options))

        def arm(rank: int) -> None:
            if kind == "read-only folder":
                drop_capabilities()
            if rank == drawn.rank:
                for strike in strikes:
                    strike.arm()

        return run(
            self.command(folder, drawn.world_size, num_workers=drawn.num_workers),
            streams,
            world_size=drawn.world_size,
            arm=arm,
            power_cut=drawn.fault in POWER_CUTS,
        )

    def _aftermath(self, trial: Trial, folder: Path, disk: Path) -> Path:
        """Do to the folder what the fault, or a person after it, does, and return where it is."""
        drawn, dice = trial.drawn, random.Random(trial.drawn.number)
        (disk / BALLAST).unlink(missing_ok=True)
        if not folder.is_dir():
            return folder
        if drawn.fault == "read-only folder":
            set_writable(folder, writable=True)
        if drawn.fault == "folder moved":
            moved = disk / "elsewhere" / "moved run"
            moved.parent.mkdir()
            return folder.rename(moved)
        if drawn.fault == "file damaged":
            trial.damaged = damage(folder, drawn, dice)
        if drawn.fault == "manifest deleted":
            records = sorted([*folder.glob(f"*_*/{MANIFEST}"), *folder.glob(STATE)])
            if records:
                record = dice.choice(records)
                record.unlink()
                trial.damaged = record.relative_to(folder).as_posix()
        return folder

    def _resumed(self, trial: Trial, folder: Path, streams: Path, begun: float) -> bool:
        """Resume, and follow the advice of errors and notes; return whether it came to an end."""
        drawn, more = trial.drawn, ["--resume"]
        num_workers = drawn.num_workers_resumed
        command = self.command(folder, drawn.world_size, num_workers=num_workers)

        def arm(rank: int) -> None:
            if drawn.fault == "clock jump" and drawn.options["same_second"]:
                move_clock(begun - time.time())

        for attempt in range(MOST_ATTEMPTS):
            resumed = streams / f"resumed{attempt}"
            resumed.mkdir()
            ended = run(
                [*command, *more],
                resumed,
                world_size=drawn.world_size,
                arm=arm,
            )
            said = ended.errors[0] if any(ended.codes) else ended.out
            if any(ended.codes) and "compt: " not in said:
                trial.reasons.append(f"resumed, it ended with {ended.codes}: {said[-2000:]}")
                return False
            if ended.is_hung or any("Traceback" in error for error in ended.errors):
                trial.reasons.append(
                    f"resumed, it left a traceback: {''.join(ended.errors)[-2000:]}"
                )
                return False
            step = followed(said, trial.damaged, folder)
            if step is None and not any(ended.codes):
                return True
            if step is None:
                trial.reasons.append(f"no advice that helps: {said[-2000:]}")
                return False
            trial.advice.append(said.strip()[-600:] if any(ended.codes) else step[0])
            more = ["--resume", *step[1]]
        trial.reasons.append("the advice was followed, and it was not enough")
        return False

    def _judge(self, trial: Trial, folder: Path) -> None:
        reference = self.references[trial.drawn.world_size]
        is_log = bool(judge.LOGS.search(trial.damaged))
        stage = trial.damaged.partition("/")[0]
        without = {stage} if is_log and stage in STAGES else set()
        faults = judge.differences(folder, reference, without=frozenset(without))
        trial.reasons += faults
        trial.repeated = sum(
            len(times) - 1 for name in STAGES for times in judge.scalars(folder / name).values()
        )


def damage(folder: Path, drawn: Drawn, dice: random.Random) -> str:
    """Cut a file of a run off, or turn one of its bits, and return its path in the folder."""
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != LOCK and path.stat().st_size
    ]
    if not files:
        return ""
    path = dice.choice(files)
    content = bytearray(path.read_bytes())
    position = int(drawn.options["position"] * len(content))
    if drawn.options["flipped"]:
        content[position] ^= 1 << dice.randrange(8)
    else:
        del content[position:]
    path.write_bytes(content)
    return path.relative_to(folder).as_posix()


def is_clear(fault: str, ended: Ended) -> bool:
    """Return whether a struck run has said in a line what ended it, if it could."""
    if any("Traceback" in error for error in ended.errors):
        return False
    could_speak = fault in SPOKEN and any(code > 0 for code in ended.codes)
    return not could_speak or any("compt: " in error for error in ended.errors)


def followed(said: str, damaged: str, folder: Path) -> tuple[str, list[str]] | None:
    """Do what an error or a note says about a damaged file.

    Returns:
        The sentence and the options that the next command has, None where nothing is advised.
    """
    name = Path(damaged).name
    sentence = next((line for line in said.splitlines() if damaged and name in line), "")
    where = re.search(r"where: (.*)", said)
    about = said if "compt: " in said else sentence
    if not sentence:
        return None
    if "Remove the folder" in about:
        shutil.rmtree(folder)
        return sentence, []
    if again := re.search(r"--from-stage ([\w-]+)", about):
        return sentence, ["--from-stage", again[1]]
    if beside := re.search(r"remove (\S+) beside it", about):
        (folder / damaged).with_name(beside[1]).unlink(missing_ok=True)
        return sentence, []
    if where and "remove it" in about:
        Path(where[1].strip()).unlink(missing_ok=True)
        return sentence, []
    return None


def mounted(folder: Path) -> bool:
    """Mount a small disk on a folder, and return whether this process may."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(folder)]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def clean(stage: Stage, number: int) -> None:
    """Remove what a trial has written."""
    shutil.rmtree(stage.folder / f"trial{number}", ignore_errors=True)
    shutil.rmtree(stage.folder / f"trial{number}.out", ignore_errors=True)
