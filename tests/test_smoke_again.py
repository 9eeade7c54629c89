"""Two runs of preset smoke with one seed: all differs that may not matter, and no result does."""

import pytest
from conftest import C_LOCALE, ODD
from whole_runs import CLOCK, ended, make_in, run_to_m2

from psr_lib.run_dirs import RunDir

RESULTS = ("ppd.jsonl", "traces.jsonl.gz", "answers.jsonl.gz", "verdicts.jsonl.gz", "accuracy.csv")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """By make, in a repository in an odd folder, in an ASCII locale, as time runs backwards."""
    place, site = tmp_path_factory.mktemp("odd") / ODD, tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(CLOCK, encoding="utf-8")
    done = ended(make_in(place, "iteration", "N=2", **C_LOCALE, PYTHONPATH=str(site)))
    assert done.code == 0, done.errors
    return RunDir("smoke", 0, place / "runs")


def compare(first, second):
    """Names of the result files of both runs, and whether they are the same."""
    paths = sorted(path for path in second.path.rglob("*") if path.name in RESULTS)
    names = [path.relative_to(second.path) for path in paths]
    return {name: (first.path / name).read_bytes() == (second.path / name).read_bytes()
            for name in names}  # fmt: skip


def test_the_same_seed_gives_the_same_pairs_answers_and_tables(tmp_path_factory, odd):
    same = compare(run_to_m2(tmp_path_factory), odd)
    assert {name.name for name in same} == set(RESULTS)
    assert [name for name, equal in same.items() if not equal] == []
