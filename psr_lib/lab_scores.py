"""Scores of whole solutions in two sampled runs, and what they say about the judge (Table 6).

The paper compares step-wise pairwise judging with scoring a whole solution (Yuan et al.,
arXiv 2401.10020), and defines neither measure. Here every solution is scored in two runs that
differ in nothing but their noise, and an unreadable score counts against the judge in both. A run
samples as many scores as the method does (`srlm.scores`):

- consistency: how often a score of one run is that of the other. Single scores are compared, each
  with each: a mean of several is the same less often, whatever the judge;
- agreement: pairs of a right and a wrong solution in which the right one's mean score is higher,
  mean of both runs. Equal means are a tie, and get half a point; `strict` gives them none;
- unreadable: of all scores that were sampled; ties: pairs with equal scores.

Pairs are of one problem, or, where people labelled one solution a problem, of any two problems.
Beside the judge stand null judges that read nothing; for `first`, which sees a place that a score
has not, all solutions are equal.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Protocol

import numpy as np

from psr_lib.labels import LabelledSolution
from psr_lib.records import Question, seed_of
from psr_lib.shares import NOTHING, Share, drawn, percentiles, share
from psr_lib.stats import wilson

RUNS = (0, 1)
SAME, ANY = "one problem", "any two problems"


class Scored(Protocol):
    """Sampled scores of a solution, None where unreadable, and the mean of the readable ones."""

    @property
    def points(self) -> Sequence[float | None]:
        """The scores."""

    @property
    def mean(self) -> float | None:
        """Their mean, None where none is readable."""


# Scores of these solutions in the run of that number; another run draws other noise.
Scorer = Callable[[Sequence[tuple[Question, str]], int], Sequence[Scored]]


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """A labelled solution with its mean score in each run, None where unreadable.

    `same`: the share of pairs of single scores, one of each run, that are readable and equal.
    """

    id: str
    problem_id: str
    source: str
    text: str
    right: bool
    scores: tuple[float | None, float | None]
    same: float
    unreadable: int
    samples: int


def score_rows(solutions: Sequence[LabelledSolution], scorer: Scorer) -> list[ScoreRow]:
    """The solutions, each scored in two runs."""
    asked = [(Question(id=s.problem_id, text=s.question), s.text) for s in solutions]
    runs = [scorer(asked, run) for run in RUNS]
    return [
        ScoreRow(id=s.id, problem_id=s.problem_id, source=s.source, text=s.text, right=s.right,
                 scores=(one.mean, two.mean), same=_same(one.points, two.points),
                 samples=len(one.points) + len(two.points),
                 unreadable=[*one.points, *two.points].count(None))
        for s, one, two in zip(solutions, *runs, strict=True)
    ]  # fmt: skip


def _same(one: Sequence[float | None], two: Sequence[float | None]) -> float:
    pairs = list(product(one, two))
    return sum(a is not None and a == b for a, b in pairs) / len(pairs)


NULLS: Mapping[str, Callable[[ScoreRow, int], float]] = {
    "first": lambda row, run: 0.0,
    "longer": lambda row, run: float(len(row.text)),
    "shorter": lambda row, run: -float(len(row.text)),
    "random": lambda row, run: float(
        random.Random(seed_of("null", row.source, row.id, run)).randrange(6)
    ),
}


def null_scores(rows: Sequence[ScoreRow], name: str) -> list[ScoreRow]:
    """The same solutions as a null judge scores them."""
    blind, found = NULLS[name], []
    for row in rows:
        scores = blind(row, 0), blind(row, 1)
        same = float(scores[0] == scores[1])
        found.append(replace(row, scores=scores, same=same, unreadable=0, samples=2))
    return found


def score_shares(rows: Sequence[ScoreRow], pairs: str = SAME) -> dict[str, Share]:
    """Each measure of the head of this file, with its interval over problems."""
    names = [row.problem_id for row in rows]
    between = _of_one_problem if pairs == SAME else _of_any_two
    return {
        "agreement": between(rows, lambda won, tied: won + tied / 2),
        "strict": between(rows, lambda won, tied: won),
        "consistency": share([row.same for row in rows], [1] * len(rows), names),
        "unreadable": share([row.unreadable for row in rows], [row.samples for row in rows], names),
        "ties": between(rows, lambda won, tied: tied),
    }


Credit = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _compared(rows: Sequence[ScoreRow]) -> tuple[list[ScoreRow], list[ScoreRow], tuple]:
    """Right and wrong solutions, and how often (0 to 1, over the runs) the right one wins or ties.

    Both are matrices [right, wrong]. An unreadable score neither wins nor ties: it is NaN.
    """
    rights, wrongs = ([row for row in rows if row.right == value] for value in (True, False))
    sides = [np.array([row.scores for row in side], dtype=float).reshape(-1, len(RUNS))
             for side in (rights, wrongs)]  # fmt: skip
    one, two = sides[0][:, None, :], sides[1][None, :, :]
    return rights, wrongs, ((one > two).mean(-1), (one == two).mean(-1))


def _of_one_problem(rows: Sequence[ScoreRow], credit: Credit) -> Share:
    rights, wrongs, compared = _compared(rows)
    points = credit(*compared)
    same = [(i, j) for i, r in enumerate(rights) for j, w in enumerate(wrongs)
            if r.problem_id == w.problem_id]  # fmt: skip
    names = [rights[i].problem_id for i, _ in same]
    return share([float(points[place]) for place in same], [1] * len(same), names)


def _of_any_two(rows: Sequence[ScoreRow], credit: Credit) -> Share:
    """Over all right and wrong solutions; problems are drawn, each with all of its solutions."""
    rights, wrongs, compared = _compared(rows)
    if not rights or not wrongs:
        return NOTHING
    points = credit(*compared)
    value, size = float(points.mean()), points.size
    place = {name: k for k, name in enumerate(dict.fromkeys(row.problem_id for row in rows))}
    if value in (0, 1):
        least = min(len(rights), len(wrongs))
        return Share(value, *wilson(round(value * least), least), size, len(place))
    counts = drawn(len(place))
    times = [counts[:, [place[row.problem_id] for row in side]] for side in (rights, wrongs)]
    weight = times[0].sum(1) * times[1].sum(1)
    kept = weight > 0  # a draw of one kind only says nothing
    won = ((times[0] @ points) * times[1]).sum(1)
    return Share(value, *percentiles(won[kept] / weight[kept]), size, len(place))
