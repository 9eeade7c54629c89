"""Where labelled steps come from: PRM800K's files, or the oracle of the small laboratory.

>>> row = next(iter(oracle_labels("prm", 1, 0, set(), {"easy": 1.0})))
>>> len(row.steps) == len(row.labels)
True
"""

import random
from collections.abc import Mapping

from psr_lib import authors, problems, teachers
from psr_lib.records import StepLabels, seed_of


def oracle_labels(
    name: str, size: int, seed: int, taken: set[str], shares: Mapping[str, float]
) -> list[StepLabels]:
    """Noisy authors' solutions, each step labelled by the oracle, those after a wrong one too."""
    rng, rows = random.Random(seed_of(name, "authors", seed)), []
    puzzles = teachers.fresh_puzzles(name, size, seed, taken, shares)
    for i, (level, puzzle) in enumerate(puzzles):
        steps, question = authors.solve(puzzle, rng), puzzle.text()
        labels = ["+" if problems.is_right(question, steps[:k], step) else "-"
                  for k, step in enumerate(steps)]  # fmt: skip
        rows.append(StepLabels(id=f"{name}/{i}", problem_id=f"{name}/{level}/{i}",
                               question=question, steps=steps, labels=labels,
                               meta={"level": level}))  # fmt: skip
    return rows
