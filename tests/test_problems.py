"""The laboratory's problems and its oracle."""

import random

import pytest

from psr_lib import problems
from psr_lib.problems import LEVELS, is_right, make_puzzle, next_step, parse, work
from psr_lib.records import PSRError


@pytest.fixture(params=LEVELS)
def puzzles(request):
    rng = random.Random(7)
    return [make_puzzle(LEVELS[request.param], rng) for _ in range(200)]


def test_a_question_tells_its_puzzle(puzzles):
    assert all(parse(puzzle.text()) == puzzle for puzzle in puzzles)


def test_the_oracle_accepts_every_right_step_and_the_answer_is_the_last_result(puzzles):
    for puzzle in puzzles:
        steps, text = puzzle.solution(), puzzle.text()
        assert all(is_right(text, steps[:k], step) for k, step in enumerate(steps))
        assert problems.read_step(steps[-1]).result == puzzle.answer()
        assert f"\\boxed{{{puzzle.answer()}}}" in steps[-1]


def test_the_answer_solves_the_question(puzzles):
    """Told forwards from the asked number, the story gives the known one (or the answer)."""
    for puzzle in puzzles:
        value = puzzle.answer() if puzzle.backward else puzzle.known
        for event in puzzle.events:
            if event.who == puzzle.hero and event.what == puzzle.what:
                kind = problems.KINDS[event.verb]
                value = {"gain": value + event.amount, "loss": value - event.amount,
                         "times": value * event.amount}[kind]  # fmt: skip
            assert 0 <= value <= 999
        assert value == (puzzle.known if puzzle.backward else puzzle.answer())


def test_work_is_arithmetic():
    for a in range(0, 1000, 7):
        for b in range(0, 1000, 13):
            assert work(a, "+", b)[1] == a + b
            if a >= b:
                assert work(a, "-", b)[1] == a - b
        for b in range(2, 6):
            assert work(a, "*", b)[1] == a * b


def test_every_column_states_a_true_equation():
    for lines in (work(478, "+", 389)[0], work(503, "-", 468)[0], work(287, "*", 4)[0]):
        for line in lines:
            left, right = line.split(" = ")
            assert eval(left) == int(right)  # digits and signs that this test made itself


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("= 15", "= 14"),
        ("so 85", "so 75"),
        ("Tom buys", "Tom sells"),
        ("47 + 38", "47 - 38"),
        ("Step 1", "Step 2"),
        (" The answer is \\boxed{85}.", ""),
    ],
)
def test_the_oracle_refuses_each_kind_of_error(old, new):
    question = "Tom has 47 pens. Tom buys 38 pens. How many pens does Tom have?"
    right = parse(question).solution()[0]
    assert old in right and is_right(question, [], right)
    assert not is_right(question, [], right.replace(old, new))


def test_a_distractor_is_no_step_and_a_wrong_prefix_has_a_right_continuation():
    question = (
        "Tom has 10 pens. Mia buys 5 pens. Tom buys 3 books. Tom finds 2 pens. "
        "Tom loses 4 pens. How many pens does Tom have?"
    )
    puzzle = parse(question)
    assert [event.amount for event in puzzle.path()] == [2, 4]
    used = "Step 1: Mia buys 5. 10 + 5: 0 + 5 = 5, 1 + 0 = 1, so 15."
    assert next_step(puzzle, [used]).startswith("Step 2: Tom finds 2. 15 + 2:")
    skipped = "Step 1: Tom loses 4. 10 - 4: 10 - 4 = 6, 1 - 0 - 1 = 0, so 6."
    assert next_step(puzzle, [skipped]) is None


def test_a_backward_problem_is_undone_from_its_end():
    question = (
        "Tom has some pens. Tom buys 5 pens. Tom loses 2 pens. Now Tom has 9 pens. "
        "How many pens did Tom have at first?"
    )
    steps = parse(question).solution()
    assert steps[0].startswith("Step 1: undo Tom loses 2. 9 + 2:")
    assert steps[1].startswith("Step 2: undo Tom buys 5. 11 - 5:") and "{6}" in steps[1]


def test_other_text_is_refused():
    with pytest.raises(PSRError, match="not a procedural word problem"):
        parse("What is 2 + 2?")


def test_pools_made_with_one_set_are_disjoint():
    taken = set()
    one = problems.make_problems("a", ["easy", "big"], 40, 0, taken)
    two = problems.make_problems("b", ["easy", "big"], 40, 0, taken)
    texts = [row.question for row in one + two]
    assert len(set(texts)) == 80 == len(taken)
    assert [row.meta["level"] for row in one[:3]] == ["easy", "big", "easy"]
    assert one == problems.make_problems("a", ["easy", "big"], 40, 0, set())
