"""Rows of a figure's CSV, made of estimates: the CSV beside a figure is all that it shows."""

from collections.abc import Callable, Sequence
from typing import Any

from psr_lib.evidence import NotRun
from psr_lib.seeds import Estimate

Row = dict[str, Any]
DIGITS = 6  # after the point in a CSV, which is compared byte for byte


def row(found: Estimate, **labels: Any) -> Row:
    """An estimate as a row of a figure's CSV."""
    return labels | ends(found)


def ends(found: Estimate, *names: str) -> Row:
    """Value, low and high under these names, with as many digits as every processor agrees on."""
    values = (round(one, DIGITS) for one in (found.value, found.low, found.high))
    return dict(zip(names or ("value", "low", "high"), values, strict=True))


def rows_of(cells: Sequence[tuple[dict[str, Any], Callable[[], Estimate]]]) -> list[Row]:
    """Rows of what was measured; raises NotRun where nothing was."""
    found, missing = [], None
    for labels, make in cells:
        try:
            found.append(row(make(), **labels))
        except NotRun as error:
            missing = missing or error
    if not found:
        raise missing or NotRun("no model was evaluated")
    return found


def series(rows: Sequence[Row], key: str) -> dict[str, list[Row]]:
    """Rows by the value of a column, in order of appearance."""
    found: dict[str, list[Row]] = {}
    for one in rows:
        found.setdefault(one[key], []).append(one)
    return found


def place(one: Row) -> int:
    """The n of a row's model M[n]."""
    return int(one["model"][1:])
