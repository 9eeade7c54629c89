"""Accuracy against tokens: those that made the training pairs, and those that an answer took."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from psr_lib import more_tables, paper_tables
from psr_lib.curve_rows import Row, ends, rows_of, series
from psr_lib.evidence import GREEDY, SPENT, Evidence, NotRun
from psr_lib.paper_tables import OURS, WAYS
from psr_lib.sheets import PAGE, look, points, sheet, shifted, under

COUNT = EngFormatter(sep=" ")


def tokens_rows(evidence: Evidence) -> list[Row]:
    """Accuracy against tokens: of training pairs by method, and of an answer by decoding."""
    cells = []
    for method in evidence.methods:
        spent = 0.0
        for name in (name for name in evidence.models(method) if name != "M0"):
            spent += more_tables.spent_tokens(evidence, method, int(name[1:])) or 0.0
            labels = {"panel": "rounds", "series": method, "model": name, "tokens": spent}
            cells.append((labels, lambda m=method, n=name: evidence.share((m, n, GREEDY))))
    for model in paper_tables.SEARCHED:
        for way in paper_tables.ways(evidence):
            make = lambda m=model, w=way: paper_tables.way_share(evidence, m, w)  # noqa: E731
            labels = {"panel": "answers", "series": way, "model": model,
                      "tokens": answer_tokens(evidence, model, way)}  # fmt: skip
            cells.append((labels, make))
    return [one | _gain(evidence, one) for one in rows_of(cells)]


def _gain(evidence: Evidence, one: Row) -> Row:
    """What step search changes against greedy, paired: only such an interval may be claimed."""
    if (one["panel"], one["series"]) != ("answers", "search"):
        return {}
    found = evidence.change(*((OURS, one["model"], way) for way in (GREEDY, "search")))
    return ends(found, "gain", "gain_low", "gain_high")


def answer_tokens(evidence: Evidence, model: str, way: str) -> float | None:
    """Mean tokens generated and judged for an answer, on the problems that all ways of this model
    were given; None if the decoding was not run."""
    column = OURS, model, SPENT + way
    try:
        data = evidence.data(paper_tables.beside_ways(evidence, column))
    except NotRun:
        return None
    return sum(float(values[0].mean()) for values in data.values()) / len(data)


def tokens_figure(rows: Sequence[Row]) -> Figure:
    """Left: accuracy against the tokens that made the pairs. Right: that of each decoding."""
    answers = [one for one in rows if one["panel"] == "answers" and one["tokens"]]
    names = ("(a) pairs: tokens generated and judged so far", f"(b) answers of {OURS}, by decoding")
    figure, (left, right) = sheet(_title(answers), (PAGE[0], PAGE[1] + 0.4), names)
    _draw_pairs(left, [one for one in rows if one["panel"] == "rounds"])
    if answers:
        _draw_answers(right, answers)
    else:
        right.text(0.5, 0.5, "not run", ha="center", transform=right.transAxes, color="#777777")
        right.set(xticks=[], yticks=[])
    return figure


def _draw_pairs(axes: Axes, rows: Sequence[Row]) -> None:
    for k, (name, own) in enumerate(series(rows, "series").items()):
        points(axes, own, [one["tokens"] for one in own], name, *look(name, k))
    axes.xaxis.set_major_formatter(COUNT)
    axes.set(xlabel="tokens", ylabel="mean greedy accuracy (%)")
    under(axes, 3)


def _draw_answers(axes: Axes, rows: Sequence[Row]) -> None:
    """A place for each decoding, its tokens below it: all but greedy spend about the same."""
    ways, models = series(rows, "series"), series(rows, "model")
    order = list(ways)
    for k, (model, own) in enumerate(models.items()):
        color, mark = look("", k)
        places = [order.index(one["series"]) + shifted(k, len(models), 0.2) for one in own]
        points(axes, own, places, model, color, mark, ls="none", ms=4.5)
        away, side = (-4, "right") if 2 * k < len(models) - 1 else (4, "left")
        for x, one in zip(places, own, strict=True):
            axes.annotate(model, (x, one["value"]), (away, -2.5), textcoords="offset points",
                          ha=side, fontsize=6.5, color=color)  # fmt: skip
    axes.set_xticks(range(len(order)), [_way(name, own) for name, own in ways.items()])
    axes.set(xlim=(-0.5, len(order) - 0.5), ylabel="mean accuracy (%)",
             xlabel=f"decoding; tokens of one problem ({', '.join(models)})")  # fmt: skip
    axes.grid(axis="x", visible=False)


def _way(name: str, rows: Sequence[Row]) -> str:
    tokens = (COUNT(float(f"{one['tokens']:.2g}")) for one in rows)  # two digits: it is narrow
    return f"{WAYS.get(name, name)}\n{', '.join(tokens)}"


def _title(answers: Sequence[Row]) -> str:
    by_way = {(one["series"], one["model"]): one for one in answers}
    for model in paper_tables.SEARCHED[::-1]:
        search, greedy = (by_way.get((way, model)) for way in ("search", GREEDY))
        if search and greedy:
            times = search["tokens"] / greedy["tokens"]
            gain, low, high = (search[f"gain{end}"] for end in ("", "_low", "_high"))
            return f"Step search costs {times:.0f} times greedy's tokens at {model} and changes " \
                   f"accuracy by {gain:+.1f} points [{low:+.1f}, {high:+.1f}]"  # fmt: skip
    return "Accuracy against the tokens spent"
