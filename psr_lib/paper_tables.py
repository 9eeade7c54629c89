"""Tables 1 to 9 of the paper from a run, each beside the paper's own numbers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from psr_lib import facts, seeds
from psr_lib.evidence import (
    GREEDY,
    JUDGE,
    OWN,
    REFERENCE,
    SAMPLED,
    STEPS,
    TABLE6,
    TOKENS,
    Column,
    Evidence,
    NotRun,
    sources,
)
from psr_lib.seeds import Estimate
from psr_lib.tables import RUN, Cell, Panel, Table, measured, printed, text

OURS, BASELINE = "psrlm", "srlm"
ROUNDS = ("M1", "M2", "M3", "M4")
SEARCHED = ("M1", "M4")  # the models of Tables 5 and 9
WAYS = {"greedy": "greedy", "search": "step search", "best-of-N": "best of N",
        "majority": "majority"}  # fmt: skip
PAPER = "the paper"
SAME_PROBLEMS = (
    "ways of decoding: on the problems that every way was given, all but greedy at the tokens of "
    "the search"
)
Row = tuple[Cell, ...]


def cell(make: Callable[[], Estimate], digits: int = 1, signed: bool = False) -> Cell:
    """The estimate as a cell; what was not measured says so."""
    try:
        return measured(make(), digits, signed)
    except NotRun:
        return Cell(digits=digits)


def notes(evidence: Evidence, number: int = 0, more: Sequence[str] = ()) -> tuple[str, ...]:
    """What has to be known to read a table: seeds, intervals, the paper's contradictions."""
    disputes = [
        f"the paper contradicts itself on {row['about']}: {row['first_says']} in "
        f"{row['first_place']}, {row['second_says']} in {row['second_place']}; {row['why']}"
        for row in facts.contradictions()
        if f"table {number}" in (row["first_place"], row["second_place"])
    ]
    return (whose(evidence), *more, *disputes)


def whose(evidence: Evidence) -> str:
    """Whose seeds numbers are of, and what intervals are over; by method where that differs."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for method, found in evidence.by_method.items():
        groups.setdefault(tuple(sorted(found)), []).append(method)
    if not groups:
        return "no run yet"
    if len(groups) == 1:
        (numbers,) = groups
        return f"{_seeds(numbers)}; 95 % intervals over {_kind(len(numbers))}"
    each = "; ".join(f"{', '.join(names)}: {_seeds(own)}" for own, names in groups.items())
    return (f"{each}; 95 % intervals over problems, given the seeds that a cell has (a difference: "
            f"those of both), from {seeds.FEW} seeds on over seeds too")  # fmt: skip


def _seeds(found: Sequence[int]) -> str:
    return f"seed{'s' if len(found) > 1 else ''} {', '.join(map(str, found))}"


def _kind(count: int) -> str:
    return seeds.ONE if count < 2 else seeds.GIVEN if count < seeds.FEW else seeds.BOTH


def paper_panel(number: int) -> Panel:
    """The paper's table as it is printed."""
    rows = facts.table(number)
    labels = [name for name in rows[0] if name in facts.LABELS]
    header = tuple("Avg." if name == "average" else name for name in rows[0])
    cells = tuple(tuple(printed(value or " ", number) for value in row.values()) for row in rows)
    return Panel(PAPER, header, cells, labels=len(labels))


def panels(
    evidence: Evidence, number: int, header: Sequence[str], rows: Sequence[Row], labels: int
) -> tuple[Panel, ...]:
    """This run's panel and the paper's; on the paper's benchmarks its rows stand below ours."""
    own = Panel(RUN, tuple(header), tuple(rows), labels)
    if set(evidence.sets) != set(facts.SETS):
        return own, paper_panel(number)
    found = [line for row in rows for line in (row, *_below(number, header, row, labels))]
    return (Panel(RUN, tuple(header), tuple(found), labels),)


def _below(number: int, header: Sequence[str], row: Row, labels: int) -> list[Row]:
    """The paper's rows of the same labels, a size of model each."""
    wanted = [one.shown.strip() for one in row[:labels]]
    found = []
    for fact in facts.table(number):
        names = [fact[name] for name in fact if name in facts.LABELS and name != "base"]
        if names == wanted:
            values = [
                fact.get("average" if name == "Avg." else name, " ") for name in header[labels:]
            ]
            mark = [*wanted[:-1], f"{wanted[-1]} (paper {fact.get('base') or ''})"]
            found.append((*map(text, mark), *(printed(value, number) for value in values)))
    return found


def over_sets(
    evidence: Evidence, make: Callable[[Sequence[str]], Estimate], **how: Any
) -> list[Cell]:
    """A cell a benchmark, then their average."""
    sets: list[tuple[str, ...]] = [(name,) for name in evidence.sets] or [()]
    return [cell(partial(make, one), **how) for one in (*sets, ())]


def methods(evidence: Evidence) -> list[str]:
    """The baseline and the paper's method, run or not, then every control that was run."""
    return [BASELINE, OURS, *(m for m in evidence.methods if m not in (OURS, BASELINE))]


def rounds_of(evidence: Evidence, method: str) -> list[str]:
    """M1 and on; a control's M1 is the method's own, so it starts at M2."""
    found = [name for name in evidence.models(method) if name != "M0"]
    if method not in (OURS, BASELINE):
        return [name for name in found if name != "M1"]
    return found if len(found) >= len(ROUNDS) else list(ROUNDS)


def table1(evidence: Evidence) -> Table:
    """Greedy accuracy of every model on every benchmark."""
    models = [(OURS, "M0")] + [(m, n) for m in methods(evidence) for n in rounds_of(evidence, m)]
    rows = [_reference_row(evidence), *_printed_reference(evidence)]
    for method, name in models:
        label = " " if name == "M0" else method
        cells = over_sets(evidence, partial(evidence.share, (method, name, GREEDY)))
        rows.append((text(label), text(name), *cells, *_averages(evidence, label.strip(), name)))
        rows += _also(evidence, method, name, label)
    header = ["method", "model", *names_of(evidence), "Avg.", *_average_names(evidence)]
    title = "Table 1. Greedy accuracy in percent"
    more = AVERAGED if any("avg@" in row[1].shown for row in rows) else ()
    return Table("table1", title, panels(evidence, 1, header, rows, 2), notes(evidence, 1, more))


AVERAGED = ("avg@k: mean accuracy of k sampled answers a problem, on small benchmarks alone",)


def _also(evidence: Evidence, method: str, name: str, label: str) -> list[Row]:
    """Rows of what else was measured of a model: M0 with its own template, avg@k."""
    found = []
    for what, words in (
        (OWN, "(own template)"),
        (SAMPLED, f"avg@{_samples(evidence, method, name)}"),
    ):
        if has_way(evidence, name, what, method):
            make = partial(evidence.share, (method, name, what))
            cells = [_measured(make, sets) for sets in (*((s,) for s in evidence.sets), ())]
            blank = [text("–")] * len(_average_names(evidence))
            if what == SAMPLED and any(one.value is None for one in cells):
                cells[-1] = text("–")  # a mean over other benchmarks than those of the row above
            found.append((text(label), text(f"{name} {words}"), *cells, *blank))
    return found


def _samples(evidence: Evidence, method: str, name: str) -> str:
    """The k of avg@k; of several where seeds differ."""
    made = (evidence.model(method, seed, name) for seed in evidence.by_method.get(method, {})
            if name in evidence.models(method))  # fmt: skip
    return "/".join(dict.fromkeys(str(one["sampled"]["k"]) for one in made if "sampled" in one))


def _measured(make: Callable[..., Estimate], sets: Sequence[str]) -> Cell:
    """A cell where this was measured, else a dash: these benchmarks were not meant to be."""
    found = cell(partial(make, sets))
    return text("–") if found.value is None else found


def _reference_row(evidence: Evidence) -> Row:
    """The API model that was measured beside the run's own, as GPT-4o in the paper."""
    names = evidence.models(REFERENCE)
    name = names[0] if names else "API model"
    cells = over_sets(evidence, lambda s: evidence.share((REFERENCE, name, GREEDY), s))
    (fact,) = facts.select(1, method="GPT-4o")
    beside = [printed(fact["average"], 1)] * len(_average_names(evidence))
    return (text(" "), text(name), *cells, *beside)


def _printed_reference(evidence: Evidence) -> list[Row]:
    """The paper's GPT-4o, where its benchmarks are ours; else it stands in the paper's panel."""
    if set(evidence.sets) != set(facts.SETS):
        return []
    (fact,) = facts.select(1, method="GPT-4o")
    values = [fact[name] for name in (*evidence.sets, "average")]
    return [(text(" "), text("GPT-4o (paper)"), *(printed(value, 1) for value in values))]


def names_of(evidence: Evidence) -> list[str]:
    """The benchmarks as columns."""
    return evidence.sets or ["benchmarks"]


def _average_names(evidence: Evidence) -> list[str]:
    """The paper's averages stand beside ours where its benchmarks are others."""
    same = set(evidence.sets) == set(facts.SETS)
    return [] if same else [f"paper {base} Avg." for base in facts.BASES]


def _averages(evidence: Evidence, method: str, model: str) -> list[Cell]:
    found = []
    for base in facts.BASES[: len(_average_names(evidence))]:
        rows = facts.select(1, base=base, method=method, model=model)
        found.append(printed(rows[0]["average"] if rows else "–", 1))
    return found


def table2(evidence: Evidence) -> Table:
    """What the rounds add: last model less M1, of each method."""
    rows = []
    for method in methods(evidence):
        end = last_round(evidence, method)
        start = (method if method == BASELINE else OURS, "M1", GREEDY)
        ends = start, (method, end or "M4", GREEDY)
        made = partial(evidence.change, *ends) if end else _no_round
        cells = over_sets(evidence, made, signed=True)
        p = p_cell(evidence, *ends) if end else Cell()
        rows.append((text(method), *cells, p, text(end or "–")))
    header = ["method", *names_of(evidence), "Avg.", "p", "last"]
    more = ("last model less M1 of the same method", P_TEST)
    title = "Table 2. Change of accuracy over the self-rewarded rounds, in points"
    return Table("table2", title, panels(evidence, 2, header, rows, 1), notes(evidence, 2, more))


def last_round(evidence: Evidence, method: str) -> str:
    """The last model of a method that a round has made; '' where none was made."""
    found = [name for name in evidence.models(method) if name not in ("M0", "M1")]
    return found[-1] if found else ""


def _no_round(*_: Any) -> Estimate:
    raise NotRun("no round was made")


def p_cell(evidence: Evidence, before: Any, after: Any) -> Cell:
    """The p-value of a paired change over all benchmarks."""
    try:
        p = evidence.p_value(before, after)
    except NotRun:
        return Cell()
    shown = Cell(p, digits=3) if p >= 0.001 else text("< 0.001")
    return replace(shown, sources=sources([before, after]))


P_TEST = (
    "p: exact sign-flip test over the problems of all benchmarks pooled (McNemar's with one seed), "
    "while the average weighs benchmarks equally; it takes the seeds as given, without a level of "
    "their own"
)


def table3(evidence: Evidence) -> Table:
    """Judge accuracy on the held-out pairs."""
    rows = []
    for method in (OURS, *(m for m in methods(evidence) if m != OURS)):
        cells = [cell(partial(evidence.share, (method, name, JUDGE))) for name in ("M0", *ROUNDS)]
        rows.append((text(method), *cells))
    own = Panel(RUN, ("method", "M0", *ROUNDS), tuple(rows))
    more = (
        "M0 judges three-shot; an unreadable verdict is wrong",
        "judges that read nothing, on these pairs in both orders: Table 6, once make judge has run",
        "srlm from M1 on: pairs of a right and a wrong solution, the right one has to score higher",
    )
    title = "Table 3. Accuracy as a judge on held-out pairs, in percent"
    return Table("table3", title, (own, paper_panel(3)), notes(evidence, 3, more))


MEASURES = {"number": "number", "length": "length", "total": "number × length"}


def step_cell(evidence: Evidence, measure: str, model: str, sets: Sequence[str]) -> Cell:
    """Mean number of steps, mean tokens of a step, or tokens of all steps, of psrlm."""
    number, tokens = (OURS, model, STEPS), (OURS, model, TOKENS)
    columns, statistic = {"number": ([number], seeds.first), "total": ([tokens], seeds.first),
                          "length": ([tokens, number], seeds.ratio)}[measure]  # fmt: skip
    return cell(lambda: evidence.estimate(statistic, columns, sets, factor=1), digits=2)


def table4(evidence: Evidence) -> Table:
    """Number and length of steps on the two benchmarks of the paper's table, or on average."""
    both = [name for name in ("gsm8k", "math") if name in evidence.sets]
    sets = [((name,), name) for name in both] if len(both) == 2 else [((), "Avg.")]
    rows = [
        (text(measure), text(name), *(step_cell(evidence, measure, name, s) for s, _ in sets))
        for measure in MEASURES for name in ROUNDS
    ]  # fmt: skip
    header = ("measure", "model", *(name for _, name in sets))
    title = "Table 4. Number of steps and their length in tokens"
    own = Panel(RUN, header, tuple(rows), labels=2)
    return Table("table4", title, (own, paper_panel(4)), notes(evidence, 4))


def ways(evidence: Evidence) -> list[str]:
    """The ways of decoding that were compared; greedy and search, run or not."""
    found = (m.get("decodings", {}) for one in evidence.all for m in one["models"])
    return list(dict.fromkeys([*WAYS, *(name for names in found for name in names)]))


def way_share(evidence: Evidence, model: str, way: str, sets: Sequence[str] = ()) -> Estimate:
    """Accuracy of a way of decoding on the problems that all ways of this model were given."""
    columns = beside_ways(evidence, (OURS, model, way))
    data = evidence.data(columns, sets)
    found = seeds.share({name: values[:1] for name, values in data.items()}).times(100)
    return replace(found, sources=sources(columns, sets))


def beside_ways(evidence: Evidence, column: Column) -> list[Column]:
    """The column, and those that narrow it to the problems which all ways of its model got."""
    model = column[1]
    others = [(OURS, model, name) for name in ways(evidence) if has_way(evidence, model, name)]
    return [column, *(others or [(OURS, model, "search")])]


def has_way(evidence: Evidence, model: str, way: str, method: str = OURS) -> bool:
    """Whether some seed decoded this model so."""
    try:
        evidence.data([(method, model, way)])
    except NotRun:
        return False
    return way != GREEDY


def table5(evidence: Evidence) -> Table:
    """Average accuracy of the ways of decoding, at M1 and the last model."""
    rows = []
    for model in SEARCHED:
        cells = [cell(partial(way_share, evidence, model, way)) for way in ways(evidence)]
        ends = (OURS, model, GREEDY), (OURS, model, "search")
        gain = cell(partial(evidence.change, *ends), signed=True)
        rows.append((text(model), *cells, gain, p_cell(evidence, *ends)))
    names = [WAYS.get(way, way) for way in ways(evidence)]
    own = Panel(RUN, ("model", *names, "search − greedy", "p"), tuple(rows))
    more = (SAME_PROBLEMS, "search − greedy: on all problems of the search", P_TEST)
    title = "Table 5. Average accuracy with test-time search, in percent"
    return Table("table5", title, (own, paper_panel(5)), notes(evidence, 5, more))


def _share_of_difference(evidence: Evidence, measure: str) -> Estimate:
    """Pairwise less scoring, as a share."""
    return evidence.laboratory_difference(measure).times(0.01)


LABORATORY_NOTES = (
    "agreement counts a tie half, strict agreement gives it nothing",
    "a solution's score is in agreement the mean of srlm.scores samples; consistency compares "
    "single samples",
)


def table6(evidence: Evidence) -> Table:
    """Consistency and agreement of pairwise step judging and of solution scoring."""
    names = (*TABLE6, "strict")
    kinds = ("pairwise", "scoring")
    rows = [
        (text(kind), *(cell(partial(evidence.laboratory, kind, n), 2) for n in names))
        for kind in kinds
    ]
    less = partial(_share_of_difference, evidence)
    rows.append((text("pairwise − scoring"), *(cell(partial(less, n), 2, True) for n in names)))
    nulls = [(kind, null) for kind in kinds for null in evidence.laboratory_nulls(kind)]
    rows += [(text(f"{kind}, {null}"),
              *(cell(partial(evidence.laboratory, kind, n, null), 2) for n in names))
             for kind, null in nulls]  # fmt: skip
    own = Panel(RUN, ("strategy", *TABLE6, "strict agreement"), tuple(rows))
    title = "Table 6. Judging steps in pairs against scoring whole solutions, shares"
    judges = "the judge is the API model where one was tested, else M1 of psrlm (pairs) and of "
    items = {kind: evidence.laboratory_items(kind) for kind in kinds}
    named = (f"{kind}: {found}" for kind, found in items.items() if found)
    blind = (
        "on the same items" if nulls else "in judge.csv and notebook 07, once make judge has run"
    )
    more = (f"{judges}srlm (scores)", *named, *LABORATORY_NOTES,
            f"judges that read nothing (first, longer, shorter, random): {blind}")  # fmt: skip
    return Table("table6", title, (own, paper_panel(6)), notes(evidence, 6, more))


def _steps_by_set(evidence: Evidence, number: int, size: str) -> Table:
    sets: list[tuple[str, ...]] = [(name,) for name in evidence.sets] or [()]
    rows = [
        (text(measure), text(name),
         *(step_cell(evidence, measure, name, s) for s in (*sets, ())))
        for measure in MEASURES for name in ROUNDS
    ]  # fmt: skip
    header = ["measure", "model", *names_of(evidence), "Avg."]
    more = ("length: tokens of a step without its mark, over all steps",)
    title = f"Table {number}. Number and length of steps by benchmark, beside the paper's {size}"
    made = panels(evidence, number, header, rows, 2)
    return Table(f"table{number}", title, made, notes(evidence, number, more))


def table7(evidence: Evidence) -> Table:
    """Steps on every benchmark, beside the paper's 7B."""
    return _steps_by_set(evidence, 7, "7B")


def table8(evidence: Evidence) -> Table:
    """The same steps beside the paper's 72B."""
    return _steps_by_set(evidence, 8, "72B")


def table9(evidence: Evidence) -> Table:
    """The ways of decoding on every benchmark, at M1 and the last model."""
    rows = [
        (text(model), text(way),
         *over_sets(evidence, partial(way_share, evidence, model, way)))
        for way in ways(evidence) for model in SEARCHED
    ]  # fmt: skip
    header = ["model", "decoding", *names_of(evidence), "Avg."]
    title = "Table 9. Ways of decoding on every benchmark, accuracy in percent"
    more = (SAME_PROBLEMS,)
    return Table("table9", title, panels(evidence, 9, header, rows, 2), notes(evidence, 9, more))
