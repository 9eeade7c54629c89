"""Test-time search beside greedy decoding, majority vote and best-of-N on the same problems.

Majority and best-of-N spend on each problem what its search spent (see `comparators`), so the rows
say what the tokens bought.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from psr_lib import evaluation, prompts, tallies
from psr_lib.comparators import Comparators, comparator_rows
from psr_lib.engines.base import Engine
from psr_lib.evaluation import Row
from psr_lib.judge import Judge
from psr_lib.records import Problem, write_jsonl

GREEDY, SEARCH, MAJORITY, BEST = "greedy", "search", "majority", "best-of-N"


def compare(
    stage: Any, engine: Engine, judge: Judge, sets: Mapping[str, Sequence[Problem]],
    greedy: Sequence[Row], searched: Sequence[Row],
) -> list[Row]:  # fmt: skip
    """The four ways on the first `lab.compare_size` problems of each searched set, as a table.

    `greedy` and `searched` hold answers to at least these problems. Answers go to
    `ways_answers.jsonl.gz`, the table to `ways.csv`; [] where nothing was searched.
    """
    places = {(row["benchmark"], row["problem_id"]): row for row in searched}
    small = {
        name: [p for p in problems[: stage.preset.lab.compare_size] if (name, p.id) in places]
        for name, problems in sets.items()
    }
    flat = [(name, problem) for name, problems in small.items() for problem in problems]
    if not flat:
        return []
    wanted = {(name, problem.id) for name, problem in flat}
    budgets = [places[name, problem.id]["tokens"] for name, problem in flat]
    found = {
        GREEDY: [row for row in greedy if (row["benchmark"], row["problem_id"]) in wanted],
        SEARCH: [places[name, problem.id] for name, problem in flat],
        **_at_equal_tokens(stage, engine, judge, small, budgets),
    }
    rows = [{"way": way, **row} for way, answers in found.items() for row in answers]
    write_jsonl(stage.output("ways_answers.jsonl.gz"), rows)
    table = way_rows(rows)
    evaluation.write_csv(stage.output("ways.csv"), table)
    return table


def _at_equal_tokens(
    stage: Any, engine: Engine, judge: Judge, sets: Mapping[str, Sequence[Problem]],
    budgets: Sequence[int],
) -> dict[str, list[Row]]:  # fmt: skip
    preset = stage.preset
    ways = Comparators(engine, prompts.load(preset.prompts), engine.tokenizer, preset.search,
                       stage.seed, preset.eval.max_tokens)  # fmt: skip
    questions = [problem.ask() for problems in sets.values() for problem in problems]
    with tallies.watching(engine, "majority and best-of-N"):
        found = {MAJORITY: ways.majority(questions, budgets),
                 BEST: ways.best_of_n(questions, budgets, judge)}  # fmt: skip
    rows = {way: comparator_rows(sets, answers) for way, answers in found.items()}
    for name in ("generated", "judged"):
        stage.tokens(**{name: sum(row[name] for answers in rows.values() for row in answers)})
    return rows


def way_rows(rows: Sequence[Row]) -> list[Row]:
    """Accuracy of each way on each set and on average, with 95 % intervals and what it spent.

    `of_search` is its tokens (solving and judging) as a share of the search's.
    """
    table = []
    for way in dict.fromkeys(row["way"] for row in rows):
        mine = evaluation.accuracy_rows([row for row in rows if row["way"] == way])
        table += [{"way": way, **row} for row in mine]
    spent = {row["benchmark"]: row["tokens"] for row in table if row["way"] == SEARCH}
    for row in table:
        row["of_search"] = row["tokens"] / max(1e-9, spent.get(row["benchmark"], 0))
    return table
