"""The paper's own numbers, from `data/paper`: facts to put beside a run's, as they are printed.

>>> look_up("2/7B/psrlm/math")
'+3.8'
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from psr_lib import manifest
from psr_lib.evaluation import read_csv
from psr_lib.records import PSRError

FOLDER = "data/paper"
LABELS = ("base", "method", "model", "measure", "judge", "strategy", "decoding")
BASES = ("7B", "72B")
SETS = ("gsm8k", "math", "gaokao2023en", "olympiadbench", "aime2024", "amc2023")
CLAIMS = "claims.yaml"
FIELDS = ("id", "claim", "paper", "effect", "conditions")
REGIONS = {"above", "below", "between"}
REFERENCE = re.compile(r"\{(\d+/[^{}]+)\}")
Row = dict[str, str]


def folder() -> Path:
    """Where the facts lie; they belong to the code, so not to the run's repository."""
    return Path(__file__).resolve().parents[1] / FOLDER


@cache
def table(number: int) -> list[Row]:
    """The rows of one of the paper's tables, every value as it is printed."""
    return _rows(f"table{number}.csv")


def contradictions() -> list[Row]:
    """Places where the paper contradicts itself, and what is taken here."""
    return _rows("contradictions.csv")


def secondary() -> list[Row]:
    """What summaries of the paper get wrong, and what the paper says, numbers filled in."""
    return [row | {"paper": fill(row["paper"])} for row in _rows("secondary.csv")]


def _rows(name: str) -> list[Row]:
    path = folder() / name
    if not path.is_file():
        raise PSRError(f"{manifest.shown(path)}: no such file; restore it with git")
    return read_csv(path)


def select(number: int, **labels: str) -> list[Row]:
    """The rows of a table that carry these labels, in order."""
    return [row for row in table(number) if all(row[k] == v for k, v in labels.items())]


def look_up(reference: str) -> str:
    """The value of `table/label/.../column`; raises PSRError unless it is just one."""
    number, *labels, column = reference.split("/")
    rows = table(int(number))
    names = [name for name in rows[0] if name in LABELS]
    found = [row for row in rows if [row[name] for name in names] == labels]
    if len(found) != 1 or column not in found[0]:
        raise PSRError(f"{FOLDER}/table{number}.csv: no single value for {reference!r}; {names}")
    return found[0][column]


def fill(text: str) -> str:
    """The text with every {table/label/.../column} looked up."""
    return REFERENCE.sub(lambda match: look_up(match[1]), text)


def claims() -> list[dict[str, Any]]:
    """The claims of `claims.yaml`, the paper's numbers filled in.

    Raises PSRError naming the claim and what it lacks.
    """
    path = folder() / CLAIMS
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    except (OSError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:120]
        raise PSRError(f"{FOLDER}/{CLAIMS}: {reason}; repair it or restore it with git") from None
    for claim in found:
        _check(claim, f"{FOLDER}/{CLAIMS}: claim {claim.get('id', '?')}")
    return [claim | {"paper": fill(claim["paper"])} for claim in found]


def _check(claim: dict[str, Any], where: str) -> None:
    """Raises PSRError unless a claim has all fields, and each condition a region."""
    for name in FIELDS:
        if name not in claim:
            raise PSRError(f"{where}: no {name!r}; a claim needs {', '.join(FIELDS)}")
    count = len(claim["conditions"])
    for k, condition in enumerate(claim["conditions"], 1):
        if "quantity" not in condition or len(REGIONS & set(condition)) != 1:
            needed = f"a quantity and one of {', '.join(sorted(REGIONS))}"
            raise PSRError(f"{where}, condition {k}: needs {needed}")
    if claim["effect"] not in range(1, count + 1):
        raise PSRError(f"{where}: effect {claim['effect']}; give a condition, 1 to {count}")


def decimals(text: str) -> int:
    """Digits after the point of a printed number."""
    return len(text.partition(".")[2])
