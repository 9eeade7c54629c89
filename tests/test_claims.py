"""The claim ledger: regions, verdicts, and each quantity against a plain computation."""

import numpy as np
import pytest
from paper_run import SETS, evidence, settings, summary

from psr_lib import claims, facts, ledger, tables
from psr_lib.claims import FAILS, HOLDS, MISSING, OPEN
from psr_lib.evidence import Evidence
from psr_lib.records import PSRError
from psr_lib.seeds import Estimate


def estimate(low, high):
    return Estimate((low + high) / 2, low, high, (0.0,), 10, "problems")


@pytest.mark.parametrize(
    ("condition", "interval", "state"),
    [
        ({"above": 0}, (0.1, 2), HOLDS), ({"above": 0}, (-1, 2), OPEN),
        ({"above": 0}, (-2, 0), FAILS), ({"above": 0}, (0, 2), OPEN),
        ({"below": 0}, (-3, -1), HOLDS), ({"below": 0}, (0, 1), FAILS),
        ({"between": [-2, 2]}, (-1.9, 1.9), HOLDS), ({"between": [-2, 2]}, (1, 3), OPEN),
        ({"between": [-2, 2]}, (2.1, 3), FAILS), ({"between": [-2, 2]}, (-9, -2), FAILS),
        ({"between": [-2, 2]}, (-9, 9), OPEN),
    ],
)  # fmt: skip
def test_a_region_holds_fails_or_is_open(condition, interval, state):
    assert claims.state(estimate(*interval), *claims.region(condition)) == state


@pytest.mark.parametrize(
    ("states", "verdict"),
    [
        ([HOLDS, HOLDS], "replicated"), ([HOLDS, OPEN], "inconclusive"),
        ([HOLDS, FAILS], "not replicated"), ([MISSING, HOLDS], "not run"),
        ([MISSING, OPEN], "not run"), ([MISSING, FAILS], "not replicated"),
    ],
)  # fmt: skip
def test_all_conditions_make_the_verdict(states, verdict):
    assert claims.verdict(states) == verdict


def by_id(found):
    return {one.id: one for one in claims.ledger(found)}


def test_the_ledger_of_a_run_that_rises():
    found = by_id(evidence(("psrlm", "srlm", "random-judge"), seeds=(0, 1, 2)))
    assert len(found) == len(facts.claims())
    assert found["random"].verdict == "replicated"
    assert found["random"].effect.found.low > 0
    assert [one.state for one in found["steps"].checked] == [HOLDS] * 7
    assert found["steps"].verdict == "replicated"
    assert found["pairwise"].verdict == "not run"
    assert found["pairwise"].decides.startswith("needs the judge laboratory's consistency")
    assert found["sft-level"].verdict == "not applicable"
    assert found["rounds"].checked[-1].what == "accuracy change M1 → M4 more than srlm on average"


def test_one_condition_that_fails_settles_a_claim():
    one = summary()
    for name, text in one["models"][4]["step_tokens"].items():
        one["models"][4]["step_tokens"][name] = " ".join(str(int(x) // 2) for x in text.split())
    steps = by_id(Evidence([one]))["steps"]
    assert steps.verdict == "not replicated"
    assert "total length change M1 → M4 on average fails" in steps.decides


def test_without_any_run_nothing_is_claimed():
    for one in claims.ledger(Evidence([])):
        assert one.verdict in ("not run", "not applicable"), one
        assert one.verdict != "not run" or one.decides.startswith("needs ")


def test_quantities_against_plain_numbers():
    made = {m: summary(m, rise=0.12 if m == "psrlm" else 0.0) for m in ("psrlm", "srlm")}
    right = {(m, n, name): np.array([int(c) for c in one["models"][n]["outcomes"][name]])
             for m, one in made.items() for n in range(5) for name in SETS}  # fmt: skip
    rise = {m: np.mean([(right[m, 4, k] - right[m, 1, k]).mean() for k in SETS]) for m in made}
    found = Evidence(made.values())
    more = claims.check({"quantity": "accuracy_change", "from": "M1", "to": "M4", "than": "srlm",
                         "sets": "all", "above": 0}, found)[0]  # fmt: skip
    assert more.found.value == pytest.approx(100 * (rise["psrlm"] - rise["srlm"]))
    lead = claims.check({"quantity": "accuracy_lead", "model": "M4", "over": "srlm", "sets": "all",
                         "above": 0}, found)[0]  # fmt: skip
    plain = np.mean([(right["psrlm", 4, k] - right["srlm", 4, k]).mean() for k in SETS])
    assert lead.found.value == pytest.approx(100 * plain)
    asked = made["psrlm"]["models"][1]["decodings"]["search"]["outcomes"]
    gain = claims.check(
        {"quantity": "search_gain", "model": "M1", "sets": "all", "above": 0}, found
    )
    plain = np.mean([np.mean([int(c) for c in asked[k][:10]]) - right["psrlm", 1, k][:10].mean()
                     for k in SETS])  # fmt: skip
    assert gain[0].found.value == pytest.approx(100 * plain)


def test_step_quantities_against_plain_numbers():
    one = summary()
    numbers = {n: {k: [int(x) for x in one["models"][n]["steps"][k].split()] for k in SETS}
               for n in (1, 4)}  # fmt: skip
    tokens = {n: {k: [int(x) for x in one["models"][n]["step_tokens"][k].split()] for k in SETS}
              for n in (1, 4)}  # fmt: skip

    def value(quantity):
        condition = {"quantity": quantity, "from": "M1", "to": "M4", "sets": "all", "above": 0}
        return claims.check(condition, Evidence([one]))[0].found.value

    assert value("step_number_change") == pytest.approx(
        np.mean([np.mean(numbers[4][k]) - np.mean(numbers[1][k]) for k in SETS])
    )
    assert value("step_length_change") == pytest.approx(np.mean(
        [sum(tokens[4][k]) / sum(numbers[4][k]) - sum(tokens[1][k]) / sum(numbers[1][k])
         for k in SETS]))  # fmt: skip
    assert value("total_length_change") == pytest.approx(
        np.mean([100 * (sum(tokens[4][k]) / sum(tokens[1][k]) - 1) for k in SETS])
    )


def test_each_benchmark_is_a_condition_and_named_sets_need_to_be_there():
    condition = {"quantity": "accuracy_change", "from": "M0", "to": "M1", "above": 0}
    found = claims.check({**condition, "sets": "each"}, evidence())
    assert [one.what.rpartition(" ")[2] for one in found] == list(SETS)
    named = claims.check({**condition, "sets": ["hard"]}, evidence())[0]
    assert named.what.endswith("on hard")
    assert claims.check({**condition, "sets": ["math"]}, evidence())[0].what.endswith("on average")


def test_a_claim_about_one_base_model_is_tested_on_it_alone():
    (level,) = (claim for claim in facts.claims() if claim["id"] == "sft-level")
    sets = ("math", "gsm8k")
    other, right = summary(sets=sets), summary(sets=sets)
    right["base"] = "Qwen/Qwen2.5-Math-7B"
    assert claims.judge(level, Evidence([other])).verdict == "not applicable"
    assert claims.judge(level, Evidence([right])).verdict == "not replicated"  # 35 % is not 69.6


def test_a_run_that_replays_judge_data_does_not_test_the_claim_without():
    kept = [by_id(Evidence([summary() | {"settings": settings("psrlm", dpo__replay=value)}]))
            for value in (0.0, 0.5)]  # fmt: skip
    assert kept[0]["judge-kept"].verdict == by_id(evidence(("psrlm",)))["judge-kept"].verdict
    one = kept[1]["judge-kept"]
    assert one.verdict == "not applicable" and one.decides == "dpo.replay is 0.5"
    assert kept[1]["judge"].verdict == kept[0]["judge"].verdict


def test_the_ledger_says_which_claims_pool_benchmarks():
    found = evidence(("psrlm",), sets=facts.SETS)
    notes = ledger.table(claims.ledger(found), found).notes
    told = {note.partition(":")[0]: note for note in notes if "Pooled" in note}
    assert "the mean over gsm8k and math, each counted alike" in told["search"]
    assert "judge" not in told


def test_an_unknown_quantity_is_named():
    with pytest.raises(PSRError, match="no quantity 'luck'"):
        claims.check({"quantity": "luck", "above": 0}, evidence())


def test_the_ledger_as_tables():
    made = evidence(seeds=(0, 1))
    found = claims.ledger(made)
    lines = ledger.short(found).splitlines()
    assert len(lines) == 2 + len(found) and all(line.count("|") == 7 for line in lines)
    random = next(line for line in lines if "tosses a coin" in line)
    effect = found[-1].effect.found
    assert f"{effect.value:+.1f} points" in random and "**replicated**" in random
    table = ledger.table(found, made)
    assert len(table.panels[0].rows) == sum(max(1, len(one.checked)) for one in found)
    assert "not run" in tables.markdown(table)
