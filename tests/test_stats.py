"""Intervals and tests against brute force."""

from itertools import product
from math import comb, sqrt

import numpy as np
import pytest

from psr_lib.records import PSRError
from psr_lib.stats import (
    auc,
    bootstrap_by_group,
    calibration,
    calibration_error,
    mcnemar,
    mean_interval,
    paired_bootstrap,
    wilson,
)


@pytest.mark.parametrize(("right", "total"), [(0, 7), (7, 7), (3, 10), (50, 100), (1, 300)])
def test_wilson_ends_solve_the_score_equation(right, total):
    for end in wilson(right, total):
        if 0 < end < 1:
            gap = abs(right / total - end)
            assert gap == pytest.approx(1.959964 * sqrt(end * (1 - end) / total), rel=1e-5)


def test_wilson_covers_at_about_its_level():
    covered = 0.0
    for right in range(41):
        low, high = wilson(right, 40)
        covered += comb(40, right) * 0.3**right * 0.7 ** (40 - right) * (low <= 0.3 <= high)
    assert 0.93 < covered < 0.97


def test_wilson_edges():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(5, 5)[1] == 1.0 and wilson(0, 5)[0] == 0.0
    with pytest.raises(PSRError, match="impossible"):
        wilson(6, 5)


def test_mean_interval_of_one_benchmark_is_its_own_and_of_equal_ones_shrinks():
    low, high = wilson(30, 100)
    assert mean_interval({"a": (30, 100)}) == pytest.approx((0.3, low, high))
    mean, low_4, high_4 = mean_interval({k: (30, 100) for k in "abcd"})
    assert mean == pytest.approx(0.3)
    assert (mean - low_4, high_4 - mean) == pytest.approx(((0.3 - low) / 2, (high - 0.3) / 2))


def test_mean_interval_covers_the_true_mean():
    noise, truth, hits = np.random.default_rng(0), {"a": 0.2, "b": 0.5, "c": 0.9}, 0
    for _ in range(2000):
        drawn = {k: (int(noise.binomial(60, p)), 60) for k, p in truth.items()}
        _, low, high = mean_interval(drawn)
        hits += low <= sum(truth.values()) / 3 <= high
    assert 0.93 < hits / 2000 < 0.97


def naive_rises(before, after):
    """Every possible resample of tiny benchmarks, two seeds, in plain loops."""
    names = list(before[0])
    draws = [list(product(range(len(before[0][n])), repeat=len(before[0][n]))) for n in names]
    rises = []
    for picks in product(*draws):
        seeds = []
        for b, a in zip(before, after, strict=True):
            means = [
                sum(a[n][i] - b[n][i] for i in pick) / len(pick)
                for n, pick in zip(names, picks, strict=True)
            ]
            seeds.append(sum(means) / len(means))
        rises.append(sum(seeds) / len(seeds))
    return np.array(rises)


def test_bootstrap_agrees_with_all_resamples():
    before = [{"x": [0, 1, 0, 0], "y": [1, 0, 0]}, {"x": [1, 1, 0, 0], "y": [0, 0, 1]}]
    after = [{"x": [1, 1, 1, 0], "y": [1, 0, 1]}, {"x": [1, 0, 1, 0], "y": [0, 1, 1]}]
    every = naive_rises(before, after)
    found = paired_bootstrap(before, after, draws=40_000, level=0.9)
    assert found.mean == pytest.approx(every.mean())
    assert found.per_seed == pytest.approx((((2 / 4) + (1 / 3)) / 2, (0 + 1 / 3) / 2))
    # The two ends cut off what they should from the exact distribution (it has steps).
    assert (every < found.low - 1e-9).mean() <= 0.055 <= (every <= found.low + 1e-9).mean() + 0.01
    assert (every > found.high + 1e-9).mean() <= 0.055 <= (every >= found.high - 1e-9).mean() + 0.01


def test_bootstrap_of_paired_outcomes_is_narrower_than_unpaired_would_be():
    noise = np.random.default_rng(0)
    base = noise.integers(0, 2, 300)
    better = np.where(noise.random(300) < 0.05, 1, base)
    found = paired_bootstrap([{"a": base}], [{"a": better}])
    assert 0 < found.mean <= found.high and found.low >= 0  # no problem was lost
    assert found.high - found.low < 0.06  # unpaired: about 0.16
    assert paired_bootstrap([{"a": base}], [{"a": better}]) == found  # seeded


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], []),
        ([{"a": [1]}], []),
        ([{"a": [1]}], [{"b": [1]}]),
        ([{"a": [1]}], [{"a": [1, 0]}]),
        ([{"a": []}], [{"a": []}]),
    ],
)
def test_bootstrap_refuses_what_is_not_paired(before, after):
    with pytest.raises(PSRError, match="bootstrap"):
        paired_bootstrap(before, after)


def test_mcnemar_equals_enumeration():
    for won, lost in product(range(6), repeat=2):
        before = [False] * won + [True] * lost + [True, False]
        after = [True] * won + [False] * lost + [True, False]
        signs = list(product([0, 1], repeat=won + lost))
        extreme = [s for s in signs if abs(2 * sum(s) - len(s)) >= abs(won - lost)]
        assert mcnemar(before, after) == pytest.approx(len(extreme) / len(signs))


def brute_force_auc(labels, scores):
    """Every pair of a positive and a negative, one by one."""
    pairs = [(p > n) + (p == n) / 2 for p, one in zip(scores, labels, strict=True) if one
             for n, other in zip(scores, labels, strict=True) if not other]  # fmt: skip
    return sum(pairs) / len(pairs)


@pytest.mark.parametrize("values", [2, 5, 10**6])
@pytest.mark.parametrize("size", [2, 3, 40, 200])
def test_auc_equals_brute_force_ties_included(size, values):
    noise = np.random.default_rng(size + values)
    for _ in range(20):
        labels = noise.integers(0, 2, size)
        labels[:2] = 0, 1
        scores = noise.integers(0, values, size) / values
        assert auc(labels, scores) == pytest.approx(brute_force_auc(labels, scores))


def test_auc_of_perfect_reversed_and_constant_scores():
    assert auc([0, 1, 1], [0.1, 0.2, 0.3]) == 1.0 and auc([1, 0, 0], [0.1, 0.2, 0.3]) == 0.0
    assert auc([0, 1, 1, 0], [0.5] * 4) == 0.5
    with pytest.raises(PSRError, match="3 positive and 0 negative"):
        auc([1, 1, 1], [0.1, 0.2, 0.3])


def test_calibration_equals_brute_force():
    noise = np.random.default_rng(5)
    scores = np.concatenate([noise.random(300), [0.0, 0.1, 0.2, 1.0, 1.0]])
    labels = (noise.random(305) < scores).astype(int)
    rows, error = calibration(labels, scores, 10), 0.0
    assert sum(row["n"] for row in rows) == 305 and rows[-1]["to"] == 1.0
    for row in rows:
        last = row["to"] == 1.0
        mine = [(y, p) for y, p in zip(labels, scores, strict=True)
                if row["from"] <= p < row["to"] or (last and p == 1.0)]  # fmt: skip
        assert row["n"] == len(mine)
        assert row["right"] == pytest.approx(sum(y for y, _ in mine) / len(mine))
        assert row["p"] == pytest.approx(sum(p for _, p in mine) / len(mine))
        assert row["low"] <= row["right"] <= row["high"]
        error += len(mine) / 305 * abs(row["p"] - row["right"])
    assert calibration_error(labels, scores, 10) == pytest.approx(error)


def test_calibration_error_of_known_cases():
    assert calibration_error([1, 0, 1, 0], [0.5] * 4) == 0.0
    assert calibration_error([1, 1, 0, 0], [1.0, 1.0, 0.0, 0.0]) == 0.0
    assert calibration_error([0, 0, 1, 1], [1.0, 1.0, 0.0, 0.0]) == 1.0
    assert calibration_error([1, 1, 1, 0], [0.95, 0.95, 0.15, 0.15], 2) == pytest.approx(
        0.5 * 0.05 + 0.5 * 0.35
    )


def test_bootstrap_by_group_draws_whole_groups():
    """Equal rows within a group say as much as one of them: the interval is that of the groups."""
    noise = np.random.default_rng(1)
    values = noise.integers(0, 2, 40)
    many, names = np.repeat(values, 25), np.repeat([f"g{k}" for k in range(40)], 25)
    low, high = bootstrap_by_group(list(names), lambda k: float(many[k].mean()), draws=4000)
    half = 1.96 * sqrt(values.mean() * (1 - values.mean()) / 40)
    assert (high - low) / 2 == pytest.approx(half, rel=0.12)
    alone = bootstrap_by_group([str(k) for k in range(1000)], lambda k: float(many[k].mean()), 4000)
    assert alone[1] - alone[0] < 0.4 * (high - low)


def test_bootstrap_by_group_covers_the_true_auc():
    noise, hits, size = np.random.default_rng(2), 0, 60
    truth = 0.5 + 0.5 * 0.5205  # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt 2)
    for trial in range(120):
        labels = np.arange(size) % 2
        scores = noise.normal(labels, 1.0)
        low, high = bootstrap_by_group(
            [str(k) for k in range(size)], lambda k, y=labels, s=scores: auc(y[k], s[k]), 300,
            seed=trial,
        )  # fmt: skip
        hits += low <= truth <= high
    assert 0.87 < hits / 120 <= 0.99


def test_bootstrap_by_group_is_seeded_and_says_where_it_cannot_be_done():
    labels, scores = np.array([0, 1, 1, 0]), np.array([0.1, 0.9, 0.4, 0.5])
    draw = lambda seed: bootstrap_by_group(  # noqa: E731
        list("aabb"), lambda k: auc(labels[k], scores[k]), 50, seed=seed
    )
    assert draw(1) == draw(1)
    with pytest.raises(PSRError, match="1 groups are too few"):
        bootstrap_by_group(["a", "a"], lambda k: auc([1, 1], [0.1, 0.2]), 10)
