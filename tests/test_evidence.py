"""What the evidence gives to tables and claims: the right problems, seeds, methods, or NotRun."""

import numpy as np
import pytest
from paper_run import SETS, evidence, summary

from psr_lib import seeds
from psr_lib.evidence import GREEDY, JUDGE, PAIRS, STEPS, TOKENS, Evidence, NotRun
from psr_lib.memory import Memory
from psr_lib.stats import wilson

OURS = ("psrlm", "M4", GREEDY)


def right(one, model, name):
    return [int(c) for c in one["models"][model]["outcomes"][name]]


def test_levels_are_means_over_problems_benchmarks_and_seeds():
    made = [summary(seed=0), summary(seed=1)]
    found = Evidence(made)
    means = [np.mean([right(one, 4, name) for name in SETS]) for one in made]
    level = found.share(OURS)
    assert level.value == pytest.approx(100 * np.mean(means))
    assert level.per_seed == pytest.approx([100 * m for m in means])
    assert level.over == seeds.GIVEN and level.low < level.value < level.high
    only = found.share(OURS, ("hard",))
    assert only.value == pytest.approx(100 * np.mean([right(one, 4, "hard") for one in made]))


def test_changes_are_paired_by_problem_and_seed():
    made = [summary(seed=0), summary(seed=1)]
    found = Evidence(made).change(("psrlm", "M1", GREEDY), OURS)
    plain = [np.mean([np.mean(np.subtract(right(o, 4, n), right(o, 1, n))) for n in SETS])
             for o in made]  # fmt: skip
    assert found.per_seed == pytest.approx([100 * x for x in plain])


def test_a_comparison_takes_the_seeds_that_have_both():
    found = Evidence([summary(seed=0), summary(seed=1), summary("random-judge", seed=1)])
    lead = found.change(("random-judge", "M4", GREEDY), OURS)
    assert len(lead.per_seed) == 1 and lead.over == seeds.ONE
    assert len(found.share(OURS).per_seed) == 2


def test_search_is_compared_on_the_problems_it_was_given():
    one = summary()
    found = Evidence([one])
    data = found.data([("psrlm", "M4", GREEDY), ("psrlm", "M4", "search")])
    assert {name: v.shape for name, v in data.items()} == {name: (2, 1, 10) for name in SETS}
    asked = one["models"][4]["decodings"]["search"]["outcomes"]["hard"]
    assert data["hard"][1, 0].tolist() == [float(c) for c in asked if c != "-"]
    assert data["hard"][0, 0].tolist() == right(one, 4, "hard")[:10]


def test_judge_and_steps_have_their_own_data():
    found = evidence()
    assert list(found.data([("psrlm", "M1", JUDGE)])) == [PAIRS]
    number, tokens = ("psrlm", "M1", STEPS), ("psrlm", "M1", TOKENS)
    length = found.estimate(seeds.ratio, [tokens, number], factor=1)
    assert length.value == pytest.approx(10)  # each step was given ten tokens
    whole = found.estimate(seeds.first, [tokens], factor=1).value
    assert whole == pytest.approx(10 * found.estimate(seeds.first, [number], factor=1).value)


@pytest.mark.parametrize(
    "ask",
    [
        lambda e: e.share(("srlm", "M1", GREEDY)),
        lambda e: e.share(("psrlm", "M5", GREEDY)),
        lambda e: e.share(("psrlm", "M2", "search")),
        lambda e: e.share(OURS, ("math",)),
        lambda e: e.change(("gold-judge", "M4", GREEDY), OURS),
        lambda e: e.counts("psrlm", "03_search_judge", 9),
        lambda e: e.laboratory("pairwise", "consistency"),
        lambda e: e.measured("psrlm", "M1", "judge", "mood"),
    ],
)
def test_what_was_not_measured_is_not_run(ask):
    with pytest.raises(NotRun):
        ask(evidence())


def test_steps_that_were_not_counted_are_not_run():
    with pytest.raises(NotRun, match="steps"):
        evidence(steps=False).data([("psrlm", "M1", STEPS)])


def test_runs_of_other_sizes_are_not_compared():
    short = summary(seed=1)
    for one in short["models"]:
        one["outcomes"] = {name: bits[:-1] for name, bits in one["outcomes"].items()}
    with pytest.raises(NotRun, match="same problems"):
        Evidence([summary(), short]).share(OURS)


def test_p_values_take_all_problems_alike():
    found = evidence()
    pair = found.data([("random-judge", "M4", GREEDY), OURS])
    before, after = (np.concatenate([v[k] for v in pair.values()], axis=1) for k in (0, 1))
    assert found.p_value(("random-judge", "M4", GREEDY), OURS) == pytest.approx(
        seeds.sign_test(before, after)
    )


def lab_row(strategy, value, model="M1", judge="itself", items=100):
    low, high = wilson(round(value * items), items)
    return {"model": model, "judge": judge, "strategy": strategy, "n": items,
            "consistency": value, "consistency_low": low, "consistency_high": high}  # fmt: skip


def test_the_laboratorys_shares_are_those_of_the_models_under_test():
    made = [summary(seed=k) for k in (0, 1)] + [summary("srlm", seed=k) for k in (0, 1)]
    for one, value in zip(made, (0.8, 0.6, 0.4, 0.2), strict=True):
        kind = "scoring" if one["method"] == "srlm" else "pairwise"
        one["laboratory"] = [lab_row(kind, 0.1, judge="first"), lab_row(kind, 0.99, "M2"),
                             lab_row(kind, value), lab_row(kind, 0.5)]  # fmt: skip
    found = Evidence(made)
    pairwise = found.laboratory("pairwise", "consistency")
    assert pairwise.value == pytest.approx(0.7) and pairwise.per_seed == (0.8, 0.6)
    less = found.laboratory_difference("consistency")
    assert less.value == pytest.approx(40) and less.low < 40 < less.high
    api = summary("reference") | {"laboratory": [lab_row("pairwise", 0.9, "any name")]}
    assert Evidence([*made, api]).laboratory("pairwise", "consistency").value == 0.9
    with pytest.raises(NotRun):
        found.laboratory("pairwise", "agreement")


def test_both_measures_of_table_6_are_of_the_same_items():
    agreed = {"agreement": 0.6, "agreement_low": 0.5, "agreement_high": 0.7}
    known = {"items": "held-out solutions", "labels": "teacher"}
    rows = [lab_row("scoring", 0.9) | {"items": "own solutions", "labels": "gold answer"},
            lab_row("scoring", 0.3) | agreed | known]  # fmt: skip
    found = Evidence([summary("srlm") | {"laboratory": rows}])
    assert found.laboratory("scoring", "consistency").value == 0.3
    assert found.laboratory("scoring", "agreement").value == 0.6
    assert found.laboratory_items("scoring") == "held-out solutions (right by teacher)"
    assert found.laboratory_items("pairwise") == ""
    alone = Evidence([summary("srlm") | {"laboratory": rows[:1]}])
    assert alone.laboratory("scoring", "consistency").value == 0.9, "better than nothing"
    with pytest.raises(NotRun):
        alone.laboratory("scoring", "agreement")


def test_methods_stand_in_the_papers_order_and_models_by_number():
    found = evidence(("ift-more", "srlm", "psrlm"))
    assert found.methods == ["psrlm", "srlm", "ift-more"]
    assert found.models("psrlm") == [f"M{n}" for n in range(5)]
    assert found.sets == list(SETS)


def test_estimates_are_remembered_by_what_they_are_made_of(tmp_path):
    path = tmp_path / "memory" / "paper.json"
    memory = Memory(path)
    first = Evidence([summary()], memory).share(OURS)
    assert memory.made == 1
    memory.close()
    again = Memory(path)
    assert Evidence([summary()], again).share(OURS) == first and again.made == 0
    changed = summary()
    outcome = changed["models"][4]["outcomes"]
    outcome["easy"] = outcome["easy"].translate(str.maketrans("01", "10"))
    assert Evidence([changed], again).share(OURS) != first and again.made == 1


def test_a_damaged_memory_is_made_again(tmp_path):
    path = tmp_path / "paper.json"
    path.write_text("{")
    memory = Memory(path)
    assert memory.get("a", lambda: 1) == 1 and memory.made == 1
    memory.close()
    later = Memory(path)
    assert later.get("a", lambda: 2) == 1
    later.close()
    assert Memory(path).get("b", lambda: 3) == 3
