"""What `make bench` measured, as the README's block on the speed of search and judging."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from psr_lib import manifest
from psr_lib.bench_rates import FULL
from psr_lib.readme_costs import NOT_RUN, table
from psr_lib.records import read_json

FILE = "data/results/bench.json"
HEADER = ["what", "ratio", "range of the turns", "of what"]
Line = list[str]


def speed_block(file: Path | None = None) -> str:
    """A row for every ratio that was measured, with its range where it was measured in turns."""
    path = file or manifest.root() / FILE
    parts = read_json(path)["parts"] if path.is_file() else {}
    rows = [line for name, lines in LINES.items() if name in parts
            for row in parts[name]["rows"] for line in lines(row)]  # fmt: skip
    return table(HEADER, rows) + _made(parts) if rows else NOT_RUN


def _made(parts: dict[str, Any]) -> str:
    made = [part["made"] for part in parts.values()]
    commits = ", ".join(sorted({one["git"]["commit"][:8] for one in made}))
    devices = ", ".join(sorted({one["device"] for one in made}))
    return f"\nMeasured on {devices}, commit {commits}; start-up of engines and workers left out.\n"


def turns(found: dict[str, float]) -> Line:
    """A ratio's median, and its range over so many turns."""
    low, high = _ratio(found["low"]), _ratio(found["high"])
    return [_ratio(found["median"]), f"{low} to {high}, {found['runs']:.0f} turns"]


def _ratio(value: float) -> str:
    """Three digits, so that a ratio below a bar does not read as one that reaches it."""
    return f"{value:.{1 if value >= 10 else 2 if value >= 1 else 3}f}"


def _rate(row: dict[str, Any]) -> Iterable[Line]:
    what = f"{row['engine']}: token rate of a search over that of the engine alone"
    yield [what, *turns(row["ratio"]), f"{row['problems']} problems, {row['dtype']}"]


def _literal(row: dict[str, Any]) -> Iterable[Line]:
    same = f"{row['identical_problems']} of {row['compared_problems']} problems have the same PPD"
    yield [f"time of the literal loop, {row['literal loop']}, over ours", *turns(row["ratio"]),
           same]  # fmt: skip


def _calls(row: dict[str, Any]) -> Iterable[Line]:
    step = f"{row['distinct']:.2f} distinct candidates a step at T {row['temperature']}"
    yield ["judge calls of the literal loop over ours", _ratio(row["fewer"]), "", step]


def _equal(row: dict[str, Any]) -> Iterable[Line]:
    yield [f"share of equal rows, judged by {row['judged by']}", f"{row['rows']:.3f}", "",
           f"{row['expansions']:,} recorded sets of candidates"]  # fmt: skip


def _lossy(row: dict[str, Any]) -> Iterable[Line]:
    calls = f"{row['made']:,} judge calls where the full procedure made {row['full_made']:,}"
    if row["way"] != FULL:
        yield [f"share of equal rows, {row['way']}", f"{row['rows']:.3f}", "", calls]


def _memory(row: dict[str, Any]) -> Iterable[Line]:
    base = row["memory_ratio"] == row["cpu_ratio"] == 1  # what the others are compared with
    if not base:
        where = f"{row['engine']}, {row['problems']:,} problems over the fewest"
        yield ["peak memory", _ratio(row["memory_ratio"]), "", where]
        yield ["processor time a problem", _ratio(row["cpu_ratio"]), "", where]


def _ray(row: dict[str, Any]) -> Iterable[Line]:
    same = "the same" if row["identical"] else "other"
    yield ["time of one Ray worker over that of two", *turns(row["ratio"]),
           f"{row['problems']} problems, {same} pairs"]  # fmt: skip


LINES: dict[str, Callable[[dict[str, Any]], Iterable[Line]]] = {
    "literal": _literal, "batched": _literal, "calls": _calls, "rates": _rate, "smol": _rate,
    "vllm": _rate, "ray": _ray, "memory": _memory, "equal": _equal,
    "lossy": _lossy,
}  # fmt: skip
