"""Figures of what went on inside the rounds: from questions to pairs, and DPO over its updates."""

from collections.abc import Sequence
from math import floor, log10
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from psr_lib import paper_tables
from psr_lib.curve_rows import Row, series
from psr_lib.evidence import Evidence, NotRun
from psr_lib.more_tables import SEARCH
from psr_lib.paper_tables import OURS
from psr_lib.sheets import COLUMN, PAGE, below, look, sheet, shifted
from psr_lib.tables import number

ROUND_LOOKS = {"M2": ("#56B4E9", "-"), "M3": ("#0072B2", "--"), "M4": ("#000000", ":")}
FUNNEL = {"problems": "questions", "expansions": "visits", "candidates": "candidates",
          "judge_made": "verdicts asked for", "pairs": "preference pairs"}  # fmt: skip


def funnel_rows(evidence: Evidence) -> list[Row]:
    """From questions to pairs in every round, mean over seeds."""
    found = []
    for model in paper_tables.ROUNDS[1:]:
        try:
            counts = evidence.counts(OURS, SEARCH, int(model[1:]), *FUNNEL)
        except NotRun:
            continue
        means = {key: sum(one[key] for one in counts) / len(counts) for key in FUNNEL}
        found += [{"model": model, "what": FUNNEL[key], "value": means[key]} for key in FUNNEL]
    if not found:
        raise NotRun("no search")
    return found


def funnel_figure(rows: Sequence[Row]) -> Figure:
    """Counts on a log scale, a bar a round."""
    parts = series(rows, "model")
    names = list(series(rows, "what"))
    kept = [part[-1]["value"] / part[0]["value"] for part in parts.values()]
    texts = " and ".join(f"{value:.1f}" for value in (min(kept), max(kept)))
    figure, (axes,) = sheet(f"A question gives between {texts} pairs", (COLUMN[0], 3.0))
    for k, (name, part) in enumerate(parts.items()):
        places = [i + shifted(k, len(parts), 0.27) for i in range(len(part))]
        color, _ = ROUND_LOOKS.get(name, look(name, k))
        values = [one["value"] for one in part]
        bars = axes.barh(places, values, height=0.25, color=color, label=name)
        axes.bar_label(bars, [f"{one['value']:,.0f}" for one in part], padding=2, fontsize=6.5)
    axes.set_yticks(range(len(names)), names)
    axes.set(xscale="log", xlabel="count (log scale)")
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    shown = [one["value"] for one in rows if one["value"]]
    axes.set_xlim(10 ** floor(log10(min(shown))), 6 * max(shown))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    below(figure, axes, 3)
    return figure


def dpo_rows(evidence: Evidence) -> list[Row]:
    """Rewards' margin and log-probabilities over the updates of every round, a row a seed."""
    found = []
    for seed, one in evidence.by_method.get(OURS, {}).items():
        for model in (m for m in one["models"] if "margin" in m.get("training", {})):
            history = model["training"]
            found += [
                {"model": model["model"], "seed": seed, "update": step,
                 **{name: history[name][k] for name in ("margin", "chosen", "rejected")}}
                for k, step in enumerate(history["step"])
            ]  # fmt: skip
    if not found:
        raise NotRun("no training curve of step-wise DPO")
    return found


def dpo_figure(rows: Sequence[Row]) -> Figure:
    """Left: reward margin. Right: log-probabilities of chosen and rejected steps.

    Each seed is a faint line, their mean a strong one; batches are small, so lines are rough.
    """
    parts = series(rows, "model")
    ends = ", ".join(f"{number(_late_margin(part), 2, signed=True)} ({name})"
                     for name, part in parts.items())  # fmt: skip
    names = ("(a) reward margin, β × log-ratio", "(b) log-probability of a step (nats)")
    title = f"Mean reward margin in the last quarter of the updates: {ends}"
    figure, (left, right) = sheet(title, PAGE, names)
    for name, part in parts.items():
        color, line = ROUND_LOOKS.get(name, look(name))
        _history(left, part, "margin", name, color=color, ls=line, lw=1.3)
        for kind, width in (("chosen", 1.7), ("rejected", 0.9)):
            _history(right, part, kind, f"{name} {kind}", color=color, ls=line, lw=width)
    for axes in (left, right):
        axes.set(xlabel="update")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend(loc="best")
    right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _late_margin(part: Sequence[Row]) -> float:
    """The mean margin over the last quarter of every seed's updates."""
    late = [own[3 * len(own) // 4 :] for own in series(part, "seed").values()]
    return sum(sum(one["margin"] for one in own) / len(own) for own in late) / len(late)


def _history(axes: Axes, part: Sequence[Row], key: str, label: str, **style: Any) -> None:
    """A quantity over the updates: each seed, and their mean where all have the update."""
    seeds_ = list(series(part, "seed").values())
    for own in seeds_ if len(seeds_) > 1 else ():
        axes.plot([one["update"] for one in own], [one[key] for one in own],
                  color=style["color"], lw=0.5, alpha=0.35)  # fmt: skip
    together = list(zip(*seeds_, strict=False))
    means = [sum(one[key] for one in group) / len(group) for group in together]
    axes.plot([group[0]["update"] for group in together], means, label=label, **style)
