"""How often judges of several runs were talked round: the kept results of notebook 07.

`make keep` copies `attacks.csv` of every finished judge laboratory of its run into
`data/results/attacks.csv`, in the place of what stands there of the same judge.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from psr_lib import integrity, manifest, results
from psr_lib.evaluation import read_csv, write_csv
from psr_lib.lab_attacks import ANY, MEASURES
from psr_lib.lab_table import cell
from psr_lib.methods import MAIN
from psr_lib.run_dirs import RunDir

FILE = "data/results/attacks.csv"
NAME = "attacks.csv"
JUDGE = ("preset", "base", "method", "model", "seed")  # what tells one judge from another
Row = dict[str, Any]


def measured(run: RunDir, method: str, rounds: int) -> list[int]:
    """The models of a run whose laboratories have measured attacks."""
    labs = (run.lab(method, n) for n in range(rounds + 1))
    return [n for n, lab in enumerate(labs) if manifest.read(lab) and (lab / NAME).is_file()]


def rows() -> list[Row]:
    """What is kept, a row a judge and kind of attack; texts as they stand in the file."""
    path = manifest.root() / FILE
    return read_csv(path) if path.is_file() else []


def keep(run: RunDir, method: str, n: int) -> Path:
    """Keep what the laboratory of M[n] measured; raises PSRError where it has measured nothing.

    M0 is the same whatever the method, and controls share psrlm's M1: both are kept once.
    """
    file = integrity.check(run, run.lab(method, n) / NAME)
    made = manifest.read(file.parent)
    assert made is not None
    shared = run.lab(method, n) == run.lab(MAIN, n)
    base = Path(made["params"]["model"]["base"])
    judge = {"preset": run.preset, "base": base.name if base.is_absolute() else str(base),
             "method": MAIN if shared else method, "seed": str(run.seed)}  # fmt: skip
    new = [{**judge, **row, "commit": (made["git"]["commit"] or "")[:12]} for row in read_csv(file)]
    with results.alone():
        others = [row for row in rows() if _judge(row) != _judge(new[0])]
        write_csv(manifest.root() / FILE, sorted([*others, *new], key=_judge))
    return manifest.root() / FILE


def _judge(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in JUDGE)


def shown() -> list[Row]:
    """A row a judge for the eye: share of flipped verdicts by attack, in percent.

    `any` stands last and has its 95 % interval; those of the others are in the file.
    """
    judges = list(dict.fromkeys(map(_judge, rows())))
    return [_line([row for row in rows() if _judge(row) == judge]) for judge in judges]


def _line(own: Iterable[Row]) -> Row:
    line: Row = {}
    for row in sorted(own, key=lambda row: row["attack"] == ANY):
        line |= {name: row[name] for name in ("preset", "method", "model", "seed", "pairs")}
        shares = cell(_numbers(row), MEASURES[0])
        line[row["attack"]] = shares if row["attack"] == ANY else shares.split()[0]
    return line


def _numbers(row: Row) -> Row:
    """A row's shares as numbers, None where there is none."""
    names = (MEASURES[0], f"{MEASURES[0]}_low", f"{MEASURES[0]}_high")
    return {name: float(row[name]) if row[name] else None for name in names}
