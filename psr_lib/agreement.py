"""How far another way of judging decides as the full procedure did, on the same candidates.

The other way may be a cheaper one (`judge.verdict`, `judge.votes`, `judge.early_stop`, another
scoring) or another engine or number format under the same rules: the recorded candidate sets are
judged again, so that only the judging differs.
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from psr_lib.judge import Item, Judge
from psr_lib.records import seed_of
from psr_lib.robins import RoundRobin
from psr_lib.search import decide
from psr_lib.traces import Expansion, SearchTrace

AT_ONCE = 256  # traces that are judged again together
Decision = tuple[str, str] | None


def agreement(
    traces: Iterable[SearchTrace], judge: Judge, seed: int, pick: str = "random"
) -> dict[str, float | int]:
    """Judge the recorded candidates again and compare with what the traces hold.

    Shares: `verdicts` of the distinct ordered pairs that both asked for; `ties` of the expansions
    where both or neither tie; `rows` of the expansions where both keep the same pair, or none (what
    would be the next row of PPD, given equal candidates before it). Costs: `made` calls and
    `judged` tokens, here and in the traces (`full_...`).
    """
    n: Counter = Counter()
    for trace, robins in judged_again(traces, judge):
        for expansion, robin in zip(trace.expansions, robins, strict=True):
            n.update(_compare(trace, expansion, robin, seed, pick))
    shares = {
        "verdicts": n["equal_verdicts"] / max(1, n["verdicts"]),
        "ties": n["equal_ties"] / max(1, n["expansions"]),
        "rows": n["equal_rows"] / max(1, n["expansions"]),
    }
    costs = ("made", "full_made", "judged", "full_judged")
    return {"expansions": n["expansions"], **shares, **{name: n[name] for name in costs}}


def judged_again(
    traces: Iterable[SearchTrace], judge: Judge
) -> Iterator[tuple[SearchTrace, list[RoundRobin]]]:
    """Each trace with new round robins of its expansions' candidates, in order."""
    waiting = iter(traces)
    while some := list(islice(waiting, AT_ONCE)):
        items = [_item(t, k, e) for t in some for k, e in enumerate(t.expansions)]
        robins = iter(judge.rank(items))
        for trace in some:
            yield trace, list(islice(robins, len(trace.expansions)))
            judge.forget(trace.question)


def _item(trace: SearchTrace, k: int, expansion: Expansion) -> Item:
    texts = tuple(c.text for c in expansion.candidates if c.valid)
    return Item(trace.question, tuple(expansion.prefix), texts, k)


def _compare(trace, expansion: Expansion, robin: RoundRobin, seed: int, pick: str) -> Counter:
    old, new = expansion.robin.verdicts, robin.verdicts
    both = old.keys() & new.keys()
    before, after = (
        decision(trace, expansion, scores, seed, pick)
        for scores in (expansion.robin.scores, robin.scores)
    )
    return Counter(
        expansions=1,
        verdicts=len(both),
        equal_verdicts=sum(old[key].answer == new[key].answer for key in both),
        equal_ties=(before is None) == (after is None),
        equal_rows=before == after,
        made=robin.made,
        full_made=expansion.robin.made,
        judged=robin.judged,
        full_judged=expansion.robin.judged,
    )


def decision(
    trace: SearchTrace, expansion: Expansion, scores: tuple[int, ...], seed: int, pick: str
) -> Decision:
    """The texts that these scores choose and reject, None at a tie; the draw is the search's."""
    if len(set(scores)) < 2:
        return None
    valid = [i for i, c in enumerate(expansion.candidates) if c.valid]
    drawn = seed_of(seed, "pick", trace.question.id, expansion.depth, expansion.attempt)
    places = decide(dict(zip(valid, scores, strict=True)), pick, random.Random(drawn))
    chosen, rejected = (expansion.candidates[i].text for i in places)
    return chosen, rejected
