"""Figures 1 and 2 of the paper from a run: the pipeline with its counts, the map of the data."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from psr_lib.evidence import Evidence, NotRun
from psr_lib.more_tables import SEARCH
from psr_lib.paper_tables import OURS
from psr_lib.sheets import BLUE, GREEN, GREY, ORANGE, PAGE, PURPLE, RED, SKY, below, sheet

Row = dict[str, Any]
DATA_LOOKS = {"EFT": (RED, "o"), "IFT": (BLUE, "s"), "PPD": (GREY, "^")}  # the paper's colours
SIDES = {"prompt": "(a) prompts", "response": "(b) responses"}


def map_figure(points: Sequence[Row], separation: Sequence[Row]) -> Figure:
    """Figure 2: t-SNE of prompts and responses, and how far the groups stand apart."""
    figure, axes = sheet(_map_title(separation), (PAGE[0], 3.8), tuple(SIDES.values()))
    for one, side in zip(axes, SIDES, strict=True):
        for group, (color, mark) in DATA_LOOKS.items():
            own = [p for p in points if p["side"] == side and p["group"] == group]
            one.scatter([float(p["x"]) for p in own], [float(p["y"]) for p in own], s=7, c=color,
                        marker=mark, alpha=0.6, linewidths=0, label=group)  # fmt: skip
        lines = [_silhouette(row) for row in separation if row["side"] == side]
        one.set_xlabel("\n".join(lines), fontsize=7, loc="left")
        one.set(xticks=[], yticks=[])
        one.grid(visible=False)
    below(figure, axes[0], 3, markerscale=2)
    return figure


def _silhouette(row: Row) -> str:
    value, low, high = (float(row[f"silhouette{end}"]) for end in ("", "_low", "_high"))
    return f"{row['pair']}: silhouette {value:.2f} [{low:.2f}, {high:.2f}]"


def _map_title(separation: Sequence[Row]) -> str:
    found = {(row["side"], row["pair"]): float(row["own"]) for row in separation}
    parts = [f"{100 * found[side, 'EFT–IFT']:.0f} % of the {side}s'" for side in SIDES
             if (side, "EFT–IFT") in found]  # fmt: skip
    if not parts:
        return "Prompts and responses by t-SNE"
    return f"EFT against IFT: {' and '.join(parts)} nearest neighbours are of their own kind"


def flow_rows(evidence: Evidence) -> list[Row]:
    """Figure 1's counts: data, then each round's searches, means over seeds.

    Raises NotRun where not even data were made.
    """
    found = _data_counts(evidence)
    names = ("problems", "expansions", "candidates", "judge_made", "ties", "rollbacks", "pairs")
    for n in range(2, 10):
        try:
            counts = evidence.counts(OURS, SEARCH, n, *names)
            used = evidence.counts(OURS, "04_step_dpo", n, "updates", "used")
        except NotRun:
            continue
        for name, source in [*((k, counts) for k in names), ("updates", used), ("used", used)]:
            value = sum(one[name] for one in source) / len(source)
            found.append({"part": f"M{n}", "what": name, "value": value})
        found.append({"part": f"M{n}", "what": "seeds", "value": min(len(counts), len(used))})
    if not found:
        raise NotRun("no data were made")
    return found


def _data_counts(evidence: Evidence) -> list[Row]:
    made = evidence.counts(OURS, "01_data_prep", 0)
    found = [{"part": "data", "what": name, "value": sum(c[name] for c in made) / len(made)}
             for name in ("ift", "eft", "eft_heldout") if name in made[0]]  # fmt: skip
    found.append({"part": "data", "what": "seeds", "value": len(made)})
    try:
        sft = evidence.counts(OURS, "02_init", 1, "updates")
        found.append({"part": "M1", "what": "updates",
                      "value": sum(c["updates"] for c in sft) / len(sft)})  # fmt: skip
    except NotRun:
        pass
    return found


def flow_figure(rows: Sequence[Row]) -> Figure:
    """Figure 1: the five parts of the pipeline; each arrow carries what went through it."""
    counts = {(row["part"], row["what"]): float(row["value"]) for row in rows}
    rounds = [
        part for part in dict.fromkeys(row["part"] for row in rows) if part[1:] not in ("ata", "1")
    ]
    pairs = [f"{counts[n, 'pairs']:,.0f}" for n in rounds]
    title = f"One SFT, then {len(rounds)} rounds of {', '.join(pairs)} step pairs" if rounds else (
        "Data and SFT; no round was searched")  # fmt: skip
    many = [round(value) for (_, what), value in counts.items() if what == "seeds"]
    if many and max(many) > 1:
        ends = dict.fromkeys((min(many), max(many)))
        title += f" (means over {' to '.join(map(str, ends))} seeds)"
    figure, (axes,) = sheet(title, (PAGE[0], 3.1))
    axes.set(xlim=(-0.5, 100), ylim=(1.5, 42.5))
    axes.axis("off")
    _start(axes, counts)
    for k, name in enumerate(rounds[:3]):
        _round(axes, 31 + 23.5 * k, name, counts, last=k == min(len(rounds), 3) - 1)
    return figure


def _start(axes: Axes, counts: dict[tuple[str, str], float]) -> None:
    """Parts 1 and 2: the data, and M1 from them."""
    eft = [_n(counts, "data", "eft", "judge rows"), _n(counts, "data", "eft_heldout", "held out")]
    _box(axes, 0, 30, 20, 10, "1  EFT", eft, RED)
    _box(axes, 0, 16, 20, 10, "1  IFT", [_n(counts, "data", "ift", "solutions"), "in steps"], BLUE)
    _box(axes, 0, 2, 20, 9, "2  M0 → M1", [_n(counts, "M1", "updates", "SFT updates")], GREEN)
    _arrow(axes, (10, 16), (10, 11))
    _arrow(axes, (20, 34), (22.5, 34), (22.5, 6.5), (20, 6.5))


def _round(axes: Axes, x: float, name: str, counts: dict, last: bool) -> None:
    """Parts 3 to 5: a round's search, its pairs, and the model that they make."""
    before = f"M{int(name[1:]) - 1}"
    names = {"problems": "questions", "expansions": "visits", "candidates": "candidates"}
    lines = [_n(counts, name, what, label) for what, label in names.items()]
    _box(axes, x, 28, 19, 14, f"3  {before} searches", lines, ORANGE)
    lines = [_n(counts, name, "judge_made", "verdicts"), _n(counts, name, "ties", "ties"),
             _n(counts, name, "rollbacks", "roll-backs")]  # fmt: skip
    _box(axes, x, 14, 19, 11, f"3  {before} judges", lines, PURPLE)
    lines = [_n(counts, name, "pairs", "pairs"), _n(counts, name, "updates", "DPO updates")]
    _box(axes, x, 2, 19, 9, f"4  → {name}", lines, SKY)
    _arrow(axes, (x + 9.5, 28), (x + 9.5, 25))
    _arrow(axes, (x + 9.5, 14), (x + 9.5, 11))
    _arrow(axes, (x - (11 if name == "M2" else 4.5), 5), (x - 2.2, 5), (x - 2.2, 35), (x, 35))
    if last:
        axes.text(x + 20, 6.5, "5  next\ncycle", fontsize=7, va="center", color=GREY)


def _n(counts: dict[tuple[str, str], float], part: str, what: str, label: str) -> str:
    """A count with its name; what was not run says so."""
    if (part, what) not in counts:
        return f"{label}: not run"
    return f"{counts[part, what]:,.0f} {label}"


def _box(
    axes: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    name: str,
    lines: Sequence[str],
    color: str,
) -> None:
    style = "round,pad=0,rounding_size=1.2"
    axes.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle=style, fc="white", ec=color, lw=1.2)
    )
    axes.text(x + 1, y + height - 1, name, fontsize=7.5, fontweight="bold", va="top", color=color)
    axes.text(x + 1, y + height - 4.2, "\n".join(lines), fontsize=6.8, va="top", linespacing=1.25)


def _arrow(axes: Axes, *places: tuple[float, float]) -> None:
    """An arrow along right-angled places."""
    if len(places) > 2:
        axes.plot(*zip(*places[:-1], strict=True), color="#444444", lw=0.9, solid_capstyle="butt")
    axes.add_patch(FancyArrowPatch(places[-2], places[-1], arrowstyle="-|>", mutation_scale=7,
                                   color="#444444", lw=0.9, shrinkA=0, shrinkB=0))  # fmt: skip
