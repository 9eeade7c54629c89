"""Shares of things that belong to problems: Wilson where there is one each, else a bootstrap."""

import random

import pytest

from psr_lib.shares import NOTHING, share
from psr_lib.stats import wilson


def names(count, each):
    return [f"p/{k}" for k in range(count) for _ in range(each)]


def test_one_thing_a_problem_takes_wilsons_interval():
    found = share([1, 0, 1, 1, 0], [1] * 5, names(5, 1))
    assert (found.value, found.low, found.high) == (0.6, *wilson(3, 5))
    assert (found.n, found.problems) == (5, 5)


def test_rows_without_a_whole_are_left_out():
    assert share([1, 1, 0], [1, 0, 1], ["a", "b", "c"]) == share([1, 0], [1, 1], ["a", "c"])
    assert share([1, 1], [0, 0], ["a", "b"]) == share([], [], []) == NOTHING


def test_things_on_one_problem_do_not_narrow_the_interval():
    """Ten equal verdicts on each of 40 problems are known as well as one on each."""
    chance = random.Random(3)
    right = [chance.random() < 0.7 for _ in range(40)]
    one = share(right, [1] * 40, names(40, 1))
    ten = share([bit for bit in right for _ in range(10)], [1] * 400, names(40, 10))
    assert ten.value == pytest.approx(one.value) and (ten.n, ten.problems) == (400, 40)
    assert (ten.low, ten.high) == pytest.approx((one.low, one.high), abs=0.05)
    assert ten.high - ten.low > 2 * (wilson(280, 400)[1] - wilson(280, 400)[0])


def test_the_bootstrap_draws_whole_problems():
    """Against the same bootstrap written out: draw problems, add up their parts and wholes."""
    chance = random.Random(5)
    rows = [(k, chance.randint(0, 4)) for k in range(30)]
    parts = [[int(chance.random() < 0.4) for _ in range(size)] for _, size in rows]
    flat = [(bit, f"p/{k}") for (k, _), bits in zip(rows, parts, strict=True) for bit in bits]
    found = share([bit for bit, _ in flat], [1] * len(flat), [name for _, name in flat])
    groups, drawn = [bits for bits in parts if bits], []
    for _ in range(4000):
        some = [bit for _ in groups for bit in chance.choice(groups)]
        drawn.append(sum(some) / len(some))
    drawn.sort()
    assert found.problems == len(groups)
    assert (found.low, found.high) == pytest.approx((drawn[100], drawn[3900]), abs=0.03)


def test_a_share_of_all_or_none_keeps_an_interval_over_problems():
    none, every = share([0] * 20, [1] * 20, names(5, 4)), share([2] * 9, [2] * 9, names(3, 3))
    assert (none.value, none.low, none.high) == (0.0, *wilson(0, 5))
    assert (every.value, every.low, every.high) == (1.0, *wilson(3, 3))


def test_one_problem_says_nothing_of_others():
    found = share([1, 0, 1], [1, 1, 1], names(1, 3))
    assert (found.low, found.high) == (0.0, 1.0)


def test_equal_calls_give_equal_intervals():
    args = [0.5, 1, 0, 0.25], [1] * 4, names(4, 1)
    assert share(*args) == share(*args)
