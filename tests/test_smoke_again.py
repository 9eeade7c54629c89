"""Two runs of preset smoke with one seed: all differs that may not matter, and no result does."""

from types import SimpleNamespace

import pytest
from conftest import C_LOCALE, ODD
from whole_runs import CLOCK, PRESET, ended, make_in, run_to_m2

from psr_lib import results
from psr_lib.run_dirs import RunDir
from psr_lib.stages import stage_state

RESULTS = ("ppd.jsonl", "traces.jsonl.gz", "answers.jsonl.gz", "verdicts.jsonl.gz", "accuracy.csv")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """By make, in an odd folder, an ASCII locale (with what is advised there), time backwards."""
    place, site = tmp_path_factory.mktemp("odd") / ODD, tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(CLOCK, encoding="utf-8")
    advised = {**C_LOCALE, "PYTHONUTF8": "1"}
    done = ended(make_in(place, "reproduce", **advised, PYTHONPATH=str(site)))
    assert done.code == 0, done.errors
    return SimpleNamespace(run=RunDir("smoke", 0, place / "runs"), said=done.out)


def test_all_rounds_are_run_and_the_table_ends_it(odd):
    table = odd.said.split("\n\n")[-1].splitlines()
    assert [line.split()[0] for line in table[2:7]] == ["M0", "M1", "M2", "M3", "M4"]
    for key in results.run_stages("psrlm", PRESET.rounds):
        assert stage_state(odd.run, key, PRESET).word == "current", key


def compare(first, second):
    """Names of the first run's result files, and whether they are the same in both."""
    paths = sorted(path for path in first.path.rglob("*") if path.name in RESULTS)
    names = [path.relative_to(first.path) for path in paths]
    return {name: (first.path / name).read_bytes() == (second.path / name).read_bytes()
            for name in names}  # fmt: skip


def test_the_same_seed_gives_the_same_pairs_answers_and_tables(tmp_path_factory, odd):
    same = compare(run_to_m2(tmp_path_factory), odd.run)
    assert {name.name for name in same} == set(RESULTS)
    assert [name for name, equal in same.items() if not equal] == []
