"""Pairwise verdicts in both orders, and what they say about the judge (paper section 5.2, Table 6).

The paper defines neither "consistency" nor "agreement". Here every pair is asked as (a, b) and as
(b, a), and an unreadable verdict counts against the judge in both:

- consistency: the same step wins in both orders;
- agreement: verdicts that name the labelled step, over both orders. A pair whose orders disagree is
  a tie, and gets half a point; `strict` gives it none;
- first_position: A among the readable verdicts; unreadable: of all; ties: pairs whose orders
  readably disagree.

Beside the judge stand null judges that read nothing: `first`, `longer`, `shorter` and `random`.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from psr_lib.records import JudgeExample, Question, seed_of
from psr_lib.shares import Share, share
from psr_lib.traces import Expansion, SearchTrace

OTHER = {"A": "B", "B": "A"}
Label = Callable[[Question, list[str], str, str], str | None]


@dataclass(frozen=True, kw_only=True)
class PairRow:
    """A pair of next steps with its verdicts: the slot that wins, None where unreadable.

    `forward` was asked with a in slot A, `swapped` with b in slot A. `better` is `A` for a, `B` for
    b, None where no label decides.
    """

    id: str
    problem_id: str
    source: str
    a: str
    b: str
    better: str | None
    forward: str | None
    swapped: str | None

    @property
    def winners(self) -> tuple[str | None, str | None]:
        """Who wins in each order: `A` for a, `B` for b, None where unreadable."""
        return self.forward, OTHER.get(self.swapped or "")

    @property
    def right(self) -> int:
        """How many of the two verdicts name the labelled step."""
        return sum(winner == self.better for winner in self.winners) if self.better else 0

    @property
    def consistent(self) -> bool:
        """Whether the same step wins in both orders."""
        first, second = self.winners
        return first is not None and first == second

    @property
    def tied(self) -> bool:
        """Whether both orders are readable and disagree."""
        first, second = self.winners
        return first is not None and second is not None and first != second


def pair_rows(
    examples: Iterable[JudgeExample],
    forward: Iterable[str | None],
    swapped: Iterable[str | None],
    source: str = "",
) -> list[PairRow]:
    """Rows of labelled pairs; the source is the example's own where none is given."""
    return [
        PairRow(id=e.id, problem_id=e.problem_id, source=source or e.meta["source"], a=e.step_a,
                b=e.step_b, better=e.better, forward=one, swapped=two)
        for e, one, two in zip(examples, forward, swapped, strict=True)
    ]  # fmt: skip


def flipped(example: JudgeExample) -> JudgeExample:
    """The same pair with its steps in each other's slot."""
    return replace(example, step_a=example.step_b, step_b=example.step_a,
                   better=OTHER[example.better])  # fmt: skip


def sibling_rows(
    traces: Iterable[SearchTrace], source: str, label: Label | None = None
) -> list[PairRow]:
    """The judge's own verdicts on the siblings of its searches: unequal texts, both orders asked.

    `label` says which of two steps is right, or None; without it there is no agreement to measure.
    """
    return [
        row
        for trace in traces
        for e in trace.expansions
        for row in _siblings(trace, e, source, label)
    ]


def _siblings(trace: SearchTrace, e: Expansion, source: str, label: Label | None) -> list[PairRow]:
    texts, found, rows = [c.text for c in e.candidates if c.valid], e.robin.verdicts, []
    for i, j in sorted(found):
        if i < j and (j, i) in found and texts[i] != texts[j]:
            better = label(trace.question, e.prefix, texts[i], texts[j]) if label else None
            rows.append(PairRow(
                id=f"{trace.question.id}#{e.depth}.{e.attempt}/{i}-{j}",
                problem_id=trace.question.id, source=source, a=texts[i], b=texts[j], better=better,
                forward=found[i, j].answer, swapped=found[j, i].answer,
            ))  # fmt: skip
    return rows


def search_ties(traces: Iterable[SearchTrace]) -> Share:
    """Share of the search's expansions whose best and worst score are equal."""
    rows = [(e.tie, trace.question.id) for trace in traces for e in trace.expansions]
    return share([tie for tie, _ in rows], [1] * len(rows), [name for _, name in rows])


Blind = Callable[[PairRow, str, str, int], str]  # row, text in slot A, in slot B, which order


def _first(row: PairRow, a: str, b: str, order: int) -> str:
    return "A"


def _longer(row: PairRow, a: str, b: str, order: int) -> str:
    return "A" if len(a) >= len(b) else "B"


def _shorter(row: PairRow, a: str, b: str, order: int) -> str:
    return "A" if len(a) <= len(b) else "B"


def _random(row: PairRow, a: str, b: str, order: int) -> str:
    return random.Random(seed_of("null", row.source, row.id, order)).choice("AB")


NULLS: Mapping[str, Blind] = {
    "first": _first, "longer": _longer, "shorter": _shorter, "random": _random,
}  # fmt: skip


def null_rows(rows: Sequence[PairRow], name: str) -> list[PairRow]:
    """The same pairs as a null judge decides them; texts of equal length go to slot A."""
    blind = NULLS[name]
    return [
        replace(row, forward=blind(row, row.a, row.b, 0), swapped=blind(row, row.b, row.a, 1))
        for row in rows
    ]


def pair_shares(rows: Sequence[PairRow]) -> dict[str, Share]:
    """Each measure of the head of this file, with its interval over problems."""
    names, calls = [row.problem_id for row in rows], [(row.forward, row.swapped) for row in rows]
    labelled, ones = [row.better is not None for row in rows], [1] * len(rows)
    return {
        "agreement": share([row.right for row in rows], [2 * known for known in labelled], names),
        "strict": share([row.right == 2 for row in rows], labelled, names),
        "consistency": share([row.consistent for row in rows], ones, names),
        "first_position": share([pair.count("A") for pair in calls],
                                [2 - pair.count(None) for pair in calls], names),
        "unreadable": share([pair.count(None) for pair in calls], [2] * len(rows), names),
        "ties": share([row.tied for row in rows], ones, names),
    }  # fmt: skip
