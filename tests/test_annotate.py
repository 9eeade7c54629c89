"""Annotation: the initial filter, both teachers, resuming, and the filters after them."""

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from teacher_server import SECRET, TeacherServer, connect, settings

from psr_lib import annotate, annotators, authors, problems, prompts, reviews
from psr_lib.annotate import Answer, Call, Funnel, Judged
from psr_lib.annotators import ApiJudge, OracleJudge
from psr_lib.engines.base import EngineError
from psr_lib.paid import Paid
from psr_lib.problems import LEVELS, make_puzzle
from psr_lib.records import PSRError, StepPair


def pair(k=0, chosen="good", rejected="bad", prefix=(), p=(0.9, 0.1), **changes):
    """A pair of made-up steps."""
    depth = len(prefix) + 1
    steps = [f"Step {depth}: {text}" if text and "Step" not in text else text
             for text in (chosen, rejected)]  # fmt: skip
    values = {"id": f"p{k}", "problem_id": f"q{k}", "question": f"Question {k}?",
              "prefix": list(prefix), "chosen": steps[0], "rejected": steps[1],
              "chosen_final": False, "rejected_final": False,
              "meta": {"v_chosen": p[0], "v_rejected": p[1]}}  # fmt: skip
    return StepPair(**(values | changes))


def judge(messages):
    """A teacher that likes the step with `good` in it, and says more after its verdict."""
    a = messages[0]["content"].split("Assistant A's Next Reasoning Step]\n")[1]
    letter = "A" if "good" in a.split("\n")[0] else "B"
    return f"One of them is good. So [[{letter}]], I think."


@pytest.fixture
def server(monkeypatch):
    """A server with the scripted teacher, and a key in the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with TeacherServer(judge).running() as running:
        yield running


@pytest.fixture
def path(tmp_path):
    """Where answers are kept."""
    return tmp_path / "answers.jsonl"


def teacher_of(server, path, **changes):
    """A teacher that waits little."""
    return ApiJudge(connect(server, path, **changes), prompts.load("paper"))


# --- the initial filter -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        {"chosen": "Step 2: good"},  # not its own number
        {"chosen": "Step 7: y", "prefix": ["Step 1: x"]},
        {"rejected": "Step 1: bad\nStep 2: worse"},  # two steps
        {"rejected": "Step 1:"},  # no body
        {"rejected": "Step 1: good "},  # the same but for blanks
        {"chosen": "so [[A]]"},  # would be read as a verdict
        {"chosen": "Step 2: y", "rejected": "Step 2: z", "prefix": ["Step 1: so [[B]]"]},
        {"question": "Is it [[A]]?"},
    ],
)
def test_ill_formed_pairs_are_dropped(bad):
    funnel, fine = Funnel(), pair(1)
    assert annotate.initial_filter([fine, pair(2, **bad)], 0.0, 1.0, funnel) == [fine]
    assert [row["pairs"] for row in funnel.rows] == [2, 1, 1, 1, 1]


def test_duplicates_are_dropped_whatever_their_order_and_blanks():
    one, same = pair(1), pair(1, chosen="bad", rejected="good  ", id="again")
    other = pair(1, prefix=["Step 1: x"])
    assert annotate.initial_filter([one, same, other], 0.0, 1.0, Funnel()) == [one, other]


def test_the_gap_is_that_of_value():
    near, far = pair(1, p=(0.6, 0.31)), pair(2, p=(0.6, 0.3))
    assert annotate.initial_filter([near, far], 0.3, 1.0, Funnel()) == [far]


def test_the_better_solution_is_among_the_best_by_value():
    found = [pair(k, p=(p, 0.1)) for k, p in enumerate((0.5, 0.9, 0.7, 0.7, 0.3))]
    funnel = Funnel()
    assert annotate.initial_filter(found, 0.0, 0.4, funnel) == found[1:4]  # an equal stays too
    assert funnel.rows[-1]["filter"] == "best 40% by value"
    assert annotate.most_valuable(found, 0.01) == [found[1]]
    assert annotate.most_valuable(found, 1.0) == found and annotate.most_valuable([], 0.5) == []


def test_the_funnel_counts_what_is_left_and_what_the_oracle_confirms():
    funnel = Funnel(lambda found: found.id != "p2")
    funnel.add("all", [pair(k) for k in range(4)])
    funnel.add("some", [pair(1), pair(2)])
    funnel.add("one", [pair(1)])
    assert [(r["pairs"], r["kept"], r["of_all"], r["confirmed"]) for r in funnel.rows] == [
        (4, 1.0, 1.0, 3), (2, 0.5, 0.5, 1), (1, 0.5, 0.25, 1)]  # fmt: skip
    assert [r["confirmed_share"] for r in funnel.rows] == [0.75, 0.5, 1.0]
    empty = Funnel(lambda found: True)
    empty.add("none", [])
    assert empty.rows[0]["kept"] == empty.rows[0]["confirmed_share"] == 0.0


# --- the filters after the teacher --------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "left"),
    [
        ("x [[A]]", "x [[B]]", 3),  # the chosen step twice
        ("x [[B]]", "x [[A]]", 2),  # consistent, against the PRM
        ("x [[A]]", "x [[A]]", 1),  # the first slot twice
        ("x [[B]]", "x [[B]]", 1),
        ("x [[A]]", "who knows", 0),
        ("", "x [[B]]", 0),
        ("[[B]] first, but then [[A]]", "[[A]] no: [[B]]", 3),  # the last mark counts
    ],
)
def test_both_orders_have_to_agree_with_each_other_and_with_the_prm(first, second, left):
    funnel = Funnel()
    funnel.add("in", [pair()])
    row = Judged(pair(), Answer(first), Answer(second))
    assert (row.readable, row.consistent, row.agrees) == (left > 0, left > 1, left > 2)
    assert annotate.final_filters([row], funnel) == ([row] if left == 3 else [])
    assert [r["pairs"] for r in funnel.rows[1:]] == [int(left > k) for k in range(3)]


def kept(count):
    """Pairs that passed every filter."""
    return [Judged(pair(k, prefix=["Step 1: x"]), Answer(f"A is it {k}. [[A]] really"),
                   Answer(f"B is it {k}. [[B]]")) for k in range(count)]  # fmt: skip


def test_rows_in_one_order_are_balanced_and_end_in_their_verdict():
    rows = annotate.eft_rows(kept(7), "eft", 6, "one", lambda k: "AB"[k % 2])
    assert [row.better for row in rows] == list("ABABAB")
    for k, row in enumerate(rows):
        steps = {"A": row.step_a, "B": row.step_b}
        assert steps[row.better].endswith("good") and row.prefix == ["Step 1: x"]
        assert row.explanation == f"{row.better} is it {k}. [[{row.better}]]"
        assert row.id == f"eft/{k}" and row.meta["gap"] == pytest.approx(0.8)


def test_rows_in_both_orders_hold_each_pair_twice():
    rows = annotate.eft_rows(kept(3), "eft", 5, "both", lambda k: "A")
    assert Counter(row.problem_id for row in rows) == {"q0": 2, "q1": 2, "q2": 1}
    assert [row.better for row in rows] == list("ABABA")
    assert (rows[0].step_a, rows[0].step_b) == (rows[1].step_b, rows[1].step_a)


# --- the oracle as teacher ----------------------------------------------------------------------


def laboratory_pairs(count):
    """Pairs of the laboratory, right over wrong, and every fifth with two wrong steps."""
    rng, found = random.Random(4), []
    while len(found) < count:
        puzzle = make_puzzle(LEVELS["mixed"], rng)
        prefix = puzzle.solution()[: rng.randrange(len(puzzle.path()))]
        right = problems.next_step(puzzle, prefix)
        wrong, other = (authors.wrong_step(puzzle, prefix, rng)[0] for _ in range(2))
        chosen = other if len(found) % 5 == 4 else right
        if chosen != wrong:
            found.append(pair(len(found), chosen=chosen, rejected=wrong, prefix=prefix,
                              question=puzzle.text()))  # fmt: skip
    return found


def test_the_oracle_explains_and_judges_in_both_orders():
    pairs, funnel = laboratory_pairs(20), Funnel()
    funnel.add("in", pairs)
    judged = annotate.annotate(pairs, OracleJudge())
    left = annotate.final_filters(judged, funnel)
    assert [row.pair for row in left] == [p for k, p in enumerate(pairs) if k % 5 != 4]
    assert [r["pairs"] for r in funnel.rows] == [20, 16, 16, 16]
    assert annotate.faults(judged) == {"undecided": 8}
    for row in annotate.eft_rows(left, "eft", 99, "both", lambda k: "A"):
        assert all(reviews.skills(row, row.explanation).values())
        assert (
            problems.oracle_verdict(row.question, row.prefix, row.step_a, row.step_b) == row.better
        )


def test_the_oracle_is_silent_where_its_explanation_would_not_show_the_difference():
    puzzle = make_puzzle(LEVELS["easy"], random.Random(1))
    right = problems.next_step(puzzle, [])
    verb = right.split()[3]
    other = right.replace(verb, "gets" if verb != "gets" else "buys", 1)
    assert problems.oracle_verdict(puzzle.text(), [], right, other) == "A"
    judged = annotate.annotate([pair(1, chosen=right, rejected=other, question=puzzle.text())],
                               OracleJudge())  # fmt: skip
    assert annotate.faults(judged) == {"undecided": 2}


def test_the_oracle_sends_an_order_against_it_away():
    wrong_way = [pair(k, chosen=p.rejected, rejected=p.chosen, prefix=p.prefix, question=p.question)
                 for k, p in enumerate(laboratory_pairs(4))]  # fmt: skip
    judged = annotate.annotate(wrong_way, OracleJudge())
    assert all(row.consistent and not row.agrees for row in judged)


# --- the API as teacher -------------------------------------------------------------------------


def test_the_api_is_asked_in_both_orders_with_the_judges_prompt(server, path):
    teacher, pairs = teacher_of(server, path), [pair(k, prefix=["Step 1: y"]) for k in range(5)]
    judged = annotate.annotate(pairs, teacher)
    assert all(row.agrees for row in judged)
    prompt = prompts.load("paper").judge("Question 0?", ["Step 1: y"], *(
        f"Step 2: {word}" for word in ("good", "bad"))).user  # fmt: skip
    asked = [body["messages"][0]["content"] for body in server.seen]
    assert len(asked) == 10 and prompt in asked
    assert judged[0].first.explanation.endswith("[[A]]")


def test_marks_in_steps_are_defused_for_the_teacher(server, path):
    call = Call("Is it [[B]]?", ("Step 1: [[A]]",), "Step 2: [[A]] good", "Step 2: bad")
    prompt = teacher_of(server, path).turn(call)[0]["content"]
    assert "(A) good" in prompt and "Is it (B)?" in prompt
    assert prompt.count("[[A]]") == prompts.load("paper").templates["judge"].count("[[A]]")


def test_faults_in_a_row_change_no_answer(server, path, tmp_path):
    pairs = [pair(k) for k in range(12)]
    plain = annotate.annotate(pairs, teacher_of(server, tmp_path / "plain"))
    server.hang = 0.6
    server.faults = [429, 500, "drop", "hang", "cut", "half", "page", "nonsense", "empty"] * 3
    found = annotate.annotate(pairs, teacher_of(server, path, timeout=0.3, retries=9))
    assert found == plain


def test_an_answer_that_stays_empty_costs_its_pair_only(server, path):
    server.faults = ["empty"] * 3  # the first call of one worker, three tries
    teacher = teacher_of(server, path, retries=2, concurrency=1)
    judged = annotate.annotate([pair(0), pair(1)], teacher)
    assert annotate.faults(judged) == {"empty": 1}
    assert not judged[0].readable and judged[1].agrees


def test_one_refused_call_costs_its_pair_only_and_is_asked_again_next_time(server, path):
    server.faults = [None, None, 400]
    teacher, pairs = teacher_of(server, path, concurrency=1), [pair(k) for k in range(3)]
    judged = annotate.annotate(pairs, teacher)
    assert annotate.faults(judged) == {"refused": 1}
    assert [row.agrees for row in judged] == [True, False, True]
    again = annotate.annotate(pairs, teacher)
    assert all(row.agrees for row in again) and len(server.seen) == 6


@pytest.mark.parametrize("fault", [429, 500, "drop", "hang", 401, 404])
def test_a_lasting_fault_stops_and_keeps_what_was_answered(server, path, fault):
    server.hang, pairs = 0.4, [pair(k) for k in range(6)]
    server.faults = [None] * 5 + [fault] * 99
    with pytest.raises(EngineError, match="teacher server"):
        annotate.annotate(pairs, teacher_of(server, path, retries=1, concurrency=1, timeout=0.2))
    assert len(Paid(path)) == 5 and len(server.faults) > 90


def test_a_key_that_dies_loses_nothing_and_nothing_is_paid_for_twice(server, path):
    pairs = [pair(k) for k in range(40)]
    server.deadline = 30
    with pytest.raises(EngineError, match="refused the key"):
        annotate.annotate(pairs, teacher_of(server, path))
    assert len(Paid(path)) == 30
    server.deadline, before = None, len(server.seen)
    judged = annotate.annotate(pairs, teacher_of(server, path))
    assert len(server.seen) - before == 50 and all(row.agrees for row in judged)
    answered = Counter(body["messages"][0]["content"] for body in server.seen[:30])
    assert max(answered.values()) == 1 and not set(answered) & {
        body["messages"][0]["content"] for body in server.seen[before:]
    }
    assert annotate.annotate(pairs, teacher_of(server, path)) == judged
    assert len(server.seen) - before == 50


KILLED = """
import os, signal, sys
sys.path[:0] = {paths!r}
from test_annotate import annotate, pair, teacher_of
from types import SimpleNamespace
teacher = teacher_of(SimpleNamespace(url={url!r}), {path!r}, concurrency=1)
def progress(done, call, answer):
    if done == 7:
        os.kill(os.getpid(), signal.SIGKILL)
annotate.annotate([pair(k) for k in range(6)], teacher, progress)
"""


def test_a_killed_process_loses_nothing_that_was_answered(server, path):
    here = Path(__file__).parent
    code = KILLED.format(paths=[str(here), str(here.parent)], path=str(path), url=server.url)
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, timeout=120)
    assert done.returncode == -signal.SIGKILL
    kept = len(Paid(path))
    assert 7 <= kept <= len(server.seen) <= kept + 1  # one call may have been under way
    with open(path, "ab") as file:  # the kill may come in the middle of a line
        file.write(path.read_bytes().splitlines()[0][:40])
    before = len(server.seen)
    judged = annotate.annotate([pair(k) for k in range(6)], teacher_of(server, path))
    assert all(row.agrees for row in judged) and len(server.seen) - before == 12 - kept


class Counting:
    """A teacher that counts what it is asked."""

    concurrency = 1

    def __init__(self):
        self.asked = []

    def answer(self, call):
        """Always the first slot."""
        self.asked.append(call)
        return Answer("x [[A]]")


def test_each_call_is_made_once():
    teacher, one = Counting(), pair(1)
    judged = annotate.annotate([one, one, pair(2)], teacher)
    assert len(teacher.asked) == 4 and judged[0] == judged[1]


# --- opened by a stage --------------------------------------------------------------------------


class FakeStage:
    """What `annotators.opened` needs of a stage."""

    def __init__(self, folder, teacher):
        self.preset, self.counts = SimpleNamespace(teacher=teacher), {}
        self.run = SimpleNamespace(paid=folder)

    def count(self, **numbers):
        self.counts |= numbers


def test_the_preset_chooses_the_teacher_and_its_calls_are_counted(server, tmp_path, capsys):
    with annotators.opened(FakeStage(tmp_path, settings(judge="oracle")), []) as teacher:
        assert isinstance(teacher, OracleJudge)
    stage, pairs = FakeStage(tmp_path, settings(server.url)), [pair(k) for k in range(3)]
    with annotators.opened(stage, pairs) as teacher:
        assert isinstance(teacher, ApiJudge)
        annotate.annotate(pairs, teacher)
    assert "teacher: 6 calls to make, 0 answers there" in capsys.readouterr().out
    assert stage.counts["judge_calls"] == stage.counts["judge_answers_kept"] == 6
    assert stage.counts["judge_tokens"] == 6 * 9 and stage.counts["judge_calls_now"] == 6
    again = FakeStage(tmp_path, settings(server.url))  # after a kill: what was paid for is there
    with annotators.opened(again, pairs) as teacher:
        annotate.annotate(pairs, teacher)
    assert again.counts == stage.counts | {"judge_calls_now": 0}


def test_a_stage_says_how_many_answers_are_kept(server, tmp_path):
    server.deadline = 4
    stage, pairs = FakeStage(tmp_path, settings(server.url)), [pair(k) for k in range(3)]
    with (
        pytest.raises(PSRError, match=r"refused the key .*; 4 answers are kept and the next call"),
        annotators.opened(stage, pairs) as teacher,
    ):
        annotate.annotate(pairs, teacher)
