"""Two whole solutions of a problem, a right and a wrong one, to be scored for the EFT of `srlm`.

Under `data.eft_from=chain` both are the policy's own (`score_chain`); under `direct` the right one
is the laboratory's and the wrong one is built here, on the problems of the step judge's EFT.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psr_lib import authors, problems
from psr_lib.grading import Grader
from psr_lib.problems import Puzzle
from psr_lib.records import JudgeExample, Problem, seed_of
from psr_lib.solution_traces import SolutionTrace
from psr_lib.steps import is_final

SAMPLED = "sampled"  # what is said of a wrong solution's flaw where a policy wrote it
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


def sampled(found: Sequence[Problem], traces: Sequence[SolutionTrace], seed: int) -> list[Contest]:
    """A contest for each problem that the policy solved rightly once and wrongly once.

    Of several right or wrong texts one is drawn; solutions that were cut take no part.
    """
    texts = [list(dict.fromkeys(s.text for s in trace.solutions if s.valid)) for trace in traces]
    asked = [(problem.answer, text) for problem, own in zip(found, texts, strict=True)
             for text in own]  # fmt: skip
    with Grader() as grader:
        grades = iter([grade.strict for grade in grader.grade_all(asked)])
    flags = [[next(grades) for _ in own] for own in texts]
    made = map(_drawn, found, texts, flags, [seed] * len(texts))
    return [contest for contest in made if contest]


def _drawn(problem: Problem, texts: list[str], right: list[bool], seed: int) -> Contest | None:
    rng = random.Random(seed_of("contest", seed, problem.id))
    sides = [[t for t, flag in zip(texts, right, strict=True) if flag == side]
             for side in (True, False)]  # fmt: skip
    if not all(sides):
        return None
    pair = rng.choice(sides[0]), rng.choice(sides[1])
    level = problem.meta.get("level", "")
    return Contest(problem.id, problem.question, problem.answer, pair, SAMPLED, level)


def built(examples: Iterable[JudgeExample], seed: int) -> list[Contest]:
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
