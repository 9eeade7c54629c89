"""Intervals over problems and seeds against brute force: all resamples, plain loops, simulation."""

from itertools import product
from math import sqrt

import numpy as np
import pytest

from psr_lib import seeds
from psr_lib.records import PSRError
from psr_lib.stats import mcnemar, mean_interval, wilson

BEFORE = {"x": [[0, 1, 0, 0], [1, 1, 0, 0]], "y": [[1, 0, 0], [0, 0, 1]]}
AFTER = {"x": [[1, 1, 1, 0], [1, 0, 1, 0]], "y": [[1, 0, 1], [0, 1, 1]]}
PAIRED = {name: np.array([BEFORE[name], AFTER[name]]) for name in BEFORE}


def every_resample(data, statistic):
    """The statistic of every possible resample of the problems, in plain loops."""
    draws = [product(range(v.shape[2]), repeat=v.shape[2]) for v in data.values()]
    found = []
    for picks in product(*map(list, draws)):
        values = []
        for array, pick in zip(data.values(), picks, strict=True):
            columns = [
                sum(column[s][i] for s in range(len(column)) for i in pick)
                / (len(column) * len(pick))
                for column in array
            ]
            values.append(statistic(columns))
        found.append(sum(values) / len(values))
    return np.array(found)


def ends_fit(low, high, every, tail=0.05, slack=0.012):
    """Whether the two ends cut off what they should of the exact distribution (it has steps)."""
    below, above = (every < low - 1e-9).mean(), (every > high + 1e-9).mean()
    upto, from_ = (every <= low + 1e-9).mean(), (every >= high - 1e-9).mean()
    return below <= tail + slack <= upto + 2 * slack and above <= tail + slack <= from_ + 2 * slack


def test_change_agrees_with_all_resamples():
    every = every_resample(PAIRED, lambda c: c[1] - c[0])
    found = seeds.estimate(PAIRED, seeds.difference, draws=40_000, level=0.9)
    assert found.value == pytest.approx(every.mean())
    assert found.per_seed == pytest.approx((((2 / 4) + (1 / 3)) / 2, (0 + 1 / 3) / 2))
    assert ends_fit(found.low, found.high, every)
    assert (found.over, found.problems) == (seeds.GIVEN, 7)
    assert seeds.estimate(PAIRED, seeds.difference, draws=40_000, level=0.9) == found


def test_ratios_agree_with_all_resamples():
    data = {"a": np.array([[[4.0, 9, 2, 5]], [[1.0, 3, 1, 2]]])}
    every = every_resample(data, lambda c: c[0] / c[1])
    found = seeds.estimate(data, seeds.ratio, draws=40_000, level=0.9)
    assert found.value == pytest.approx(20 / 7) and ends_fit(found.low, found.high, every)
    later = {"a": np.concatenate([data["a"], [[[8.0, 9, 6, 5]], [[1.0, 1, 1, 2]]]])}
    every = every_resample(later, lambda c: c[2] / c[3] - c[0] / c[1])
    found = seeds.estimate(later, seeds.ratio_difference, draws=40_000, level=0.9)
    assert found.value == pytest.approx(28 / 5 - 20 / 7) and ends_fit(found.low, found.high, every)


def test_growth_and_lead_are_what_they_say():
    data = {"a": np.array([[[2.0, 4.0]], [[3.0, 6.0]], [[1.0, 1.0]], [[2.0, 5.0]]])}
    assert seeds.estimate(data, seeds.growth).value == pytest.approx(0.5)
    assert seeds.estimate(data, seeds.lead).value == pytest.approx((3.5 - 1.0) - (4.5 - 3.0))


def test_a_change_of_nothing_still_has_a_width():
    same = {"a": np.array([[[1, 0, 1]], [[1, 0, 1]]])}
    found = seeds.estimate(same, seeds.difference)
    assert found.value == 0 and found.high == pytest.approx(1 - 0.025 ** (1 / 3)) == -found.low


def naive_components(linear):
    """Vs, Vp and Ve of the mean over benchmarks, by their definitions."""
    count, seeds_, among, shared = len(linear), len(next(iter(linear.values()))), 0.0, 0.0
    for z in linear.values():
        size = len(z[0])
        rows = [sum(z[s][i] for s in range(seeds_)) / seeds_ for i in range(size)]
        means = [sum(z[s]) / size for s in range(seeds_)]
        grand = sum(rows) / size
        among += sum((r - grand) ** 2 for r in rows) / (size - 1) / size / count**2
        rest = [(z[s][i] - rows[i] - means[s] + grand) ** 2
                for s in range(seeds_) for i in range(size)]  # fmt: skip
        shared += sum(rest) / ((seeds_ - 1) * (size - 1)) / (seeds_ * size) / count**2
    levels = [sum(sum(z[s]) / len(z[s]) for z in linear.values()) / count for s in range(seeds_)]
    grand = sum(levels) / seeds_
    return sum((x - grand) ** 2 for x in levels) / (seeds_ - 1) / seeds_, among, shared


def test_components_of_variance_are_those_of_their_definitions():
    noise = np.random.default_rng(1)
    linear = {"a": noise.normal(size=(5, 7)), "b": noise.normal(size=(5, 4))}
    assert seeds._components(linear)[:3] == pytest.approx(naive_components(linear))


def test_linearised_is_the_change_of_the_statistic_with_an_answers_weight():
    values = np.random.default_rng(2).uniform(1, 5, size=(4, 3, 6))
    linear, weight = seeds.linearised(values, seeds.ratio_difference), 1e-5
    for s, i in product(range(3), range(6)):
        weights = np.full((3, 6), 1 / 18) * (1 - weight)
        weights[s, i] += weight
        moved = seeds.ratio_difference((values * weights).sum((1, 2)))
        slope = (moved - seeds.ratio_difference(values.mean((1, 2)))) / weight
        assert slope == pytest.approx(linear[s, i] - linear.mean(), abs=1e-3)


def world(noise, count, seed_spread=0.08):
    """Outcomes before and after, [2, seeds, problems], and the true change: 0.05."""
    hard, luck = noise.uniform(0.1, 0.8, 60), noise.normal(0, seed_spread, (count, 1))
    before, after = (noise.random((count, 60)) for _ in range(2))
    return np.array([before < hard, after < np.clip(hard + 0.05 + luck, 0, 1)], dtype=float)


@pytest.mark.parametrize(("count", "least"), [(5, 0.93), (8, 0.93)])
def test_with_the_seed_as_a_level_the_interval_covers(count, least):
    noise, hits = np.random.default_rng(count), 0
    for _ in range(600):
        found = seeds.estimate({"a": world(noise, count)}, seeds.difference)
        assert found.over == seeds.BOTH
        hits += found.low <= 0.05 <= found.high
    assert least < hits / 600 < 0.985


def test_few_seeds_are_labelled_as_given():
    noise = np.random.default_rng(0)
    kinds = [seeds.estimate({"a": world(noise, n)}, seeds.difference).over for n in (1, 4, 5)]
    assert kinds == [seeds.ONE, seeds.GIVEN, seeds.BOTH]


def test_a_share_of_one_seed_has_wilsons_interval_and_an_average_that_of_the_mean():
    right = {"a": np.array([[[1, 1, 0, 1, 0]]]), "b": np.array([[[0, 0, 1, 0]]])}
    one = seeds.share({"a": right["a"]})
    assert (one.low, one.high) == pytest.approx(wilson(3, 5))
    mean, low, high = mean_interval({"a": (3, 5), "b": (1, 4)})
    both = seeds.share(right)
    assert (both.value, both.low, both.high) == pytest.approx((mean, low, high))


def test_seeds_that_always_agree_add_nothing_and_independent_ones_do():
    noise = np.random.default_rng(3)
    one = noise.integers(0, 2, (1, 1, 200)).astype(float)
    alone, copies = seeds.share({"a": one}), seeds.share({"a": np.repeat(one, 3, axis=1)})
    assert (copies.low, copies.high) == pytest.approx((alone.low, alone.high), abs=2e-3)
    apart = seeds.share({"a": noise.integers(0, 2, (1, 3, 200)).astype(float)})
    assert apart.high - apart.low == pytest.approx((alone.high - alone.low) / sqrt(3), rel=0.1)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_a_share_covers(count):
    noise, hits = np.random.default_rng(count), 0
    for _ in range(1000):
        hard = noise.beta(1.0, 1.0, 80)
        found = seeds.share({"a": (noise.random((1, count, 80)) < hard).astype(float)})
        hits += found.low <= 0.5 <= found.high
    assert 0.93 < hits / 1000 < 0.975


def test_a_share_stays_in_its_range():
    none = seeds.share({"a": np.zeros((1, 3, 50))})
    assert none.low == 0 and 0.05 < none.high < 0.08
    assert seeds.share({"a": np.ones((1, 6, 50))}).high == 1


def test_sign_test_of_one_seed_is_mcnemars():
    noise = np.random.default_rng(0)
    for _ in range(20):
        before, after = noise.integers(0, 2, (2, 1, 15))
        assert seeds.sign_test(before, after) == pytest.approx(mcnemar(before[0], after[0]))


def test_sign_test_of_several_seeds_equals_enumeration():
    noise = np.random.default_rng(1)
    for _ in range(8):
        before, after = noise.integers(0, 2, (2, 3, 7))
        changes = (after - before).sum(0)
        sums = [sum(s * d for s, d in zip(signs, changes, strict=True))
                for signs in product((-1, 1), repeat=7)]  # fmt: skip
        extreme = np.mean([abs(x) >= abs(changes.sum()) for x in sums])
        assert seeds.sign_test(before, after) == pytest.approx(extreme)
    assert seeds.sign_test(before, before) == 1.0


def a_share(right, items):
    return seeds.mean_share([(right / items, *wilson(right, items))], items)


def test_unpaired_shares_have_newcombes_published_interval_and_cover():
    # Newcombe 1998, Statistics in Medicine 17, example (a) of table II: 56/70 - 48/80.
    found = seeds.unpaired(a_share(48, 80), a_share(56, 70))
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    noise, hits = np.random.default_rng(0), 0
    for _ in range(3000):
        a, b = noise.binomial(40, 0.3), noise.binomial(60, 0.7)
        found = seeds.unpaired(a_share(int(a), 40), a_share(int(b), 60))
        hits += found.low <= 0.4 <= found.high
    assert 0.93 < hits / 3000 < 0.97


def test_the_mean_of_shares_of_different_items_covers():
    noise, hits = np.random.default_rng(1), 0
    for _ in range(2000):
        parts = [(int(noise.binomial(30, p)), 30) for p in (0.2, 0.5, 0.8)]
        found = seeds.mean_share([(a / n, *wilson(a, n)) for a, n in parts], 90)
        hits += found.low <= 0.5 <= found.high
    assert 0.93 < hits / 2000 < 0.975 and found.over == seeds.GIVEN and found.problems == 90


@pytest.mark.parametrize(
    "data",
    [{}, {"a": np.zeros((1, 2))}, {"a": np.zeros((1, 0, 3))},
     {"a": np.zeros((1, 2, 3)), "b": np.zeros((1, 3, 3))}],
)  # fmt: skip
def test_data_that_do_not_fit_are_refused(data):
    with pytest.raises(PSRError, match="estimate"):
        seeds.estimate(data, seeds.first)


def test_a_draw_in_blocks_is_the_same_draw(monkeypatch):
    whole = seeds.draw_counts.__wrapped__(7, 100, 0, 1)
    monkeypatch.setattr(seeds, "BLOCK", 21)
    assert (seeds.draw_counts.__wrapped__(7, 100, 0, 1) == whole).all()
    assert (whole.sum(1) == 7).all()


# --- everything alike, at every number of seeds; items of each seed's own


@pytest.mark.parametrize("count", [1, 3, 5, 6, 9])
def test_what_never_differs_has_an_interval_all_the_same(count):
    same = {"easy": np.zeros((2, count, 50))}
    found = seeds.estimate(same, seeds.difference)
    assert found.low < 0 == found.value < found.high and found.high > 0.05
    for size in (50, 100):
        right = seeds.share({"easy": np.ones((1, count, size))})
        assert right.value == right.high == 1 and right.low < 0.99


def test_from_five_seeds_on_a_mean_of_shares_is_as_wide_as_the_seeds_say():
    alike = [(0.5, 0.49, 0.51)] * 5
    apart = [(v, v - 0.01, v + 0.01) for v in (0.3, 0.4, 0.5, 0.6, 0.7)]
    near, far = seeds.mean_share(alike, 100), seeds.mean_share(apart, 100)
    assert near.over == far.over == seeds.BOTH and near.high - near.low == pytest.approx(
        0.02 / 5**0.5
    )
    half = 2.776445 * 0.158114 / 5**0.5  # Student's t of 4 degrees, the values' standard deviation
    assert far.high - far.value == pytest.approx(half, rel=1e-4)
    four = seeds.mean_share(apart[:4], 100)
    assert four.over == seeds.GIVEN and four.high - four.low == pytest.approx(0.02 / 4**0.5)
