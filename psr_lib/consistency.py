"""How well the judge agrees with itself about the candidates of a step: C, the soft label of DPO.

CREAM (Wang et al. 2024, arXiv 2410.12735) ranks the answers to a prompt twice, by the rewards of
this iteration's model and of the one before. From Kendall's tau of the two rankings, scaled to 0..1
and averaged over the prompts, it takes C, and trains with C x DPO + (1 - C) x DPO of the swapped
pair. Here the two rankings are one model's: by the games that a candidate wins in slot A, and by
those that it wins in slot B. So nothing more is asked, and C measures how far the slot decides
rather than how far an update has moved the judge; where M[n-1] has learned a new error that it
repeats in both orders, C does not see it. `dpo.soft_labels=round` takes the mean over the round's
pairs, as CREAM does over prompts; `pair` takes each pair's own, as its published code can too.
"""

from collections.abc import Iterable, Mapping, Sequence

from scipy.stats import kendalltau

from psr_lib.records import PSRError, StepPair
from psr_lib.robins import RoundRobin
from psr_lib.traces import SearchTrace


def slot_consistency(robin: RoundRobin) -> float:
    """C of one round robin: (1 + tau-b) / 2 of the ranking by wins in A and that by wins in B.

    Equal texts count once. Where one of the rankings is all level it says nothing: C is a half.
    Raises PSRError where no pair was judged in both orders.
    """
    both = {(i, j) for i, j in robin.verdicts if i != j and (j, i) in robin.verdicts}
    if not both:
        raise PSRError("dpo.soft_labels: the search judged each pair in one order alone, so there "
                       "are no two to compare; take search.scoring=ordered")  # fmt: skip
    places = sorted({i for i, _ in both})
    first = [sum(robin.verdicts[i, j].answer == "A" for j in places if (i, j) in both)
             for i in places]  # fmt: skip
    second = [sum(robin.verdicts[j, i].answer == "B" for j in places if (i, j) in both)
              for i in places]  # fmt: skip
    if len(set(first)) < 2 or len(set(second)) < 2:
        return 0.5
    return (1 + float(kendalltau(first, second).statistic)) / 2


def of_pairs(pairs: Sequence[StepPair], traces: Iterable[SearchTrace]) -> dict[str, float]:
    """C of the visit that each pair came from, by the pair's id."""
    wanted, found = {pair.id for pair in pairs}, {}
    for trace in traces:
        for e in trace.expansions:
            name = f"{trace.question.id}#{e.depth}.{e.attempt}"
            if name in wanted and e.outcome == "kept":
                found[name] = slot_consistency(e.robin)
    return found


def labels(kind: str, own: Mapping[str, float]) -> dict[str, float]:
    """The soft labels by pair: `pair`, each its own; `round`, for all the mean."""
    mean = sum(own.values()) / max(1, len(own))
    return dict(own) if kind == "pair" else dict.fromkeys(own, mean)
