"""Search against a literal reading of the paper, and its rules one by one."""

import os
import random

import pytest
from scripted import Scripted, judge_settings, questions, random_script, search_settings

from psr_lib import prompts
from psr_lib.engines.base import Completion
from psr_lib.judge import Judge
from psr_lib.records import PSRError, StepPair, read_jsonl, seed_of, write_jsonl
from psr_lib.search import read_candidate, step_search
from psr_lib.solving import greedy_solutions
from psr_lib.steps import boxed, number, split_steps
from psr_lib.traces import search_stats

FAMILY = prompts.load("compact")
TABLES = int(os.environ.get("PSR_TABLES", "300"))


def one(engine, prompt, n, seed):
    """One engine call for one prompt."""
    settings = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 9, "stop": []}
    return engine.sample([prompt], n=n, seeds=[seed], **settings)[0]


def literal(engine, question, seed, width=6, cap=20):
    """The paper's pseudo-code for one problem: no batching, no memory, a call for every pair."""
    path, pairs, scores, visits, count = [], [], [], {}, 0
    while count < cap:
        count += 1
        depth = len(path) + 1
        turn = visits.get(depth, 0)
        visits[depth] = turn + 1
        prompt = FAMILY.render(None, FAMILY.solve(question.text, path))
        drawn = one(engine, prompt, width, seed_of(seed, "sample", question.id, depth, turn))
        if all(c.finish == "overflow" for c in drawn):
            return path, pairs, "overflow", scores
        good = [
            i
            for i, c in enumerate(drawn)
            if c.finish in ("stop", "eos")
            and number(c.text.strip()) == depth
            and len(split_steps(c.text)) == 1
        ]
        wins, long = {i: 0 for i in good}, False
        for i in good:
            for j in good:
                if i != j:
                    a, b = drawn[i].text.strip(), drawn[j].text.strip()
                    asked = FAMILY.render(None, FAMILY.judge(question.text, path, a, b))
                    said = one(engine, asked, 1, 0)[0]
                    long = long or said.finish == "overflow"
                    wins[i] += FAMILY.verdict(said.text) == "A"
        scores.append([wins.get(i) for i in range(width)])
        if long:
            return path, pairs, "overflow", scores
        if not wins or max(wins.values()) == min(wins.values()):
            if path:
                path.pop()
                pairs.pop()
            continue
        noise = random.Random(seed_of(seed, "pick", question.id, depth, turn))
        best = noise.choice([i for i in good if wins[i] == max(wins.values())])
        worst = noise.choice([i for i in good if wins[i] == min(wins.values())])
        chosen, rejected = drawn[best], drawn[worst]
        same = chosen.text.split() == rejected.text.split()
        row = (list(path), chosen.text.strip(), rejected.text.strip())
        pairs.append(None if same else (*row, final(chosen), final(rejected)))
        path.append(chosen.text.strip())
        if final(chosen):
            return path, pairs, "complete", scores
    return path, pairs, "cap", scores


def final(completion):
    """Whether a step ends the solution."""
    return completion.finish == "eos" or boxed(completion.text) is not None


def run(script, asked, **changes):
    """Our search over these questions with its traces and its engine."""
    engine = Scripted(script)
    select = changes.pop("select", False)
    search = search_settings(**changes)
    judge = Judge(engine, FAMILY, None, judge_settings(), scoring=search.scoring)
    traces = step_search(engine, FAMILY, None, asked, search, judge, 7, select=select)
    return traces, engine


def test_equal_to_the_literal_algorithm_on_random_tables():
    seen = {"complete": 0, "cap": 0, "overflow": 0}
    ours = literally = rolled = 0
    for table in range(TABLES):
        asked = questions(2, table)
        traces, engine = run(random_script(table), asked)
        ours += sum(prompt.endswith("Review:") for prompt in engine.asked)
        for question, trace in zip(asked, traces, strict=True):
            plain = Scripted(random_script(table))
            path, pairs, status, scores = literal(plain, question, 7)
            literally += sum(prompt.endswith("Review:") for prompt in plain.asked)
            assert (trace.path, trace.status) == (path, status)
            got = [e.scores for e in trace.expansions][: len(scores)]
            assert got == scores
            rows = [
                (p.prefix, p.chosen, p.rejected, p.chosen_final, p.rejected_final)
                for p in trace.pairs
            ]
            assert rows == [pair for pair in pairs if pair]
            assert all(p.problem_id == question.id for p in trace.pairs)
            seen[status] += 1
            rolled += sum(e.rolled_back for e in trace.expansions)
    assert min(seen.values()) > 0 and rolled > 0  # the tables reach every rule
    assert ours < literally / 2


def steps_of(text_of):
    """A script whose candidate k is `text_of(depth, k)`, judged by which digit is larger."""

    def script(prompt, seed, k):
        if not prompt.endswith("Review:"):
            depth = len(prompt.split("Solution:\n")[1].splitlines()) + 1
            return text_of(depth, k), "stop"
        a, b = (prompt.split(f"\n{slot}: ")[1].split("\n")[0] for slot in "AB")
        return ("[[A]]" if a[-2] > b[-2] else "[[B]]"), "eos"

    return script


def test_best_continues_and_worst_is_rejected():
    script = steps_of(lambda d, k: f"Step {d}: {k}." if d < 3 else f"Step {d}: \\boxed{{{k}.")
    script_end = steps_of(
        lambda d, k: f"Step {d}: \\boxed{{9}} {k}." if d == 3 else f"Step {d}: {k}."
    )
    assert run(script, questions(1), max_iterations=4)[0][0].status == "cap"
    (trace,), _ = run(script_end, questions(1))
    assert trace.status == "complete"
    assert trace.path == ["Step 1: 5.", "Step 2: 5.", "Step 3: \\boxed{9} 5."]
    assert [p.rejected for p in trace.pairs][:2] == ["Step 1: 0.", "Step 2: 0."]
    assert trace.expansions[0].scores == [0, 1, 2, 3, 4, 5]
    assert [p.chosen_final for p in trace.pairs] == [False, False, True]


def test_tie_drops_the_previous_step_and_its_pair():
    # Every second step is unanimous, so the search goes back to the first step again and again.
    script = steps_of(lambda d, k: f"Step {d}: {k}." if d == 1 else f"Step {d}: 1.")
    (trace,), _ = run(script, questions(1), max_iterations=5)
    assert trace.status == "cap" and len(trace.expansions) == 5
    assert [e.rolled_back for e in trace.expansions] == [False, True, False, True, False]
    assert [e.attempt for e in trace.expansions] == [0, 0, 1, 1, 2]
    assert len(trace.pairs) == 1 and trace.path == ["Step 1: 5."]
    (kept,), _ = run(script, questions(1), max_iterations=5, tie="first")
    assert len(kept.path) == 5 and len(kept.pairs) == 1


def test_tie_at_the_first_step_samples_again():
    (trace,), _ = run(steps_of(lambda d, k: f"Step {d}: 1."), questions(1), max_iterations=3)
    assert trace.path == [] and trace.pairs == []
    assert [e.rolled_back for e in trace.expansions] == [False] * 3


def test_pick_among_equals_is_seeded_or_first():
    script = steps_of(lambda d, k: f"Step {d}: {'ab'[k % 2]}{k % 2}.")
    chosen = {t.expansions[0].chosen for t in run(script, questions(40), max_iterations=1)[0]}
    assert chosen == {1, 3, 5}
    first, _ = run(script, questions(9), max_iterations=1, pick="first")
    assert {(t.expansions[0].chosen, t.expansions[0].rejected) for t in first} == {(1, 0)}


@pytest.mark.parametrize(
    ("text", "finish", "valid", "is_last"),
    [
        ("Step 2: fine.", "stop", True, False),
        ("Step 2: fine.\n", "eos", True, True),
        ("Step 2: so \\boxed{4}.", "stop", True, True),
        ("Step 2: so \\boxed{4", "stop", True, False),
        ("Step 3: ahead.", "stop", False, False),
        ("fine.", "stop", False, False),
        ("", "stop", False, False),
        ("Step 2: cut", "length", False, False),
        ("Step 2: two.\n Step 3: marks.", "stop", False, False),
    ],
)
def test_which_candidates_are_well_formed(text, finish, valid, is_last):
    candidate = read_candidate(Completion(text, 3, finish, 9), 2)
    assert (candidate.valid, candidate.final) == (valid, is_last)


def test_ill_formed_candidates_are_neither_judged_nor_chosen_nor_rejected():
    script = steps_of(lambda d, k: f"Step {d}: {k}." if k < 3 else f"oops {k}.")
    traces, engine = run(script, questions(4), max_iterations=2)
    assert not any("oops" in prompt for prompt in engine.asked)
    assert traces[0].expansions[0].scores == [0, 1, 2, None, None, None]
    assert traces[0].pairs[0].rejected == "Step 1: 0."
    assert search_stats(traces)["ill_formed"] == 4 * 2 * 3


def test_a_problem_alone_is_searched_as_among_others():
    script, asked = random_script(5), questions(12, 5)
    together, engine = run(script, asked)
    for question, trace in zip(asked, together, strict=True):
        (alone,), _ = run(script, [question])
        assert alone.to_row() == trace.to_row()
    assert engine.batches <= 2 * 20  # one call for steps and one for verdicts a round


def test_test_time_search_takes_the_most_frequent_at_a_tie_and_never_goes_back():
    def script(prompt, seed, k):
        if prompt.endswith("Review:"):
            return "none", "eos"
        depth = len(prompt.split("Solution:\n")[1].splitlines()) + 1
        return f"Step {depth}: {'abbbcc'[k]}.", "stop"

    (trace,), _ = run(script, questions(1), select=True, max_iterations=3)
    assert [step[-2] for step in trace.path] == ["b", "b", "b"]
    assert trace.pairs == [] and trace.status == "cap"
    assert trace.rest == "Step 4: a." and trace.text.endswith("Step 3: b.\nStep 4: a.")


def test_where_only_the_judge_lacks_room_greedy_decoding_finishes():
    def script(prompt, seed, k):
        if prompt.endswith("Review:"):
            return "", "overflow"
        depth = len(prompt.split("Solution:\n")[1].splitlines()) + 1
        return f"Step {depth}: {k}.", "stop"

    (trace,), _ = run(script, questions(1), select=True)
    assert (trace.status, trace.expansions[0].outcome) == ("cap", "overflow")
    assert trace.path == [] and trace.rest == "Step 1: 0."
    (trace,), _ = run(script, questions(1))  # in a round that problem ends here, without a pair
    assert (trace.status, trace.pairs) == ("overflow", [])
    (trace,), _ = run(lambda *_: ("", "overflow"), questions(1), select=True)
    assert trace.status == "overflow"


def test_test_time_search_judges_no_unanimous_step():
    script = steps_of(lambda d, k: f"Step {d}: so \\boxed{{1}}.")
    (trace,), engine = run(script, questions(1), select=True)
    assert trace.status == "complete" and engine.batches == 1


def test_traces_and_pairs_survive_the_disk(tmp_path):
    traces, _ = run(random_script(1), questions(4, 1))
    pairs = [pair for trace in traces for pair in trace.pairs]
    write_jsonl(tmp_path / "ppd.jsonl", pairs)
    assert read_jsonl(tmp_path / "ppd.jsonl", StepPair) == pairs
    assert len({pair.id for pair in pairs}) == len(pairs) > 0
    write_jsonl(tmp_path / "traces.jsonl", [trace.to_row() for trace in traces])
    assert len(read_jsonl(tmp_path / "traces.jsonl")) == 4


def test_stats_count_what_the_traces_hold():
    traces, _ = run(random_script(2), questions(10, 2))
    stats = search_stats(traces)
    assert stats["complete"] + stats["cap"] + stats["overflow"] == stats["problems"] == 10
    assert stats["expansions"] == sum(len(t.expansions) for t in traces)
    assert stats["pairs"] == sum(len(t.pairs) for t in traces)
    assert 0 <= stats["duplicate_rate"] <= 1 and stats["judge_calls"] >= stats["judge_made"]


def test_greedy_solutions_continue_their_prefix():
    engine = Scripted(lambda prompt, seed, k: (prompt[-9:], "eos"))
    found = greedy_solutions(engine, FAMILY, None, questions(1), 9, [["Step 1: a."]])
    assert found[0].text == "ep 1: a.\n"


@pytest.mark.parametrize(
    "change", [{"tie": "x"}, {"pick": "x"}, {"width": 0}, {"max_iterations": 0}]
)
def test_bad_settings_are_named(change):
    with pytest.raises(PSRError, match=f"search.{next(iter(change))}"):
        run(random_script(0), questions(1), **change)
