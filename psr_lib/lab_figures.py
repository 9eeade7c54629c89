"""Figures of the judge laboratory: the judge over the rounds, and by who labelled the items."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from psr_lib import figures
from psr_lib.lab_pairs import NULLS
from psr_lib.lab_table import HELDOUT, PAIRWISE, SELF, TRAINING

RATES = {"first_position": "first position", "unreadable": "unreadable",
         "ties": "orders disagree", "search_ties": "ties in the search"}  # fmt: skip
Rows = Sequence[dict[str, Any]]


def chart(rows: Rows, model: str) -> Figure:
    """The judge over the rounds; where there is one model only, or an audit, by kind of items."""
    models, kinds = ({row[key] for row in own(rows)} for key in ("model", "items"))
    return by_items(rows, model) if len(models) < 2 or len(kinds) > 3 else drift(rows)


def own(rows: Rows) -> list[dict[str, Any]]:
    """The rows of the judges themselves, pairwise; of equal ones that with more worked examples."""
    found: dict[tuple, dict[str, Any]] = {}
    for row in rows:
        place = (row["model"], row["items"], row["pairs"])
        if row["judge"] == SELF and row["strategy"] == PAIRWISE:
            found[place] = max(found.get(place, row), row, key=lambda one: one["shots"])
    return list(found.values())


def drift(rows: Rows) -> Figure:
    """Agreement of each model on held-out pairs and on its own siblings, and its slips beside.

    Rows are those of `lab_table.table`; percent, with 95 % intervals; a dashed line is chance.
    """
    mine, models = own(rows), list(dict.fromkeys(row["model"] for row in own(rows)))
    figure, axes = figures.new(_finding(mine), ncols=2, figsize=(7.6, 3.2))
    axes[0].set(ylabel="agreement with the label (%)", ylim=(0, 102))
    axes[0].axhline(50, color=figures.GREY, lw=0.9, ls="--")
    for k, source in enumerate(dict.fromkeys(row["items"] for row in mine)):
        part = [row for row in mine if row["items"] == source]
        _line(axes[0], part, "agreement", models, k, source)
    held = [row for row in mine if row["items"] == HELDOUT]
    for k, name in enumerate(RATES):
        part = held if name != "search_ties" else [row for row in mine if row["items"] == TRAINING]
        _line(axes[1], part, name, models, k + 3, RATES[name])
    axes[1].set(ylabel="share (%)", ylim=(-2, 102))
    for one in axes:
        one.set_xticks(range(len(models)), models)
        one.set_xlim(-0.4, len(models) - 0.6)
        one.legend(fontsize=7)
    return figure


def _finding(rows: Rows) -> str:
    """What the last model says of held-out pairs, and of its own steps the last that did."""
    last: dict[bool, dict[str, Any]] = {}
    for row in rows:
        if row["agreement"] is not None:
            last[row["items"] == HELDOUT] = row
    parts = [f"{row['model']} {100 * row['agreement']:.0f} % of {row['items']}"
             for _, row in sorted(last.items(), reverse=True)]  # fmt: skip
    return f"Right on: {'; '.join(parts)}" if parts else "No labels"


def _line(axes: Any, rows: Rows, name: str, models: Sequence[str], k: int, label: str) -> None:
    """One measure over the models, intervals drawn a little aside of each other."""
    found = [row for row in rows if row[name] is not None]
    if not found:
        return
    values = [100 * row[name] for row in found]
    around = [[100 * (row[name] - row[f"{name}_low"]) for row in found],
              [100 * (row[f"{name}_high"] - row[name]) for row in found]]  # fmt: skip
    places = [models.index(row["model"]) + 0.07 * (k % 4 - 1.5) for row in found]
    style = {"color": figures.CYCLE[k % 7], "marker": figures.MARKS[k % 7], "ms": 4, "capsize": 2}
    axes.errorbar(places, values, yerr=around, lw=1.2, label=label, **style)


def by_items(rows: Rows, model: str) -> Figure:
    """Agreement of one model on every kind of items, its 95 % interval, and the null judges'."""
    mine = [row for row in rows if row["judge"] == SELF and row["model"] == model
            and row["agreement"] is not None]  # fmt: skip
    figure, axes = figures.new(f"{model} as a judge, by what it is asked",
                               figsize=(6.4, 1.6 + 0.28 * len(mine)))  # fmt: skip
    names = [_name(row) for row in mine]
    axes.axvline(50, color=figures.GREY, lw=0.9, ls="--")
    around = [[100 * (row["agreement"] - row["agreement_low"]) for row in mine],
              [100 * (row["agreement_high"] - row["agreement"]) for row in mine]]  # fmt: skip
    axes.errorbar([100 * row["agreement"] for row in mine], names, xerr=around, fmt="o",
                  color=figures.BLUE, ms=5, capsize=2, label=model)  # fmt: skip
    for name, mark, color in zip(NULLS, figures.MARKS[1:], figures.CYCLE[1:], strict=False):
        null = {_name(row): row for row in rows if row["judge"] == name}
        seen = [n for n in names if null.get(n, {}).get("agreement") is not None]
        axes.plot([100 * null[n]["agreement"] for n in seen], seen, mark, color=color, ms=4,
                  mfc="none", label=name)  # fmt: skip
    axes.set(xlabel="agreement with the label (%), 95 % interval", xlim=(0, 102))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)
    return figure


def _name(row: dict[str, Any]) -> str:
    pairs = f", {row['pairs']}" if row["pairs"] else ""
    return f"{row['items']}{pairs} ({row['n']})"
