"""Levels, changes and ratios over problems and seeds, each with its interval.

Data come as benchmark -> [columns, seeds, problems]; all seeds answer the same problems. A
statistic is a smooth function of the columns' means, such as `difference`; it is taken within each
benchmark, and the benchmarks' values are averaged with equal weights.

With one seed the interval is over problems. With two to four it is over problems given these seeds:
so few say too little of what another seed would do. From five on the seed is a level of its own.

>>> import numpy as np
>>> before, after = np.array([[0, 1, 0, 1]]), np.array([[1, 1, 0, 1]])
>>> estimate({"easy": np.stack([before, after])}, difference).value
0.25
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import sqrt

import numpy as np

from psr_lib.records import PSRError
from psr_lib.stats import mean_interval

FEW = 5  # seeds from which on their own spread is estimated
TINY = 1e-12  # nothing was written: no length either
BLOCK = 2**24  # draws that are made and held as wide integers at once
ONE, GIVEN, BOTH = "problems", "problems, given these seeds", "problems and seeds"
Data = Mapping[str, np.ndarray]
Statistic = Callable[[np.ndarray], np.ndarray]  # means [columns, ...] -> values [...]


@dataclass(frozen=True)
class Estimate:
    """A value with its interval, each seed's own value, and what the interval is over.

    `sources` names what it was computed from, as `evidence.Source` has it.
    """

    value: float
    low: float
    high: float
    per_seed: tuple[float, ...]
    problems: int
    over: str
    sources: tuple = ()

    def times(self, factor: float) -> "Estimate":
        """The same estimate in another unit, such as points of a hundred."""
        seeds = tuple(factor * value for value in self.per_seed)
        low, high = factor * self.low, factor * self.high
        return replace(self, value=factor * self.value, low=low, high=high, per_seed=seeds)


def first(means: np.ndarray) -> np.ndarray:
    """The level of one column."""
    return means[0]


def difference(means: np.ndarray) -> np.ndarray:
    """Second column less the first: before, after."""
    return means[1] - means[0]


def ratio(means: np.ndarray) -> np.ndarray:
    """First column over the second: tokens, steps."""
    return means[0] / np.maximum(means[1], TINY)


def ratio_difference(means: np.ndarray) -> np.ndarray:
    """Ratio of columns 2 and 3 less that of columns 0 and 1."""
    return ratio(means[2:]) - ratio(means[:2])


def growth(means: np.ndarray) -> np.ndarray:
    """Relative change from the first column to the second."""
    return means[1] / np.maximum(means[0], TINY) - 1


def lead(means: np.ndarray) -> np.ndarray:
    """How much more columns 2 -> 3 gain than columns 0 -> 1."""
    return (means[3] - means[2]) - (means[1] - means[0])


def check(data: Data) -> dict[str, np.ndarray]:
    """The data as arrays of numbers; raises PSRError where seeds or columns differ, or none are."""
    arrays = {name: np.asarray(values, dtype=float) for name, values in data.items()}
    shapes = {values.shape[:2] for values in arrays.values()}
    empty = any(values.ndim != 3 or not values.size for values in arrays.values())
    if not arrays or empty or len(shapes) != 1:
        found = {name: values.shape for name, values in arrays.items()}
        raise PSRError(f"estimate: expected [columns, seeds, problems] a benchmark, found {found}")
    return arrays


def estimate(
    data: Data, statistic: Statistic, *, draws: int = 10_000, level: float = 0.95, seed: int = 0
) -> Estimate:
    """The statistic with its interval: a bootstrap over problems, from five seeds on `crossed`."""
    arrays = check(data)
    seeds = next(iter(arrays.values())).shape[1]
    if seeds >= FEW:
        low, high = crossed(arrays, statistic, level)
    else:
        found = bootstrap(arrays, statistic, draws, seed)
        low, high = map(float, np.quantile(found, [(1 - level) / 2, (1 + level) / 2]))
    low, high = _widened(arrays, statistic, low, high, level)
    return _estimate(arrays, statistic, low, high)


def _estimate(arrays: Data, statistic: Statistic, low: float, high: float) -> Estimate:
    seeds = next(iter(arrays.values())).shape[1]
    own = np.mean([statistic(values.mean(2)) for values in arrays.values()], axis=0)
    over = ONE if seeds == 1 else GIVEN if seeds < FEW else BOTH
    problems = sum(values.shape[2] for values in arrays.values())
    value = float(_value(arrays, statistic))
    return Estimate(value, float(low), float(high), tuple(map(float, own)), problems, over)


def _value(arrays: Data, statistic: Statistic) -> np.ndarray:
    """The mean over benchmarks of the statistic, all seeds together."""
    return np.mean([statistic(values.mean((1, 2))) for values in arrays.values()], axis=0)


def bootstrap(arrays: Data, statistic: Statistic, draws: int = 10_000, seed: int = 0) -> np.ndarray:
    """The statistic of resampled problems, [draws]; a drawn problem brings all its seeds."""
    total = np.zeros(draws)
    for place, values in enumerate(arrays.values()):
        size = values.shape[2]
        means = _weighted(draw_counts(size, draws, seed, place), values.mean(1).T) / size
        total += statistic(means.T) / len(arrays)
    return total


def _weighted(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """counts [draws, problems] @ values [problems, columns], a block of draws at a time."""
    step = max(1, BLOCK // counts.shape[1])
    parts = range(0, len(counts), step)
    return np.concatenate([counts[k : k + step].astype(float) @ values for k in parts])


@lru_cache(maxsize=32)
def draw_counts(size: int, draws: int, seed: int, place: int) -> np.ndarray:
    """How often each of `size` problems is drawn, [draws, problems], at a benchmark's place.

    All comparisons on the same benchmarks share them, so equal differences get equal intervals.
    """
    noise, counts = np.random.default_rng([seed, place]), np.empty((draws, size), dtype=np.uint8)
    for k in range(0, draws, max(1, BLOCK // size)):
        part = counts[k : k + max(1, BLOCK // size)]
        drawn = noise.multinomial(size, np.full(size, 1 / size), size=len(part))
        part[:] = np.minimum(drawn, 255)
    return counts


def _widened(
    arrays: Data, statistic: Statistic, low: float, high: float, level: float
) -> tuple[float, float]:
    """No outcome differs: resamples cannot vary, yet another problem might.

    At most 1 - ((1 - level) / 2) ** (1 / n) of the problems would, to either side.
    """
    if statistic is not difference or any((v[0] != v[1]).any() for v in arrays.values()):
        return low, high
    rest = [1 - ((1 - level) / 2) ** (1 / values.shape[2]) for values in arrays.values()]
    half = sqrt(sum(part**2 for part in rest)) / len(rest)
    return -half, half


def crossed(arrays: Data, statistic: Statistic, level: float = 0.95) -> tuple[float, float]:
    """Interval over problems and seeds: two-way analysis of variance of the linearised statistic.

    Var = Vs + Vp - Ve: the spread of seeds over S, that of problems over n, and their interaction,
    which both contain. Student's t with Satterthwaite's degrees of freedom.
    """
    from scipy.stats import t  # half a second, and most runs have fewer seeds

    linear = {name: linearised(values, statistic) for name, values in arrays.items()}
    between, among, shared, weight = _components(linear)
    variance = max(between + among - shared, between, among)
    seeds = len(next(iter(linear.values())))
    freedom = variance**2 / (between**2 / (seeds - 1) + weight) if variance else 1.0
    half = float(t.ppf(0.5 + level / 2, freedom)) * sqrt(variance)
    value = float(_value(arrays, statistic))
    return value - half, value + half


def linearised(values: np.ndarray, statistic: Statistic, step: float = 1e-6) -> np.ndarray:
    """What each answer adds to the statistic, [seeds, problems]: its gradient times the columns."""
    means = values.mean((1, 2))
    sides = [means + sign * step * np.eye(len(means)) for sign in (1, -1)]
    up, down = (statistic(side.T) for side in sides)
    return np.tensordot((up - down) / (2 * step), values, 1)


def _components(linear: Mapping[str, np.ndarray]) -> tuple[float, float, float, float]:
    """Vs, Vp, Ve and Vp's part of Satterthwaite's sum, of the mean over benchmarks."""
    count, parts = len(linear), []
    for z in linear.values():
        seeds, size = z.shape
        rest = z - z.mean(0) - z.mean(1, keepdims=True) + z.mean()
        problems = z.mean(0).var(ddof=1) / size / count**2 if size > 1 else 0.0
        both = (rest**2).sum() / (seeds - 1) / max(1, size - 1) / z.size / count**2
        parts.append((problems, both, problems**2 / max(1, size - 1)))
    means = np.mean([z.mean(1) for z in linear.values()], axis=0)
    among, shared, weight = (float(sum(column)) for column in zip(*parts, strict=True))
    return float(means.var(ddof=1)) / len(means), among, shared, weight


def share(data: Data, level: float = 0.95) -> Estimate:
    """A share of right answers (one column of 0 and 1) with its interval.

    Up to four seeds, and where all answers are alike: Wilson's interval, with as many answers as
    are worth the same when the seeds' answers to a problem go together; several benchmarks'
    half-widths add in squares.
    """
    arrays = check(data)
    seeds = next(iter(arrays.values())).shape[1]
    alike = all(values.min() == values.max() for values in arrays.values())
    if seeds >= FEW and not alike:
        return clipped(_estimate(arrays, first, *crossed(arrays, first, level)))
    counts = {name: _worth(values[0]) for name, values in arrays.items()}
    _, low, high = mean_interval(counts, level)
    return _estimate(arrays, first, low, high)


def clipped(found: Estimate) -> Estimate:
    """A share's estimate with no end outside 0 to 1."""
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))


def _worth(values: np.ndarray) -> tuple[float, float]:
    """(right, answers) of the Wilson interval that has the variance of the mean of these."""
    seeds, size = values.shape
    mean = float(values.mean())
    spread = float(values.mean(0).var(ddof=1)) / size if size > 1 else 0.0
    answers = mean * (1 - mean) / spread if spread and seeds > 1 else size
    answers = min(max(answers, size), seeds * size)
    return mean * answers, answers


def sign_test(before: np.ndarray, after: np.ndarray) -> float:
    """Exact two-sided p-value that each problem's change is as likely to be its opposite.

    Both are [seeds, problems] of 0 and 1; changes are summed over seeds. With one seed it is
    McNemar's exact test.
    """
    if before.shape != after.shape:
        raise PSRError(f"sign test: {before.shape} outcomes before but {after.shape} after")
    changes = np.abs((np.asarray(after, int) - np.asarray(before, int)).sum(0))
    chances: np.ndarray = np.ones(1)  # of each possible sum, from -total to +total
    for size, times in zip(*np.unique(changes[changes > 0], return_counts=True), strict=True):
        one = np.zeros(2 * size + 1)
        one[[0, -1]] = 0.5
        for _ in range(times):
            chances = np.convolve(chances, one)
    total = len(chances) // 2
    found = abs(int((np.asarray(after, int) - np.asarray(before, int)).sum()))
    sums = np.abs(np.arange(-total, total + 1))
    return float(min(1.0, chances[sums >= found].sum()))


def mean_share(parts: Sequence[tuple[float, float, float]], items: int) -> Estimate:
    """The mean of shares (value, low, high) of different items, such as one a seed.

    Distances to the ends of their intervals are added in squares. From five seeds on the interval
    is at least Student's over their values.
    """
    if not parts:
        raise PSRError("mean: there is no share")
    value = sum(part[0] for part in parts) / len(parts)
    below = sqrt(sum((v - low) ** 2 for v, low, _ in parts)) / len(parts)
    above = sqrt(sum((high - v) ** 2 for v, _, high in parts)) / len(parts)
    over = ONE if len(parts) == 1 else GIVEN
    if len(parts) >= FEW:
        half, over = _students([part[0] for part in parts]), BOTH
        below, above = max(below, half), max(above, half)
    return Estimate(value, value - below, value + above, tuple(p[0] for p in parts), items, over)


def _students(values: Sequence[float], level: float = 0.95) -> float:
    """Half the width of Student's interval of their mean."""
    from scipy.stats import t

    spread = float(np.std(values, ddof=1)) / sqrt(len(values))
    return float(t.ppf(0.5 + level / 2, len(values) - 1)) * spread


def unpaired(one: Estimate, other: Estimate) -> Estimate:
    """How much larger the second is, of different items: Newcombe's way of joining two intervals.

    The distances to the ends are added in squares, low with high; his method 10 where both
    intervals are Wilson's.
    """
    value = other.value - one.value
    below = sqrt((other.value - other.low) ** 2 + (one.high - one.value) ** 2)
    above = sqrt((other.high - other.value) ** 2 + (one.value - one.low) ** 2)
    items = one.problems + other.problems
    return Estimate(value, value - below, value + above, (value,), items, other.over)
