"""The README's numbers come from kept results, and one that does not is found."""

import subprocess
import sys

import pytest
from conftest import ROOT
from test_results import fake_run

from psr_lib import manifest, readme, results
from psr_lib.evaluation import read_csv
from psr_lib.records import PSRError

PAGE = "before 12.3\n" + "".join(f"<!-- made: {n} -->\nold\n<!-- end -->\n" for n in readme.BLOCKS)


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A README of its own in a repository without results."""
    monkeypatch.setattr(manifest, "root", lambda: tmp_path)
    (tmp_path / "README.md").write_text(PAGE + "after\n")
    return tmp_path / "README.md"


def keep_some(root):
    for seed in (0, 1):
        for method in ("psrlm", "random-judge"):
            run, _ = fake_run(root / "runs", method, seed, luck=9 * (method != "psrlm"))
            results.keep(run, method, 2)
    run, _ = fake_run(root / "runs", seed=100, split="dev")
    results.keep(run, "psrlm", 2)


def run_main(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["readme", *args])
    return readme.main()


def test_blocks_without_results_say_so(page, monkeypatch):
    assert run_main(monkeypatch) == 0
    text = page.read_text()
    assert text.count("not run yet") == len(readme.BLOCKS) and "old" not in text
    assert text.startswith("before 12.3\n") and text.endswith("after\n")


def test_blocks_hold_the_kept_numbers(page, monkeypatch):
    keep_some(page.parent)
    assert run_main(monkeypatch) == 0
    lines = page.read_text().splitlines()
    kept = results.load("tiny", 1, "random-judge")
    means = [f"{100 * model['accuracy']['mean']:.1f}" for model in kept["models"]]
    assert f"| random-judge | 1 | {' | '.join(means)} |" in lines
    assert "| all | 8.0 | 8.0 | 16.0 |" in lines  # eight stages of a minute, a and two M tokens
    assert "| M1 | 90.0 | 50.0 | 50.0 | 50.0 | 50.0 |" in lines
    assert "| M2 | 40 | 2.4 | 60.0 | 30.0 | 20.0 | 45.0 | 0.0 | 72.0 | 50.0 | 10.0 |" in lines
    rise = results.rise([results.load("tiny", seed, "psrlm") for seed in (0, 1)])
    assert any("M1 → last" in line and f"| {100 * rise.mean:+.1f} |" in line for line in lines)
    assert any(line.startswith("| psrlm − random-judge") for line in lines)
    assert not any("| 100 |" in line for line in lines), "dev runs stay out"


def test_figures_hold_the_mean_over_seeds_of_the_kept_numbers(page, monkeypatch):
    keep_some(page.parent)
    run_main(monkeypatch)
    made = {path.name for path in (page.parent / "figures").iterdir()}
    assert made == {f"{n}.{kind}" for n in ("rounds", "methods") for kind in ("png", "pdf", "csv")}
    kept = [results.load("tiny", seed, "psrlm")["models"][2]["accuracy"] for seed in (0, 1)]
    rounds = read_csv(page.parent / "figures/rounds.csv")
    assert float(rounds[2]["easy"]) == pytest.approx(100 * sum(k["easy"] for k in kept) / 2)
    assert float(rounds[2]["mean"]) == pytest.approx(100 * sum(k["mean"] for k in kept) / 2)
    assert float(rounds[2]["low"]) < float(rounds[2]["mean"]) < float(rounds[2]["high"])
    methods = read_csv(page.parent / "figures/methods.csv")
    assert [row["method"] for row in methods] == ["psrlm"] * 3 + ["random-judge"] * 3


def test_a_planted_number_is_found(page, monkeypatch, capsys):
    keep_some(page.parent)
    run_main(monkeypatch)
    assert run_main(monkeypatch, "--check") == 0
    right = page.read_text()
    page.write_text(right.replace("| M1 | 90.0 |", "| M1 | 91.0 |"))
    assert run_main(monkeypatch, "--check") == 1
    assert "make readme" in capsys.readouterr().out
    assert page.read_text() != right, "--check writes nothing"


def test_an_unknown_block_is_refused(page):
    with pytest.raises(PSRError, match="'costs'"):
        readme.filled("<!-- made: costs -->\n<!-- end -->\n")


def test_this_repositorys_readme_is_current():
    command = [sys.executable, "-m", "psr_lib.readme", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
