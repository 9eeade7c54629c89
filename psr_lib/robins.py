"""A round robin among the candidates of one step: verdicts, scores (Eq. 2), and what they show.

Nothing here asks a model; `judge.py` does, and fills these in.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from psr_lib.records import PSRError

FREE_JUDGES = ("random", "oracle")  # they ask no model
SCORINGS = ("ordered", "both_slots", "single_order", "agreement")
SLOTS = {"both_slots": 2}  # wins that one opponent can give; elsewhere one
Answer = Callable[[int, int], str | None]


@dataclass(frozen=True)
class Verdict:
    """The answer to a call: `A`, `B` or None if unreadable, the explanation and its cost."""

    answer: str | None
    explanation: str = ""
    tokens: int = 0
    prompt_tokens: int = 0
    finish: str = "stop"


@dataclass(frozen=True)
class RoundRobin:
    """Scores of the candidates in order, and the verdict of every distinct ordered pair asked.

    `verdicts` maps candidate indices (i in slot A, j in slot B; the first of equal texts stands for
    all of them) to verdicts. `calls` counts the ordered pairs that the scores cover, `made` the
    calls that this ranking added to those already remembered; `judged` and `prefill` are the tokens
    that these wrote and read.
    """

    scores: tuple[int, ...]
    verdicts: dict[tuple[int, int], Verdict]
    calls: int
    made: int
    judged: int = 0
    prefill: int = 0

    @property
    def overflow(self) -> bool:
        """Whether a prompt of the judge was longer than the context."""
        return any(v.finish == "overflow" for v in self.verdicts.values())

    def rows(self) -> list[dict[str, Any]]:
        """The verdicts as plain rows for a file."""
        return [{"a": i, "b": j, **vars(v)} for (i, j), v in sorted(self.verdicts.items())]


def ordered_pairs(width: int, scoring: str) -> list[tuple[int, int]]:
    """Which (slot A, slot B) pairs are judged.

    `single_order` shows the earlier candidate in slot A only; the others show all w (w - 1).
    """
    if scoring not in SCORINGS:
        raise PSRError(f"judge: no scoring {scoring!r}; choose one of {list(SCORINGS)}")
    pairs = [(i, j) for i in range(width) for j in range(width) if i != j]
    return [(i, j) for i, j in pairs if i < j] if scoring == "single_order" else pairs


def tally(width: int, scoring: str, answer: Answer) -> tuple[int, ...]:
    """Wins of each candidate (Eq. 2).

    `ordered`: i wins against j iff the verdict is A with i in slot A, the paper's O(i, j).
    `both_slots` and `single_order` also count a win in slot B. `agreement`: i wins against j iff it
    does so in both slots, so a disagreement is a tie. An unreadable verdict is no win for either.
    """
    scores = [0] * width
    for i, j in ordered_pairs(width, scoring):
        verdict = answer(i, j)
        if verdict == "A" and (scoring != "agreement" or answer(j, i) == "B"):
            scores[i] += 1
        elif verdict == "B" and scoring in ("both_slots", "single_order"):
            scores[j] += 1
    return tuple(scores)


def settled(texts: Sequence[str], scoring: str, known: dict[tuple[int, int], str | None]) -> bool:
    """Whether no missing verdict can change which text is best and which is worst.

    `known` holds the answers so far by candidate indices. Both places must be won outright: where
    two texts may end level, the pick among them needs all verdicts.
    """
    width, lowest = len(texts), tally(len(texts), scoring, lambda i, j: known.get((i, j)))

    def most(k: int) -> int:
        """Wins of k if every missing verdict went its way."""
        hoped = lambda i, j: known.get((i, j), "A" if i == k else "B" if j == k else None)  # noqa: E731
        return tally(width, scoring, hoped)[k]

    highest = [most(k) for k in range(width)]
    best = max(range(width), key=lowest.__getitem__)
    worst = min(range(width), key=highest.__getitem__)
    return all(
        (texts[k] == texts[best] or highest[k] < lowest[best])
        and (texts[k] == texts[worst] or lowest[k] > highest[worst])
        for k in range(width)
    )


def verdict_counts(robin: RoundRobin) -> Counter:
    """What one round robin adds to the counts behind `verdict_rates`."""
    between = [v.answer for (i, j), v in robin.verdicts.items() if i != j and v.answer]
    swaps = _swaps(robin)
    return Counter(
        calls=robin.calls,
        made=robin.made,
        verdicts=len(robin.verdicts),
        unreadable=sum(v.answer is None for v in robin.verdicts.values()),
        between=len(between),
        first=between.count("A"),
        swaps=len(swaps),
        consistent=sum(one != two for one, two in swaps),
        ranked=bool(robin.scores),
        tied=bool(robin.scores) and max(robin.scores) == min(robin.scores),
        tokens=robin.judged,
    )


def verdict_rates(n: Counter) -> dict[str, float | int]:
    """Calls covered and made, and rates over the distinct verdicts.

    `first_position` is the share of A among readable verdicts (self-pairs left out, where nothing
    but the slot differs); `unreadable` counts all verdicts; `consistency` is the share of unordered
    pairs, judged readably in both orders, in which the same step wins twice.
    """
    return {
        "calls": n["calls"],
        "made": n["made"],
        "first_position": n["first"] / max(1, n["between"]),
        "unreadable": n["unreadable"] / max(1, n["verdicts"]),
        "consistency": n["consistent"] / max(1, n["swaps"]),
        "ties": n["tied"] / max(1, n["ranked"]),
        "tokens": n["tokens"],
    }


def _swaps(robin: RoundRobin) -> list[tuple[str, str]]:
    """Readable answers of both orders of each pair of candidates."""
    pairs = [(i, j) for i, j in robin.verdicts if i < j and (j, i) in robin.verdicts]
    answers = [(robin.verdicts[i, j].answer, robin.verdicts[j, i].answer) for i, j in pairs]
    return [(one, two) for one, two in answers if one and two]
