"""Pairwise judging of next steps, and the round robin's scores (paper section 3.3, Eq. 2).

A call shows the judge an ordered pair: step A and step B after one question and prefix. Under a
deterministic judge equal calls have equal verdicts, so each distinct call is made once and the
scores over all w (w - 1) ordered pairs are computed from those: the same numbers for less work.
Two identical candidates face each other too, which takes the verdict of a step against itself.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from psr_lib.engines.base import Engine
from psr_lib.prompts import VERDICT, Family
from psr_lib.records import JudgeExample, PSRError, Question, seed_of

KINDS = ("self", "random", "oracle")
SCORINGS = ("ordered", "both_slots", "single_order")
Oracle = Callable[[Question, list[str], str, str], str | None]


@dataclass(frozen=True)
class Call:
    """One question to the judge; `draw` tells repeated calls of a sampling judge apart."""

    question: Question
    prefix: tuple[str, ...]
    a: str
    b: str
    draw: tuple[int, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """The answer to a call: `A`, `B` or None if unreadable, the explanation and its cost."""

    answer: str | None
    explanation: str = ""
    tokens: int = 0
    prompt_tokens: int = 0
    finish: str = "stop"


@dataclass(frozen=True)
class Item:
    """Candidates for one next step, to be ranked."""

    question: Question
    prefix: tuple[str, ...]
    candidates: tuple[str, ...]
    attempt: int = 0


@dataclass(frozen=True)
class RoundRobin:
    """Scores of the candidates in order, and the verdict of every distinct ordered pair.

    `verdicts` maps candidate indices (i in slot A, j in slot B; the first of equal texts stands for
    all of them) to verdicts. `calls` counts the ordered pairs that the scores cover, `made` the
    calls that this ranking added to those already remembered.
    """

    scores: tuple[int, ...]
    verdicts: dict[tuple[int, int], Verdict]
    calls: int
    made: int

    @property
    def overflow(self) -> bool:
        """Whether a prompt of the judge was longer than the context."""
        return any(v.finish == "overflow" for v in self.verdicts.values())

    def rows(self) -> list[dict[str, Any]]:
        """The verdicts as plain rows for a file."""
        return [{"a": i, "b": j, **asdict(v)} for (i, j), v in sorted(self.verdicts.items())]


def ordered_pairs(width: int, scoring: str) -> list[tuple[int, int]]:
    """Which (slot A, slot B) pairs are judged.

    `ordered` and `both_slots` show all w (w - 1); `single_order` the earlier candidate in slot A.
    """
    if scoring not in SCORINGS:
        raise PSRError(f"judge: no scoring {scoring!r}; choose one of {list(SCORINGS)}")
    pairs = [(i, j) for i in range(width) for j in range(width) if i != j]
    return [(i, j) for i, j in pairs if i < j] if scoring == "single_order" else pairs


def tally(width: int, scoring: str, answer: Callable[[int, int], str | None]) -> tuple[int, ...]:
    """Wins of each candidate (Eq. 2).

    `ordered`: i wins against j iff the verdict is A with i in slot A, the paper's O(i, j). The
    other two also count a win in slot B. An unreadable verdict is no win for either.
    """
    scores = [0] * width
    for i, j in ordered_pairs(width, scoring):
        verdict = answer(i, j)
        if verdict == "A":
            scores[i] += 1
        elif verdict == "B" and scoring != "ordered":
            scores[j] += 1
    return tuple(scores)


class Judge:
    """Answers calls and ranks candidates; remembers verdicts where they can't change.

    `settings` is the preset's `judge` block (temperature, top_p, max_tokens, kind). Kinds: `self`,
    the engine's own model; `random`, a fair coin fixed for each call; `oracle`, a given function.
    """

    def __init__(
        self,
        engine: Engine | None,
        family: Family,
        tokenizer: Any,
        settings: Any,
        *,
        seed: int = 0,
        scoring: str = "ordered",
        oracle: Oracle | None = None,
        shots: Sequence[JudgeExample] = (),
    ):
        if settings.kind not in KINDS:
            raise PSRError(f"judge: no kind {settings.kind!r}; choose one of {list(KINDS)}")
        if settings.kind == "oracle" and oracle is None:
            raise PSRError("judge: kind 'oracle' needs a function; pass oracle=...")
        ordered_pairs(0, scoring)
        self.engine, self.family, self.tokenizer = engine, family, tokenizer
        self.settings, self.seed, self.scoring = settings, seed, scoring
        self.oracle, self.shots = oracle, tuple(shots)
        self.memo: dict[Call, Verdict] = {}

    @property
    def repeatable(self) -> bool:
        """Whether equal calls have equal verdicts, so that one of them is enough."""
        return self.settings.kind != "self" or self.settings.temperature <= 0

    def ask(self, calls: Sequence[Call]) -> list[Verdict]:
        """Verdicts of the calls, in order; one engine call for all that are not known yet."""
        new = [call for call in dict.fromkeys(calls) if call not in self.memo]
        answer = {"self": self._read, "random": self._toss, "oracle": self._consult}
        found = dict(zip(new, answer[self.settings.kind](new), strict=True))
        if self.repeatable:
            self.memo.update(found)
        return [found[c] if c in found else self.memo[c] for c in calls]

    def rank(self, items: Sequence[Item], skip_unanimous: bool = False) -> list[RoundRobin]:
        """Round robin of every item's candidates, all items in one engine call.

        `skip_unanimous` makes no call where all candidates are equal: whatever the judge said, they
        would tie. Their scores are then recorded as zeros.
        """
        plans = [self._plan(item, skip_unanimous) for item in items]
        calls = [call for plan in plans for call in plan.values()]
        fresh = {call for call in calls if call not in self.memo}
        answers = dict(zip(calls, self.ask(calls), strict=True))
        results = []
        for item, plan in zip(items, plans, strict=True):
            made = fresh.intersection(plan.values())
            fresh -= made  # a call that two items share is made once
            results.append(self._result(item, plan, answers, len(made)))
        return results

    def _plan(self, item: Item, skip_unanimous: bool) -> dict[tuple[int, int], Call]:
        """The distinct calls of an item by the indices of the candidates that stand for them."""
        width = len(item.candidates)
        if skip_unanimous and len(set(item.candidates)) == 1:
            return {}
        plan = {}
        for i, j in ordered_pairs(width, self.scoring):
            key = self._key(item, i, j)
            a, b = item.candidates[key[0]], item.candidates[key[1]]
            draw = () if self.repeatable else (item.attempt, i, j)
            plan.setdefault(key, Call(item.question, item.prefix, a, b, draw))
        return plan

    def _key(self, item: Item, i: int, j: int) -> tuple[int, int]:
        """(i, j), or the first candidates with these texts where repeats need no call."""
        if not self.repeatable:
            return i, j
        return item.candidates.index(item.candidates[i]), item.candidates.index(item.candidates[j])

    def _result(self, item: Item, plan: dict, answers: dict, made: int) -> RoundRobin:
        verdicts = {key: answers[call] for key, call in plan.items()}

        def answer(i: int, j: int) -> str | None:
            found = verdicts.get(self._key(item, i, j))
            return found.answer if found else None

        width = len(item.candidates)
        covered = len(ordered_pairs(width, self.scoring)) if plan else 0
        return RoundRobin(tally(width, self.scoring, answer), verdicts, covered, made)

    def _read(self, calls: Sequence[Call]) -> list[Verdict]:
        if not calls:
            return []
        settings = self.settings
        found = self.engine.sample(
            [self.prompt(call) for call in calls],
            n=1,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=settings.max_tokens,
            stop=[] if self.family.chat else ["\n\n"],
            seeds=[self._seed(call) for call in calls],
        )
        return [self._verdict(completions[0]) for completions in found]

    def prompt(self, call: Call) -> str:
        """The model's input for a call. Verdict marks inside steps are defused: an explanation may
        quote a step, and a quoted `[[A]]` must not become the verdict."""
        prefix = [defuse(step) for step in call.prefix]
        a, b = defuse(call.a), defuse(call.b)
        prompt = self.family.judge(defuse(call.question.text), prefix, a, b, shots=self.shots)
        return self.family.render(self.tokenizer, prompt)

    def _verdict(self, c: Any) -> Verdict:
        answer = self.family.verdict(c.text)
        return Verdict(answer, c.text.strip(), c.tokens, c.prompt_tokens, c.finish)

    def _seed(self, call: Call) -> int:
        return seed_of(
            self.seed, "judge", call.question.id, *call.prefix, call.a, call.b, call.draw
        )

    def _toss(self, calls: Sequence[Call]) -> list[Verdict]:
        return [Verdict(random.Random(self._seed(call)).choice("AB")) for call in calls]

    def _consult(self, calls: Sequence[Call]) -> list[Verdict]:
        return [Verdict(self.oracle(c.question, list(c.prefix), c.a, c.b)) for c in calls]


def judge_pairs(
    engine: Engine | None,
    family: Family,
    tokenizer: Any,
    items: Sequence[Item],
    settings: Any,
    seed: int,
    *,
    scoring: str = "ordered",
    oracle: Oracle | None = None,
) -> list[RoundRobin]:
    """Round robins of many candidate sets at once, by a judge that is made for this call only."""
    judge = Judge(engine, family, tokenizer, settings, seed=seed, scoring=scoring, oracle=oracle)
    return judge.rank(items)


def defuse(text: str) -> str:
    """The text with `[[A]]` written as `(A)`."""
    return re.sub(VERDICT, r"(\1)", text)


def verdict_stats(robins: Sequence[RoundRobin]) -> dict[str, float | int]:
    """How the judge behaved: calls covered and made, and rates over the distinct verdicts.

    `first_position` is the share of A among readable verdicts (self-pairs left out, where nothing
    but the slot differs); `unreadable` counts all verdicts; `consistency` is the share of unordered
    pairs, judged readably in both orders, in which the same step wins twice.
    """
    verdicts = [v for robin in robins for v in robin.verdicts.values()]
    between = [v.answer for r in robins for (i, j), v in r.verdicts.items() if i != j and v.answer]
    swaps = [pair for robin in robins for pair in _swaps(robin)]
    return {
        "calls": sum(r.calls for r in robins),
        "made": sum(r.made for r in robins),
        "first_position": _share([a == "A" for a in between]),
        "unreadable": _share([v.answer is None for v in verdicts]),
        "consistency": _share([one != two for one, two in swaps]),
        "ties": _share([max(r.scores) == min(r.scores) for r in robins if r.scores]),
        "tokens": sum(v.tokens for v in verdicts),
    }


def _swaps(robin: RoundRobin) -> list[tuple[str, str]]:
    """Readable answers of both orders of each pair of candidates."""
    pairs = [(i, j) for i, j in robin.verdicts if i < j and (j, i) in robin.verdicts]
    answers = [(robin.verdicts[i, j].answer, robin.verdicts[j, i].answer) for i, j in pairs]
    return [(one, two) for one, two in answers if one and two]


def _share(flags: list[bool]) -> float:
    return sum(flags) / len(flags) if flags else 0.0
