"""Step PRM: loss at the tags only, p(+) from two logits, training that learns, the report."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT
from sklearn.metrics import roc_auc_score
from tiny_model import make_tiny_model, merging_tokenizer, question, settings, word_tokenizer

from psr_lib import prm, problems, prompts, step_labels
from psr_lib.engines.hf import HFEngine
from psr_lib.models import load_tokenizer
from psr_lib.prm import NO_LOSS, PRM, prm_row, report, share, train_prm
from psr_lib.records import PSRError, StepLabels
from psr_lib.stats import calibration_error

FAMILY = prompts.load("compact")
BARE = replace(FAMILY, templates={**FAMILY.templates, "check": ""})
TAG = "\n"
SIGNS = word_tokenizer(["Problem: Tom has 14 pens. How many pens does Tom have?\nSolution:\n",
                        "Step 1: 14 + 25 - 39 = 67890.\n"] * 2)  # fmt: skip


def labelled(k, right=(True, False)):
    """A two-step solution whose right steps say `=`, and whose wrong ones say `-`."""
    steps = [f"Step {i + 1}: {10 + k} {'=' if good else '-'} {i}." for i, good in enumerate(right)]
    return StepLabels(id=f"s/{k}", problem_id=f"p/{k}", question=question(k), steps=steps,
                      labels=["+" if good else "-" for good in right])  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("prm") / "model", tokenizer=SIGNS)[0]


@pytest.fixture(scope="module")
def engine(folder):
    return HFEngine.load(folder, device="cpu", workers=1)


# --- what it reads ------------------------------------------------------------------------------


def test_each_step_stands_in_the_last_line_of_the_familys_template():
    text = FAMILY.check(SIGNS, "Q?", ["Step 1: x.", "Step 2: {step}."], "#")
    assert text == "Problem: Q?\nSteps so far:\nReview: Step 1: x.#Review: Step 2: {step}.#"


def test_a_family_without_template_reads_the_solvers_prompt_and_bare_steps():
    assert BARE.check(SIGNS, "Q?", ["Step 1: x."], "\n") == "Problem: Q?\nSolution:\nStep 1: x.\n"


# --- rows ---------------------------------------------------------------------------------------


def test_the_label_is_the_target_after_its_tag_and_nothing_else_has_loss():
    row = prm_row(SIGNS, FAMILY, labelled(1), TAG)
    decoded = [SIGNS.decode([i]) for i in row.input_ids]
    targets = [k for k, label in enumerate(row.labels) if label != NO_LOSS]
    assert [SIGNS.decode([row.labels[k]]) for k in targets] == ["+", "-"]
    # What the model reads up to a target ends in the step and its tag.
    for k, step in zip(targets, labelled(1).steps, strict=True):
        assert "".join(decoded[:k]).endswith(step + TAG)
    assert targets[-1] == len(row.input_ids) - 1 and decoded[-1] == "<eos>"


def test_a_step_without_label_has_no_loss():
    whole, half = labelled(1), labelled(1)
    half = StepLabels(**{**vars(half), "labels": ["", "-"]})
    one, two = (prm_row(SIGNS, FAMILY, row, TAG) for row in (whole, half))
    assert one.input_ids == two.input_ids
    assert sum(a != b for a, b in zip(one.labels, two.labels, strict=True)) == 1
    assert sum(label != NO_LOSS for label in two.labels) == 1


def test_with_clauses_each_has_the_label_of_the_step_so_far():
    tokenizer = load_tokenizer(ROOT / "data/tiny/base")
    question = "Tom has 47 pens. Tom buys 38 pens. How many pens does Tom have?"
    right = problems.parse(question).solution()[0]
    wrong = right.replace("8 = 15", "8 = 14").replace("85", "84")
    for step, signs in ((right, "+++++++"), (wrong, "++-----")):
        row = StepLabels(id="s", problem_id="p", question=question, steps=[step],
                         labels=["+" if step == right else "-"],
                         sound=[step_labels.shared(step, right)])  # fmt: skip
        made = prm_row(tokenizer, FAMILY, row, TAG)
        places = [k for k, label in enumerate(made.labels) if label != NO_LOSS]
        assert "".join(tokenizer.decode([made.labels[k]]) for k in places) == signs
        # Before each target stands the mark that ends a clause, and before the last one the tag.
        assert "".join(tokenizer.decode([made.input_ids[k - 1]]) for k in places) == ".:,,.." + TAG
        without = prm_row(tokenizer, FAMILY, replace(row, sound=[]), TAG)
        assert without.input_ids == made.input_ids and without.labels[-1] == made.labels[-1]


def test_the_oracle_says_how_far_a_step_is_right():
    rows = step_labels.oracle_labels("prm", 60, 0, set(), {"easy": 1, "mixed": 2}, clauses=True)
    bare = step_labels.oracle_labels("prm", 60, 0, set(), {"easy": 1, "mixed": 2})
    assert [replace(row, sound=[]) for row in rows] == bare
    for row in rows:
        for k, step in enumerate(row.steps):
            right = problems.next_step(problems.parse(row.question), row.steps[:k]) or ""
            assert right.startswith(step[: row.sound[k]])
            assert not right.startswith(step[: row.sound[k] + 1]) or row.sound[k] == len(step)


def test_training_reads_what_scoring_asks():
    """Equal tokens up to each tag, so p(+) is read where the loss was."""
    row = prm_row(SIGNS, FAMILY, labelled(3), TAG)
    targets = [k for k, label in enumerate(row.labels) if label != NO_LOSS]
    for k, steps in zip(targets, (labelled(3).steps[:1], labelled(3).steps), strict=True):
        text = FAMILY.check(SIGNS, labelled(3).question, steps, TAG)
        assert SIGNS(text, add_special_tokens=False).input_ids == row.input_ids[:k]


def test_a_tag_that_joins_the_next_step_is_refused():
    tokenizer = merging_tokenizer()  # newline and `Step` become one token there
    with pytest.raises(PSRError, match=r"prm\.tag '\\n' joins"):
        prm_row(tokenizer, BARE, labelled(1), "\n")
    row = prm_row(tokenizer, BARE, labelled(1), "\n#")
    assert sum(label != NO_LOSS for label in row.labels) == 2


def test_labels_that_are_no_tokens_are_refused():
    with pytest.raises(PSRError, match=r"\+ and - are .*take a base model"):
        prm_row(word_tokenizer(["Step 1 : Problem"] * 2), FAMILY, labelled(1), TAG)


def test_as_many_labels_as_steps():
    row = StepLabels(**{**vars(labelled(1)), "labels": ["+"]})
    with pytest.raises(PSRError, match="2 steps, 1 labels"):
        prm_row(SIGNS, FAMILY, row, TAG)


# --- training and scoring -----------------------------------------------------------------------


def test_training_teaches_to_tell_steps_apart(folder, tmp_path):
    rng = np.random.default_rng(0)
    rows = [labelled(k, tuple(rng.random(2) < 0.5)) for k in range(96)]
    tuned = settings(epochs=6, lr=3e-3, batch=8)
    result = train_prm(folder, load_tokenizer(folder), rows[:64], tuned, tmp_path, 0, FAMILY, TAG,
                       device="cpu")  # fmt: skip
    assert result["counts"]["used"] == 64 and result["history"][-1]["loss"] < 0.2
    engine = HFEngine.load(tmp_path / "model", device="cpu", workers=1)
    scored = PRM(engine, FAMILY, engine.tokenizer, TAG).score_rows(rows[64:])
    assert len(scored) == 64 and report(scored, 10)["auc"] > 0.99


def test_the_loss_is_that_of_the_labels_alone(folder, tmp_path):
    """The first loss that training reports, computed by hand from the model's own logits."""
    rows, tokenizer = [labelled(k) for k in range(4)], load_tokenizer(folder)
    tuned = settings(lr=1e-9, batch=4)
    result = train_prm(folder, tokenizer, rows, tuned, tmp_path, 0, FAMILY, TAG, device="cpu")
    model, found = HFEngine.load(folder, device="cpu").model, []
    for row in (prm_row(tokenizer, FAMILY, row, TAG) for row in rows):
        with torch.inference_mode():
            logs = torch.log_softmax(model(torch.tensor([row.input_ids])).logits[0].float(), -1)
        found += [-logs[k - 1, y].item() for k, y in enumerate(row.labels) if y != NO_LOSS]
    assert len(found) == 8
    assert result["history"][0]["loss"] == pytest.approx(np.mean(found), rel=1e-3)


def test_p_is_the_softmax_of_two_logits(engine):
    scorer = PRM(engine, FAMILY, engine.tokenizer, TAG)
    asked = [(row.question, row.steps[:n]) for row in map(labelled, range(6)) for n in (1, 2)]
    plus, minus = (engine.tokenizer.convert_tokens_to_ids(sign) for sign in "+-")
    found = scorer.score(asked)
    for (q, steps), p in zip(asked, found, strict=True):
        ids = engine.tokenizer(FAMILY.check(engine.tokenizer, q, steps, TAG)).input_ids
        with torch.inference_mode():
            logits = engine.model(torch.tensor([ids])).logits[0, -1].double()
        wanted = torch.softmax(logits[[plus, minus]], -1)[0].item()
        assert p == pytest.approx(wanted, abs=1e-5)
    assert len({round(p, 4) for p in found}) > 3
    assert scorer.score([]) == []


def test_a_text_that_does_not_fit_has_no_score(engine):
    scorer = PRM(engine, FAMILY, engine.tokenizer, TAG)
    long = [f"Step {k}: 1." for k in range(1, 200)]
    assert scorer.score([(question(1), long), (question(1), long[:1])])[0] is None
    row = StepLabels(id="x", problem_id="p", question=question(1), steps=long, labels=["+"] * 199)
    assert 0 < len(scorer.score_rows([row])) < 199


@pytest.mark.parametrize(
    ("good", "bad", "p"),
    [
        (-1.0, -1.0, 0.5),
        (0.0, -math.inf, 1.0),
        (-math.inf, 0.0, 0.0),
        (-3.0, -1.0, 1 / (1 + math.e**2)),
        (-5000.0, -1.0, 0.0),
    ],
)
def test_share_is_stable(good, bad, p):
    assert share(good, bad) == pytest.approx(p, abs=1e-12)


def test_no_share_without_logits():
    assert share(-math.inf, -math.inf) is None


# --- the report ---------------------------------------------------------------------------------


def scored_rows(size=200, noise=0.3):
    """Scores that know the label but for some noise, two rows a problem."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, size)
    p = np.clip(labels + rng.normal(0, noise, size), 0, 1)
    return [{"problem_id": f"p{k // 2}", "label": int(y), "p": float(x)}
            for k, (y, x) in enumerate(zip(labels, p, strict=True))]  # fmt: skip


def test_the_report_agrees_with_other_peoples_code_and_holds_its_intervals():
    rows = scored_rows()
    labels, p = ([row[name] for row in rows] for name in ("label", "p"))
    found = report(rows, 10)
    assert found["auc"] == pytest.approx(roc_auc_score(labels, p))
    assert found["accuracy"] == np.mean([(x > 0.5) == y for x, y in zip(p, labels, strict=True)])
    assert found["calibration_error"] == calibration_error(labels, p, 10)
    for name in ("auc", "accuracy"):
        assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]
        assert 0.001 < found[f"{name}_high"] - found[f"{name}_low"] < 0.2
    assert (found["steps"], found["problems"]) == (200, 100)
    assert report(rows, 10) == found


def test_a_report_needs_both_labels():
    with pytest.raises(PSRError, match="there must be both"):
        report([row | {"label": 1} for row in scored_rows()], 10)


# --- labels of the oracle -----------------------------------------------------------------------


def test_oracle_labels_are_the_oracles_and_of_new_questions():
    taken: set[str] = set()
    rows = step_labels.oracle_labels("prm", 120, 0, taken, {"easy": 1, "mixed": 2})
    assert {row.question for row in rows} == taken and len(taken) == 120
    assert {row.meta["level"] for row in rows} == {"easy", "mixed"}
    good = [label == "+" for row in rows for label in row.labels]
    assert 0.2 < np.mean(good) < 0.8
    for row in rows:
        for k, (step, label) in enumerate(zip(row.steps, row.labels, strict=True)):
            assert (label == "+") == problems.is_right(row.question, row.steps[:k], step)
    again = step_labels.oracle_labels("prm", 120, 0, set(), {"easy": 1, "mixed": 2})
    assert again == rows != step_labels.oracle_labels("prm", 120, 1, set(), {"easy": 1, "mixed": 2})


def test_the_laboratorys_model_has_a_token_for_each_label_and_tag():
    tokenizer = load_tokenizer(ROOT / "data/tiny/base")
    assert len(set(prm.label_ids(tokenizer).values())) == 2
    for row in step_labels.oracle_labels("prm", 20, 0, set(), {"mixed": 1}):
        made = prm_row(tokenizer, FAMILY, row, TAG)
        assert sum(label != NO_LOSS for label in made.labels) == len(row.steps)
