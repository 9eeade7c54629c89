"""From contests to the scoring EFT of `srlm`: the teacher's points, the filter, the thinning.

Both solutions of a contest are kept only if their points are ordered as their final answers are
(after Yuan et al., arXiv 2401.10020, where human rankings take that part), and the most common
score is thinned out, as they do.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence

from psr_lib.contests import Contest
from psr_lib.engines.threads import each
from psr_lib.grading import Grader
from psr_lib.records import ScoreExample
from psr_lib.score_teachers import Said, Scorer

Done = Callable[[int], None]


def judged(
    found: Sequence[Contest], teacher: Scorer, name: str, done: Done = lambda count: None
) -> tuple[list[list[ScoreExample]], Counter]:
    """Scored pairs of solutions whose order by points is their order by final answer.

    Returns the pairs (right, wrong) as examples, and how many contests there were, were undecided
    by the final answers, had a score that can't be read, and were scored in another order. `done`
    is called with the number of solutions scored so far.
    """
    graded = _right(found)
    said = _asked([one for one, flags in zip(found, graded, strict=True) if flags[0] != flags[1]],
                  teacher, done)  # fmt: skip
    pairs: list[list[ScoreExample]] = []
    counts = Counter(contests=len(found), undecided=0, unreadable=0, misordered=0)
    for contest, rights in zip(found, graded, strict=True):
        if rights[0] == rights[1]:
            counts["undecided"] += 1
            continue
        place = [rights.index(True), rights.index(False)]
        both = [said[contest.question, contest.solutions[k]] for k in place]
        if fault := _fault(*both):
            counts[fault] += 1
        else:
            pairs.append([_example(contest, k, both[n], rights[k], f"{name}/{len(pairs)}.{n}")
                          for n, k in enumerate(place)])  # fmt: skip
    return pairs, counts


def _asked(found: Sequence[Contest], teacher: Scorer, done: Done) -> dict[tuple[str, str], Said]:
    """What the teacher says of each solution, each asked about once."""
    said: dict[tuple[str, str], Said] = {}

    def keep(answer: tuple[tuple[str, str], Said]) -> None:
        said[answer[0]] = answer[1]
        done(len(said))

    jobs = dict.fromkeys((one.question, text) for one in found for text in one.solutions)
    each(jobs, lambda job: (job, teacher.score(*job)), keep, teacher.concurrency)
    return said


def _fault(right: Said, wrong: Said) -> str:
    if right.points is None or wrong.points is None:
        return "unreadable"
    return "misordered" if right.points <= wrong.points else ""


def _right(found: Sequence[Contest]) -> list[list[bool]]:
    with Grader() as grader:
        grades = grader.grade_all([(c.gold, text) for c in found for text in c.solutions])
    flags = [grade.strict for grade in grades]
    return [flags[k : k + 2] for k in range(0, len(flags), 2)]


def _example(contest: Contest, k: int, said: Said, right: bool, name: str) -> ScoreExample:
    flaw = "" if right else contest.flaw
    return ScoreExample(
        id=name, problem_id=contest.problem_id, question=contest.question,
        solution=contest.solutions[k], points=round(said.points or 0), explanation=said.text,
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
