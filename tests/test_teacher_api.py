"""The chat model that cuts solutions: checks, replies sent back, pools that go on after a stop."""

import json

import pytest
from real_pools import many, stage_of
from teacher_server import TeacherServer, connect, scripted

from psr_lib import data_prep, ift, prompts
from psr_lib.records import IFTExample, Problem, PSRError, read_jsonl

FAMILY = prompts.load("paper")
SOURCE = "Half of 8 is 4. Then 4 + 1 = 5.\nThe answer is \\boxed{5}."
RIGHT = "Step 1: Half of 8 is 4.\nStep 2: Then 4 + 1 = 5. The answer is \\boxed{5}."
PROBLEM = Problem(id="a/0", source="a", question="8 / 2 + 1?", answer="5", solution=SOURCE)


def solution_in(messages):
    """The solution that a prompt holds."""
    start, end = "[The Start of Solution Provided]\n", "\n[The End of Solution Provided]"
    return messages[0]["content"].split(start)[1].split(end)[0]


def cut_lines(messages):
    """A teacher that makes a step of each line."""
    lines = solution_in(messages).split("\n")
    return "\n".join(f"Step {k}: {line}" for k, line in enumerate(lines, start=1))


def ask(server, path, attempts=3, **changes):
    return ift.ApiSegmenter(connect(server, path, **changes), FAMILY, attempts)(PROBLEM)


@pytest.mark.parametrize(
    ("replies", "tries", "fault"),
    [
        ([RIGHT], 1, ""),
        (["Here it is:\n" + RIGHT], 1, ""),
        (["I cannot.", RIGHT], 2, ""),
        ([RIGHT.replace("Half", "One half"), "Step 1: x", RIGHT], 3, ""),
        ([RIGHT.replace("{5}", "{6}")], 3, "altered"),
        (["Step 1: " + SOURCE], 3, "several sentences"),
        (["Step 1: Half of 8 is 4.\nStep 2: Then 4 + 1 = 5."], 3, "altered"),
    ],
)
def test_a_reply_that_fails_a_check_is_sent_back(tmp_path, replies, tries, fault):
    with TeacherServer(scripted(*replies)).running() as server:
        found = ask(server, tmp_path / "paid.jsonl")
    assert found.tries == tries == len(server.seen)
    assert fault in found.fault and bool(fault) == bool(found.fault)
    assert fault or found.steps == [
        "Step 1: Half of 8 is 4.", "Step 2: Then 4 + 1 = 5. The answer is \\boxed{5}."
    ]  # fmt: skip
    if tries > 1:
        last = server.seen[-1]["messages"]
        assert [turn["role"] for turn in last] == ["user", "assistant", "user"]
        assert "This is wrong:" in last[2]["content"]


def test_all_that_follows_the_box_goes_into_its_step(tmp_path):
    reply = "Step 1: Half of 8 is 4. Then 4 + 1 = 5.\nStep 2: The answer is\nStep 3: \\boxed{5}."
    with TeacherServer(scripted(reply)).running() as server:
        found = ask(server, tmp_path / "paid.jsonl")
    assert found.fault == "" and found.steps[-1].startswith("Step ") and len(found.steps) <= 3


@pytest.mark.parametrize(("fault", "words"), [(400, "refused"), ("empty", "empty")])
def test_a_solution_without_an_answer_is_left_out(tmp_path, fault, words):
    with TeacherServer(scripted(RIGHT)).running() as server:
        server.faults = [fault] * 2
        found = ask(server, tmp_path / "paid.jsonl", retries=1)
    assert f"the teacher gave no answer: {words}" in found.fault and found.tries == 1


def test_a_reply_that_is_repeated_is_asked_for_anew(tmp_path):
    with TeacherServer(scripted("Step 1: no", "Step 1: no", RIGHT)).running() as server:
        assert ask(server, tmp_path / "paid.jsonl").tries == 3
        assert ask(server, tmp_path / "paid.jsonl").tries == 3 and len(server.seen) == 3


# --- whole pools


def api_stage(tmp_path, server, rows, *more):
    return stage_of(tmp_path, rows, "teacher.ift=api", f"teacher.url={server.url}",
                    "teacher.model=some/model", "teacher.retries=0", "data.ift_more=0",
                    "teacher.concurrency=4", *more)  # fmt: skip


def test_a_key_that_dies_loses_nothing_and_pays_for_nothing_twice(tmp_path):
    with TeacherServer(cut_lines, "some/model").running() as server:
        stage = api_stage(tmp_path, server, many(100), "data.ift=40")
        server.deadline = 25
        with pytest.raises(PSRError, match=r"refused the key .*; 25 answers are kept and the next"):
            data_prep.make_pools(stage)
        kept = (tmp_path / "paid/some--model-segment.jsonl").read_bytes().splitlines()
        assert len(kept) == 25 and not (stage.folder / "ift.jsonl").exists()
        server.deadline, server.seen = None, []
        stage = api_stage(tmp_path, server, many(100), "data.ift=40")
        rows = data_prep.make_pools(stage)
        assert len(server.seen) == 15 and rows["ift"] == 40
        assert stage.counts["segment_calls_now"] == 15 and stage.counts["segment_calls"] == 40
        assert stage.counts["segment_answers_kept"] == 40
        ift_rows = read_jsonl(stage.folder / "ift.jsonl", IFTExample)
        assert [row.id for row in ift_rows] == [f"ift/{k}" for k in range(40)]
        server.seen = []
        data_prep.make_pools(stage)
        assert server.seen == [] and stage.counts["segment_calls_now"] == 0


def test_what_fails_every_time_is_counted_and_left_out(tmp_path):
    def teach(messages):
        number = int(messages[0]["content"].split("Ann")[1].split(" ")[0])
        return cut_lines(messages) if number % 4 else "Step 1: I do not know."

    with TeacherServer(teach, "some/model").running() as server:
        stage = api_stage(tmp_path, server, many(100), "data.ift=20", "teacher.attempts=2")
        rows = data_prep.make_pools(stage)
    failed = [row for row in read_jsonl(stage.folder / "removed.jsonl")
              if row["reason"].startswith("segmentation")]  # fmt: skip
    assert rows["ift"] == 20 and len(failed) == stage.counts["ift_failed"] > 0
    assert stage.counts["ift_failed: the text is altered"] == len(failed)
    assert len(server.seen) == 20 + 2 * len(failed)
    assert json.dumps(failed[0]).count("Ann")


def test_a_dry_run_counts_the_calls_for_all_pools_and_makes_none(tmp_path):
    with TeacherServer(cut_lines, "some/model").running() as server:
        stage = api_stage(tmp_path, server, many(100), "data.ift=20", "data.ift_more=3",
                          "teacher.dry_run=true")  # fmt: skip
        with pytest.raises(PSRError, match=r"dry run: some/model: 29 calls to make, 0 answers"):
            data_prep.make_pools(stage)
    assert server.seen == [] and not (stage.folder / "ift.jsonl").exists()
