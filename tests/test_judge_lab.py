"""The judge laboratory on a run folder made by hand, with scripted judges."""

import json
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
from scripted import Scripted, judge_settings, questions, random_script, search_settings

from psr_lib import figures, judge_lab, lab_figures, lab_table, prompts, teachers
from psr_lib.evaluation import write_csv
from psr_lib.judge import Judge
from psr_lib.lab_table import HELDOUT, OWN, SELF, SOLUTIONS, TESTING, TRAINING, Group
from psr_lib.labels import Labels
from psr_lib.methods import LAB
from psr_lib.presets import load
from psr_lib.records import JudgeExample, Problem, Question, ScoreExample, write_jsonl
from psr_lib.run_dirs import RunDir
from psr_lib.search import step_search
from psr_lib.stages import make_key, stage_preset

TEXT = "Tom has {} pens. Tom buys 38 pens. Tom sells 5 pens. How many pens does Tom have?"


def example(k, better="A"):
    right, wrong = (f"Step 1: {47 + k} + 38 = {s}, so {s}." for s in (85 + k, 75 + k))
    steps = (right, wrong) if better == "A" else (wrong, right)
    return JudgeExample(id=f"e/{k}", problem_id=f"p/{k}", question=TEXT.format(47 + k), prefix=[],
                        step_a=steps[0], step_b=steps[1], better=better, explanation="",
                        meta={"source": "people", "labels": "human"})  # fmt: skip


EXAMPLES = [example(k, "AB"[k % 2]) for k in range(8)]


def verdicts(answers):
    return [{"id": f"e/{k}", "verdict": answer} for k, answer in enumerate(answers)]


def searched(table):
    """Traces of a real search by a scripted model."""
    engine, family = Scripted(random_script(table)), prompts.load("compact")
    judge = Judge(engine, family, None, judge_settings())
    return step_search(engine, family, None, questions(6, table), search_settings(), judge, 1)


@pytest.fixture
def stage(tmp_path):
    """M2 of a run, first on M0's place: M0 always takes the first slot, M2 is unreadable once."""
    run = RunDir("smoke", 0, tmp_path)
    right = [e.better for e in EXAMPLES]
    for n, given in {0: ["A"] * 8, 1: right, 2: [None, *right[1:]]}.items():
        write_jsonl(run.eval("psrlm", n) / "verdicts.jsonl.gz", verdicts(given))
    write_jsonl(run.data / "eft_heldout.jsonl", EXAMPLES)
    write_jsonl(run.data / "eft.jsonl", EXAMPLES)
    for path in (run.ppd("psrlm", 2) / "traces.jsonl.gz",
                 run.eval("psrlm", 1) / "search_traces.jsonl.gz"):  # fmt: skip
        write_jsonl(path, [trace.to_row() for trace in searched(3)])
    spent = {"generated": 0, "judged": 0}
    made = SimpleNamespace(
        run=run, method="psrlm", iteration=2, seed=0, folder=run.lab("psrlm", 2), spent=spent,
        preset=load("smoke", "eval.search_rounds=[1] data.source=other "
                    "teacher.ift=rule data.eft_from=none"),
        input=lambda name: run.path / name, source=lambda name: tmp_path / name,
        tokens=lambda **more: spent.update({k: spent[k] + v for k, v in more.items()}),
    )  # fmt: skip
    return made


def laboratories(stage, last):
    """Tables of M0 to M[last], each written where the next one looks for it."""
    for stage.iteration in range(last + 1):
        engine = scripted(first_slot if stage.iteration == 0 else knows)
        groups = judge_lab.heldout(stage, engine) + judge_lab.siblings(stage)
        rows = lab_table.joined(judge_lab.earlier(stage), lab_table.table(groups))
        write_csv(stage.run.lab("psrlm", stage.iteration) / judge_lab.TABLE, rows)
    return rows


def test_each_model_adds_its_verdicts_to_those_before(stage):
    rows = [row for row in laboratories(stage, 2)
            if row["judge"] == SELF and row["items"] == HELDOUT]  # fmt: skip
    assert [(row["model"], row["shots"]) for row in rows] == [
        ("M0", 3), ("M0", 0), ("M1", 0), ("M2", 0),
    ]  # fmt: skip
    assert [row["agreement"] for row in rows] == [0.5, 0.5, 1.0, 15 / 16]
    assert [row["consistency"] for row in rows] == [0, 0, 1, 7 / 8]
    assert [row["first_position"] for row in rows] == [1, 1, 0.5, 7 / 15]
    assert [row["unreadable"] for row in rows] == [0, 0, 0, 1 / 16]
    assert {(row["labels"], row["n"]) for row in rows} == {("teacher", 8)}


def test_only_the_other_order_is_asked(stage):
    engine = scripted(knows)
    judge_lab.heldout(stage, engine)
    slots = [prompt.split("\nA: ")[-1].split("\n")[0] for prompt in engine.asked]
    assert slots == [example.step_b for example in EXAMPLES] and stage.spent["judged"] == 8 * 2
    stage.iteration, engine = 0, scripted(first_slot)
    judge_lab.heldout(stage, engine)
    assert [prompt.count("Review:") for prompt in engine.asked] == [4] * 8 + [1] * 16


def test_siblings_come_from_the_searches_that_the_model_steered(stage):
    found = {}
    for stage.iteration in (0, 1, 2):
        groups = judge_lab.siblings(stage)
        found[stage.iteration] = [(g.model, g.source) for g in groups]
    assert found == {0: [], 1: [("M1", TESTING)], 2: [("M1", TRAINING)]}
    row = lab_table.table(groups)[0]
    assert row["n"] > 20 and row["agreement"] is None and row["labels"] == ""
    assert row["consistency"] is not None and row["search_ties"] is not None
    for stage.method in ("random-judge", "ift-more"):  # others judged, or made its pairs
        assert judge_lab.siblings(stage) == []


def test_null_judges_stand_once_beside_each_kind_of_items(stage):
    rows = laboratories(stage, 2)
    assert len({row["items"] for row in rows}) == 3
    for items in dict.fromkeys(row["items"] for row in rows):
        judges = [row["judge"] for row in rows if row["items"] == items and row["judge"] != SELF]
        assert judges == ["first", "longer", "shorter", "random"], items
    first = next(row for row in rows if row["judge"] == "first")
    assert (first["agreement"], first["consistency"], first["first_position"]) == (0.5, 0, 1)


def test_a_table_is_read_as_it_was_written(stage, tmp_path):
    rows = laboratories(stage, 1)
    write_csv(tmp_path / "again.csv", rows)
    assert lab_table.read(tmp_path / "again.csv") == rows


def test_measures_have_intervals_and_what_is_missing_is_empty(stage):
    rows = laboratories(stage, 2)
    for row in rows:
        for name in lab_table.MEASURES:
            value, low, high = (row[key] for key in (name, f"{name}_low", f"{name}_high"))
            assert (value is None) == (low is None) == (high is None)
            assert value is None or low <= value <= high
    shown = lab_table.shown(rows)
    assert shown[0]["agreement"].startswith("50.0 [") and shown[0]["search_ties"] == "-"


def test_a_notebook_shows_the_models_and_beside_them_the_judges_that_read_nothing(stage):
    rows = laboratories(stage, 2)
    shown = lab_table.shown(rows)
    assert len(shown) == sum(row["judge"] == SELF for row in rows)
    assert "pairs" not in shown[0] and "shots" in shown[0], "only what some row has is a column"
    heldout = lab_table.shown([row for row in rows if row["items"] == HELDOUT])
    assert "search_ties" not in heldout[0] and "ties" in heldout[0]
    beside = lab_table.beside(rows)
    assert [line["items"] for line in beside] == list(dict.fromkeys(r["items"] for r in rows))
    for line in beside:
        assert [*line][-4:] == ["first", "longer", "shorter", "random"]
    assert beside[0]["first"] == lab_table.cell(
        next(row for row in rows if row["judge"] == "first"), "agreement"
    )
    assert "\N{NO-BREAK SPACE}" in beside[0]["first"] and beside[0]["first"].count(" ") == 1


def test_the_oracle_says_which_of_two_steps_is_right():
    for row in teachers.eft_rows(6, seed=3, taken=set()):
        asked = Question(id=row.problem_id, text=row.question)
        assert judge_lab._oracle(asked, row.prefix, row.step_a, row.step_b) == row.better
        assert judge_lab._oracle(asked, row.prefix, row.step_a, row.step_a) is None


def first_slot(prompt, seed, k):
    """A judge that always names the first slot."""
    return "so [[A]]", "eos"


def knows(prompt, seed, k):
    """A judge that adds up the step in slot A."""
    left, found = prompt.split("\nA: Step 1: ")[-1].split(",")[0].split(" + 38 = ")
    return f"so [[{'A' if int(left) + 38 == int(found) else 'B'}]]", "eos"


def longer_wins(prompt, seed, k):
    """A judge that names the longer step, and a solver that is right on even problems."""
    if prompt.endswith("Review:"):
        a, b = (prompt.split(f"\n{slot}: ")[1].split("\n")[0] for slot in "AB")
        return f"so [[{'A' if len(a) > len(b) else 'B'}]]", "eos"
    number = int(prompt.split("?")[0].split()[-1])
    return f"Step 1: so \\boxed{{{number if (seed + k + number) % 3 else 0}}}.", "eos"


def scripted(script=longer_wins):
    engine = Scripted(script)
    engine.tokenizer = None
    return engine


def test_an_audit_asks_both_orders_and_reports_by_source(stage):
    pairs = [JudgeExample(**{**vars(e), "step_a": e.step_a + " and", "better": "A",
                             "meta": {"source": f"people/{k % 2}", "labels": "human"}})
             for k, e in enumerate(EXAMPLES)]  # fmt: skip
    engine = scripted()
    groups = judge_lab.audit(stage, engine, pairs)
    assert len(engine.asked) == 16 and stage.spent["judged"] == 32
    rows = [row for row in lab_table.table(groups) if row["judge"] == SELF]
    assert [(row["items"], row["n"], row["agreement"], row["consistency"]) for row in rows] == [
        ("people/0", 4, 1, 1), ("people/1", 4, 1, 1),
    ]  # fmt: skip
    assert {row["labels"] for row in rows} == {"human"}


def test_the_files_of_an_audit_are_thinned_by_source(stage, tmp_path):
    names = ("question", "prefix_steps", "step_a", "step_b", "better", "source", "label_origin")
    rows = [dict(zip(names, (f"{k}?", [], "x", "y", "a", "st"[k % 2], "human"), strict=True))
            for k in range(20)]  # fmt: skip
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stage.preset = load("smoke", "lab.audit=[dev.jsonl] lab.audit_size=3")
    found = judge_lab.read_audit(stage)
    assert [pair.meta["source"] for pair in found.pairs] == list("ststst")
    stage.preset = load("smoke")
    assert judge_lab.read_audit(stage) == Labels([], [])


def test_own_solutions_are_unequal_and_right_by_the_gold_answer(stage):
    sets = {"easy": [Problem(id=f"easy/{k}", source="t", question=f"Number {k}?", answer=str(k))
                     for k in (1, 2, 3)]}  # fmt: skip
    stage.preset = load("smoke", "lab.problems=2 lab.solutions=3")
    found = judge_lab.own_solutions(stage, scripted(), sets)
    assert [row.problem_id for row in found] == ["easy/1", "easy/1", "easy/2", "easy/2"]
    assert sorted(row.right for row in found) == [False, False, True, True]
    assert len({(row.problem_id, row.text) for row in found}) == len(found)
    assert stage.spent["generated"] == 6 * 4 and {row.source for row in found} == {OWN}


def test_scored_solutions_are_compared_within_and_across_problems(stage):
    sets = {"easy": [Problem(id=f"easy/{k}", source="t", question=f"Number {k}?", answer=str(k))
                     for k in range(1, 5)]}  # fmt: skip
    stage.preset = load("smoke", "lab.problems=4 lab.solutions=6")
    own = judge_lab.own_solutions(stage, scripted(), sets)
    people = [type(own[0])(**{**vars(row), "source": "people"}) for row in own]

    def scorer(items, run):  # the right answers are not 0
        return [SimpleNamespace(points=(float("{0}" not in text),), mean=float("{0}" not in text))
                for _, text in items]  # fmt: skip

    rows = lab_table.table(judge_lab.score_groups(stage, scorer, [*own, *people]))
    mine = [row for row in rows if row["judge"] == SELF]
    assert [(row["items"], row["pairs"], row["labels"]) for row in mine] == [
        (OWN, "one problem", "gold answer"), ("people", "one problem", "human"),
        ("people", "any two problems", "human"),
    ]  # fmt: skip
    assert {(row["agreement"], row["consistency"], row["strategy"]) for row in mine} == {
        (1.0, 1.0, "scoring")
    }
    assert [row["judge"] for row in rows].count("longer") == 3


def scores_odd_numbers(prompt, seed, k):
    """A solver that is right on odd seeds, and a scorer that gives its right answers 5 points."""
    if prompt.endswith("Review:"):
        return f"Solution: {5 if '{0}' not in prompt else 1}.", "eos"
    number = int(prompt.split("?")[0].split()[-1])
    return f"Step 1: so \\boxed{{{number if k % 2 else 0}}}.", "eos"


def scoring_row(k):
    """A held-out row of the baseline's EFT."""
    return ScoreExample(id=f"s/{k}", problem_id=f"p/{k // 2}", question="Number 1?", points=5,
                        solution=f"Step 1: so \\boxed{{{(k + 1) % 2}}}.", explanation="",
                        right=k % 2 == 0)  # fmt: skip


@pytest.mark.parametrize("method", ["srlm", "reference"])
def test_who_has_learned_to_score_is_measured_on_solutions(stage, method):
    sets = {"easy": [Problem(id=f"easy/{k}", source="t", question=f"Number {k}?", answer=str(k))
                     for k in (1, 2)]}  # fmt: skip
    stage.method, stage.iteration = method, int(method == "srlm")
    write_jsonl(stage.run.path / "srlm/data/eft_scores_heldout.jsonl", map(scoring_row, range(4)))
    groups = judge_lab.scoring(stage, scripted(scores_odd_numbers), sets, [])
    found = {group.source: group.shares() for group in groups}
    assert set(found) == ({OWN, SOLUTIONS} if method == "srlm" else {OWN})
    assert {share["agreement"].value for share in found.values()} == {1}
    assert {share["consistency"].value for share in found.values()} == {1}
    items = sum(len(group.rows) for group in groups)
    assert stage.spent["judged"] == items * 2 * stage.preset.srlm.scores * 2  # runs, words
    assert bool(judge_lab.audit(stage, scripted(), EXAMPLES)) == (method == "reference")
    if method == "srlm":
        assert judge_lab.heldout(stage, None) == judge_lab.siblings(stage) == []


def test_a_model_that_judges_steps_scores_nothing(stage):
    assert judge_lab.scoring(stage, None, {}, []) == []


def test_every_item_is_kept_with_its_model(stage):
    groups = judge_lab.heldout(stage, scripted(knows))
    items = lab_table.items(groups, lab_table.PAIRWISE)
    assert len(items) == 8 and {row["model"] for row in items} == {"M2"}
    assert [row["forward"] for row in items[:2]] == [None, "B"] and json.dumps(items)
    assert lab_table.items(groups, lab_table.SCORING) == []


@pytest.mark.parametrize("kind", ["drift", "by_items"])
def test_figures_are_saved_whole(stage, tmp_path, kind):
    rows = laboratories(stage, 2)
    if kind == "by_items":
        own = judge_lab.heldout(stage, scripted(knows))[0].rows
        audits = [Group(model="M2", source=f"a long name of a source/{k}", labels="human", rows=own)
                  for k in range(9)]  # fmt: skip
        rows = lab_table.joined(rows, lab_table.table(audits))
    figure = lab_figures.chart(rows, "M2")
    assert len(figure.axes) == (2 if kind == "drift" else 1)
    figures.save_fig(figure, tmp_path, "judge", rows, "smoke laboratory, seed 0, 07 M2, abc")
    figure.canvas.draw()
    for axes in figure.axes:
        inside = axes.get_tightbbox()
        assert inside.x0 >= -1 and inside.x1 <= figure.bbox.x1 + 1, "cut at a side"
        assert inside.y1 <= figure.bbox.y1 + 1, "cut at the top"
    plt.close("all")


def test_an_api_model_goes_by_its_own_name(stage, tmp_path):
    run = stage.run
    write_jsonl(run.eval("reference", 0) / "verdicts.jsonl.gz", verdicts(["A"] * 8))
    key = make_key(LAB, "reference", 0, 4)
    stage.method, stage.iteration = "reference", 0
    stage.preset = stage_preset(
        load("smoke", "reference.model=some-api reference.prompts=compact"), key
    )
    (group,) = judge_lab.heldout(stage, scripted(first_slot))
    assert (group.model, group.shots) == ("some-api", 0)
    assert judge_lab.siblings(stage) == judge_lab.earlier(stage) == []
