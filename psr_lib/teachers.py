"""Teachers that write the data for M1: IFT (solutions in steps) and EFT (judged pairs of steps).

The `oracle` teacher of the small laboratory plays the part that OpenAI o1 has in the paper (section
3.2). It builds pairs directly: the right next step beside a wrong one, each wrong in a named way.

>>> row = eft_rows(1, seed=0, taken=set())[0]
>>> problems.oracle_verdict(row.question, row.prefix, row.step_a, row.step_b) == row.better
True
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from psr_lib import authors, problems
from psr_lib.problems import LEVELS, Puzzle, make_puzzle
from psr_lib.records import IFTExample, JudgeExample, PSRError, Question, seed_of
from psr_lib.reviews import explain

LOOP_LEVELS = tuple(level for level in LEVELS if level != "longer")  # what the loop's questions ask
LOOP_SHARES = dict.fromkeys(LOOP_LEVELS, 1.0)


def ift_rows(
    size: int, seed: int, taken: set[str], shares: Mapping[str, float], name: str = "ift"
) -> list[IFTExample]:
    """Right step-by-step solutions, levels in the given shares; grows `taken` by its questions.

    The shares decide what M1 is shown, and so how much is left for the self-rewarding rounds.
    """
    rng = random.Random(seed_of(name, seed))
    levels = _spread(shares, size, rng)
    return [
        IFTExample(id=f"{name}/{i}", problem_id=f"{name}/{level}/{i}", question=puzzle.text(),
                   steps=puzzle.solution(), meta={"level": level})
        for i, (level, puzzle) in enumerate(_fresh(levels, rng, taken))
    ]  # fmt: skip


def eft_rows(
    size: int, seed: int, taken: set[str], shares: Mapping[str, float] = LOOP_SHARES,
    name: str = "eft",
) -> list[JudgeExample]:  # fmt: skip
    """Judged pairs; the better step is A in just half of them, order at random.

    `shares` say how often each level is drawn; by default as often as the loop's questions.
    """
    rng = random.Random(seed_of(name, seed))
    _check_levels("eft_shares", shares)
    places = ["A", "B"] * (size // 2 + 1)
    places = places[:size]
    rng.shuffle(places)
    rows: list[JudgeExample] = []
    for level, puzzle in _fresh(_endless(shares, rng), rng, taken):
        row = _judged(puzzle, level, places[len(rows)], f"{name}/{len(rows)}", rng)
        rows += [row] if row else []
        if len(rows) == size:
            return rows
    return rows


def _judged(
    puzzle: Puzzle, level: str, better: str, name: str, rng: random.Random
) -> JudgeExample | None:
    """One pair at a random place of a puzzle; now and then after a wrong step, as in a search."""
    steps = puzzle.solution() if rng.random() < 0.8 else authors.solve(puzzle, rng)
    prefix = steps[: rng.randrange(len(steps))]
    right = problems.next_step(puzzle, prefix)
    wrong = authors.wrong_step(puzzle, prefix, rng) if right else None
    if right is None or wrong is None:
        return None
    step_a, step_b = (right, wrong[0]) if better == "A" else (wrong[0], right)
    return JudgeExample(
        id=name, problem_id=f"{name}/{level}", question=puzzle.text(), prefix=prefix,
        step_a=step_a, step_b=step_b, better=better,
        explanation=explain(right, step_a, step_b, better), meta={"level": level, "flaw": wrong[1]},
    )  # fmt: skip


def question_pools(
    sizes: Sequence[int], seed: int, taken: set[str], levels: Sequence[str] = LOOP_LEVELS
) -> list[list[Question]]:
    """One pool of questions for each round, disjoint from each other and from all in `taken`."""
    pools = []
    for index, size in enumerate(sizes):
        made = problems.make_problems(f"round{index + 2}", levels, size, seed, taken)
        pools.append([problem.ask() for problem in made])
    return pools


def fresh_puzzles(
    name: str, size: int, seed: int, taken: set[str], shares: Mapping[str, float]
) -> Iterator[tuple[str, Puzzle]]:
    """`size` new puzzles with their levels, drawn in the given shares; grows `taken`."""
    rng = random.Random(seed_of(name, seed))
    _check_levels("eft_shares", shares)
    return islice(_fresh(_endless(shares, rng), rng, taken), size)


def _fresh(
    levels: Iterator[str] | Sequence[str], rng: random.Random, taken: set[str]
) -> Iterator[tuple[str, Puzzle]]:
    """A new puzzle for each level named."""
    for level in levels:
        puzzle = make_puzzle(LEVELS[level], rng)
        while puzzle.text() in taken:
            puzzle = make_puzzle(LEVELS[level], rng)
        taken.add(puzzle.text())
        yield level, puzzle


def _endless(shares: Mapping[str, float], rng: random.Random) -> Iterator[str]:
    while True:
        yield from rng.choices(list(shares), list(shares.values()), k=100)


def _check_levels(setting: str, shares: Mapping[str, float]) -> None:
    unknown = sorted(set(shares) - set(LEVELS))
    if unknown or not sum(shares.values()):
        raise PSRError(f"data.{setting}: unknown {unknown}; choose from {sorted(LEVELS)}")


def _spread(shares: Mapping[str, float], size: int, rng: random.Random) -> list[str]:
    """`size` level names in the given shares, shuffled."""
    _check_levels("ift_shares", shares)
    total, names = sum(shares.values()), []
    for level, share in shares.items():
        names += [level] * round(size * share / total)
    names = (names + [max(shares, key=shares.__getitem__)] * size)[:size]
    rng.shuffle(names)
    return names
