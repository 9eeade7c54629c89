"""Progress lines tell the numbers so far; they count rightly, change nothing, and can be silent."""

import sys
from types import SimpleNamespace

import pytest
from scripted import Scripted, judge_settings, questions, random_script, search_settings
from test_annotate import pair

from psr_lib import annotate, evaluation, progress, prompts, tallies
from psr_lib.annotate import Answer
from psr_lib.engines.calls import RequestEngine
from psr_lib.journal import Journal, search_into
from psr_lib.judge import Judge
from psr_lib.records import JudgeExample
from psr_lib.search import search_stream
from psr_lib.traces import search_stats

FAMILY = prompts.load("compact")
ASKED = questions(12, 3)


@pytest.fixture
def loud(monkeypatch):
    """A line at every update."""
    for name in ("CI", "PSR_QUIET"):
        monkeypatch.delenv(name, raising=False)
    every = progress.Progress.__init__.__defaults__
    monkeypatch.setattr(progress.Progress.__init__, "__defaults__", (0.0, *every[1:]))


def searched():
    """Finished searches in the order in which they ended."""
    engine = Scripted(random_script(3))
    judge = Judge(engine, FAMILY, None, judge_settings())
    search = search_settings(live=4)
    return list(search_stream(engine, FAMILY, None, enumerate(ASKED), search, judge, 7))


def test_a_search_tells_its_pairs_and_ties_also_after_a_kill(loud, capsys, tmp_path):
    found, journal = searched(), Journal(tmp_path / "t.jsonl", "one")
    for place, trace in found[:5]:
        journal.add(place, trace)
    with tallies.searching(journal, len(ASKED), "search") as told:
        search_into(journal, ASKED, lambda asked: iter(found[5:]), told)
    stats = search_stats(trace for _, trace in found)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("  .. search 5/12") and len(lines) >= 8
    pairs = sum(len(trace.pairs) for _, trace in found)
    assert 0 < stats["tie_rate"] < 1
    assert lines[-1].startswith("  .. search 12/12")
    assert lines[-1].endswith(f"pairs {pairs}, ties {100 * stats['tie_rate']:.0f} %")


def test_time_left_leaves_out_what_a_killed_call_did():
    now = [0.0]
    bar = progress.Progress(100, "search", every=99, clock=lambda: now[0], begun=80)
    now[0] = 10.0
    bar.update(90)
    assert bar.line() == "  .. search 90/100, 1.0/s, 0:10 left"


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("Step 1: so \\boxed{39}", True), ("\\boxed{39.0}", True), ("\\boxed{3}", False),
        ("it is 39", False), ("\\boxed{39+x}", None),
    ],
)  # fmt: skip
def test_answers_are_compared_plainly(text, right):
    assert tallies.is_right("39", text) is right


def test_shares_leave_out_what_is_not_known():
    share = tallies.Share()
    assert str(share) == "–"
    for yes in (True, None, False, True):
        share.add(yes)
    assert str(share) == "67 %"


class Talking(RequestEngine):
    """Says the same verdict to every prompt."""

    def _encode(self, asked):
        return [[1] for _ in asked]

    def _generate(self, requests, keep):
        from psr_lib.engines.base import Completion

        for request in requests:
            keep(request.place, Completion("so it is [[A]]", 4, "eos", 1))


def judged(engine):
    """Three held-out pairs, two of them right in slot A."""
    examples = [
        JudgeExample(id=f"{k}", problem_id="q", question="Q?", prefix=[], step_a=f"Step 1: {k}",
                     step_b="Step 1: b", better=better, explanation="")
        for k, better in enumerate("AAB")
    ]  # fmt: skip
    return evaluation.judge_accuracy(engine, FAMILY, None, examples, judge_settings())


def test_judging_tells_how_much_was_right(loud, capsys):
    rows = judged(Talking())
    assert [row["correct"] for row in rows] == [True, True, False]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("  .. judging 1/3") and lines[0].endswith("right 100 %")
    assert lines[-1].startswith("  .. judging 3/3") and lines[-1].endswith("right 67 %")


def test_where_nothing_is_shown_no_engine_is_watched(loud, capsys, monkeypatch):
    aloud = judged(Talking())
    capsys.readouterr()
    monkeypatch.setenv("CI", "1")
    engine = Talking()
    with tallies.watching(engine, "judging"):
        assert engine.progress is None
    assert judged(engine) == aloud and capsys.readouterr().out == ""


def test_every_call_of_an_engine_is_a_count_of_its_own(loud, capsys):
    engine = SimpleNamespace(progress=None)
    with tallies.watching(engine, "ways"):
        for done, total in ((1, 2), (2, 2), (1, 4), (1, 2)):
            engine.progress(done, total, [])
    assert engine.progress is None
    counts = [line.split(",")[0] for line in capsys.readouterr().out.splitlines()]
    assert counts == [f"  .. ways {part}" for part in ("1/2", "2/2", "1/4", "1/2")]


def test_annotation_tells_the_share_that_agrees_with_the_prm():
    pairs = [pair(k) for k in range(2)]
    tally = tallies.Agreement(pairs)
    first, second = annotate.calls_of(pairs[0])
    numbers = [tally(first, Answer("[[A]]")), tally(second, Answer("[[A]]"))]
    assert str(numbers[-1]["as the PRM"]) == "50 %"
    assert (
        str(tally(annotate.calls_of(pairs[1])[1], Answer("", "undecided"))["as the PRM"]) == "33 %"
    )


def test_a_notebook_run_by_hand_has_one_line_that_is_written_over(loud, capsys, monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.setattr(sys, "path", [*sys.path])  # the shell puts its folder in
    shell, sent = InteractiveShell.instance(), []
    monkeypatch.setattr(shell, "kernel", object(), raising=False)
    monkeypatch.setattr(shell.display_pub, "publish", lambda data, **how: sent.append((data, how)))
    for environment in ({progress.RUNNING: ""}, {progress.RUNNING: "03"}):
        monkeypatch.setenv(progress.RUNNING, environment[progress.RUNNING])
        with progress.track(2, "search") as bar:
            bar.update(1)
            bar.update(2, pairs=3)
    InteractiveShell.clear_instance()
    assert len(capsys.readouterr().out.splitlines()) == 2, "the runner passes lines on"
    assert [how.get("update", False) for _, how in sent] == [False, True]
    assert len({how["transient"]["display_id"] for _, how in sent}) == 1
    assert sent[-1][0]["text/plain"].endswith("left, pairs 3")


def test_searches_of_whole_solutions_tell_their_pairs():
    traces = [SimpleNamespace(scores=scores) for scores in ([1.0, 3.0], [2.0, 2.0, None], [None])]
    numbers = tallies.solutions(traces)
    assert numbers["pairs"] == 1 and str(numbers["ties"]) == "50 %"
