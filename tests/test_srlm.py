"""Whole-solution self-rewarding against a literal loop, its pairs, its budget, what it writes."""

import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
from scripted import Scripted, questions, search_settings

from psr_lib import looking, problems, prompts, rounds, show, srlm_rounds
from psr_lib.budgets import budget_lines, budgets
from psr_lib.engines.base import Completion
from psr_lib.presets import load
from psr_lib.records import (
    PSRError,
    Question,
    Rows,
    ScoreExample,
    StepPair,
    read_jsonl,
    seed_of,
    write_jsonl,
)
from psr_lib.scoring import Scored
from psr_lib.solution_traces import (
    Solution,
    SolutionTrace,
    SolutionTraceFile,
    read_solution,
    solution_stats,
)
from psr_lib.srlm import more, settle, solution_search

FAMILY = prompts.load("compact")
TABLES = 200


def srlm_settings(**changes):
    """A preset's `srlm` block."""
    values = {"budget": "none", "solutions": 6, "max_tokens": 64, "scores": 3}
    values |= {"score_temperature": 1.0, "score_top_p": 1.0, "max_score_tokens": 64}
    return SimpleNamespace(**(values | changes))


def random_script(table):
    """Solutions and points drawn by hash, with a difficulty of the table's own.

    There are copies, cut and empty solutions, equal and unreadable points, points out of the scale,
    and in some tables prompts that overflow.
    """
    chance = random.Random(seed_of("table", table))
    variants, cut = chance.choice([1, 2, 4, 20]), chance.choice([0.0, 0.1, 0.6])
    unreadable, levels = chance.choice([0.0, 0.2, 0.9, 1.0]), chance.choice(["5", "45", "012345"])
    overflow = chance.choice([0.0, 0.0, 0.05])

    def solve(noise):
        text = " ".join(
            ["Step 1:", "say"] + ["so"] * noise.randrange(5) + [str(noise.randrange(variants))]
        )
        if noise.random() < cut:
            return noise.choice([(text, "length"), ("", "eos"), ("  ", "stop")])
        return text + noise.choice(["", " ", "\n"]), noise.choice(["eos", "eos", "stop"])

    def score(noise):
        if noise.random() < unreadable:
            return noise.choice(["I can't say.", "Solution: 9.", "Solution: five."]), "length"
        return f"It is fine. Solution: {noise.choice(levels)}.", "eos"

    def script(prompt, seed, k):
        noise = random.Random(seed_of(table, prompt, seed, k))
        if random.Random(seed_of(table, "long", prompt)).random() < overflow:
            return "", "overflow"
        return score(noise) if prompt.endswith("Review:") else solve(noise)

    return script


def run(script, asked, budget=0, search=None, **changes):
    """Our search over these questions, and its engine."""
    engine = Scripted(script)
    traces = solution_search(
        engine, FAMILY, None, asked, search or search_settings(), srlm_settings(**changes), 7,
        budget=budget,
    )  # fmt: skip
    return traces, engine


def literal(engine, question, count, scores=3, seed=7):
    """Yuan et al.'s recipe for one question: no batching, no memory, a call for each solution."""
    settings = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 9, "stop": []}
    means = {}
    texts = []
    for k in range(count):
        asked = FAMILY.solve(question.text)
        own = seed_of(seed, "whole", question.id, k)
        (drawn,) = engine.sample([asked.user + asked.assistant], n=1, seeds=[own], **settings)[0]
        text = drawn.text.strip()
        texts.append(text)
        if drawn.finish not in ("stop", "eos") or not text:
            continue
        asked = FAMILY.score(question.text, text).user
        own = seed_of(seed, "score", question.id, text)
        said = engine.sample([asked], n=scores, seeds=[own], **settings)[0]
        points = [FAMILY.points(c.text) for c in said]
        points = [p for p in points if p is not None]
        if points:
            means[k] = sum(points) / len(points)
    if not means or max(means.values()) == min(means.values()):
        return None
    noise = random.Random(seed_of(seed, "pick whole", question.id))
    best = noise.choice([k for k, m in means.items() if m == max(means.values())])
    worst = noise.choice([k for k, m in means.items() if m == min(means.values())])
    return texts[best], texts[worst]


def test_equal_to_the_literal_recipe_on_random_tables():
    seen = dict.fromkeys(("kept", "tie", "unscored", "identical"), 0)
    ours = literally = 0
    for table in range(TABLES):
        asked = questions(3, table)
        traces, engine = run(random_script(table), asked)
        ours += len(engine.asked)
        for question, trace in zip(asked, traces, strict=True):
            plain = Scripted(random_script(table))
            pair = literal(plain, question, len(trace.solutions))
            literally += len(plain.asked)
            assert len(trace.solutions) == 6 and trace.question == question
            found = [(p.chosen, p.rejected) for p in trace.pairs]
            assert found == ([pair] if pair and pair[0].split() != pair[1].split() else [])
            seen[trace.outcome] += 1
    assert seen["kept"] > 50 and seen["tie"] > 50 and seen["unscored"] > 20
    assert ours < literally, "copies are scored once"


def test_a_question_alone_is_searched_as_among_others():
    script, asked = random_script(11), questions(9, 11)
    together, engine = run(script, asked)
    for question, trace in zip(asked, together, strict=True):
        (alone,), _ = run(script, [question])
        assert alone.to_row() == trace.to_row()
    assert engine.batches == 2  # one call for solutions and one for scores


# --- the pair


def trace_of(*scored, question=None):
    """A trace of solutions given as (text, points); None in place of points: cut."""
    trace = SolutionTrace(question or questions(1)[0])
    for text, points in scored:
        valid = points is not None
        trace.solutions.append(Solution(text, valid, "eos" if valid else "length", 2))
        if valid:
            trace.scored[text] = Scored(tuple(points))
    return trace


def settled(*scored, pick="first"):
    trace = trace_of(*scored)
    settle(trace, pick, 0)
    return trace


def test_the_highest_mean_is_chosen_and_the_lowest_rejected():
    trace = settled(("a", (3, 4, 5)), ("b", (5, 5, 4)), ("c", (0, 5, 0)), ("d", (2, 2, 2)))
    assert trace.scores == [4, pytest.approx(14 / 3), pytest.approx(5 / 3), 2]
    assert (trace.outcome, trace.chosen, trace.rejected) == ("kept", 1, 2)
    (pair,) = trace.pairs
    assert (pair.chosen, pair.rejected, pair.prefix) == ("b", "c", [])
    assert pair.chosen_final and pair.rejected_final
    assert pair.problem_id == trace.question.id and pair.meta["scores"] == trace.scores


@pytest.mark.parametrize(
    ("scored", "outcome"),
    [
        ([("a", (4, 4, 4)), ("b", (3, 4, 5))], "tie"),
        ([("a", (4, 4, 4))], "tie"),
        ([("a", (4, None, None)), ("b", (None, 4, 4))], "tie"),
        ([("a", (None, None, None)), ("b", (None, None, None))], "unscored"),
        ([("a", None), ("b", None)], "unscored"),
        ([], "unscored"),
        ([("a", (5, 5, 5)), ("b", None), ("c", (None, None, None))], "tie"),
        ([("a b", (5, 5, 5)), ("a  b", (1, 1, 1))], "identical"),
    ],
)
def test_no_pair_where_nothing_is_better(scored, outcome):
    trace = settled(*scored)
    assert (trace.outcome, trace.pairs) == (outcome, [])


def test_unreadable_points_are_left_out_of_the_mean_and_never_the_worst():
    trace = settled(("a", (None, None, None)), ("b", (2, None, 3)), ("c", (None, None, 5)))
    assert trace.scores == [None, 2.5, 5]
    assert (trace.chosen, trace.rejected) == (2, 1)


def test_equals_are_picked_by_seed_or_first():
    scored = [("a", (5,)), ("b", (5,)), ("c", (1,)), ("d", (1,))]
    first = settled(*scored)
    assert (first.chosen, first.rejected) == (0, 2)
    found = set()
    for question in questions(40):
        trace = trace_of(*scored, question=question)
        settle(trace, "random", 0)
        found.add((trace.chosen, trace.rejected))
    assert found == {(0, 2), (0, 3), (1, 2), (1, 3)}


@pytest.mark.parametrize(
    ("text", "finish", "valid"),
    [("a", "eos", True), ("a\n", "stop", True), ("a", "length", False), (" ", "eos", False),
     ("", "overflow", False)],
)  # fmt: skip
def test_which_solutions_take_part(text, finish, valid):
    found = read_solution(Completion(text, 3, finish, 9))
    assert (found.valid, found.text) == (valid, text.strip())


# --- the budget


def test_the_budget_is_met_within_five_percent_on_random_tables():
    for table in range(TABLES // 3):
        asked = questions(12, table)
        asked_tokens = random.Random(table).randrange(1500, 9000)
        traces, _ = run(random_script(table), asked, budget=asked_tokens)
        spent = sum(trace.tokens["generated"] + trace.tokens["judged"] for trace in traces)
        room = [trace for trace in traces if not trace.full]
        if room and max(len(trace.solutions) for trace in room) > 2:
            assert abs(spent / asked_tokens - 1) < 0.05, table
            counts = [len(trace.solutions) for trace in room]
            assert max(counts) - min(counts) <= 1, "N is as even as it can be"


def begun(counts, spent):
    """Traces with so many solutions each, all alike, that have cost `spent` together."""
    total = sum(counts)
    traces = []
    for question, count in zip(questions(len(counts)), counts, strict=True):
        trace = trace_of(*[("a", (1,))] * count, question=question)
        trace.tokens.update(generated=spent * count // total if total else 0)
        traces.append(trace)
    return traces


@pytest.mark.parametrize(
    ("counts", "spent", "budget", "wanted"),
    [
        ([0, 0, 0], 0, 1000, [2, 2, 2]),
        ([2, 1, 0], 30, 1000, [0, 1, 2]),
        ([2, 2], 400, 2000, [4, 4]),  # 16 more would fit, half of them now
        ([2, 2], 400, 790, [1, 1]),  # 3.9 more
        ([2, 2], 400, 600, [1, 1]),
        ([2, 2], 400, 449, [0, 0]),
        ([2, 2], 400, 300, [0, 0]),
        ([3, 2], 500, 600, [0, 1]),  # the one with fewer
    ],
)
def test_how_many_more_solutions_each_question_gets(counts, spent, budget, wanted):
    found = more(begun(counts, spent), 4, budget, 0)
    assert [found[k] for k in range(len(counts))] == wanted


def test_the_last_extra_solution_is_drawn_by_the_seed():
    given = {seed: more(begun([2] * 9, 1800), 4, 2000, seed) for seed in range(20)}
    assert all(sum(found.values()) == 2 for found in given.values())
    assert len({tuple(sorted(found)) for found in given.values()}) > 5


def test_without_a_budget_every_question_gets_what_the_preset_says():
    assert more(begun([0, 1], 0), 4, 0, 0) == {0: 4, 1: 3}
    assert more(begun([4, 4], 80), 4, 0, 0) == {}


def test_a_question_without_room_gets_no_more_and_stops_nothing():
    def script(prompt, seed, k):
        if prompt.endswith("Review:"):
            return f"Solution: {seed % 6}.", "eos"
        return ("", "overflow") if "Question 0.1?" in prompt else (f"Step 1: {seed % 7}.", "eos")

    traces, _ = run(script, questions(3), budget=300)
    assert len(traces[1].solutions) == 2 and traces[1].outcome == "unscored"
    assert abs(sum(trace.spent for trace in traces) / 300 - 1) < 0.05


def test_a_search_goes_on_where_it_was_cut_short():
    asked, script, kept = questions(8, 11), random_script(11), []
    settings = (search_settings(), srlm_settings(), 7)

    def cut(traces):
        kept[:] = [SolutionTrace.from_row(trace.to_row()) for trace in traces]
        if len(traces[0].solutions) > 2:
            raise KeyboardInterrupt

    whole = solution_search(Scripted(script), FAMILY, None, asked, *settings, budget=4000)
    with pytest.raises(KeyboardInterrupt):
        solution_search(Scripted(script), FAMILY, None, asked, *settings, budget=4000, keep=cut)
    rest = Scripted(script)
    found = solution_search(rest, FAMILY, None, asked, *settings, budget=4000, begun=kept)
    assert [t.to_row() for t in found] == [t.to_row() for t in whole]
    assert len(rest.asked) < sum(len(t.solutions) + len(t.scored) for t in whole)


def test_bad_settings_are_named_before_anything_is_asked():
    with pytest.raises(PSRError, match=r"set srlm\.scores to 1"):
        run(random_script(0), questions(1), score_temperature=0.0)


# --- what is written and shown


def test_traces_survive_the_disk(tmp_path):
    traces, _ = run(random_script(11), questions(6, 11))
    write_jsonl(tmp_path / "traces.jsonl.gz", [trace.to_row() for trace in traces])
    assert list(SolutionTraceFile(tmp_path / "traces.jsonl.gz")) == traces


def test_stats_count_what_the_traces_hold():
    tie, kept = (
        settled(("a", (1, 1)), ("a", (1, 1)), ("b", None)),
        settled(("a", (5, None)), ("b", (0, 2))),
    )
    tie.tokens.update(generated=6, judged=4)
    kept.tokens.update(generated=4, judged=8)
    stats = solution_stats([tie, kept])
    assert (stats["problems"], stats["kept"], stats["tie"], stats["pairs"]) == (2, 1, 1, 1)
    assert (stats["solutions"], stats["cut"], stats["solutions_each"]) == (5, 1, 2.5)
    assert (stats["solutions_least"], stats["solutions_most"]) == (2, 3)
    assert stats["distinct"] == 1.5 and stats["duplicate_rate"] == pytest.approx(1 / 4)
    assert stats["judge_unreadable"] == 1 / 6 and stats["tie_rate"] == 0.5
    assert (stats["generated_tokens"], stats["judged_tokens"]) == (10, 12)


def stage_in(folder, counts, method="srlm", **changes):
    """What a round of srlm needs of its stage."""
    preset = load("smoke", [f"srlm.{key}={value}" for key, value in changes.items()])
    return SimpleNamespace(
        preset=preset, seed=0, iteration=2, method=method, folder=folder, made_from={},
        tokens=lambda **n: None, scratch=lambda name: folder / f"{name}.part",
        output=lambda name: folder / name, input=lambda name: folder / name, count=counts.update,
        counts=counts,
    )  # fmt: skip


def scripted(table):
    engine = Scripted(random_script(table))
    engine.tokenizer = None
    return engine


def round_files(folder, spent=((700, 800), (600, 500))):
    """Questions of round 2, and what psrlm's search of that round has spent."""
    write_jsonl(folder / "data/questions_2.jsonl", questions(9, 2))
    rows = [{"tokens": {"generated": a, "judged": b, "prefill": 10**6}} for a, b in spent]
    write_jsonl(folder / "psrlm/M2/ppd/traces.jsonl.gz", rows)


def test_a_round_gets_psrlms_tokens_and_writes_pairs_and_traces(tmp_path):
    counts = {}
    round_files(tmp_path)
    traces = rounds.make_pairs(stage_in(tmp_path, counts), scripted(11))
    pairs = read_jsonl(tmp_path / "ppd.jsonl", StepPair)
    assert len(traces) == counts["problems"] == 9 and len(pairs) == counts["pairs"] > 0
    assert [p for trace in traces for p in trace.pairs] == pairs
    assert counts["budget"] == 2600 and counts["spent"] == sum(t.spent for t in traces)
    assert counts["budget_used"] == counts["spent"] / 2600 and abs(counts["budget_used"] - 1) < 0.05
    assert counts["spent"] == counts["generated_tokens"] + counts["judged_tokens"]


def searched(counts, iteration=2, stage="03_search_judge"):
    return {"stage": stage, "iteration": iteration, "counts": counts}


def test_the_budget_is_told_and_one_that_was_missed_says_so():
    counts = {"budget": 2000, "solutions_each": 3.25}
    made = [
        searched(counts | {"spent": 2100, "budget_used": 1.05}),
        searched(counts | {"spent": 1200, "budget_used": 0.6}, 3),
        searched({"pairs": 4}),  # psrlm's
        searched({"pairs": 4, "budget": 0, "spent": 9, "budget_used": 0.0}),  # srlm.budget=none
        searched({}, stage="04_step_dpo"),
    ]
    assert [(row["model"], row["equal"]) for row in budgets(made)] == [("M2", True), ("M3", False)]
    near, far = budget_lines(made)
    assert near == (
        "M2: searched with 2,100 tokens, 105.0% of psrlm's 2,000; 3.2 solutions a question"
    )
    assert "60.0% of psrlm's 2,000 (NOT EQUAL: more than 5% apart); 3.2" in far


def test_a_round_that_was_killed_goes_on_after_its_last_pass(tmp_path):
    round_files(tmp_path)
    stage = stage_in(tmp_path, {})
    rounds.make_pairs(stage, scripted(11))
    before, again = (tmp_path / "traces.jsonl.gz").read_bytes(), scripted(11)
    rounds.make_pairs(stage, again)
    assert again.batches == 0 and (tmp_path / "traces.jsonl.gz").read_bytes() == before
    round_files(tmp_path, [(900, 2000)])
    rounds.make_pairs(stage, again)
    assert again.batches > 0, "another budget is another search"


def test_without_a_budget_psrlm_is_not_read(tmp_path):
    counts = {}
    write_jsonl(tmp_path / "data/questions_2.jsonl", questions(4, 2))
    rounds.make_pairs(stage_in(tmp_path, counts, budget="none", solutions=3), scripted(11))
    assert (counts["solutions"], counts["budget"], counts["budget_used"]) == (12, 0, 0.0)


TEXT = "Tom has 47 pens. Tom buys 38 pens. Tom sells 5 pens. How many pens does Tom have?"
RIGHT = "\n".join(problems.parse(TEXT).solution())
WRONG, OTHER = RIGHT.replace("{80}", "{70}"), RIGHT.replace("{80}", "{60}")
ASKED = Question(id="q/0", text=TEXT)


def lab_trace(*scored):
    trace = trace_of(*scored, question=ASKED)
    settle(trace, "first", 0)
    return trace


def test_the_oracle_rates_verdicts_between_solutions_and_pairs():
    traces = [
        lab_trace((RIGHT, (5,)), (WRONG, (1,)), (OTHER, (5,)), ("cut", None)),
        lab_trace((WRONG, (4,)), (RIGHT, (2,))),
        lab_trace((WRONG, (4,)), (OTHER, (2,))),
        lab_trace((RIGHT, (None,)), (WRONG, (2,))),
    ]
    report = srlm_rounds.oracle_report(traces)
    assert report["siblings_n"] == 3
    assert report["siblings_judge_accuracy"] == report["siblings_tied"] == 1 / 3
    assert report["solutions_right"] == 3 / 10
    assert (report["chosen_right"], report["rejected_right"]) == (1 / 3, 1 / 3)
    assert (report["ordered_right"], report["ordered_wrong"]) == (1 / 3, 1 / 3)
    assert set(srlm_rounds.oracle_report([]).values()) == {0}


OTHERS = "Natalia sold clips to 48 friends. How many clips did she sell in all?"


def test_what_only_the_oracle_knows_is_left_out_on_other_problems():
    solution = "Step 1: The answer is \\boxed{48}."
    trace = trace_of(
        (solution, (5,)), ("Step 1: \\boxed{7}.", (1,)), question=Question(id="q", text=OTHERS)
    )
    settle(trace, "first", 0)
    assert srlm_rounds.oracle_report([trace]) == {}
    pair = [replace(scored_example(0, text, right), question=OTHERS)
            for text, right in ((solution, True), ("Step 1: \\boxed{7}.", False))]  # fmt: skip
    rows = srlm_rounds.pair_rows(pair, [Scored((5,), ("x",), 1, 1), Scored((1,), ("y",), 1, 1)])
    assert rows[0]["correct"] and not [name for name in rows[0] if name.startswith("skill_")]
    judged = srlm_rounds.judge_summary(rows)
    assert judged["accuracy"] == 1.0 and "skill_count" not in judged


def test_a_search_is_shown_with_points_copies_and_fates():
    trace = lab_trace((RIGHT, (5, None)), (RIGHT, (5, None)), (WRONG, (1, 2)), ("cut", None),
                      (OTHER, (None,)))  # fmt: skip
    trace.scored[RIGHT] = Scored((5, None), ("full", "?"))
    trace.scored[WRONG] = Scored((1, 2), ("slip", "slip"))
    lines = repr(show.search(trace)).split("\n\n")
    assert lines[0] == TEXT and len(lines) == 5
    assert lines[4].startswith("-, 1 ×, no readable score")
    assert lines[1] == f"chosen, 2 ×, mean 5.00 of 5, ?\n{RIGHT}"
    assert lines[2].startswith("rejected, 1 ×, mean 1.50 of 1, 2")
    assert lines[3] == "-, 1 ×, cut, not scored\ncut"
    assert repr(show.judge(trace)).split("\n") == [
        "chosen: full", "chosen: ?", "rejected: slip", "rejected: slip"
    ]  # fmt: skip


def test_the_report_and_the_funnel_are_those_of_the_method(tmp_path):
    counts = {}
    stage = stage_in(tmp_path, counts, budget="none")
    trace = lab_trace((RIGHT, (5,)), (WRONG, (1,)))
    write_jsonl(tmp_path / "t.jsonl", [trace.to_row()])
    traces = SolutionTraceFile(tmp_path / "t.jsonl")
    stage.count(**solution_stats(traces), spent=7, budget=0, budget_used=0.0)
    report = looking.judge_report(stage, traces)
    assert report["chosen_right"] == 1.0 and counts["siblings_n"] == 1
    assert {"solutions_each", "budget_used", "judge_unreadable"} <= set(report)
    steps = {row["what"]: row["count"] for row in rounds.funnel(counts)}
    assert steps == {"questions": 1, "solutions": 2, "scores asked for": 2, "preference pairs": 1}


# --- the judge on held-out solutions


def scored_example(k, text, right):
    return ScoreExample(id=f"s/{k}.{int(not right)}", problem_id=f"p/{k}", question=TEXT,
                        solution=text, points=5 if right else 1, explanation="",
                        right=right)  # fmt: skip


def test_held_out_solutions_are_scored_and_a_tie_is_wrong_but_half(tmp_path):
    examples = [scored_example(k, text, right)
                for k in range(4) for text, right in ((RIGHT, True), (WRONG, False))]  # fmt: skip
    points = [(5, 5), (1, 2), (3, 3), (3, 3), (1, 1), (4, 4), (5, 5), (None, None)]
    found = [Scored(p, ("Solution: 5.", "x"), 2, 9) for p in points]
    rows = srlm_rounds.pair_rows(examples, found)
    assert [row["verdict"] for row in rows] == ["right", "tie", "wrong", None]
    assert [row["correct"] for row in rows] == [True, False, False, False]
    assert rows[0]["tokens"] == 4 and rows[0]["exact"] == 2 + 1
    judged = srlm_rounds.judge_summary(rows)
    assert (judged["n"], judged["accuracy"], judged["half_credit"]) == (4, 0.25, 0.375)
    assert 0 < judged["low"] < 0.25 < judged["high"] < 1
    assert (judged["ties"], judged["unreadable"], judged["exact"]) == (0.25, 2 / 16, 5 / 16)
    assert judged["skill_count"] == 0.0


def test_the_evaluation_of_srlm_asks_for_scores_and_of_m0_for_verdicts(tmp_path, monkeypatch):
    stage = stage_in(tmp_path, {})
    write_jsonl(
        tmp_path / srlm_rounds.HELDOUT,
        [scored_example(k, t, r) for k in range(3) for t, r in ((RIGHT, 1 > 0), (WRONG, 1 < 0))],
    )

    def judge(prompt, seed, k):
        return f"Solution: {5 if '{80}' in prompt else k}.", "eos"

    engine = Scripted(judge)
    engine.tokenizer = None
    rows, judged = rounds.evaluate_judge(stage, engine)
    assert judged["accuracy"] == 1.0 and rows[0]["points_wrong"] == [0, 1, 2]
    assert all(prompt.endswith("Review:") for prompt in engine.asked)
    stage.iteration = 0
    with pytest.raises(PSRError, match="eft_heldout"):
        rounds.evaluate_judge(stage, engine)
    stage.iteration = 1
    assert not rounds.searches(stage) and rounds.searches(stage_in(tmp_path, {}, "psrlm")) is False


def test_m1_is_trained_on_scored_solutions(tmp_path):
    from psr_lib.records import IFTExample, JudgeExample

    ift = [IFTExample(id="i", problem_id="p", question="Q?", steps=["Step 1: a."])]
    step = JudgeExample(id="e", problem_id="p", question="Q?", prefix=[], step_a="a", step_b="b",
                        better="A", explanation="x [[A]]")  # fmt: skip
    write_jsonl(tmp_path / "data/ift.jsonl", ift)
    write_jsonl(tmp_path / "data/eft.jsonl", [step])
    write_jsonl(tmp_path / srlm_rounds.EFT, [scored_example(0, RIGHT, True)])
    assert rounds.sft_examples(stage_in(tmp_path, {})) == (ift, [scored_example(0, RIGHT, True)])
    assert rounds.sft_examples(stage_in(tmp_path, {}, "psrlm")) == (ift, [step])
    assert isinstance(Rows(tmp_path / "data/ift.jsonl", IFTExample), Rows)
