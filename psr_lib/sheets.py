"""Figures at the width of a paper's column or page, in the style of `figures.py`.

>>> figure, (axes,) = sheet("A finding", COLUMN)
>>> tuple(float(side) for side in figure.get_size_inches()) == COLUMN
True
"""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from psr_lib.figures import (
    BLUE,
    CYCLE,
    FOOTER,
    GREEN,
    GREY,
    MARKS,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    STYLE,
    broken,
)

COLUMN, PAGE = (3.5, 2.75), (7.1, 2.9)  # inches: one and two columns of a two-column paper
PRINT: dict[Any, Any] = STYLE | {
    "font.size": 8, "axes.titlesize": 8, "axes.titleweight": "normal", "axes.labelsize": 8,
    "xtick.labelsize": 7.5, "ytick.labelsize": 7.5, "legend.fontsize": 7.5, "savefig.dpi": 300,
    "axes.linewidth": 0.7, "xtick.major.width": 0.7, "ytick.major.width": 0.7,
    "lines.linewidth": 1.3,
}  # fmt: skip
LETTERS = 13  # of the bold title that fit into an inch
# One look for each method in every figure; what has no place here takes the next free one.
LOOKS = {
    "psrlm": (BLUE, "o"), "srlm": (ORANGE, "s"), "random-judge": (RED, "^"),
    "random-judge-nll0": (RED, "x"), "gold-judge": (GREEN, "D"), "ift-more": (GREY, "v"),
    "sft-chosen": (PURPLE, "P"),
}  # fmt: skip


def sheet(
    title: str, size: tuple[float, float], panels: Sequence[str] = ("",), **kwargs: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with the finding above it and a line of axes, each under its own name."""
    plt.rcParams.update(PRINT)
    figure, axes = plt.subplots(1, len(panels), figsize=size, squeeze=False, **kwargs)
    found = list(axes[0])
    for one, name in zip(found, panels, strict=True):
        if name:
            one.set_title(name, loc="left")
    wide = int(size[0] * LETTERS)
    figure.suptitle(broken(title, wide), x=0.012, ha="left", fontsize=9, fontweight="bold")
    return figure, found


def look(name: str, place: int = 0) -> tuple[str, str]:
    """Colour and mark of a method, or of the thing at a place of its own list."""
    free = zip((SKY, *CYCLE), ("X", *MARKS), strict=False)
    return LOOKS.get(name) or list(free)[place % len(CYCLE)]


def points(
    axes: Axes,
    rows: Sequence[dict],
    x: Sequence[float],
    label: str,
    color: str,
    mark: str,
    **kwargs: Any,
) -> None:
    """Values with their intervals at the given places, joined by a line.

    Rows hold `value`, `low` and `high`; the last two may be missing.
    """
    values = [float(row["value"]) for row in rows]
    around = None
    if rows and all(row.get("low") not in (None, "") for row in rows):
        around = [[v - float(r["low"]) for v, r in zip(values, rows, strict=True)],
                  [float(r["high"]) - v for v, r in zip(values, rows, strict=True)]]  # fmt: skip
    style = {"ms": 3.6, "capsize": 1.8, "elinewidth": 0.8} | kwargs
    axes.errorbar(x, values, yerr=around, color=color, marker=mark, label=label, **style)


def below(figure: Figure, axes: Axes, columns: int, **kwargs: Any) -> None:
    """The legend of the axes under the figure and above its footer, so that it covers no point."""
    handles, labels = axes.get_legend_handles_labels()
    style = {"handlelength": 1.6, "columnspacing": 1.2,
             "borderaxespad": 72 * FOOTER / PRINT["legend.fontsize"]} | kwargs  # fmt: skip
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, **style)


def under(axes: Axes, columns: int) -> None:
    """The legend of one of several axes under it, so that it covers no point."""
    style = {"handlelength": 1.6, "columnspacing": 1.0}
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=columns, **style)


def shifted(place: int, count: int, width: float = 0.07) -> float:
    """How far one of several series is moved, so that intervals stand side by side."""
    return width * (place - (count - 1) / 2)
