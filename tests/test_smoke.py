"""The whole loop as users run it: real runner, every notebook, preset smoke, shipped weights.

One run has all against it that must not matter: an ASCII locale, a clock that runs backwards, a key
in the environment. The other is made by make, in a repository whose folder has an odd name. Where
they should be the same they are compared.
"""

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from conftest import C_LOCALE, ODD, ROOT
from nbclient import NotebookClient

from psr_lib import manifest, presets, results
from psr_lib.evaluation import read_csv
from psr_lib.notebook_runner import RUNNING
from psr_lib.records import Question, StepPair, read_json, read_jsonl
from psr_lib.run_dirs import Key, RunDir
from psr_lib.stages import in_order, round_keys, stage_state
from psr_lib.traces import TraceFile

PRESET = presets.load("smoke")
ROUNDS = range(2, PRESET.rounds + 1)
COLUMNS = ["benchmark", "n", "accuracy", "low", "high", "lenient", "steps", "tokens", "cut"]
RESULTS = ("ppd.jsonl", "traces.jsonl.gz", "answers.jsonl.gz", "verdicts.jsonl.gz", "accuracy.csv")
NO_PAIRS_OF_ITS_OWN = ("ift-more", "sft-chosen")


SECRET = "sk-planted-0a1b2c3d4e5f6789"
# An hour back for each second, for whoever asks Python for the time of day.
CLOCK = """import time
_began, _first = time.monotonic(), time.time()
time.time = lambda: _first - 3600 * (time.monotonic() - _began)
"""


def start(folder, command, *args, **more):
    """The command line in a process of its own, its run in `folder`."""
    line = [sys.executable, "-m", "psr_lib.runs", command, "--preset", "smoke"]
    return popen([*line, "--runs-dir", str(folder), *args], ROOT, **more)


def popen(line, place, **more):
    """A process with the environment of a user's shell."""
    left_out = ("CI", "PSR_QUIET", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", RUNNING)
    kept = {k: v for k, v in os.environ.items() if k not in left_out} | more
    return subprocess.Popen(line, cwd=place, env=kept, encoding="utf-8",
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def make_in(place, *words):
    """Make in a copy of this repository, by this interpreter."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("psr_lib", "notebooks", "data/tiny"):
        shutil.copytree(ROOT / name, place / name, ignore=ignore)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, place)
    line = ["make", "--no-print-directory", *words, "PRESET=smoke", f"CONDA={sys.executable}"]
    return popen(line, place, PYTHONPATH="")


def ended(process):
    """What a started command printed, once it has ended."""
    out, errors = process.communicate(timeout=1200)
    return SimpleNamespace(code=process.returncode, out=out, errors=errors)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A complete run, against odds, and beside it a second one of the same seed up to M2."""
    first, second, site = (tmp_path_factory.mktemp(name) for name in ("first", "second", "site"))
    (site / "sitecustomize.py").write_text(CLOCK, encoding="utf-8")
    short = make_in(second / ODD, "iteration", "N=2")
    odds = {**C_LOCALE, "PYTHONPATH": str(site), "OPENAI_API_KEY": SECRET}
    long = ended(start(first, "reproduce", **odds))
    return SimpleNamespace(
        first=RunDir("smoke", 0, first), second=RunDir("smoke", 0, second / ODD / "runs"),
        long=long, short=ended(short), folder=first,
    )  # fmt: skip


def files(folder):
    """Every file with its time stamp, the lock left out."""
    found = (path for path in Path(folder).rglob("*") if path.is_file() and path.name != ".lock")
    return {(str(path), path.stat().st_mtime_ns) for path in found}


def test_one_command_runs_everything_and_ends_with_the_table(smoke):
    assert (smoke.long.code, smoke.short.code) == (0, 0), smoke.long.errors + smoke.short.errors
    table = smoke.long.out.split("\n\n")[-1].splitlines()
    assert [line.split()[0] for line in table[2:7]] == ["M0", "M1", "M2", "M3", "M4"]
    assert "executed notebooks:" in table[7] and "figures:" in table[8]


def test_a_key_is_in_no_file_and_in_nothing_that_was_said(smoke):
    kept = [path for path in smoke.folder.rglob("*") if path.is_file()]
    texts = {path: path.read_bytes() for path in kept}
    texts |= {p: gzip.decompress(raw) for p, raw in texts.items() if p.suffix == ".gz"}
    assert len(texts) > 100 and {".ipynb", ".gz", ".json"} <= {path.suffix for path in kept}
    assert [str(path) for path, raw in texts.items() if SECRET.encode() in raw] == []
    assert SECRET not in smoke.long.out + smoke.long.errors


def test_a_clock_that_runs_backwards_stops_nothing_and_no_time_is_negative(smoke):
    keys = results.run_stages("psrlm", PRESET.rounds)
    made = [read_json(smoke.first.folder(key) / manifest.NAME) for key in keys]
    assert made[0]["started"] > made[-1]["started"], "it ran backwards"
    assert all(0 <= one["wall_seconds"] < 3600 for one in made)


def test_every_stage_is_complete_and_current(smoke):
    keys = results.run_stages("psrlm", PRESET.rounds)
    assert len(keys) == 5 + 3 * len(ROUNDS)
    for key in keys:
        assert stage_state(smoke.first, key, PRESET).word == "current", key
        found = read_json(smoke.first.folder(key) / "manifest.json")
        assert found["status"] == "complete" and found["outputs"] and not found["by_hand"]


def test_pairs_fit_their_type_and_come_from_the_rounds_questions(smoke):
    for n in ROUNDS:
        pairs = read_jsonl(smoke.first.ppd("psrlm", n) / "ppd.jsonl", StepPair)
        asked = read_jsonl(smoke.first.data / f"questions_{n}.jsonl", Question)
        texts = {question.id: question.text for question in asked}
        assert pairs, f"round {n} gave no pairs"
        for pair in pairs:
            assert texts[pair.problem_id] == pair.question
            assert pair.chosen.split() != pair.rejected.split()
            depth = len(pair.prefix) + 1
            assert all(s.startswith(f"Step {depth}:") for s in (pair.chosen, pair.rejected))


def test_training_counts_every_pair(smoke):
    for n in ROUNDS:
        pairs = read_jsonl(smoke.first.ppd("psrlm", n) / "ppd.jsonl", StepPair)
        counts = read_json(smoke.first.model("psrlm", n) / "manifest.json")["counts"]
        assert counts["rows"] == len(pairs)
        assert counts["rows"] == counts["used"] + counts["identical"] + counts["too_long"]
        assert counts["updates"] == -(-counts["used"] // PRESET.dpo.batch)


def test_accuracy_tables_cover_every_benchmark(smoke):
    for n in range(PRESET.rounds + 1):
        rows = read_csv(smoke.first.eval("psrlm", n) / "accuracy.csv")
        assert list(rows[0]) == COLUMNS
        assert [row["benchmark"] for row in rows] == [*PRESET.data.benchmarks, "mean"]
        assert {row["n"] for row in rows[:-1]} == {str(PRESET.data.benchmark_size)}
        searched = smoke.first.eval("psrlm", n) / "search_accuracy.csv"
        assert searched.is_file() == (n in PRESET.eval.search_rounds)


def machine_text(text, folder):
    """Where a text names a place of this machine other than the run's folder."""
    text = text.replace(str(folder), "")
    return [place for place in (str(ROOT), sys.prefix, str(Path.home()) + "/") if place in text]


def assert_well_executed(path, folder):
    """An executed notebook without errors, warnings and paths, with one figure."""
    text = path.read_text(encoding="utf-8")
    assert machine_text(text, folder) == [], path
    cells = [c for c in json.loads(text)["cells"] if c["cell_type"] == "code"]
    cells = [c for c in cells if manifest.PLAY not in c["metadata"].get("tags", [])]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert all(cell["execution_count"] for cell in cells)
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 1, "one figure, once"


def test_executed_notebooks_hold_no_errors_no_warnings_and_no_paths(smoke):
    for key in results.run_stages("psrlm", PRESET.rounds):
        assert_well_executed(smoke.first.notebook(key), smoke.folder)


def test_a_second_call_does_nothing_and_says_so(smoke):
    before = files(smoke.folder)
    again = ended(start(smoke.folder, "reproduce"))
    assert again.code == 0 and "nothing to do: everything is up to date" in again.out
    assert again.out.split("\n\n")[-1] == smoke.long.out.split("\n\n")[-1], "the same table"
    assert files(smoke.folder) ^ before == set()


def compare(first, second):
    """Names of the result files of both runs, those that differ marked."""
    found = {}
    for path in sorted(second.path.rglob("*")):
        if path.name in RESULTS:
            name = path.relative_to(second.path)
            found[str(name)] = (first.path / name).read_bytes() == path.read_bytes()
    return found


def test_the_same_seed_gives_the_same_pairs_answers_and_tables(smoke):
    same = compare(smoke.first, smoke.second)
    assert {Path(name).name for name in same} == set(RESULTS)
    assert [name for name, equal in same.items() if not equal] == []


CONTROLS = ["random-judge", "gold-judge", *NO_PAIRS_OF_ITS_OWN]


@pytest.mark.parametrize("method", CONTROLS)
def test_controls_start_from_psrlms_m1_and_copy_nothing(smoke, method):
    before = files(smoke.first.path / "psrlm")
    done = ended(start(smoke.folder, "iteration", "--n", "2", "--method", method))
    assert done.code == 0, done.errors
    assert files(smoke.first.path / "psrlm") ^ before == set()
    home = smoke.first.path / method
    assert [path.name for path in home.iterdir()] == ["M2"]
    assert (home / "M2/ppd").exists() == (method not in NO_PAIRS_OF_ITS_OWN)
    trained = read_json(home / "M2/model/manifest.json")
    assert "run:psrlm/M1/model" in trained["inputs"]
    twin = read_json(smoke.first.model("psrlm", 2) / "manifest.json")
    if method in NO_PAIRS_OF_ITS_OWN:  # equal updates
        assert trained["counts"]["updates"] == twin["counts"]["updates"]
    for key in in_order(round_keys(method, 2)):
        assert stage_state(smoke.first, key, PRESET).word == "current"
    own, psrlm = home / "M2/model", smoke.first.model("psrlm", 2)
    names = [path / "model.safetensors" for path in (own, psrlm)]
    assert names[0].read_bytes() != names[1].read_bytes()


def test_the_baseline_has_an_m1_of_its_own_and_gets_psrlms_tokens(smoke):
    before = files(smoke.first.path / "psrlm")
    done = ended(start(smoke.folder, "iteration", "--n", "2", "--method", "srlm"))
    assert done.code == 0, done.errors
    assert files(smoke.first.path / "psrlm") ^ before == set()
    home = smoke.first.path / "srlm"
    assert sorted(path.name for path in home.iterdir()) == ["M1", "M2", "data"]
    counts = read_json(home / "M2/ppd/manifest.json")["counts"]
    given = read_json(smoke.first.ppd("psrlm", 2) / "manifest.json")["tokens"]
    assert counts["budget"] == sum(given.values()) and abs(counts["budget_used"] - 1) < 0.05
    pairs = read_jsonl(home / "M2/ppd/ppd.jsonl", StepPair)
    asked = {q.id: q.text for q in read_jsonl(smoke.first.data / "questions_2.jsonl", Question)}
    assert pairs and all(asked[p.problem_id] == p.question and p.prefix == [] for p in pairs)
    assert len({p.problem_id for p in pairs}) == len(pairs) == counts["pairs"]
    weights = [
        run / "model/model.safetensors" for run in (home / "M1", smoke.first.round("psrlm", 1))
    ]
    assert weights[0].read_bytes() != weights[1].read_bytes()
    for key in in_order(round_keys("srlm", 2)):
        assert stage_state(smoke.first, key, PRESET).word == "current"
        if key.method == "srlm":
            assert_well_executed(smoke.first.notebook(key), smoke.folder)


def test_a_notebook_runs_by_hand_with_the_same_result(smoke, monkeypatch):
    """As in JupyterLab: its default parameters, but for the folder of the runs."""
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.delenv(RUNNING, raising=False)
    folder = smoke.second.ppd("psrlm", 2)
    before = (folder / "ppd.jsonl").read_bytes()
    notebook = nbformat.read(ROOT / "notebooks/03_search_judge.ipynb", as_version=4)
    cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    cell.source = cell.source.replace('"runs"', repr(str(smoke.second.root)))
    place = {"metadata": {"path": str(ROOT / "notebooks")}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    assert read_json(folder / "manifest.json")["by_hand"]
    assert (folder / "ppd.jsonl").read_bytes() == before
    assert stage_state(smoke.second, Key("03_search_judge", "psrlm", 2), PRESET).word == "current"


def test_a_setting_at_two_values_shares_what_it_does_not_touch(smoke):
    """One of them is the preset's own: its run is there already."""
    before = files(smoke.first.path)
    grid = ("--n", "2", "--knob", "dpo.nll_weight", "--values", "10 0", "--set", "data.split=test")
    done = ended(start(smoke.folder, "ablate", *grid))
    assert done.code == 0, done.errors
    own, other = done.out.split("dpo.nll_weight=0, seed 0")
    assert "nothing to do" in own and "running" not in own
    ran = [line for line in other.splitlines() if ": running" in line]
    assert [line.split(":")[0] for line in ran] == ["04_step_dpo M2", "05_evaluate M2"]
    home = smoke.folder / "ablations/dpo.nll_weight"
    rows = read_csv(home / "figures/smoke_psrlm_M2.csv")
    table = read_csv(smoke.first.eval("psrlm", 2) / "accuracy.csv")
    mean = float(next(row["accuracy"] for row in table if row["benchmark"] == "mean"))
    assert [row["setting"] for row in rows] == ["10", "0"]
    assert float(rows[0]["accuracy"]) == pytest.approx(100 * mean)
    assert rows[0]["change"] == "" and float(rows[1]["change_low"]) <= float(rows[1]["change"])
    weights = [RunDir("smoke", 0, home / value).model("psrlm", 2) / "model.safetensors"
               for value in ("10", "0")]  # fmt: skip
    assert weights[0].read_bytes() != weights[1].read_bytes()
    assert files(smoke.first.path) == before


def made_by_stages(run):
    """A run's files but its cards, which are written after every command, costs and all."""
    return {(name, when) for name, when in files(run.path) if not name.endswith("_CARD.md")}


def test_notebook_09_makes_a_round_again_with_a_judge_and_a_filter_of_its_own(smoke, monkeypatch):
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.delenv(RUNNING, raising=False)
    before = made_by_stages(smoke.second)
    notebook = nbformat.read(ROOT / "notebooks/09_extend.ipynb", as_version=4)
    cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    cell.source = cell.source.replace('"runs"', repr(str(smoke.second.root)))
    place = {"metadata": {"path": str(ROOT / "notebooks")}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    assert made_by_stages(smoke.second) == before, "the preset's own round is as it was"
    other = RunDir("smoke", 0, smoke.second.root / "variants/both-slots")
    search, dpo = (read_json(folder / "manifest.json")
                   for folder in (other.ppd("psrlm", 2), other.model("psrlm", 2)))  # fmt: skip
    assert "extension both_slots.py" in search["code"] and "extension both_slots.py" in dpo["code"]
    lost = dpo["counts"].get("left out by clear", 0)
    assert dpo["counts"]["rows"] == search["counts"]["pairs"] - lost > 0
    pairs = read_jsonl(other.ppd("psrlm", 2) / "ppd.jsonl", StepPair)
    verdicts = [v for trace in TraceFile(other.ppd("psrlm", 2) / "traces.jsonl.gz")
                for e in trace.expansions for v in e.robin.verdicts.values()]  # fmt: skip
    assert len(pairs) == search["counts"]["pairs"] and any(v.answer is None for v in verdicts)
    shown = "".join(str(output) for c in notebook.cells for output in c.get("outputs", []))
    assert "extension both_slots.py" in shown and "image/png" in shown
