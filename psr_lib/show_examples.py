"""Which examples are shown: answers right and wrong, verdicts, one problem under several models.

Rows are those that evaluations write. Where the benchmarks do not lie in a folder here, a problem's
id stands for its text.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from psr_lib import benchmarks, manifest
from psr_lib.markup import View, note
from psr_lib.presets import Preset
from psr_lib.records import JudgeExample, Problem, PSRError, read_jsonl
from psr_lib.run_dirs import RunDir
from psr_lib.show_steps import answers, solution, verdict

Row = dict[str, Any]
Sets = Mapping[str, Sequence[Problem]]
Ways = Mapping[str, Sequence[Row]]  # answer rows by model or way of decoding


def solutions(sets: Sets, rows: Sequence[Row], wrong: int = 2, right: int = 1) -> list[View]:
    """The first wrong and the first right answers, each step marked."""
    asked = by_id(sets)
    chosen = [row for row in rows if not row["strict"]][:wrong]
    chosen += [row for row in rows if row["strict"]][:right]
    found = [(asked[row["problem_id"]], row["text"]) for row in chosen]
    return [solution(problem.question, text, gold=problem.answer) for problem, text in found]


def verdicts(heldout: Iterable[JudgeExample], rows: Sequence[Row]) -> list[View]:
    """The first wrong and the first right verdict on held-out pairs, with what the judge wrote."""
    known = {example.id: example for example in heldout}
    firsts = [next((row for row in rows if row["correct"] == kind), None) for kind in (False, True)]
    return [_verdict(known.get(row["id"]), row) for row in firsts if row]


def _verdict(example: JudgeExample | None, row: Row) -> View:
    """A verdict with its pair; of a judge that scores solutions what it says alone."""
    if example is None:
        return note(f"better: {row['better']}, verdict: {row['verdict']}\n{row['explanation']}")
    return verdict(example, row)


def differing(sets: Sets, ways: Ways, first: str = "wrong") -> View:
    """One problem in all ways: where the first is wrong (or `right`) and the last one is not.

    Where there is no such problem, the first one that all were given.
    """
    name = telling(ways, first == "right") if ways else ""
    if not name:
        return note("no problem was answered by all")
    problem = by_id(sets).get(name)
    texts = {way: next(r["text"] for r in rows if r["problem_id"] == name)
             for way, rows in ways.items()}  # fmt: skip
    return answers(problem.question if problem else name, texts, problem.answer if problem else "")


def telling(ways: Ways, begins: bool) -> str:
    """The id of the problem that `differing` shows; '' where no problem was given to all."""
    right = [{row["problem_id"]: bool(row["strict"]) for row in rows} for rows in ways.values()]
    shared = [name for name in right[0] if all(name in one for one in right)]
    turned = [name for name in shared if (right[0][name], right[-1][name]) == (begins, not begins)]
    return next(iter(turned or shared), "")


def by_id(sets: Sets) -> dict[str, Problem]:
    """Every problem of some benchmarks by its id."""
    return {problem.id: problem for problems in sets.values() for problem in problems}


def local_sets(preset: Preset) -> dict[str, list[Problem]]:
    """The preset's benchmarks where they lie in a folder here; nothing is fetched for a display."""
    data = preset.data
    if data.benchmark_folder == "hub":
        return {}
    folder = manifest.root() / Path(data.benchmark_folder).expanduser()
    try:
        return benchmarks.load(folder, data.benchmarks, data.benchmark_size, data.split)
    except PSRError:
        return {}


def models(run: RunDir, method: str, rounds: int) -> dict[str, list[Row]]:
    """The greedy answers of each model of a method that was evaluated, M1 first."""
    paths = {f"M{n}": run.eval(method, n) / "answers.jsonl.gz" for n in range(1, rounds + 1)}
    return {name: read_jsonl(path) for name, path in paths.items() if complete(path)}


def complete(path: Path) -> bool:
    """Whether a file is there, and the stage that it lies in has been finished."""
    return path.is_file() and path.with_name(manifest.NAME).is_file()
