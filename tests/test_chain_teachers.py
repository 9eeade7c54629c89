"""The chain with a teacher behind an API, on real problems, and what of it ships."""

import gzip
import re

import pytest
from chain_runs import by_the_runner, opened, rows_of
from conftest import ROOT
from teacher_server import TeacherServer

from psr_lib import (
    base_weights,
    chain,
    data_prep,
    manifest,
    presets,
    problems,
    rule_judge,
    rule_labels,
    shipped,
    stages,
    step_labels,
)
from psr_lib.evaluation import read_csv
from psr_lib.records import (
    IFTExample,
    JudgeExample,
    PSRError,
    StepLabels,
    StepPair,
    hash_file,
    read_json,
    read_jsonl,
    write_jsonl,
)
from psr_lib.steps import body

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No stage builds what is before it, and nothing is printed."""
    by_the_runner(monkeypatch)


def ask_oracle(messages):
    """A teacher that knows the laboratory, and reads the judge's prompt of family `paper`."""
    prompt = messages[0]["content"]
    shown = prompt.split("Reasoning Steps Provided]\n")[1].split("\n[The Start of Assistant A")[0]
    question, *prefix = shown.strip().split("\n")
    a, b = (re.search(rf"Assistant {x}'s Next Reasoning Step\]\n(.*)\n", prompt)[1] for x in "AB")
    verdict = problems.oracle_verdict(question, prefix, a, b)
    return f"I did the sum again. [[{verdict}]]" if verdict else "Neither will do."


@pytest.fixture
def server(monkeypatch):
    """The teacher's server."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with TeacherServer(ask_oracle, "o1").running() as running:
        yield running


def by_api(copied, server, changes=""):
    """The stage with a teacher behind that server."""
    return opened(copied, f"teacher.judge=api teacher.url={server.url} {changes}")


def test_a_dry_run_says_what_it_would_cost_and_asks_nothing(made, copied, server, capsys):
    with pytest.raises(PSRError, match=r"dry run: o1: .* calls to make") as caught:
        data_prep.make_pools(by_api(copied, server, "teacher.dry_run=true"))
    pairs = len(rows_of(made, "pairs", StepPair))
    words = f"o1: {2 * pairs} calls to make, 0 answers there; about "
    assert words in str(caught.value) and "US dollars at the price of" in str(caught.value)
    assert words in capsys.readouterr().out and server.seen == []


def test_the_api_teaches_the_same_pairs_as_the_oracle(made, copied, server):
    server.faults = [429, "empty", 500, "drop"]
    stage = by_api(copied, server)
    assert data_prep.make_pools(stage) == made.rows
    taught = read_jsonl(stage.folder / "eft.jsonl", JudgeExample)
    assert {row.explanation for row in taught} == {
        f"I did the sum again. [[{letter}]]" for letter in "AB"
    }
    funnel = read_csv(stage.folder / "funnel.csv")
    assert [row["pairs"] for row in funnel] == [
        row["pairs"] for row in read_csv(made.stage.folder / "funnel.csv")
    ]
    asked = len(server.seen)
    assert stage.counts["judge_answers_kept"] == 2 * len(rows_of(made, "pairs", StepPair))
    data_prep.make_pools(by_api(copied, server, "annotate.min_gap=0.002"))
    assert len(server.seen) == asked  # a second call and another filter pay for nothing
    assert (copied / "paid/o1-judge.jsonl").is_file()


def test_real_problems_go_through_the_whole_chain(server, tmp_path):
    """Laboratory problems as other people's: a file of solutions, labels in PRM800K's form."""
    from test_prm800k import completion, line, step

    taken: set[str] = set()
    made = problems.make_problems("mine", ["easy", "words"], 60, 7, taken)
    write_jsonl(tmp_path / "mine.jsonl", [
        {"problem": p.question, "solution": p.solution} for p in made
    ])  # fmt: skip
    labelled = step_labels.oracle_labels("prm", 40, 7, taken, {"easy": 1.0})
    write_jsonl(tmp_path / "labels.jsonl", [
        line(*(step(completion(body(text), 1 if label == "+" else -1))
               for text, label in zip(row.steps, row.labels, strict=True)), problem=row.question)
        for row in labelled
    ])  # fmt: skip
    stage = opened(tmp_path / "runs", f"data.source={tmp_path}/mine.jsonl teacher.ift=rule "
                   f"data.ift_more=0 data.ngram=0 teacher.judge=api teacher.url={server.url} "
                   f"prm.labels={tmp_path}/labels.jsonl prm.heldout=16")  # fmt: skip
    rows = data_prep.make_pools(stage)
    assert rows["ift"] == 16 and rows["questions_4"] == 2 and rows["eft"] and rows["eft_heldout"]
    eft = read_jsonl(stage.folder / "eft.jsonl", JudgeExample)
    for row in eft:
        assert (
            problems.oracle_verdict(row.question, row.prefix, row.step_a, row.step_b) == row.better
        )
    solved = {row.question for row in read_jsonl(stage.folder / "ift.jsonl", IFTExample)}
    judged = {row.question for row in eft}
    assert judged <= {p.question for p in made} and not judged & solved
    assert "confirmed" not in read_csv(stage.folder / "funnel.csv")[0]
    assert stage.counts["prm_rows_of_benchmarks"] == 0
    assert stage.counts["prm800k rows"] == 40 and stage.counts["source_rows"] == 60
    names = set(stage.finish()["inputs"])
    assert {f"path:{tmp_path}/{name}.jsonl" for name in ("mine", "labels")} <= names


def test_the_rule_teaches_the_whole_chain_offline(tmp_path, monkeypatch):
    made = problems.make_problems("mine", ["easy", "words"], 200, 7, set())
    worked = {p.question: p.solution for p in made}
    write_jsonl(tmp_path / "mine.jsonl", [
        {"problem": p.question, "solution": p.solution} for p in made
    ])  # fmt: skip
    settings = (f"data.source={tmp_path}/mine.jsonl teacher.ift=rule data.ift_more=0 data.ngram=0 "
                "teacher.judge=rule prm.labels=rule prm.neutral=bad tree.questions=24")  # fmt: skip
    stage = opened(tmp_path / "runs", settings)
    rows = data_prep.make_pools(stage)
    assert rows["ift"] == 16 and rows["eft"] and rows["eft_heldout"]
    eft = read_jsonl(stage.folder / "eft.jsonl", JudgeExample)
    for row in eft:
        said = rule_judge.explain(worked[row.question], row.prefix, row.step_a, row.step_b)
        assert row.explanation == said and said.endswith(f"[[{row.better}]]")
    funnel = read_csv(stage.folder / "funnel.csv")
    assert [row["filter"] for row in funnel][-1] == "agrees with the PRM"
    assert stage.counts["labelled_good"] > 32 and stage.counts["labelled_bad"] > 0
    asked = {row.question for row in eft}
    labels = read_jsonl(stage.run.making / "labels/labels.jsonl", StepLabels)
    assert not asked & {row.question for row in labels}, "the PRM has seen none of EFT's problems"
    monkeypatch.setattr(rule_labels, "sampled", None)
    again = opened(tmp_path / "runs", settings + " annotate.min_gap=0.001")
    data_prep.make_pools(again)  # samples nothing anew


# --- what ships ----------------------------------------------------------------------------------


def test_rows_that_ship_are_taken_for_just_these_settings(made, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "HOME", str(tmp_path / "home"))
    folder = shipped.keep(made.stage.run)
    assert folder == tmp_path / "home/seed0"
    for name in ("train_prm", "train_sft", "tree_stream"):
        monkeypatch.setattr(chain, name, None)
    stage = opened(tmp_path / "runs", "tree.live=99 data.questions=[1,1,1]")
    assert shipped.find(stage) == folder
    data_prep.make_pools(stage)
    for name in ("eft.jsonl", "eft_heldout.jsonl", "funnel.csv", "prm_report.json"):
        assert (stage.folder / name).read_bytes() == (made.stage.folder / name).read_bytes()
    assert stage.counts["shipped"] and stage.counts["prm_auc"] == made.stage.counts["prm_auc"]
    for change in ("tree.width=3", "prm.lr=1e-4", "data.eft=39", "annotate.min_gap=0.01"):
        assert shipped.find(opened(tmp_path / "runs", change)) is None
    stages.make_anew(stage.run)
    assert shipped.find(stage) is None  # FORCE=1 makes its own


def test_rows_that_ship_are_checked_and_never_half_there(made, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "HOME", str(tmp_path / "home"))
    folder = shipped.keep(made.stage.run)
    with gzip.open(folder / "eft.jsonl.gz", "ab") as file:
        file.write(b"{}")
    stage = opened(tmp_path / "runs", "data.questions=[1,1,1]")
    with pytest.raises(PSRError, match=r"eft\.jsonl\.gz: not as it was shipped; restore it"):
        shipped.take(stage, shipped.find(stage))
    monkeypatch.setattr(shipped, "atomic", None)
    with pytest.raises(TypeError):
        shipped.keep(made.stage.run)
    assert shipped.find(stage) is None


def test_what_ships_leaves_a_base_model_of_the_hub_alone(made, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "HOME", str(tmp_path / "home"))
    shipped.keep(made.stage.run)
    monkeypatch.setattr(base_weights, "from_hub", lambda name, *_: ROOT / "data/tiny/base")
    stage = opened(tmp_path / "runs", "model.base=somebody/model")
    assert stage.model(0) == ROOT / "data/tiny/base" and shipped.find(stage) is None
    entry = stage._inputs["hub:somebody/model"]
    assert entry["commit"] == "base", "the snapshot's name"
    assert entry["hash"] == manifest.fingerprint(ROOT / "data/tiny/base")


def test_what_ships_was_made_with_the_presets_settings():
    homes = sorted((ROOT / shipped.HOME).glob("seed*"))
    if not homes:
        pytest.skip("no chain ships yet")
    preset = presets.load("tiny", "data.eft_from=chain")
    for home in homes:
        seed = int(home.name.removeprefix("seed"))
        params = stages.parameters(preset, stages.Key(stages.DATA), seed)
        wanted = shipped.key_of(params, manifest.identity(ROOT / preset.model.base))
        marked = read_json(home / shipped.MARK)
        assert marked["key"] == wanted, "run the chain again and ship it"
        files = marked["files"]
        assert set(files) == {path.name for path in home.iterdir()} - {shipped.MARK}
        assert all(hash_file(home / name) == digest for name, digest in files.items())


def test_only_a_finished_chain_ships(tmp_path):
    with pytest.raises(PSRError, match="no finished chain"):
        shipped.keep(stages.RunDir("smoke", 0, tmp_path))
