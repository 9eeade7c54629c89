"""Search, majority and best-of-N at equal tokens, on the same problems."""

from types import SimpleNamespace

import pytest
from scripted import Scripted, judge_settings, search_settings

from psr_lib import evaluation, prompts, ways
from psr_lib.judge import Judge
from psr_lib.records import Problem, read_jsonl, seed_of
from psr_lib.search import step_search

FAMILY = prompts.load("compact")
SETS = {name: [Problem(id=f"{name}/{k}", source="t", question=f"{name} {k}?", answer="7")
               for k in range(size)] for name, size in (("easy", 6), ("big", 5))}  # fmt: skip


def solver(prompt, seed, k):
    """Solutions of 6 to 19 words, right in three of five; verdicts of 3 words for the box 7."""
    if prompt.endswith("Review:"):
        a, b = (prompt.split(f"\n{slot}: ")[1].split("boxed{")[1][0] for slot in "AB")
        return f"I say [[{'A' if (a == '7') >= (b == '7') else 'B'}]]", "eos"
    noise = seed_of(prompt, seed, k)
    words = "w " * (3 + noise // 7 % 14)
    return f"Step 1: {words}\\boxed{{{7 if noise % 5 < 3 else noise % 5}}}", "eos"


@pytest.fixture
def made(tmp_path):
    """A stage, its answers to all problems and those of a search on the first four of each set."""
    engine, spent = Scripted(solver), {"generated": 0, "judged": 0}
    engine.tokenizer = None
    stage = SimpleNamespace(
        seed=0, output=lambda name: tmp_path / name, spent=spent,
        tokens=lambda **more: spent.update({k: spent[k] + v for k, v in more.items()}),
        preset=SimpleNamespace(prompts="compact", search=search_settings(),
                               eval=SimpleNamespace(max_tokens=64),
                               lab=SimpleNamespace(compare_size=3)),
    )  # fmt: skip
    judge = Judge(engine, FAMILY, None, judge_settings())
    greedy = evaluation.greedy_accuracy(engine, FAMILY, None, SETS, 64)
    few = {name: problems[:4] for name, problems in SETS.items()}
    asked = [problem.ask() for problems in few.values() for problem in problems]
    traces = step_search(engine, FAMILY, None, asked, search_settings(), judge, 1, select=True)
    rows = evaluation.search_rows(few, traces)
    return SimpleNamespace(stage=stage, engine=engine, judge=judge, greedy=greedy, searched=rows,
                           folder=tmp_path)  # fmt: skip


def compare(made, **changes):
    return ways.compare(made.stage, made.engine, made.judge, SETS, made.greedy,
                        changes.get("searched", made.searched))  # fmt: skip


def test_all_ways_answer_the_same_problems(made):
    compare(made)
    rows = read_jsonl(made.folder / "ways_answers.jsonl.gz")
    asked = {way: [row["problem_id"] for row in rows if row["way"] == way]
             for way in ("greedy", "search", "majority", "best-of-N")}  # fmt: skip
    wanted = [f"{name}/{k}" for name in SETS for k in range(3)]
    assert set(map(tuple, asked.values())) == {tuple(wanted)} and len(rows) == 24


def test_tokens_are_those_of_the_search_of_each_problem(made):
    """Within one solution a problem (a solution here has at most 19 words, a verdict 3)."""
    table = compare(made)
    rows = read_jsonl(made.folder / "ways_answers.jsonl.gz")
    spent = {(row["way"], row["problem_id"]): row["tokens"] for row in rows}
    for way, most in (("majority", 19), ("best-of-N", 19 + 40)):
        for (one, problem), tokens in spent.items():
            if one == way:
                assert abs(tokens - spent["search", problem]) <= most
    means = {row["way"]: row for row in table if row["benchmark"] == "mean"}
    assert abs(means["majority"]["of_search"] - 1) < 0.1 and means["search"]["of_search"] == 1
    assert abs(means["best-of-N"]["of_search"] - 1) < 0.15 and means["greedy"]["of_search"] < 0.5


def test_costs_are_counted_and_the_table_is_written(made):
    table = compare(made)
    rows = read_jsonl(made.folder / "ways_answers.jsonl.gz")
    new = [row for row in rows if row["way"] in ("majority", "best-of-N")]
    for name in ("generated", "judged"):
        assert made.stage.spent[name] == sum(row[name] for row in new) > 0
    assert len(evaluation.read_csv(made.folder / "ways.csv")) == len(table) == 4 * 3
    for row in table:
        assert row["low"] <= row["accuracy"] <= row["high"]


def test_without_a_search_there_is_nothing_to_compare(made):
    made.stage.preset.lab.compare_size = 0
    assert compare(made) == [] and not (made.folder / "ways.csv").exists()
    made.stage.preset.lab.compare_size = 3
    assert compare(made, searched=[]) == []
