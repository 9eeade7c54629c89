"""The chat teacher: checks, replies sent back, faults of the server, and nothing paid for twice."""

import json
import threading
from types import SimpleNamespace

import pytest
from chat_server import ChatServer
from real_pools import many, stage_of

from psr_lib import data_prep, ift, prompts
from psr_lib.engines.base import EngineError
from psr_lib.engines.chat import Chat
from psr_lib.paid import Paid
from psr_lib.records import IFTExample, Problem, PSRError, read_jsonl

FAMILY = prompts.load("paper")
SECRET = "sk-secret-0123456789"
SOURCE = "Half of 8 is 4. Then 4 + 1 = 5.\nThe answer is \\boxed{5}."
RIGHT = "Step 1: Half of 8 is 4.\nStep 2: Then 4 + 1 = 5. The answer is \\boxed{5}."
PROBLEM = Problem(id="a/0", source="a", question="8 / 2 + 1?", answer="5", solution=SOURCE)
SETTINGS = {"model": "big", "temperature": 1.0, "max_tokens": 0, "concurrency": 4,
            "timeout": 5.0, "retries": 3}  # fmt: skip


def solution_in(messages):
    """The solution that a prompt holds."""
    start, end = "[The Start of Solution Provided]\n", "\n[The End of Solution Provided]"
    return messages[0]["content"].split(start)[1].split(end)[0]


def cut_lines(messages):
    """A teacher that makes a step of each line."""
    lines = solution_in(messages).split("\n")
    return "\n".join(f"Step {k}: {line}" for k, line in enumerate(lines, start=1))


def scripted(*texts):
    """Replies in turn, the last again and again."""
    left = list(texts)
    return lambda messages: left.pop(0) if len(left) > 1 else left[0]


def connect(server, path, **changes):
    settings = SimpleNamespace(url=server.url, **(SETTINGS | changes))
    return Chat(settings, Paid(path), backoff=0.01)


def ask(server, path, attempts=3, **changes):
    return ift.ApiTeacher(connect(server, path, **changes), FAMILY, attempts)(PROBLEM)


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
    with ChatServer(scripted(*replies)).running() as server:
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
    with ChatServer(scripted(reply)).running() as server:
        found = ask(server, tmp_path / "paid.jsonl")
    assert found.fault == "" and found.steps[-1].startswith("Step ") and len(found.steps) <= 3


@pytest.mark.parametrize("fault", [429, 500, 503, "hang", "drop", "cut", "page", "nonsense",
                                   "empty", "null"])  # fmt: skip
def test_a_passing_fault_is_tried_again(tmp_path, fault):
    with ChatServer(scripted(RIGHT)).running() as server:
        server.faults = [fault, fault]
        found = ask(server, tmp_path / "paid.jsonl", timeout=0.3 if fault == "hang" else 5.0)
    assert found.fault == "" and found.tries == 1 and len(server.seen) == 3


@pytest.mark.parametrize(
    ("fault", "words"),
    [(429, "status 429"), (500, "status 500"), ("hang", "no answer in 0.2 s"), ("drop", "4 tries"),
     ("empty", "gave no answer in 4 tries"), ("page", "gave no answer in 4 tries"),
     (404, "says 404"), (401, "set OPENAI_API_KEY")],
)  # fmt: skip
def test_a_lasting_fault_is_one_line(tmp_path, monkeypatch, fault, words):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with ChatServer(scripted(RIGHT)).running() as server:
        server.faults = [fault] * 40
        with pytest.raises(EngineError, match="teacher server") as caught:
            ask(server, tmp_path / "paid.jsonl", timeout=0.2 if fault == "hang" else 5.0)
    message = str(caught.value)
    assert words in message and "\n" not in message and SECRET not in message
    assert "engine." not in message
    assert server.headers[0]["Authorization"] == f"Bearer {SECRET}"


def test_nothing_is_paid_for_twice(tmp_path):
    path = tmp_path / "paid.jsonl"
    with ChatServer(scripted("Step 1: no", RIGHT)).running() as server:
        one = ask(server, path)
        assert len(server.seen) == 2 and ask(server, path) == one
        assert len(server.seen) == 2
        ask(server, path, model="other")
        assert len(server.seen) == 3
    assert one.tries == 2 and SECRET not in path.read_text()


def test_a_line_that_a_kill_cut_off_costs_one_answer(tmp_path):
    path = tmp_path / "paid.jsonl"
    paid = Paid(path)
    paid.add("a", {"text": "one\u2028line"})
    paid.add("b", {"text": "two"})
    path.write_bytes(path.read_bytes()[:-4])
    paid = Paid(path)
    assert paid.get("a") == {"text": "one\u2028line"} and paid.get("b") is None and len(paid) == 1
    paid.add("b", {"text": "again"})
    assert Paid(path).get("b") == {"text": "again"} and len(Paid(path)) == 2


def test_threads_lose_no_answer(tmp_path):
    paid = Paid(tmp_path / "paid.jsonl")
    threads = [threading.Thread(target=lambda k=k: paid.add(str(k), "x" * 4000)) for k in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Paid(paid.path)) == 40


def api_stage(tmp_path, server, rows, *more):
    return stage_of(tmp_path, rows, "teacher.ift=api", f"teacher.url={server.url}",
                    "teacher.model=some/model", "teacher.retries=0", "data.ift_more=0",
                    "teacher.concurrency=4", *more)  # fmt: skip


def test_a_key_that_dies_loses_nothing_and_pays_for_nothing_twice(tmp_path):
    with ChatServer(cut_lines).running() as server:
        stage = api_stage(tmp_path, server, many(100), "data.ift=40")
        server.faults = [None] * 25 + [401] * 40
        with pytest.raises(PSRError, match=r"refused the key .* 2\d answers are kept and the next"):
            data_prep.make_pools(stage)
        kept = len((tmp_path / "paid/some--model.jsonl").read_bytes().splitlines())
        assert kept == 25 and not (stage.folder / "ift.jsonl").exists()
        server.faults, server.seen = [], []
        stage = api_stage(tmp_path, server, many(100), "data.ift=40")
        rows = data_prep.make_pools(stage)
        assert len(server.seen) == 40 - kept and rows["ift"] == 40
        assert stage.counts["teacher_calls"] == 15 and stage.counts["teacher_tokens"] == 15 * 7
        ift_rows = read_jsonl(stage.folder / "ift.jsonl", IFTExample)
        assert [row.id for row in ift_rows] == [f"ift/{k}" for k in range(40)]
        server.seen = []
        data_prep.make_pools(stage)
        assert server.seen == []


def test_what_fails_every_time_is_counted_and_left_out(tmp_path):
    def teach(messages):
        number = int(messages[0]["content"].split("Ann")[1].split(" ")[0])
        return cut_lines(messages) if number % 4 else "Step 1: I do not know."

    with ChatServer(teach).running() as server:
        stage = api_stage(tmp_path, server, many(100), "data.ift=20", "teacher.attempts=2")
        rows = data_prep.make_pools(stage)
    failed = [row for row in read_jsonl(stage.folder / "removed.jsonl")
              if row["reason"].startswith("segmentation")]  # fmt: skip
    assert rows["ift"] == 20 and len(failed) == stage.counts["ift_failed"] > 0
    assert stage.counts["ift_failed: the text is altered"] == len(failed)
    assert len(server.seen) == 20 + 2 * len(failed)
    assert json.dumps(failed[0]).count("Ann")
