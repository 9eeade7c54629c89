"""Figures beyond the paper's two: accuracy over the rounds, judge, steps, and those of other files.

Each has a function that takes its rows from the evidence, and one that draws them.
"""

from collections.abc import Callable, Sequence
from functools import partial

from matplotlib.figure import Figure

from psr_lib import paper_tables, seeds
from psr_lib.curve_rows import Row, ends, place, rows_of, series
from psr_lib.evidence import GREEDY, JUDGE, STEPS, TOKENS, Evidence, NotRun
from psr_lib.methods import USES_GOLD
from psr_lib.more_tables import SEARCH
from psr_lib.paper_tables import OURS
from psr_lib.round_curves import dpo_figure, dpo_rows, funnel_figure, funnel_rows
from psr_lib.sheets import COLUMN, PAGE, below, look, points, sheet, shifted, under
from psr_lib.token_curves import tokens_figure, tokens_rows


def methods_rows(evidence: Evidence) -> list[Row]:
    """Mean greedy accuracy of every model of every method.

    Rows of last models also say how far they are behind the best, paired by problem.
    """
    rows = rows_of([
        ({"method": method, "model": name}, partial(evidence.share, (method, name, GREEDY)))
        for method in evidence.methods for name in evidence.models(method)
    ])  # fmt: skip
    best, *others = _by_last(rows)
    for one in others:
        one |= _behind(evidence, one, best)
    return rows


def _by_last(rows: Sequence[Row]) -> list[Row]:
    """The rows of the last model, the highest first.

    Methods that have not come so far are out, and those that use gold unless alone.
    """
    end = max(map(place, rows), default=0)
    last = [one for one in rows if place(one) == end]
    fair = [one for one in last if one["method"] not in USES_GOLD]
    return sorted(fair or last, key=lambda one: -one["value"])


def _behind(evidence: Evidence, one: Row, best: Row) -> Row:
    """How far the best is above a row's model; nothing where no seed has both."""
    pair = [(end["method"], end["model"], GREEDY) for end in (one, best)]
    try:
        found = evidence.change(*pair)
    except NotRun:
        return {}
    return ends(found, "behind", "behind_low", "behind_high")


def finding(rows: Sequence[Row]) -> str:
    """Whose last model is highest, or which are level with it by the paired interval."""
    best, *others = _by_last(rows)
    if not others:
        first = next((one for one in rows if one["model"] == "M1"), rows[0])
        return f"{best['method']}: {first['value']:.1f} % at {first['model']}, " \
               f"{best['value']:.1f} % at {best['model']}"  # fmt: skip
    level = [one["method"] for one in others if not one.get("behind_low", 0) > 0]
    if not level:
        apart = " (gold-judge not ranked)" if USES_GOLD & {one["method"] for one in rows} else ""
        return f"{best['model']} is highest with {best['method']}{apart}"
    return f"{best['model']}: {best['method']} and {', '.join(level)} cannot be told apart"


def methods_figure(rows: Sequence[Row]) -> Figure:
    """Accuracy over the rounds, a line a method."""
    lines = series(rows, "method")
    figure, (axes,) = sheet(finding(rows), (COLUMN[0], 3.0))
    for k, (name, own) in enumerate(lines.items()):
        places = [place(one) + shifted(k, len(lines), 0.05) for one in own]
        points(axes, own, places, name, *look(name, k), lw=2.0 if name == OURS else 1.2)
    axes.set_xticks(*_ticks(rows))
    axes.set(ylabel="mean greedy accuracy (%)")
    below(figure, axes, 3)
    return figure


def _ticks(rows: Sequence[Row]) -> tuple[list[int], list[str]]:
    places = sorted({place(one) for one in rows})
    return places, [f"M{n}" for n in places]


JUDGED = {
    "judge_first_position": "first position",
    "tie_rate": "ties",
    "judge_consistency": "consistent",
    "siblings_judge_accuracy": "right on own siblings",
}


def judge_rows(evidence: Evidence) -> list[Row]:
    """The judge by model: held-out accuracy, and its search's rates, mean and range of seeds."""
    cells = [({"panel": "held-out", "series": OURS, "model": name},
              lambda n=name: evidence.share((OURS, n, JUDGE)))
             for name in evidence.models(OURS)]  # fmt: skip
    found = rows_of(cells)
    for key, label in JUDGED.items():
        for model in paper_tables.ROUNDS[:-1]:
            try:
                counts = evidence.counts(OURS, SEARCH, int(model[1:]) + 1, key)
            except NotRun:
                continue
            values = [100 * one[key] for one in counts]
            found.append({"panel": "search", "series": label, "model": model,
                          "value": sum(values) / len(values), "low": min(values),
                          "high": max(values)})  # fmt: skip
    return found


def judge_figure(rows: Sequence[Row]) -> Figure:
    """Left: accuracy on held-out pairs. Right: what the same judge does to its own siblings."""
    held = [one for one in rows if one["panel"] == "held-out"]
    own = series([one for one in rows if one["panel"] == "search"], "series")
    siblings = own.get(JUDGED["siblings_judge_accuracy"], [])
    title = f"Held-out judging ends at {held[-1]['value']:.0f} % ({held[-1]['model']})"
    if siblings:
        ends = f"{siblings[0]['value']:.0f} % to {siblings[-1]['value']:.0f} %"
        title += f", judging of own siblings goes from {ends}"
    names = ("(a) held-out pairs, 95 % intervals", "(b) own siblings, range over seeds")
    figure, (left, right) = sheet(title, (PAGE[0], PAGE[1] + 0.2), names)
    points(left, held, [place(one) for one in held], OURS, *look(OURS))
    left.axhline(50, color="#777777", lw=0.8, ls="--")
    left.annotate("chance", (0.93, 50), (0, 3), xycoords=("axes fraction", "data"),
                  textcoords="offset points", ha="right", fontsize=7, color="#777777")  # fmt: skip
    left.set(ylabel="accuracy (%)", ylim=(0, 100))
    left.set_xticks(*_ticks(held))
    for k, (name, part) in enumerate(own.items()):
        places = [place(one) + shifted(k, len(own), 0.04) for one in part]
        points(right, part, places, name, *look(name, k))
    if own:
        right.set_xticks(*_ticks([one for part in own.values() for one in part]))
        under(right, 2)
    right.set(ylabel="share (%)", ylim=(0, 100))
    return figure


STEP_PANELS = {
    "number": "(a) steps an answer",
    "length": "(b) tokens a step",
    "total": "(c) tokens of all steps",
}


def steps_rows(evidence: Evidence) -> list[Row]:
    """Number, length and total of steps by model: every benchmark, and their average."""
    columns = {"number": ((STEPS,), seeds.first), "length": ((TOKENS, STEPS), seeds.ratio),
               "total": ((TOKENS,), seeds.first)}  # fmt: skip
    return rows_of([
        ({"panel": panel, "series": sets[0] if sets else "mean", "model": name},
         partial(evidence.estimate, statistic, [(OURS, name, one) for one in what], sets, factor=1))
        for panel, (what, statistic) in columns.items()
        for sets in (*((one,) for one in evidence.sets), ())
        for name in evidence.models(OURS) if name != "M0"
    ])  # fmt: skip


WHOLE = ("#000000", "o")  # the average's look: no benchmark has it


def steps_figure(rows: Sequence[Row]) -> Figure:
    """Three panels over the models; the average is thick, each benchmark thin."""
    means = {panel: series(own, "series")["mean"] for panel, own in series(rows, "panel").items()}
    ends = {panel: (own[0]["value"], own[-1]["value"]) for panel, own in means.items()}
    title = "From {} to {}: steps {:.2f} to {:.2f}, tokens a step {:.1f} to {:.1f}".format(
        means["number"][0]["model"], means["number"][-1]["model"], *ends["number"], *ends["length"]
    )
    figure, axes = sheet(title, (PAGE[0], 3.1), tuple(STEP_PANELS.values()))
    for one, panel in zip(axes, STEP_PANELS, strict=True):
        parts = series([r for r in rows if r["panel"] == panel], "series")
        for k, (name, own) in enumerate(parts.items()):
            whole = name == "mean"
            color, mark = WHOLE if whole else look(name, k)
            points(one, own, [place(r) for r in own], name, color, mark,
                   lw=2.2 if whole else 0.9, zorder=3 if whole else 2)  # fmt: skip
        one.set_xticks(*_ticks(rows))
        one.set_ylim(bottom=0)
    below(figure, axes[0], 7)
    return figure


CURVES: dict[str, tuple[Callable[[Evidence], list[Row]], Callable[[Sequence[Row]], Figure]]] = {
    "methods": (methods_rows, methods_figure),
    "tokens": (tokens_rows, tokens_figure),
    "judge": (judge_rows, judge_figure),
    "steps": (steps_rows, steps_figure),
    "funnel": (funnel_rows, funnel_figure),
    "dpo": (dpo_rows, dpo_figure),
}
