"""Answer rows, judge rows and the tables made from them."""

import pytest
from scripted import Scripted, judge_settings, search_settings

from psr_lib import prompts
from psr_lib.evaluation import (
    accuracy_rows,
    accuracy_table,
    answer_row,
    disagreements,
    greedy_accuracy,
    judge_accuracy,
    judge_summary,
    outcomes,
    read_csv,
    search_rows,
    unparsable_golds,
    write_csv,
)
from psr_lib.judge import Judge
from psr_lib.records import JudgeExample, Problem, PSRError, read_jsonl, write_jsonl
from psr_lib.run_dirs import RunDir
from psr_lib.search import step_search
from psr_lib.stats import wilson

FAMILY = prompts.load("compact")
SETS = {
    name: [
        Problem(id=f"{name}/{k}", source="t", question=f"{name} {k}?", answer=str(k))
        for k in range(n)
    ]
    for name, n in (("easy", 4), ("big", 2))
}


def solver(prompt, seed, k):
    """Right on `easy` (unboxed for 3), always 0 on `big`."""
    name, number = prompt.split("?")[0].split()[-2:]
    if name == "big":
        return "Step 1: so \\boxed{0}.", "eos"
    return (
        (f"Step 1: x.\nStep 2: \\boxed{{{number}}}.", "eos")
        if number != "3"
        else ("so 3", "length")
    )


def test_greedy_rows_hold_every_answer_and_sum_up(tmp_path):
    rows = greedy_accuracy(Scripted(solver), FAMILY, None, SETS, 64)
    assert [r["problem_id"] for r in rows] == [p.id for ps in SETS.values() for p in ps]
    assert [(r["strict"], r["lenient"]) for r in rows[:4]] == [(True, True)] * 3 + [(False, True)]
    assert (rows[0]["answer"], rows[0]["steps"], rows[3]["finish"]) == ("0", 2, "length")
    write_jsonl(tmp_path / "answers.jsonl", rows)
    assert read_jsonl(tmp_path / "answers.jsonl") == rows
    easy, big, mean = accuracy_rows(rows)
    assert (easy["benchmark"], easy["n"], easy["accuracy"], easy["lenient"]) == (
        "easy",
        4,
        0.75,
        1.0,
    )
    assert (easy["low"], easy["high"]) == wilson(3, 4)
    assert (big["accuracy"], mean["accuracy"], mean["benchmark"]) == (0.5, 0.625, "mean")
    assert mean["low"] < 0.625 < mean["high"] and easy["cut"] == 0.25
    assert outcomes(rows) == {"big": [1, 0], "easy": [1, 1, 1, 0]}
    assert accuracy_rows([]) == []


def test_table_of_a_run(tmp_path):
    rows = accuracy_rows(greedy_accuracy(Scripted(solver), FAMILY, None, SETS, 64))
    with pytest.raises(PSRError, match="make iteration"):
        accuracy_table(tmp_path)
    for place in ("base", "psrlm/M2", "psrlm/M1", "srlm/M1"):
        write_csv(tmp_path / place / "eval" / "accuracy.csv", rows)
    assert read_csv(tmp_path / "base/eval/accuracy.csv")[0]["benchmark"] == "easy"
    table = accuracy_table(tmp_path)
    assert [row["model"] for row in table] == ["M0", "M1", "M2"]
    assert (table[0]["easy"], table[0]["mean"]) == (75.0, 62.5)
    write_csv(tmp_path / "reference" / "eval" / "accuracy.csv", rows)
    assert [row["model"] for row in accuracy_table(tmp_path)][2:] == ["M2", "reference"]
    api = RunDir("tiny", 0, tmp_path)
    write_csv(api.path / "reference" / "eval" / "accuracy.csv", rows)
    assert [row["model"] for row in accuracy_table(api, "reference")] == ["reference"]
    lines = str(table).splitlines()
    assert lines[0].split()[:4] == ["model", "easy", "big", "mean"] and "62.5" in lines[1]
    (tmp_path / "base/eval/accuracy.csv").write_text("benchmark,accuracy\neasy,x\n")
    with pytest.raises(PSRError, match=r"base/eval/accuracy\.csv"):
        accuracy_table(tmp_path)


def test_the_table_of_a_control_begins_with_the_m1_that_it_starts_from(tmp_path):
    run, rows = RunDir("tiny", 0, tmp_path), {}
    right = {"base": 0, "psrlm/M1": 1, "srlm/M1": 2, "gold-judge/M2": 3, "srlm/M2": 4}
    for place, count in right.items():
        answers = [answer_row("easy", p, "", "eos", {}) for p in SETS["easy"]]
        rows[place] = [dict(row, strict=k < count, lenient=True) for k, row in enumerate(answers)]
        write_csv(run.path / place / "eval" / "accuracy.csv", accuracy_rows(rows[place]))
    found = {m: [(row["model"], row["easy"]) for row in accuracy_table(run, m)]
             for m in ("gold-judge", "srlm", "ift-more")}  # fmt: skip
    assert found["gold-judge"] == [("M0", 0), ("M1", 25), ("M2", 75)]
    assert found["srlm"] == [("M0", 0), ("M1", 50), ("M2", 100)]
    assert found["ift-more"] == [("M0", 0), ("M1", 25)]


def example(k):
    """A pair whose better step is A for even k."""
    better = "BA"[k % 2 == 0]
    parts = {"step_a": f"Step 1: a{k}.", "step_b": f"Step 1: b{k}.", "better": better}
    return JudgeExample(
        id=f"e/{k}", problem_id=f"p/{k}", question=f"q {k}?", prefix=[], explanation="why", **parts
    )


def test_judge_rows_shots_and_skills():
    def script(prompt, seed, k):
        number = int(prompt.split("A: Step 1: a")[-1].split(".")[0])
        return (["so [[A]]", "so [[A]]", "?"][number % 3], "eos")

    engine = Scripted(script)
    shots = [example(90), example(91)]
    rows = judge_accuracy(
        engine,
        FAMILY,
        None,
        [example(k) for k in range(6)],
        judge_settings(),
        shots=shots,
        skills=lambda e, text: {"copy": "so" in text},
    )
    assert [r["verdict"] for r in rows] == ["A", "A", None, "A", "A", None]
    assert [r["correct"] for r in rows] == [True, False, False, False, True, False]
    assert all(p.count("why") == 2 and p.index("q 90?") < p.index("q 91?") for p in engine.asked)
    summary = judge_summary(rows)
    assert (summary["n"], summary["accuracy"], summary["first_position"]) == (6, 2 / 6, 1.0)
    assert (summary["unreadable"], summary["skill_copy"]) == (2 / 6, 4 / 6)
    assert (summary["low"], summary["high"]) == wilson(2, 6)
    plain = Scripted(script)
    judge_accuracy(plain, FAMILY, None, [example(0)], judge_settings())
    assert "why" not in plain.asked[0]


def test_search_rows_follow_the_chosen_path():
    def script(prompt, seed, k):
        if prompt.endswith("Review:"):
            a, b = (prompt.split(f"\n{slot}: ")[1].split("\n")[0] for slot in "AB")
            return ("[[A]]" if a > b else "[[B]]"), "eos"
        return f"Step 1: so \\boxed{{{k}}}.", "eos"

    engine = Scripted(script)
    judge = Judge(engine, FAMILY, None, judge_settings())
    search = search_settings(width=3)
    asked = [problem.ask() for problems in SETS.values() for problem in problems]
    traces = step_search(engine, FAMILY, None, asked, search, judge, 0, select=True)
    rows = search_rows(SETS, traces)
    assert [row["answer"] for row in rows] == ["2"] * 6 and len(traces) == 6
    assert [row["strict"] for row in rows] == [False, False, True, False, False, False]
    assert rows[0]["finish"] == "complete" and rows[0]["tokens"] > 0


def test_answers_that_only_the_lenient_reading_calls_right_are_listed():
    rows = greedy_accuracy(Scripted(solver), FAMILY, None, SETS)
    assert [(row["problem_id"], row["answer"], row["end"]) for row in disagreements(rows)] == [
        ("easy/3", "3", "so 3")
    ]


def test_golds_that_no_maths_can_be_compared_with_are_listed():
    golds = {
        "a/0": "12",
        "a/1": "",
        "a/2": "\\frac{1}{2}",
        "a/3": "$x$, where $x$ is any such number",
    }
    rows = [Problem(id=k, source="t", question="?", answer=gold) for k, gold in golds.items()]
    found = unparsable_golds({"a": rows})
    assert [(row["problem_id"], row["reason"]) for row in found] == [
        ("a/1", "empty"), ("a/3", "compared as text only")]  # fmt: skip
