"""Whole-solution self-rewarding, the baseline `srlm` (Yuan et al., arXiv 2401.10020; paper 4).

Each question gets N sampled solutions; the model scores each of them from 0 to 5 several times; the
one with the highest mean is chosen, the one with the lowest rejected, and where those are equal the
question gives no pair. The pair goes to the same DPO as a pair of steps.

At an equal budget (`srlm.budget`) N is not a number but what the tokens buy: all questions get
solutions in turn until as many tokens are generated, solutions and justifications together, as
psrlm's search of the same round and questions has spent. So N differs by at most one between two
questions, but for those that leave no room to answer.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from psr_lib.engines.base import Engine
from psr_lib.engines.tasks import Task, alone
from psr_lib.prompts import Family
from psr_lib.records import Question, StepPair, seed_of
from psr_lib.scoring import check, scoring
from psr_lib.search import decide
from psr_lib.solution_traces import SolutionTrace
from psr_lib.solving import sampling

LEAST = 2  # solutions that a pair takes
Keep = Callable[[list[SolutionTrace]], None]


def solution_search(
    engine: Engine,
    family: Family,
    tokenizer: Any,
    questions: Sequence[Question],
    search: Any,
    srlm: Any,
    seed: int,
    *,
    budget: int = 0,
    begun: Sequence[SolutionTrace] = (),
    keep: Keep = lambda traces: None,
) -> list[SolutionTrace]:
    """Solutions, scores and pairs of every question; one trace each, in order.

    `search` gives temperature, top_p and how equals are picked, `srlm` the rest; `budget` is in
    tokens, 0 takes `srlm.solutions` of each question. `begun` are the traces of a call that was cut
    short, as `keep` last got them: it is called after each pass over the questions.
    Raises PSRError where the engine fails.
    """
    check(srlm)
    traces = list(begun) or [SolutionTrace(question) for question in questions]
    while wanted := more(traces, srlm.solutions, budget, seed):
        alone(engine, _pass(family, tokenizer, traces, wanted, search, srlm, seed))
        keep(traces)
    for trace in traces:
        settle(trace, search.pick, seed)
    return traces


def _pass(family, tokenizer, traces, wanted: Counter, search, srlm, seed: int) -> Task:
    """New solutions, then the scores of texts that have none: a question to the engine for each.

    One task for all questions, as what each may ask for next hangs on what all have spent.
    """
    yield from _sample(family, tokenizer, traces, wanted, search, srlm, seed)
    yield from _score(family, tokenizer, traces, srlm, seed)


def more(traces: Sequence[SolutionTrace], each: int, budget: int, seed: int) -> Counter:
    """How many solutions each question (by its place) gets in the next pass; empty at the end.

    Without a budget all get `each` at once. With one all get two first, as a pair takes; then half
    of what the rest of the budget buys at the mean cost so far, evenly, so that a changing cost
    leads to no overrun; then one each; and at last as many questions get one more as the rest
    comes nearest to, those with the fewest first and among them in an order drawn by the seed.
    """
    room = [k for k, trace in enumerate(traces) if not trace.full]
    have = Counter({k: len(traces[k].solutions) for k in room})
    least = LEAST if budget else each
    short = Counter({k: least - have[k] for k in room if have[k] < least})
    if short or not budget or not room:
        return short
    total = sum(len(trace.solutions) for trace in traces)
    spent = max(total, sum(trace.spent for trace in traces))
    count = int((budget - spent) * total / spent + 0.5)
    if count >= len(room):
        return Counter(dict.fromkeys(room, max(1, count // len(room) // 2)))
    order = sorted(room, key=lambda k: (have[k], seed_of(seed, "more", traces[k].question.id)))
    return Counter(order[: max(0, count)])


def _sample(family, tokenizer, traces, wanted: Counter, search, srlm, seed: int) -> Task:
    due = sorted(wanted.elements())
    rank = {k: len(traces[k].solutions) for k in wanted}
    seeds = []
    for k in due:
        seeds.append(seed_of(seed, "whole", traces[k].question.id, rank[k]))
        rank[k] += 1
    found = yield from sampling(
        family, tokenizer, [traces[k].question for k in due], seeds,
        temperature=search.temperature, top_p=search.top_p, max_tokens=srlm.max_tokens,
    )  # fmt: skip
    for k, (completion,) in zip(due, found, strict=True):
        traces[k].take(completion)


def _score(family, tokenizer, traces: Sequence[SolutionTrace], srlm, seed: int) -> Task:
    due = [(trace, text) for trace in traces for text in trace.unscored()]
    items = [(trace.question, text) for trace, text in due]
    found = yield from scoring(family, tokenizer, items, srlm, seed)
    for (trace, text), scored in zip(due, found, strict=True):
        trace.rate(text, scored)


def settle(trace: SolutionTrace, pick: str, seed: int) -> None:
    """Decide on a question's pair from the scores of its solutions."""
    scores = {k: score for k, score in enumerate(trace.scores) if score is not None}
    trace.chosen = trace.rejected = None
    trace.pairs = []
    if not scores:
        trace.outcome = "unscored"
        return
    if max(scores.values()) == min(scores.values()):
        trace.outcome = "tie"
        return
    noise = random.Random(seed_of(seed, "pick whole", trace.question.id))
    trace.chosen, trace.rejected = decide(scores, pick, noise)
    pair = _pair(trace)
    trace.outcome = "kept" if pair else "identical"
    trace.pairs = [pair] if pair else []


def _pair(trace: SolutionTrace) -> StepPair | None:
    """The preference pair; None where both texts are the same up to blanks (no gradient)."""
    assert trace.chosen is not None and trace.rejected is not None
    best, worst = trace.solutions[trace.chosen], trace.solutions[trace.rejected]
    if best.text.split() == worst.text.split():
        return None
    return StepPair(
        id=f"{trace.question.id}#whole", problem_id=trace.question.id,
        question=trace.question.text, prefix=[], chosen=best.text, rejected=worst.text,
        chosen_final=True, rejected_final=True,
        meta={"scores": trace.scores, "chosen": trace.chosen, "rejected": trace.rejected},
    )  # fmt: skip
