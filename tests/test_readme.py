"""The README's numbers come from kept results, and one that does not is found."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import paper_run
import pytest
from conftest import ROOT, make_notebook
from test_results import fake_run

from psr_lib import (
    curves,
    figures,
    machines,
    manifest,
    plan,
    readme,
    readme_short,
    results,
    showcase,
    typed,
)
from psr_lib.evaluation import read_csv
from psr_lib.evidence import Evidence
from psr_lib.records import PSRError

PAGE = "before 12\n" + "".join(f"<!-- made: {n} -->\nold\n<!-- end -->\n" for n in readme.BLOCKS)
OF_THE_PAPER = (
    "claims",
    "status",
    "secondary",
    "contradictions",
    "presets",
)  # they say something without runs


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A README of its own in a repository without results."""
    monkeypatch.setattr(manifest, "root", lambda: tmp_path)
    readme.kept_evidence.cache_clear()
    (tmp_path / "README.md").write_text(PAGE + "after\n")
    yield tmp_path / "README.md"
    readme.kept_evidence.cache_clear()


def keep_some(root):
    for seed in (0, 1):
        for method in ("psrlm", "random-judge"):
            run, _ = fake_run(root / "runs", method, seed, luck=9 * (method != "psrlm"))
            results.keep(run, method, 2)
    run, _ = fake_run(root / "runs", seed=100, split="dev")
    results.keep(run, "psrlm", 2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A repository with some kept runs, its README filled and its figures drawn, once."""
    root = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "root", lambda: root)
        readme.kept_evidence.cache_clear()
        (root / "README.md").write_text(PAGE + "after\n")
        keep_some(root)
        assert run_main(patch) == 0
    return root


@pytest.fixture
def full(page, made):
    """A copy of it."""
    shutil.copytree(made, page.parent, dirs_exist_ok=True)
    return page


def run_main(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["readme", *args])
    return readme.main()


def block(text, name):
    return text.partition(f"<!-- made: {name} -->\n")[2].partition("<!-- end -->")[0]


def test_blocks_without_results_say_so(page, monkeypatch):
    assert run_main(monkeypatch) == 0
    text = page.read_text()
    assert text.count("not run yet") == len(readme.BLOCKS) - len(OF_THE_PAPER)
    assert text.startswith("before 12\n") and text.endswith("after\n") and "old" not in text
    assert block(text, "status").count("| not run |") == 11
    assert block(text, "claims").count("**not run**") == 9
    assert "Nanjing University" in block(text, "secondary")
    assert "4,179" in block(text, "contradictions")


def test_blocks_hold_the_kept_numbers(full):
    lines = full.read_text().splitlines()
    kept = results.load("tiny", 1, "random-judge")
    line = next(line for line in lines if line.startswith("| random-judge | 1 |"))
    means = [f"{100 * model['accuracy']['mean']:.1f}" for model in kept["models"]]
    assert re.findall(r"\| ([\d.]+) \[[\d.]+,\s[\d.]+\]", line) == means
    assert "| tiny | data/tiny/base | 8.0 | 8.0 | 16.0 | seed 0, cpu |" in lines
    assert any(line.startswith("`make reproduce` took 8 minutes and up to 24.0 ") for line in lines)
    assert "| all | 8.0 | 8.0 | 16.0 |" in lines  # eight stages of a minute, a and two M tokens
    bare = [re.sub(r" \[[^\]]+\]", "", line) for line in lines]
    assert "| M1 | 90.0 | 50.0 | 50.0 | 50.0 | 50.0 |" in bare
    assert "| M2 | 40 | 2.4 | 60.0 | 30.0 | 20.0 | 45.0 | 0.0 | 72.0 | 50.0 | 10.0 |" in bare
    searched = next(line for line in lines if line.startswith("| M2 | 40 |"))
    assert searched.count("[") == 8, "a share, an interval"
    rise = readme.kept_evidence().change(("psrlm", "M1", "greedy"), ("psrlm", "M2", "greedy"))
    assert len(rise.per_seed) == 2
    assert any("M1 → last" in line and f"| {rise.value:+.1f} |" in line for line in lines)
    assert any(line.startswith("| psrlm − random-judge") for line in lines)
    assert "From seeds 0, 1; 95 % intervals over problems, given these seeds." in lines
    assert not any("| 100 |" in line for line in lines), "dev runs stay out"


def test_plans_are_the_same_on_every_machine(monkeypatch, tmp_path):
    def unseen(*_):
        raise AssertionError("a plan for named devices looked at this machine")

    once = readme.plans_block()
    monkeypatch.setattr(machines, "at_hand", unseen)
    monkeypatch.setattr(plan, "_free", unseen)
    monkeypatch.chdir(tmp_path)
    assert readme.plans_block() == once
    assert not [place for place in (str(ROOT), sys.prefix, str(Path.home())) if place in once]
    for words in ("PRESET=paper-7b ON=8xH100", "PRESET=paper-72b ON=32xH100", "04_step_dpo M4",
                  "0 answers there", "Qwen/Qwen2.5-Math-72B from the hub"):  # fmt: skip
        assert words in once, words


def test_the_baselines_budget_is_told_by_round_and_seed(page, monkeypatch):
    counts = {"budget": 2000, "spent": 2150, "budget_used": 1.075, "solutions_each": 4.04}
    stages = [
        {"stage": "03_search_judge", "method": "psrlm", "iteration": 2, "counts": {}},
        {"stage": "03_search_judge", "method": "srlm", "iteration": 2, "counts": counts},
    ]
    kept = [{"seed": 3, "method": "srlm", "split": "test", "stages": stages}]
    monkeypatch.setattr(readme, "summaries", lambda method: kept if method == "srlm" else [])
    (row,) = readme.budget_block().splitlines()[2:]
    assert row == "| 3 | M2 | 2,000 | 2,150 | 107.5 | 4.0 | NO |"


def test_status_tells_what_the_kept_runs_hold(full):
    status = block(full.read_text(), "status").splitlines()
    here = {line.split("|")[1].strip(): line.split("|")[3].strip() for line in status[2:]}
    assert len(here) == 11 and set(here.values()) == {"small-scale only", "not run"}
    assert here["Table 1"] == here["Table 2"] == here["Table 3"] == "small-scale only"
    assert here["Table 6"] == here["Table 9"] == here["Figure 2"] == "not run"


def test_figures_hold_the_mean_over_seeds_of_the_kept_numbers(full):
    made = {path.name for path in (full.parent / "figures").iterdir()}
    names = ("rounds", "methods", "tokens", "judge", "funnel", "figure1")
    assert made == {f"{n}.{kind}" for n in names for kind in ("png", "pdf", "csv")}
    shown = block(full.read_text(), "pictures")
    assert "](figures/judge.png)" in shown and "steps.png" not in shown, "no picture is missing"
    kept = [results.load("tiny", seed, "psrlm")["models"][2]["accuracy"] for seed in (0, 1)]
    rounds = read_csv(full.parent / "figures/rounds.csv")
    assert float(rounds[2]["easy"]) == pytest.approx(100 * sum(k["easy"] for k in kept) / 2)
    assert float(rounds[2]["mean"]) == pytest.approx(100 * sum(k["mean"] for k in kept) / 2)
    for name in ("mean", "easy"):
        low, value, high = (float(rounds[2][name + end]) for end in ("_low", "", "_high"))
        assert low < value < high
    methods = read_csv(full.parent / "figures/methods.csv")
    assert [row["method"] for row in methods] == ["psrlm"] * 3 + ["random-judge"] * 3


def test_a_kept_map_is_drawn(page, monkeypatch):
    from test_paper_figures import APART, POINTS

    from psr_lib.evaluation import write_csv

    monkeypatch.setattr(curves, "CURVES", {})
    keep_some(page.parent)
    for name, rows in zip(results.MAP_FILES, (POINTS, APART), strict=True):
        write_csv(results.folder() / "tiny" / name, rows)
    run_main(monkeypatch)
    assert (page.parent / "figures/figure2.pdf").is_file()
    assert "| Figure 2 | map of prompts and responses | small-scale only |" in page.read_text()
    assert showcase.stale(readme.kept_evidence()) == []
    for name in results.MAP_FILES:
        path = page.parent / "figures" / name
        right = path.read_text()
        path.write_text(right.replace(",0", ",1", 1))
        assert path.read_text() != right
        wrong = [line.split()[0] for line in showcase.stale(readme.kept_evidence())]
        assert wrong == [f"figures/{one}" for one in (name, "figure2.pdf", "figure2.png")]
        path.write_text(right)


PLANTED = {
    "accuracy": ("| M1 | 90.0 [", "| M1 | 91.0 ["),
    "claims": ("**not run**", "**replicated**"),
    "secondary": ("+0.3 and +3.8", "+0.3 and +3.9"),
    "prose": ("before 12", "psrlm solves 53.9 % of them"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_number_is_found(full, monkeypatch, capsys, name):
    assert run_main(monkeypatch, "--check") == 0
    right, (old, new) = full.read_text(), PLANTED[name]
    assert old in right
    full.write_text(right.replace(old, new, 1))
    assert run_main(monkeypatch, "--check") == 1
    words = "'53.9' is typed in" if name == "prose" else "make readme"
    assert words in capsys.readouterr().out
    assert full.read_text() != right, "--check writes nothing"


def test_a_number_planted_in_a_figures_csv_is_found(full, monkeypatch, capsys):
    path = full.parent / "figures/funnel.csv"
    path.write_text(path.read_text().replace("40", "41"))
    assert run_main(monkeypatch, "--check") == 1
    assert "figures/funnel.csv is stale" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["png", "pdf"])
def test_a_picture_of_other_numbers_is_found(full, monkeypatch, capsys, kind):
    folder = full.parent / "figures"
    rows = [row | {"count": 41} for row in read_csv(folder / "funnel.csv")]
    figures.save_fig(figures.new("other")[0], full.parent / "other", "funnel", rows, "another run")
    shutil.copy(full.parent / f"other/funnel.{kind}", folder)
    assert run_main(monkeypatch, "--check") == 1
    assert f"figures/funnel.{kind} is stale" in capsys.readouterr().out
    (folder / f"funnel.{kind}").write_bytes(b"no metadata")
    assert not figures.is_of(folder / f"funnel.{kind}")


def test_a_number_planted_in_a_notebook_is_found(page, monkeypatch, capsys):
    folder = page.parent / "notebooks"
    run_main(monkeypatch)
    make_notebook(folder / "a.ipynb", "print('M4 solves 53.9')", parameters="x: float = 0.5  # 1.5")
    assert run_main(monkeypatch, "--check") == 1
    assert "a.ipynb: '53.9' is typed in" in capsys.readouterr().out
    make_notebook(folder / "a.ipynb", "axes.axhline(92.8)", parameters="x: float = 0.5")
    assert run_main(monkeypatch, "--check") == 1
    assert "a.ipynb: '92.8' is typed in" in capsys.readouterr().out
    make_notebook(folder / "a.ipynb", "print(f'{x:.2f} %', 2, 'in `dpo.beta=0.3`', xlim=(0.7, 1))")
    assert run_main(monkeypatch, "--check") == 0
    book = json.loads((folder / "a.ipynb").read_text())
    text = {"cell_type": "markdown", "id": "t", "metadata": {}, "source": ["it rose by 4 points"]}
    (folder / "a.ipynb").write_text(json.dumps(book | {"cells": [*book["cells"], text]}))
    assert run_main(monkeypatch, "--check") == 1
    assert "'4 points' is typed in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("M4 solves 53.9 of them", ["53.9"]), ("up 4 points, 12 %", ["4 points", "12 %"]),
        ("it rose by +1.25", ["+1.25"]), ("a 95 % interval", []), ("Python 3.11 and 3.12", []),
        ("vllm is 0.32.0, Apache-2.0", []), ("[x](https://arxiv.org/abs/2503.03746)", []),
        ("arXiv 2503.03746 (v1)", []), ("`dpo.beta=0.3`, ```\n0.5\n```", []),
        ("as in section\n3.2, or sections 4 and 5.1", []), ("section 3.2: 53.9", ["53.9"]),
        ("it solves 1,250 of 1,800", ["1,250 of 1,800"]), ("8 times faster", ["8 times"]),
        ("3 out of the 40", ["3 out of the 40"]), ("after 12,345 updates", ["12,345"]),
        ("M4 has `53.9 %`", ["53.9"]), ("`psrlm` won `12 points` and `1 of 2`, see `a-1.5b`",
                                      ["12 points", "1 of 2"]),
        ("```\n9 of 10\n``` `make plan N=2`, `/v1/x`, `Python 3.11`", []),
        ("300 problems in six sets", []), (r"$p = 0.05$ and $$x < 0.3$$", []),
    ],
)  # fmt: skip
def test_what_looks_like_a_result(text, found):
    assert typed.loose(text) == found


def test_an_unknown_block_is_refused(page):
    with pytest.raises(PSRError, match="'costs'"):
        readme.filled("<!-- made: costs -->\n<!-- end -->\n")


def test_without_results_no_figure_is_stale(page):
    assert showcase.stale(readme.kept_evidence()) == []


def test_this_repositorys_readme_is_current():
    command = [sys.executable, "-m", "psr_lib.readme", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_file_of_the_library_has_its_place_in_the_table():
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    table = page[page.index("| file in `psr_lib` |") :].partition("</details>")[0]
    cells = " ".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    named = re.findall(r"`([\w/]+)`", cells)
    there = {path.stem for path in (ROOT / "psr_lib").glob("*.py")} - {"__init__"}
    there |= {f"{path.parent.name}/" for path in (ROOT / "psr_lib").glob("*/__init__.py")}
    assert sorted(named) == sorted(there)


# --- what is said in sentences


def sentences(*methods, **changes):
    found = paper_run.evidence(methods, **changes)
    return found, readme_short.sentences(found)


def test_the_sentences_are_the_evidences_numbers():
    found, lines = sentences("psrlm", "srlm", "sft-chosen")
    ends = ("psrlm", "M1", "greedy"), ("psrlm", "M4", "greedy")
    change = found.change(*ends)
    assert f"{change.value:+.1f} points [{change.low:+.1f}, {change.high:+.1f}]" in lines[0]
    for name in paper_run.SETS:
        assert f"{name} {found.change(*ends, (name,)).value:+.1f}" in lines[0]
    lead = found.change(("srlm", "M4", "greedy"), ends[1])
    word = "above" if lead.low > 0 else "below" if lead.high < 0 else "not told apart from"
    told = next(part for part in lines[1].split("; ") if "`srlm`" in part)
    assert word in told and f"({lead.value:+.1f})" in told
    assert any("greedy decoding" in line for line in lines) and "held-out pairs" in lines[-1]


def test_what_was_not_run_is_not_in_the_sentences():
    _, lines = sentences("psrlm")
    assert not any("srlm`" in line.replace("`psrlm`", "") for line in lines)
    one = paper_run.summary()
    one["models"] = one["models"][:2]
    assert readme_short.sentences(Evidence([one])) == []
    for model in (whole := paper_run.summary())["models"]:
        model.pop("decodings", None), model.pop("judge_outcomes")
    left = readme_short.sentences(Evidence([whole]))
    assert len(left) == 1 and "By test set" in left[0]


def test_the_title_says_where_most_was_won_and_lost():
    first = {"model": "M1", "mean": 40.0, "a": 10.0, "b": 50.0, "c": 60.0}
    last = {"model": "M4", "mean": 50.0, "a": 40.0, "b": 55.0, "c": 55.0}
    rows = [{"model": "M0", "mean": 0.0, "a": 0.0, "b": 0.0, "c": 0.0}, first, last]
    title = showcase.level_title(rows, ["a", "b", "c"])
    assert title == "M1 solves 40 %, M4 50 %; a +30, b +5, c -5 points"
    same = showcase.level_title([first, {**first, "model": "M2"}], ["a", "b", "c"])
    assert same == "M1 solves 40 %, M2 40 %"
