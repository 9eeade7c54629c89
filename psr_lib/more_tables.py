"""Tables that the paper lacks: controls, the judge round by round, the tokens of each method."""

from psr_lib import paper_tables
from psr_lib.budgets import WITHIN
from psr_lib.evidence import GREEDY, JUDGE, Evidence, NotRun
from psr_lib.paper_tables import (
    BASELINE,
    OURS,
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
CONTROLS = ("srlm", "random-judge", "gold-judge", "ift-more", "sft-chosen")


def controls(evidence: Evidence) -> Table:
    """How far the last model is above that of the baseline and of each control."""
    end, rows = (evidence.models(OURS) or ["M4"])[-1], []
    for method in dict.fromkeys([*CONTROLS, *(m for m in evidence.methods if m != OURS)]):
        ends = (method, end, GREEDY), (OURS, end, GREEDY)
        cells = over_sets(evidence, lambda s, e=ends: evidence.change(*e, s), signed=True)
        rows.append((text(method), *cells, p_cell(evidence, *ends)))
    own = Panel(RUN, ("psrlm less", *names_of(evidence), "Avg.", "p"), tuple(rows))
    title = f"Controls. Accuracy of psrlm's {end} less that of others, in points"
    return Table("controls", title, (own,), notes(evidence))


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
        held = cell(lambda m=model: evidence.share((OURS, m, JUDGE)))
        rows.append((text(model), text(f"M{n}"), held, *cells))
    header = ("judge", "makes pairs for", "held-out pairs", *COUNTS.values())
    own = Panel(RUN, header, tuple(rows), labels=2)
    title = "Judge. Each round's judge on its own siblings; shares in percent, means over seeds"
    return Table("judge", title, (own,), notes(evidence))


def _count_cell(evidence: Evidence, n: int, name: str) -> Cell:
    try:
        found = [counts[name] for counts in evidence.counts(OURS, SEARCH, n, name)]
    except NotRun:
        return Cell()
    mean = sum(found) / len(found)
    return Cell(mean, digits=0) if name == "pairs" else Cell(100 * mean)


def budget(evidence: Evidence) -> Table:
    """Tokens that each method generated and judged for each round's pairs, mean over seeds."""
    rows = []
    for method in methods(evidence):
        spent = [spent_tokens(evidence, method, n) for n in (2, 3, 4)]
        cells = [Cell() if one is None else Cell(one / 1e6, digits=2) for one in spent]
        whole = [one for one in spent if one is not None]
        rows.append((text(method), *cells, Cell(sum(whole) / 1e6, digits=2) if whole else Cell()))
    own = Panel(RUN, ("method", "M2", "M3", "M4", "all"), (*rows, _against(evidence)))
    more = (
        "generated and judged tokens, in millions; a control that takes psrlm's pairs, or only "
        "their number, counts them",
        f"a round of {BASELINE} is at an equal budget within {WITHIN:.0%} of {OURS}'s tokens",
    )
    return Table(
        "budget", "Budget. Tokens spent on each round's pairs", (own,), notes(evidence, 0, more)
    )


def _against(evidence: Evidence) -> tuple[Cell, ...]:
    """The baseline's tokens in per cent of psrlm's, by round."""
    cells, sums = [], [0.0, 0.0]
    for n in (2, 3, 4):
        theirs, ours = (spent_tokens(evidence, method, n) for method in (BASELINE, OURS))
        cells.append(Cell(100 * theirs / ours) if theirs and ours else Cell())
        if theirs and ours:
            sums = [sums[0] + theirs, sums[1] + ours]
    whole = Cell(100 * sums[0] / sums[1]) if sums[1] else Cell()
    return (text(f"{BASELINE} in % of {OURS}"), *cells, whole)


def spent_tokens(evidence: Evidence, method: str, n: int) -> float | None:
    """Generated and judged tokens of the search for M[n], mean over seeds; None if not run."""
    found = [sum(made["tokens"].values()) for made in evidence.stages(method, SEARCH, n)]
    return sum(found) / len(found) if found else None


def make_all(evidence: Evidence) -> list[Table]:
    """Every table that the paper has, in order, then those that it lacks."""
    own = [getattr(paper_tables, f"table{n}") for n in range(1, 10)]
    return [make(evidence) for make in (*own, controls, judge_by_round, budget)]
