r"""Rows of other people's data sets as problems: where the question, the solution and the gold are.

A layout names three fields of a row. A name may go into a nested value (`question.problem`,
`final_answer.0`), join several (`Body+Question`) or be optional (`solution?`).

>>> row = {"problem": "What is 1 + 1?", "solution": "It is $\\boxed{2}$.", "level": 1}
>>> read_problem(row, find_layout(row, "a.jsonl"), "a/0", "a", "a.jsonl").answer
'2'
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from psr_lib.records import Problem, PSRError, from_dict
from psr_lib.steps import boxed

ROLES = ("question", "solution", "answer")
OWN = {spec.name for spec in dataclasses.fields(Problem)}  # a row that this library wrote
LAYOUTS: dict[str, dict[str, str]] = {
    "PRM800K": {"question": "question.problem", "solution": "question.ground_truth_solution?",
                "answer": "question.ground_truth_answer?"},
    "OlympiadBench": {"question": "question", "solution": "solution.0?",
                      "answer": "final_answer.0"},
    "SVAMP": {"question": "Body+Question", "answer": "Answer"},
    "MAWPS": {"question": "input", "answer": "target"},
    "MultiArith": {"question": "question", "answer": "final_ans"},
    "reasoning-gym": {"question": "question", "solution": "metadata.answer_cot",
                      "answer": "answer"},
    "MATH": {"question": "problem", "solution": "solution?", "answer": "answer?"},
    "GSM8K": {"question": "question", "solution": "answer", "answer": "answer"},
    "plain": {"question": "question", "solution": "solution?", "answer": "answer?"},
}  # fmt: skip
KEPT = ("id", "ID", "unique_id", "level", "subject", "type", "Type", "subfield", "source", "unit",
        "answer_type", "is_multiple_answer")  # fmt: skip
HASHES = re.compile(r"\n?[ \t]*####[ \t]*(?P<answer>[^\n]*?)\s*$")
CALCULATOR = re.compile(r"<<[^<>\n]*>>")
ANSWER = "The answer is \\boxed{{{}}}."  # what GSM8K's `#### N` becomes


def find_layout(
    row: Mapping[str, Any], where: str, fields: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The layout of a row: the one that `fields` give, else the first known one that fits.

    Raises PSRError that names the row's fields where none does.
    """
    if fields:
        if unknown := sorted(set(fields) - set(ROLES)):
            raise PSRError(f"data.fields: unknown {unknown}; name any of {', '.join(ROLES)}")
        if "question" not in fields:
            raise PSRError("data.fields: question is missing, as in {question: problem}")
        return dict(fields)
    for name, layout in LAYOUTS.items():
        if _fits(row, layout) and (name != "GSM8K" or "####" in str(row["answer"])):
            return layout
    raise PSRError(
        f"{where}: no known layout has the fields {sorted(row)}; say which they are in "
        "data.fields, such as {question: problem, solution: solution, answer: answer}"
    )


def _fits(row: Mapping[str, Any], layout: Mapping[str, str]) -> bool:
    try:
        needed = (part for path in layout.values() for part in path.split("+"))
        return all(part.endswith("?") or _value(row, part, "") is not None for part in needed)
    except PSRError:
        return False


def read_problem(
    row: Mapping[str, Any], layout: Mapping[str, str], name: str, source: str, where: str,
    calculator: bool = False,
) -> Problem:  # fmt: skip
    r"""One row as a problem; raises PSRError naming `where` and the field that does not fit.

    GSM8K's `#### N` becomes `The answer is \boxed{N}.`, and its calculator's marks
    (`<<48/2=24>>`) are dropped unless `calculator`; `meta["changed"]` says what was done.
    """
    if set(row) == OWN:
        return from_dict(Problem, dict(row), where)
    texts = {role: _text(row, layout[role], where) for role in layout}
    question = texts["question"].strip()
    if not question:
        raise PSRError(f"{where}: field {layout['question']!r} is empty; drop or repair that row")
    solution, changed = declared(texts.get("solution", ""), calculator)
    answer = texts.get("answer", "").strip()
    if match := HASHES.search(answer):
        answer = match["answer"].replace(",", "")
    meta = {key: row[key] for key in KEPT if isinstance(row.get(key), str | int | float)}
    meta |= {"changed": changed} if changed else {}
    answer = answer or boxed(solution) or ""
    return Problem(id=name, source=source, question=question, answer=answer,
                   solution=solution.strip(), meta=meta)  # fmt: skip


def declared(solution: str, calculator: bool = False) -> tuple[str, list[str]]:
    r"""A solution after the changes that are declared, and their names.

    >>> declared("It is 48/2 = <<48/2=24>>24.\n#### 24")
    ('It is 48/2 = 24.\nThe answer is \\boxed{24}.', ['box', 'calculator'])
    """
    changed = []
    if (match := HASHES.search(solution)) and match["answer"]:
        answer = ANSWER.format(match["answer"].replace(",", ""))
        solution = f"{solution[: match.start()].rstrip()}\n{answer}"
        changed.append("box")
    if not calculator and CALCULATOR.search(solution):
        solution = CALCULATOR.sub("", solution)
        changed.append("calculator")
    return solution, changed


def _text(row: Mapping[str, Any], path: str, where: str) -> str:
    """The text at a path, '' for an optional one that is not there; numbers as they are written."""
    parts = []
    for part in path.split("+"):
        value = _value(row, part, where)
        if isinstance(value, bool) or not isinstance(value, str | int | float | None):
            kind = type(value).__name__
            raise PSRError(
                f"{where}: field {part.rstrip('?')!r} should be text or a number, found {kind}; "
                "repair that row or set data.fields"
            )
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        parts.append("" if value is None else str(value))
    return " ".join(parts)


def _value(row: Mapping[str, Any], path: str, where: str) -> Any:
    """What stands at a path; None for null, and for an optional one that is not there."""
    value: Any = row
    for key in path.rstrip("?").split("."):
        try:
            value = value[int(key)] if isinstance(value, list | tuple) else value[key]
        except (KeyError, IndexError, TypeError, ValueError):
            if path.endswith("?"):
                return None
            raise PSRError(
                f"{where}: no field {path!r}; there are {sorted(row)}; name the right one in "
                "data.fields, such as {question: problem}"
            ) from None
    return value
