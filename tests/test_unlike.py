"""Runs that are compared though their settings differ are named wherever a number leans on both."""

import pytest
from paper_run import settings, summary
from test_results import fake_run

from psr_lib import claims, integrity, ledger, manifest, more_tables, paper, results, unlike
from psr_lib.evidence import Evidence, sources
from psr_lib.records import read_json, write_json

COIN = {"judge.kind": "random"}.items()
BOTH = sources([("psrlm", "M4", "greedy"), ("random-judge", "M4", "greedy")])


def made(method="psrlm", seed=0, switched=(), **changed):
    rise = 0.12 if method == "psrlm" else 0.0
    return summary(method, seed, rise) | {"settings": settings(method, switched, **changed)}


def notes_of(evidence):
    return {one.name: " ".join(one.notes) for one in more_tables.make_all(evidence)}


def test_a_control_that_differs_in_its_switch_alone_is_not_named():
    found = Evidence([made(), made("random-judge", switched=COIN)])
    assert unlike.differing(found, BOTH) == {}
    assert not any("settings that differ" in text for text in notes_of(found).values())
    assert {one.unlike for one in claims.ledger(found)} == {""}


def test_a_setting_that_differs_is_named_under_what_leans_on_both():
    found = Evidence([made(search__width=4), made("random-judge", switched=COIN)])
    words = "settings that differ: search.width is 4 in psrlm, 6 in random-judge"
    told = notes_of(found)
    assert {name for name, text in told.items() if words in text} == {
        "table1", "table2", "table3", "controls", "budget"}  # fmt: skip
    (random,) = (one for one in claims.ledger(found) if one.id == "random")
    assert random.verdict == "inconclusive" and random.decides == "settings differ: search.width"
    kept = [one for one in claims.ledger(found) if one.id in ("rounds", "sft", "search")]
    assert {one.unlike for one in kept} == {""}, "psrlm alone, or psrlm and srlm"
    assert words in " ".join(ledger.table(claims.ledger(found), found).notes)
    rows = [{"method": "psrlm"}, {"method": "random-judge"}]
    assert paper.unlike_in(found, rows) == "; settings differ: search.width"
    assert paper.unlike_in(found, rows[:1]) == ""


def test_seeds_are_compared_among_themselves():
    seeds = [made(seed=k, **({"dpo__nll_weight": 5.0} if k == 2 else {})) for k in range(3)]
    text = notes_of(Evidence(seeds))["table2"]
    assert "dpo.nll_weight is 10.0 in psrlm (seed 0, 1), 5.0 in psrlm (seed 2)" in text
    found = Evidence(seeds)
    assert unlike.short(found, sources([("psrlm", "M1", "greedy")])) == "", "M1 came before it"


@pytest.mark.parametrize(
    ("changed", "what", "differ"),
    [
        ({"search__live": 9}, "greedy", False),  # a matter of speed
        ({"eval__max_tokens": 32}, "greedy", True),
        ({"eval__max_tokens": 32}, "judge", False),
    ],
)
def test_what_a_number_does_not_depend_on_is_not_named(changed, what, differ):
    found = Evidence([made(), made("random-judge", switched=COIN, **changed)])
    ends = sources([("psrlm", "M4", what), ("random-judge", "M4", what)])
    assert bool(unlike.differing(found, ends)) == differ


def test_summaries_without_settings_are_not_compared():
    found = Evidence([made(search__width=4), summary("random-judge")])
    assert unlike.differing(found, BOTH) == {}


def test_a_summary_keeps_what_each_stage_was_set_to_and_what_is_mixed(root):
    run, _ = fake_run(root / "runs")
    place = run.model("psrlm", 2) / manifest.NAME
    one = read_json(place) | {"params": {"seed": 0, "dpo": {"beta": 0.1}}}
    write_json(place, one)
    found = results.gather(run, "psrlm", 2)
    (dpo,) = (s for s in found["settings"]["stages"] if s["stage"] == "04_step_dpo")
    assert found["settings"]["values"]["dpo"][dpo["sections"]["dpo"]] == {"beta": 0.1}
    assert "seed" not in dpo["sections"] and found["mixed"] == []
    write_json(place, one | {"inputs": {"run:psrlm/M2/ppd/ppd.jsonl": {"hash": "older"}}})
    evidence, _ = paper.evidence_of(run, 2)
    (folder,) = integrity.mixed(run)
    assert folder == run.model("psrlm", 2) and evidence.all[0]["mixed"] == ["psrlm/M2/model"]
    words = "read other files than are there now (seed0/psrlm/M2/model); make verify names them"
    assert words in notes_of(evidence)["table1"]
