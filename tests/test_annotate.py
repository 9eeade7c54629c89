"""Annotation: the initial filter, both teachers, faults of the API, resuming, and the filters."""

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from teacher_server import TeacherServer

from psr_lib import annotate, authors, problems, prompts, reviews
from psr_lib.annotate import Answer, Call, Funnel, Judged, calls_of, key_of
from psr_lib.annotators import ApiTeacher, OracleTeacher, make_teacher
from psr_lib.journal import Book
from psr_lib.problems import LEVELS, make_puzzle
from psr_lib.records import PSRError, StepPair

SECRET = "sk-secret-0123456789"


def pair(k=0, chosen="good", rejected="bad", prefix=(), p=(0.9, 0.1), **changes):
    """A pair of made-up steps."""
    depth = len(prefix) + 1
    steps = [f"Step {depth}: {text}" if text and "Step" not in text else text
             for text in (chosen, rejected)]  # fmt: skip
    values = {"id": f"p{k}", "problem_id": f"q{k}", "question": f"Question {k}?",
              "prefix": list(prefix), "chosen": steps[0], "rejected": steps[1],
              "chosen_final": False, "rejected_final": False,
              "meta": {"p_chosen": p[0], "p_rejected": p[1]}}  # fmt: skip
    return StepPair(**(values | changes))


def settings(**changes):
    """A preset's `annotate` block for a server on this machine."""
    values = {"teacher": "api", "prompts": "paper", "url": "http://127.0.0.1:9/v1",
              "model": "teacher", "temperature": 1.0, "max_tokens": 50, "limit": "max_tokens",
              "concurrency": 4, "timeout": 5.0, "retries": 4}  # fmt: skip
    return SimpleNamespace(**(values | changes))


def judge(prompt):
    """A teacher that likes the step with `good` in it, and says more after its verdict."""
    a = prompt.split("Assistant A's Next Reasoning Step]\n")[1]
    letter = "A" if "good" in a.split("\n")[0] else "B"
    return f"One of them is good. So [[{letter}]], I think."


@pytest.fixture
def server(monkeypatch):
    """A server with the scripted teacher, and a key in the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with TeacherServer(judge).running() as running:
        yield running


def teacher_of(server, **changes):
    """A teacher that waits little."""
    return ApiTeacher(settings(url=server.url, **changes), backoff=0.01)


@pytest.fixture
def book(tmp_path):
    """An empty book of answers."""
    found = Book(tmp_path / "answers.jsonl")
    yield found
    found.close()


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
    ],
)
def test_ill_formed_pairs_are_dropped(bad):
    funnel, fine = Funnel(), pair(1)
    assert annotate.initial_filter([fine, pair(2, **bad)], 0.0, funnel) == [fine]
    assert [row["pairs"] for row in funnel.rows] == [2, 1, 1, 1]


def test_duplicates_are_dropped_whatever_their_order_and_blanks():
    one, same = pair(1), pair(1, chosen="bad", rejected="good  ", id="again")
    other = pair(1, prefix=["Step 1: x"])
    assert annotate.initial_filter([one, same, other], 0.0, Funnel()) == [one, other]


def test_the_gap_is_that_of_p():
    near, far = pair(1, p=(0.6, 0.31)), pair(2, p=(0.6, 0.3))
    assert annotate.initial_filter([near, far], 0.3, Funnel()) == [far]


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


def test_the_oracle_explains_and_judges_in_both_orders(book):
    pairs, funnel = laboratory_pairs(20), Funnel()
    funnel.add("in", pairs)
    judged = annotate.annotate(pairs, OracleTeacher(), book)
    left = annotate.final_filters(judged, funnel)
    assert [row.pair for row in left] == [p for k, p in enumerate(pairs) if k % 5 != 4]
    assert [r["pairs"] for r in funnel.rows] == [20, 16, 16, 16]
    assert {row.first.fault for row in judged if not row.readable} == {"undecided"}
    for row in annotate.eft_rows(left, "eft", 99, "both", lambda k: "A"):
        assert all(reviews.skills(row, row.explanation).values())
        assert (
            problems.oracle_verdict(row.question, row.prefix, row.step_a, row.step_b) == row.better
        )


def test_the_oracle_sends_an_order_against_it_away(book):
    wrong_way = [pair(k, chosen=p.rejected, rejected=p.chosen, prefix=p.prefix, question=p.question)
                 for k, p in enumerate(laboratory_pairs(4))]  # fmt: skip
    judged = annotate.annotate(wrong_way, OracleTeacher(), book)
    assert all(row.consistent and not row.agrees for row in judged)


# --- the API as teacher -------------------------------------------------------------------------


def test_the_api_is_asked_in_both_orders_with_the_judges_prompt(server, book):
    teacher, pairs = teacher_of(server), [pair(k, prefix=["Step 1: y"]) for k in range(5)]
    judged = annotate.annotate(pairs, teacher, book)
    assert all(row.agrees for row in judged)
    prompt = prompts.load("paper").judge("Question 0?", ["Step 1: y"], *(
        f"Step 2: {word}" for word in ("good", "bad"))).user  # fmt: skip
    asked = [body["messages"][0]["content"] for body in server.seen]
    assert len(asked) == 10 and prompt in asked
    assert all(body["max_tokens"] == 50 and "temperature" not in body for body in server.seen)
    assert {h["Authorization"] for h in server.headers} == {f"Bearer {SECRET}"}
    first = judged[0].first
    assert (first.prompt_tokens, first.tokens) == (len(prompt.split()), 9)
    assert first.letters == len(prompt) and first.explanation.endswith("[[A]]")


def test_marks_in_steps_are_defused_for_the_teacher(server):
    call = Call("Is it [[B]]?", ("Step 1: [[A]]",), "Step 2: [[A]] good", "Step 2: bad")
    prompt = teacher_of(server).prompt(call)
    assert "(A) good" in prompt and "Is it (B)?" in prompt
    assert prompt.count("[[A]]") == prompts.load("paper").templates["judge"].count("[[A]]")


def test_settings_reach_the_request(server, book):
    teacher = teacher_of(server, temperature=0.2, limit="max_completion_tokens", max_tokens=9)
    annotate.annotate([pair()], teacher, book)
    assert {(b["temperature"], b["max_completion_tokens"]) for b in server.seen} == {(0.2, 9)}


FAULTS = [429, 500, "drop", "hang", "cut", "page", "nonsense", "empty", 503]


@pytest.mark.parametrize("fault", FAULTS)
def test_every_passing_fault_is_tried_again(server, book, fault):
    server.hang, server.faults = 0.6, [fault] * 2
    teacher = teacher_of(server, timeout=0.3, concurrency=1)
    judged = annotate.annotate([pair()], teacher, book)
    assert judged[0].agrees and not server.faults and len(book) == 2


def test_all_faults_in_a_row_change_no_answer(server, book, tmp_path):
    pairs = [pair(k) for k in range(12)]
    plain = annotate.annotate(pairs, teacher_of(server), Book(tmp_path / "plain"))
    server.hang, server.faults = 0.6, FAULTS * 3
    found = annotate.annotate(pairs, teacher_of(server, timeout=0.3, retries=9), book)
    assert [(r.first.text, r.second.text) for r in found] == [
        (r.first.text, r.second.text) for r in plain
    ]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("empty", "empty"),
        ("nonsense", "no chat completion"),
        ("cut", "no JSON"),
        ("page", "no JSON"),
    ],
)
def test_an_answer_that_stays_odd_is_counted_and_the_pair_is_dropped(server, book, fault, words):
    server.faults = [fault] * 3  # the first call of one worker, three tries
    teacher = teacher_of(server, retries=2, concurrency=1)
    judged = annotate.annotate([pair(0), pair(1)], teacher, book)
    assert judged[0].first.fault == words and not judged[0].readable and judged[1].agrees
    assert len(book) == 4  # it was paid for, so it is not asked again
    if fault == "empty":
        assert judged[0].first.prompt_tokens == 3 * judged[1].first.prompt_tokens


def test_an_answer_cut_by_the_limit_is_not_paid_for_twice(server, book, monkeypatch):
    from teacher_server import answer

    monkeypatch.setattr(server, "found", lambda path, body, fault: (200, answer("", 7, "length")))
    judged = annotate.annotate([pair()], teacher_of(server), book)
    assert "cut by the limit" in judged[0].first.fault and judged[0].first.prompt_tokens == 7


@pytest.mark.parametrize("fault", [429, 500, "drop", "hang"])
def test_a_lasting_fault_stops_in_one_line_and_keeps_what_was_answered(server, book, fault):
    server.hang, pairs = 0.4, [pair(k) for k in range(6)]
    server.faults = [None] * 5 + [fault] * 99
    with pytest.raises(PSRError) as caught:
        annotate.annotate(pairs, teacher_of(server, retries=1, concurrency=1, timeout=0.2), book)
    message = str(caught.value)
    assert "5 of 12 answers are kept" in message and "annotate server" in message
    assert "\n" not in message and SECRET not in message and len(book) == 5


def test_a_key_that_dies_loses_nothing_and_nothing_is_paid_for_twice(server, tmp_path):
    pairs, path = [pair(k) for k in range(40)], tmp_path / "answers.jsonl"
    server.deadline = 30
    with pytest.raises(PSRError, match="refused the key") as caught:
        annotate.annotate(pairs, teacher_of(server), Book(path))
    assert "30 of 80 answers are kept" in str(caught.value) and len(Book(path)) == 30
    server.deadline, before = None, len(server.seen)
    judged = annotate.annotate(pairs, teacher_of(server), Book(path))
    assert len(server.seen) - before == 50 and all(row.agrees for row in judged)
    answered = Counter(body["messages"][0]["content"] for body in server.seen[:30])
    assert max(answered.values()) == 1 and not set(answered) & {
        body["messages"][0]["content"] for body in server.seen[before:]
    }
    assert annotate.annotate(pairs, teacher_of(server), Book(path)) == judged
    assert len(server.seen) - before == 50


KILLED = """
import os, signal, sys
sys.path[:0] = {paths!r}
from test_annotate import Answer, Book, annotate, pair
class Deadly:
    identity, concurrency, count = {{"n": 1}}, 1, 0
    def answer(self, call):
        self.count += 1
        if self.count == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return Answer("x [[A]]")
annotate.annotate([pair(k) for k in range(6)], Deadly(), Book({path!r}))
"""


class Counting:
    """A teacher that counts what it is asked."""

    identity, concurrency = {"n": 1}, 1

    def __init__(self):
        self.asked = []

    def answer(self, call):
        """Always the first slot."""
        self.asked.append(call)
        return Answer("x [[A]]")


def test_a_killed_process_loses_nothing_that_was_answered(tmp_path):
    path, here = tmp_path / "answers.jsonl", Path(__file__).parent
    code = KILLED.format(paths=[str(here), str(here.parent)], path=str(path))
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, timeout=120)
    assert done.returncode == -signal.SIGKILL
    with open(path, "ab") as file:  # the kill may come in the middle of a line
        file.write(path.read_bytes().splitlines()[0][:40])
    teacher = Counting()
    judged = annotate.annotate([pair(k) for k in range(6)], teacher, Book(path))
    assert len(judged) == 6 and len(teacher.asked) == 12 - 7


def test_pairs_that_change_ask_only_for_what_is_new(book):
    teacher = Counting()
    annotate.annotate([pair(k) for k in range(4)], teacher, book)
    annotate.annotate([pair(k) for k in range(2, 6)], teacher, book)
    assert len(teacher.asked) == 12 == len(set(teacher.asked))


def test_an_answer_belongs_to_its_teacher_and_its_order():
    one, two = calls_of(pair())
    first, other = Counting(), Counting()
    other.identity = {"n": 2}
    assert len({key_of(first, one), key_of(first, two), key_of(other, one)}) == 3


def test_a_damaged_book_names_the_line_and_stays_as_it_is(tmp_path):
    path = tmp_path / "answers.jsonl"
    book = Book(path)
    book.add("k", {"text": "x"})
    book.close()
    text = path.read_bytes() + b"nonsense\n" + path.read_bytes()
    path.write_bytes(text)
    with pytest.raises(PSRError, match=r"answers.jsonl:2: damaged answer; delete that line"):
        Book(path)
    assert path.read_bytes() == text


# --- refusals -----------------------------------------------------------------------------------


def test_one_refused_call_costs_its_pair_only_and_is_asked_again_next_time(server, book):
    server.faults = [None, None, 400]
    teacher, pairs = teacher_of(server, concurrency=1), [pair(k) for k in range(3)]
    judged = annotate.annotate(pairs, teacher, book)
    assert judged[1].first.fault == "refused: out of luck" and len(book) == 5
    assert [row.agrees for row in judged] == [True, False, True]
    again = annotate.annotate(pairs, teacher, book)
    assert all(row.agrees for row in again) and len(server.seen) == 6


def test_a_teacher_that_refuses_every_call_is_asked_no_further(server, book):
    server.faults, server.tells = [400] * 500, "unsupported parameter: temperature"
    with pytest.raises(PSRError, match=r"refuses every call .*unsupported parameter"):
        annotate.annotate([pair(k) for k in range(50)], teacher_of(server), book)
    assert len(server.faults) > 500 - 20 and len(book) == 0


@pytest.mark.parametrize(
    ("fault", "words"), [(401, "OPENAI_API_KEY"), (402, "says 402"), (404, "404")]
)
def test_what_concerns_every_call_stops_at_once(server, book, fault, words):
    server.faults, server.tells = [fault] * 99, f"odd {SECRET}"
    with pytest.raises(PSRError, match=words) as caught:
        annotate.annotate([pair(k) for k in range(9)], teacher_of(server, concurrency=1), book)
    assert len(server.faults) == 98 and SECRET not in str(caught.value)


def test_no_key_is_in_the_identity_nor_in_the_book(server, book):
    teacher = teacher_of(server)
    annotate.annotate([pair()], teacher, book)
    assert SECRET not in str(teacher.identity) and SECRET not in book.path.read_text()


def test_the_preset_chooses_the_teacher(server):
    assert isinstance(make_teacher(settings(teacher="oracle")), OracleTeacher)
    assert isinstance(make_teacher(settings(url=server.url)), ApiTeacher)
    with pytest.raises(PSRError, match=r"annotate\.url"):
        make_teacher(settings(url="ftp://somewhere"))
