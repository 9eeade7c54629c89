"""Rows of the judge laboratory's tables: each group of verdicts or scores, and its null judges.

A row holds each measure with its 95 % interval (`<measure>_low`, `<measure>_high`); a measure that
this strategy does not have, or that nothing could be counted for, is left empty.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from psr_lib import lab_pairs, lab_scores
from psr_lib.evaluation import Row, read_csv
from psr_lib.lab_scores import SAME
from psr_lib.shares import NOTHING, Share
from psr_lib.tables import unbroken

TEXTS = ("model", "judge", "strategy", "items", "pairs", "labels")
MEASURES = ("agreement", "strict", "consistency", "first_position", "unreadable", "ties",
            "search_ties")  # fmt: skip
PAIRWISE, SCORING, SELF = "pairwise", "scoring", "itself"
HELDOUT, OWN, SOLUTIONS = "held-out pairs", "own solutions", "held-out solutions"
TRAINING, TESTING = "siblings, training search", "siblings, test-time search"


@dataclass(frozen=True, kw_only=True)
class Group:
    """Verdicts (or scores) of one model on items of one kind.

    `source`: which items; `labels`: who says what is right; `pairs`: which solutions are compared;
    `shots`: worked examples before each call; `search_ties`: of the searches siblings are from.
    """

    model: str
    source: str
    labels: str
    rows: Sequence[Any]  # PairRow, or under SCORING ScoreRow
    strategy: str = PAIRWISE
    pairs: str = ""
    shots: int = 0
    search_ties: Share = NOTHING

    def shares(self, judge: str = SELF) -> dict[str, Share]:
        """The measures of the model itself, or of a null judge on the same items."""
        if self.strategy == SCORING:
            own = self.rows if judge == SELF else lab_scores.null_scores(self.rows, judge)
            return lab_scores.score_shares(own, self.pairs or SAME)
        if judge == SELF:
            return lab_pairs.pair_shares(self.rows) | {"search_ties": self.search_ties}
        return lab_pairs.pair_shares(lab_pairs.null_rows(self.rows, judge))


def table(groups: Iterable[Group]) -> list[Row]:
    """A row for each group's model, and one for each null judge on its items.

    Groups with the same items (other models on the held-out pairs) have their null judges once.
    """
    rows: list[Row] = []
    seen: set[tuple] = set()
    for group in groups:
        rows.append(_row(group, SELF))
        items = (group.source, group.pairs, tuple(row.id for row in group.rows))
        nulls = () if items in seen else lab_pairs.NULLS
        rows += [_row(group, name) for name in nulls]
        seen.add(items)
    return rows


def _row(group: Group, judge: str) -> Row:
    row = {"model": group.model, "judge": judge, "strategy": group.strategy,
           "items": group.source, "pairs": group.pairs, "labels": group.labels,
           "shots": group.shots if judge == SELF else 0, "n": len(group.rows),
           "problems": len({one.problem_id for one in group.rows})}  # fmt: skip
    shares = group.shares(judge)
    for name in MEASURES:
        found = shares.get(name, NOTHING)
        row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    return row


def read(path: Path | str) -> list[Row]:
    """A table as `evaluation.write_csv` left it: numbers as such, None for an empty measure."""
    return [
        {name: cell if name in TEXTS else _number(cell) for name, cell in row.items()}
        for row in read_csv(path)
    ]


def _number(cell: str) -> float | int | None:
    if not cell:
        return None
    return int(cell) if cell.isdigit() else float(cell)


def joined(before: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """The table of the models before with that of this one; null judges on the same items once."""
    seen = {_blind(row) for row in before if row["judge"] != SELF}
    return [*before, *(row for row in rows if row["judge"] == SELF or _blind(row) not in seen)]


def _blind(row: Row) -> tuple:
    """A row without its model, which a null judge does not ask."""
    return tuple(value for name, value in row.items() if name != "model")


def shown(rows: Iterable[Row], names: Sequence[str] = MEASURES) -> list[Row]:
    """The models' own rows for the eye: percent with the interval in brackets, `-` for none.

    A column that is empty in every row is left out.
    """
    own = [row for row in rows if row["judge"] == SELF]
    first = [key for key in ("model", "items", "pairs", "shots", "n") if any(r[key] for r in own)]
    kept = [name for name in names if any(row[name] is not None for row in own)]
    return [
        {key: row[key] for key in first} | {name: cell(row, name) for name in kept} for row in own
    ]


def beside(rows: Iterable[Row]) -> list[Row]:
    """Agreement of the judges that read nothing, for the eye: a row for the items of a model."""
    found: dict[tuple, Row] = {}
    for row in rows:
        if row["judge"] != SELF:
            first = {key: row[key] for key in ("model", "items", "pairs", "n") if row[key]}
            line = found.setdefault(tuple(first.values()), first)
            line[row["judge"]] = cell(row, "agreement")
    return list(found.values())


def cell(row: Row, name: str) -> str:
    """A measure in percent with its interval in brackets, which stays on one line."""
    value, low, high = (row[key] for key in (name, f"{name}_low", f"{name}_high"))
    if value is None:
        return "-"
    return f"{100 * value:.1f} " + unbroken(f"[{100 * low:.1f}, {100 * high:.1f}]")


def items(groups: Iterable[Group], strategy: str) -> list[dict[str, Any]]:
    """Every pair (or solution) of a strategy as a plain row, with the model that judged it."""
    wanted = (group for group in groups if group.strategy == strategy)
    return [{"model": group.model, **asdict(row)} for group in wanted for row in group.rows]
