"""Reports (notebooks 06 and 08) as stages: they read what is there, and run when it changes."""

import pytest
from conftest import BODIES, OPEN, PARAMETERS, make_notebook

from psr_lib import stages
from psr_lib.methods import PAPER, STEPS
from psr_lib.presets import load
from psr_lib.records import PSRError
from psr_lib.run_dirs import Key, RunDir, SeedsDir, run_of
from psr_lib.stages import make_key

REPORT = """names = [path.parent.name for path in stage.holdings()]
toy.write(stage.output("names.txt"), *names)"""
SEEDS = OPEN.replace("seed=seed,", "seed=seed, seeds=seeds,")


@pytest.fixture
def reporting(repo):
    """The toy repository with a toy 06 and 08."""
    for name, opened, more in (("06_steps", OPEN, ""), ("08_paper", SEEDS, '\nseeds: str = ""')):
        cells = (opened.format(name=name), REPORT, "stage.finish()")
        make_notebook(repo.root / "notebooks" / f"{name}.ipynb", *cells,
                      parameters=PARAMETERS.format(n=0) + more)  # fmt: skip
    return repo


def text(path):
    return path.read_text()


def test_a_report_belongs_to_no_model_and_needs_nothing():
    run = RunDir("tiny")
    for name, folder in ((STEPS, run.steps), (PAPER, run.paper)):
        key = make_key(name, "psrlm", 0, 4)
        assert key == Key(name) and str(key) == name and run.folder(key) == folder
        assert stages.needs(key) == [] and stages.in_order([key]) == [key]
        assert run.notebook(key) == folder / "notebooks" / f"{name}.ipynb"


def test_several_seeds_have_a_folder_of_their_own():
    run = run_of("tiny", 5, "runs", "0, 2 2 1")
    assert isinstance(run, SeedsDir) and run.seeds == (0, 2, 1)
    assert run.path.name == "seeds0-2-1" and [part.seed for part in run.parts] == [0, 2, 1]
    assert run.paper == run.path / "paper" and run.parts[1].path.name == "seed2"
    for seeds, seed in (("", 5), ("3", 3)):
        alone = run_of("tiny", 5, "runs", seeds)
        assert type(alone) is RunDir and alone.seed == seed and alone.parts == [alone]
    with pytest.raises(PSRError, match="'x' is no whole number"):
        run_of("tiny", 0, "runs", "0 x")


@pytest.mark.slow
def test_paper_is_made_from_what_is_there_and_made_again_when_more_is(reporting):
    done = reporting.call("paper")
    assert done.returncode == 0, done.stderr
    assert "tables and figures: runs/smoke/seed0/paper" in done.stdout
    steps, paper = (text(reporting.run / name / "names.txt") for name in ("steps", "paper"))
    assert "eval" in steps and "'steps'" in paper and "'steps'" not in steps
    again = reporting.call("paper")
    assert again.stdout.count("nothing to do") == 2
    assert reporting.call("evaluate", "--n", "0").returncode == 0
    third = reporting.call("paper")
    assert "06_steps: running (run:base/eval/manifest.json is new)" in third.stdout
    assert "08_paper: running (run:steps/manifest.json changed" in third.stdout
    assert text(reporting.run / "paper" / "names.txt").count("'eval'") == 2


@pytest.mark.slow
def test_several_seeds_are_read_together(reporting):
    assert reporting.call("iteration", "--n", "1", "--seed", "1").returncode == 0
    done = reporting.call("paper", "--seeds", "0 1")
    assert done.returncode == 0, done.stderr
    together = reporting.run.with_name("seeds0-1") / "paper"
    assert text(together / "names.txt").count("'data'") == 2
    assert not (reporting.run / "paper").exists()
    again = reporting.call("paper", "--seeds", "0 1")
    assert "08_paper: up to date" in again.stdout


def test_the_page_is_written_after_its_tables(reporting):
    reporting.write("psr_lib/report.py", "def write(run, preset):\n"
                    "    assert (run.paper / 'names.txt').is_file()\n"
                    "    return run.path / 'report.html'\n")  # fmt: skip
    done = reporting.call("report")
    assert done.returncode == 0, done.stderr
    assert "08_paper: done" in done.stdout
    assert done.stdout.endswith("report: runs/smoke/seed0/report.html\n")


def test_a_run_that_holds_nothing_is_reported_as_such(reporting):
    done = reporting.call("paper", "--seed", "7")
    assert done.returncode == 0, done.stderr
    assert text(reporting.run.with_name("seed7") / "steps" / "names.txt") == "()\n"


@pytest.mark.slow
def test_a_report_opened_by_hand_builds_m1_first(reporting):
    done = reporting.call("build", "--stage", "06_steps", "--seed", "4")
    assert done.returncode == 0, done.stderr
    assert "05_evaluate M1: done" in done.stdout and "05_evaluate M0: done" in done.stdout


def test_a_preset_names_the_map_of_figure_2():
    assert (
        load("tiny").paper.embedding == "own" and load("tiny", "paper.embedded=50").paper.embedded
    )
    with pytest.raises(PSRError, match=r"paper\.perplexity"):
        load("tiny", "paper.perplexity=0.5")
    assert set(BODIES) < set(stages.STAGES)
