"""The chain PRM -> tree search -> annotation -> filters -> EFT, at a size of seconds."""

import shutil
from collections import Counter

import pytest
from chain_runs import by_the_runner, making, opened, rows_of
from conftest import ROOT

from psr_lib import benchmarks, chain, data_prep, problems, reviews, runs, tree
from psr_lib.evaluation import read_csv
from psr_lib.records import (
    IFTExample,
    JudgeExample,
    PSRError,
    Question,
    StepLabels,
    StepPair,
    read_json,
    read_jsonl,
    write_jsonl,
)

FILTERS = ["sibling pairs", "well formed", "no duplicate", "gap of value at least 0.0001",
           "best 100% by value", "both verdicts readable", "both orders agree",
           "agrees with the PRM"]  # fmt: skip


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No stage builds what is before it, and nothing is printed."""
    by_the_runner(monkeypatch)


def states(folder):
    """Every file with its time stamp."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_every_row_is_right_explained_and_within_the_sizes(made):
    eft, heldout = (rows_of(made, name, JudgeExample) for name in ("eft", "eft_heldout"))
    assert 0 < len(eft) <= 40 and 0 < len(heldout) <= 8
    for row in [*eft, *heldout]:
        assert (
            problems.oracle_verdict(row.question, row.prefix, row.step_a, row.step_b) == row.better
        )
        assert all(reviews.skills(row, row.explanation).values())
        assert row.explanation.endswith(f"[[{row.better}]]")
    assert Counter(row.better for row in eft)["A"] * 2 == len(eft) or len(eft) == 40
    in_both = {(r.problem_id, *r.prefix, r.step_a, r.step_b) for r in eft}
    assert (
        sum((p, *rest[:-2], rest[-1], rest[-2]) in in_both for p, *rest in in_both) >= len(eft) - 1
    )


def test_no_question_serves_twice(made):
    pools = {"ift": IFTExample, "eft": JudgeExample, "eft_heldout": JudgeExample}
    texts = {name: {row.question for row in rows_of(made, name, cls)}
             for name, cls in pools.items()}  # fmt: skip
    texts |= {f"questions_{n}": {row.text for row in rows_of(made, f"questions_{n}", Question)}
              for n in (2, 3, 4)}  # fmt: skip
    texts["benchmarks"] = benchmarks.questions_of(ROOT / "data/tiny")
    names = list(texts)
    for k, one in enumerate(names):
        for other in names[k + 1 :]:
            assert not texts[one] & texts[other], (one, other)


def test_the_prm_is_measured_on_other_problems_than_it_was_trained_on(made):
    taken: set[str] = set()
    train, heldout = chain.labels_of(made.stage, taken)
    assert (len(train), len(heldout)) == (32, 24)
    assert not {row.question for row in train} & {row.question for row in heldout}
    found = read_json(made.stage.folder / "prm_report.json")
    assert found["problems"] == 24 and found["auc_low"] <= found["auc"] <= found["auc_high"]
    assert found["steps"] == sum(len(row.steps) for row in heldout)
    curve = read_csv(made.stage.folder / "prm_calibration.csv")
    assert sum(int(row["n"]) for row in curve) == found["steps"]


def test_the_funnel_narrows_and_no_filter_after_the_teacher_lets_a_wrong_order_through(made):
    rows = read_csv(made.stage.folder / "funnel.csv")
    assert [row["filter"] for row in rows] == FILTERS
    left = [int(row["pairs"]) for row in rows]
    assert left == sorted(left, reverse=True) and left[-1] > 0
    assert float(rows[-1]["confirmed_share"]) == 1.0  # the oracle taught
    pairs = rows_of(made, "pairs", StepPair)
    asked = FILTERS.index("both verdicts readable") - 1
    assert len(pairs) == left[asked]
    assert int(rows[asked]["confirmed"]) == sum(map(data_prep.confirmed, pairs))


def test_the_manifest_tells_what_was_made(made):
    counts = made.manifest["counts"]
    assert counts["trees"] == 14 and counts["pairs"] >= len(rows_of(made, "pairs", StepPair))
    assert counts["tree_expansions"] <= 14 * 3 and counts["prm_auc"] >= 0
    assert made.manifest["tokens"]["generated"] == counts["tree_generated_tokens"] > 0
    assert set(made.manifest["params"]) >= {"prm", "tree", "annotate", "sft", "engine"}
    assert "eft.jsonl" in made.manifest["outputs"] and "funnel.csv" in made.manifest["outputs"]


def test_a_direct_run_does_not_depend_on_the_chains_settings(made, tmp_path):
    stage = runs.open_stage("01_data_prep", preset="smoke", runs_dir=str(tmp_path))
    assert not set(stage.params) & {"prm", "tree", "annotate", "sft", "engine"}
    with pytest.raises(PSRError, match="does not declare"):
        stage.preset.prm  # noqa: B018 - reading it is the error


def nothing_left(engine, prm, family, tokenizer, asked, *args):
    """A tree search that has nothing to do."""
    assert list(asked) == []
    return iter(())


def test_another_filter_asks_no_model_again(made, copied, monkeypatch):
    before = states(making(copied)), (making(copied) / "trees.jsonl").read_bytes()
    before[0].pop(making(copied) / "trees.jsonl")  # opened again, so touched
    monkeypatch.setattr(chain, "train_prm", None)
    monkeypatch.setattr(chain, "train_sft", None)
    monkeypatch.setattr(chain, "tree_stream", nothing_left)
    stage = opened(copied, "annotate.min_gap=0.0 annotate.orders=one data.eft=30")
    rows = data_prep.make_pools(stage)
    assert 0 < rows["eft"] <= 30 and stage.counts["trees"] == 14
    after = states(making(copied))
    after.pop(making(copied) / "trees.jsonl")
    assert (after, (making(copied) / "trees.jsonl").read_bytes()) == before


@pytest.mark.slow
def test_another_setting_of_the_tree_leaves_the_prm_alone(copied, monkeypatch):
    before = states(making(copied) / "prm")
    monkeypatch.setattr(chain, "train_prm", None)
    stage = opened(copied, "tree.iterations=2")
    data_prep.make_pools(stage)
    assert states(making(copied) / "prm") == before
    assert 14 <= stage.counts["tree_expansions"] <= 28


@pytest.mark.slow
def test_a_chain_that_was_cut_short_goes_on_where_it_was(made, tmp_path, monkeypatch):
    stream = tree.tree_stream

    def cut(*args):
        for k, found in enumerate(stream(*args)):
            if k == 6:
                raise PSRError("the lights went out")
            yield found

    monkeypatch.setattr(chain, "tree_stream", cut)
    with pytest.raises(PSRError, match="lights went out; 6 of 14 searches are kept"):
        data_prep.make_pools(opened(tmp_path))
    kept = (making(tmp_path) / "trees.jsonl").read_bytes()
    asked = []

    def rest(engine, prm, family, tokenizer, left, *args):
        left = list(left)
        asked.append(len(left))
        return stream(engine, prm, family, tokenizer, left, *args)

    monkeypatch.setattr(chain, "tree_stream", rest)
    monkeypatch.setattr(chain, "train_prm", None)
    stage = opened(tmp_path)
    data_prep.make_pools(stage)
    trees = (making(tmp_path) / "trees.jsonl").read_bytes()
    assert asked == [8] and trees.startswith(kept) and len(trees.splitlines()) == 1 + 14
    # Noise belongs to the question, so the trees are those of a run in one go, but for roundings.
    one, two = ({(p.question, *p.prefix, p.chosen, p.rejected) for p in rows}
                for rows in (rows_of(made, "pairs", StepPair),
                             read_jsonl(stage.folder / "pairs.jsonl", StepPair)))  # fmt: skip
    assert len(one & two) > 0.8 * max(len(one), len(two))


def test_the_policy_may_be_the_base_model_itself(copied, monkeypatch):
    monkeypatch.setattr(chain, "train_sft", None)
    stage = opened(copied, "tree.policy=base")
    assert chain.policy(stage, []) == ROOT / "data/tiny/base"


def test_the_policy_has_epochs_of_its_own(copied, monkeypatch):
    epochs = []

    def train(model_dir, tokenizer, ift, settings, folder, *rest, **more):
        epochs.append(settings.epochs)
        folder.mkdir(parents=True)

    monkeypatch.setattr(chain, "train_sft", train)
    for changes in ("sft.epochs=3 tree.policy_epochs=2", "sft.epochs=5 tree.policy_epochs=2"):
        chain.policy(opened(copied, changes), [])
    assert epochs == [2]  # the second finds what the first has made


def test_a_prm_that_is_there_is_taken_as_it_is(copied, monkeypatch):
    monkeypatch.setattr(chain, "train_prm", None)
    stage = opened(copied, f"prm.model={making(copied) / 'prm/model'}")
    prm, weights = chain.trained_prm(stage, chain.labels_of(stage, set()))
    assert len(weights) == 64 and prm.score([("Tom has 1 pens.", ["Step 1: x."])])[0] is not None


def test_labels_may_come_from_a_file(copied, tmp_path):
    from test_prm800k import PHASE_1, PHASE_2

    write_jsonl(tmp_path / "labels.jsonl", [PHASE_1, PHASE_2])
    stage = opened(copied, f"prm.labels={tmp_path / 'labels.jsonl'} prm.heldout=1")
    train, heldout = chain.labels_of(stage, set())
    assert len(train) + len(heldout) == 6
    assert not {row.problem_id for row in train} & {row.problem_id for row in heldout}
    assert stage.counts["prm800k lines"] == 2
    with pytest.raises(PSRError, match="no such file"):
        chain.labels_of(opened(copied, "prm.labels=none.jsonl"), set())


def test_labels_may_come_from_the_hub(copied, monkeypatch):
    from test_prm800k import PHASE_1, PHASE_2

    asked = []
    monkeypatch.setattr(chain.sources, "read_hub", lambda *a: asked.append(a) or [PHASE_1, PHASE_2])
    monkeypatch.setattr(chain.sources, "newest", lambda repo: "4f2a")
    stage = opened(copied, "prm.labels=prm800k prm.heldout=1")
    train, heldout = chain.labels_of(stage, set())
    assert len(train) + len(heldout) == 6 and asked[0][0].repo == "tasksource/PRM800K"
    name = "hub:datasets/tasksource/PRM800K/phase2_train.jsonl/train"
    assert stage.made_from["inputs"][name] == asked[0][3] == "4f2a"


def test_held_out_problems_are_whole_and_leave_some_to_train_on():
    rows = [StepLabels(id=f"{k}", problem_id=f"p{k % 7}", question="q", steps=["s"], labels=["+"])
            for k in range(40)]  # fmt: skip
    train, heldout = chain.divide(rows, 10, 0)
    assert len(train) + len(heldout) == 40 and 10 <= len(heldout) < 20
    assert not {row.problem_id for row in train} & {row.problem_id for row in heldout}
    with pytest.raises(PSRError, match=r"prm\.heldout: 40 leaves none"):
        chain.divide(rows, 40, 0)


def test_a_chain_that_keeps_no_pair_says_which_rows_are_missing(made):
    with pytest.raises(PSRError, match=r"eft: no pair is left; raise tree\.questions or lower"):
        chain.split_rows(made.stage, [])


def test_a_server_cannot_hold_the_chains_weights(copied):
    with pytest.raises(PSRError, match=r"set engine\.kind to hf or vllm"):
        data_prep.make_pools(opened(copied, "engine.kind=server"))


def noted(name, done):
    """A training that only copies its base, and notes that it was asked for."""

    def train(model_dir, tokenizer, rows, settings, folder, *rest, **more):
        done.append(name)
        shutil.copytree(model_dir, folder / "model")

    return train


def test_all_is_trained_before_an_engine_holds_a_device(tmp_path, monkeypatch):
    done = []

    def opening(*args, **more):
        raise PSRError("enough")

    for name in ("train_sft", "train_prm"):
        monkeypatch.setattr(chain, name, noted(name, done))
    monkeypatch.setattr(chain, "open_engine", opening)
    with pytest.raises(PSRError, match="enough"):
        data_prep.make_pools(opened(tmp_path))
    assert done == ["train_sft", "train_prm"]


def trained_parts(stage):
    """Which of the chain's models are trained for this stage, in the order of `make_eft`."""
    done = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("train_sft", "train_prm"):
            patch.setattr(chain, name, noted(name, done))
        patch.setattr(chain, "_scored", lambda *args: None)
        chain.policy(stage, [])
        chain.trained_prm(stage, ([], []))
        chain.policy(stage, [])  # by the tree search
    return done


def test_what_is_read_after_the_policy_trains_it_no_second_time(tmp_path):
    mine = shutil.copytree(ROOT / "data/tiny/base", tmp_path / "mine")
    both, base = ["train_sft", "train_prm"], f"prm.base={mine}"
    assert trained_parts(opened(tmp_path / "base", base)) == both
    ready = f"prm.model={mine} prm.base=nobody/none"  # which nothing then asks for
    assert trained_parts(opened(tmp_path / "model", ready)) == ["train_sft"]
    again = opened(tmp_path / "base", base)
    again.source("data/tiny/test")  # read by who makes the rows, and in another order
    assert trained_parts(again) == []


def test_a_model_that_the_chain_begins_with_and_that_was_changed_is_trained_on_anew(tmp_path):
    home, mine = (shutil.copytree(ROOT / "data/tiny/base", tmp_path / name) for name in "ab")
    changes, both = f"model.base={home} prm.base={mine}", ["train_sft", "train_prm"]
    assert trained_parts(opened(tmp_path / "runs", changes)) == both
    (mine / "added.txt").write_text("other weights")
    assert trained_parts(opened(tmp_path / "runs", changes)) == ["train_prm"]
    (home / "added.txt").write_text("other weights")
    assert trained_parts(opened(tmp_path / "runs", changes)) == both


def test_step_prm_and_policy_share_the_workers_of_ray(copied, monkeypatch):
    asked = []
    monkeypatch.setattr(chain.opening, "open_engine", lambda *args: asked.append(args[0].workers))
    stage = opened(copied, "engine.kind=ray engine.workers=5")
    chain.open_engine(stage, "anywhere")
    chain.open_engine(stage, "anywhere", beside=True)
    assert asked == [5, 2]
    monkeypatch.setattr(chain.shipped, "find", lambda stage: None)
    with pytest.raises(PSRError, match=r"^engine\.workers=1: the tree search .* engine\.workers=2"):
        chain.make_eft(opened(copied, "engine.kind=ray engine.workers=1"), [], [], ([], []))


def test_what_takes_long_is_made_again_where_it_was_changed(tmp_path):
    stage, home, built = opened(tmp_path), making(tmp_path) / "thing", []

    def build(folder):
        built.append(folder)
        (folder / "model").mkdir(parents=True)
        (folder / "model/weights").write_text("1")

    for spoil in (lambda: None, lambda: None, lambda: (home / "model/weights").write_text("2")):
        spoil()
        assert chain.cached(stage, home, {"a": 1}, build) == home
    assert len(built) == 2 and (home / "model/weights").read_text() == "1"
    chain.cached(stage, home, {"a": 2}, build)
    assert len(built) == 3
    (home / "labels.jsonl").write_text("beside the model")
    chain.cached(stage, home, {"a": 2}, build)
    assert len(built) == 4 and not (home / "labels.jsonl").exists()
