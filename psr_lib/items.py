"""The numbers that `make why` explains: every cell of the tables of `make paper` and of stages."""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from psr_lib import integrity, manifest
from psr_lib.evaluation import is_number, read_csv
from psr_lib.evidence import Source
from psr_lib.records import PSRError
from psr_lib.run_dirs import RunDir
from psr_lib.tables import item_name

TABLE = r"[^/]+\.csv"  # beside a stage's manifest
NEAR = 3  # names that are suggested in the place of an unknown one


class Item(NamedTuple):
    """A number: its name, how it reads, the file it stands in, and what it was computed from.

    Numbers of the paper come from a file of `data/paper` and have no sources. `seeds` names the
    runs; none: all that the tables were made of. `folder`: of the stage whose own table holds it.
    `kept`: which kept summaries it is from, a preset's or `<file>=<value>` of an ablation.
    """

    name: str
    shown: str
    place: str
    sources: tuple[Source, ...] = ()
    file: str = ""
    seeds: tuple[int, ...] = ()
    folder: str = ""
    kept: tuple[str, ...] = ()


def of_tables(run: RunDir) -> dict[str, Item]:
    """Every number in the tables of a run's notebook 08, by name; none if it has not run.

    Raises PSRError where a table is no longer as it was written.
    """
    if manifest.read(run.paper) is None:
        return {}
    paths = sorted(integrity.check(run, run.paper / "tables").glob("*.csv"))
    found = (_item(row, path) for path in paths for row in read_csv(path))
    return {item.name: item for item in found if item}


def _item(row: Mapping[str, str], path: Path) -> Item | None:
    named = row.get("sources", "").split()
    if not named:  # a label, or "not run"
        return None
    file = named[0] if named[0].startswith("data/") else ""
    made_of = () if file else tuple(map(Source.read, named))
    return Item(row["item"], shown(row), manifest.shown(path), made_of, file)


def of_stage(run: RunDir, wanted: str) -> dict[str, Item]:
    """Every number in the CSV tables of a stage, where the wanted name begins with its folder.

    As `psrlm/M2/eval/accuracy/easy/low`. Raises PSRError where a table is not as it was written.
    """
    parts = wanted.split("/")
    folders = ("/".join(parts[:count]) for count in range(len(parts), 0, -1))
    folder = next((one for one in folders if one and _tables_in(run, one)), None)
    if folder is None:
        return {}
    paths = [integrity.check(run, run.path / folder / name) for name in _tables_in(run, folder)]
    return {item.name: item for path in paths for item in _of_table(folder, path)}


def _tables_in(run: RunDir, folder: str) -> list[str]:
    """The tables that a stage wrote beside its results; those of figures lie deeper."""
    made = integrity.read(run, run.path / folder)
    return [name for name in (made or {"outputs": ()})["outputs"] if re.fullmatch(TABLE, name)]


def _of_table(folder: str, path: Path) -> Iterator[Item]:
    """A row goes by its texts before the first number, a second one of that name by its place."""
    rows = read_csv(path)
    columns = list(rows[0]) if rows else []
    labels = list(takewhile(lambda name: not any(is_number(row[name]) for row in rows), columns))
    seen: Counter[str] = Counter()
    for row in rows:
        name = item_name(*folder.split("/"), path.stem, *(row[label] for label in labels))
        seen[name] += 1
        name += f"/{seen[name]}" if seen[name] > 1 else ""
        for column in columns[len(labels) :]:
            if row[column]:
                yield Item(f"{name}/{item_name(column)}", row[column], manifest.shown(path),
                           folder=folder)  # fmt: skip


def shown(row: Mapping[str, str]) -> str:
    """A stored cell as text: the number, and its interval where it has one."""
    if not row["value"]:
        return row["text"]
    value, *ends = (f"{float(row[n]):.6g}" if row[n] else "" for n in ("value", "low", "high"))
    return f"{value} [{', '.join(ends)}]" if all(ends) else value


def find(items: Mapping[str, Item], name: str) -> Item:
    """The item of that name; raises PSRError that suggests what stands below it, or the nearest."""
    if name in items:
        return items[name]
    below = listed(one for one in items if one.startswith(f"{name.rstrip('/')}/"))
    near = below[:NEAR] or difflib.get_close_matches(name, items, n=NEAR, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    hint = hint if items else "; there are no tables yet, run make paper"
    raise PSRError(f"item {name!r} is unknown{hint} (make why lists them all)")


def listed(names: Iterable[str]) -> list[str]:
    """Item names, a line a row of a table: its columns in braces, as shells read them."""
    rows: dict[str, list[str]] = {}
    for name in names:
        row, _, column = name.rpartition("/")
        rows.setdefault(row, []).append(column)
    return [f"{row}/{_braced(columns)}" for row, columns in rows.items()]


def _braced(columns: Sequence[str]) -> str:
    return f"{{{','.join(columns)}}}" if len(columns) > 1 else columns[0]
