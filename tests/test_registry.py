"""Judges, engines, teachers, benchmarks, losses and filters from outside: found by name, or not."""

import importlib
import re
from types import SimpleNamespace

import pytest
from conftest import ROOT
from scripted import Scripted
from tiny_model import step_pair

from psr_lib import (
    annotate,
    annotators,
    benchmarks,
    presets,
    prompts,
    registry,
    score_teachers,
    stages,
)
from psr_lib.engines import opening
from psr_lib.judge import Call, Judge
from psr_lib.methods import DATA
from psr_lib.records import PSRError, Question
from psr_lib.registry import register
from psr_lib.run_dirs import Key

JUDGE = """from psr_lib.registry import register
from psr_lib.robins import Verdict


@register("judge", "mine")
def mine(judge, calls):
    return [Verdict("{answer}") for call in calls]
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """What a test registers is gone after it; what is built in stays."""
    for kind in registry.KINDS.values():
        importlib.import_module(kind.module)
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr(registry, "_imported", dict(registry._imported))
    registry._points.cache_clear()
    yield
    registry._points.cache_clear()


@pytest.fixture
def file(tmp_path):
    """A file that registers the judge `mine`."""
    path = tmp_path / "judges.py"
    path.write_text(JUDGE.format(answer="A"))
    return path


@pytest.mark.parametrize("kind", registry.KINDS)
def test_what_is_built_in_is_registered_by_the_module_that_the_table_names(kind):
    for name in registry.KINDS[kind].built_in:
        registry.find(kind, name)
    module = registry.KINDS[kind].module
    home = registry.LIBRARY.parent.joinpath(*module.split(".")).with_suffix(".py")
    made = {name: entry.file for (of, name), entry in registry._entries.items() if of == kind}
    assert [name for name, file in made.items() if file == home] == list(
        registry.KINDS[kind].built_in
    )


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("judge.kind=mine", "choose one of oracle, random, self"),
        ("engine.kind=mine", "choose one of hf, ray, server, vllm"),
        ("teacher.judge=mine", "choose one of api, oracle, rule"),
        ("teacher.ift=mine", "choose one of api, oracle, rule"),
        ("dpo.loss=xyz", "choose one of apo_zero, hinge, ipo, nca_pair, robust, sigmoid"),
        ("dpo.filters=[margin,xyz]", "choose one of length, margin"),
    ],
)
def test_an_unknown_name_is_one_line_that_lists_what_there_is(override, names):
    with pytest.raises(PSRError, match=f"' is unknown; {names}") as caught:
        presets.load("smoke", override)
    assert override.partition("=")[0] in str(caught.value) and "\n" not in str(caught.value)


def test_a_preset_takes_the_name_once_its_extension_is_named(file, capsys):
    found = presets.load("smoke", f"extensions=[{file}] judge.kind=mine")
    assert found.judge.kind == "mine" and found.extensions == (str(file),)
    assert registry.find("judge", "mine")(None, [1])[0].answer == "A"
    presets.load("smoke", f"extensions=[{file}] judge.kind=mine")
    assert capsys.readouterr().out == f"extension {file}: imported {file}\n", "once"
    assert registry.origin("judge", "mine") == file and registry.origin("judge", "self") is None


def test_a_changed_extension_is_imported_again_and_forgets_what_it_no_longer_has(file, capsys):
    presets.load("smoke", f"extensions=[{file}]")
    file.write_text(JUDGE.format(answer="B").replace('"mine"', '"other"'))
    presets.load("smoke", f"extensions=[{file}] judge.kind=other")
    assert registry.find("judge", "other")(None, [1])[0].answer == "B"
    assert not registry.known("judge", "mine")
    assert capsys.readouterr().out.count("imported") == 2


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("gone.py", None, "gone.py': no such file or module"),
        ("no.such.module", None, "no.such.module': no such file or module"),
        ("bad.py", "1 / 0", "bad.py: ZeroDivisionError: division by zero"),
        ("bad.py", "def (", "bad.py: SyntaxError: invalid syntax"),
        ("taken.py", JUDGE.replace("mine", "self"), "judge 'self' is built in; choose another"),
        ("kind.py", JUDGE.replace('"judge"', '"juge"'), "no kind 'juge'; there are judge, engine"),
    ],
)
def test_a_bad_extension_is_one_line(name, text, words, tmp_path):
    if text:
        (tmp_path / name).write_text(text)
    place = tmp_path / name if name.endswith(".py") else name
    with pytest.raises(PSRError, match=re.escape(words)) as caught:
        presets.load("smoke", f"extensions=[{place}]")
    assert "\n" not in str(caught.value)


def test_two_files_cannot_have_one_name(file, tmp_path):
    (tmp_path / "more.py").write_text(file.read_text())
    with pytest.raises(PSRError, match=r"judge 'mine' is .*judges.py's"):
        presets.load("smoke", f"extensions=[{file},{tmp_path}/more.py]")


def test_a_cell_of_a_notebook_cannot_register_what_other_kernels_would_not_see():
    with pytest.raises(PSRError, match=r"write it into a file and name that in .* extensions"):
        exec('register("judge", "mine")', {"register": register})


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with an entry point for each of two kinds, one of them broken."""
    (tmp_path / "psr_others.py").write_text("def twice(pair, settings):\n    return True\n")
    info = tmp_path / "psr_others-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: psr-others\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[psr_lib.filters]\ntwice = psr_others:twice\n[psr_lib.losses]\nlost = psr_others:lost\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "psr_others.py"


def test_an_installed_package_brings_names_by_its_entry_points(package):
    found = presets.load("smoke", "dpo.filters=[margin,twice]")
    assert found.dpo.filters == ("margin", "twice")
    assert registry.find("filter", "twice").__name__ == "twice"
    assert registry.origin("filter", "twice") == package
    assert list(presets.registered(found.dpo)) == [
        ("loss", "sigmoid"), ("filter", "margin"), ("filter", "twice")
    ]  # fmt: skip
    with pytest.raises(PSRError, match="entry point lost = psr_others:lost: AttributeError"):
        registry.find("loss", "lost")


OTHERS = """from contextlib import contextmanager

from psr_lib.annotate import Answer
from psr_lib.engines.base import Completion
from psr_lib.records import Problem
from psr_lib.registry import register
from psr_lib.score_teachers import Said


class Echo:
    honours_seeds, tokenizer, concurrency = True, None, 1

    def sample(self, prompts, *, n, **how):
        return [[Completion(f"{prompt}!", 1, "stop", 1)] * n for prompt in prompts]

    def answer(self, call):
        return Answer(f"{call.a} is right. [[A]]")

    def score(self, question, solution):
        return Said("fine", 5.0)


@register("engine", "mine")
def engine(settings, model, folder, n):
    return Echo()


@register("benchmark", "mine")
def benchmark(stage):
    names = [f"mine/{k}" for k in range(stage.preset.data.benchmark_size)]
    return [Problem(id=name, source="mine", question=f"{name}?", answer="1") for name in names]


@register("teacher", "mine")
@contextmanager
def teacher(stage, pairs, solutions):
    yield Echo()
"""
SCORER = """

@register("scorer", "mine")
@contextmanager
def scorer(stage, contests, solutions):
    yield Echo()
"""


def stage_of(folder, text, *changes):
    """A stage whose preset names a file with this text among its extensions."""
    (folder / "others.py").write_text(text)
    return SimpleNamespace(
        preset=presets.load("smoke", [f"extensions=[{folder}/others.py]", *changes])
    )


def test_an_engine_from_outside_is_opened_and_generates(tmp_path):
    preset = stage_of(tmp_path, OTHERS, "engine.kind=mine").preset
    engine = opening.open_engine(preset.engine, preset.model, tmp_path, 1)
    assert [one.text for one in engine.sample(["a"], n=2)[0]] == ["a!", "a!"]


def test_a_benchmark_from_outside_is_a_test_set(tmp_path):
    stage = stage_of(tmp_path, OTHERS, "data.benchmarks=[mine]", "data.benchmark_size=3")
    assert [row.id for row in benchmarks.open_sets(stage)["mine"]] == ["mine/0", "mine/1", "mine/2"]


def test_a_teacher_from_outside_judges_the_pairs_of_the_chain(tmp_path):
    stage = stage_of(tmp_path, OTHERS, "teacher.judge=mine")
    with annotators.opened(stage, [step_pair(0)]) as teacher:
        (judged,) = annotate.annotate([step_pair(0)], teacher)
    assert judged.first.verdict == judged.second.verdict == "A" and not judged.consistent


def test_who_scores_solutions_needs_a_teacher_of_that_name_and_the_baseline_a_scorer(tmp_path):
    chain = ("data.eft_from=chain", "teacher.judge=mine")
    stage = stage_of(tmp_path, OTHERS, *chain)
    with pytest.raises(PSRError, match=r"teacher.judge=mine: .* srlm needs .*register a scorer"):
        presets.check_method(stage.preset, "srlm")
    presets.check_method(stage.preset, "psrlm")
    stage = stage_of(tmp_path, OTHERS + SCORER, *chain)
    presets.check_method(stage.preset, "srlm")
    with score_teachers.opened(stage, [], {}) as scorer:
        assert scorer.score("?", "!").points == 5
    alone = OTHERS.partition('@register("teacher"')[0] + SCORER
    with pytest.raises(PSRError, match="'mine' is a scorer alone; register a teacher of that name"):
        stage_of(tmp_path, alone, *chain)


def test_a_scorers_file_is_in_the_baselines_manifest_and_not_in_psrlms(tmp_path):
    (tmp_path / "scorers.py").write_text(
        f"from contextlib import contextmanager\n\n{OTHERS.partition('@register')[0]}{SCORER}"
    )
    places = f"extensions=[{tmp_path}/others.py,{tmp_path}/scorers.py]"
    stage = stage_of(tmp_path, OTHERS, places, "teacher.judge=mine", "data.eft_from=chain")
    for method, name in (("", "others"), ("srlm", "scorers")):
        assert list(stages.extensions(stage.preset, Key(DATA, method))) == [f"extension {name}.py"]


def test_the_readmes_judge_trusts_a_verdict_that_stands_in_both_slots(tmp_path):
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "both_slots.py").write_text(block)
    change = f"extensions=[{tmp_path}/both_slots.py] judge.kind=both-slots"
    settings = presets.load("smoke", change).judge
    call = Call(Question(id="q", text="1 + 1?"), (), "Step 1: right.", "Step 1: wrong.")
    said = {"knows": lambda prompt: prompt.index("right") < prompt.index("wrong"),
            "likes a slot": lambda prompt: True}  # fmt: skip
    found = {}
    for name, first in said.items():
        engine = Scripted(lambda prompt, *_, first=first: (f"[[{'BA'[first(prompt)]}]]", "stop"))
        judge = Judge(engine, prompts.load("compact"), None, settings)
        (found[name],) = judge.ask([call])
        assert len(engine.asked) == found[name].tokens == 2, "both calls count"
    assert {name: verdict.answer for name, verdict in found.items()} == {
        "knows": "A", "likes a slot": None,
    }  # fmt: skip


def test_a_changed_extension_makes_the_stages_stale_that_use_it_and_no_others(repo):
    mine = repo.write("mine.py", JUDGE.format(answer="A"))
    changes = ("--set", "extensions=[mine.py] judge.kind=mine")
    done = repo.call("iteration", "--n", "2", *changes)
    assert done.returncode == 0, done.stderr
    assert "extension mine.py: imported mine.py" in done.stdout
    assert "02_init M1: up to date" in done.stdout
    assert "03_search_judge M2: running (judge.kind self -> mine)" in done.stdout
    mine.write_text(JUDGE.format(answer="B"))
    states = repo.states(*changes)
    assert states["03_search_judge M2"].split(maxsplit=1) == ["stale", "extension mine.py changed"]
    assert states["02_init M1"].startswith("done")
    assert "mine.py" not in repo.call("status", "--each").stdout
