"""The facts of the paper: its averages and differences follow from its tables, or are listed."""

import re
from decimal import ROUND_HALF_UP, Decimal

import pytest

from psr_lib import facts
from psr_lib.facts import SETS
from psr_lib.records import PSRError

ROWS = {1: 19, 2: 4, 3: 2, 4: 8, 5: 2, 6: 2, 7: 8, 8: 8, 9: 4}


def number(text):
    return Decimal(text)


def mean(row):
    """The mean over the six benchmarks, rounded to a decimal as the paper prints it."""
    total = sum((number(row[name]) for name in SETS), Decimal())
    return (total / len(SETS)).quantize(Decimal("0.1"), ROUND_HALF_UP)


@pytest.mark.parametrize(("table", "rows"), ROWS.items())
def test_every_table_is_whole_and_every_value_a_number(table, rows):
    found = facts.table(table)
    assert len(found) == rows
    for row in found:
        assert all(number(v).is_finite() for k, v in row.items() if k not in facts.LABELS)


def test_printed_averages_of_table_1_are_the_means_of_their_rows():
    for row in facts.table(1):
        assert number(row["average"]) == mean(row), row


def test_table_2_is_m4_less_m1_of_each_method():
    for row in facts.table(2):
        labels = {"base": row["base"], "method": row["method"]}
        (first,), (last,) = (facts.select(1, model=m, **labels) for m in ("M1", "M4"))
        for name in SETS:
            assert number(row[name]) == number(last[name]) - number(first[name]), (labels, name)


def test_table_4_is_part_of_table_8():
    for row in facts.table(4):
        (whole,) = facts.select(8, measure=row["measure"], model=row["model"])
        assert all(number(row[name]) == number(whole[name]) for name in ("gsm8k", "math"))


def test_table_5_is_the_average_of_tables_1_and_9():
    for row in facts.table(5):
        (printed,) = facts.select(1, base="72B", method="psrlm", model=row["model"])
        assert row["greedy"] == printed["average"]
        (searched,) = facts.select(9, model=row["model"], decoding="search")
        assert number(row["search"]) == mean(searched)


def test_tables_1_and_9_disagree_just_where_it_is_listed():
    found = []
    for row in facts.select(9, decoding="greedy"):
        (first,) = facts.select(1, base="72B", method="psrlm", model=row["model"])
        found += [(first[k], row[k], row["model"]) for k in SETS if first[k] != row[k]]
    listed = [row for row in facts.contradictions() if row["kind"] == "tables"]
    assert sorted((r["first_says"], r["second_says"], r["about"].split()[1]) for r in listed) == (
        sorted(found)
    )
    assert all((r["first_place"], r["second_place"]) == ("table 1", "table 9") for r in listed)


def test_the_average_of_table_5_fits_table_1_and_not_table_9():
    (first,) = facts.select(9, model="M1", decoding="greedy")
    assert mean(first) != number(facts.look_up("5/72B/M1/greedy"))
    assert mean(first) == Decimal("55.8")


def test_a_contradiction_of_the_text_names_both_places():
    texts = {row["id"]: row for row in facts.contradictions() if row["kind"] == "text"}
    eft = texts["eft-train"]
    whole, test = (int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*", eft["why"]))
    assert eft["taken"] == eft["second_says"] == f"{whole - test:,}"
    assert all(row[k] for row in texts.values() for k in row)


def test_numbers_are_looked_up():
    assert facts.fill("from {3/7B/M0} to {3/7B/M1}, {9/72B/M1/search/math}") == (
        "from 57.2 to 92.8, 79.1"
    )
    for wrong in ("2/7B/psrlm", "2/7B/psrlm/maths", "2/8B/psrlm/math", "2/7B/math"):
        with pytest.raises(PSRError, match=r"table2\.csv"):
            facts.look_up(wrong)


def test_what_summaries_say_has_no_open_reference_left():
    rows = facts.secondary()
    assert len(rows) == 8 and not any("{" in value for row in rows for value in row.values())
    assert "+0.3 and +3.8" in rows[1]["paper"]


@pytest.mark.parametrize(
    ("claim", "error"),
    [
        ("{id: a, paper: p, effect: 1, conditions: []}", "claim a: no 'claim'; a claim needs id"),
        ("{id: a, claim: c, paper: p, effect: 2, conditions: [{quantity: q, above: 0}]}",
         "claim a: effect 2; give a condition, 1 to 1"),
        ("{id: a, claim: c, paper: p, effect: 1, conditions: [{quantity: q}]}",
         "claim a, condition 1: needs a quantity and one of above, below, between"),
        ("{id: a", "claims.yaml: .*restore it with git"),
    ],
)  # fmt: skip
def test_a_claim_that_cannot_be_tested_is_refused(tmp_path, monkeypatch, claim, error):
    monkeypatch.setattr(facts, "folder", lambda: tmp_path)
    (tmp_path / facts.CLAIMS).write_text(f"- {claim}\n", encoding="utf-8")
    with pytest.raises(PSRError, match=error):
        facts.claims()


def test_without_the_file_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "folder", lambda: tmp_path)
    with pytest.raises(PSRError, match="restore it with git"):
        facts.claims()


def test_claims_are_complete():
    found = facts.claims()
    assert len(found) == 10 and len({claim["id"] for claim in found}) == 10
    for claim in found:
        assert "{" not in claim["paper"] and 1 <= claim["effect"] <= len(claim["conditions"])
        for condition in claim["conditions"]:
            assert len({"above", "below", "between"} & set(condition)) == 1, condition
