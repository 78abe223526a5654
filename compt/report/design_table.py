"""Show a chain that was designed from pilots, as a table, sentences and a config's comments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from compt.planning.forecast import LEVEL
from compt.planning.rule import APART, LONGER
from compt.report.format import quantity, quiet_table, times

if TYPE_CHECKING:
    from rich.table import Table

    from compt.planning.auto import AutoPlan
    from compt.planning.forecast import Forecast, MemberForecast
    from compt.report.pilots import Pilots

MORE_PILOTS = "Longer pilots, or more seeds, decide it."
BAD_FIT = 0.03
"""Relative error of what is foretold from which on pilots are called too short, or too noisy."""


def design_table(auto: AutoPlan, pilots: Pilots) -> Table:
    """Return one row a member of the family, in brackets if it is not wanted."""
    members = auto.forecast.members
    columns = ["member", "alone", "gap", "tau", "iters", "of alone", "share"]
    with_rates = any(member.lr_mult != 1 for member in members)
    title = f"design ({pilots.metric}; ± half of {LEVEL:.0%} intervals)"
    table = quiet_table(title, [*columns, *(["rate"] if with_rates else [])])
    stages = {stage.name: stage for stage in auto.plan.stages}
    for member in members:
        stage = stages.get(member.name)
        cells = [member.name if member.wanted else f"({member.name})", *_alone(member, pilots)]
        if stage is None:
            cells.append("left out")
        else:
            tau = "" if member.tau is None else f"{member.tau:.0%}"
            share = f"{stage.flops / auto.plan.flops:.0%}"
            cells += [tau, f"{stage.iters:,}", _length(member), share]
            cells += [f"x{member.lr_mult:g}"] if with_rates else []
        table.add_row(*cells)
    return table


def _alone(member: MemberForecast, pilots: Pilots) -> tuple[str, str]:
    """Return what a member comes to alone, and by how much it beats the one before."""
    gap = "" if member.gap is None else f"{member.gap:.3g} ± {member.gap_error:.2g}"
    return f"{pilots.value(member.loss):.4g} ± {_half(member.loss_range):.2g}", gap


def _length(member: MemberForecast) -> str:
    """Return how long a member is trained, relative to alone."""
    text = f"{member.share:.0%}"
    if member.source is not None and member.share_range is not None:
        text += f" ± {100 * _half(member.share_range):.0f}"
    return text


def _half(ends: tuple[float, float]) -> float:
    """Return half of an interval."""
    return (ends[1] - ends[0]) / 2


def design_text(auto: AutoPlan, pilots: Pilots) -> str:
    """Return what is predicted, its bounds, and in plain words whether the chain pays."""
    lines = [*_numbers(auto.forecast), *_doubts(auto.forecast), *pilots.notes()]
    return "\n".join([*lines, f"=> {verdict_text(auto)}"])


def _numbers(forecast: Forecast) -> Iterator[str]:
    low, high = forecast.ratio_range
    alone, chain = quantity(forecast.alone_flops, "FLOP"), quantity(forecast.flops, "FLOP")
    yield (
        f"predicted saving: {times(forecast.ratio)} ({LEVEL:.0%} interval {times(low)} to "
        f"{times(high)}): {_of_whom(forecast)} alone take {alone}, the chain {chain}"
    )
    yield (
        f"with the pilots charged ({quantity(forecast.pilot_flops, 'FLOP')}): "
        f"{times(forecast.charged_ratio)}"
    )
    yield f"skip bound, if hops cost nothing: {times(forecast.skip_bound)}"
    yield f"bound of shrinking the largest instead: {times(forecast.downward_bound)}"
    if forecast.padding is None:
        yield "stopping early and padding: no smaller member gets as good as the largest"
    else:
        padding = forecast.padding
        yield (
            f"stopping at '{padding.name}' after {padding.longer:.2g} times its length and padding "
            f"it to the others: {times(padding.ratio)}, for members without their order"
        )
    yield (
        f"a stage as long as alone is taken to overwrite {_overwritten(forecast)}; all members "
        f"share the exponent {forecast.alpha:.2f}"
    )


def _overwritten(forecast: Forecast) -> str:
    """Say what stages overwrite, those between plateaus apart."""
    texts = []
    for fading in forecast.fadings:
        is_root = fading.power != 1
        of_what = "the root of what its source is worth" if is_root else "what its source is worth"
        where = " (from plateau to plateau)" if is_root else ""
        texts.append(f"{fading} of {of_what}{where}")
    return ", ".join(texts) or "nothing"


def _of_whom(forecast: Forecast) -> str:
    unwanted = [member for member in forecast.members if not member.wanted]
    return "the wanted members" if unwanted else "all members"


def _doubts(forecast: Forecast) -> Iterator[str]:
    """Say how far the laws can be believed."""
    error = forecast.foretold_error
    if error is None:
        yield "warning: there are too few shorter pilots to try the law on the longest ones"
    else:
        yield f"fitted to the shorter pilots alone, the law misses the longest by {error:.1%}"
    if error is not None and error > BAD_FIT:
        yield "warning: so pilots are too short for it, or too noisy; longer ones say more"


def verdict_text(auto: AutoPlan) -> str:
    """Say in plain words whether the chain pays."""
    forecast, smallest = auto.forecast, auto.forecast.members[0]
    if forecast.verdict == "no family":
        return (
            f"No family here: '{smallest.name}' trained {LONGER} times as long is as good as "
            f"'{forecast.members[-1].name}'.{_instead(forecast)} A chain does not pay here."
        )
    if forecast.verdict == "alone":
        return (
            f"A chain does not pay here: none is cheaper than '{auto.plan.stages[-1].name}' alone."
        )
    if forecast.verdict == "not apart":
        return f"It cannot be told whether a chain pays: {_unsure(forecast)}. {MORE_PILOTS}"
    low = forecast.ratio_range[0]
    if forecast.verdict == "does not pay":
        return f"A chain does not pay here: {times(forecast.charged_ratio)}, pilots charged."
    if low <= 1:
        return (
            f"A chain may pay here: {times(forecast.charged_ratio)}, pilots charged, but its "
            f"interval begins at {times(low)}."
        )
    return f"A chain pays here: {times(forecast.charged_ratio)}, pilots charged."


def _unsure(forecast: Forecast) -> str:
    """Say why it is not known whether there is a family."""
    if forecast.too_close:
        names = ", ".join(f"'{member.name}'" for member in forecast.too_close)
        return f"{names} not better than the member before by {APART:g} standard errors"
    return (
        f"with {forecast.catches_up:.0%} probability '{forecast.members[0].name}' trained {LONGER} "
        f"times as long is as good as '{forecast.members[-1].name}'"
    )


def _instead(forecast: Forecast) -> str:
    padding, smallest = forecast.padding, forecast.members[0]
    if padding is None or padding.name != smallest.name:
        return ""
    return (
        f" Train '{smallest.name}' for {padding.longer:.2g} times its length instead; stopping "
        f"there and padding it to the others would save {times(padding.ratio)}."
    )
