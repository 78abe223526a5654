"""Choose batches and budgets that fit some data, with the reason of each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from compt.errors import ConfigError
from compt.interfaces import ConfigDraft, MemberSize, SeenData, Starter

SHARES = (1.0, 1 / 4, 3 / 16)
"""Budgets of the members by the first one's, of arXiv 2604.12391; later ones take the last."""
ENOUGH = 2000
"""Iterations of the first member that are aimed at, so that small data is seen often enough."""
EPOCHS = (2, 48)
FEWEST = 16
"""Samples that a config can be fitted to."""


@dataclass(frozen=True)
class Fit:
    """What a config says beside its data."""

    draft: ConfigDraft
    sizes: tuple[MemberSize, ...]
    batch_size: int
    epochs: tuple[float, ...]
    epochs_why: str

    def times(self, factor: float, why: str) -> Fit:
        """Return the same with budgets so many times as long, for another reason."""
        epochs = tuple(float(f"{epoch * factor:.2g}") for epoch in self.epochs)
        return replace(self, epochs=epochs, epochs_why=why)


def fit(
    starter: Starter, seen: SeenData, *, sizes: str | None = None, epochs: float | None = None
) -> Fit:
    """Fit a chain to data.

    Args:
        starter: of the paradigm.
        seen: of the training data.
        sizes: a preset of the starter, or widths and layers such as '64x3,128x4'; None for its
            first preset.
        epochs: of the first member; None to choose.

    Raises:
        ConfigError: the sizes are none, the epochs no number above 0, or there is too little data.
    """
    first = next(iter(starter.sizes))
    chosen = sizes or first
    preset = chosen if chosen in starter.sizes else first
    members = parse_sizes(starter.sizes.get(chosen, chosen), starter)
    draft = starter.draft(seen, members, preset=preset)
    batch_size = _batch_size(draft)
    budgets, why = _epochs(epochs, draft.num_samples // batch_size, len(members))
    return Fit(draft, members, batch_size, budgets, why)


def parse_sizes(text: str, starter: Starter) -> tuple[MemberSize, ...]:
    """Read widths and layers, '64x3,128x4' for two members.

    Raises:
        ConfigError: they are none, or not in ascending order.
    """
    names = [name for name in text.split(",") if name.strip()]
    do = f"{', '.join(starter.sizes)}, or widths and layers from small to large: 64x3,128x4,256x6."
    try:
        sizes = tuple(MemberSize.parse(name) for name in names)
    except ValueError as error:
        raise ConfigError(f"'{text}' are no sizes.", where="--sizes", do=do) from error
    if not sizes:
        raise ConfigError(f"'{text}' are no sizes.", where="--sizes", do=do)
    for smaller, larger in pairwise(sizes):
        if larger.width < smaller.width or larger.layers < smaller.layers or larger == smaller:
            raise ConfigError(
                f"A member {larger.name} cannot grow from {smaller.name}.",
                where="--sizes",
                do="Neither width nor layers may fall from one member to the next.",
            )
    return sizes


def _batch_size(draft: ConfigDraft) -> int:
    """Return a power of two that leaves an epoch its iterations, where there is enough data.

    Raises:
        ConfigError: there is too little.
    """
    num_samples = draft.num_samples
    if num_samples < FEWEST:
        raise ConfigError(
            f"There are {num_samples:,} samples to train on, too few to learn from.",
            where="--data",
            do="Bring some hundred at least.",
        )
    size = 1 << min(draft.smallest_batch, num_samples // 4).bit_length() - 1
    while 2 * size * draft.min_iterations <= num_samples:
        size *= 2
    return min(size, draft.largest_batch)


def _epochs(
    epochs: float | None, iterations: int, num_members: int
) -> tuple[tuple[float, ...], str]:
    """Return the epochs of each member, and why."""
    if epochs is not None and not epochs > 0:
        raise ConfigError(f"--epochs {epochs:g} is not above 0.")
    why = "as you said"
    if epochs is None:
        low, high = EPOCHS
        epochs = min(high, max(low, round(ENOUGH / max(1, iterations))))
        why = f"about {round(epochs * iterations):,} iterations"
    shares = [SHARES[min(index, len(SHARES) - 1)] for index in range(num_members)]
    return tuple(float(f"{epochs * share:.3g}") for share in shares), why
