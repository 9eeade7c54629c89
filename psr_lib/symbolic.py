"""`gsm_symbolic`: GSM8K's kind of problems with other names and numbers, made by reasoning-gym.

Problems of one template differ in names and numbers alone, so they are divided by template: what
trains a model and what measures it have no template in common. The templates were made from GSM8K's
test problems; a pool that may hold none of those is screened by n-grams as every other (`hygiene`).
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from psr_lib.layouts import find_layout, read_problem
from psr_lib.records import Problem, PSRError

NAME = "gsm_symbolic"
ENDLESS = 1_000_000  # rows to draw from, each made when it is asked for
SIZE = 500  # problems of a held-out set
KEPT_APART = {"test": 0, "dev": 1}  # templates of which set: number modulo 5; the others train
FOLDS = 5
SEEDS = {"test": 20250307, "dev": 20250308}
# Every question ends in this. The solver's prompt says it, and so long a run of equal words would
# make all of them copies of each other.
REQUEST = " Give the result as your final answer. Do not include units."


class Rows(Sequence[Mapping[str, Any]]):
    """The problems of a seed whose templates belong to one part: `train`, `test` or `dev`."""

    def __init__(self, part: str, seed: int, size: int = ENDLESS):
        """Raises PSRError where reasoning-gym is not installed."""
        self.data = _reasoning_gym().create_dataset(NAME, seed=seed, size=size)
        templates = enumerate(self.data.task_indices)
        self.places = [place for place, template in templates if part_of(template) == part]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        place = self.places[index]
        row, template = self.data[place], self.data.task_indices[place]
        question = row["question"].removesuffix(REQUEST)
        return {**row, "question": question, "type": f"template {template}"}


def part_of(template: int) -> str:
    """The part that a template belongs to.

    >>> [part_of(template) for template in (20, 21, 22)]
    ['test', 'dev', 'train']
    """
    return next((k for k, rest in KEPT_APART.items() if template % FOLDS == rest), "train")


def held_out(split: str) -> list[Problem]:
    """The held-out problems of a split (`test` or `dev`), always the same, no question twice.

    Raises PSRError where reasoning-gym is not installed.
    """
    found = {problem.question: problem for problem in _all_of(split)}
    return list(found.values())[:SIZE]


def _all_of(split: str) -> Iterator[Problem]:
    rows = Rows(split, SEEDS[split], 2 * FOLDS * SIZE)
    for index, row in enumerate(rows):
        where = f"{NAME}, row {index + 1}"
        yield read_problem(row, find_layout(row, where), f"{NAME}/{split}/{index}", NAME, where)


def _reasoning_gym() -> Any:
    try:
        with warnings.catch_warnings():  # a package that it needs is compiled with some
            warnings.simplefilter("ignore", SyntaxWarning)
            import reasoning_gym
    except ImportError as error:
        raise PSRError(f"{NAME}: {error.name} is not installed; pip install -e '.[gym]'") from None
    return reasoning_gym
