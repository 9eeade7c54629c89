"""Tables that the paper lacks: controls, the judge round by round, the tokens of each method."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from psr_lib import paper_tables, unlike
from psr_lib.budgets import WITHIN
from psr_lib.evidence import COUNTED, GREEDY, JUDGE, Evidence, NotRun, sources
from psr_lib.paper_tables import (
    BASELINE,
    OURS,
    P_TEST,
    ROUNDS,
    cell,
    methods,
    names_of,
    notes,
    over_sets,
    p_cell,
)
from psr_lib.tables import RUN, Cell, Panel, Table, text

SEARCH = "03_search_judge"
NLL0 = "random-judge-nll0"
TWO_SWITCHES = (
    f"{NLL0} differs from psrlm in two switches, the judge and dpo.nll_weight (psrlm has the "
    "preset's); random-judge differs in the judge alone"
)
PAIRED = (2, 3, 4)  # rounds that make pairs
CONTROLS = ("srlm", "random-judge", NLL0, "gold-judge", "ift-more", "sft-chosen")


def controls(evidence: Evidence) -> Table:
    """How far the last model is above that of the baseline and of each control."""
    end, rows = (evidence.models(OURS) or ["M4"])[-1], []
    for method in dict.fromkeys([*CONTROLS, *(m for m in evidence.methods if m != OURS)]):
        ends = (method, end, GREEDY), (OURS, end, GREEDY)
        cells = over_sets(evidence, partial(evidence.change, *ends), signed=True)
        rows.append((text(method), *cells, p_cell(evidence, *ends)))
    own = Panel(RUN, ("psrlm less", *names_of(evidence), "Avg.", "p"), tuple(rows))
    title = f"Controls. Accuracy of psrlm's {end} less that of others, in points"
    return Table("controls", title, (own,), notes(evidence, 0, (P_TEST, TWO_SWITCHES)))


COUNTS = {"pairs": "pairs", "tie_rate": "ties", "rollback_rate": "roll-backs",
          "judge_first_position": "first position", "judge_unreadable": "unreadable",
          "judge_consistency": "consistent", "siblings_judge_accuracy": "right on siblings",
          "chosen_right": "chosen right", "rejected_right": "rejected right"}  # fmt: skip


def judge_by_round(evidence: Evidence) -> Table:
    """The judge in each round's search, mean over seeds: what Tables 3 and 6 cannot show."""
    rows = []
    for model in ROUNDS[:-1]:
        n = int(model[1:]) + 1
        cells = [_count_cell(evidence, n, name) for name in COUNTS]
        held = cell(partial(evidence.share, (OURS, model, JUDGE)))
        rows.append((text(model), text(f"M{n}"), held, *cells))
    header = ("judge", "makes pairs for", "held-out pairs", *COUNTS.values())
    own = Panel(RUN, header, tuple(rows), labels=2)
    title = "Judge. Each round's judge on its own siblings; shares in percent, means over seeds"
    return Table("judge", title, (own,), notes(evidence, 0, (COUNTED,)))


def _count_cell(evidence: Evidence, n: int, name: str) -> Cell:
    if name != "pairs":
        return cell(partial(evidence.counted, OURS, n, name))
    try:
        found = [counts[name] for counts in evidence.counts(OURS, SEARCH, n, name)]
    except NotRun:
        return Cell()
    return Cell(sum(found) / len(found), digits=0, sources=sources([(OURS, f"M{n}", SEARCH)]))


def budget(evidence: Evidence) -> Table:
    """Tokens that each method generated and judged for each round's pairs, mean over seeds."""
    rows = []
    for method in methods(evidence):
        spent = {n: spent_tokens(evidence, method, n) for n in PAIRED}
        cells = [_millions({n: one}, method) for n, one in spent.items()]
        rows.append((text(method), *cells, _millions(spent, method)))
    own = Panel(RUN, ("method", "M2", "M3", "M4", "all"), (*rows, *_against(evidence)))
    more = (
        "generated and judged tokens, in millions; a control that takes psrlm's pairs, or only "
        "their number, counts them",
        f"a round of {BASELINE} is at an equal budget within {WITHIN:.0%} of {OURS}'s tokens of "
        "the same seed; worst: the seed furthest from equal",
    )
    return Table(
        "budget", "Budget. Tokens spent on each round's pairs", (own,), notes(evidence, 0, more)
    )


def _millions(spent: dict[int, float | None], method: str) -> Cell:
    """The tokens of these rounds together, of those that were run."""
    whole = {n: one for n, one in spent.items() if one is not None}
    found = _searches(whole, method)
    return Cell(sum(whole.values()) / 1e6, digits=2, sources=found) if whole else Cell()


def _searches(rounds: Iterable[int], *methods_: str) -> tuple:
    return sources((method, f"M{n}", SEARCH) for n in rounds for method in methods_)


def _against(evidence: Evidence) -> list[tuple[Cell, ...]]:
    """The baseline's tokens in per cent of psrlm's of the same seed, by round and together."""
    found = [_ratios(evidence, (n,)) for n in PAIRED]
    made = tuple(n for n, ratios in zip(PAIRED, found, strict=True) if ratios)
    rounds = [*(((n,), one) for n, one in zip(PAIRED, found, strict=True)),
              (made, _ratios(evidence, made))]  # fmt: skip
    return [(text(f"{BASELINE} in % of {OURS}{words}"), *(_told(tell, *one) for one in rounds))
            for words, tell in AGAINST.items()]  # fmt: skip


def _ratios(evidence: Evidence, rounds: Iterable[int]) -> list[float]:
    """The share of psrlm's tokens in each seed that has both methods' searches of these rounds."""
    theirs, ours = (
        [_spent_by_seed(evidence, method, n) for n in rounds] for method in (BASELINE, OURS)
    )
    both = set.intersection(*(set(one) for one in (*theirs, *ours))) if theirs else ()
    return [sum(one[seed] for one in theirs) / sum(one[seed] for one in ours)
            for seed in sorted(both)]  # fmt: skip


def _furthest(ratios: list[float]) -> float:
    """The ratio that is furthest from equal."""
    return max(ratios, key=lambda ratio: abs(ratio - 1))


def _percent(value: float) -> Cell:
    return Cell(100 * value)


AGAINST: dict[str, Callable[[list[float]], Cell]] = {
    ", mean over seeds": lambda ratios: _percent(sum(ratios) / len(ratios)),
    ", worst seed": lambda ratios: _percent(_furthest(ratios)),
    f", each seed within {WITHIN:.0%}": lambda ratios: text(
        "yes" if abs(_furthest(ratios) - 1) <= WITHIN else "NO"
    ),
}


def _told(tell: Callable[[list[float]], Cell], rounds: Iterable[int], ratios: list[float]) -> Cell:
    """A cell of these rounds; without a seed that has both it was not run."""
    if not ratios:
        return Cell()
    return replace(tell(ratios), sources=_searches(rounds, BASELINE, OURS))


def _spent_by_seed(evidence: Evidence, method: str, n: int) -> dict[int, int]:
    """Generated and judged tokens of the search for M[n], by seed."""
    made = evidence.stages_by_seed(method, SEARCH, n)
    return {seed: sum(one["tokens"].values()) for seed, one in made.items()}


def spent_tokens(evidence: Evidence, method: str, n: int) -> float | None:
    """Generated and judged tokens of the search for M[n], mean over seeds; None if not run."""
    found = _spent_by_seed(evidence, method, n).values()
    return sum(found) / len(found) if found else None


def make_all(evidence: Evidence) -> list[Table]:
    """Every table that the paper has, in order, then those that it lacks."""
    own = [getattr(paper_tables, f"table{n}") for n in range(1, 10)]
    makers = (*own, controls, judge_by_round, budget)
    return [unlike.noted(make(evidence), evidence) for make in makers]
