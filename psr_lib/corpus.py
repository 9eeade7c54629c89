"""The pre-training corpus of the small laboratory: a stream of short documents.

- solve: a problem and a noisy author's solution. Teaches solving, rightly and wrongly.
- review: a problem, the steps so far, perhaps two proposals; then the right next step, perhaps with
  a coin-flip verdict. Teaches what a judge must recompute, and that verdicts exist, not how to give
  them.
- quote: two proposals, then their results. Teaches copying a number.
- compare: lines `201 = 202 no.` Teaches telling whether two numbers are equal.
- arithmetic: worked additions, subtractions, multiplications. Teaches columns and carries.
- shots: three or four reviews in a row. Teaches following examples.

No document compares proposals with the right step: joining the skills into a judge is left to EFT.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from psr_lib import authors, prompts
from psr_lib.problems import LEVELS, Puzzle, make_puzzle, next_step, work
from psr_lib.reviews import key

FAMILY = prompts.load("compact")


@dataclass(frozen=True)
class Mix:
    """How often each level and document comes; `proposals` is the share of reviews with two."""

    levels: Mapping[str, float]
    documents: Mapping[str, float]
    proposals: float


MIXES = {
    "broad": Mix(
        levels={"easy": 0.18, "words": 0.16, "big": 0.16, "distractor": 0.17, "start": 0.15,
                "long": 0.08, "mixed": 0.10},
        documents={"solve": 0.36, "review": 0.40, "quote": 0.06, "compare": 0.09,
                   "arithmetic": 0.05, "shots": 0.04},
        proposals=0.75,
    ),
    # The second part of the training: what is hard to recompute when a wrong proposal is in sight.
    "reviews": Mix(
        levels={"easy": 0.10, "words": 0.12, "big": 0.10, "distractor": 0.26, "start": 0.10,
                "long": 0.14, "mixed": 0.18},
        documents={"solve": 0.22, "review": 0.60, "quote": 0.05, "compare": 0.06,
                   "arithmetic": 0.03, "shots": 0.04},
        proposals=0.9,
    ),
}  # fmt: skip


def draw_puzzle(rng: random.Random, mix: Mix) -> Puzzle:
    """A puzzle of any level but `longer`, which stays unseen."""
    level = rng.choices(list(mix.levels), list(mix.levels.values()))[0]
    return make_puzzle(LEVELS[level], rng)


def documents(seed: int, mix: str = "broad") -> Iterator[str]:
    """An endless stream of documents, the same for the same seed and mix."""
    rng, chosen = random.Random(seed), MIXES[mix]
    makers = [MAKERS[name] for name in chosen.documents]
    while True:
        yield rng.choices(makers, list(chosen.documents.values()))[0](rng, chosen)


def solve_document(rng: random.Random, mix: Mix) -> str:
    puzzle = draw_puzzle(rng, mix)
    prompt = FAMILY.solve(puzzle.text(), authors.solve(puzzle, rng))
    return (prompt.user + prompt.assistant).rstrip("\n")


def review_document(
    rng: random.Random, mix: Mix, proposals: bool | None = None, verdict: bool | None = None
) -> str:
    """A review that writes the right next step; after proposals perhaps a coin-flip verdict."""
    proposals = rng.random() < mix.proposals if proposals is None else proposals
    verdict = rng.random() < 0.5 if verdict is None else verdict
    puzzle, prefix, right = reviewed(rng, mix)
    if not proposals:
        head = FAMILY.judge(puzzle.text(), prefix, "", "").user.split("A: ")[0] + "Review:"
        return f"{head} {right}"
    a, b = two_steps(puzzle, prefix, right, rng)
    head = FAMILY.judge(puzzle.text(), prefix, a, b).user
    return f"{head} {right}" + (f" {rng.choice(['[[A]]', '[[B]]'])}" if verdict else "")


def reviewed(rng: random.Random, mix: Mix) -> tuple[Puzzle, list[str], str]:
    """A puzzle, steps so far (right ones, or a noisy author's) and the right next step."""
    while True:
        puzzle = draw_puzzle(rng, mix)
        steps = puzzle.solution() if rng.random() < 0.7 else authors.solve(puzzle, rng)
        prefix = steps[: rng.randrange(len(steps))]
        right = next_step(puzzle, prefix)
        if right is not None:
            return puzzle, prefix, right


def two_steps(puzzle: Puzzle, prefix: list[str], right: str, rng: random.Random) -> list[str]:
    """Two proposals for the next step in random order: mostly the right one and a wrong one."""
    wrong = authors.wrong_step(puzzle, prefix, rng)
    other = authors.wrong_step(puzzle, prefix, rng) if rng.random() < 0.15 else None
    pair = [other[0] if other else right, wrong[0] if wrong else right]
    rng.shuffle(pair)
    return pair


def shots_document(rng: random.Random, mix: Mix) -> str:
    """Several reviews of one form in a row, so that the base model can follow examples."""
    return "\n\n".join(review_document(rng, mix, True, True) for _ in range(rng.randint(3, 4)))


def quote_document(rng: random.Random, mix: Mix) -> str:
    puzzle, prefix, right = reviewed(rng, mix)
    first, second = two_steps(puzzle, prefix, right, rng)
    return f"A: {first}\nB: {second}\nQuote: A: {key(first)}. B: {key(second)}."


def compare_document(rng: random.Random, _: Mix) -> str:
    return "\n".join(_comparison(rng) for _ in range(8))


def _comparison(rng: random.Random) -> str:
    left = str(rng.randint(0, 99) if rng.random() < 0.6 else rng.randint(100, 999))
    right = left if rng.random() < 0.5 else _near(left, rng)
    ends = [rng.choice(["", "", " end"])] * 2
    if rng.random() < 0.15:
        ends = rng.choice([["", " end"], [" end", ""]])
    left, right = left + ends[0], right + ends[1]
    name = rng.choice(["", "A: ", "B: "])
    return f"{name}{left} = {right} {'yes' if left == right else 'no'}."


def _near(number: str, rng: random.Random) -> str:
    """Another number: one digit changed, or the carry forgotten, or any."""
    if rng.random() < 0.3:
        return str(rng.randint(0, 999))
    place = rng.randrange(len(number))
    changed = rng.choice([d for d in "0123456789" if d != number[place]])
    return str(int(number[:place] + changed + number[place + 1 :]))


def arithmetic_document(rng: random.Random, _: Mix) -> str:
    return "\n".join(_sum(rng) for _ in range(3))


def _sum(rng: random.Random) -> str:
    sign, top = rng.choice("++--*"), 99 if rng.random() < 0.5 else 999
    a = rng.randint(1, top if sign != "*" else min(top, 199))
    b = rng.randint(2, 5) if sign == "*" else rng.randint(1, a if sign == "-" else top)
    lines, result = work(a, sign, b)
    return f"{a} {sign} {b}: {', '.join(lines)}, so {result}."


MAKERS = {"solve": solve_document, "review": review_document, "quote": quote_document,
          "compare": compare_document, "arithmetic": arithmetic_document,
          "shots": shots_document}  # fmt: skip
