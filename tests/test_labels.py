"""Labels of people: the three layouts as they are published, and rows that do not fit."""

import gzip
import json

import pytest

from psr_lib.labels import (
    files_of,
    marked,
    read_labels,
    solution_pairs,
    spread,
    step_pairs,
)
from psr_lib.records import JudgeExample, PSRError

PAIR = {
    "question": "What is 2 + 3 * 4?", "prefix_steps": ["First, 3 * 4 = 12."],
    "step_a": "Then 2 + 12 = 15.", "step_b": "Then 2 + 12 = 14.", "better": "b",
    "source": "mr_ben/math", "source_id": "0/GPT3.5", "label_origin": "human",
}  # fmt: skip
PROCESS = [
    {"id": "gsm8k-0", "generator": "one", "problem": "How many?", "steps": ["a is 1.", "so 3."],
     "final_answer_correct": False, "label": 1},
    {"id": "gsm8k-1", "generator": "two", "problem": "How many?", "steps": ["a is 1.", "so 2."],
     "final_answer_correct": True, "label": -1},
    {"id": "gsm8k-2", "generator": "two", "problem": "How far?", "steps": ["a is 7."],
     "final_answer_correct": False, "label": 0},
    {"id": "gsm8k-3", "generator": "two", "problem": "How many?", "steps": ["b is 9.", "so 2."],
     "final_answer_correct": True, "label": 0},
]  # fmt: skip
GRADED = {
    "uuid": "u1", "question": "Tom has 4 pens and buys 2. How many?",
    "ground_truth_solution": "Tom has 4+2=<<4+2=6>>6 pens.\n#### 6", "ground_truth_answer": 6,
    "model_output_steps": ["Step 1:  Tom has 4*2=<<4*2=8>>8 pens.", "Step 2: #### 8"],
    "model_output_answer_correctness": "wrong", "model_output_solution_correctness": "wrong",
    "model_output_solution_first_error_step": 1,
    "model_output_solution_first_error_reason": "adds", "question_type": "original",
}  # fmt: skip


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_step_pairs_keep_their_source_and_their_labels_origin(tmp_path):
    found = read_labels([write(tmp_path / "dev.jsonl", [PAIR, {**PAIR, "better": "a"}])])
    first, second = found.pairs
    assert found.solutions == [] and [first.better, second.better] == ["B", "A"]
    assert first.prefix == ["Step 1: First, 3 * 4 = 12."]
    assert first.step_a == "Step 2: Then 2 + 12 = 15." and first.step_b.endswith("12 = 14.")
    assert first.meta == {"source": "mr_ben/math", "labels": "human"}
    assert first.problem_id == second.problem_id and first.id != second.id


def test_processbench_counts_steps_from_0_and_names_its_set(tmp_path):
    rows = read_labels([write(tmp_path / "gsm8k.jsonl.gz", PROCESS)]).solutions
    assert [row.first_wrong for row in rows] == [1, None, 0, 0]
    assert [row.right for row in rows] == [False, True, False, False]
    assert {row.source for row in rows} == {"processbench/gsm8k"}
    assert rows[0].text == "Step 1: a is 1.\nStep 2: so 3."
    assert rows[0].problem_id == rows[1].problem_id != rows[2].problem_id
    as_list = tmp_path / "gsm8k.json"
    as_list.write_text(json.dumps(PROCESS))
    assert read_labels([as_list]).solutions == rows


def test_mr_gsm8k_counts_steps_from_1_and_brings_a_right_solution(tmp_path):
    right = {**GRADED, "uuid": "u2", "model_output_solution_correctness": "correct",
             "model_output_solution_first_error_step": "N/A"}  # fmt: skip
    code = {**GRADED, "uuid": "u3", "question_type": "POT"}
    rows = read_labels([write(tmp_path / "mr.jsonl", [GRADED, right, code])]).solutions
    assert [(row.id, row.first_wrong, row.right) for row in rows] == [
        ("u1", 0, False), ("u1/truth", None, True), ("u2", None, True), ("u2/truth", None, True),
        ("u3", 0, False),
    ]  # fmt: skip
    assert rows[0].steps == ("Step 1: Tom has 4*2=8 pens.", "Step 2: #### 8")
    assert rows[1].steps == ("Step 1: Tom has 4+2=6 pens.", "Step 2: #### 6")
    assert [row.source for row in rows[::4]] == ["mr_gsm8k/original", "mr_gsm8k/POT"]


@pytest.mark.parametrize(
    ("row", "field", "value", "words"),
    [
        (PAIR, "better", "A", "should be 'a' or 'b', found 'A'"),
        (PAIR, "prefix_steps", "none", r"should be list\[str\], found str"),
        (PAIR, "step_b", 4, "should be str, found int"),
        (PAIR, "step_a", None, "is missing"),
        (PAIR, "label_origin", None, "is missing"),
        (PROCESS[0], "label", 2, "should be -1 or the index of a step, found 2"),
        (PROCESS[0], "label", -2, "found -2"),
        (PROCESS[0], "label", "1", "should be int, found str"),
        (PROCESS[0], "steps", [1], r"should be list\[str\], found list"),
        (PROCESS[0], "problem", None, "is missing"),
        (GRADED, "model_output_solution_first_error_step", 3, "should be 1 to 2, found 3"),
        (GRADED, "model_output_solution_first_error_step", "N/A", "should be int, found str"),
        (GRADED, "model_output_solution_correctness", "yes", "'correct' or 'wrong', found 'yes'"),
        (GRADED, "model_output_steps", "text", r"should be list\[str\], found str"),
    ],
)  # fmt: skip
def test_a_row_that_does_not_fit_names_file_row_and_field(tmp_path, row, field, value, words):
    bad = {k: v for k, v in {**row, field: value}.items() if v is not None}
    path = write(tmp_path / "labels.jsonl", [row, bad])
    with pytest.raises(PSRError, match=words) as caught:
        read_labels([path])
    assert f"{path}, row 2: field {field!r}" in str(caught.value) and "\n" not in str(caught.value)


def test_a_row_that_is_no_object_is_named(tmp_path):
    path = write(tmp_path / "labels.jsonl", [PAIR, ["x"]])
    with pytest.raises(PSRError, match="row 2: field 'better' is missing"):
        read_labels([path])


def test_files_of_no_known_layout_are_refused_with_the_known_ones(tmp_path):
    path = write(tmp_path / "gsm8k.jsonl", [{"question": "?", "answer": "4"}])
    with pytest.raises(PSRError, match=r"row 1: .*'answer', 'question'.*ProcessBench has id"):
        read_labels([path])
    empty = write(tmp_path / "empty.jsonl", [])
    with pytest.raises(PSRError, match="no rows"):
        read_labels([empty])


def test_a_folder_gives_its_files_in_order(tmp_path):
    write(tmp_path / "some" / "b.jsonl", PROCESS)
    write(tmp_path / "some" / "a.jsonl.gz", [PAIR])
    (tmp_path / "some" / "README.md").write_text("x")
    assert [path.name for path in files_of(tmp_path / "some")] == ["a.jsonl.gz", "b.jsonl"]
    found = read_labels([tmp_path / "some"])
    assert (len(found.pairs), len(found.solutions)) == (1, 4)
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(PSRError, match=r"lab\.audit: .*no file and no folder"):
            read_labels([missing])


def labelled(tmp_path, rows=PROCESS):
    return read_labels([write(tmp_path / "rows.jsonl", rows)]).solutions


def test_next_steps_after_equal_right_steps_make_pairs(tmp_path):
    """`a is 1.` is right twice, `b is 9.` wrong; after `a is 1.` one goes right and one wrong."""
    found = step_pairs(labelled(tmp_path))
    seen = {(len(p.prefix), texts(p)) for p in found}
    assert seen == {(0, ("Step 1: a is 1.", "Step 1: b is 9.")),
                    (1, ("Step 2: so 2.", "Step 2: so 3."))}  # fmt: skip
    assert {p.meta["source"] for p in found} == {"processbench/gsm8k steps"}
    assert len({p.problem_id for p in found}) == 1


def texts(pair: JudgeExample) -> tuple[str, str]:
    """The better step, then the other."""
    both = pair.step_a, pair.step_b
    return both if pair.better == "A" else both[::-1]


def test_right_and_wrong_solutions_of_a_problem_make_pairs(tmp_path):
    found = solution_pairs(labelled(tmp_path))
    right = "Step 1: a is 1.\nStep 2: so 2."
    assert [texts(p) for p in found] == [(right, "Step 1: a is 1.\nStep 2: so 3."),
                                         (right, "Step 1: b is 9.\nStep 2: so 2.")]  # fmt: skip
    assert all(p.prefix == [] and p.meta["source"] == "processbench/gsm8k solutions" for p in found)


def test_the_better_one_is_in_either_slot(tmp_path):
    rows = [{**GRADED, "uuid": f"u{k}", "question": f"{k} pens?"} for k in range(60)]
    places = [pair.better for pair in solution_pairs(labelled(tmp_path, rows))]
    assert len(places) == 60 and 15 < places.count("A") < 45


def test_marks_are_given_anew():
    assert marked(["Step 3: a", "  step text", "Step 9 : b"]) == [
        "Step 1: a", "Step 2: step text", "Step 3: b",
    ]  # fmt: skip


def test_rows_are_thinned_evenly_within_each_source():
    rows = ["a0", "a1", "a2", "b0", "a3", "a4", "a5"]
    assert spread(rows, 3, lambda row: row[0]) == ["a0", "a2", "b0", "a4"]
    assert spread(rows, 0, lambda row: row[0]) == spread(rows, 99, lambda row: row[0]) == rows
