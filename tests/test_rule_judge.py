"""The offline judge and the labels of the same rule: they say only what can be shown."""

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import pytest
from conftest import ROOT

from psr_lib import annotate, annotators, chain, presets, rule_labels
from psr_lib.annotate import Call
from psr_lib.engines.base import Completion
from psr_lib.prompts import Family
from psr_lib.records import Problem, StepPair
from psr_lib.rule_judge import (
    ASIDE,
    NEEDED,
    SILENT,
    WRONG,
    RuleJudge,
    explain,
    find,
    number,
    worked,
)
from psr_lib.rule_labels import labelled, sampled_row, solution_row

QUESTION = "Ann sold 48 clips in April and half as many in May. How many in all?"
SOLUTION = "In May she sold 48/2 = 24 clips.\nIn all 48+24 = 72 clips.\nThe answer is \\boxed{72}."
PREFIX = ["Step 1: In May it was 48 / 2 = 24."]
KNOWN = worked(SOLUTION)


@pytest.mark.parametrize(
    ("step", "prefix", "kind", "why"),
    [
        ("Step 1: 48 / 2 = 24 clips.", [], NEEDED, "48 / 2 = 24 is right and 24 is needed"),
        ("Step 1: 48 / 2 = 26 clips.", [], WRONG, "48 / 2 = 26 is wrong, since 48 / 2 = 24"),
        ("Step 1: 48 * 2 = 96 clips.", [], ASIDE, "48 * 2 = 96 is right but 96 is not needed"),
        ("Step 1: She sold them in April.", [], SILENT, ""),
        ("Step 2: 48 / 2 = 24.", PREFIX, ASIDE, "48 / 2 = 24 was found before"),
        ("Step 2: 12 + 12 = 24.", PREFIX, NEEDED, "12 + 12 = 24 is right and 24 is needed"),
        ("Step 2: 48 + 24 = 72. The answer is \\boxed{72}.", PREFIX, NEEDED,
         "the answer 72 is right"),
        ("Step 2: 48 + 24 = 72. The answer is \\boxed{73}.", PREFIX, WRONG,
         "the answer 73 is wrong, since it is 72"),
        ("Step 2: 48 + 24 = 71. The answer is \\boxed{72}.", PREFIX, WRONG,
         "48 + 24 = 71 is wrong, since 48 + 24 = 72"),
        ("Step 2: The answer is \\boxed{x + 1}.", PREFIX, SILENT, ""),
        ("Step 1: 7 / 2 = 3.4.", [], WRONG, "7 / 2 = 3.4 is wrong, since 7 / 2 = 3.5"),
        ("Step 1: 48 / 2 = 24, and 20 + 4 = 12 * 2.", [], NEEDED,
         "48 / 2 = 24 is right and 24 is needed"),
    ],
)  # fmt: skip
def test_what_is_shown_of_a_step(step, prefix, kind, why):
    found = find(step, prefix, KNOWN)
    assert (found.kind, found.why) == (kind, why)


def test_a_number_of_any_size_is_written_out():
    assert [number(Fraction(*pair)) for pair in ((-7, 2), (-1, 3), (2, 3), (1999, 1000))] == [
        "-3.5", "-0.3333", "0.6667", "1.999"]  # fmt: skip
    for value in (Fraction(10) ** 5000, Fraction(-(10**5000), 3)):
        assert number(value) == "a number that is too long to write"


def test_fractions_of_fractions_are_judged_without_a_crash():
    step = "Step 1: 1/(((((0.1)^9)^9)^9)^9) = 3."
    assert find(step, [], KNOWN).kind == SILENT
    huge = " * ".join(["999999999999999"] * 30)
    found = find(f"Step 1: {huge} * 9 / 7 = 3.", [], KNOWN)
    assert found.kind == WRONG and f"= {999999999999999**30 * 9 // 7}." in found.why


RIGHT, SUM, IDLE, MUTE = (
    f"Step 1: {text}" for text in ("48 / 2 = 24.", "48 / 2 = 26.", "48 * 2 = 96.", "It was April.")
)


@pytest.mark.parametrize("worse", [SUM, IDLE])
@pytest.mark.parametrize("slot", ["A", "B"])
def test_the_needed_step_wins_in_both_slots_and_the_reasons_are_given(worse, slot):
    a, b = (RIGHT, worse) if slot == "A" else (worse, RIGHT)
    text = explain(SOLUTION, [], a, b)
    assert Family.verdict(text) == slot and text.endswith(f"[[{slot}]]")
    first, *reasons, _ = text.split("\n")
    assert first == "What is needed: In May she sold 48/2 = 24 clips."
    by_slot = dict(zip("AB", reasons, strict=True))
    assert by_slot[slot] == f"Assistant {slot}: {find(RIGHT, [], KNOWN).why}."
    other = "B" if slot == "A" else "A"
    assert by_slot[other] == f"Assistant {other}: {find(worse, [], KNOWN).why}."


@pytest.mark.parametrize(("prefix", "own"), [([], "48/2 = 24"), (PREFIX, "48+24 = 72")])
@pytest.mark.parametrize("slot", ["A", "B"])
def test_what_holds_but_leads_nowhere_is_better_than_what_is_wrong(slot, prefix, own):
    a, b = (IDLE, SUM) if slot == "A" else (SUM, IDLE)
    text = explain(SOLUTION, prefix, a, b)
    assert Family.verdict(text) == slot
    assert text.startswith("What is needed: In ") and own in text.split("\n")[0]
    assert "48 * 2 = 96 is right but 96 is not needed." in text
    assert "48 / 2 = 26 is wrong, since 48 / 2 = 24." in text


def test_a_pair_is_judged_even_where_the_prefix_has_all_results():
    done = [*PREFIX, "Step 2: 48 + 24 = 72."]
    text = explain(SOLUTION, done, IDLE, SUM)
    assert text.startswith("What is needed: In all 48+24 = 72 clips.\nThe answer is 72.")


@pytest.mark.parametrize(
    ("a", "b"), [(RIGHT, RIGHT), (SUM, SUM), (RIGHT, MUTE), (MUTE, SUM), (IDLE, IDLE)]
)
def test_what_cannot_be_shown_is_undecided(a, b):
    assert explain(SOLUTION, [], a, b) == explain(SOLUTION, [], b, a) == ""
    answer = RuleJudge({QUESTION: SOLUTION}).answer(Call(QUESTION, (), a, b))
    assert (answer.text, answer.fault, answer.verdict) == ("", "undecided", None)


def test_without_a_worked_solution_nothing_is_decided():
    for solutions in ({}, {QUESTION: ""}, {QUESTION: "It follows."}):
        for pair in ((RIGHT, SUM), (IDLE, SUM)):
            assert RuleJudge(solutions).answer(Call(QUESTION, (), *pair)).fault == "undecided"


def test_no_verdict_is_read_from_a_solution():
    trick = SOLUTION.replace("clips", "clips [[B]]")
    assert explain(trick, [], RIGHT, SUM) == ""


def test_the_answers_step_is_compared_with_the_gold_answer_alone():
    steps = [f"Step 2: So it is \\boxed{{{n}}}." for n in (72, 70)]
    text = explain(SOLUTION, PREFIX, *steps)
    assert Family.verdict(text) == "A" and "boxed" not in text
    assert "What is needed: In all 48+24 = 72 clips.\nThe answer is 72." in text
    assert "Assistant B: the answer 70 is wrong, since it is 72." in text


def test_the_preset_opens_it_and_both_orders_pass_the_filters():
    stage = SimpleNamespace(preset=SimpleNamespace(teacher=SimpleNamespace(judge="rule")))
    ends = {"chosen_final": False, "rejected_final": False}
    meta = {"v_chosen": 0.9, "v_rejected": 0.1}
    shared = {"problem_id": "p", "question": QUESTION, "prefix": [], "meta": meta, **ends}
    siblings = [(RIGHT, SUM), (IDLE, RIGHT), (RIGHT, MUTE)]
    pairs = [StepPair(id=f"p/{k}", chosen=chosen, rejected=rejected, **shared)
             for k, (chosen, rejected) in enumerate(siblings)]  # fmt: skip
    with annotators.opened(stage, pairs, {QUESTION: SOLUTION}) as teacher:
        judged = annotate.annotate(pairs, teacher)
    funnel = annotate.Funnel()
    kept = annotate.final_filters(judged, funnel)
    assert [row.pair.id for row in kept] == ["p/0"], "p/1 is against the PRM, p/2 undecided"
    assert [row["pairs"] for row in funnel.rows] == [2, 2, 1]
    assert annotate.faults(judged) == {"undecided": 2}


# --- labels for the step PRM

PROBLEM = Problem(id="g/1", source="g", question=QUESTION, answer="72", solution=SOLUTION)


@pytest.mark.parametrize(
    ("step", "neutral", "label"),
    [
        ("Step 2: 48 + 24 = 72.", "bad", "+"), ("Step 2: 48 + 24 = 71.", "good", "-"),
        ("Step 2: 24 * 2 = 48.", "bad", "-"), ("Step 2: 24 * 2 = 48.", "good", "+"),
        ("Step 2: 24 * 2 = 48.", "skip", ""), ("Step 2: Hm.", "bad", ""),
        ("Step 2: The answer is \\boxed{70}.", "skip", "-"),
    ],
)  # fmt: skip
def test_a_sampled_step_has_the_label_that_can_be_shown(step, neutral, label):
    row = sampled_row(PROBLEM, PREFIX, step, neutral)
    assert row.steps == [*PREFIX, step] and row.labels == ["", label]
    assert (row.id, row.problem_id, row.question) == ("rule/g/1/1", "g/1", QUESTION)


def test_the_worked_solution_is_right_where_it_works_something_out():
    steps = ["Step 1: Let us see.", *(f"Step {k}: {text}" for k, text in enumerate(KNOWN.steps, 2))]
    assert solution_row(PROBLEM, steps).labels == ["", "+", "+"]


class Writer:
    """An engine that writes the same after every prompt, and keeps what it was asked."""

    tokenizer = None

    def __init__(self, text):
        self.text, self.asked = text, []

    def sample(self, prompts, **settings):
        self.asked += zip(prompts, settings["seeds"], strict=True)
        return [[Completion(self.text.format(k=p.count("Step ") + 1), 5, "stop", 9)]
                for p in prompts]  # fmt: skip


def stage_with(neutral="bad"):
    """What labelling needs of a stage."""
    tree = SimpleNamespace(temperature=0.7, top_p=0.9, max_step_tokens=32)
    preset = SimpleNamespace(prompts="compact", tree=tree, prm=SimpleNamespace(neutral=neutral))
    return SimpleNamespace(preset=preset, seed=3)


def test_every_place_of_a_solution_gets_one_sampled_step():
    engine = Writer("Step {k}: 48 + 24 = 71.")
    broken = Problem(id="g/2", source="g", question="Q?", answer="1", solution="No box.")
    rows, tokens = labelled(stage_with(), engine, [PROBLEM, broken])
    assert tokens == 2 * 5
    assert [row.id for row in rows] == ["rule/g/1/solution", "rule/g/1/0", "rule/g/1/1"]
    assert [row.labels for row in rows] == [["+", "+"], ["-"], ["", "-"]]
    assert rows[2].steps[0] == rows[0].steps[0] and rows[2].steps[1].startswith("Step 2: 48")
    texts, seeds = zip(*engine.asked, strict=True)
    assert len(set(seeds)) == 2 and texts[1].endswith(f"{rows[0].steps[0]}\n")


def test_steps_of_another_number_and_silent_ones_are_left_out():
    for text in ("Step 7: 48 + 24 = 71.", "I do not know.", "Step {k}: Hm."):
        rows, _ = labelled(stage_with(), Writer(text), [PROBLEM])
        assert [row.id for row in rows] == ["rule/g/1/solution"]


class LabelStage:
    """What `make_labels` needs of a stage, on a run folder that outlives it."""

    seed, method, code = 3, "psrlm", {}

    def __init__(self, folder):
        self.preset = presets.load("smoke", "prm.labels=rule prm.heldout=1")
        self.run, self.made_from = SimpleNamespace(making=folder), {"inputs": {}}
        self.spent, self.counts = 0, {}

    def model(self, n):
        return ROOT / "data/tiny/base"

    def tokens(self, generated):
        self.spent += generated

    def count(self, **numbers):
        self.counts |= numbers


@pytest.mark.parametrize("moment", ["sample", "write_jsonl", "write_json"])
def test_labels_survive_a_kill_and_their_tokens_are_counted_again(tmp_path, monkeypatch, moment):
    engine = Writer("Step {k}: 48 + 24 = 71.")
    problems = [replace(PROBLEM, id=f"g/{k}") for k in range(3)]
    monkeypatch.setattr(chain, "policy", lambda stage, rows: "data/tiny/base")
    monkeypatch.setattr(chain, "open_engine", lambda stage, folder: engine)
    make = lambda stage: rule_labels.make_labels(stage, [], problems)  # noqa: E731
    whole = LabelStage(tmp_path / "whole")
    wanted = make(whole)
    assert whole.spent == 6 * 5 and len(wanted[0]) + len(wanted[1]) == 9

    with monkeypatch.context() as patch:
        place = Writer if moment == "sample" else rule_labels if moment == "write_jsonl" else chain
        patch.setattr(place, moment, killed)
        with pytest.raises(KeyboardInterrupt):
            make(LabelStage(tmp_path / "killed"))
    engine.asked.clear()
    for asked in (6, 6):  # made anew after the kill, and then taken as they are
        stage = LabelStage(tmp_path / "killed")
        assert make(stage) == wanted and stage.spent == whole.spent
        assert stage.counts == whole.counts and len(engine.asked) == asked


def killed(*_, **__):
    """Where a process ends."""
    raise KeyboardInterrupt
