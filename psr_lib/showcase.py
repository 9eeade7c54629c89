"""The figures that the README shows, drawn from the kept summaries in data/results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from psr_lib import figures, manifest, results
from psr_lib.evaluation import MEAN
from psr_lib.stats import Difference

FOLDER = "figures"
Summaries = Sequence[dict[str, Any]]


def level_rows(kept: Summaries) -> list[dict[str, Any]]:
    """A row a model: each set's accuracy in percent, their mean and its 95 % interval.

    Everything is averaged over the seeds; the interval is over problems, within each seed.
    """
    rows = []
    for n, model in enumerate(kept[0]["models"]):
        sets = {
            name: 100 * sum(one["models"][n]["accuracy"][name] for one in kept) / len(kept)
            for name in model["accuracy"]
            if name != MEAN
        }
        rows.append({"model": model["model"], **sets, **_percent(results.level(kept, n))})
    return rows


def _percent(found: Difference) -> dict[str, float]:
    return {"mean": 100 * found.mean, "low": 100 * found.low, "high": 100 * found.high}


def method_rows(groups: dict[str, Summaries]) -> list[dict[str, Any]]:
    """A row a method and model: mean accuracy over the sets in percent, with its interval."""
    return [
        {"method": name, "model": model["model"], **_percent(results.level(kept, n))}
        for name, kept in groups.items()
        for n, model in enumerate(kept[0]["models"])
    ]


def finding(groups: dict[str, Summaries]) -> str:
    """Which method's last model is highest, or which are level with it by the paired interval."""
    best = max(groups, key=lambda name: results.level(groups[name], -1).mean)
    last = groups[best][0]["models"][-1]["model"]
    level = [name for name in groups if name != best and not _behind(groups[best], groups[name])]
    if not level:
        return f"{last} is highest with {best}"
    return f"{last}: {best} and {', '.join(level)} cannot be told apart"


def _behind(best: Summaries, other: Summaries) -> bool:
    ours, theirs = results.shared(best, other)
    return bool(ours) and results.lead(ours, theirs).low > 0


def methods_figure(rows: Sequence[dict[str, Any]], title: str) -> Figure:
    """Mean accuracy over the rounds, a line a method, intervals drawn side by side."""
    names = list(dict.fromkeys(row["method"] for row in rows))
    figure, axes = figures.new(title)
    styles = zip(names, figures.CYCLE, figures.MARKS, strict=False)
    for shift, (name, color, mark) in enumerate(styles):
        own = [row for row in rows if row["method"] == name]
        around = [[row["mean"] - row["low"] for row in own],
                  [row["high"] - row["mean"] for row in own]]  # fmt: skip
        places = [n + 0.06 * (shift - (len(names) - 1) / 2) for n in range(len(own))]
        axes.errorbar(places, [row["mean"] for row in own], yerr=around, color=color, marker=mark,
                      ms=4, capsize=2, lw=1.4, label=name)  # fmt: skip
    axes.set_xticks(range(len(own)), [row["model"] for row in own])
    axes.set(ylabel="mean greedy accuracy (%)")
    axes.legend()
    return figure


def draw(groups: dict[str, Summaries]) -> list[Path]:
    """`figures/rounds` and `figures/methods`; nothing where no run is kept yet."""
    groups = {name: kept for name, kept in groups.items() if kept}
    ours = groups.get("psrlm")
    if not ours:
        return []
    folder, rows = manifest.root() / FOLDER, level_rows(ours)
    first, last = rows[min(1, len(rows) - 1)], rows[-1]
    title = f"{first['model']} solves {first['mean']:.0f} %, {last['model']} {last['mean']:.0f} %"
    chart = figures.accuracy_by_model(rows, title)
    paths = [figures.save_fig(chart, folder, "rounds", rows, _source(ours))]
    table = method_rows(groups)
    chart = methods_figure(table, finding(groups))
    everyone = [one for kept in groups.values() for one in kept]
    return [
        *paths,
        figures.save_fig(chart, folder, "methods", table, _source(everyone)),
    ]


def _source(kept: Summaries) -> str:
    """What the footer names: laboratory, seeds, commits."""
    seeds = ", ".join(str(seed) for seed in sorted({one["seed"] for one in kept}))
    commits = ", ".join(sorted({(one["git"]["commit"] or "no commit")[:8] for one in kept}))
    return f"{kept[0]['preset']} laboratory, seeds {seeds}, test sets, {commits}"
