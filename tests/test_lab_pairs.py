"""Pairwise judging in both orders: every rate against a table made by hand, and the null judges."""

import pytest
from scripted import questions

from psr_lib.lab_pairs import (
    NULLS,
    PairRow,
    flipped,
    null_rows,
    pair_rows,
    pair_shares,
    search_ties,
    sibling_rows,
)
from psr_lib.records import JudgeExample
from psr_lib.robins import RoundRobin, Verdict
from psr_lib.stats import wilson
from psr_lib.traces import Candidate, Expansion, SearchTrace

# problem, better, verdict on (a, b), verdict on (b, a)     who wins: first order, then swapped
TABLE = [
    ("p0", "A", "A", "B"),  # a, a: consistent, right twice
    ("p1", "B", "A", "A"),  # a, b: the first slot both times, a tie
    ("p2", "A", "B", "A"),  # b, b: consistent, wrong twice
    ("p3", "B", "B", None),  # b, -: one unreadable, right once
    ("p4", "A", None, None),  # unreadable twice
    ("p5", "B", "B", "A"),  # b, b: consistent, right twice
    ("p6", None, "B", "B"),  # b, a: a tie, and no label says who is right
]
EXPECTED = {
    "agreement": (2 + 1 + 0 + 1 + 0 + 2) / 12,
    "strict": 2 / 6,
    "consistency": 3 / 7,
    "first_position": 5 / 11,
    "unreadable": 3 / 14,
    "ties": 2 / 7,
}


def rows(table=TABLE):
    return [
        PairRow(id=f"r/{k}", problem_id=problem, source="s", a="Step 1: a.", b="Step 1: longer.",
                better=better, forward=one, swapped=two)
        for k, (problem, better, one, two) in enumerate(table)
    ]  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_each_rate_is_that_of_the_hand_made_table(name):
    found = pair_shares(rows())[name]
    assert found.value == pytest.approx(EXPECTED[name])
    assert found.low < found.value < found.high


def test_all_rates_are_in_the_table_and_sizes_are_told():
    found = pair_shares(rows())
    assert set(found) == set(EXPECTED)
    sizes = {name: (share.n, share.problems) for name, share in found.items()}
    assert sizes["agreement"] == (12, 6) and sizes["strict"] == (6, 6)
    assert sizes["first_position"] == (11, 6) and sizes["unreadable"] == (14, 7)
    assert (found["strict"].low, found["strict"].high) == wilson(2, 6)


def test_agreement_gives_a_tie_half_a_point():
    readable = [row for row in rows() if None not in (row.forward, row.swapped) and row.better]
    found = pair_shares(readable)
    whole = [1 if row.consistent and row.right == 2 else 0.5 if row.tied else 0 for row in readable]
    assert found["agreement"].value == sum(whole) / len(whole) == 2.5 / 4


def test_nothing_to_measure_is_none():
    assert {share.value for share in pair_shares([]).values()} == {None}
    unlabelled = pair_shares(rows(TABLE[6:]))
    assert unlabelled["agreement"].value is None and unlabelled["ties"].value == 1


def null(name):
    return pair_shares(null_rows(rows(TABLE[:6]), name))


def test_the_first_slot_is_never_consistent_and_right_half_the_time():
    found = null("first")
    assert (found["agreement"].value, found["consistency"].value) == (0.5, 0)
    assert found["first_position"].value == found["ties"].value == 1


def test_length_alone_is_consistent_and_right_where_the_label_is_the_longer():
    longer, shorter = null("longer"), null("shorter")  # b is the longer one, right in p1, p3, p5
    assert longer["agreement"].value == shorter["agreement"].value == 0.5
    assert longer["consistency"].value == shorter["consistency"].value == 1
    biased = rows([TABLE[1], TABLE[3], TABLE[5]])
    assert pair_shares(null_rows(biased, "longer"))["agreement"].value == 1
    assert pair_shares(null_rows(biased, "shorter"))["agreement"].value == 0
    assert all(row.forward == "B" and row.swapped == "A" for row in null_rows(biased, "longer"))


def test_a_coin_is_right_and_consistent_half_the_time_and_the_same_twice():
    many = [row for k in range(300) for row in rows([(f"p{k}", "AB"[k % 2], None, None)])]
    many = [PairRow(**{**vars(row), "id": f"{k}"}) for k, row in enumerate(many)]
    found = pair_shares(null_rows(many, "random"))
    for name in ("agreement", "consistency", "first_position"):
        assert 0.4 < found[name].value < 0.6, name
    assert null_rows(many, "random") == null_rows(many, "random")


def test_null_judges_never_are_unreadable():
    assert {null(name)["unreadable"].value for name in NULLS} == {0}


EXAMPLE = JudgeExample(
    id="e/0", problem_id="p", question="q?", prefix=["Step 1: x."], step_a="a", step_b="b",
    better="A", explanation="", meta={"source": "people"},
)  # fmt: skip


def test_examples_become_rows_with_their_source():
    (row,) = pair_rows([EXAMPLE], ["A"], ["A"])
    assert (row.source, row.better, row.winners, row.tied) == ("people", "A", ("A", "B"), True)
    assert pair_rows([EXAMPLE], ["A"], [None], source="held-out")[0].source == "held-out"
    with pytest.raises(ValueError, match="shorter"):
        pair_rows([EXAMPLE], ["A"], [])


def test_a_flipped_pair_has_the_same_better_step_in_the_other_slot():
    other = flipped(EXAMPLE)
    assert (other.step_a, other.step_b, other.better) == ("b", "a", "B")
    assert flipped(other) == EXAMPLE


def expansion(texts, verdicts, tie=False, valid=None):
    valid = valid or [True] * len(texts)
    candidates = [Candidate(t, v, False, "stop", 3) for t, v in zip(texts, valid, strict=True)]
    robin = RoundRobin((0,) * sum(valid), {k: Verdict(v) for k, v in verdicts.items()}, 6, 5)
    return Expansion(depth=1, attempt=0, prefix=[], candidates=candidates, robin=robin, tie=tie,
                     scores=[0] * len(texts), multiplicity=[1] * len(texts))  # fmt: skip


def traces():
    """One question; the ill-formed candidate comes first and two texts are equal."""
    texts = ["junk", "Step 1: x.", "Step 1: y.", "Step 1: y."]
    verdicts = {(0, 1): "A", (1, 0): "A", (1, 1): "B", (0, 2): "A", (2, 0): None, (1, 2): "A",
                (2, 1): "A"}  # fmt: skip
    first = expansion(texts, verdicts, valid=[False, True, True, True])
    one_order = expansion(["Step 1: x.", "Step 1: y."], {(0, 1): "B"}, tie=True)
    question = questions(2)
    return [SearchTrace(question[0], expansions=[first, one_order]),
            SearchTrace(question[1], expansions=[one_order])]  # fmt: skip


def test_siblings_are_unequal_texts_that_were_asked_in_both_orders():
    found = sibling_rows(traces(), "own", lambda q, prefix, a, b: "A" if a.endswith("x.") else "B")
    assert [(row.a, row.b, row.forward, row.swapped) for row in found] == [
        ("Step 1: x.", "Step 1: y.", "A", "A"), ("Step 1: x.", "Step 1: y.", "A", None),
    ]  # fmt: skip
    assert [row.better for row in found] == ["A", "A"] and len({row.id for row in found}) == 2
    assert pair_shares(found)["agreement"].value == 2 / 4
    assert [row.better for row in sibling_rows(traces(), "own")] == [None, None]


def test_ties_of_a_search_are_those_of_its_expansions():
    found = search_ties(traces())
    assert found.value == pytest.approx(2 / 3) and (found.n, found.problems) == (3, 2)
