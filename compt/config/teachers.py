"""Declare how a stage's teacher is run, which decides what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from compt.config.faults import Faults
from compt.config.keys import Section, key
from compt.config.options import check_compile


@dataclass(frozen=True)
class TeacherOptions(Section):
    """What makes a teacher cheaper; what it teaches is the transferer's."""

    precision: Literal["fp32", "bf16"] | None = key(
        None,
        help="`'bf16'`: the teacher runs under autocast, also where the student is in float32; "
        "`'fp32'`: it does not, also where the student does",
        shown_default="as the student",
    )
    compile: bool | Mapping[str, Any] | None = key(
        None,
        help="`True`, `False` or a dict of `torch.compile`'s options, for the teacher alone",
        shown_default="as the student",
        check=check_compile,
    )
    every: int = key(
        1,
        help="the teacher is run at every n-th iteration; the loss of those between has no "
        "transfer term, and its weight stays as it is at the others",
        minimum=1,
        maximum=10**6,
    )
    cache: bool | str = key(
        False,
        help="`True`: what the teacher says of each sample is kept on disk, and read from the "
        "second pass over the data on; or the folder to keep it in. For data that is the same at "
        "every pass, without augmentation and random masks",
    )

    def check(self, faults: Faults, where: str, at_fault: frozenset[str]) -> None:
        """Note a cache that would hardly ever be read."""
        if self.cache and self.every > 1:
            faults.add(
                f"{where.rstrip('.')}: with every={self.every} a cache fills {self.every} times as "
                "slowly, and is read less; give one of every and cache."
            )
        if self.cache == "":
            faults.add(f"{where}cache: '' is no folder; give True or a path.")
