"""The whole loop as users run it: real runner, every notebook, preset smoke, shipped weights.

The run has against it what must not matter: an ASCII locale, a clock that runs backwards, a key in
the environment. It has two rounds; `test_smoke_again` goes on to M4, and compares with a plain run.
"""

import gzip
from types import SimpleNamespace

import pytest
from conftest import C_LOCALE
from whole_runs import CLOCK, assert_well_executed, ended, files, start

from psr_lib import manifest, presets, results
from psr_lib.evaluation import read_csv
from psr_lib.records import Question, StepPair, read_json, read_jsonl
from psr_lib.run_dirs import RunDir
from psr_lib.stages import stage_state

TWO = "rounds=2"  # they make every kind of stage
PRESET = presets.load("smoke", [TWO])
ROUNDS = range(2, PRESET.rounds + 1)
COLUMNS = ["benchmark", "n", "accuracy", "low", "high", "lenient", "steps", "tokens", "cut"]
SECRET = "sk-planted-0a1b2c3d4e5f6789"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A complete run, against odds."""
    folder, site = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(CLOCK, encoding="utf-8")
    odds = {**C_LOCALE, "PYTHONPATH": str(site), "OPENAI_API_KEY": SECRET}
    done = ended(start(folder, "reproduce", "--set", TWO, **odds))
    return SimpleNamespace(run=RunDir("smoke", 0, folder), done=done, folder=folder)


def test_one_command_runs_everything_and_ends_with_the_table(smoke):
    assert smoke.done.code == 0, smoke.done.errors
    table = smoke.done.out.split("\n\n")[-1].splitlines()
    assert [line.split()[0] for line in table[2:5]] == ["M0", "M1", "M2"]
    assert "executed notebooks:" in table[5] and "figures:" in table[6]


def test_a_key_is_in_no_file_and_in_nothing_that_was_said(smoke):
    kept = [path for path in smoke.folder.rglob("*") if path.is_file()]
    texts = {path: path.read_bytes() for path in kept}
    texts |= {p: gzip.decompress(raw) for p, raw in texts.items() if p.suffix == ".gz"}
    assert len(texts) > 50 and {".ipynb", ".gz", ".json"} <= {path.suffix for path in kept}
    assert [str(path) for path, raw in texts.items() if SECRET.encode() in raw] == []
    assert SECRET not in smoke.done.out + smoke.done.errors


def test_a_clock_that_runs_backwards_stops_nothing_and_no_time_is_negative(smoke):
    keys = results.run_stages("psrlm", PRESET.rounds)
    made = [read_json(smoke.run.folder(key) / manifest.NAME) for key in keys]
    assert made[0]["started"] > made[-1]["started"], "it ran backwards"
    assert all(0 <= one["wall_seconds"] < 3600 for one in made)


def test_every_stage_is_complete_and_current(smoke):
    keys = results.run_stages("psrlm", PRESET.rounds)
    assert len(keys) == 5 + 3 * len(ROUNDS)
    for key in keys:
        assert stage_state(smoke.run, key, PRESET).word == "current", key
        found = read_json(smoke.run.folder(key) / "manifest.json")
        assert found["status"] == "complete" and found["outputs"] and not found["by_hand"]


def test_pairs_fit_their_type_and_come_from_the_rounds_questions(smoke):
    for n in ROUNDS:
        pairs = read_jsonl(smoke.run.ppd("psrlm", n) / "ppd.jsonl", StepPair)
        asked = read_jsonl(smoke.run.data / f"questions_{n}.jsonl", Question)
        texts = {question.id: question.text for question in asked}
        assert pairs, f"round {n} gave no pairs"
        for pair in pairs:
            assert texts[pair.problem_id] == pair.question
            assert pair.chosen.split() != pair.rejected.split()
            depth = len(pair.prefix) + 1
            assert all(s.startswith(f"Step {depth}:") for s in (pair.chosen, pair.rejected))


def test_training_counts_every_pair(smoke):
    for n in ROUNDS:
        pairs = read_jsonl(smoke.run.ppd("psrlm", n) / "ppd.jsonl", StepPair)
        counts = read_json(smoke.run.model("psrlm", n) / "manifest.json")["counts"]
        assert counts["rows"] == len(pairs)
        assert counts["rows"] == counts["used"] + counts["identical"] + counts["too_long"]
        assert counts["updates"] == -(-counts["used"] // PRESET.dpo.batch)


def test_accuracy_tables_cover_every_benchmark(smoke):
    for n in range(PRESET.rounds + 1):
        rows = read_csv(smoke.run.eval("psrlm", n) / "accuracy.csv")
        assert list(rows[0]) == COLUMNS
        assert [row["benchmark"] for row in rows] == [*PRESET.data.benchmarks, "mean"]
        assert {row["n"] for row in rows[:-1]} == {str(PRESET.data.benchmark_size)}
        searched = smoke.run.eval("psrlm", n) / "search_accuracy.csv"
        assert searched.is_file() == (n in PRESET.eval.search_rounds)


def test_executed_notebooks_hold_no_errors_no_warnings_and_no_paths(smoke):
    for key in results.run_stages("psrlm", PRESET.rounds):
        assert_well_executed(smoke.run.notebook(key), smoke.folder)


def test_a_second_call_does_nothing_and_says_so(smoke):
    before = files(smoke.folder)
    again = ended(start(smoke.folder, "reproduce", "--set", TWO))
    assert again.code == 0 and "nothing to do: everything is up to date" in again.out
    assert again.out.split("\n\n")[-1] == smoke.done.out.split("\n\n")[-1], "the same table"
    assert files(smoke.folder) ^ before == set()
