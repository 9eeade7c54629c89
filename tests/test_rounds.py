"""What the stage notebooks show and count, on hand-made searches."""

from types import SimpleNamespace

import pytest
from scripted import Scripted, questions, random_script

from psr_lib import problems, rounds
from psr_lib.engines.chat_server import Conversation
from psr_lib.methods import METHODS
from psr_lib.presets import load
from psr_lib.records import (
    JudgeExample,
    Problem,
    PSRError,
    Question,
    Rows,
    StepPair,
    read_jsonl,
    write_jsonl,
)
from psr_lib.robins import RoundRobin, Verdict
from psr_lib.traces import Candidate, Expansion, SearchTrace, search_stats

TEXT = "Tom has 47 pens. Tom buys 38 pens. Tom sells 5 pens. How many pens does Tom have?"
FIRST, LAST = problems.parse(TEXT).solution()
SIGN, SLIP = FIRST.replace("85", "75"), FIRST.replace("85", "95")
JUNK = "pens"


def candidate(text, valid=True):
    return Candidate(text, valid, final=False, finish="stop", tokens=3)


def expansion(candidates, verdicts, prefix=(), **decided):
    """An expansion whose verdicts are given by the places of the valid candidates."""
    valid = [c for c in candidates if c.valid]
    robin = RoundRobin((0,) * len(valid), {k: Verdict(v) for k, v in verdicts.items()}, 6, 5)
    counts = [sum(c.text == d.text for d in valid) if c.valid else 0 for c in candidates]
    return Expansion(
        depth=len(prefix) + 1, attempt=0, prefix=list(prefix), candidates=candidates,
        scores=[k if c.valid else None for k, c in enumerate(candidates)],
        multiplicity=counts, robin=robin, **decided,
    )  # fmt: skip


def trace(expansions, pairs=()):
    return SearchTrace(Question(id="q/0", text=TEXT), expansions=expansions, pairs=list(pairs))


def pair(chosen, rejected, prefix=()):
    return StepPair(id="q/0#1.0", problem_id="q/0", question=TEXT, prefix=list(prefix),
                    chosen=chosen, rejected=rejected, chosen_final=False,
                    rejected_final=False)  # fmt: skip


# The ill-formed candidate comes first, so verdict (0, 1) is about FIRST and SIGN.
SIBLINGS = [candidate(JUNK, valid=False), candidate(FIRST), candidate(SIGN), candidate(SLIP)]
VERDICTS = {(0, 1): "A", (1, 0): "A", (0, 2): None, (2, 0): "B", (1, 2): "A", (2, 1): "B"}


def test_oracle_counts_wrong_and_unreadable_verdicts_and_leaves_out_undecidable_ones():
    report = rounds.oracle_report([trace([expansion(SIBLINGS, VERDICTS)])])
    assert (report["siblings_n"], report["siblings_judge_accuracy"]) == (4, 2 / 4)
    assert report["siblings_decidable"] == 4 / 6


def test_oracle_judges_a_step_after_its_own_prefix():
    after = [candidate(LAST), candidate(LAST.replace("80", "70"))]
    right = trace([expansion(after, {(0, 1): "A", (1, 0): "B"}, prefix=[FIRST])])
    assert rounds.oracle_report([right])["siblings_judge_accuracy"] == 1.0
    misplaced = trace([expansion(after, {(0, 1): "A", (1, 0): "B"})])
    assert rounds.oracle_report([misplaced])["siblings_n"] == 0


def test_pairs_are_rated_by_the_oracle():
    pairs = [pair(FIRST, SIGN), pair(SIGN, FIRST), pair(SIGN, SLIP), pair(FIRST, FIRST)]
    pairs.append(pair(LAST, SIGN, prefix=[FIRST]))
    assert rounds.pair_report([trace([], pairs[:2]), trace([], pairs[2:])]) == {
        "chosen_right": 3 / 5, "rejected_right": 2 / 5,
        "ordered_right": 2 / 5, "ordered_wrong": 1 / 5,
    }  # fmt: skip


def test_reports_of_nothing_are_zero():
    assert set(rounds.oracle_report([]).values()) == {0}


def test_funnel_reads_the_counts_of_a_search():
    counts = search_stats([trace([expansion(SIBLINGS, VERDICTS)], [pair(FIRST, SIGN)])])
    found = {row["what"]: row["count"] for row in rounds.funnel(counts)}
    assert list(found.values()) == [1, 1, 4, 6, 5, 1]
    assert list(found)[3:] == ["ordered pairs (Eq. 2)", "verdicts asked for", "preference pairs"]


def test_training_story_tells_margins_for_dpo_and_loss_for_controls():
    dpo = [{"rewards/chosen": -1e-7, "rewards/rejected": 0.0, "loss": 0.693},
           {"rewards/chosen": 0.5, "rewards/rejected": -0.25, "loss": 0.5}]  # fmt: skip
    title, columns, _ = rounds.training_story(dpo)
    assert "from 0.000 to 0.750" in title and columns == ["rewards/chosen", "rewards/rejected"]
    title, columns, _ = rounds.training_story([{"loss": 1.0}, {"loss": 0.25}])
    assert "1.00 to 0.25" in title and columns == ["loss"]
    assert rounds.training_story(dpo[:1])[0] == "One update, at a reward margin of 0.000"
    assert rounds.training_story([{"loss": 1.0}])[0] == "One update, at a loss of 1.00"


def shot(k, better, words=1):
    return JudgeExample(id=f"eft/{k:03}", problem_id=f"p/{k}", question="word " * words, prefix=[],
                        step_a="a", step_b="b", better=better, explanation="why")  # fmt: skip


def stage_with(tmp_path, rows, shots):
    write_jsonl(tmp_path / "eft.jsonl", rows)
    evaluation = SimpleNamespace(judge_shots=shots)
    return SimpleNamespace(
        input=lambda name: tmp_path / "eft.jsonl", preset=SimpleNamespace(eval=evaluation)
    )


def test_shots_mix_the_labels_and_are_the_shortest_of_the_first_hundred(tmp_path):
    rows = [shot(k, "A", words=k + 2) for k in range(60)]
    rows += [shot(k, "B", words=k + 2) for k in range(60, 100)] + [shot(100, "B", words=1)]
    found = rounds.fixed_shots(stage_with(tmp_path, rows, 3))
    assert [row.id for row in found] == ["eft/000", "eft/060", "eft/001"]
    assert [row.better for row in found] == ["A", "B", "A"]
    assert rounds.fixed_shots(stage_with(tmp_path, rows, 0)) == []


@pytest.mark.parametrize(
    ("method", "more"), [("psrlm", r"search\.width"), ("srlm", r"srlm\.scores")]
)
def test_a_round_without_pairs_says_what_to_do(tmp_path, method, more):
    write_jsonl(tmp_path / "ppd.jsonl", [])
    stage = SimpleNamespace(
        preset=load("smoke"), iteration=3, method=method, pairs=lambda: tmp_path / "ppd.jsonl"
    )
    with pytest.raises(PSRError, match=rf"round 3: .*no pairs.*{more}, search\.temp") as error:
        rounds.train_round(stage)
    assert "\n" not in str(error.value)


def searching(tmp_path, counts):
    """What a search needs of its stage, in an empty folder."""
    return SimpleNamespace(
        preset=load("smoke"), seed=0, folder=tmp_path, made_from={}, tokens=lambda **n: None,
        scratch=lambda name: tmp_path / f"{name}.part", output=lambda name: tmp_path / name,
        count=counts.update,
    )  # fmt: skip


def scripted(table):
    engine = Scripted(random_script(table))
    engine.tokenizer = None
    return engine


def test_a_search_round_writes_pairs_and_traces_and_goes_on_where_it_was(tmp_path):
    write_jsonl(tmp_path / "q.jsonl", questions(30, 2))
    asked, counts = Rows(tmp_path / "q.jsonl", Question), {}
    stage = searching(tmp_path, counts)
    traces = rounds.search_round(stage, asked, scripted(2))
    pairs = read_jsonl(tmp_path / "ppd.jsonl", StepPair)
    assert len(traces) == counts["problems"] == 30 and len(pairs) == counts["pairs"] > 0
    assert [p for t in traces for p in t.pairs] == pairs
    before, again = (tmp_path / "ppd.jsonl").read_bytes(), scripted(2)
    rounds.search_round(stage, asked, again)
    assert again.batches == 0 and (tmp_path / "ppd.jsonl").read_bytes() == before
    journal = tmp_path / "traces.jsonl.gz.part"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:10]))
    rounds.search_round(stage, asked, again)
    assert again.batches > 0 and (tmp_path / "ppd.jsonl").read_bytes() == before


def test_a_test_time_search_writes_answers_with_their_costs(tmp_path):
    problem = [Problem(id=q.id, source="t", question=q.text, answer="2") for q in questions(6, 2)]
    rows = rounds.search_benchmarks(searching(tmp_path, {}), scripted(2), {"easy": problem})
    assert read_jsonl(tmp_path / "search_answers.jsonl.gz") == rows and len(rows) == 4
    assert all(r["tokens"] == r["generated"] + r["judged"] > 0 and r["prefill"] > 0 for r in rows)
    assert len(read_jsonl(tmp_path / "search_traces.jsonl.gz")) == 4
    assert (tmp_path / "search_accuracy.csv").is_file()


@pytest.mark.parametrize("method", sorted(METHODS))
def test_psrlm_alone_has_a_test_time_search(method):
    stage = SimpleNamespace(preset=load("tiny"), method=method, iteration=4)
    assert rounds.searches(stage) == (method == "psrlm")
    stage.iteration = 2
    assert not rounds.searches(stage)


def test_problems_are_solved_with_a_template_of_another_name():
    engine = Scripted(lambda prompt, *_: ("Step 1: so \\boxed{7}.", "stop"))
    engine.tokenizer = Conversation()
    stage = SimpleNamespace(preset=load("smoke"), tokens=lambda **_: None)
    sets = {"easy": [Problem(id="easy/0", source="t", question="3 + 4?", answer="7")]}
    for name in ("", "qwen"):
        (row,) = rounds.solve(stage, engine, sets, name)
        assert row["strict"]
    plain, own = engine.asked
    assert "reason step by step" in own and "reason step by step" not in plain
