"""Parsers and graders hold: properties over generated texts, a short `make fuzz`, hard limits."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import example, given, settings
from hypothesis import strategies as st

from psr_lib import fuzz, grading, presets, prompts, solution_reviews, steps
from psr_lib.answers import plain_number
from psr_lib.arithmetic import equations
from psr_lib.engines.base import Completion, EngineError
from psr_lib.engines.calls import Request
from psr_lib.engines.chat import Reply, read_reply
from psr_lib.engines.server import ServerEngine
from psr_lib.grading import Grader, compare_plainly
from psr_lib.prompts import slots
from psr_lib.records import PSRError, ScoreExample, read_jsonl, write_jsonl

FAMILIES = {name: prompts.load(name) for name in ("paper", "compact")}
LETTERS = st.text(st.characters())  # every character, halves of surrogate pairs too
WRITTEN = st.lists(st.sampled_from(fuzz.PIECES + fuzz.ATTACKS) | LETTERS, max_size=12).map("".join)
PLAIN = st.text(st.characters(codec="utf-8"))
BODY = st.from_regex(r"[a-z0-9+= ]{1,20}[a-z0-9.]", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | LETTERS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
often = settings(max_examples=150, deadline=None, derandomize=True, database=None)
seldom = settings(often, max_examples=40)


# --- properties


@often
@given(WRITTEN)
@example("\rStep 1: hidden behind a blank.\nStep 2: x.")
@example("Step " + "9" * 5000 + ": a number that Python refuses to read.")
@example("Score (Score: 5): 4")
@example("Score: = 5")
def test_every_reader_takes_every_text(text):
    assert fuzz.try_all(text) == ""


@often
@given(st.lists(BODY.map(str.strip).filter(bool), min_size=1, max_size=6))
def test_steps_are_cut_where_they_were_joined(bodies):
    marked = [f"Step {k}: {text}" for k, text in enumerate(bodies, start=1)]
    assert steps.split_steps(steps.join_steps(marked)) == marked
    assert [steps.number(step) for step in marked] == list(range(1, len(marked) + 1))
    assert [steps.body(step) for step in marked] == bodies


@often
@given(WRITTEN, st.recursive(BODY, lambda inner: inner.map("{{{}}}".format), max_leaves=6))
def test_the_last_closed_box_is_read_whatever_stands_before(before, inside):
    assert steps.boxed(f"{before}\\boxed{{{inside}}}") == inside.strip()
    assert steps.boxed(f"{before}\\boxed{{{inside}") is None


@often
@given(WRITTEN, st.sampled_from("AB"), BODY)
def test_the_last_verdict_counts_and_none_is_left_in_a_slot(before, winner, after):
    for family in FAMILIES.values():
        assert family.verdict(f"{before} [[{winner}]] {after}") == winner
        assert family.verdict(slots.fit(before, family.marks)) is None
        prompt = family.judge(before, [before], before, before).user
        asked = family.templates["judge"].count("[[")
        assert prompt.count("[[A]]") + prompt.count("[[B]]") == asked


@often
@given(WRITTEN, st.integers(0, 9), st.sampled_from(["", "/5", " out of 5", "."]))
def test_the_last_points_count_on_their_scale_only(before, points, scale):
    for family in FAMILIES.values():
        text = f"{before}\n\n{family.points_mark}: {points}{scale}"
        assert family.points(text) == (points if points <= prompts.MOST else None)
        asked = family.score("1 + 1?", before).user
        head, tail = family.templates["score"].split("{solution}")
        inside = asked[len(head) + len("1 + 1?") - len("{question}") : len(asked) - len(tail)]
        assert family.points(inside) is None


@often
@given(st.integers(-(10**12), 10**12), st.integers(1, 10**6))
def test_plain_numbers_are_equal_in_every_spelling_and_to_no_other(number, more):
    for spelling in (f"{number:,}", f"${number}$", f"{number}.00", f" {number} "):
        assert plain_number(spelling) == number
        assert compare_plainly(str(number), spelling) == (True, "number")
    assert compare_plainly(str(number), f"{number + more:,}") == (False, "number")


@seldom
@given(st.lists(PLAIN, max_size=5))
def test_rows_come_back_as_they_were_written(texts):
    path = Path(os.environ["FUZZ_ROWS"])
    write_jsonl(path, [{"text": text} for text in texts])
    assert [row["text"] for row in read_jsonl(path)] == texts


@pytest.fixture(autouse=True, scope="module")
def rows(tmp_path_factory):
    """Where rows are written; hypothesis takes no fixture of a single test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUZZ_ROWS", str(tmp_path_factory.mktemp("rows") / "rows.jsonl"))
        yield


@settings(often, max_examples=8)
@given(st.sampled_from(presets.all_keys()), WRITTEN)
@example("eval.search_rounds", "[2001-13-45]")
@example("eval.search_rounds", "[" * 2000)
def test_an_override_is_taken_or_refused_in_one_line(key, value):
    try:
        presets.load("smoke", f"{key}={value}")
    except PSRError as error:
        assert str(error)


def answer_of(usage, text, more):
    """A server's answer with something odd somewhere in it."""
    choice = {"text": text, "message": {"content": text}, "finish_reason": "stop"}
    return {"choices": [choice], "usage": usage} | more


ANSWERS = JSON | st.builds(
    answer_of, JSON | st.fixed_dictionaries({"prompt_tokens": JSON, "completion_tokens": JSON}),
    JSON, st.dictionaries(st.sampled_from(["choices", "usage"]), JSON, max_size=1),
)  # fmt: skip


@often
@given(ANSWERS)
@example(answer_of({"prompt_tokens": 1, "completion_tokens": float("inf")}, "x", {}))
@example(answer_of({"prompt_tokens": 1, "completion_tokens": 1}, "half \ud800", {}))
def test_whatever_a_server_answers_is_a_text_or_one_error(answer):
    reply = read_reply(answer)
    assert isinstance(reply, Reply) and (reply.fault or reply.text)
    reply.text.encode("utf-8")
    engine = ServerEngine.__new__(ServerEngine)
    engine.model, engine.seeds = "m", "none"
    engine.http = type(
        "Http", (), {"ask": lambda *_: answer, "url": "u", "clean": lambda _, t: t}
    )()
    request = Request(place=(0, 0), prompt="p", ids=[1], seed=0, room=9, temperature=1.0, top_p=1.0,
                      stop=["\n"])  # fmt: skip
    try:
        completion, _ = engine._complete(request)
    except EngineError as error:
        assert "not an OpenAI completion" in str(error)
    else:
        assert isinstance(completion, Completion) and json.dumps(completion.text)
        completion.text.encode("utf-8")


# --- what took too long, or crashed


EMPTY = ScoreExample(id="", problem_id="", question=fuzz.QUESTION, solution="", points=0,
                     explanation="", right=False)  # fmt: skip


@pytest.mark.parametrize(
    "read",
    [
        lambda n: FAMILIES["paper"].points("Score:" + " " * n),
        lambda n: FAMILIES["paper"].points("Score" + " *" * n),
        lambda n: FAMILIES["paper"].points("Score: " + "1 + " * n),
        lambda n: solution_reviews.skills(EMPTY, "x" * n),
        lambda n: slots.fit("[ " * n, FAMILIES["paper"].marks),
        lambda n: slots.fit("\n" + " " * n, FAMILIES["compact"].marks),
        lambda n: slots.plain(None, "<|" * n),
        lambda n: steps.split_steps("\n Step" * n),
        lambda n: steps.boxed("\\boxed{" * n),
        lambda n: equations("1" * n),
        lambda n: equations("1 + " * n),
    ],
)
def test_readers_take_time_in_proportion_to_the_text(read):
    """A text of 60,000 characters; what looks back over it again and again takes many seconds."""
    started = time.process_time()
    read(60_000)
    assert time.process_time() - started < 2.0


# --- the long run, short


def test_a_short_fuzz_finds_nothing(capsys):
    assert fuzz.main(["--count", "1200", "--seed", "0", "--graded", "60"]) == 0
    assert "fuzz: 1200 outputs of seed 0, 0 failed" in capsys.readouterr().out


def test_outputs_are_varied_and_the_same_each_time():
    made = [fuzz.output(0, k) for k in range(600)]
    assert (
        made == [fuzz.output(0, k) for k in range(600)] != [fuzz.output(1, k) for k in range(600)]
    )
    assert len(set(made)) > 500 and max(map(len, made)) > 10_000
    for piece in ("[[A]]", "\\boxed{", "Score", "Step 1:", "\ud800"):
        assert any(piece in text for text in made), piece


def test_a_failure_is_shown_with_the_call_that_repeats_it(monkeypatch, capsys):
    def no_points(text):
        assert "Score" not in text, "there it is"

    monkeypatch.setattr(fuzz, "READERS", (no_points,))
    assert fuzz.main(["--count", "400", "--seed", "7", "--graded", "0"]) == 1
    shown = capsys.readouterr().out
    first = re.search(r"output (\d+): no_points: AssertionError: there it is", shown)[1]
    again = re.search(rf"again: python -m psr_lib.fuzz (.* --first {first} --count 1)", shown)[1]
    monkeypatch.setattr(fuzz, "_grade", lambda *_: [])
    assert fuzz.main(again.split()) == 1
    assert f"output {first}: no_points" in capsys.readouterr().out


def test_a_reader_that_hangs_is_stopped():
    def hangs(text):
        re.match(r"(a+)+$", "a" * 40 + text)

    started = time.process_time()
    assert fuzz.try_all("b", (hangs,), seconds=0.2) == "hangs: more than 0.2 s"
    assert time.process_time() - started < 3
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


# --- graders: killed at their limit, none left behind


def alive(pid):
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pids, seconds=30.0):
    """Whether all of these end in time."""
    end = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(alive, pids))


@pytest.fixture
def started(monkeypatch):
    """The numbers of all grader processes that a test starts."""
    pids, begin = [], grading.Worker.__init__

    def noted(worker):
        begin(worker)
        pids.append(worker.process.pid)

    monkeypatch.setattr(grading.Worker, "__init__", noted)
    return pids


def test_a_grader_at_its_limit_is_killed_and_nothing_is_left(started):
    with Grader(seconds=0.3, workers=2) as grader:
        rows = [("x^2+1", f"\\boxed{{(x+1)^{{{99999 + k}}}}}") for k in range(3)]
        assert {grade.method for grade in grader.grade_all([*rows, ("x+1", "\\boxed{1+x}")])} == {
            "timeout", "math-verify",
        }  # fmt: skip
        assert sum(map(alive, started)) <= 2 < len(started)
    assert gone(started, 5.0)


PARENT = """
import sys
from psr_lib.grading import Grader
grader = Grader(seconds=1.0, workers=1)
grader.equal("x+1", "1+x")
print(grader._started[0].process.pid, flush=True)
if sys.argv[1] == "busy":
    grader.equal("x^2+1", "(x+1)^{99999}")
sys.stdin.read()
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_a_grader_whose_parent_is_killed_ends_too(state):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, state], env=environment, text=True, encoding="utf-8",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as parent:  # fmt: skip
        worker = int(parent.stdout.readline())
        assert alive(worker)
        parent.kill()
    assert gone([worker])


def test_the_slowest_reader_takes_one_output_in_so_many():
    assert fuzz.readers_of(0) == fuzz.READERS == fuzz.readers_of(fuzz.SLOW)
    assert fuzz.read_by_rule not in fuzz.readers_of(1)
    assert len(fuzz.readers_of(1)) == len(fuzz.READERS) - 1
