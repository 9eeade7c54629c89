"""The table of measured rates (data/results/rates.csv), which `make bench` writes and plans read.

A rate is tokens a second of one model on one device: written by an engine alone (`generate`) or in
a search (`search`), `read` by it, or trained on by TRL (`train`). None is read off another one.
"""

import csv
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from io import StringIO
from pathlib import Path
from typing import Any

from psr_lib import manifest
from psr_lib.records import PSRError, write_text

FILE = "data/results/rates.csv"
WORKS = ("generate", "search", "read", "train")
TRAINER = {False: "trl", True: "trl, LoRA"}  # what stands for the engine of `train`


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A row of the table; `parameters` and the three after it say what was measured on what."""

    model: str
    parameters: int
    engine: str
    dtype: str
    device: str
    work: str
    tokens_per_second: float
    date: str
    commit: str

    def __str__(self) -> str:
        what = f"{self.work}, {self.model}, {self.engine} {self.dtype}, {self.device}"
        made = f"{self.date}, commit {self.commit}"
        return f"measured: {self.tokens_per_second:,.0f} tokens a second ({what}; {made})"

    @property
    def key(self) -> tuple:
        """What a new measurement of the same thing replaces."""
        return self.parameters, self.engine, self.dtype, self.device, self.work


def path() -> Path:
    """Where the table lies."""
    return manifest.root() / FILE


def load(file: Path | None = None) -> list[Rate]:
    """The table's rows, none where nothing was measured; raises PSRError naming a wrong line."""
    file = file or path()
    if not file.is_file():
        return []
    with open(file, encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    return [_rate(row, f"{manifest.shown(file)}:{k}") for k, row in enumerate(rows, start=2)]


def _rate(row: dict[str, Any], where: str) -> Rate:
    try:
        kinds: dict[str, Any] = {spec.name: spec.type for spec in fields(Rate)}
        values = {name: kind(row[name]) for name, kind in kinds.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise PSRError(f"{where}: not a row of measured rates ({error}); run make bench") from None
    if values["work"] not in WORKS or values["tokens_per_second"] <= 0:
        raise PSRError(f"{where}: no rate of {', '.join(WORKS)} above 0; run make bench")
    return Rate(**values)


def add(rates: Sequence[Rate], file: Path | None = None) -> None:
    """Put rates into the table, in the place of older ones of the same thing."""
    if not rates:
        return
    file = file or path()
    table = {rate.key: rate for rate in [*load(file), *rates]}
    out = StringIO()
    writer = csv.DictWriter(out, [spec.name for spec in fields(Rate)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(table[key]) for key in sorted(table))
    write_text(file, out.getvalue())


def find(
    rates: Iterable[Rate], work: str, parameters: int, engine: str, dtype: str, device: str
) -> Rate | None:
    """The rate of just this, on a device of that name (or with it in its name, as `H100` is in
    `NVIDIA H100 80GB HBM3`); None where it was not measured."""
    wanted = (parameters, engine, dtype, work)
    fits = (rate for rate in rates if device in rate.device)
    return next((r for r in fits if (r.parameters, r.engine, r.dtype, r.work) == wanted), None)


def of_bench(rows: Iterable[dict[str, Any]], device: str, commit: str) -> list[Rate]:
    """The rates in rows of `make bench`: those that name their model and hold a `..._rate`."""
    columns = {"raw_rate": "generate", "search_rate": "search", "read_rate": "read",
               "train_rate": "train"}  # fmt: skip
    date = time.strftime("%Y-%m-%d", time.gmtime())
    return [
        Rate(model=row["model"], parameters=row["parameters"], dtype=row["dtype"], device=device,
             engine=row["kind"], work=work, date=date, commit=commit[:12],
             tokens_per_second=round(row[column], 1))
        for row in rows if "model" in row for column, work in columns.items() if column in row
    ]  # fmt: skip
