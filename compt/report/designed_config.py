"""Write the config of a chain that was designed from pilots."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from compt.errors import ConfigError
from compt.planning.config_text import config_text
from compt.report.design_table import verdict_text
from compt.report.format import quantity, times
from compt.writing import atomic

if TYPE_CHECKING:
    from compt.planning.auto import AutoPlan
    from compt.planning.forecast import MemberForecast
    from compt.report.pilots import Pilots


def check_out(path: Path, *, force: bool) -> None:
    """Raise ConfigError unless a config can be written to a path."""
    fault = do = ""
    if path.suffix != ".py":
        fault, do = f"'{path}' is no name of a config.", "Let it end in .py."
    elif path.exists() and not force:
        fault, do = f"'{path}' is there already.", "Add --force to replace it."
    if fault:
        raise ConfigError(fault, where="-o", do=do)


def write_designed(path: Path, auto: AutoPlan, pilots: Pilots, family: str) -> None:
    """Write the config of a designed chain.

    Args:
        path: of the file.
        auto: the chain.
        pilots: that it was designed from.
        family: name of the config that the pilots are of.

    Raises:
        ConfigError: the file cannot be written.
    """
    text = designed_text(auto, pilots, family)
    try:
        with atomic(path) as file:
            file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be written: {error.strerror}.", where="-o") from error


def designed_text(auto: AutoPlan, pilots: Pilots, family: str) -> str:
    """Return the text of the config, see :func:`write_designed`."""
    forecast = auto.forecast
    low, high = forecast.ratio_range
    paragraphs = (
        f"A chain of the family in {family}, designed by compt plan --auto.",
        f"Predicted saving over its wanted members alone: {times(forecast.ratio)} "
        f"({times(low)} to {times(high)}), at most {times(forecast.skip_bound)}; the pilots took "
        f"{quantity(forecast.pilot_flops, 'FLOP')}.",
        verdict_text(auto),
    )
    in_chain = [member for member in forecast.members if member.share is not None]
    left_out = [member.name for member in forecast.members if member.share is None]
    chain = "Budgets are for members as good as alone."
    if left_out:
        chain += f" Left out, as the chain is cheaper without: {', '.join(left_out)}."
    comments = {
        "chain": chain,
        "individual": "What members have alone, which budgets are shares of.",
    }
    members = [" ".join(_sentences(member, pilots)) for member in in_chain]
    return config_text(auto.content, paragraphs, comments, members)


def _sentences(member: MemberForecast, pilots: Pilots) -> Iterator[str]:
    share = member.share or 0.0
    loss = f"{pilots.metric} {pilots.value(member.loss):.4g}"
    if member.source is None:
        yield f"From scratch, for {share:.0%} of its length alone, after which it has {loss}."
    else:
        yield (
            f"{share:.0%} of its length alone: '{member.source}' saves it {member.tau:.0%}; alone "
            f"it comes to {loss}."
        )
    if member.lr_mult != 1:
        yield f"So short a stage learns better at {member.lr_mult:g} of the rate."
    if not member.wanted:
        yield "Not wanted itself, but the chain is cheaper with it."
