"""Intervals and paired tests for accuracies; ranking and calibration of scores.

>>> low, high = wilson(8, 10)
>>> round(low, 3), round(high, 3)
(0.49, 0.943)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import comb, sqrt
from statistics import NormalDist

import numpy as np

from psr_lib.records import PSRError

Numbers = Sequence[float] | np.ndarray
Outcomes = Mapping[str, Sequence[float]]  # benchmark -> 0 or 1 a problem, in a fixed order


@dataclass(frozen=True)
class Difference:
    """Mean difference with its bootstrap interval; `per_seed` holds each seed's own difference."""

    mean: float
    low: float
    high: float
    per_seed: tuple[float, ...]


def wilson(right: float, total: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share, both ends in 0..1; (0, 1) where there is no data."""
    if not 0 <= right <= total:
        raise PSRError(f"wilson: {right} right answers of {total} is impossible")
    if total == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = right / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2) / (1 + z * z / total)
    # At the edges the formula gives 0 and 1 but for rounding.
    return (centre - half if right else 0.0), (centre + half if right < total else 1.0)


def mean_interval(
    counts: Mapping[str, tuple[float, float]], level: float = 0.95
) -> tuple[float, float, float]:
    """Unweighted mean of the benchmarks' accuracies, and its interval over problems.

    `counts` maps a benchmark to (right, total). The benchmarks are independent, so the half-widths
    of their Wilson intervals add in squares; each side on its own, as those intervals are skew.
    """
    shares = [right / total for right, total in counts.values()]
    mean, below, above = sum(shares) / len(shares), 0.0, 0.0
    for share, (right, total) in zip(shares, counts.values(), strict=True):
        low, high = wilson(right, total, level)
        below, above = below + (share - low) ** 2, above + (high - share) ** 2
    return mean, mean - sqrt(below) / len(shares), mean + sqrt(above) / len(shares)


def paired_bootstrap(
    before: Sequence[Outcomes],
    after: Sequence[Outcomes],
    draws: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Interval of the rise from `before` to `after` in the mean over benchmarks.

    One mapping a seed. Outcomes are paired by problem within a seed and averaged over seeds; then
    problems are drawn with replacement within each benchmark. All seeds answer the same problems,
    so a drawn problem brings all its seeds with it.
    """
    gains = _gains(before, after)
    noise = np.random.default_rng(seed)
    rises = np.zeros(draws)
    for gain in gains.values():
        size = gain.shape[1]
        counts = noise.multinomial(size, np.full(size, 1 / size), size=draws)
        rises += counts @ gain.mean(0) / size / len(gains)
    low, high = np.quantile(rises, [(1 - level) / 2, (1 + level) / 2])
    per_seed = np.mean([gain.mean(1) for gain in gains.values()], axis=0)
    mean = float(per_seed.mean())
    return Difference(mean, float(low), float(high), tuple(float(x) for x in per_seed))


def _gains(before: Sequence[Outcomes], after: Sequence[Outcomes]) -> dict[str, np.ndarray]:
    """after - before of each benchmark, [seeds, problems]."""
    if not before or len(before) != len(after):
        raise PSRError(f"bootstrap: {len(before)} seeds before but {len(after)} after")
    names = list(before[0])
    for outcomes in (*before, *after):
        if sorted(outcomes) != sorted(names) or not names:
            raise PSRError(f"bootstrap: benchmarks {sorted(outcomes)} are not {sorted(names)}")
        for name in names:
            if len(outcomes[name]) != len(before[0][name]) or not len(outcomes[name]):
                raise PSRError(f"bootstrap: {name} has another number of problems in one run")
    pairs = list(zip(before, after, strict=True))
    return {
        name: np.array([np.subtract(a[name], b[name], dtype=float) for b, a in pairs])
        for name in names
    }


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Two-sided exact p-value that wins and losses between paired outcomes are equally likely."""
    if len(before) != len(after):
        raise PSRError(f"mcnemar: {len(before)} outcomes before but {len(after)} after")
    won = sum(not b and bool(a) for b, a in zip(before, after, strict=True))
    lost = sum(bool(b) and not a for b, a in zip(before, after, strict=True))
    changed = won + lost
    tail = sum(comb(changed, k) for k in range(min(won, lost) + 1))
    return min(1.0, 2 * tail / 2**changed)


def auc(labels: Numbers, scores: Numbers) -> float:
    """Share of (positive, negative) pairs in which the positive has the higher score; ties half.

    Labels are 1 or 0. Raises PSRError where one of the two is missing.
    """
    marks, found = np.asarray(labels), np.asarray(scores, dtype=float)
    right, wrong = int(marks.sum()), int(len(marks) - marks.sum())
    if not right or not wrong:
        raise PSRError(f"auc: {right} positive and {wrong} negative labels; there must be both")
    _, place, counts = np.unique(found, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # equal scores share their mean rank
    return float((ranks[marks == 1].sum() - right * (right + 1) / 2) / (right * wrong))


def calibration(labels: Numbers, scores: Numbers, bins: int = 10) -> list[dict[str, float]]:
    """The calibration curve: a row for each of `bins` equal parts of 0..1 that holds a score.

    `p` is the mean score there, `right` the share of positive labels with its Wilson interval.
    """
    marks, found = np.asarray(labels), np.asarray(scores, dtype=float)
    part, rows = np.minimum((found * bins).astype(int), bins - 1), []
    for k in range(bins):
        mine = part == k
        if mine.any():
            right, total = int(marks[mine].sum()), int(mine.sum())
            low, high = wilson(right, total)
            rows.append({"from": k / bins, "to": (k + 1) / bins, "n": total,
                         "p": float(found[mine].mean()), "right": right / total,
                         "low": low, "high": high})  # fmt: skip
    return rows


def calibration_error(labels: Numbers, scores: Numbers, bins: int = 10) -> float:
    """Expected calibration error: mean of |p - share right| over the curve, weighted by rows."""
    rows = calibration(labels, scores, bins)
    total = sum(row["n"] for row in rows)
    return sum(row["n"] * abs(row["p"] - row["right"]) for row in rows) / max(1, total)


def bootstrap_by_group(
    groups: Sequence[str],
    statistic: Callable[[np.ndarray], float],
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of a statistic of rows that come in groups (the steps of a problem).

    Whole groups are drawn with replacement; `statistic` takes the places of the drawn rows. Draws
    for which it raises PSRError (an AUC of one label) are drawn again.
    """
    members: dict[str, list[int]] = {name: [] for name in dict.fromkeys(groups)}
    for place, name in enumerate(groups):
        members[name].append(place)
    parts, noise, found = [np.array(m) for m in members.values()], np.random.default_rng(seed), []
    for _ in range(20 * draws):
        drawn = np.concatenate([parts[k] for k in noise.integers(0, len(parts), len(parts))])
        try:
            found.append(statistic(drawn))
        except PSRError:
            continue
        if len(found) == draws:
            low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
            return float(low), float(high)
    raise PSRError(f"bootstrap: {len(parts)} groups are too few; take more problems")
