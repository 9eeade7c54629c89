"""What every display marks: whether a step is right, by the oracle, and which words differ.

>>> [word for word, same in differing("so 85.", "so 75.") if not same]
['85']
"""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache

from psr_lib import problems
from psr_lib.markup import Html, chip, join, tag
from psr_lib.records import PSRError

WORDS = re.compile(r"\\?\w+|\s+|[^\w\s]")
LONG = 240  # characters of a step that are shown before the rest is folded


@lru_cache(maxsize=256)
def has_oracle(question: str) -> bool:
    """Whether this is a problem of the laboratory, whose every step can be checked."""
    try:
        puzzle = problems.parse(question)
        return bool(puzzle.path()) and puzzle.text() == question and bool(puzzle.solution())
    except (PSRError, KeyError, ValueError):
        return False


def truth(question: str, prefix: Sequence[str], step: str) -> bool | None:
    """Whether a step is right after this prefix; None where nothing can tell."""
    return problems.is_right(question, prefix, step) if has_oracle(question) else None


def count(number: int, name: str) -> str:
    """A number of things.

    >>> count(1, "win"), count(3, "win")
    ('1 win', '3 wins')
    """
    return f"{number} {name}{'' if number == 1 else 's'}"


def truths(question: str, steps: Sequence[str]) -> list[bool | None]:
    """`truth` of every step of a solution."""
    return [truth(question, steps[:k], step) for k, step in enumerate(steps)]


def word(right: bool | None) -> str:
    """A verdict of the oracle in text, '' where there is none."""
    return {True: "✓ right", False: "✗ wrong", None: ""}[right]


def badge(right: bool | None) -> Html:
    """A verdict of the oracle as a chip, nothing where there is none."""
    kind = "right" if right else "wrong"
    return join([" ", chip(word(right), kind, "by the oracle")]) if right is not None else Html()


def differing(text: str, other: str) -> list[tuple[str, bool]]:
    """The words and signs of a text, and whether each stands in the other text too, in order."""
    mine, theirs = WORDS.findall(text), WORDS.findall(other)
    same = [False] * len(mine)
    for block in SequenceMatcher(None, mine, theirs, autojunk=False).get_matching_blocks():
        same[block.a : block.a + block.size] = [True] * block.size
    return list(zip(mine, same, strict=True))


def marked(text: str, other: str, look: str) -> Html:
    """A text with what the other one lacks marked: `new` underlined in blue, `gone` in orange."""
    name = {"new": "ins", "gone": "del"}[look]
    return join(
        part if same or part.isspace() else tag(name, part, look=look)
        for part, same in differing(text, other)
    )


def clipped(text: str) -> tuple[str, str]:
    """The beginning of a long text, and the rest."""
    if len(text) <= LONG:
        return text, ""
    cut = text.rfind(" ", LONG // 2, LONG) + 1 or LONG
    return text[:cut], text[cut:]
