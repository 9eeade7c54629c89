"""Accuracy of a model as solver and as judge (paper sections 4 and 5, Tables 1, 3 and 5).

Every answer is kept with its problem's id; every table is made from those rows. Rows are plain
dictionaries, ready for `records.write_jsonl` and `write_csv`.
"""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from io import StringIO
from pathlib import Path
from typing import Any

from psr_lib import shares, tallies
from psr_lib.engines.base import Engine
from psr_lib.grading import Grader
from psr_lib.judge import Call, Judge
from psr_lib.methods import REFERENCE
from psr_lib.prompts import Family
from psr_lib.records import JudgeExample, Problem, PSRError, Question, write_text
from psr_lib.robins import Verdict
from psr_lib.solving import greedy_solutions
from psr_lib.stats import mean_interval, wilson
from psr_lib.steps import split_steps
from psr_lib.traces import SearchTrace

Benchmarks = Mapping[str, Sequence[Problem]]
Row = dict[str, Any]
Skills = Callable[[JudgeExample, str], dict[str, bool]]
MEAN = "mean"
SPENT = ("prefill", "generated", "judged")


def greedy_accuracy(
    engine: Engine,
    family: Family,
    tokenizer: Any,
    benchmarks: Benchmarks,
    max_tokens: int = 512,
    grader: Grader | None = None,
) -> list[Row]:
    """One answer row a problem, solved greedily, all benchmarks in one engine call."""
    flat = [(name, problem) for name, problems in benchmarks.items() for problem in problems]
    questions = [problem.ask() for _, problem in flat]
    tally = tallies.Matches([problem.answer for _, problem in flat], tallies.is_right)
    with tallies.watching(engine, "greedy answers", tally):
        found = greedy_solutions(engine, family, tokenizer, questions, max_tokens)
    rows = [
        answer_row(name, problem, c.text, c.finish, _spent(c))
        for (name, problem), c in zip(flat, found, strict=True)
    ]
    return graded(rows, [problem.answer for _, problem in flat], grader)


def search_rows(
    benchmarks: Benchmarks, traces: Iterable[SearchTrace], grader: Grader | None = None
) -> list[Row]:
    """Answer rows of finished searches, one trace a problem, in order."""
    flat = [(name, problem) for name, problems in benchmarks.items() for problem in problems]
    rows = [
        answer_row(name, problem, t.text, t.status, t.tokens)
        for (name, problem), t in zip(flat, traces, strict=True)
    ]
    return graded(rows, [problem.answer for _, problem in flat], grader)


def judge_accuracy(
    engine: Engine,
    family: Family,
    tokenizer: Any,
    examples: Sequence[JudgeExample],
    settings: Any,
    *,
    seed: int = 0,
    shots: Sequence[JudgeExample] = (),
    skills: Skills | None = None,
) -> list[Row]:
    """One row a held-out pair (Table 3); an unreadable verdict is wrong.

    `shots` are worked examples put before every pair (the paper's M0 gets three). `skills` reads an
    explanation and says which parts of it are right; its answers join the row as `skill_<name>`.
    """
    judge = Judge(engine, family, tokenizer, settings, seed=seed, shots=shots)
    calls = [
        Call(Question(id=e.problem_id, text=e.question), tuple(e.prefix), e.step_a, e.step_b)
        for e in examples
    ]
    wanted = {call: e.better for call, e in zip(calls, examples, strict=True)}  # equal ones once
    tally = tallies.Matches(
        [better for better in wanted.values() for _ in range(settings.votes)],
        lambda better, text: family.verdict(text) == better,
    )
    with tallies.watching(engine, "judging", tally):
        verdicts = judge.ask(calls)
    return [_judge_row(e, v, skills) for e, v in zip(examples, verdicts, strict=True)]


def _judge_row(example: JudgeExample, verdict: Verdict, skills: Skills | None) -> Row:
    found = skills(example, verdict.explanation) if skills else {}
    return {
        "id": example.id,
        "problem_id": example.problem_id,
        "better": example.better,
        "verdict": verdict.answer,
        "correct": verdict.answer == example.better,
        "explanation": verdict.explanation,
        "tokens": verdict.tokens,
        "finish": verdict.finish,
        **{f"skill_{name}": bool(value) for name, value in found.items()},
    }


def judge_summary(rows: Sequence[Row]) -> Row:
    """Judge accuracy with its 95 % interval over problems, the rates beside it, and each skill's
    share."""
    found, total = shares.of_rows(rows), len(rows)
    readable = [row["verdict"] for row in rows if row["verdict"]]
    names = dict.fromkeys(n for row in rows for n in row if n.startswith("skill_"))
    return {
        "n": total,
        **found,
        "first_position": _share(readable.count("A"), len(readable)),
        "unreadable": _share(total - len(readable), total),
        **{n: _share(sum(r[n] for r in rows if n in r), sum(n in r for r in rows)) for n in names},
    }


def accuracy_rows(answers: Sequence[Row]) -> list[Row]:
    """Accuracy of each benchmark with its 95 % Wilson interval, then their unweighted mean.

    `low` and `high` belong to the strict accuracy (the boxed answer equals gold).
    """
    names = list(dict.fromkeys(row["benchmark"] for row in answers))
    rows, counts = [], {}
    for name in names:
        mine = [row for row in answers if row["benchmark"] == name]
        strict, total = sum(row["strict"] for row in mine), len(mine)
        low, high = wilson(strict, total)
        lenient = _share(sum(row["lenient"] for row in mine), total)
        counts[name] = (strict, total)
        rows.append(_summary(name, total, strict / total, low, high, lenient, mine))
    if rows:
        mean, low, high = mean_interval(counts)
        lenient = sum(row["lenient"] for row in rows) / len(rows)
        rows.append(_summary(MEAN, len(answers), mean, low, high, lenient, answers))
    return rows


def _summary(name, total, strict, low, high, lenient, answers) -> Row:
    return {
        "benchmark": name,
        "n": total,
        "accuracy": strict,
        "low": low,
        "high": high,
        "lenient": lenient,
        "steps": _share(sum(row["steps"] for row in answers), total),
        "tokens": _share(sum(row["tokens"] for row in answers), total),
        "cut": _share(sum(row["finish"] == "length" for row in answers), total),
    }


class Table(list):
    """Rows that print as an aligned table."""

    def __str__(self) -> str:
        return format_table(self)


def accuracy_table(run: Any, method: str = "psrlm", name: str = "accuracy") -> Table:
    """Table 1 of a run: one row a model that has `eval/<name>.csv`, M0 first.

    `run` is a run folder or a `RunDir`, which knows whose M1 a control starts from. Columns: model,
    each benchmark, mean, low, high; accuracies in percent. An API model that was evaluated
    (`reference`) is the last row. Raises PSRError if no model has been evaluated.
    """
    folder = Path(getattr(run, "path", run))
    rounds = sorted(folder.glob(f"{method}/M*"), key=lambda p: (len(p.name), p.name))
    trained = hasattr(run, "round") and method != REFERENCE
    first = {"M1": run.round(method, 1)} if trained else {}
    rows = Table()
    homes = {"M0": folder / "base", **first, **{p.name: p for p in rounds}}
    for model, home in [*homes.items(), (REFERENCE, folder / REFERENCE)]:
        path = home / "eval" / f"{name}.csv"
        if path.is_file():
            rows.append({"model": model, **_table_row(read_csv(path), path)})
    if not rows:
        raise PSRError(f"{folder}: no eval/{name}.csv of {method}; run `make iteration N=1` first")
    return rows


def _table_row(rows: Sequence[Row], path: Path) -> Row:
    try:
        cells = {row["benchmark"]: 100 * float(row["accuracy"]) for row in rows}
        mean = next(row for row in rows if row["benchmark"] == MEAN)
        return {**cells, "low": 100 * float(mean["low"]), "high": 100 * float(mean["high"])}
    except (KeyError, ValueError, StopIteration):
        raise PSRError(f"{path}: not an accuracy table; delete it and run 05 again") from None


def format_table(rows: Sequence[Row]) -> str:
    """Rows as aligned text, one decimal, the interval of the mean in brackets."""
    names = list(dict.fromkeys(n for row in rows for n in row if n not in ("model", "low", "high")))
    table = [["model", *names, "95 % interval"]]
    for row in rows:
        cells = [f"{row[n]:.1f}" if n in row else "-" for n in names]
        table.append([row["model"], *cells, f"[{row['low']:.1f}, {row['high']:.1f}]"])
    widths = [max(len(line[k]) for line in table) for k in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in table
    )


def write_csv(path: Path | str, rows: Sequence[Row]) -> None:
    """Write rows as CSV, atomically; columns in the order in which they first appear."""
    out = StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, out.getvalue())


def read_csv(path: Path | str) -> list[Row]:
    """Rows of a CSV file, every value a string."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def is_number(text: str) -> bool:
    """Whether a value of such a file can be read as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def disagreements(answers: Sequence[Row]) -> list[Row]:
    """Answers that only the lenient reading calls right: it took a number that was never boxed."""
    names = ("problem_id", "answer", "strict", "lenient", "finish")
    found = [row for row in answers if row["strict"] != row["lenient"]]
    return [{name: row[name] for name in names} | {"end": row["text"][-80:]} for row in found]


def unparsable_golds(benchmarks: Benchmarks, grader: Grader | None = None) -> list[Row]:
    """Problems whose gold answer no maths can be compared with, and why.

    To an empty one no answer is right; to the others just an equal text.
    """
    with nullcontext(grader) if grader else Grader() as own:
        return [
            {"problem_id": problem.id, "gold": problem.answer,
             "reason": "compared as text only" if problem.answer else "empty"}
            for problems in benchmarks.values() for problem in problems
            if not own.readable(problem.answer)
        ]  # fmt: skip


def outcomes(answers: Sequence[Row], key: str = "strict") -> dict[str, list[int]]:
    """Benchmark -> 0 or 1 a problem, sorted by problem id: what `stats.paired_bootstrap` takes."""
    found: dict[str, list[int]] = {}
    for row in sorted(answers, key=lambda r: (r["benchmark"], r["problem_id"])):
        found.setdefault(row["benchmark"], []).append(int(row[key]))
    return found


def answer_row(
    name: str, problem: Problem, text: str, finish: str, spent: Mapping[str, int]
) -> Row:
    """An answer and what it cost: prompt tokens read, tokens written in solving and in judging."""
    row = {"problem_id": problem.id, "benchmark": name, "text": text}
    cost = {key: spent.get(key, 0) for key in SPENT}
    written = {"tokens": cost["generated"] + cost["judged"]}
    return row | {"steps": len(split_steps(text))} | written | {"finish": finish} | cost


def _spent(completion: Any) -> dict[str, int]:
    return {"prefill": completion.prompt_tokens, "generated": completion.tokens}


def graded(rows: list[Row], golds: Sequence[str], grader: Grader | None = None) -> list[Row]:
    """The rows with what was read from each text and whether it is right."""
    with nullcontext(grader) if grader else Grader() as own:
        grades = own.grade_all([(g, row["text"]) for g, row in zip(golds, rows, strict=True)])
    first = ("problem_id", "benchmark", "text", "answer", "strict", "lenient", "graded_by")
    found = [row | _flat(grade) for row, grade in zip(rows, grades, strict=True)]
    return [{k: row[k] for k in dict.fromkeys((*first, *row))} for row in found]


def _flat(grade: Any) -> Row:
    names = {"answer": grade.answer, "strict": grade.strict, "lenient": grade.lenient}
    return names | {"graded_by": grade.method}


def _share(part: float, whole: int) -> float:
    return part / whole if whole else 0.0
