"""A share of things that belong to problems, with its 95 % interval.

Verdicts on one problem are not independent: they share its wording, its prefix and often a step.
So problems, not verdicts, are what is drawn: a share of 4,000 verdicts on 100 problems is known as
well as 100 problems allow.

>>> share([1, 0, 1, 1], [1, 1, 1, 1], ["a", "b", "c", "d"]).value
0.75
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from typing import Any

import numpy as np

from psr_lib.stats import wilson

DRAWS = 4000
LEVEL = 0.95


@dataclass(frozen=True)
class Share:
    """`value` of `n` things on `problems` problems; None where nothing could be counted.

    `low` and `high` bound 95 %: Wilson's interval where each problem has one thing, a bootstrap
    over problems where it has several.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    problems: int


NOTHING = Share(None, None, None, 0, 0)


def share(parts: Sequence[float], wholes: Sequence[float], problems: Sequence[str | int]) -> Share:
    """Sum of `parts` over sum of `wholes`; row k belongs to problems[k].

    Rows without a whole are left out. A share of 0 or 1 has nothing for a bootstrap to draw from,
    so it takes Wilson's interval over the problems.
    """
    rows = [row for row in zip(parts, wholes, problems, strict=True) if row[1]]
    if not rows:
        return NOTHING
    part, whole = _by_problem(rows)
    value, size = float(part.sum() / whole.sum()), round(float(whole.sum()))
    single = bool((whole == 1).all() and np.isin(part, (0, 1)).all())
    if single or value in (0, 1):
        low, high = wilson(round(value * len(whole)), len(whole), LEVEL)
    elif len(whole) == 1:
        low, high = 0.0, 1.0  # one problem says nothing of others
    else:
        low, high = _bootstrap(part, whole)
    return Share(value, low, high, size, len(whole))


def _by_problem(rows: Sequence[tuple[float, float, str | int]]) -> tuple[np.ndarray, np.ndarray]:
    """Parts and wholes summed within each problem."""
    place = {name: k for k, name in enumerate(dict.fromkeys(name for _, _, name in rows))}
    sums = np.zeros((2, len(place)))
    for part, whole, name in rows:
        sums[:, place[name]] += part, whole
    return sums[0], sums[1]


@lru_cache(maxsize=16)  # every measure of a group, and every null judge, draws the same problems
def drawn(size: int, seed: int = 0) -> np.ndarray:
    """How often each of `size` problems is drawn, [draws, size]."""
    noise = np.random.default_rng(seed)
    return noise.multinomial(size, np.full(size, 1 / size), size=DRAWS).astype(float)


def percentiles(values: np.ndarray) -> tuple[float, float]:
    """The ends of the middle 95 %."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def of_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """`accuracy`, `low` and `high` of rows that are `correct` or not; 0 in (0, 1) without any."""
    found = share([r["correct"] for r in rows], [1] * len(rows), [r["problem_id"] for r in rows])
    if found.value is None or found.low is None or found.high is None:
        return {"accuracy": 0.0, "low": 0.0, "high": 1.0}
    return {"accuracy": found.value, "low": found.low, "high": found.high}


def by_problem(
    parts: Sequence[float], problems: Sequence[str | int]
) -> tuple[np.ndarray, np.ndarray]:
    """Parts summed within each problem, and how many things each has."""
    return _by_problem([(part, 1.0, name) for part, name in zip(parts, problems, strict=True)])


def rise(part: np.ndarray, whole: np.ndarray) -> tuple[float, float, float]:
    """Sum of gains over things, with its interval over problems.

    Where few problems change resamples vary too little, so the interval is at least that of the
    shares that rise and fall, joined as Newcombe joins two. Where none does, at most
    1 - 0.025 ** (1 / problems) would, to either side.
    """
    if not part.any():
        half = 1 - ((1 - LEVEL) / 2) ** (1 / len(whole))
        return 0.0, -half, half
    value = float(part.sum() / whole.sum())
    if len(whole) == 1:
        return value, -1.0, 1.0
    low, high = _bootstrap(part, whole)
    size = float(np.abs(part[part != 0]).mean() / whole.mean())  # of a change, in things a problem
    up, down = (_changed(int(n), len(whole), size) for n in ((part > 0).sum(), (part < 0).sum()))
    below, above = sqrt(up[0] ** 2 + down[1] ** 2), sqrt(up[1] ** 2 + down[0] ** 2)
    return value, min(low, value - below), max(high, value + above)


def _changed(count: int, problems: int, size: float) -> tuple[float, float]:
    """How far the ends of Wilson's interval are from a share of problems, times a change's size."""
    low, high = wilson(count, problems, LEVEL)
    return size * (count / problems - low), size * (high - count / problems)


def _bootstrap(part: np.ndarray, whole: np.ndarray) -> tuple[float, float]:
    counts = drawn(len(part))
    return percentiles(counts @ part / (counts @ whole))
