"""Levels and changes of a judge: problems are drawn, not pairs, and each seed has its own."""

import numpy as np
import pytest

from psr_lib import nested
from psr_lib.nested import Outcomes
from psr_lib.records import PSRError


def outcomes(right, each=1):
    """So many pairs of each problem, all alike within it."""
    right = np.repeat(np.array(right, dtype=float), each)
    return Outcomes(right, [str(k // each) for k in range(len(right))])


def test_pairs_that_repeat_a_problem_say_no_more_than_it():
    rng = np.random.default_rng(0)
    right = rng.random(120) < 0.8
    once, often = (nested.level([outcomes(right, each)]) for each in (1, 5))
    assert once.value == often.value and once.problems == often.problems == 120
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=0.1)
    alone = nested.level([Outcomes(np.repeat(right, 5).astype(float), range(600))])
    assert alone.high - alone.low < 0.55 * (often.high - often.low)  # what taking pairs would say


def test_seeds_may_have_unlike_numbers_of_pairs():
    found = nested.level([outcomes([1, 1, 0, 1]), outcomes([1, 0], 3)])
    assert found.value == (0.75 + 0.5) / 2 and found.per_seed == (0.75, 0.5)
    assert found.problems == 6 and found.low < 0.5 < 0.75 < found.high


def test_a_change_is_paired_and_its_interval_covers_the_truth():
    rng, covered = np.random.default_rng(1), 0
    for _ in range(200):  # problems of three pairs that rise or fall together: +10 points
        before = (rng.random(150) < 0.7).astype(float)
        gain = np.where(rng.random(150) < 1 / 3, 1 - before, 0)
        found = nested.change([outcomes(before, 3)], [outcomes(before + gain, 3)])
        assert found.value == pytest.approx(gain.mean())
        covered += found.low <= 0.1 <= found.high
    assert 180 <= covered <= 199


def test_a_few_changes_are_no_more_certain_than_the_exact_test_says():
    before = np.zeros(500)
    four = nested.change([outcomes(before)], [outcomes([1] * 4 + [0] * 496)])
    assert four.value == pytest.approx(0.008) and four.low < 0  # McNemar's exact p is 0.125
    eight = nested.change([outcomes(before)], [outcomes([1] * 8 + [0] * 492)])
    assert eight.low > 0  # p is 0.008


def test_a_share_never_leaves_0_to_1():
    found = nested.level([outcomes([1] * 98 + [0] * (2 * k)) for k in (0, 0, 0, 0, 3)])
    assert found.low > 0 and found.high <= 1


def test_no_change_is_not_known_exactly():
    found = nested.change([outcomes([1, 0] * 20)] * 2, [outcomes([1, 0] * 20)] * 2)
    assert found.low < 0 == found.value < found.high < 0.1


def test_changes_are_of_the_same_pairs():
    with pytest.raises(PSRError, match="other problems"):
        nested.change([outcomes([1, 0])], [outcomes([1], 2)])
