"""Tables: their numbers, their marks of what was not run, and their three written forms."""

import re

import pytest
from paper_run import SETS, evidence, summary

from psr_lib import facts, more_tables, paper_tables, tables
from psr_lib.evaluation import read_csv
from psr_lib.evidence import Evidence
from psr_lib.tables import RUN, Cell, Panel, Table

NAMES = [f"table{n}" for n in range(1, 10)] + ["controls", "judge", "budget"]


def panel(table, source=RUN):
    return next(one for one in table.panels if one.source == source)


def line(table, *labels, source=RUN):
    """The cells of a row by column."""
    made = panel(table, source)
    for row in made.rows:
        if tuple(cell.shown.strip() for cell in row[: made.labels]) == labels:
            return dict(zip(made.header, row, strict=True))
    raise AssertionError(f"no row {labels}")


def made(found):
    return {table.name: table for table in more_tables.make_all(found)}


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        (Cell(1.25, 1.0, 1.5), "1.2 [1.0, 1.5]"), (Cell(), "not run"), (Cell(text="x"), "x"),
        (Cell(2.0, 1.0, 3.0, signed=True), "+2.0 [+1.0, +3.0]"),
        (Cell(-2.0, -3.0, -0.01, signed=True), "−2.0 [−3.0, 0.0]"),
        (Cell(-0.04), "0.0"), (Cell(0.5, digits=2), "0.50"),
    ],
)  # fmt: skip
def test_a_cell_as_text(cell, shown):
    assert tables._plain(cell).replace(tables.NO_BREAK, " ") == shown


def test_a_line_does_not_end_inside_an_interval():
    text = tables._plain(Cell(2.0, 1.0, 3.0))
    assert text.split(" ") == ["2.0", f"[1.0,{tables.NO_BREAK}3.0]"]
    assert tables._plain(Cell(text="< 0.001")) == f"<{tables.NO_BREAK}0.001"
    assert tables._plain(Cell(text="API model")) == "API model"


def test_an_empty_run_has_every_table_and_no_number():
    found = made(Evidence([]))
    assert list(found) == NAMES
    for table in found.values():
        assert not table.run and "not run" in tables.markdown(table), table.name
        assert all(cell.value is None for row in panel(table).rows for cell in row)


def test_a_finished_run_fills_every_table_but_the_laboratorys():
    found = made(evidence(seeds=(0, 1)))
    assert [name for name, table in found.items() if not table.run] == ["table6"]


def test_table_1_holds_the_accuracies_and_the_papers_averages_beside_them():
    one = summary()
    row = line(made(Evidence([one]))["table1"], "psrlm", "M4")
    assert row["hard"].value == pytest.approx(100 * one["models"][4]["accuracy"]["hard"])
    assert row["Avg."].value == pytest.approx(100 * one["models"][4]["accuracy"]["mean"])
    assert row["hard"].low < row["hard"].value < row["hard"].high
    assert row["paper 7B Avg."].shown == facts.look_up("1/7B/psrlm/M4/average")
    missing = line(made(Evidence([one]))["table1"], "srlm", "M2")
    assert {missing[name].shown for name in (*SETS, "Avg.")} == {"not run"}
    assert missing["paper 72B Avg."].shown == facts.look_up("1/72B/srlm/M2/average")


def test_a_control_shares_m1_and_so_starts_at_m2():
    rows = panel(made(evidence())["table1"]).rows
    names = [(row[0].shown.strip(), row[1].shown) for row in rows]
    assert ("random-judge", "M2") in names and ("random-judge", "M1") not in names
    assert ("", "M0") in names


def test_on_the_papers_benchmarks_its_rows_stand_below_ours():
    found = made(evidence(("psrlm",), sets=facts.SETS))
    table = found["table1"]
    assert len(table.panels) == 1 and "paper 7B Avg." not in panel(table).header
    row = line(table, "psrlm", "M4 (paper 7B)")
    assert row["math"].shown == "73.3" and row["Avg."].shown == "55.7"
    places = [tuple(c.shown.strip() for c in row[:2]) for row in panel(table).rows]
    assert places.index(("psrlm", "M4 (paper 72B)")) == places.index(("psrlm", "M4")) + 2
    change = line(found["table2"], "psrlm (paper 7B)")
    assert change["math"].shown == "+3.8" and change["p"].shown.strip() == ""
    assert line(found["table7"], "number", "M1 (paper 7B)")["math"].shown == "9.35"
    assert line(found["table4"], "number", "M1")["math"].value is not None
    assert line(found["table9"], "M1", "search (paper 72B)")["math"].shown == "79.1"


def test_table_2_is_the_paired_change_with_its_p_value():
    found = evidence()
    row = line(made(found)["table2"], "psrlm")
    change = found.change(("psrlm", "M1", "greedy"), ("psrlm", "M4", "greedy"))
    assert row["Avg."].value == pytest.approx(change.value) and row["Avg."].shown[0] in "+−"
    p = found.p_value(("psrlm", "M1", "greedy"), ("psrlm", "M4", "greedy"))
    assert row["p"].shown == (f"{p:.3f}" if p >= 0.001 else "< 0.001")


def test_the_note_says_whose_seeds_a_number_has():
    one, three = summary("srlm", seed=0), [summary(seed=k) for k in range(3)]
    assert paper_tables.whose(Evidence([])) == "no run yet"
    assert paper_tables.whose(Evidence([one])) == "seed 0; 95 % intervals over problems"
    alike = paper_tables.whose(Evidence(three))
    assert alike == "seeds 0, 1, 2; 95 % intervals over problems, given these seeds"
    mixed = paper_tables.whose(Evidence([one, *three]))
    assert "psrlm: seeds 0, 1, 2" in mixed and "srlm: seed 0" in mixed and "a cell has" in mixed


def test_without_a_round_table_2_is_not_run():
    one = summary(rounds=1)
    one["models"] = one["models"][:2]
    table = made(Evidence([one]))["table2"]
    assert not table.run and line(table, "psrlm")["p"].shown == "not run"
    two = summary("srlm")
    two["models"] = two["models"][:3]
    table = made(Evidence([one, two]))["table2"]
    assert table.run and line(table, "srlm")["last"].shown == "M2"


def test_table_5_takes_the_problems_of_the_search():
    one = summary()
    row = line(made(Evidence([one]))["table5"], "M1")
    asked = one["models"][1]["decodings"]["search"]["outcomes"]
    right = [asked[name][:10].count("1") / 10 for name in SETS]
    assert row["step search"].value == pytest.approx(100 * sum(right) / 2)
    greedy = [one["models"][1]["outcomes"][name][:10].count("1") / 10 for name in SETS]
    assert row["greedy"].value == pytest.approx(100 * sum(greedy) / 2)
    assert row["best of N"].shown == row["majority"].shown == "not run"
    gain = row["search − greedy"]
    assert gain.value == pytest.approx(row["step search"].value - row["greedy"].value)


def test_a_way_of_decoding_that_a_run_has_gets_its_column():
    one = summary()
    for k in (1, 4):
        one["models"][k]["decodings"]["beam"] = one["models"][k]["decodings"]["search"]
    row = line(made(Evidence([one]))["table5"], "M4")
    assert row["beam"].value == row["step search"].value


def test_table_6_is_the_laboratorys():
    one = summary()
    other = summary("srlm")
    for made_, kind, values in ((one, "pairwise", (0.9, 0.8)), (other, "scoring", (0.6, 0.3))):
        shares = dict(zip(("consistency", "agreement"), values, strict=True))
        ends = {
            f"{k}_{end}": v + d
            for k, v in shares.items()
            for end, d in (("low", -0.1), ("high", 0.1))
        }
        made_["laboratory"] = [
            {
                "model": "M1",
                "judge": "itself",
                "strategy": kind,
                "n": 10,
                "items": f"{kind} items",
                "labels": "oracle",
                **shares,
                **ends,
            }
        ]
    table = made(Evidence([one, other]))["table6"]
    assert line(table, "pairwise")["consistency"].shown == "0.90"
    assert line(table, "pairwise − scoring")["agreement"].shown == "+0.50"
    assert line(table, "GPT-4o", "scoring", source="the paper")["agreement"].shown == "0.32"
    assert "scoring: scoring items (right by oracle)" in table.notes


def test_number_times_length_is_the_total():
    table = made(evidence())["table7"]
    for name in (*SETS,):
        cells = [line(table, part, "M2")[name].value for part in ("number", "length", "total")[:2]]
        total = line(table, "total", "M2")[name].value
        assert cells[0] * cells[1] == pytest.approx(total)


def test_notes_name_seeds_intervals_and_the_papers_contradictions():
    found = made(evidence(seeds=(0, 2)))
    for table in found.values():
        assert table.notes[0] == "seeds 0, 2; 95 % intervals over problems, given these seeds"
    assert sum("contradicts itself" in note for note in found["table9"].notes) == 2
    assert not any("contradicts itself" in note for note in found["table3"].notes)


def test_the_baselines_budget_is_a_share_of_psrlms():
    ours, theirs = summary(), summary("srlm")
    for made_ in theirs["stages"]:
        made_["tokens"] = {"generated": 1_500_000, "judged": 1_470_000}
    table = made(Evidence([ours, theirs]))["budget"]
    row = line(table, "srlm in % of psrlm")
    assert [row[name].shown for name in ("M2", "M3", "M4", "all")] == ["99.0"] * 4
    missing = line(made(Evidence([ours]))["budget"], "srlm in % of psrlm")
    assert missing["M2"].shown == missing["all"].shown == "not run"


def test_budgets_are_those_of_the_searches():
    row = line(made(evidence())["budget"], "psrlm")
    assert [row[name].shown for name in ("M2", "M3", "M4", "all")] == ["3.00"] * 3 + ["9.00"]


def test_written_forms_hold_the_same_numbers(tmp_path):
    for table in made(evidence()).values():
        tables.write(table, tmp_path)
        rows = read_csv(tmp_path / f"{table.name}.csv")
        assert tuple(rows[0]) == tables.COLUMNS
        mine = [cell for one in table.panels for row in one.rows for cell in row[one.labels :]]
        assert len(rows) == len(mine)
        for row, cell in zip(rows, mine, strict=True):
            assert row["value"] == ("" if cell.value is None else repr(float(cell.value)))
        text = (tmp_path / f"{table.name}.md").read_text().replace(tables.NO_BREAK, " ")
        assert all(cell.shown in text for cell in mine)


def test_latex_is_well_formed(tmp_path):
    for table in made(evidence()).values():
        text = tables.latex(table)
        assert text.count("{") == text.count("}") - text.count(r"\}") + text.count(r"\{")
        for kind in ("table", "tabular"):
            assert text.count(f"\\begin{{{kind}}}") == text.count(f"\\end{{{kind}}}")
        bodies = re.findall(r"\\begin\{tabular\}\{(\w+)\}\n(.*?)\\end\{tabular\}", text, re.DOTALL)
        assert len(bodies) == len(table.panels)
        for columns, body in bodies:
            assert all(rule in body for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
            lines = [one for one in body.split("\n") if re.search(r"[^\\]&", one)]
            assert {len(re.findall(r"(?<!\\)&", one)) + 1 for one in lines} == {len(columns)}


def test_latex_escapes_what_it_has_to():
    assert tables.escape("50 % of a_b & {x} → −1") == (r"50 \% of a\_b \& \{x\} $\rightarrow$ $-$1")
    cell = Cell(-1.5, -2.0, -1.0)
    assert tables._tex(cell) == r"$-$1.5 {\scriptsize [$-$2.0, $-$1.0]}"


def test_markdown_escapes_bars():
    table = Table("t", "T", (Panel(RUN, ("a",), ((Cell(text="x|y"),),), 1),))
    assert r"x\|y" in tables.markdown(table)
