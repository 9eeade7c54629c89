"""Steps and solutions labelled by people, read from files that the user names (`lab.audit`).

Three layouts are known by their fields:

- step_judge_pairs: two next steps after one prefix, and which is better;
- ProcessBench (arXiv 2412.06559): a solution's steps and the index of the first wrong one, or -1;
- MR-GSM8K (arXiv 2312.17080): the same counted from 1, beside a right solution.

Steps get the marks that this library's prompts have (`Step k:`), calculator marks (`<<1+1=2>>`) are
dropped; nothing else is changed. A row that does not fit is an error that names file, row, field.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psr_lib.records import JudgeExample, PSRError, fits, read_json, read_jsonl, seed_of
from psr_lib.steps import body, join_steps

ENDINGS = (".jsonl", ".jsonl.gz", ".json")
CALCULATOR = re.compile(r"<<[^<>\n]*>>")
HUMAN = "human"


@dataclass(frozen=True, kw_only=True)
class LabelledSolution:
    """A whole solution that is right or wrong; `first_wrong` is that step's index, None if right.

    Where only the outcome is known (a model's own solution, graded), there are no `steps`.
    """

    id: str
    problem_id: str
    question: str
    text: str
    right: bool
    source: str
    steps: tuple[str, ...] = ()
    first_wrong: int | None = None


@dataclass(frozen=True)
class Labels:
    """What the files hold: labelled pairs of next steps, and labelled solutions."""

    pairs: list[JudgeExample]
    solutions: list[LabelledSolution]


def read_labels(paths: Iterable[Path | str]) -> Labels:
    """All labels of some files and folders (of the files directly in them), in order.

    Raises PSRError naming the file, row and field that does not fit one of the three layouts.
    """
    found = Labels([], [])
    for path in [file for name in paths for file in files_of(Path(name))]:
        rows = _rows(path)
        layout = _layout(path, rows)
        for number, row in enumerate(rows, start=1):
            for item in LAYOUTS[layout].read(Row(row, f"{path}, row {number}", layout, number)):
                if isinstance(item, JudgeExample):
                    found.pairs.append(item)
                else:
                    found.solutions.append(item)
    return found


def files_of(path: Path) -> list[Path]:
    """The file itself, or the files of a folder; raises PSRError where there is none."""
    if path.is_file():
        return [path]
    found = sorted(file for file in path.glob("*") if file.name.endswith(ENDINGS))
    if not found:
        raise PSRError(f"lab.audit: {path} is no file and no folder of {', '.join(ENDINGS)} files")
    return found


def _rows(path: Path) -> list[Any]:
    rows = read_json(path) if path.suffix == ".json" else read_jsonl(path)
    if not isinstance(rows, list) or not rows:
        raise PSRError(f"{path}: no rows; take it out of lab.audit")
    return rows


@dataclass(frozen=True)
class Row:
    """A row with its place, for messages; `get` checks that a field is there and of its type."""

    values: Any
    where: str
    layout: str
    number: int

    def get(self, name: str, kind: Any) -> Any:
        """The field's value; raises PSRError that names file, row and field."""
        if not isinstance(self.values, dict) or name not in self.values:
            raise PSRError(f"{self.where}: field {name!r} is missing ({self.layout})")
        value = self.values[name]
        if not fits(value, kind):
            wanted, found = getattr(kind, "__name__", kind), type(value).__name__
            wanted = kind if str(kind).startswith("list") else wanted
            raise self.wrong(name, f"should be {wanted}, found {found}")
        return value

    def wrong(self, name: str, why: str) -> PSRError:
        """The error of a field."""
        return PSRError(f"{self.where}: field {name!r} {why} ({self.layout})")


def _layout(path: Path, rows: Sequence[Any]) -> str:
    """The layout of which the first row has most fields, at least half of them."""
    names = set(rows[0]) if isinstance(rows[0], dict) else set()
    shares = {name: len(names & set(one.fields)) / len(one.fields) for name, one in LAYOUTS.items()}
    best = max(shares, key=shares.__getitem__)
    if shares[best] < 0.5:
        known = "; ".join(f"{name} has {', '.join(one.fields)}" for name, one in LAYOUTS.items())
        raise PSRError(f"{path}, row 1: fields {sorted(names)} fit no known layout: {known}")
    return best


def _read_pair(row: Row) -> list[JudgeExample]:
    better, prefix = row.get("better", str), row.get("prefix_steps", list[str])
    if better not in ("a", "b"):
        raise row.wrong("better", f"should be 'a' or 'b', found {better!r}")
    question, source = row.get("question", str), row.get("source", str)
    steps = [_mark(len(prefix), row.get(name, str)) for name in ("step_a", "step_b")]
    return [
        JudgeExample(id=f"{source}/{row.number}", problem_id=_problem(source, question),
                     question=question, prefix=marked(prefix), step_a=steps[0], step_b=steps[1],
                     better=better.upper(), explanation="",
                     meta={"source": source, "labels": row.get("label_origin", str)})
    ]  # fmt: skip


def _read_processbench(row: Row) -> list[LabelledSolution]:
    steps, label, name = row.get("steps", list[str]), row.get("label", int), row.get("id", str)
    if not -1 <= label < len(steps):
        raise row.wrong("label", f"should be -1 or the index of a step, found {label}")
    source = f"processbench/{name.rpartition('-')[0] or name}"
    return [_solution(name, row.get("problem", str), steps, label if label >= 0 else None, source)]


def _read_mr_gsm8k(row: Row) -> list[LabelledSolution]:
    """The labelled solution and, to original questions, the right one that the data set gives.

    Its other questions have no written solution, or a program is asked for.
    """
    steps, name = row.get("model_output_steps", list[str]), row.get("uuid", str)
    question, kind = row.get("question", str), row.get("question_type", str)
    wrong, source = _first_error(row, len(steps)), f"mr_gsm8k/{row.get('question_type', str)}"
    found = [_solution(name, question, steps, wrong, source)]
    truth = [line for line in row.get("ground_truth_solution", str).split("\n") if line.strip()]
    if truth and kind == "original":
        found.append(_solution(f"{name}/truth", question, truth, None, source))
    return found


def _first_error(row: Row, size: int) -> int | None:
    name = "model_output_solution_correctness"
    verdict = row.get(name, str)
    if verdict not in ("correct", "wrong"):
        raise row.wrong(name, f"should be 'correct' or 'wrong', found {verdict!r}")
    if verdict == "correct":
        return None
    name = "model_output_solution_first_error_step"
    step = row.get(name, int)
    if not 1 <= step <= size:
        raise row.wrong(name, f"should be 1 to {size}, found {step}")
    return step - 1


@dataclass(frozen=True)
class Layout:
    """The fields of a layout that are read, and what reads a row."""

    fields: tuple[str, ...]
    read: Callable[[Row], Sequence[JudgeExample | LabelledSolution]]


LAYOUTS: Mapping[str, Layout] = {
    "step_judge_pairs": Layout(
        ("question", "prefix_steps", "step_a", "step_b", "better", "source", "label_origin"),
        _read_pair,
    ),
    "ProcessBench": Layout(("id", "problem", "steps", "label"), _read_processbench),
    "MR-GSM8K": Layout(
        ("uuid", "question", "question_type", "ground_truth_solution", "model_output_steps",
         "model_output_solution_correctness", "model_output_solution_first_error_step"),
        _read_mr_gsm8k,
    ),
}  # fmt: skip


def _solution(
    name: str, question: str, steps: Sequence[str], wrong: int | None, source: str
) -> LabelledSolution:
    own = tuple(marked(steps))
    return LabelledSolution(
        id=name, problem_id=_problem(source, question), question=question,
        text=join_steps(own).rstrip("\n"), right=wrong is None, source=source, steps=own,
        first_wrong=wrong,
    )  # fmt: skip


def _problem(source: str, question: str) -> str:
    """One name for all rows about a question, which have none in common."""
    return f"{source}/{seed_of(question)}"


def marked(steps: Sequence[str]) -> list[str]:
    """The steps with `Step k:` in front, k from 1, whatever marks they had.

    >>> marked(["Step 7: add <<1+1=2>>2", "so 2"])
    ['Step 1: add 2', 'Step 2: so 2']
    """
    return [_mark(k, step) for k, step in enumerate(steps)]


def _mark(place: int, step: str) -> str:
    return f"Step {place + 1}: {body(CALCULATOR.sub('', step))}"


def step_pairs(solutions: Iterable[LabelledSolution]) -> list[JudgeExample]:
    """Two labelled next steps after the same prefix of right steps: a right one and a wrong one.

    They come from solutions of one problem with equal beginnings, most often the empty one.
    """
    nodes: dict[tuple, tuple[dict[str, None], dict[str, None]]] = {}
    for one in solutions:
        last = len(one.steps) if one.first_wrong is None else one.first_wrong + 1
        for k, step in enumerate(one.steps[:last]):
            place = (one.source, one.problem_id, one.question, one.steps[:k])
            nodes.setdefault(place, ({}, {}))[k == one.first_wrong].setdefault(step)
    return [
        _example(source, problem, question, prefix, right, wrong, "steps")
        for (source, problem, question, prefix), (rights, wrongs) in nodes.items()
        for right in rights for wrong in wrongs if right != wrong
    ]  # fmt: skip


def solution_pairs(solutions: Iterable[LabelledSolution]) -> list[JudgeExample]:
    """A right and a wrong solution of one problem, each in a step's place after no prefix."""
    groups: dict[tuple, tuple[list[str], list[str]]] = {}
    for one in solutions:
        key = (one.source, one.problem_id, one.question)
        groups.setdefault(key, ([], []))[not one.right].append(one.text)
    return [
        _example(source, problem, question, (), right, wrong, "solutions")
        for (source, problem, question), (rights, wrongs) in groups.items()
        for right in dict.fromkeys(rights) for wrong in dict.fromkeys(wrongs)
    ]  # fmt: skip


def _example(source, problem, question, prefix, right, wrong, what) -> JudgeExample:
    """A pair whose better step is A or B by a fair coin that is always the same."""
    coin = seed_of(source, question, *prefix, right, wrong)
    first = coin % 2 == 0
    return JudgeExample(
        id=f"{source}/{coin}", problem_id=problem, question=question, prefix=list(prefix),
        step_a=right if first else wrong, step_b=wrong if first else right,
        better="A" if first else "B", explanation="",
        meta={"source": f"{source} {what}", "labels": HUMAN},
    )  # fmt: skip


def spread(rows: Sequence[Any], size: int, source: Callable[[Any], str]) -> list[Any]:
    """At most `size` rows of each source (0: all), evenly spread over its rows, in order."""
    if not size:
        return list(rows)
    groups: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(source(row), []).append(place)
    kept: set[int] = set()
    for places in groups.values():
        most = min(size, len(places))
        kept |= {places[k * len(places) // most] for k in range(most)}
    return [row for place, row in enumerate(rows) if place in kept]
