"""The figures that the README shows, drawn from what is kept in data/results."""

import csv
from io import StringIO
from pathlib import Path
from typing import Any

from psr_lib import curve_rows, curves, figures, manifest, paper, results
from psr_lib.evaluation import read_csv
from psr_lib.evidence import GREEDY, Evidence, NotRun
from psr_lib.paper_tables import OURS

FOLDER = "figures"


def level_rows(found: Evidence) -> list[dict[str, Any]]:
    """A row a model: each set's accuracy in percent and their mean, with 95 % intervals."""
    rows = []
    for name in found.models(OURS):
        column, row = (OURS, name, GREEDY), {"model": name}
        for one in found.sets:
            row |= curve_rows.ends(found.share(column, (one,)), one, f"{one}_low", f"{one}_high")
        rows.append(row | curve_rows.ends(found.share(column), "mean", "mean_low", "mean_high"))
    if not rows:
        raise NotRun("no model was evaluated")
    return rows


def level_title(rows: list[dict[str, Any]], sets: list[str]) -> str:
    """From M1 to the last model, where most was gained, and where most was lost."""
    first, last = next((row for row in rows if row["model"] == "M1"), rows[0]), rows[-1]
    title = f"{first['model']} solves {first['mean']:.0f} %, {last['model']} {last['mean']:.0f} %"
    gains = {name: round(last[name] - first[name]) for name in sets}
    order = sorted((name for name in sets if gains[name]), key=lambda name: -gains[name])
    shown = [name for name in order[:2] if gains[name] > 0]
    shown += [name for name in order[-1:] if gains[name] < 0]
    parts = ", ".join(f"{name} {gains[name]:+d}" for name in shown)
    return f"{title}; {parts} points" if parts and len(sets) > 1 else title


def map_file(preset: str) -> Path:
    """Where Figure 2's points are kept."""
    return results.folder() / preset / results.MAP_FILES[0]


def draw(found: Evidence, folder: Path | None = None) -> list[Path]:
    """Every figure that the kept runs give; nothing where no run is kept yet."""
    if OURS not in found.by_method:
        return []
    folder = folder or manifest.root() / FOLDER
    points, apart = (_kept_map(name, found) for name in results.MAP_FILES)
    drawn = paper.draw(found, points, apart, folder, paper.source_of(found))
    rows = level_rows(found)
    title = level_title(rows, found.sets)
    chart = figures.accuracy_by_model(rows, title)
    made = figures.save_fig(chart, folder, "rounds", rows, paper.source_of(found))
    return [made, *(path for path in drawn.values() if isinstance(path, Path))]


def _kept_map(name: str, found: Evidence) -> list[dict[str, Any]]:
    path = map_file(found.all[0]["preset"]).with_name(name)
    return read_csv(path) if path.is_file() else []


def stale(found: Evidence) -> list[str]:
    """A line a shipped figure whose CSV is not what the kept runs give, or not what it shows."""
    wrong = [f"{n}.csv" for n, rows in csv_rows(found).items() if _csv(rows) != _shipped(n)]
    folder = manifest.root() / FOLDER
    pictures = (p for p in sorted(folder.rglob("*")) if p.suffix in (".png", ".pdf"))
    wrong += [p.relative_to(folder).as_posix() for p in pictures if not figures.is_of(p)]
    return [f"{FOLDER}/{name} is stale; run make readme" for name in wrong]


def csv_rows(found: Evidence) -> dict[str, list[dict[str, Any]]]:
    """The rows of every figure that the kept runs give."""
    if OURS not in found.by_method:
        return {}
    makers = {"rounds": level_rows, "figure1": paper.maps.flow_rows}
    makers |= {name: take for name, (take, _) in curves.CURVES.items()}
    rows = {}
    for name, take in makers.items():
        try:
            rows[name] = take(found)
        except NotRun:
            continue
    maps = {name.removesuffix(".csv"): _kept_map(name, found) for name in results.MAP_FILES}
    return rows | {name: kept for name, kept in maps.items() if kept}


def _csv(rows: list[dict[str, Any]]) -> str:
    out = StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _shipped(name: str) -> str:
    path = manifest.root() / FOLDER / f"{name}.csv"
    return path.read_text(encoding="utf-8") if path.is_file() else ""
