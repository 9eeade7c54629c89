"""Controls and the baseline as users run them, beside a psrlm run of preset smoke."""

import pytest
from whole_runs import PRESET, assert_well_executed, ended, files, run_to_m2, start

from psr_lib.records import Question, StepPair, read_json, read_jsonl
from psr_lib.stages import in_order, round_keys, stage_state

NO_PAIRS_OF_ITS_OWN = ("ift-more", "sft-chosen")
CONTROLS = ["random-judge", "gold-judge", *NO_PAIRS_OF_ITS_OWN]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_to_m2(tmp_path_factory)


def to_m2(run, method):
    """`make iteration N=2` of another method; nothing of psrlm's is touched."""
    before = files(run.path / "psrlm")
    done = ended(start(run.root, "iteration", "--n", "2", "--method", method))
    assert done.code == 0, done.errors
    assert files(run.path / "psrlm") ^ before == set()
    for key in in_order(round_keys(method, 2)):
        assert stage_state(run, key, PRESET).word == "current"
    return run.path / method


def test_the_run_that_they_stand_beside_is_as_it_was_made(run):
    for key in in_order(round_keys("psrlm", 2)):
        assert stage_state(run, key, PRESET).word == "current"


@pytest.mark.parametrize("method", CONTROLS)
def test_controls_start_from_psrlms_m1_and_copy_nothing(run, method):
    home = to_m2(run, method)
    assert [path.name for path in home.iterdir()] == ["M2"]
    assert (home / "M2/ppd").exists() == (method not in NO_PAIRS_OF_ITS_OWN)
    trained = read_json(home / "M2/model/manifest.json")
    assert "run:psrlm/M1/model" in trained["inputs"]
    twin = read_json(run.model("psrlm", 2) / "manifest.json")
    if method in NO_PAIRS_OF_ITS_OWN:  # equal updates
        assert trained["counts"]["updates"] == twin["counts"]["updates"]
    names = [path / "model.safetensors" for path in (home / "M2/model", run.model("psrlm", 2))]
    assert names[0].read_bytes() != names[1].read_bytes()


def test_the_baseline_has_an_m1_of_its_own_and_gets_psrlms_tokens(run):
    home = to_m2(run, "srlm")
    assert sorted(path.name for path in home.iterdir()) == ["M1", "M2", "data"]
    counts = read_json(home / "M2/ppd/manifest.json")["counts"]
    given = read_json(run.ppd("psrlm", 2) / "manifest.json")["tokens"]
    assert counts["budget"] == sum(given.values()) and abs(counts["budget_used"] - 1) < 0.05
    pairs = read_jsonl(home / "M2/ppd/ppd.jsonl", StepPair)
    asked = {q.id: q.text for q in read_jsonl(run.data / "questions_2.jsonl", Question)}
    assert pairs and all(asked[p.problem_id] == p.question and p.prefix == [] for p in pairs)
    assert len({p.problem_id for p in pairs}) == len(pairs) == counts["pairs"]
    folders = home / "M1/model", run.model("psrlm", 1)
    weights = [(folder / "model.safetensors").read_bytes() for folder in folders]
    assert weights[0] != weights[1]
    for key in in_order(round_keys("srlm", 2)):
        if key.method == "srlm":
            assert_well_executed(run.notebook(key), run.root)
