"""Tree search with the judge's wins as value: against plain loops, and beside the step search."""

import math
import random

import pytest
from scripted import Scripted, judge_settings, questions, random_script, search_settings

from psr_lib import presets, prompts, rounds
from psr_lib.judge import Judge
from psr_lib.mcts import mcts_stream
from psr_lib.records import PSRError, StepPair, read_jsonl, seed_of, write_jsonl
from psr_lib.search import search_stream
from psr_lib.steps import boxed, number, split_steps
from psr_lib.traces import SearchTrace, search_stats

FAMILY = prompts.load("compact")
TABLES = 80
VISITS, EXPLORE = 14, 1.4


def run(script, asked, stream=mcts_stream, select=False, **changes):
    """Traces in the order of the questions, and the engine."""
    engine = Scripted(script)
    search = search_settings(max_iterations=VISITS, exploration=EXPLORE, **changes)
    judge = Judge(engine, FAMILY, None, judge_settings(), scoring=search.scoring)
    found = dict(stream(engine, FAMILY, None, enumerate(asked), search, judge, 7, select=select))
    return [found[k] for k in range(len(asked))], engine


def ask(engine, prompt, n, seed):
    """One engine call for one prompt."""
    settings = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 9, "stop": []}
    return engine.sample([prompt], n=n, seeds=[seed], **settings)[0]


class Literal:
    """The same search with a table of prefixes: no tasks, no memory, a call for every pair."""

    def __init__(self, engine, question):
        self.engine, self.question = engine, question
        self.visits, self.total, self.below, self.depths = {(): 0}, {(): 0.0}, {}, {}
        self.dead, self.last, self.status = set(), {}, ""

    def mean(self, path):
        return self.total[path] / max(1, self.visits[path])

    def bound(self, path):
        above = max(1, self.visits[path[:-1]])
        return self.mean(path) + EXPLORE * math.sqrt(math.log(above) / self.visits[path])

    def visit(self):
        path = ()
        while self.below.get(path):
            path = max((path + (text,) for text in self.below[path]), key=self.bound)
        value = self.value(path)
        for size in range(len(path) + 1):
            self.visits[path[:size]] += 1
            self.total[path[:size]] += value

    def value(self, path):
        if path in self.dead:
            return 0.0
        if self.last.get(path):
            return self.mean(path)
        depth = len(path) + 1
        turn = self.depths[depth] = self.depths.get(depth, -1) + 1
        prompt = FAMILY.render(None, FAMILY.solve(self.question.text, path))
        drawn = ask(self.engine, prompt, 6, seed_of(7, "sample", self.question.id, depth, turn))
        texts = [c.text.strip() for c in drawn]
        good = [i for i, c in enumerate(drawn) if c.finish in ("stop", "eos")
                and number(texts[i]) == depth and len(split_steps(c.text)) == 1]  # fmt: skip
        long, wins = all(c.finish == "overflow" for c in drawn), dict.fromkeys(good, 0)
        for i in good:
            for j in good:
                if i != j:
                    asked = FAMILY.judge(self.question.text, path, texts[i], texts[j])
                    said = ask(self.engine, FAMILY.render(None, asked), 1, 0)[0]
                    long = long or said.finish == "overflow"
                    wins[i] += FAMILY.verdict(said.text) == "A"
        if long and not path:
            self.status = "overflow"
        first = {} if long else {texts[i]: i for i in reversed(good)}
        self.below[path] = {text: i for text, i in sorted(first.items(), key=lambda pair: pair[1])}
        for text, i in self.below[path].items():
            self.visits[(*path, text)] = 1
            self.total[(*path, text)] = wins[i] / max(1, len(good) - 1)
            self.last[(*path, text)] = drawn[i].finish == "eos" or boxed(texts[i]) is not None
        if path and not self.below[path]:
            self.dead.add(path)
        return max((self.mean((*path, text)) for text in self.below[path]), default=0.0)

    def search(self):
        for _ in range(VISITS):
            self.visit()
            if self.status:
                break
        path, pairs = (), []
        while self.below.get(path):
            noise = random.Random(seed_of(7, "keep", self.question.id, *path))
            kids = [(*path, text) for text in self.below[path]]
            rank = {kid: (self.visits[kid], self.mean(kid)) for kid in kids}
            best = noise.choice([kid for kid in kids if rank[kid] == max(rank.values())])
            least = min(map(self.mean, kids))
            worst = noise.choice([kid for kid in kids if self.mean(kid) == least])
            if self.mean(worst) < self.mean(best) and worst[-1].split() != best[-1].split():
                pairs.append((list(path), best[-1], worst[-1]))
            path = best
        status = self.status or ("complete" if self.last.get(path) else "cap")
        return list(path), pairs, status


def test_equal_to_plain_loops_on_random_tables():
    seen, parted = {"complete": 0, "cap": 0, "overflow": 0}, 0
    for table in range(TABLES):
        asked = questions(2, table)
        traces, _ = run(random_script(table), asked)
        steps, _ = run(random_script(table), asked, search_stream)
        for question, trace, other in zip(asked, traces, steps, strict=True):
            path, pairs, status = Literal(Scripted(random_script(table)), question).search()
            assert (trace.path, trace.status) == (path, status), table
            assert [(p.prefix, p.chosen, p.rejected) for p in trace.pairs] == pairs
            seen[status] += 1
            parted += trace.path != other.path
    assert min(seen.values()) > 0 and parted > TABLES / 4


def trap(prompt, seed, k):
    """A first step that wins (7) and leads nowhere, and one that loses (5) and leads on."""
    if prompt.endswith("Review:"):
        a, b = (prompt.split(f"\n{slot}: ")[1].split("\n")[0] for slot in "AB")
        return ("[[A]]" if a[-2] > b[-2] else "[[B]]"), "eos"
    path = prompt.split("Solution:\n")[1].splitlines()
    if not path:
        return f"Step 1: take {(7, 5)[k % 2]}.", "stop"
    if path[0].endswith("7."):
        return f"Step {len(path) + 1}: stuck 1.", "stop"
    return (f"Step 2: go on {k}.", f"Step 3: \\boxed{{1}} {k}.")[len(path) - 1], "stop"


GOOD = ["Step 1: take 5.", "Step 2: go on 5.", "Step 3: \\boxed{1} 5."]


def test_what_comes_later_changes_what_is_kept_before():
    asked = questions(1)
    (tree,), _ = run(trap, asked)
    (steps,), _ = run(trap, asked, search_stream)
    assert (tree.path, tree.status) == (GOOD, "complete")
    assert "take 5" not in "".join(steps.path) and steps.status == "cap"
    found = [(p.prefix, p.chosen, p.rejected) for p in tree.pairs]
    assert found[0] == ([], "Step 1: take 5.", "Step 1: take 7.")
    assert found[1:] == [
        (GOOD[:1], GOOD[1], "Step 2: go on 0."), (GOOD[:2], GOOD[2], "Step 3: \\boxed{1} 0."),
    ]  # fmt: skip
    assert [p.chosen_final for p in tree.pairs] == [False, False, True]


def test_visits_are_capped_and_only_the_kept_path_gives_pairs():
    (trace,), engine = run(trap, questions(1))
    assert len(trace.expansions) <= VISITS and len({p.id for p in trace.pairs}) == 3
    outcomes = [e.outcome for e in trace.expansions]
    assert outcomes.count("kept") == 3 and outcomes.count("explored") > 0
    assert not any(e.rolled_back for e in trace.expansions)
    solved = [prompt for prompt in engine.asked if not prompt.endswith("Review:")]
    assert len(solved) == len(trace.expansions)
    assert search_stats([trace])["pairs"] == 3


def test_a_question_is_searched_alone_as_among_others():
    asked = questions(5, 3)
    together, _ = run(random_script(3), asked)
    by_turns, _ = run(random_script(3), asked, live=1)
    assert [t.to_row() for t in together] == [t.to_row() for t in by_turns]


def test_traces_and_pairs_have_the_rows_of_a_step_search(tmp_path):
    traces, _ = run(random_script(5), questions(4, 5))
    for trace in traces:
        assert SearchTrace.from_row(trace.to_row()).to_row() == trace.to_row()
    pairs = [pair for trace in traces for pair in trace.pairs]
    write_jsonl(tmp_path / "ppd.jsonl", pairs)
    assert pairs and read_jsonl(tmp_path / "ppd.jsonl", StepPair) == pairs


def test_at_test_time_there_are_no_pairs_and_greedy_decoding_ends_the_path():
    (trace,), _ = run(trap, questions(1), select=True)
    assert trace.path == GOOD and trace.pairs == []
    (trace,), _ = run(lambda *_: ("no step at all", "stop"), questions(1), select=True)
    assert (trace.path, trace.status, trace.rest) == ([], "cap", "no step at all")
    assert len(trace.expansions) == VISITS, "the beginning is tried again"


def test_the_preset_names_the_search_and_steps_are_the_default():
    assert {presets.load(name).search.kind for name in presets.names()} == {"step"}
    assert presets.load("tiny", "search.kind=mcts").search.kind in rounds.STREAMS
    with pytest.raises(PSRError, match="did you mean 'mcts'"):
        presets.load("tiny", "search.kind=mtcs")


def test_where_only_the_judge_lacks_room_greedy_decoding_finishes():
    def script(prompt, seed, k):
        return ("", "overflow") if prompt.endswith("Review:") else (f"Step 1: {k}.", "stop")

    (trace,), _ = run(script, questions(1), select=True)
    assert (trace.status, trace.rest) == ("cap", "Step 1: 0.")
    (trace,), _ = run(script, questions(1))
    assert (trace.status, trace.pairs) == ("overflow", [])
