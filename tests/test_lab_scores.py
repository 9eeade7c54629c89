"""Scoring whole solutions: every rate against tables made by hand, and the null judges."""

from dataclasses import dataclass
from statistics import mean

import pytest

from psr_lib.lab_scores import ANY, NULLS, SAME, ScoreRow, null_scores, score_rows, score_shares
from psr_lib.labels import LabelledSolution
from psr_lib.stats import wilson

# problem, right, score in either run (three samples each), unreadable samples
TABLE = [
    ("p0", True, 4.0, 4.0, 0),
    ("p0", False, 2.0, 3.0, 0),
    ("p1", True, 3.0, 3.0, 0),
    ("p1", False, 3.0, 1.0, 1),
    ("p1", False, 5.0, 3.0, 0),
    ("p2", True, None, 2.0, 3),
    ("p2", False, 1.0, 1.0, 0),
    ("p3", True, 5.0, 5.0, 0),  # no wrong solution of p3
]
# won and tied of each pair, over both runs
#   p0: won, won           p1 first: tied, won      p1 second: lost, tied    p2: unreadable, won
SAME_PAIRS = {"strict": (2 + 1 + 0 + 1) / 8, "ties": (0 + 1 + 1 + 0) / 8}
SAME_PAIRS["agreement"] = SAME_PAIRS["strict"] + SAME_PAIRS["ties"] / 2


def rows(table=TABLE):
    return [
        ScoreRow(id=f"s/{k}", problem_id=problem, source="s", text=f"Step 1: {'long ' * k}",
                 right=right, scores=(one, two), same=float(one is not None and one == two),
                 unreadable=unreadable, samples=6)
        for k, (problem, right, one, two, unreadable) in enumerate(table)
    ]  # fmt: skip


@pytest.mark.parametrize("name", SAME_PAIRS)
def test_pairs_of_one_problem_against_the_hand_made_table(name):
    found = score_shares(rows(), SAME)[name]
    assert found.value == pytest.approx(SAME_PAIRS[name]) and (found.n, found.problems) == (4, 3)
    assert found.low <= found.value <= found.high


def test_consistency_and_unreadable_count_every_solution():
    found = score_shares(rows())
    assert found["consistency"].value == 4 / 8 and found["consistency"].problems == 4
    assert found["unreadable"].value == 4 / 48 and found["unreadable"].n == 48


def brute(table):
    """Every right solution against every wrong one, one run after the other."""
    won = tied = total = 0
    for _, right, *ours in table:
        for _, wrong, *theirs in table:
            if right and not wrong:
                for one, two in zip(ours[:2], theirs[:2], strict=True):
                    total += 1
                    readable = one is not None and two is not None
                    won += readable and one > two
                    tied += readable and one == two
    return {"strict": won / total, "ties": tied / total, "agreement": (won + tied / 2) / total}


@pytest.mark.parametrize("name", SAME_PAIRS)
def test_pairs_of_any_two_problems_against_brute_force(name):
    found = score_shares(rows(), ANY)[name]
    assert found.value == pytest.approx(brute(TABLE)[name]) and found.n == 4 * 4
    assert found.low <= found.value <= found.high


def test_without_one_kind_there_is_nothing_to_compare():
    for pairs in (SAME, ANY):
        assert score_shares(rows(TABLE[-1:]), pairs)["agreement"].value is None
        assert score_shares([], pairs)["ties"].value is None


def test_a_judge_that_is_always_right_keeps_an_interval():
    sure = rows([(f"p{k}", k % 2 == 0, 5.0 - k % 2, 5.0 - k % 2, 0) for k in range(12)])
    found = score_shares(sure, ANY)["agreement"]
    assert (found.value, found.low, found.high) == (1.0, *wilson(6, 6))


def test_null_judges_read_nothing():
    shares = {name: score_shares(null_scores(rows(), name)) for name in NULLS}
    assert {share["unreadable"].value for share in shares.values()} == {0}
    assert (shares["first"]["agreement"].value, shares["first"]["ties"].value) == (0.5, 1.0)
    assert shares["first"]["strict"].value == 0
    # Texts grow down the table and each wrong solution stands below its right one.
    assert shares["longer"]["agreement"].value == 0 and shares["shorter"]["agreement"].value == 1
    assert shares["longer"]["consistency"].value == 1


def test_random_scores_agree_with_nothing():
    table = [(f"p{k // 2}", k % 2 == 0, None, None, 6) for k in range(600)]
    found = score_shares(null_scores(rows(table), "random"))
    assert 0.45 < found["agreement"].value < 0.55
    assert 0.1 < found["consistency"].value < 0.24 and 0.1 < found["ties"].value < 0.24


@dataclass
class Points:
    """What a scorer gives for a solution."""

    points: tuple

    @property
    def mean(self):
        known = [point for point in self.points if point is not None]
        return mean(known) if known else None


def test_solutions_are_scored_in_two_runs():
    asked = []

    def scorer(items, run):
        asked.append((run, [(q.id, q.text, text) for q, text in items]))
        return [Points((run + k, None, run + k)) if k else Points((None,) * 3)
                for k in range(len(items))]  # fmt: skip

    solutions = [LabelledSolution(id=f"s/{k}", problem_id="p", question="q?", text=f"t{k}",
                                  right=bool(k), source="own") for k in range(2)]  # fmt: skip
    first, second = score_rows(solutions, scorer)
    assert asked[0] == (0, [("p", "q?", "t0"), ("p", "q?", "t1")]) and asked[1][0] == 1
    assert (first.scores, first.unreadable, first.samples) == ((None, None), 6, 6)
    assert (second.scores, second.unreadable, second.right) == ((1, 2), 2, True)
    assert first.same == second.same == 0


def test_consistency_compares_single_scores_and_not_their_means():
    runs = (Points((4, 4, 5)), Points((4, 5, None)))
    solution = LabelledSolution(id="s", problem_id="p", question="q?", text="t", right=True,
                                source="own")  # fmt: skip
    (row,) = score_rows([solution], lambda items, run: [runs[run]])
    assert row.scores[0] != row.scores[1]
    assert row.same == (2 + 1) / 9  # 4 and 4 meet twice, 5 and 5 once, an unreadable one never
