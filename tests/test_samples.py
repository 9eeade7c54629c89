"""avg@k: every answer drawn by its own seed, means and intervals against sums by hand."""

from types import SimpleNamespace

import pytest
from scripted import Scripted

from psr_lib import prompts
from psr_lib.evaluation import accuracy_rows
from psr_lib.presets import load
from psr_lib.records import Problem
from psr_lib.samples import average_rows, sampled_answers, small_sets

FAMILY = prompts.load("compact")
SETTINGS = {"samples": 4, "sample_temperature": 0.5, "sample_top_p": 0.95, "samples_up_to": 3,
            "max_tokens": 64}  # fmt: skip


def settings(**changes):
    return SimpleNamespace(**(SETTINGS | changes))


def make(name, size):
    return [Problem(id=f"{name}/{k}", source="t", question=f"Number {k}?", answer=str(k))
            for k in range(size)]  # fmt: skip


SETS = {"aime": make("aime", 3), "amc": make("amc", 2), "gsm": make("gsm", 4)}


def solver(prompt, seed, k):
    """Problem n is right in its first n samples of four."""
    number = int(prompt.split("?")[0].split()[-1])
    return f"Step 1: so \\boxed{{{number if k < number else 99}}}.", "eos"


def answers(sets=None):
    few = small_sets(SETS, settings()) if sets is None else sets
    return sampled_answers(Scripted(solver), FAMILY, None, few, settings(), seed=1)


def test_only_small_sets_are_sampled():
    assert list(small_sets(SETS, settings())) == ["aime", "amc"]
    for none in ({"samples": 0}, {"samples_up_to": 0}):
        assert small_sets(SETS, settings(**none)) == {}
    assert answers({}) == []


def test_the_small_laboratory_samples_none_of_its_sets():
    tiny = load("tiny")
    sets = {name: range(tiny.data.benchmark_size) for name in tiny.data.benchmarks}
    assert small_sets(sets, tiny.eval) == {}


def test_each_sample_is_a_graded_row():
    rows = answers()
    assert len(rows) == 5 * 4 and [row["sample"] for row in rows[:4]] == [0, 1, 2, 3]
    two = [row["strict"] for row in rows if row["problem_id"] == "aime/2"]
    assert two == [True, True, False, False]
    assert [row["prefill"] > 0 for row in rows[:4]] == [True, False, False, False]


def test_the_mean_of_k_answers_and_its_interval_over_problems():
    aime, amc, mean = average_rows(answers())
    assert (aime["n"], aime["samples"], aime["accuracy"]) == (3, 4, pytest.approx(3 / 12))
    assert (amc["n"], amc["accuracy"], mean["accuracy"]) == (2, 1 / 8, pytest.approx(3 / 16))
    assert 0 <= aime["low"] < aime["accuracy"] < aime["high"] <= 0.5
    assert mean["benchmark"] == "mean" and mean["low"] < mean["accuracy"] < mean["high"]
    assert average_rows(answers({"aime": SETS["aime"]}))[-1]["benchmark"] == "aime"
    assert average_rows([]) == []


def test_no_right_answer_at_all_leaves_an_interval():
    (row,) = average_rows(answers({"aime": SETS["aime"][:1] * 1}))
    assert (row["accuracy"], row["low"]) == (0, 0) and row["high"] > 0.5


def test_greedy_stands_beside():
    greedy = [{"benchmark": "aime", "accuracy": 0.5}, {"benchmark": "amc", "accuracy": 0.0}]
    assert [row["greedy"] for row in average_rows(answers(), greedy)] == [0.5, 0.0, 0.25]
    assert average_rows(answers(), greedy[:1])[-1]["greedy"] is None
    assert accuracy_rows(answers())[0]["accuracy"] == average_rows(answers())[0]["accuracy"]


def test_samples_of_a_problem_depend_on_nothing_else():
    both, alone = answers(), answers({"amc": SETS["amc"]})
    assert [row for row in both if row["benchmark"] == "amc"] == alone
