"""Answers against gold: the measured table of Math-Verify, exact numbers, hard limits."""

import time
from fractions import Fraction

import pytest

from psr_lib import grading
from psr_lib.grading import Grade, Grader, last_number, plain_number


@pytest.fixture(scope="module")
def grader():
    with Grader() as made:
        yield made


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        ("50\\%", "0.5", True),  # both readings of a percentage are accepted
        ("50\\%", "50", True),
        ("50\\%", "51", False),
        ("\\text{Tuesday}", "Tuesday", True),
        ("\\text{Tuesday}", "Monday", False),
        ("(A)", "(A)", True),
        ("(A)", "(B)", False),
        ("(1,2)", "(1,2)", True),
        ("(1,2)", "(2,1)", False),
        ("\\{1,2\\}", "2,1", True),
        ("3.14159265", "\\pi", True),  # six decimals are compared
        ("0.333333", "1/3", True),
        ("\\frac{1}{2}", "0.5", True),
        ("\\frac{1}{2}", "\\frac{2}{4}", True),
        ("x^2+1", "1+x^2", True),
        ("2\\sqrt{3}", "\\sqrt{12}", True),
        ("2\\sqrt{3}", "\\sqrt{13}", False),
        ("12", "\\notacommand{", False),
    ],
)
def test_equality(grader, gold, answer, equal):
    assert grader.equal(gold, answer) is equal


@pytest.mark.parametrize(
    ("gold", "text", "answer", "strict", "lenient"),
    [
        ("3", "The 3 apples cost 12 dollars", "12", False, False),
        ("12", "The 3 apples cost 12 dollars", "12", False, True),
        ("6", "answer 4, so 5 is wrong. 6", "6", False, True),
        ("4", "\\boxed{5} no, \\boxed{4}", "4", True, True),
        ("4", "\\boxed{5} then 4", "5", False, False),
        ("1234", "\\boxed{1,234}", "1,234", True, True),
        ("1234", "so 1,234.", "1,234", False, True),
        ("7", "\\boxed{7.0}", "7.0", True, True),
        ("0.1", "\\boxed{0.10000000001}", "0.10000000001", False, False),
        ("-3", "it is -3", "-3", False, True),
        ("4", "no number here", None, False, False),
        ("4", "", None, False, False),
        ("4", "\\boxed{}", "", False, False),
        ("4", "\\boxed{4", "4", False, True),
    ],
)
def test_strict_and_lenient(grader, gold, text, answer, strict, lenient):
    grade = grader.grade(gold, text)
    assert (grade.answer, grade.strict, grade.lenient) == (answer, strict, lenient)


def test_plain_numbers_are_exact():
    assert plain_number("1,234.50") == Fraction(2469, 2)
    assert plain_number(" $12.$ ") == 12 and plain_number("+.5") == Fraction(1, 2)
    assert plain_number("123456789012345678901") != plain_number("123456789012345678902")
    for odd in ("", ".", "1,23", "1/2", "12 apples", "1e5", "--1", "(1,2)", "\u0661"):
        assert plain_number(odd) is None
    assert last_number("a-1 b .5") == ".5" and last_number("none") is None


def test_plain_numbers_start_no_worker():
    with Grader() as fresh:
        assert fresh.grade("85", "Step 1: so \\boxed{85}.") == Grade("85", True, True, "number")
        assert fresh._started == []


def test_gold_that_cannot_be_read_is_told(grader):
    assert grader.readable("12") and grader.readable("\\frac{1}{2}")
    assert not grader.readable("\\text{}")


def test_rows_keep_their_order_and_answers_are_remembered(grader):
    rows = [("\\frac{1}{2}", f"\\boxed{{{k}/8}}") for k in range(1, 8)]
    assert [g.strict for g in grader.grade_all(rows)] == [k == 4 for k in range(1, 8)]
    started = time.perf_counter()
    grader.grade_all(rows * 50)
    assert time.perf_counter() - started < 0.5


def test_a_hanging_comparison_is_killed_and_the_next_one_works(monkeypatch):
    slow = "import sys, time; print('{}', flush=True)\nfor _ in sys.stdin: time.sleep(60)"
    real = grading.subprocess.Popen
    hang = [True]

    def popen(command, **settings):
        return real([command[0], "-c", slow] if hang[0] else command, **settings)

    monkeypatch.setattr(grading.subprocess, "Popen", popen)
    with Grader(seconds=0.3, workers=1) as grader:
        started = time.perf_counter()
        grade = grader.grade("x", "\\boxed{y}")
        assert grade == Grade("y", False, False, "timeout") and grader.timeouts == 1
        assert time.perf_counter() - started < 5 and grader._started == []
        hang[0], grader.seconds = False, 10
        assert grader.equal("x+1", "1+x")


def test_a_worker_that_dies_is_replaced(grader):
    grader.equal("y", "z")
    for worker in grader._started:
        worker.process.kill()
        worker.process.wait()
    assert grader.equal("p+q", "q+p") and grader.timeouts == 0
