"""Lossy ways of judging: each does what its name says, and the report counts what it changes."""

import random

import pytest
from scripted import Scripted, judge_settings, questions, random_script, search_settings

from psr_lib import prompts
from psr_lib.agreement import agreement
from psr_lib.judge import OPTIONS, Call, Item, Judge
from psr_lib.records import PSRError, seed_of
from psr_lib.robins import settled, tally
from psr_lib.search import step_search

FAMILY = prompts.load("compact")
ASKED = questions(30, 2)


class Choosing(Scripted):
    """`choose` prefers the mark that the script's verdict gives, or `[[A]]` where it is none."""

    def choose(self, prompts, options):
        assert options == list(OPTIONS)
        self.chosen = getattr(self, "chosen", []) + list(prompts)
        return [self._logs(p.split("Review:")[0] + "Review:") for p in prompts]

    def _logs(self, prompt):
        said = self.script(prompt, 0, 0)[0]
        return [-2.0, -0.1] if "[[B]]" in said else [-0.1, -2.0]


def judge_of(engine, scoring="ordered", **changes):
    return Judge(engine, FAMILY, None, judge_settings(**changes), scoring=scoring)


def searched(script):
    engine = Scripted(script)
    return step_search(engine, FAMILY, None, ASKED, search_settings(), judge_of(engine), 7)


def test_the_full_procedure_agrees_with_itself_in_everything():
    script = random_script(3)
    report = agreement(searched(script), judge_of(Scripted(script)), 7)
    assert (report["verdicts"], report["ties"], report["rows"]) == (1.0, 1.0, 1.0)
    assert report["made"] == report["full_made"] > 0
    assert report["judged"] == report["full_judged"] > 0


def test_another_judge_agrees_in_part():
    script = random_script(5)
    traces = searched(script)
    coin = agreement(traces, judge_of(None, kind="random"), 7)
    assert 0 < coin["verdicts"] < 1 and 0 < coin["rows"] < 1


def test_early_stop_decides_alike_with_fewer_calls():
    saved = 0
    for table in (3, 5):
        script = random_script(table)
        engine = Scripted(script)
        report = agreement(searched(script), judge_of(engine, early_stop=True), 7)
        assert report["rows"] == report["ties"] == report["verdicts"] == 1.0
        saved += report["full_made"] - report["made"]
        assert len(engine.asked) == report["made"]
    assert saved > 0


def ends(texts, scores, pick):
    return {text for text, score in zip(texts, scores, strict=True) if score == pick(scores)}


@pytest.mark.parametrize("scoring", ["ordered", "both_slots", "single_order", "agreement"])
def test_settled_means_that_no_completion_changes_best_or_worst(scoring):
    noise = random.Random(4)
    early = 0
    for _ in range(1500):
        texts = [noise.choice("abc") for _ in range(noise.choice([2, 3, 4]))]
        pairs = [(i, j) for i in range(len(texts)) for j in range(len(texts)) if i != j]
        table = {}
        for i, j in pairs:
            table.setdefault((texts[i], texts[j]), noise.choice("AAABBN"))
        full = {(i, j): {"N": None}.get(v := table[texts[i], texts[j]], v) for i, j in pairs}
        some = noise.sample(sorted(table), noise.randint(0, len(table)))
        known = {(i, j): full[i, j] for i, j in pairs if (texts[i], texts[j]) in some}
        if settled(texts, scoring, known):
            early += len(known) < len(full)
            final = tally(len(texts), scoring, lambda i, j, full=full: full[i, j])
            now = tally(len(texts), scoring, lambda i, j, known=known: known.get((i, j)))
            for pick in (max, min):
                ends = [
                    {t for t, s in zip(texts, x, strict=True) if s == pick(x)} for x in (final, now)
                ]
                assert ends[0] == ends[1]
    assert early > 20


def test_direct_verdicts_take_the_likelier_mark_and_write_nothing():
    script = random_script(3)
    engine = Choosing(script)
    traces = searched(script)
    report = agreement(traces, judge_of(engine, verdict="direct"), 7)
    assert report["judged"] == 0 and engine.asked == [] and engine.chosen
    assert all(prompt.endswith("Review:") for prompt in engine.chosen)
    verdicts = [v for t in traces for e in t.expansions for v in e.robin.verdicts.values()]
    readable = sum(v.answer is not None for v in verdicts) / len(verdicts)
    assert report["verdicts"] == pytest.approx(readable)  # it reads what was unreadable, too


def test_explained_verdicts_choose_after_the_explanation_without_its_mark():
    def script(prompt, seed, k):
        return ("A is fine. [[B]] and more", "eos") if "one" in prompt else ("cut off", "length")

    engine = Choosing(script)
    calls = [Call(ASKED[0], (), f"Step 1: {word}.", "Step 1: x.") for word in ("one", "two")]
    found = judge_of(engine, verdict="explained").ask(calls)
    assert [v.answer for v in found] == ["B", "A"]  # the second has no mark of its own
    assert [prompt.split("Review:")[1] for prompt in engine.chosen] == [" A is fine.", " cut off"]
    assert found[0].tokens > 0


def test_a_prompt_without_room_for_a_mark_overflows():
    engine = Choosing(random_script(0))
    engine.choose = lambda prompts, options: [[float("-inf")] * 2 for _ in prompts]
    call = Call(ASKED[0], (), "Step 1: a.", "Step 1: b.")
    verdict = judge_of(engine, verdict="direct").ask([call])[0]
    assert (verdict.answer, verdict.finish) == (None, "overflow")


def test_votes_take_the_majority_of_their_own_draws():
    engine = Scripted(lambda prompt, seed, k: (f"[[{'AAB'[seed_of(seed) % 3]}]]", "eos"))
    call = Call(ASKED[0], (), "Step 1: a.", "Step 1: b.", (0, 0, 1))
    one = judge_of(engine, temperature=1.0).ask([call])[0]
    many = judge_of(engine, temperature=1.0, votes=25).ask([call])[0]
    assert many.answer == "A" and many.tokens == 25 * one.tokens
    assert len(engine.asked) == 26
    firsts = judge_of(engine, temperature=1.0, votes=2).ask([call])[0]
    assert firsts.answer in ("A", "B", None) and firsts.tokens == 2


def test_a_drawn_vote_is_no_verdict():
    state = iter("AB" * 50)
    engine = Scripted(lambda prompt, seed, k: (f"[[{next(state)}]]", "eos"))
    item = Item(ASKED[0], (), ("Step 1: a.", "Step 1: b."))
    robin = judge_of(engine, temperature=1.0, votes=2).rank([item])[0]
    assert robin.scores == (0, 0) and len(engine.asked) == 4


@pytest.mark.parametrize("change", [{"votes": 3}, {"votes": 3, "kind": "random"}])
def test_votes_that_can_only_be_equal_are_refused(change):
    with pytest.raises(PSRError, match=r"judge\.votes"):
        judge_of(Scripted(random_script(0)), **change)


def test_agreement_of_both_slots_is_a_win_and_a_disagreement_a_tie():
    table = {(0, 1): "A", (1, 0): "B", (0, 2): "A", (2, 0): "A", (1, 2): None, (2, 1): "B"}
    assert tally(3, "agreement", lambda i, j: table[i, j]) == (1, 0, 0)
