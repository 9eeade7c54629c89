"""One style for every figure, and `save_fig`: PNG, PDF and the CSV that was plotted.

A figure's title states the finding, its footer names the run that made it, and its metadata hold
the hash of its CSV. Colours are Okabe and Ito's, which colour-blind readers can tell apart; marks
differ too, so print in grey works.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import PIL.Image
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from psr_lib import presets
from psr_lib.evaluation import write_csv
from psr_lib.records import atomic, hash_file

BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#777777",
)  # fmt: skip
CYCLE = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, GREY)
MARKS = ("o", "s", "^", "D", "v", "P", "X")
FOOTER = 0.22  # inches below everything else
SCREEN = 110  # pixels of a notebook's page for an inch of a figure
THICK: dict[str, Any] = {"lw": 2.2, "capsize": 3, "zorder": 3}
THIN: dict[str, Any] = {"lw": 0.9, "ms": 3.5, "capsize": 2, "elinewidth": 0.8, "alpha": 0.8}
STYLE: dict[Any, Any] = {
    "figure.figsize": (5.2, 3.2), "figure.dpi": 110, "savefig.dpi": 200, "font.size": 9,
    "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd", "grid.linewidth": 0.6, "legend.frameon": False,
    "pdf.fonttype": 42, "svg.hashsalt": "psr", "figure.constrained_layout.use": True,
}  # fmt: skip


def new(title: str, **kwargs: Any) -> tuple[Figure, Any]:
    """A figure and its axes in the house style, the finding as its title."""
    plt.rcParams.update(STYLE)
    figure, axes = plt.subplots(**kwargs)
    first = axes if not hasattr(axes, "flat") else axes.flat[0]
    first.set_title(broken(title, 42))  # characters that fit beside long labels
    return figure, axes


def broken(title: str, wide: int) -> str:
    """A title in lines of so many characters; a number stays with its percent sign.

    >>> broken("It solves 60 % now", 13)
    'It solves\\n60 % now'
    """
    joint = "\N{NO-BREAK SPACE}"
    return fill(title.replace(" %", f"{joint}%"), wide).replace(joint, " ")


def save_fig(
    figure: Figure, folder: Path | str, name: str, rows: Sequence[dict], source: str,
    more: Mapping[str, Sequence[dict]] | None = None,
) -> Path:  # fmt: skip
    """Write `name`.png, .pdf and .csv into `folder`; `source` names the run in the footer.

    `more`: what else the figure shows, by the name of its CSV. Files carry no time stamp, so the
    same run gives the same bytes. The figure is closed, as notebooks show the file.
    """
    folder = Path(folder)
    said = _hashes(folder, {name: rows, **(more or {})})
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        room = FOOTER / figure.get_figheight()
        engine.set(rect=(0, room, 1, 1 - room))
    figure.text(0.995, 0.005, source, ha="right", va="bottom", fontsize=6, color=GREY)
    own: dict[str, dict[str, Any]] = {"png": {"Software": None, "Comment": said},
                                      "pdf": {"CreationDate": None, "Keywords": said}}  # fmt: skip
    for kind, data in own.items():
        with atomic(folder / f"{name}.{kind}") as part:
            figure.savefig(part, format=kind, metadata={**data, "Title": f"{name}, {source}"})
    plt.close(figure)
    return folder / f"{name}.png"


def _hashes(folder: Path, tables: Mapping[str, Sequence[dict]]) -> str:
    """Write each table as CSV; their hashes as a figure's metadata hold them."""
    for name, rows in tables.items():
        write_csv(folder / f"{name}.csv", rows)
    return "; ".join(f"{name}.csv sha256:{hash_file(folder / f'{name}.csv')}" for name in tables)


def is_of(picture: Path) -> bool:
    """Whether a saved PNG or PDF was drawn from the CSV files that lie beside it now."""
    made_from = re.findall(rb"([\w.+-]+\.csv) sha256:([0-9a-f]{64})", picture.read_bytes())
    now = [(picture.with_name(name.decode()), found.decode()) for name, found in made_from]
    names = [path.stem for path, _ in now]
    return picture.stem in names and all(p.is_file() and hash_file(p) == h for p, h in now)


def show_fig(
    figure: Figure, folder: Path | str, name: str, rows: Sequence[dict], source: str
) -> Any:
    """`save_fig`, and the picture for a notebook."""
    return shown(save_fig(figure, folder, name, rows, source))


def shown(path: Path) -> Any:
    """A saved figure for a notebook, as large on the screen as its letters are readable."""
    from IPython.display import Image

    with PIL.Image.open(path) as picture:
        inches = picture.width / picture.info["dpi"][0]
    return Image(path, width=round(SCREEN * inches))


def source_of(stage: Any) -> str:
    """The run, model and commit that a figure's footer names."""
    from psr_lib.manifest import git_state

    commit = (git_state().get("commit") or "")[:8] or "no commit"
    return f"{presets.title(stage.preset.name)}, seed {stage.seed}, {stage.key}, {commit}"


def lines(rows: Sequence[dict], x: str, ys: Sequence[str], title: str, ylabel: str) -> Figure:
    """One line for each column of `ys`; few points are marked, so that a single one is seen."""
    figure, axes = new(title)
    for y, color, mark in zip(ys, CYCLE, MARKS, strict=False):
        kept = [row for row in rows if row.get(y) not in (None, "")]
        axes.plot([float(r[x]) for r in kept], [float(r[y]) for r in kept], color=color, label=y,
                  marker=mark if len(kept) < 20 else "", ms=3.5)  # fmt: skip
    axes.set(xlabel=x, ylabel=ylabel)
    axes.xaxis.get_major_locator().set_params(integer=True)  # there is no update 1.5
    if len(rows) == 1:
        axes.set_xlim(float(rows[0][x]) - 1, float(rows[0][x]) + 1)
    if rows and float(rows[-1][x]) > 1e5:
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))  # 10 M, not 1.0 with 1e7 aside
    if len(ys) > 1:
        axes.legend()
    return figure


def log_scale(axes: Axes, which: str = "y", between: Sequence[int] = (1, 2, 5)) -> None:
    """A logarithmic axis (`x` or `y`) with plain numbers: 0.5, not 5 times a power of ten.

    `between`: the multiples of each power of ten that have a number.
    """
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=between))
    axis.set_major_formatter("{x:,.10g}")
    axis.set_minor_formatter(NullFormatter())


def bars(rows: Sequence[dict], label: str, value: str, title: str, xlabel: str) -> Figure:
    """Horizontal bars: 95 % intervals where rows hold `low` and `high`, else their values."""
    figure, axes = new(title)
    names, values = [str(r[label]) for r in rows], [float(r[value]) for r in rows]
    drawn = axes.barh(names, values, color=BLUE, height=0.6)
    if rows and "low" in rows[0]:
        around = [[v - float(r["low"]) for v, r in zip(values, rows, strict=True)],
                  [float(r["high"]) - v for v, r in zip(values, rows, strict=True)]]  # fmt: skip
        axes.errorbar(values, names, xerr=around, fmt="none", color="black", capsize=2, lw=0.9)
    else:
        axes.bar_label(drawn, fmt="{:,.6g}", padding=3)
    axes.invert_yaxis()
    axes.set(xlabel=xlabel)
    axes.grid(axis="y", visible=False)
    return figure


def funnel(rows: Sequence[dict], label: str, value: str, title: str, xlabel: str) -> Figure:
    """What is left after each filter: a bar a row, with its number and the share that it keeps.

    Where rows hold `confirmed`, how many of them the oracle confirms, that part is drawn darker.
    """
    figure, axes = new(title)
    names, values = [str(r[label]) for r in rows], [float(r[value]) for r in rows]
    drawn = axes.barh(names, values, color=SKY, height=0.7)
    if rows and "confirmed" in rows[0]:
        axes.barh(names, [float(r["confirmed"]) for r in rows], color=BLUE, height=0.7)
        xlabel += " (darker: confirmed by the oracle)"  # a legend would hide a number
    before = [values[0], *values[:-1]] if values else []
    shares = [v / b if b else 0.0 for v, b in zip(values, before, strict=True)]
    texts = [f"{v:,.0f}" + (f" ({s:.0%})" if k else "")
             for k, (v, s) in enumerate(zip(values, shares, strict=True))]  # fmt: skip
    axes.bar_label(drawn, texts, padding=3)
    axes.set(xlabel=xlabel, xlim=(0, 1.3 * max(values, default=1) or 1))  # room for the numbers
    axes.xaxis.set_major_locator(MaxNLocator(5))  # more would run into each other
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    return figure


def calibration_curve(rows: Sequence[dict], title: str) -> Figure:
    """Share of right steps against p(+), with 95 % intervals; on the diagonal p(+) can be trusted.

    Rows are those of `stats.calibration`.
    """
    figure, axes = new(title)
    p, right = [float(r["p"]) for r in rows], [float(r["right"]) for r in rows]
    around = [[v - float(r["low"]) for v, r in zip(right, rows, strict=True)],
              [float(r["high"]) - v for v, r in zip(right, rows, strict=True)]]  # fmt: skip
    axes.plot([0, 1], [0, 1], color=GREY, lw=0.9, ls="--", label="as it should be")
    axes.errorbar(p, right, yerr=around, color=BLUE, marker="o", ms=4, capsize=2, label="PRM")
    axes.set(xlabel="p(+) of a step", ylabel="share of right steps", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left")
    return figure


def accuracy_by_model(rows: Sequence[dict], title: str) -> Figure:
    """Accuracy of M0..M[n]: each benchmark a thin line, their mean a thick one.

    Rows hold a value under each name, its 95 % interval under `<name>_low` and `<name>_high`.
    """
    figure, axes = new(title)
    names = [name for name in rows[0] if f"{name}_low" in rows[0]]
    looks = dict(zip(names, zip(CYCLE[1:], MARKS[1:], strict=True), strict=False))
    for k, name in enumerate(names):
        color, mark = (BLUE, "o") if name == "mean" else looks[name]
        places = [n + 0.04 * (k - len(names) / 2) for n in range(len(rows))]  # side by side
        values = [row[name] for row in rows]
        around = [[v - r[f"{name}_low"] for v, r in zip(values, rows, strict=True)],
                  [r[f"{name}_high"] - v for v, r in zip(values, rows, strict=True)]]  # fmt: skip
        axes.errorbar(places, values, yerr=around, color=color, marker=mark, label=name,
                      **(THICK if name == "mean" else THIN))  # fmt: skip
    axes.set_xticks(range(len(rows)), [row["model"] for row in rows])
    axes.set(ylabel="greedy accuracy, 95 % interval (%)", ylim=(0, 102))
    axes.legend(ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
