"""Where labelled steps come from: PRM800K's files, or the oracle of the small laboratory.

>>> row = next(iter(oracle_labels("prm", 1, 0, set(), {"easy": 1.0})))
>>> len(row.steps) == len(row.labels)
True
"""

import random
from collections.abc import Mapping
from itertools import takewhile

from psr_lib import authors, problems, teachers
from psr_lib.records import StepLabels, seed_of


def oracle_labels(
    name: str,
    size: int,
    seed: int,
    taken: set[str],
    shares: Mapping[str, float],
    clauses: bool = False,
) -> list[StepLabels]:
    """Noisy authors' solutions, each step labelled by the oracle, those after a wrong one too.

    With `clauses` it also says how far each step is right.
    """
    rng, rows = random.Random(seed_of(name, "authors", seed)), []
    puzzles = teachers.fresh_puzzles(name, size, seed, taken, shares)
    for i, (level, puzzle) in enumerate(puzzles):
        steps, question = authors.solve(puzzle, rng), puzzle.text()
        due = [problems.next_step(puzzle, steps[:k]) or "" for k in range(len(steps))]
        labels = ["+" if step == right else "-" for step, right in zip(steps, due, strict=True)]
        sound = [shared(step, right) for step, right in zip(steps, due, strict=True)]
        rows.append(StepLabels(id=f"{name}/{i}", problem_id=f"{name}/{level}/{i}",
                               question=question, steps=steps, labels=labels,
                               sound=sound if clauses else [],
                               meta={"level": level}))  # fmt: skip
    return rows


def shared(one: str, other: str) -> int:
    """Length of what two texts begin with in common.

    >>> shared("so 85.", "so 95.")
    3
    """
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
