"""Pools that share no question, and no question of a benchmark (n-gram decontamination).

The paper says nothing of either; its sources hold competition problems, so overlap is likely. A
problem goes if it repeats one that was taken before, or if any run of `ngram` tokens stands in a
benchmark's question too. Every removal is kept with its reason.

>>> screen = Screen({"gsm8k/0": "Tom has 4 pens and buys 3 more pens. How many now?"}, ngram=6)
>>> problem = Problem(id="a/0", source="a", question="Ann: Tom has 4 pens and buys 9.", answer="")
>>> screen.takes(problem), screen.removed[0]["shared"]
(False, 'tom has 4 pens and buys')
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from psr_lib.records import Problem

TOKEN = re.compile(r"[^\W_]+|[+\-*/=<>^%]")
SPACING = re.compile(r"\\(?:left|right|displaystyle|[,;:! ])|[\s$]+")


def normal(text: str) -> str:
    """A question without blanks, case, dollar signs and LaTeX's spacing: equal means repeated."""
    return SPACING.sub("", text).casefold().rstrip(".?!")


def tokens(text: str) -> list[str]:
    """Words, numbers and operators in lower case; other punctuation is no token."""
    return TOKEN.findall(text.casefold())


def runs(text: str, size: int) -> Iterator[str]:
    """Every run of `size` tokens; of a shorter text, the whole of it."""
    found = tokens(text)
    for start in range(max(1, len(found) - size + 1)):
        yield " ".join(found[start : start + size])


class Screen:
    """Takes each question once, and none of a benchmark."""

    def __init__(self, benchmarks: Mapping[str, str], ngram: int):
        """`benchmarks`: question by id; `ngram` in tokens, 0 compares whole questions only."""
        self.ngram = ngram
        self.removed: list[dict[str, Any]] = []
        self.looked_at = 0
        self._taken: dict[str, str] = {}
        self._tested = {normal(text): name for name, text in benchmarks.items()}
        self._runs = {
            run: name for name, text in benchmarks.items() if ngram for run in runs(text, ngram)
        }

    def takes(self, problem: Problem) -> bool:
        """Whether a problem may be used; if so no other may repeat it."""
        self.looked_at += 1
        key = normal(problem.question)
        found = ("duplicate", self._taken[key], "") if key in self._taken else None
        found = found or self.tested(problem.question)
        if found:
            row = dict(zip(("id", "reason", "of", "shared"), (problem.id, *found), strict=True))
            self.removed.append({**row, "question": problem.question})
            return False
        self._taken[key] = problem.id
        return True

    def tested(self, question: str) -> tuple[str, str, str] | None:
        """The reason why a question is a benchmark's, whose it is, what both share; None if not."""
        if of := self._tested.get(normal(question)):
            return "benchmark", of, ""
        for run in runs(question, self.ngram) if self.ngram else ():
            if run in self._runs:
                return "benchmark n-gram", self._runs[run], run
        return None

    def counts(self) -> dict[str, int]:
        """Questions looked at, and removed for each reason."""
        found = Counter(row["reason"] for row in self.removed)
        names = {"duplicate": "removed_duplicates", "benchmark": "removed_benchmark",
                 "benchmark n-gram": "removed_ngram"}  # fmt: skip
        return {"looked_at": self.looked_at, **{names[r]: found[r] for r in names}}
