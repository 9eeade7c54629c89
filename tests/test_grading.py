"""Answers against gold: a table of formats, exact numbers, hostile answers, hard limits."""

import json
import random
import signal
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


FORMATS = [
    # fractions, decimals, powers
    ("1/2", "\\dfrac12", True), ("\\frac32", "1\\frac{1}{2}", True), ("\\frac32", "1 1/2", True),
    ("-\\frac{1}{2}", "\\frac{-1}{2}", True), ("\\frac{1}{2}", "-\\frac{1}{2}", False),
    ("2/3", "0.67", False), ("2/3", "0.666667", True), ("14", "\\frac{14}{1}", True),
    ("1000000", "1\\times 10^{6}", True), ("e^{-1}", "1/e", True), ("5040", "7!", True),
    ("2\\sqrt3", "3.464", False), ("025", "25", True), ("7", "7!", False), ("-3", "\u22123", True),
    # commas and blanks within a number
    ("1234", "1,234", True), ("1234", "1{,}234", True), ("1234", "1\\,234", True),
    ("12345", "12\\!345", True), ("1,234", "1235", False), ("4", "\uff14", True),
    # units, money, words
    ("5", "5\\text{ cm}", True), ("5", "5 cm", True), ("5", "\\$5.00", True),
    ("5", "5 dollars", True),
    ("5.4 \\text{ cents}", "5.4", True), ("864 \\mbox{ inches}^2", "864", True),
    ("864 \\mbox{ inches}^2", "864 \\text{ square inches}", True), ("5000000", "5 million", False),
    ("864 \\mbox{ inches}^2", "864 \\text{ inches}^3", False), ("6", "6x", False),
    # \text{}, choices, sentences
    ("\\text{Tuesday}", "Tuesday", True), ("\\text{(B)}", "B", True), ("B", "\\text{(B)}", True),
    ("B", "C", False), ("\\text{east}", "\\text{west}", False), ("7", "\\mathbf{7}", True),
    ("12 square feet per minute", "12", True),
    ("$f(x)=a x+b$, where $b$ is an arbitrary integer and $a$ is positive", "0", False),
    # percent and degrees
    ("50\\%", "50 percent", True), ("50\\%", "5", False), ("1.1\\%", "0.011", True),
    ("90^\\circ", "90", True), ("90", "90 degrees", True), ("90^\\circ", "91^\\circ", False),
    # several answers, sets
    ("1,3", "x=1 or x=3", True), ("1,3,5", "5, 3, 1", True), ("1,3,5", "1,3", False),
    ("1,3", "1,3,5", False), ("\\{1,3\\}", "1,3", True),
    ("1 \\pm \\sqrt{2}", "1+\\sqrt{2}, 1-\\sqrt{2}", True),
    ("1 \\pm \\sqrt{2}", "1+\\sqrt{2}", False),
    # tuples and intervals
    ("(1,2)", "1,2", True), ("(1,2)", "2,1", False), ("(3,2)", "(2,3)", False),
    ("(2,5)", "[2,5]", False), ("(2,5]", "[2,5)", False), ("(2,5]", "2<x\\le 5", True),
    ("(2,\\infty)", "x>2", True), ("(2,\\infty)", "x\\ge 2", False),
    ("\\{x|-2\\leq x < 1\\}", "[-2,1)", True), ("\\{x|-2\\leq x < 1\\}", "1", False),
    ("[-2,1)", "\\{x \\mid -2\\leq x < 1\\}", True),
    # equations and relations
    ("5", "n = 5", True), ("x=5", "5", True), ("5", "x + y = 5", True), ("5", "2 + 3 = 5", True),
    ("1", "\\frac{x^2}{2}-\\frac{y^2}{4}=1", False), ("y=2x+3", "y=2x+4", False),
    ("5x - 7y + 4 = 0", "10x-14y+8=0", True), ("5x - 7y + 4 = 0", "0", False),
    ("b > a > c", "b>a>c", True), ("b > a > c", "b > c > a", False), ("b > a > c", "b", False),
    ("m_{\\max }=n^{2}-1", "m_{\\max}=n^2-1", True), ("m_{\\max }=n^{2}-1", "n^2", False),
    # bases, ratios, matrices
    ("52_8", "52_{8}", True), ("52_8", "52", True), ("52_8", "52_9", False),
    ("3:4", "4:3", False), ("3+4i", "3-4i", False),
    ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\begin{bmatrix}1\\\\2\\end{bmatrix}", True),
    ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\begin{pmatrix} 2 \\\\ 1 \\end{pmatrix}", False),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer", "equal"), FORMATS)
def test_formats_of_answers(grader, gold, answer, equal):
    assert grader.equal(gold, answer) is equal
    assert grader.readable(gold) or gold.startswith(("b > a", "$f(x)"))


def test_a_gold_in_words_is_held_to_its_text(grader):
    gold = "$f(x)=a x+b$, where $b$ is an arbitrary integer"
    assert grader.grade(gold, f"\\boxed{{{gold}}}") == Grade(gold, True, True, "text")
    assert grader.grade(gold, "\\boxed{f(x)=ax+b}").method == "text"


HOSTILE = ["9**9**9", "9^{9^{9^{9}}}", "99999999!", "{" * 100_000, "}" * 100_000, "NaN",
           "\\infty/0", "1" * 5000, "1" + ",111" * 3000, "\u0661\u0662", "\ud800", "\x00",
           "\\frac{" * 300, "(" * 500 + "x" + ")" * 500, "\\left(", "50%%", "[1,", "\\{1,2",
           "\\boxed{" * 40, "$" * 99, "\\sum_{n=1}^{\\infty}\\frac{1}{n^{31}}",
           "(x+1)^{99999}", "__import__('os')"]  # fmt: skip


def test_hostile_answers_end_in_time_and_are_not_equal():
    with Grader(seconds=1.0) as grader:
        rng = random.Random(0)
        for answer in HOSTILE:
            gold = rng.choice(["12", "\\frac{1}{2}", "(1,2)", "x^2+1"])
            worker = grader._worker()
            worker.is_ready()
            grader._free.put(worker)
            started = time.perf_counter()
            grade = grader.grade(gold, f"\\boxed{{{answer}}}")
            assert not grade.strict, (gold, answer[:40])
            assert time.perf_counter() - started < 60, answer[:40]  # the machine may be busy
        assert grader.grade("12", "12" + "0" * 5000).strict is False
        assert grader.equal("x+1", "1+x")


def test_a_worker_whose_parent_is_stopped_ends_by_itself():
    worker = grading.Worker()
    assert worker.is_ready()
    slow = "\\frac{" * 3000 + "1" + "}{2}" * 3000  # seconds of work on any machine
    worker.asked.write(json.dumps({"gold": "x", "answer": slow, "seconds": 0.1}) + "\n")
    worker.asked.flush()
    assert worker.process.wait(timeout=60) == -signal.SIGPROF
    worker.kill()


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
    with Grader(seconds=0.1, workers=1) as grader:
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
