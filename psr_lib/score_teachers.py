"""EFT of the baseline `srlm`: whole solutions with a teacher's justification and points.

For each problem a right solution stands beside a wrong one. A teacher scores both; the two are kept
only if the scores are ordered as the final answers are (after Yuan et al., arXiv 2401.10020, where
human rankings take that part), and the most common score is thinned out, as they do. The `oracle`
teacher of the small laboratory is `solution_reviews`.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from psr_lib import authors, problems
from psr_lib.grading import Grader
from psr_lib.problems import Puzzle
from psr_lib.records import JudgeExample, ScoreExample, seed_of
from psr_lib.solution_reviews import review
from psr_lib.steps import is_final, split_steps

Teacher = Callable[[str, str], tuple[str, float | None]]  # question, solution -> text, points
NOISY_SHARE = 0.5  # draws of a noisy author; the others have one flaw of the step judge's EFT
TRIES = 20  # draws of a wrong solution before its problem is left out


@dataclass(frozen=True)
class Contest:
    """Two solutions of a problem, one meant to be wrong; `gold` is the teacher's to know."""

    problem_id: str
    question: str
    gold: str
    solutions: tuple[str, str]
    flaw: str
    level: str


def contests(examples: Iterable[JudgeExample], seed: int) -> list[Contest]:
    """A contest for each problem of the step judge's EFT, so that both judges learn on the same.

    Problems for which no wrong solution is found are left out.
    """
    found = (_contest(row, random.Random(seed_of("scores", seed, row.id))) for row in examples)
    return [contest for contest in found if contest]


def _contest(row: JudgeExample, rng: random.Random) -> Contest | None:
    puzzle = problems.parse(row.question)
    wrong = next(filter(None, (wrong_solution(puzzle, rng) for _ in range(TRIES))), None)
    if wrong is None:
        return None
    texts = "\n".join(puzzle.solution()), "\n".join(wrong[0])
    return Contest(row.problem_id, row.question, str(puzzle.answer()), texts, wrong[1],
                   row.meta.get("level", ""))  # fmt: skip


def wrong_solution(puzzle: Puzzle, rng: random.Random) -> tuple[list[str], str] | None:
    """A solution that goes wrong somewhere and still ends in an answer, with its flaw's name.

    Half of the draws are a noisy author's; half have one flaw of the step judge's EFT at a place
    drawn evenly, and go on rightly from there. None where the draw gives no such solution.
    """
    right = puzzle.solution()
    if rng.random() < NOISY_SHARE:
        steps = authors.solve(puzzle, rng)
        return (steps, "noisy author") if steps != right and is_final(steps[-1]) else None
    prefix = right[: rng.randrange(len(right))]
    flawed = authors.wrong_step(puzzle, prefix, rng)
    if flawed is None:
        return None
    steps = [*prefix, flawed[0]]
    while not is_final(steps[-1]):
        step = problems.next_step(puzzle, steps)
        if step is None:
            return None
        steps.append(step)
    return steps, flawed[1]


def oracle(question: str, solution: str) -> tuple[str, float | None]:
    """The oracle as a teacher; laboratory problems only."""
    return review(question, split_steps(solution))


def judged(found: Sequence[Contest], teacher: Teacher, name: str) -> tuple[list, Counter]:
    """Scored pairs of solutions whose order by points is their order by final answer.

    Returns the pairs (right, wrong) as examples, and how many contests there were, were undecided
    by the final answers, had a score that can't be read, and were scored in another order.
    """
    graded = _right(found)
    pairs: list[list[ScoreExample]] = []
    counts = Counter(contests=len(found), undecided=0, unreadable=0, misordered=0)
    for contest, rights in zip(found, graded, strict=True):
        if rights[0] == rights[1]:
            counts["undecided"] += 1
            continue
        place = [rights.index(True), rights.index(False)]
        said = [teacher(contest.question, contest.solutions[k]) for k in place]
        (_, high), (_, low) = said
        if high is None or low is None:
            counts["unreadable"] += 1
        elif high <= low:
            counts["misordered"] += 1
        else:
            pairs.append([_example(contest, k, said[n], rights[k], f"{name}/{len(pairs)}.{n}")
                          for n, k in enumerate(place)])  # fmt: skip
    return pairs, counts


def _right(found: Sequence[Contest]) -> list[list[bool]]:
    with Grader() as grader:
        grades = grader.grade_all([(c.gold, text) for c in found for text in c.solutions])
    flags = [grade.strict for grade in grades]
    return [flags[k : k + 2] for k in range(0, len(flags), 2)]


def _example(
    contest: Contest, k: int, said: tuple[str, float | None], right: bool, name: str
) -> ScoreExample:
    flaw = "" if right else contest.flaw
    return ScoreExample(
        id=name, problem_id=contest.problem_id, question=contest.question,
        solution=contest.solutions[k], points=round(said[1] or 0), explanation=said[0],
        right=right, meta={"level": contest.level, "flaw": flaw},
    )  # fmt: skip


def thinned(rows: Sequence[ScoreExample], share: float, rng: random.Random) -> list[ScoreExample]:
    """The rows in random order; of the most common score only so many that it has this share."""
    rows = rng.sample(rows, len(rows))
    if not rows:
        return []
    (common, count), rest = Counter(row.points for row in rows).most_common(1)[0], len(rows)
    rest -= count
    surplus = max(0, count - int(share / (1 - share) * rest)) if share < 1 else 0
    kept = []
    for row in rows:
        surplus -= row.points == common
        if row.points != common or surplus < 0:
            kept.append(row)
    return kept
