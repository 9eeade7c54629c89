"""From sibling pairs to EFT: initial filter, teacher, and the filters after it (paper section 3.2).

A pair (best and worst sibling by the PRM) is first filtered by form and duplicates, and by the
values of the solutions that they end, prefix included: the other must be worth less, and the better
one be among those that the PRM trusts most. By rank, as p(+) has another scale in every PRM.
The teacher then explains and judges it twice, each step once in slot A. It is kept only if both
verdicts name the same step, and that step is the PRM's. The paper names the filters and gives no
rate; every one is counted here.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from math import ceil
from typing import Any, Protocol

from psr_lib.engines.threads import each
from psr_lib.prompts import Family
from psr_lib.prompts.slots import VERDICT, plain
from psr_lib.records import JudgeExample, StepPair
from psr_lib.steps import body, number, split_steps

Check = Callable[[StepPair], bool | None]


@dataclass(frozen=True)
class Call:
    """One question to the teacher: a pair with one of its steps in slot A."""

    question: str
    prefix: tuple[str, ...]
    a: str
    b: str


@dataclass(frozen=True)
class Answer:
    """What the teacher wrote; `fault` says why there is no text."""

    text: str
    fault: str = ""

    @property
    def verdict(self) -> str | None:
        """`A`, `B`, or None where it can't be read."""
        return Family.verdict(self.text)

    @property
    def explanation(self) -> str:
        """The text up to its verdict, in which an explanation of EFT ends."""
        ends = [match.end() for match in VERDICT.finditer(self.text)]
        return self.text[: ends[-1] if ends else None].strip()


class Teacher(Protocol):
    """Whoever explains and judges; `concurrency` says how many calls it takes at once."""

    concurrency: int

    def answer(self, call: Call) -> Answer:
        """What it says; called by several threads. Raises PSRError where it cannot go on."""
        ...


@dataclass(frozen=True)
class Judged:
    """A pair with both answers: the PRM's better step in slot A, then in slot B."""

    pair: StepPair
    first: Answer
    second: Answer

    @property
    def readable(self) -> bool:
        """Whether both verdicts can be read."""
        return None not in (self.first.verdict, self.second.verdict)

    @property
    def consistent(self) -> bool:
        """Whether both verdicts name the same step."""
        return self.readable and self.first.verdict != self.second.verdict

    @property
    def agrees(self) -> bool:
        """Whether that step is the one that the PRM ranks first."""
        return self.consistent and self.first.verdict == "A"


class Funnel:
    """How many pairs are left after each filter, and of those how many the oracle confirms."""

    def __init__(self, oracle: Check | None = None):
        """`oracle` says whether a pair's order is right; without one nothing is said of it."""
        self.oracle = oracle
        self.rows: list[dict[str, Any]] = []

    def add(self, name: str, pairs: Sequence[StepPair]) -> None:
        """The pairs that are left after the filter `name`; the first call is what comes in."""
        first, before = (self.rows[k]["pairs"] if self.rows else len(pairs) for k in (0, -1))
        row = {"filter": name, "pairs": len(pairs), "kept": _share(len(pairs), before)}
        row["of_all"] = _share(len(pairs), first)
        if self.oracle:
            right = sum(bool(self.oracle(pair)) for pair in pairs)
            row |= {"confirmed": right, "confirmed_share": _share(right, len(pairs))}
        self.rows.append(row)


def initial_filter(
    pairs: Sequence[StepPair], min_gap: float, best_share: float, funnel: Funnel
) -> list[StepPair]:
    """The paper's "initial data filtering", which it does not describe.

    By form, by duplicates, by the gap in value (in p(+)) of the solutions that the two steps end,
    and by the value of the better one: the highest `best_share` of what is left, and equals.
    """
    funnel.add("sibling pairs", pairs)
    formed = [pair for pair in pairs if well_formed(pair)]
    funnel.add("well formed", formed)
    first = {_content(pair): pair for pair in reversed(formed)}
    single = [pair for pair in formed if first[_content(pair)] is pair]
    funnel.add("no duplicate", single)
    apart = [pair for pair in single if gap(pair) >= min_gap]
    funnel.add(f"gap of value at least {min_gap:g}", apart)
    best = most_valuable(apart, best_share)
    funnel.add(f"best {best_share:.0%} by value", best)
    return best


def most_valuable(pairs: Sequence[StepPair], share: float) -> list[StepPair]:
    """This share of the pairs, rounded up: those whose better solution has the highest value."""
    values = sorted((pair.meta["v_chosen"] for pair in pairs), reverse=True)
    wanted = ceil(share * len(values))
    return [pair for pair in pairs if pair.meta["v_chosen"] >= values[wanted - 1]]


def well_formed(pair: StepPair) -> bool:
    """Whether both steps are one step each, with the next number and a body, and differ.

    And nothing that the judge would see holds a verdict mark, which is the judge's to write.
    """
    steps, depth = (pair.chosen, pair.rejected), len(pair.prefix) + 1
    plain = {" ".join(body(step).split()) for step in steps}
    marked = any(VERDICT.search(text) for text in (pair.question, *pair.prefix, *steps))
    return (len(plain) == 2 and not marked) and all(
        number(s) == depth and len(split_steps(s)) == 1 and body(s) for s in steps
    )


def gap(pair: StepPair) -> float:
    """Value of the solution that the better step ends minus that of the other, in p(+)."""
    return pair.meta["v_chosen"] - pair.meta["v_rejected"]


def _content(pair: StepPair) -> tuple[Any, ...]:
    """What two equal pairs have in common, whatever their order."""
    both = frozenset(" ".join(step.split()) for step in (pair.chosen, pair.rejected))
    return pair.question, tuple(pair.prefix), both


def calls_of(pair: StepPair) -> tuple[Call, Call]:
    """The pair in both orders, the PRM's better step in slot A first."""
    shared = pair.question, tuple(pair.prefix)
    return Call(*shared, pair.chosen, pair.rejected), Call(*shared, pair.rejected, pair.chosen)


def annotate(
    pairs: Sequence[StepPair],
    teacher: Teacher,
    progress: Callable[[int, Call, Answer], None] = lambda done, call, answer: None,
) -> list[Judged]:
    """The teacher's answers to every pair in both orders.

    Raises PSRError where the teacher stops.
    """
    calls = dict.fromkeys(call for pair in pairs for call in calls_of(pair))
    found: dict[Call, Answer] = {}

    def keep(done: tuple[Call, Answer]) -> None:
        found[done[0]] = done[1]
        progress(len(found), *done)

    each(calls, lambda call: (call, teacher.answer(call)), keep, teacher.concurrency)
    return [Judged(pair, *(found[call] for call in calls_of(pair))) for pair in pairs]


def faults(judged: Iterable[Judged]) -> Counter:
    """How often an answer had no verdict, by the reason."""
    answers = (answer for row in judged for answer in (row.first, row.second))
    return Counter(
        answer.fault.partition(":")[0] or "no verdict"
        for answer in answers
        if answer.verdict is None
    )


def final_filters(judged: Sequence[Judged], funnel: Funnel) -> list[Judged]:
    """Both verdicts readable, consistent over the orders, and in agreement with the PRM."""
    for name, test in (
        ("both verdicts readable", lambda row: row.readable),
        ("both orders agree", lambda row: row.consistent),
        ("agrees with the PRM", lambda row: row.agrees),
    ):
        judged = [row for row in judged if test(row)]
        funnel.add(name, [row.pair for row in judged])
    return list(judged)


def eft_rows(
    judged: Sequence[Judged], name: str, size: int, orders: str, place: Callable[[int], str]
) -> list[JudgeExample]:
    """EFT rows of kept pairs, at most `size`: in one order (`place` of the k-th) or in both."""
    slots = ("A", "B") if orders == "both" else (None,)
    rows = ((row, slot or place(k)) for k, row in enumerate(judged) for slot in slots)
    return [_example(row, slot, f"{name}/{k}") for k, (row, slot) in enumerate(islice(rows, size))]


def _example(row: Judged, better: str, name: str) -> JudgeExample:
    pair, answer = row.pair, row.first if better == "A" else row.second
    step_a, step_b = (pair.chosen, pair.rejected)[:: 1 if better == "A" else -1]
    return JudgeExample(
        id=name, problem_id=pair.problem_id, question=pair.question, prefix=pair.prefix,
        step_a=step_a, step_b=step_b, better=better, explanation=answer.explanation,
        meta={"pair": pair.id, "gap": gap(pair)},
    )  # fmt: skip


def judge_prompt(family: Family, call: Call) -> str:
    """The judge's prompt of a call (paper Fig. 5), for a server whose tokenizer is not known."""
    return plain(None, family.judge(call.question, call.prefix, call.a, call.b).user)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
