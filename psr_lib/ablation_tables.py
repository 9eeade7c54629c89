"""What an ablation found: a table, a figure with intervals, and the summary that is kept.

Differences are paired by problem, as everywhere (`seeds`). A figure names the runs it was made of.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from psr_lib import curve_rows, figures, manifest, presets, results
from psr_lib.ablations import FOLDER, Grid, file_name
from psr_lib.evaluation import is_number, read_csv
from psr_lib.evidence import GREEDY, JUDGE, Evidence
from psr_lib.methods import SEARCH
from psr_lib.records import PSRError, read_json, write_json
from psr_lib.sheets import PAGE, look, points, sheet

Row = dict[str, Any]
FIGURES = "figures/ablations"
OWN = " (preset)"  # beside the preset's own value
HEADER = ["setting", "value", "accuracy (%)", "95 % interval", "change", "95 % interval of it",
          "judge (%)", "pairs"]  # fmt: skip


def rows_of(grid: Grid, found: Sequence[Row]) -> list[Row]:
    """A row a value: accuracy, its paired change from the base value, the judge's, pairs, tokens.

    Accuracies in percent, changes in points; counts are sums over the rounds, means over seeds.
    """
    evidence = Evidence({**one, "method": one["value"]} for one in found)
    return [_row(grid, evidence, value, [one for one in found if one["value"] == value])
            for value in grid.values]  # fmt: skip


def _row(grid: Grid, evidence: Evidence, value: str, own: Sequence[Row]) -> Row:
    name = f"M{grid.n}"
    level = evidence.share((value, name, GREEDY))
    row = {"setting": value} | curve_rows.ends(level, "accuracy", "low", "high")
    if value != grid.base:
        change = evidence.change((grid.base, name, GREEDY), (value, name, GREEDY))
        row |= curve_rows.ends(change, "change", "change_low", "change_high")
    judged = evidence.share((value, name, JUDGE))
    row |= curve_rows.ends(judged, "judge", "judge_low", "judge_high")
    return row | _counts(own)


def _counts(own: Sequence[Row]) -> Row:
    """Pairs and tokens of the searches of all rounds, and the last one's share of ties."""
    searches = [[s for s in one["stages"] if s["stage"] == SEARCH] for one in own]
    total = lambda take: sum(take(s) for one in searches for s in one) / len(own)  # noqa: E731
    last = [one[-1]["counts"].get("tie_rate") for one in searches if one]
    ties = [rate for rate in last if rate is not None]
    return {
        "pairs": round(total(lambda s: s["counts"].get("pairs", 0)), 1),
        "tokens": round(total(lambda s: sum(s["tokens"].values()))),
        "tie_rate": round(sum(ties) / len(ties), curve_rows.DIGITS) if ties else "",
    }


def finding(grid: Grid, rows: Sequence[Row]) -> str:
    """Which values are better or worse than the base value by the paired interval."""
    others = [row for row in rows if row["setting"] != grid.base]
    better = [row["setting"] for row in others if row["change_low"] > 0]
    worse = [row["setting"] for row in others if row["change_high"] < 0]
    level = [row["setting"] for row in others if row["setting"] not in (*better, *worse)]
    parts = (("better", better), ("worse", worse), ("not clearly different", level))
    said = "; ".join(f"{', '.join(names)} {word}" for word, names in parts if names)
    return f"{grid.title} against {grid.base}: {said}"


def chart(grid: Grid, rows: Sequence[Row]) -> Figure:
    """Left: accuracy of the last model by value. Right: its accuracy as a judge."""
    names = (f"(a) M{grid.n}, {grid.split} problems", f"(b) M{grid.n} as a judge, held-out pairs")
    figure, axes = sheet(finding(grid, rows), PAGE, names)
    places, color_and_mark = list(range(len(rows))), look(grid.method)
    joined = "-" if all(map(is_number, grid.values)) else "none"  # words have no order
    for one, key in zip(axes, ("accuracy", "judge"), strict=True):
        low, high = ("low", "high") if key == "accuracy" else (f"{key}_low", f"{key}_high")
        own = [{"value": row[key], "low": row[low], "high": row[high]} for row in rows]
        points(one, own, places, key, *color_and_mark, ls=joined)
        one.set_xticks(places, [row["setting"] for row in rows])
        one.set(xlabel=grid.knob, ylabel=f"{key} (%), 95 % interval")
    return figure


def source_of(grid: Grid, found: Sequence[Row]) -> str:
    """The runs and the commit that a figure's footer names."""
    place = found[0]["run"].split(f"/{grid.knob}/")[0]
    commit = ", ".join(sorted({(one["git"]["commit"] or "no commit")[:8] for one in found}))
    seeds = " ".join(map(str, grid.seeds))
    return (f"{presets.title(grid.preset)}, {grid.method}, seed {seeds}, {place}/{grid.knob}/"
            f"{{{','.join(grid.values)}}}, {commit}")  # fmt: skip


def write(grid: Grid, found: Sequence[Row], rows: Sequence[Row], runs_dir: Path | str) -> Path:
    """The figure and its CSV beside the grid's runs; the PNG."""
    folder = manifest.root() / runs_dir / FOLDER / grid.knob / "figures"
    name = f"{grid.preset}_{grid.method}_M{grid.n}"
    return figures.save_fig(chart(grid, rows), folder, name, rows, source_of(grid, found))


def keep(grid: Grid, found: Sequence[Row]) -> list[Path]:
    """Store the summary in data/results/ablations, and the figure that it gives.

    A grid of another method, or of a preset that SET has changed, has a file of its own. Raises
    PSRError where the runs are not on dev problems.
    """
    if grid.split != "dev":
        raise PSRError(f"{grid.knob}: runs on {grid.split} problems are not kept, as no choice may "
                       "be made on them; leave data.split at dev")  # fmt: skip
    path = results.folder() / FOLDER / grid.preset / f"{file_name(grid.title)}.json"
    write_json(path, {"grid": asdict(grid), "runs": list(found)})
    return [path, draw(path)]


def draw(path: Path, folder: Path | None = None) -> Path:
    """The figure of a kept summary, below figures/ablations."""
    grid, found = load(path)
    rows, name = rows_of(grid, found), f"{grid.preset}_{path.stem}"
    folder = folder or manifest.root() / FIGURES
    return figures.save_fig(chart(grid, rows), folder, name, rows, source_of(grid, found))


def load(path: Path) -> tuple[Grid, list[Row]]:
    """The grid and the summaries of a kept ablation."""
    kept = read_json(path)
    values: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in kept["grid"].items()
    }
    return Grid(**values), kept["runs"]


def kept(preset: str = "tiny") -> list[Path]:
    """Every kept summary of a preset."""
    return sorted((results.folder() / FOLDER / preset).glob("*.json"))


def shown(path: Path) -> list[list[str]]:
    """The table of a kept summary, as cells under `HEADER`."""
    grid, found = load(path)
    return lines(grid, rows_of(grid, found))


def stale(preset: str = "tiny", folder: Path | None = None) -> list[str]:
    """A line a kept ablation whose figure shows something else."""
    folder, wrong = folder or manifest.root() / FIGURES, []
    for path in kept(preset):
        drawn = _drawn(folder / f"{preset}_{path.stem}.csv")
        wrong += [path.stem] if drawn != _texts(rows_of(*load(path))) else []
    return [f"{FIGURES}/{preset}_{name}.csv is stale; run make readme" for name in wrong]


def _drawn(path: Path) -> list[Row]:
    return read_csv(path) if path.is_file() else []


def _texts(rows: Sequence[Row]) -> list[Row]:
    """The rows as a CSV gives them back."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: str(row.get(name, "")) for name in names} for row in rows]


def lines(grid: Grid, rows: Sequence[Row]) -> list[list[str]]:
    """The rows as cells under `HEADER`."""
    return [_cells(grid, row) for row in rows]


def _cells(grid: Grid, row: Row) -> list[str]:
    mark = OWN if row["setting"] == grid.own else ""
    interval = lambda *ends: " to ".join(f"{row[end]:.1f}" for end in ends)  # noqa: E731
    change = f"{row['change']:+.1f}" if "change" in row else "–"
    around = f"{row['change_low']:+.1f} to {row['change_high']:+.1f}" if "change" in row else "–"
    return [grid.title, row["setting"] + mark, f"{row['accuracy']:.1f}", interval("low", "high"),
            change, around, f"{row['judge']:.1f}", f"{row['pairs']:.0f}"]  # fmt: skip


def printed(grid: Grid, rows: Sequence[Row]) -> str:
    """The table for a terminal, under what it shows."""
    table = [HEADER, *lines(grid, rows)]
    widths = [max(len(line[k]) for line in table) for k in range(len(HEADER))]
    body = "\n".join("  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True))
                     for line in table)  # fmt: skip
    return f"{finding(grid, rows)}\n{re.sub(' +$', '', body, flags=re.MULTILINE)}"
