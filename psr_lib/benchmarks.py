"""Benchmarks: lists of problems with gold answers, read from the repository.

The small laboratory's six sets are fixed in `data/tiny/test`; `data/tiny/dev` holds six more, made
apart, on which every design choice was made. No training pool holds a problem of either.
"""

from pathlib import Path

from psr_lib.problems import TEST_SETS, make_problems
from psr_lib.records import Problem, PSRError, read_jsonl, write_jsonl

SPLITS = {"test": 20250305, "dev": 20250306}  # seed of each split
SIZE = 300


def load(folder: Path | str, names: tuple[str, ...], size: int) -> dict[str, list[Problem]]:
    """The first `size` problems of each named set in a folder of `<name>.jsonl` files.

    Raises PSRError that names a missing set or one that is too small.
    """
    sets = {}
    for name in names:
        path = Path(folder) / f"{name}.jsonl"
        if not path.is_file():
            known = sorted(p.stem for p in Path(folder).glob("*.jsonl"))
            raise PSRError(
                f"benchmark {name!r}: no file {path.name} in {folder}; there are {known}"
            )
        rows = read_jsonl(path, Problem)
        if len(rows) < size:
            raise PSRError(f"{path}: {len(rows)} problems, data.benchmark_size asks for {size}")
        sets[name] = rows[:size]
    return sets


def make_tiny(folder: Path | str) -> None:
    """Write the laboratory's dev and test sets, disjoint; the same bytes at every call."""
    taken: set[str] = set()
    for split, seed in SPLITS.items():
        for name in TEST_SETS:
            rows = make_problems(f"{split}-{name}", [name], SIZE, seed, taken)
            # The solution follows from the question; leaving it out keeps the files small.
            rows = [
                Problem(id=f"{name}/{i}", source=f"tiny/{split}", question=row.question,
                        answer=row.answer, meta=row.meta)
                for i, row in enumerate(rows)
            ]  # fmt: skip
            write_jsonl(Path(folder) / split / f"{name}.jsonl", rows)


def questions_of(folder: Path | str) -> set[str]:
    """The text of every question under a folder: what no training pool may hold."""
    paths = sorted(Path(folder).rglob("*.jsonl"))
    return {row.question for path in paths for row in read_jsonl(path, Problem)}
