"""Notebooks by hand and a setting at two values, on a run of preset smoke that is there."""

import pytest
from whole_runs import PRESET, by_hand, ended, files, run_to_m2, start

from psr_lib.evaluation import read_csv
from psr_lib.records import StepPair, read_json, read_jsonl
from psr_lib.run_dirs import Key, RunDir
from psr_lib.stages import stage_state
from psr_lib.traces import TraceFile

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_to_m2(tmp_path_factory)


def test_a_setting_at_two_values_shares_what_it_does_not_touch(run):
    """One of them is the preset's own: its run is there already."""
    before = files(run.path)
    grid = ("--n", "2", "--knob", "dpo.nll_weight", "--values", "10 0", "--set", "data.split=test")
    done = ended(start(run.root, "ablate", *grid))
    assert done.code == 0, done.errors
    own, other = done.out.split("dpo.nll_weight=0, seed 0")
    assert "nothing to do" in own and "running" not in own
    ran = [line for line in other.splitlines() if ": running" in line]
    assert [line.split(":")[0] for line in ran] == ["04_step_dpo M2", "05_evaluate M2"]
    home = run.root / "ablations/dpo.nll_weight"
    rows = read_csv(home / "figures/smoke_psrlm_M2.csv")
    table = read_csv(run.eval("psrlm", 2) / "accuracy.csv")
    mean = float(next(row["accuracy"] for row in table if row["benchmark"] == "mean"))
    assert [row["setting"] for row in rows] == ["10", "0"]
    assert float(rows[0]["accuracy"]) == pytest.approx(100 * mean)
    assert rows[0]["change"] == "" and float(rows[1]["change_low"]) <= float(rows[1]["change"])
    weights = [RunDir("smoke", 0, home / value).model("psrlm", 2) / "model.safetensors"
               for value in ("10", "0")]  # fmt: skip
    assert weights[0].read_bytes() != weights[1].read_bytes()
    assert files(run.path) == before


def test_a_notebook_runs_by_hand_with_the_same_result(run, monkeypatch):
    folder = run.ppd("psrlm", 2)
    before = (folder / "ppd.jsonl").read_bytes()
    by_hand("03_search_judge.ipynb", run.root, monkeypatch)
    assert read_json(folder / "manifest.json")["by_hand"]
    assert (folder / "ppd.jsonl").read_bytes() == before
    assert stage_state(run, Key("03_search_judge", "psrlm", 2), PRESET).word == "current"


def made_by_stages(run):
    """A run's files but its cards, which are written after every command, costs and all."""
    return {(name, when) for name, when in files(run.path) if not name.endswith("_CARD.md")}


def test_notebook_09_makes_a_round_again_with_a_judge_and_a_filter_of_its_own(run, monkeypatch):
    before = made_by_stages(run)
    notebook = by_hand("09_extend.ipynb", run.root, monkeypatch)
    assert made_by_stages(run) == before, "the preset's own round is as it was"
    other = RunDir("smoke", 0, run.root / "variants/both-slots")
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
