"""Searches that stream: waves, kills, broken engines, and memory that follows the live ones."""

import gc
import json
import os
import re
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from scripted import Scripted, judge_settings, questions, random_script, search_settings

from psr_lib import prompts
from psr_lib.journal import Journal, search_into
from psr_lib.judge import Judge
from psr_lib.paid import Paid
from psr_lib.records import PSRError, read_jsonl, write_jsonl
from psr_lib.search import search_stream, step_search
from psr_lib.traces import SearchTrace, TraceFile, search_stats

FAMILY = prompts.load("compact")
ASKED = questions(40, 3)


def stream(engine, asked, live, seed=7, **changes):
    """Numbered searches with this many questions open at once."""
    search = search_settings(live=live, **changes)
    judge = Judge(engine, FAMILY, None, judge_settings())
    return search_stream(engine, FAMILY, None, asked, search, judge, seed)


def rows_of(live, script=None):
    """The rows of all searches, in order."""
    found = dict(stream(Scripted(script or random_script(3)), enumerate(ASKED), live))
    return [found[k].to_row() for k in range(len(ASKED))]


def test_no_result_depends_on_how_many_are_open_at_once():
    assert rows_of(1) == rows_of(7) == rows_of(1000)


def test_new_questions_come_in_as_others_finish():
    engine = Scripted(random_script(3))
    asked = iter(enumerate(ASKED))
    for _ in stream(engine, asked, live=5):
        pass
    assert next(asked, None) is None
    width = [0]
    script = engine.script

    class Counting(Scripted):
        def sample(self, prompts, *, n, **settings):
            if n > 1:
                width.append(len(prompts))
            return super().sample(prompts, n=n, **settings)

    list(stream(Counting(script), enumerate(ASKED), live=5))
    assert max(width) == 5 and width[1:].count(5) > len(width) / 2


def fill(path, engine, made_from="one", live=6):
    """A journal filled by searching what it lacks; its rows."""
    journal = Journal(path, made_from)
    try:
        search_into(journal, ASKED, lambda asked: stream(engine, asked, live))
        return list(journal.rows())
    finally:
        journal.close()


class Dying(Scripted):
    """Breaks at its k-th call."""

    def __init__(self, script, k, error):
        super().__init__(script)
        self.k, self.error = k, error

    def sample(self, prompts, **settings):
        if self.batches >= self.k:
            raise self.error
        return super().sample(prompts, **settings)


@pytest.mark.parametrize("error", [RuntimeError("CUDA error:\nlong story"), TimeoutError()])
@pytest.mark.parametrize("k", [0, 17, 18])
def test_a_broken_engine_keeps_what_is_finished_and_the_next_call_goes_on(tmp_path, error, k):
    path, whole = tmp_path / "t.part", rows_of(6)
    with pytest.raises(PSRError, match=type(error).__name__) as caught:
        fill(path, Dying(random_script(3), k, error))
    message = str(caught.value)
    assert "\n" not in message and ("judging" if k == 17 else "sampling steps") in message
    kept = len(path.read_bytes().splitlines()) - 1
    assert f"{kept} of 40 searches are kept" in message and (kept > 0) == (k > 0)
    engine = Scripted(random_script(3))
    assert fill(path, engine) == whole
    asked_again = {row["question"] for row in whole if row["question"] in "".join(engine.asked)}
    assert len(asked_again) == 40 - kept


KILLED = """
import os, signal, sys
sys.path[:0] = {paths!r}
from test_journal import ASKED, Journal, Scripted, random_script, search_into, stream
journal = Journal({path!r}, "one")
def deadly(asked):
    for k, found in enumerate(stream(Scripted(random_script(3)), asked, 6)):
        yield found
        if k == 11:
            os.kill(os.getpid(), signal.SIGKILL)
search_into(journal, ASKED, deadly)
"""


def test_a_killed_process_loses_nothing_that_was_finished(tmp_path):
    path, here = tmp_path / "t.part", Path(__file__).parent
    code = KILLED.format(paths=[str(here), str(here.parent)], path=str(path))
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, timeout=60)
    assert done.returncode == -signal.SIGKILL
    with open(path, "ab") as file:  # the kill may come in the middle of a line
        file.write(path.read_bytes().splitlines()[1][:50])
    engine = Scripted(random_script(3))
    assert fill(path, engine) == rows_of(6)
    assert 0 < len({q.id for q in ASKED if any(q.text in p for p in engine.asked)}) <= 28


def test_a_finished_journal_asks_nothing(tmp_path):
    path = tmp_path / "t.part"
    first = fill(path, Scripted(random_script(3)))
    engine = Scripted(random_script(3))
    assert fill(path, engine) == first and engine.batches == 0


def test_a_line_that_was_changed_is_named_and_one_without_a_hash_is_read(tmp_path):
    path = tmp_path / "t.part"
    whole = fill(path, Scripted(random_script(3)))
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = lines[4].replace(b'"tokens"', b'"tokenz"')
    assert damaged != lines[4]
    path.write_bytes(b"".join([*lines[:4], damaged, *lines[5:]]))
    with pytest.raises(PSRError, match=r"t\.part:5: changed after it was written; delete this"):
        Journal(path, "one")
    path.write_bytes(b"".join([*lines[:4], *lines[5:]]))
    assert fill(path, Scripted(random_script(3))) == whole
    before = [re.sub(rb', "sum": "\w+"', b"", line) for line in lines]
    path.write_bytes(b"".join(before))
    engine = Scripted(random_script(3))
    assert before != lines and fill(path, engine) == whole and engine.batches == 0


def test_a_paid_answer_that_was_changed_is_named(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"key": "old", "value": 1}\n[1]\n{"key": "cut')
    Paid(path).add("new", {"text": "caf\u00e9"})
    paid = Paid(path)
    assert (paid.get("old"), paid.get("new"), paid.unreadable) == (1, {"text": "caf\u00e9"}, 2)
    path.write_bytes(path.read_bytes().replace(b"caf", b"taf"))
    with pytest.raises(PSRError, match=r"answers\.jsonl:4: changed after it was written"):
        Paid(path)


def test_a_journal_of_something_else_is_begun_anew(tmp_path):
    path = tmp_path / "t.part"
    fill(path, Scripted(random_script(4)), made_from={"seed": 1})
    assert fill(path, Scripted(random_script(3)), made_from={"seed": 2}) == rows_of(6)
    path.write_bytes(b"not a journal")
    assert fill(path, Scripted(random_script(3)), made_from={"seed": 2}) == rows_of(6)


def test_traces_come_back_from_their_rows_and_from_a_file(tmp_path):
    traces = [trace for _, trace in stream(Scripted(random_script(3)), enumerate(ASKED), 6)]
    rows = [trace.to_row() for trace in traces]
    again = [SearchTrace.from_row(json.loads(json.dumps(row))) for row in rows]
    assert [trace.to_row() for trace in again] == rows
    assert [t.pairs for t in again] == [t.pairs for t in traces]
    write_jsonl(tmp_path / "t.jsonl.gz", iter(rows))
    stored = TraceFile(tmp_path / "t.jsonl.gz")
    assert len(stored) == 40 and search_stats(stored) == search_stats(stored) == search_stats(again)
    assert read_jsonl(tmp_path / "t.jsonl.gz") == rows


class Forgetful(Scripted):
    """Keeps no prompt."""

    def sample(self, prompts, **settings):
        self.asked = []
        return super().sample(prompts, **settings)


def peak(count, path):
    """Peak of Python's own memory, in bytes, over a search of so many questions into a journal."""
    gc.collect()
    tracemalloc.start()
    journal = Journal(path, count)
    asked = (questions(1, k)[0] for k in range(count))
    for place, trace in stream(Forgetful(random_script(2)), enumerate(asked), live=4):
        journal.add(place, trace)
    total = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    journal.close()
    return total


@pytest.mark.slow
def test_memory_follows_the_open_questions_not_their_number(tmp_path):
    small, large = peak(60, tmp_path / "a"), peak(360, tmp_path / "b")
    assert large < 1.5 * small


def test_verdicts_are_forgotten_with_their_question():
    engine = Scripted(random_script(3))
    judge = Judge(engine, FAMILY, None, judge_settings())
    step_search(engine, FAMILY, None, ASKED, search_settings(live=4), judge, 7)
    assert judge.memo == {}
