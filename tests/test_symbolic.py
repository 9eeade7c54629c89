"""`gsm_symbolic` divided by template: what trains has no template of what measures."""

import sys
import types
from pathlib import Path
from random import Random

import pytest
from real_pools import FakeStage, write

from psr_lib import benchmarks, ift, sources, symbolic
from psr_lib.hygiene import Screen
from psr_lib.records import PSRError


class FakeGym(types.ModuleType):
    """Stands for reasoning-gym: a hundred templates, each row of the one that its place draws."""

    def __init__(self):
        super().__init__("reasoning_gym")

    @staticmethod
    def create_dataset(name, seed, size):
        assert name == "gsm_symbolic"
        return FakeRows(seed, min(size, 6000))


class FakeRows:
    """Rows of a seed, made when they are asked for."""

    def __init__(self, seed, size):
        self.seed, self.task_indices = seed, Random(seed).choices(range(100), k=size)

    def __getitem__(self, k):
        a, template = self.seed % 50 + k % 700, self.task_indices[k]
        cot = f"It is {a} + {template} = {a + template}\n#### {a + template}"
        question = f"Sum {template} of {a}?{symbolic.REQUEST}"
        return {"question": question, "answer": f"{a + template}", "metadata": {"answer_cot": cot}}


@pytest.fixture
def gym(monkeypatch):
    """A stand-in for the package."""
    monkeypatch.setitem(sys.modules, "reasoning_gym", FakeGym())


def templates(problems):
    """The numbers of the templates of these problems."""
    return {int(problem.meta["type"].split()[1]) for problem in problems}


def test_training_and_held_out_templates_are_disjoint(gym, tmp_path):
    source = sources.open_source("gsm_symbolic", "train", tmp_path, seed=4)
    train = templates(source.problem(k) for k in range(len(source)))
    test, dev = (templates(symbolic.held_out(split)) for split in ("test", "dev"))
    assert len(train) == 60 and len(test) == len(dev) == 20
    assert not train & test and not train & dev and not test & dev


def test_rows_are_problems_without_the_sentence_that_all_of_them_share(gym, tmp_path):
    problem = sources.open_source("gsm_symbolic", "train", tmp_path, seed=4).problem(2)
    assert symbolic.REQUEST.strip() not in problem.question and problem.question.endswith("?")
    assert problem.solution.endswith(f"\nThe answer is \\boxed{{{problem.answer}}}.")
    assert problem.id == "gsm_symbolic/2" and not ift.by_rule(problem).fault


def test_a_held_out_set_is_always_the_same_and_its_problems_differ(gym):
    found = symbolic.held_out("test")
    assert len(found) == symbolic.SIZE == len({problem.question for problem in found})
    assert found == symbolic.held_out("test") != symbolic.held_out("dev")


@pytest.mark.parametrize("folder", ["hub", "sets"])
def test_as_a_benchmark_it_needs_no_file(gym, tmp_path, folder):
    write(tmp_path / "sets/svamp.jsonl", [{"Body": "He has 7.", "Question": "How many?",
                                           "Answer": 7.0}])  # fmt: skip
    names = "[gsm_symbolic]" if folder == "hub" else "[gsm_symbolic,svamp]"
    place = folder if folder == "hub" else tmp_path / folder
    stage = FakeStage(tmp_path, [f"data.benchmarks={names}", f"data.benchmark_folder={place}",
                                 "data.benchmark_size=1"])  # fmt: skip
    sets = benchmarks.open_sets(stage)
    assert sets["gsm_symbolic"] == symbolic.held_out("test")[:1]
    assert len(benchmarks.open_sets(stage, size=0)["gsm_symbolic"]) == symbolic.SIZE
    assert ("svamp" in sets) == (folder == "sets")


def test_without_the_package_it_is_one_line_that_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    for ask in (lambda: sources.open_source("gsm_symbolic", "train", tmp_path),
                lambda: symbolic.held_out("test")):  # fmt: skip
        with pytest.raises(PSRError, match=r"pip install -e '.\[gym\]'") as caught:
            ask()
        assert "\n" not in str(caught.value)


# --- the package itself, where it is installed


@pytest.fixture(scope="module")
def real():
    """The package's training problems."""
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed (extra gym)")
    return sources.open_source("gsm_symbolic", "train", Path("."), seed=1)


@pytest.mark.slow
def test_its_solutions_are_cut_and_its_templates_kept_apart(real):
    problems = [real.problem(k) for k in range(400)]
    assert sum(not ift.by_rule(problem).fault for problem in problems) >= 396
    test = symbolic.held_out("test")
    assert len(test) == symbolic.SIZE and all(problem.answer for problem in test)
    assert templates(problems) and not templates(problems) & templates(test)
    assert not any(symbolic.REQUEST.strip() in p.question for p in [*problems, *test])


@pytest.mark.slow
def test_an_ngram_that_all_share_does_not_empty_the_pool(real):
    screen = Screen({p.id: p.question for p in symbolic.held_out("test")}, ngram=10)
    assert sum(screen.takes(real.problem(k)) for k in range(200)) >= 190
