"""Fit how a member's held-out loss falls, and what decay of its learning rate is worth in it.

The law follows Tissue et al. 2024, arXiv 2408.11029, in that a loss depends on the sum ``S1`` of
the learning rates so far, and on the decay of the rate apart from that:

    loss = L0 + A * S1^-alpha + C * rate * S1^-(kappa * alpha)

Rates are relative to a stage's highest one, so ``S1`` is a length in iterations at the full rate.
There the second part is an annealing area that is subtracted, which grows with the length of the
decay: fitted to pilots, it made members of 16 times their length better than perfect. Here decay
takes away what the rate adds, at most all of it.

All members of a family share ``alpha`` and ``kappa``, which the few points of one member cannot
tell from ``L0``. Both are found on a grid; ``L0``, ``A`` and ``C`` of each member then follow as
non-negative least squares of relative errors, which have one solution and need no start. A point
counts as the root of its ``S1``, as early training follows no power law, and all points of a run
as one where ``alpha`` is weighed against its usual value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from compt.planning.rates import Floats, Schedule

ALPHAS = np.geomspace(0.1, 1.2, 26)
"""Exponents that are tried."""
USUAL_ALPHA, ALPHA_DEVIATION = 0.28, 0.25
"""Exponent over training tokens of Hoffmann et al. 2022, arXiv 2203.15556, third approach, and the
standard deviation of the logarithm that is granted to it. Short runs fall more steeply than the
long ones that they are to foretell, and alone they would take ``L0`` for 0."""
KAPPAS = (0.0, 0.5, 1.0)
"""How fast what the rate adds fades, relative to the rest, as tried."""
SUBSETS = tuple(subset for size in (1, 2, 3) for subset in combinations(range(3), size))
"""Which of ``L0``, ``A`` and ``C`` differ from 0, where none may be below."""
SAMPLES = 200
"""Draws of the bootstrap."""
OUTLIER = 2.0
"""Robust standard deviations beyond which an error counts by its size, not its square (Huber)."""
LEAST_ERROR = 0.003
"""Relative standard deviation that a run has at least, where few runs happen to agree."""
FEWEST_POINTS = 4
"""Of a member: one more than it has parameters of its own."""


@dataclass(frozen=True)
class Curve:
    """Held-out losses of one member in one run, all above 0 and after its warm-up."""

    length: int
    """Iterations of the run."""
    rates: Floats
    """Of the run; see :class:`compt.planning.rates.Schedule`."""
    iterations: Floats
    """At which losses were measured, [P]."""
    losses: Floats
    """[P]"""


@dataclass(frozen=True)
class Laws:
    """The laws of all members, as fitted to the data and to each draw of the bootstrap.

    The first of S draws is the data as it is.
    """

    alphas: Floats
    """[S]"""
    kappas: Floats
    """[S]"""
    parameters: Mapping[str, Floats]
    """``L0``, ``A`` and ``C`` by member, [S, 3]."""
    errors: Mapping[str, float]
    """Relative standard deviation of each member's points about its law."""
    foretold_error: float | None = None
    """Relative error at the ends of the longest runs of a law of the shorter ones alone, None where
    there are too few of these: the root of the mean square over members."""

    def finals(self, member: str, schedule: Schedule, lengths: Sequence[int]) -> Floats:
        """Return the losses at the end of stages of these lengths, [S, len(lengths)]."""
        finals = np.empty((len(self.alphas), len(lengths)))
        for column, length in enumerate(lengths):
            s1, rate = _progress(length, schedule.rates(length), np.array([float(length)]))
            terms = _terms(s1, rate, self.alphas, self.kappas)
            finals[:, column] = (self.parameters[member] * terms).sum(1)
        return finals


def fit(curves: Mapping[str, Sequence[Curve]], *, samples: int = SAMPLES, seed: int = 0) -> Laws:
    """Fit the laws of a family.

    The bootstrap draws anew by how much each run is off as a whole, and each point beside. Runs
    are also off as the longest ones are from a law of the shorter ones alone: those of a length all
    together by what members have in common there, and each by what they have not.

    Args:
        curves: runs by member, with at least :data:`FEWEST_POINTS` points each.
        samples: draws of the bootstrap.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    misses = _misses(curves)
    members = {name: _Points(runs) for name, runs in curves.items()}
    choice, own = _fit_robustly(members)
    fitted = {name: points.predicted(choice, own[name]) for name, points in members.items()}
    usual = np.full(1 + samples, np.log(USUAL_ALPHA))
    usual[1:] += ALPHA_DEVIATION * random.standard_normal(samples)
    drawn = _draws(members, fitted, misses, samples, random)
    chosen, parameters = _solve_all(members, drawn, usual)
    alphas, kappas = _GRID[chosen].T
    errors = {n: float(np.std(points.losses / fitted[n] - 1)) for n, points in members.items()}
    foretold_error = float(np.sqrt(np.mean(misses**2))) if len(misses) else None
    return Laws(alphas, kappas, parameters, errors, foretold_error)


def _fit_robustly(members: Mapping[str, _Points]) -> tuple[int, dict[str, Floats]]:
    """Return the index of the best pair of the grid, and the parameters by member, [3].

    Outliers are given less weight in the members.
    """
    measured = {name: points.losses[None] for name, points in members.items()}
    usual = np.array([np.log(USUAL_ALPHA)])
    for _ in range(3):
        chosen, parameters = _solve_all(members, measured, usual)
        for name, points in members.items():
            points.reweigh(chosen[0], parameters[name][0])
    chosen, parameters = _solve_all(members, measured, usual)
    return int(chosen[0]), {name: each[0] for name, each in parameters.items()}


def _misses(curves: Mapping[str, Sequence[Curve]]) -> Floats:
    """Return by how much a law of the shorter runs misses the ends of the longest, by member.

    Empty where the shorter ones are too few for a law.
    """
    longest = {name: max(run.length for run in runs) for name, runs in curves.items()}
    shorter = {n: [run for run in runs if run.length < longest[n]] for n, runs in curves.items()}
    if any(sum(len(run.losses) for run in runs) < FEWEST_POINTS for runs in shorter.values()):
        return np.empty(0)
    choice, parameters = _fit_robustly({name: _Points(runs) for name, runs in shorter.items()})
    misses = []
    for name, runs in curves.items():
        points = _Points([run for run in runs if run.length == longest[name]])
        ends = np.flatnonzero(np.diff(points.run_of, append=-1))
        errors = points.predicted(choice, parameters[name]) / points.losses - 1
        misses.append(errors[ends].mean())
    return np.array(misses)


_GRID: Floats = np.array(list(product(ALPHAS, KAPPAS)))
"""Pairs of ``alpha`` and ``kappa``, [G, 2]."""


class _Points:
    """All points of one member.

    Args:
        runs: of the member.
    """

    def __init__(self, runs: Sequence[Curve]) -> None:
        self.losses = np.concatenate([run.losses for run in runs])
        self.num_runs = len(runs)
        self.lengths = np.array([run.length for run in runs])
        self.run_of = np.repeat(np.arange(len(runs)), [len(run.losses) for run in runs])
        progress = [_progress(run.length, run.rates, run.iterations) for run in runs]
        s1, rates = (np.concatenate(parts) for parts in zip(*progress, strict=True))
        self.terms = np.stack([_terms(s1, rates, alpha, kappa) for alpha, kappa in _GRID])
        """[G, P, 3]"""
        self._base = np.sqrt(s1 / s1.max()) / self.losses
        self.weights = self._base
        """[P]"""

    def predicted(self, choice: int, parameters: Floats) -> Floats:
        """Return the losses by a law, [P]."""
        predicted: Floats = self.terms[choice] @ parameters
        return predicted

    def reweigh(self, choice: int, parameters: Floats) -> None:
        """Give less weight to points that are far from a law."""
        errors = np.abs(self.predicted(choice, parameters) / self.losses - 1)
        scale = max(1.4826 * float(np.median(errors)), LEAST_ERROR)
        trust = np.minimum(1, OUTLIER * scale / np.maximum(errors, 1e-12))
        self.weights = self._base * np.sqrt(trust)

    def solve(self, losses: Floats) -> tuple[Floats, Floats]:
        """Return the best parameters at each pair of the grid, and their squared errors.

        Args:
            losses: that the points have in each draw, [S, P].

        Returns:
            Parameters [G, S, 3] and sums of squares [G, S].
        """
        terms = self.terms * self.weights[:, None]
        targets = losses * self.weights
        scale = np.sqrt((terms**2).sum(1, keepdims=True)) + 1e-300
        terms = terms / scale
        gram = terms.transpose(0, 2, 1) @ terms
        right = terms.transpose(0, 2, 1) @ targets.T
        squares = np.full(right.shape[::2], np.inf)
        parameters = np.zeros((*squares.shape, 3))
        for subset in SUBSETS:
            rows = list(subset)
            inner = gram[:, rows][:, :, rows] + 1e-12 * np.eye(len(rows))
            solved = np.linalg.solve(inner, right[:, rows])
            # Of least squares the error is what the targets have beyond the fitted part.
            error = (targets**2).sum(1) - (solved * right[:, rows]).sum(1)
            better = (solved >= 0).all(1) & (error < squares)
            squares[better] = error[better]
            full = np.zeros_like(parameters)
            full[..., rows] = solved.transpose(0, 2, 1)
            parameters[better] = full[better]
        return parameters / scale, np.maximum(squares, 0)


def _solve_all(
    members: Mapping[str, _Points], losses: Mapping[str, Floats], usual: Floats
) -> tuple[NDArray[np.intp], dict[str, Floats]]:
    """Return the best pair of the grid for each draw [S], and the parameters by member [S, 3].

    Args:
        members: with the points.
        losses: of these in each draw, [S, P] by member.
        usual: logarithm of the exponent that is expected in each draw, [S].
    """
    solved = {name: points.solve(losses[name]) for name, points in members.items()}
    squares = np.sum([each for _, each in solved.values()], axis=0)
    total = sum(float(((points.weights * points.losses) ** 2).sum()) for points in members.values())
    variance = np.maximum(squares.min(0) / total, LEAST_ERROR**2)
    num_runs = sum(points.num_runs for points in members.values())
    unusual = (np.log(_GRID[:, :1]) - usual) / ALPHA_DEVIATION
    chosen = (squares / variance * num_runs / total + unusual**2).argmin(0)
    draws = np.arange(len(chosen))
    return chosen, {name: parameters[chosen, draws] for name, (parameters, _) in solved.items()}


def _draws(
    members: Mapping[str, _Points],
    fitted: Mapping[str, Floats],
    misses: Floats,
    samples: int,
    random: np.random.Generator,
) -> dict[str, Floats]:
    """Return losses as other seeds might have had them, [1 + samples, P], by member.

    Errors are drawn from those of all members, which are relative, and widened by what the fit has
    taken of them.

    Args:
        members: with the points.
        fitted: losses by the laws, [P] by member.
        misses: see :func:`_misses`.
        samples: draws.
        random: what draws.
    """
    of_runs, of_points = [], []
    for name, points in members.items():
        errors = points.losses / fitted[name] - 1
        means = np.bincount(points.run_of, errors) / np.bincount(points.run_of)
        of_runs.append(means)
        of_points.append(errors - means[points.run_of])
    runs, rest = np.concatenate(of_runs), np.concatenate(of_points)
    wider = np.sqrt(len(rest) / max(1, len(rest) - 3 * len(members)))
    together, apart = (abs(misses.mean()), misses.std()) if len(misses) else (0.0, 0.0)
    lengths = np.unique(np.concatenate([points.lengths for points in members.values()]))
    common = together * random.standard_normal((samples, len(lengths)))
    drawn = {}
    for name, points in members.items():
        whole = wider * random.choice(runs, (samples, points.num_runs))
        whole += max(LEAST_ERROR, apart) * random.standard_normal(whole.shape)
        whole += common[:, np.searchsorted(lengths, points.lengths)]
        single = wider * random.choice(rest, (samples, len(points.losses)))
        others = fitted[name] * np.maximum(1 + whole[:, points.run_of] + single, 0.01)
        drawn[name] = np.concatenate([points.losses[None], others])
    return drawn


def _progress(length: int, rates: Floats, at: Floats) -> tuple[Floats, Floats]:
    """Return ``S1`` and the rate at iterations of a run, each [P]."""
    width = length / len(rates)
    ends = width * np.arange(1, len(rates) + 1)
    return np.interp(at, ends, np.cumsum(rates) * width), np.interp(at, ends, rates)


def _terms(s1: Floats, rates: Floats, alpha: Floats | float, kappa: Floats | float) -> Floats:
    """Return what ``L0``, ``A`` and ``C`` are multiplied by, [..., 3]."""
    power = s1**-alpha
    terms: Floats = np.stack([np.ones_like(power), power, rates * power**kappa], axis=-1)
    return terms
