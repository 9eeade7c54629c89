"""Watching one search on a typed problem: the search itself, visit by visit, and nothing kept."""

from types import SimpleNamespace

import IPython.display
import nbformat
import pytest
from conftest import OPEN, PARAMETERS, ROOT, make_notebook
from scripted import Scripted, judge_settings, questions, random_script, search_settings

from psr_lib import manifest, play, prompts, wordlevel
from psr_lib.judge import Judge
from psr_lib.records import PSRError
from psr_lib.search import Search, step_search

COMPACT = prompts.load("compact")
NOTEBOOK = ROOT / "notebooks/03_search_judge.ipynb"


def opened(table):
    """Engine, judge and settings of one scripted search."""
    engine = Scripted(random_script(table))
    engine.tokenizer = wordlevel.build()
    judge = Judge(engine, COMPACT, engine.tokenizer, judge_settings(), seed=table)
    return engine, judge, search_settings()


def test_the_search_that_is_watched_is_the_search():
    counts = set()
    for table in range(20):
        (question,) = questions(1, table)
        engine, judge, settings = opened(table)
        (whole,) = step_search(
            engine, COMPACT, engine.tokenizer, [question], settings, judge, table
        )
        engine, judge, settings = opened(table)
        run = Search(engine, COMPACT, engine.tokenizer, settings, judge, table, False, 0)
        sizes, trace = [], None
        for trace in play.visits(run, question):
            sizes.append(len(trace.expansions))
        assert sizes == list(range(1, len(whole.expansions) + 1))
        assert trace.to_row() == whole.to_row() and judge.memo == {}
        counts.add(len(sizes))
    assert len(counts) > 3


@pytest.fixture
def seen(monkeypatch):
    """What was displayed, first and then anew, and the pauses between."""
    found = SimpleNamespace(views=[], pauses=[])

    def display(view, display_id):
        assert display_id
        found.views.append(view)
        return SimpleNamespace(update=found.views.append)

    monkeypatch.setattr(IPython.display, "display", display)
    monkeypatch.setattr(play.time, "sleep", found.pauses.append)
    return found


def stage(method="psrlm"):
    preset = SimpleNamespace(prompts="compact", search=search_settings(), judge=judge_settings(),
                             engine=None, model=None)  # fmt: skip
    weights = lambda name: manifest.root() / name  # noqa: E731
    return SimpleNamespace(preset=preset, method=method, seed=0, weights=weights)


TYPED = "Tom has 4 pens.\n  Tom buys 3 pens. How many pens does Tom have?"


def test_a_typed_problem_is_shown_after_every_visit(seen, capsys):
    engine, *_ = opened(7)
    trace = play.watch(stage(), engine, TYPED)
    assert trace.question.text == TYPED.replace("\n  ", " ")
    assert len(seen.views) == 1 + len(trace.expansions) > 3
    assert "not finished, 0 visits" in repr(seen.views[0])
    last = repr(seen.views[-1])
    assert f"{len(trace.expansions)} visits" in last and "not finished" not in last
    assert set(seen.pauses) == {play.PAUSE} and capsys.readouterr().out == ""


def test_words_that_the_model_never_read_are_named(seen, capsys):
    play.watch(stage(), opened(7)[0], "Tom juggles 4 pens and a zebra. How many pens?")
    assert capsys.readouterr().out.endswith("never read: juggles, and, a, zebra\n")
    assert play.unknown_words(SimpleNamespace(unk_token_id=None), "zebra") == []


def test_what_cannot_be_watched_says_why(seen, capsys, tmp_path):
    with pytest.raises(PSRError, match="question: it is empty"):
        play.watch(stage(), None, " \n")
    assert play.watch(stage("srlm"), None, TYPED) is None
    assert "method psrlm" in capsys.readouterr().out and seen.views == []


def test_another_model_is_opened_and_closed_and_reads_the_prompts_it_knows(seen, monkeypatch):
    asked, closed, families = [], [], []
    engine, *_ = opened(3)
    engine.close = lambda: closed.append(engine)
    monkeypatch.setattr(play.opening, "open_engine", lambda *args: asked.append(args) or engine)
    load = play.prompts.load
    monkeypatch.setattr(play.prompts, "load", lambda name: families.append(name) or load("compact"))
    for name in ("data/tiny/base", "owner/name"):
        assert play.watch(stage(), None, TYPED, name).expansions
        assert asked.pop() == (None, None, manifest.root() / name)
    assert families[0] == "compact" and "paper" in families and closed == [engine, engine]


def test_what_is_watched_of_a_tree_search_is_said(seen, capsys):
    one = stage()
    one.preset.search = search_settings(kind="mcts")
    play.watch(one, opened(7)[0], TYPED)
    assert "search.kind=mcts: what is watched here is the step search" in capsys.readouterr().out


def test_the_readers_cell_makes_nothing_stale(tmp_path):
    path = make_notebook(tmp_path / "n.ipynb", "a = 1", "question = 'mine'")
    before = manifest.notebook_source(path)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].metadata["tags"] = [manifest.PLAY]
    nbformat.write(notebook, path)
    tagged = manifest.notebook_source(path)
    notebook.cells[1].source = "question = 'another'"
    nbformat.write(notebook, path)
    assert manifest.notebook_source(path) == tagged != before


def test_make_passes_over_the_readers_cell(empty_repo):
    """Whatever stands in it: an error, or a question that nobody is there to answer."""
    path = empty_repo.root / "notebooks/00_base_model.ipynb"
    mine = "open('played', 'w')\ninput('a problem? ')\nraise ValueError('mine')"
    cells = [OPEN.format(name="00_base_model"), "toy.write(stage.output('a.json'), 1)", mine]
    parameters = PARAMETERS.format(n=0) + "\nretrain: bool = False"
    make_notebook(path, *cells, "stage.finish()", parameters=parameters)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[3].metadata["tags"] = [manifest.PLAY]
    nbformat.write(notebook, path)
    done = empty_repo.call("base")
    assert done.returncode == 0, done.stderr
    assert empty_repo.states()["00_base_model"].startswith("done")
    executed = nbformat.read(empty_repo.run / "base/notebooks/00_base_model.ipynb", as_version=4)
    (cell,) = [c for c in executed.cells if manifest.PLAY in c.metadata.get("tags", [])]
    assert cell.source == mine and cell.outputs == [] and cell.execution_count is None
    assert not list(empty_repo.root.rglob("played"))


def test_the_notebook_has_one_such_cell_behind_the_stages_end_and_uses_nothing_of_it():
    cells = [c for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == "code"]
    mine = [c for c in cells if manifest.PLAY in c.metadata.get("tags", [])]
    assert len(mine) == 1 and "play.watch(stage, engine, question, player)" in mine[0].source
    assert mine == cells[-1:] and "stage.finish()" in cells[-2].source, "it cannot hurt the stage"
    others = "\n".join(cell.source for cell in cells if cell is not mine[0])
    assert not any(name in others.split() for name in ("question", "player", "played"))
