"""Judges, engines, teachers, benchmarks, losses and filters from outside: found by name, or not."""

import importlib
import re

import pytest

from psr_lib import presets, registry
from psr_lib.records import PSRError
from psr_lib.registry import register

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
