"""Declare which parameters of a member are not trained, and for how much of its stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compt.config.faults import Faults
from compt.config.keys import Section, key

if TYPE_CHECKING:
    from compt.config.schema import StageConfig

OLD = "old"
"""Stands for all that was carried over whole from the member before."""


@dataclass(frozen=True)
class Freeze(Section):
    """What is not trained, and until when."""

    params: str | Sequence[str] = key(
        help="`'old'` for all parameters that were carried over whole from the member before, or "
        "names of the model's parameters, with `*` for any text"
    )
    until: float = key(
        1.0, help="share of the stage after which they are trained too", positive=True, maximum=1
    )

    @property
    def patterns(self) -> tuple[str, ...]:
        """The names in ``params``, of which there may be one alone."""
        return (self.params,) if isinstance(self.params, str) else tuple(self.params)


def as_freeze(value: str | Sequence[str] | Freeze) -> Freeze:
    """Return what a config says as its section, which a config may leave out but for the names."""
    return value if isinstance(value, Freeze) else Freeze(params=value)


def check_freeze(index: int, stage: StageConfig, faults: Faults) -> None:
    """Note that there is nothing that a stage could leave as it is."""
    if stage.frozen is None:
        return
    name, patterns = f"chain.{index}.freeze", stage.frozen.patterns
    if not patterns:
        faults.add(f"{name}: it names nothing. Leave it out, or give names of parameters.")
    elif not index and not stage.init:
        faults.add(
            f"{name}: the first member starts from random weights, none of which are worth keeping."
        )
    elif not index and OLD in patterns:
        faults.add(f"{name}: 'old' is what was grown from the member before, and there is none.")
