"""PRM800K's format: every rating once, errors that name file, row and field."""

import copy
import json

import pytest

from psr_lib.prm800k import as_step, read_prm800k
from psr_lib.records import PSRError, iter_jsonl, write_jsonl


def completion(text, rating, flagged=False):
    """A rated completion."""
    return {"text": text, "rating": rating, "flagged": flagged}


def step(*completions, chosen=0, human=None):
    """One step of a labelled solution."""
    by_hand = human and {"text": human, "rating": None, "source": "human", "flagged": False}
    return {"completions": list(completions), "human_completion": by_hand,
            "chosen_completion": chosen}  # fmt: skip


def line(*steps, finish="solution", problem="How many?", **changes):
    """One line of a file, as both phases of PRM800K have it."""
    row = {"labeler": "x", "timestamp": "2022-07-30T23:23:32", "generation": None,
           "is_quality_control_question": False, "is_initial_screening_question": False,
           "question": {"problem": problem, "ground_truth_answer": "29"},
           "label": {"steps": list(steps), "total_time": 1, "finish_reason": finish}}  # fmt: skip
    return row | changes


PHASE_1 = line(
    step(completion("Call it p.", 1)),
    step(completion("p = 1", -1), completion("p = 2", -1), chosen=None, human="p = 3"),
    step(completion("Hm.", 0), completion("So 3.\n\n# Answer\n\n3", 1), chosen=1),
)
PHASE_2 = line(
    step(completion("I see.", 1, None)),
    step(completion("Wrong.", -1, None), completion("Idle.", 0), completion("Odd.", 1, True),
         completion("Nobody rated it.", None), chosen=None),
    finish="found_error", problem="Why?",
)  # fmt: skip
GIVEN_UP = line(step(completion("I see.", 1)), step(chosen=None), finish="give_up")
GIVEN_UP["label"]["steps"][1]["completions"] = None


def load(path, **how):
    """The labelled solutions of a file."""
    return read_prm800k(iter_jsonl(path), str(path), **how)


def read(tmp_path, *rows, name="labels.jsonl", **how):
    """The labelled solutions of these lines."""
    write_jsonl(tmp_path / name, rows)
    return load(tmp_path / name, **how)


def test_chosen_steps_are_a_row_and_every_other_completion_one_of_its_own(tmp_path):
    rows, counts = read(tmp_path, PHASE_1)
    found = {(tuple(row.steps), tuple(row.labels)) for row in rows}
    first, human, last = (
        "Step 1: Call it p.",
        "Step 2: p = 3",
        "Step 3: So 3. The answer is \\boxed{3}.",
    )
    assert found == {
        ((first, human, last), ("+", "+", "+")),
        ((first, "Step 2: p = 1"), ("", "-")),
        ((first, "Step 2: p = 2"), ("", "-")),
        ((first, human, "Step 3: Hm."), ("", "", "+")),
    }
    assert len({row.id for row in rows}) == 4 and len({row.problem_id for row in rows}) == 1
    assert counts == {"lines": 1, "rows": 4, "rating 1": 2, "rating -1": 2, "rating 0": 1}


def test_every_rating_counts_once(tmp_path):
    rows, counts = read(tmp_path, PHASE_1, PHASE_2, GIVEN_UP)
    labels = [label for row in rows for label in row.labels if label]
    rated = sum(n for name, n in counts.items() if name.startswith("rating") and "None" not in name)
    assert len(labels) == rated + 1 == 5 + 3 + 1 + 1  # one step was written by a labeller
    assert counts["flagged"] == 1 and counts["rating None"] == 1


def test_where_nothing_was_chosen_the_first_rated_completion_ends_the_row(tmp_path):
    rows, _ = read(tmp_path, PHASE_2)
    assert [(row.steps[-1], row.labels) for row in rows] == [
        ("Step 2: Wrong.", ["+", "-"]),
        ("Step 2: Idle.", ["", "+"]),
    ]
    assert read(tmp_path, GIVEN_UP)[0][0].labels == ["+"]


@pytest.mark.parametrize(("neutral", "label"), [("good", "+"), ("bad", "-"), ("skip", None)])
def test_neutral_is_as_asked(tmp_path, neutral, label):
    rows, _ = read(tmp_path, PHASE_2, neutral=neutral)
    found = {row.steps[-1]: row.labels[-1] for row in rows}
    assert found.get("Step 2: Idle.") == label


def test_checks_of_labellers_and_broken_problems_are_left_out(tmp_path):
    rows = [PHASE_1 | {"is_quality_control_question": True},
            PHASE_1 | {"is_initial_screening_question": True},
            line(step(completion("x", 1)), finish="bad_problem")]  # fmt: skip
    assert read(tmp_path, *rows) == ([], {"lines": 3, "skipped": 3, "rows": 0})


def test_packed_files_are_read_too(tmp_path):
    assert read(tmp_path, PHASE_1, name="a.jsonl.gz")[0] == read(tmp_path, PHASE_1)[0]


def test_a_problem_keeps_its_name_over_lines(tmp_path):
    rows, _ = read(tmp_path, PHASE_1, PHASE_2, GIVEN_UP)
    by_question = {row.question: {r.problem_id for r in rows if r.question == row.question}
                   for row in rows}  # fmt: skip
    assert all(len(names) == 1 for names in by_question.values())
    assert len(set.union(*by_question.values())) == len(by_question) == 2


@pytest.mark.parametrize(
    ("text", "k", "found"),
    [
        ("So 29.\n\n# Answer\n\n29", 6, "Step 6: So 29. The answer is \\boxed{29}."),
        ("# Answer\n\n\\frac{1}{2}", 2, "Step 2: The answer is \\boxed{\\frac{1}{2}}."),
        ("Step 2: x", 2, "Step 2: x"),
        ("Step 7: x", 2, "Step 2: Step 7: x"),
        (" two\nlines ", 1, "Step 1: two\nlines"),
    ],
)
def test_steps_are_written_as_the_solver_writes_them(text, k, found):
    assert as_step(text, k) == found


def broken(*path, value=...):
    """PHASE_1 with the field at this path changed, or left out."""
    row = copy.deepcopy(PHASE_1)
    holder = row
    for key in path[:-1]:
        holder = holder[key]
    if value is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return row


FIRST = ("label", "steps", 0)


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (broken("question"), "question"),
        (broken("question", "problem"), "question.problem"),
        (broken("question", "problem", value=3), "question.problem"),
        (broken("label"), "label"),
        (broken("label", "steps"), "label.steps"),
        (broken("label", "steps", value={}), "label.steps"),
        (broken("label", "finish_reason"), "label.finish_reason"),
        (broken("label", "finish_reason", value="tired"), "label.finish_reason"),
        (broken("label", "steps", 0, value="x"), "label.steps[0].completions"),
        (broken(*FIRST, "completions"), "label.steps[0].completions"),
        (broken(*FIRST, "chosen_completion"), "label.steps[0].chosen_completion"),
        (broken(*FIRST, "chosen_completion", value=True), "label.steps[0].chosen_completion"),
        (broken(*FIRST, "chosen_completion", value=4), "label.steps[0].chosen_completion"),
        (broken(*FIRST, "completions", 0, "text"), "label.steps[0].completions[0].text"),
        (broken(*FIRST, "completions", 0, "text", value=[]), "label.steps[0].completions[0].text"),
        (broken(*FIRST, "completions", 0, "rating"), "label.steps[0].completions[0].rating"),
        (broken(*FIRST, "completions", 0, "rating", value=2), "steps[0].completions[0].rating"),
        (broken(*FIRST, "completions", 0, "rating", value="1"), "steps[0].completions[0].rating"),
        (broken(*FIRST, "completions", 0, "rating", value=True), "steps[0].completions[0].rating"),
        (broken("label", "steps", 1, "human_completion", "text"),
         "label.steps[1].human_completion.text"),
        ([1, 2], "label"),
    ],
)  # fmt: skip
def test_another_form_is_an_error_that_names_file_row_and_field(tmp_path, row, field):
    write_jsonl(tmp_path / "labels.jsonl", [PHASE_1])
    with open(tmp_path / "labels.jsonl", "a") as file:
        file.write(json.dumps(row) + "\n")
    with pytest.raises(PSRError) as caught:
        load(tmp_path / "labels.jsonl")
    message = str(caught.value)
    assert f"{tmp_path}/labels.jsonl:2: field" in message and field in message
    assert "\n" not in message


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PSRError, match=r"none\.jsonl: no such file"):
        load(tmp_path / "none.jsonl")
