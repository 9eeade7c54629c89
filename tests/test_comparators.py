"""Greedy, majority vote and best of N at the tokens of a search."""

import pytest
from scripted import Scripted, judge_settings, questions, search_settings

from psr_lib import prompts
from psr_lib.comparators import Comparators, comparator_rows, vote
from psr_lib.engines.base import Completion
from psr_lib.judge import Judge
from psr_lib.records import Problem
from psr_lib.search import step_search

FAMILY = prompts.load("compact")
ASKED = questions(5)


def solver(prompt, seed, k):
    """Ten words a solution, 7 in five of eight; the judge, three words, prefers the larger box."""
    if prompt.endswith("Review:"):
        a, b = (prompt.split(f"\n{slot}: ")[1].split("boxed{")[1][0] for slot in "AB")
        return f"I say [[{'A' if a > b else 'B'}]]", "eos"
    value = [7, 7, 3, 7, 9, 7, 2, 7][seed % 8]
    return f"Step 1: a b c d e f g \\boxed{{{value}}}", "eos"


def made(engine):
    return Comparators(engine, FAMILY, None, search_settings(), seed=1, max_tokens=64)


def test_a_vote_spends_its_budget_and_takes_the_most_frequent_answer():
    engine = Scripted(solver)
    found = made(engine).majority(ASKED, [300] * 5)
    assert [spent["generated"] for _, spent in found] == [300] * 5
    assert all(c.text.endswith("{7}") for c, _ in found)
    assert all(spent["prefill"] > 0 and not spent["judged"] for _, spent in found)
    alone = made(Scripted(solver)).majority(ASKED[2:3], [300])
    assert alone[0] == found[2]


def test_best_of_n_lets_the_judge_choose_within_the_budget():
    engine = Scripted(solver)
    judge = Judge(engine, FAMILY, None, judge_settings())
    found = made(engine).best_of_n(ASKED, [200] * 5, judge)
    totals = [spent["generated"] + spent["judged"] for _, spent in found]
    assert all(abs(total - 200) <= 20 for total in totals)
    assert all(spent["judged"] > 0 for _, spent in found) and judge.memo == {}
    drawn = [[] for _ in ASKED]
    for prompt in engine.asked:
        if prompt.endswith("Review:"):
            place = next(k for k, q in enumerate(ASKED) if q.text in prompt)
            drawn[place] += [part[0] for part in prompt.split("boxed{")[1:]]
    assert [c.text[-2] for c, _ in found] == [max(values) for values in drawn]


def test_a_small_budget_still_gives_an_answer():
    engine = Scripted(solver)
    judge = Judge(engine, FAMILY, None, judge_settings())
    assert made(engine).best_of_n(ASKED, [0] * 5, judge)[0][0].text
    assert all(
        len(c.text.split()) == spent["generated"]
        for c, spent in made(engine).majority(ASKED, [0] * 5)
    )


def test_a_question_without_room_ends():
    engine = Scripted(lambda *_: ("", "overflow"))
    found = made(engine).majority(ASKED, [100] * 5)
    assert [c.finish for c, _ in found] == ["overflow"] * 5


@pytest.mark.parametrize("way", ["majority", "best_of_n"])
def test_solutions_that_a_server_counts_as_no_token_end_too(way):
    engine = Scripted(lambda *_: ("", "eos"))
    judge = Judge(engine, FAMILY, None, judge_settings())
    found = getattr(made(engine), way)(ASKED, [30] * 5, *([judge] if way == "best_of_n" else []))
    assert len(found) == 5 and len(engine.asked) <= 5 * 32


def test_votes_read_equal_numbers_as_equal_and_ignore_missing_boxes():
    texts = ["none", "\\boxed{1,200}", "\\boxed{5}", "\\boxed{1200}", "none", "none"]
    assert vote([Completion(t, 1, "eos", 1) for t in texts]).text == "\\boxed{1,200}"
    assert vote([Completion("none", 1, "eos", 1)]).text == "none"


def test_rows_are_graded_and_say_what_they_cost():
    sets = {"s": [Problem(id=q.id, source="t", question=q.text, answer="7") for q in ASKED]}
    engine = Scripted(solver)
    judge = Judge(engine, FAMILY, None, judge_settings())
    traces = step_search(engine, FAMILY, None, ASKED, search_settings(), judge, 1, select=True)
    budgets = [trace.tokens["generated"] + trace.tokens["judged"] for trace in traces]
    assert min(budgets) > 0
    rows = comparator_rows(sets, made(engine).majority(ASKED, budgets))
    assert all(row["strict"] for row in rows)
    assert all(row["tokens"] == row["generated"] + row["judged"] for row in rows)
    assert all(abs(r["tokens"] - b) <= 10 for r, b in zip(rows, budgets, strict=True))
