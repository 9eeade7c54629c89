"""Pairwise judging of next steps (paper section 3.3, Eq. 2).

A call shows the judge an ordered pair: step A and step B after one question and prefix. Under a
deterministic judge equal calls have equal verdicts, so each distinct call is made once and the
scores over all w (w - 1) ordered pairs are computed from those: the same numbers for less work.
Two identical candidates face each other too, which takes the verdict of a step against itself.

A judge is registered under its name (`judge.kind`): a function of this judge and the calls to be
answered, which returns a verdict a call, or yields engine tasks on its way to them.

Cheaper ways that change the procedure (`judge.verdict`, `judge.votes`, `judge.early_stop`, scoring
`agreement`) are off by default; `agreement.py` measures what each of them changes.
"""

import random
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from psr_lib import registry
from psr_lib.engines.base import Engine
from psr_lib.engines.tasks import Choose, Sample, Task, alone
from psr_lib.prompts import Family
from psr_lib.prompts.slots import VERDICT, plain
from psr_lib.records import JudgeExample, PSRError, Question, seed_of
from psr_lib.registry import register
from psr_lib.robins import FREE_JUDGES, RoundRobin, Verdict, ordered_pairs, settled, tally

VERDICTS = ("written", "explained", "direct")
OPTIONS = (" [[A]]", " [[B]]")
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
class Item:
    """Candidates for one next step, to be ranked."""

    question: Question
    prefix: tuple[str, ...]
    candidates: tuple[str, ...]
    attempt: int = 0


class Judge:
    """Answers calls and ranks candidates; remembers verdicts where they can't change.

    `settings` is the preset's `judge` block. Kinds: `self`, the engine's own model; `random`, a
    fair coin fixed for each call; `oracle`, a given function; or one from outside. Verdicts:
    `written`, the mark that the explanation ends in; `explained`, the likelier mark after the
    explanation; `direct`, the likelier mark without any explanation.
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
        self.engine, self.family, self.tokenizer = engine, family, tokenizer
        self.settings, self.seed, self.scoring = settings, seed, scoring
        self.oracle, self.shots = oracle, tuple(shots)
        self.memo: dict[str, dict[Call, Verdict]] = {}
        # Found here and not when it is asked: the process it then may be in knows no extensions.
        self.verdicts = registry.find("judge", settings.kind)
        self._check()

    def _check(self) -> None:
        settings = self.settings
        if settings.verdict not in VERDICTS:
            raise PSRError(f"judge: no verdict {settings.verdict!r}; choose one of {VERDICTS}")
        if settings.kind == "oracle" and self.oracle is None:
            raise PSRError("judge: kind 'oracle' needs a function; pass oracle=...")
        if settings.votes > 1 and self.repeatable:
            raise PSRError(
                f"judge: {settings.votes} votes that can only be equal; set judge.votes to 1, or "
                "judge.temperature above 0 with judge.kind self"
            )
        ordered_pairs(0, self.scoring)

    @property
    def repeatable(self) -> bool:
        """Whether equal calls have equal verdicts, so that one of them is enough."""
        settings = self.settings
        drawn = settings.temperature > 0 and settings.verdict != "direct"
        return not self.asks_model or not drawn

    @property
    def asks_model(self) -> bool:
        """Whether verdicts come from the engine's model; of one from outside it is supposed."""
        return self.settings.kind not in FREE_JUDGES

    def ask(self, calls: Sequence[Call]) -> list[Verdict]:
        """Verdicts of the calls, in order; one engine call for all that are not known yet."""
        return alone(self.engine, self.asking(calls))

    def asking(self, calls: Sequence[Call]) -> Task:
        """`ask` as a task."""
        asked = {c: self._known(c) for c in dict.fromkeys(calls)}
        new = [call for call, verdict in asked.items() if verdict is None]
        known = {call: verdict for call, verdict in asked.items() if verdict is not None}
        known |= zip(new, (yield from self._vote(new)), strict=True)
        if self.repeatable:
            for call in new:
                self.memo.setdefault(call.question.id, {})[call] = known[call]
        return [known[call] for call in calls]

    def _known(self, call: Call) -> Verdict | None:
        return self.memo.get(call.question.id, {}).get(call)

    def forget(self, question: Question) -> None:
        """Drop the verdicts of a question that is finished; memory then follows the live ones."""
        self.memo.pop(question.id, None)

    def rank(self, items: Sequence[Item], skip_unanimous: bool = False) -> list[RoundRobin]:
        """Round robin of every item's candidates, all items in one engine call.

        `skip_unanimous` makes no call where all candidates are equal: whatever the judge said, they
        would tie. Their scores are then recorded as zeros. With `judge.early_stop` there is one
        engine call for every opponent, and items drop out as they are settled.
        """
        return alone(self.engine, self.ranking(items, skip_unanimous))

    def ranking(self, items: Sequence[Item], skip_unanimous: bool = False) -> Task:
        """`rank` as a task."""
        plans = [self._plan(item, skip_unanimous) for item in items]
        answers: list[dict] = [{} for _ in items]
        made: list[list[Verdict]] = [[] for _ in items]
        while open_ := [k for k, plan in enumerate(plans) if len(answers[k]) < len(plan)]:
            due = {k: self._due(items[k], plans[k], answers[k]) for k in open_}
            fresh = {c for calls in due.values() for c in calls.values() if not self._known(c)}
            asked = [call for calls in due.values() for call in calls.values()]
            found = iter((yield from self.asking(asked)))
            for k, calls in due.items():
                for key, call in calls.items():
                    answers[k][key] = next(found)
                    if call in fresh:  # a call that two items share is made once
                        fresh.discard(call)
                        made[k].append(answers[k][key])
                if not calls:  # settled: what is left of the plan is not asked
                    plans[k] = {key: plans[k][key] for key in answers[k]}
        rows = zip(items, answers, made, strict=True)
        return [self._result(*row, skip_unanimous) for row in rows]

    def _due(self, item: Item, plan: dict, answers: dict) -> dict[tuple[int, int], Call]:
        """The calls to make next: all, or with early stop those against the next opponent."""
        left = {key: call for key, call in plan.items() if key not in answers}
        if not self.settings.early_stop:
            return left
        known = self._spread(item, answers)
        if settled(item.candidates, self.scoring, known):
            return {}
        width = len(item.candidates)
        nearest = min((j - i) % width for i, j in left)
        return {(i, j): call for (i, j), call in left.items() if (j - i) % width == nearest}

    def _plan(self, item: Item, skip_unanimous: bool) -> dict[tuple[int, int], Call]:
        """The distinct calls of an item by the indices of the candidates that stand for them."""
        if skip_unanimous and len(set(item.candidates)) == 1:
            return {}
        plan: dict[tuple[int, int], Call] = {}
        for i, j in ordered_pairs(len(item.candidates), self.scoring):
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

    def _spread(self, item: Item, answers: dict) -> dict[tuple[int, int], str | None]:
        """The answer of every ordered pair that has one, copies of a text included."""
        pairs = ordered_pairs(len(item.candidates), self.scoring)
        keys = {pair: self._key(item, *pair) for pair in pairs}
        return {pair: answers[key].answer for pair, key in keys.items() if key in answers}

    def _result(self, item: Item, answers: dict, made: list, skip_unanimous: bool) -> RoundRobin:
        width = len(item.candidates)
        known = self._spread(item, answers)
        scores = tally(width, self.scoring, lambda i, j: known.get((i, j)))
        skipped = skip_unanimous and len(set(item.candidates)) == 1
        covered = 0 if skipped else len(ordered_pairs(width, self.scoring))
        judged, prefill = sum(v.tokens for v in made), sum(v.prompt_tokens for v in made)
        return RoundRobin(scores, answers, covered, len(made), judged, prefill)

    def _vote(self, calls: Sequence[Call]) -> Task:
        """One verdict a call, by the majority of `judge.votes` draws."""
        votes = self.settings.votes
        again = [replace(c, draw=(*c.draw, k)) if k else c for c in calls for k in range(votes)]
        found = self.verdicts(self, again)
        if isinstance(found, Generator):
            found = yield from found
        return [majority(found[k : k + votes]) for k in range(0, len(found), votes)]

    def read(self, calls: Sequence[Call]) -> Task:
        """The model's own verdicts, as `judge.verdict` says."""
        if not calls:
            return []
        prompts = [self.prompt(call) for call in calls]
        if self.settings.verdict == "direct":
            return (yield from self._likelier(prompts, [Verdict(None) for _ in calls]))
        written = yield from self._write(prompts, [self.seed_of(call) for call in calls])
        if self.settings.verdict == "written":
            return written
        heads = [plain(self.tokenizer, VERDICT.split(v.explanation)[0].rstrip()) for v in written]
        texts = [f"{p} {head}" if head else p for p, head in zip(prompts, heads, strict=True)]
        return (yield from self._likelier(texts, written))

    def _write(self, prompts: list[str], seeds: list[int]) -> Task:
        settings = self.settings
        found = yield Sample(
            doing="judging",
            prompts=prompts,
            seeds=seeds,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=settings.max_tokens,
            stop=[] if self.family.chat else ["\n\n"],
        )
        return [self._verdict(completions[0]) for completions in found]

    def _likelier(self, prompts: list[str], written: list[Verdict]) -> Task:
        """The same verdicts with the likelier mark as answer; None where no mark fits."""
        logs = yield Choose(doing="judging", prompts=prompts, options=list(OPTIONS))
        read = [v.prompt_tokens + self._length(p) for v, p in zip(written, prompts, strict=True)]
        return [_by_logs(*row) for row in zip(written, read, logs, strict=True)]

    def _length(self, text: str) -> int:
        return len(self.tokenizer(text).input_ids) if self.tokenizer else 0

    def prompt(self, call: Call) -> str:
        """The model's input for a call; what its steps hold is data there (`prompts.slots`)."""
        prompt = self.family.judge(
            call.question.text, call.prefix, call.a, call.b, shots=self.shots
        )
        return self.family.render(self.tokenizer, prompt)

    def _verdict(self, c: Any) -> Verdict:
        answer = self.family.verdict(c.text)
        return Verdict(answer, c.text.strip(), c.tokens, c.prompt_tokens, c.finish)

    def seed_of(self, call: Call) -> int:
        """The seed of a call, which depends on nothing but what it shows."""
        return seed_of(
            self.seed, "judge", call.question.id, *call.prefix, call.a, call.b, call.draw
        )


@register("judge", "self")
def ask_model(judge: Judge, calls: Sequence[Call]) -> Task:
    """The engine's own model (paper section 3.3)."""
    return judge.read(calls)


@register("judge", "random")
def toss_coin(judge: Judge, calls: Sequence[Call]) -> list[Verdict]:
    """A fair coin, fixed for each call."""
    return [Verdict(random.Random(judge.seed_of(call)).choice("AB")) for call in calls]


@register("judge", "oracle")
def consult(judge: Judge, calls: Sequence[Call]) -> list[Verdict]:
    """The function that the judge was given; controls only."""
    assert judge.oracle is not None  # checked when the judge is made
    return [Verdict(judge.oracle(c.question, list(c.prefix), c.a, c.b)) for c in calls]


def _by_logs(verdict: Verdict, read: int, logs: Sequence[float]) -> Verdict:
    if max(logs) == float("-inf"):
        return replace(verdict, answer=None, prompt_tokens=read, finish="overflow")
    return replace(verdict, answer="A" if logs[0] >= logs[1] else "B", prompt_tokens=read)


def majority(votes: Sequence[Verdict]) -> Verdict:
    """The verdict that most readable votes give, None at a draw; tokens of all of them."""
    if len(votes) == 1:
        return votes[0]
    ranked = Counter(v.answer for v in votes if v.answer).most_common(2)
    drawn = not ranked or (len(ranked) > 1 and ranked[0][1] == ranked[1][1])
    answer = None if drawn else ranked[0][0]
    first = next((v for v in votes if v.answer == answer), votes[0])
    finish = "overflow" if any(v.finish == "overflow" for v in votes) else first.finish
    tokens, read = sum(v.tokens for v in votes), sum(v.prompt_tokens for v in votes)
    return replace(first, answer=answer, tokens=tokens, prompt_tokens=read, finish=finish)
