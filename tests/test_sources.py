"""Real problems from files, folders and the hub: layouts, schema errors, hygiene, whole pools."""

import json
import sys
import types

import pytest
from chain_runs import by_the_runner, opened
from real_pools import FakeStage, many, stage_of, write

from psr_lib import benchmarks, data_prep, runs, source_pools, sources
from psr_lib.hygiene import Screen
from psr_lib.layouts import declared, find_layout, read_problem
from psr_lib.records import IFTExample, Problem, PSRError, Question, read_jsonl, to_dict

GSM8K = {"question": "Tom has 4 pens and finds 3. How many?",
         "answer": "He has 4+3=<<4+3=7>>7 pens.\n#### 7"}  # fmt: skip
NUMINA = {"source": "cn_k12", "problem": "What is $1+1$?", "solution": "It is $\\boxed{2}$.",
          "messages": [{"role": "user", "content": "x"}]}  # fmt: skip
PRM800K = {
    "labeler": "x",
    "question": {
        "problem": "What is 2?",
        "ground_truth_answer": "2",
        "ground_truth_solution": None,
    },
    "label": {"steps": []},
}
OLYMPIAD = {"id": 1606, "question": "Which pairs?", "solution": ["So $(1,2)$."],
            "final_answer": ["$(1,2)$"], "is_multiple_answer": False, "unit": None}  # fmt: skip
SVAMP = {"ID": "chal-1", "Body": "He has 7.", "Question": "How many?", "Answer": 51.0,
         "Equation": "x", "Type": "Sum"}  # fmt: skip
AIME = {"id": 60, "problem": "Find it.", "solution": "no box", "answer": "025", "url": "u",
        "question": "Find it."}  # fmt: skip


def read(row, **settings):
    return read_problem(row, find_layout(row, "f"), "a/0", "a", "f, row 1", **settings)


@pytest.mark.parametrize(
    ("row", "question", "answer"),
    [
        (GSM8K, GSM8K["question"], "7"),
        (NUMINA, "What is $1+1$?", "2"),
        (PRM800K, "What is 2?", "2"),
        (OLYMPIAD, "Which pairs?", "$(1,2)$"),
        (SVAMP, "He has 7. How many?", "51"),
        (AIME, "Find it.", "025"),
        ({"problem": "P?", "answer": 27.0}, "P?", "27"),
        ({"question": "Q?", "answer": 0.5}, "Q?", "0.5"),
        ({"input": "Q?", "target": 8}, "Q?", "8"),
        ({"question": "Q?", "final_ans": "8"}, "Q?", "8"),
        ({"question": "Q?", "answer": "9", "metadata": {"answer_cot": "So\n#### 9"}}, "Q?", "9"),
        ({"problem": "M?", "level": "Level 5", "solution": "\\boxed{x}"}, "M?", "x"),
    ],
)  # fmt: skip
def test_every_known_layout_is_read(row, question, answer):
    found = read(row)
    assert (found.question, found.answer) == (question, answer)


def test_gsm8k_is_changed_as_declared_and_in_nothing_else():
    assert read(GSM8K).solution == "He has 4+3=7 pens.\nThe answer is \\boxed{7}."
    assert read(GSM8K).meta == {"changed": ["box", "calculator"]}
    kept = read(GSM8K, calculator=True)
    assert "<<4+3=7>>" in kept.solution and kept.meta == {"changed": ["box"]}
    assert declared("So $\\boxed{1}$.") == ("So $\\boxed{1}$.", [])
    assert declared("a\n#### 1,234")[0] == "a\nThe answer is \\boxed{1234}."


def test_a_record_of_ours_is_read_as_it_is():
    row = Problem(id="easy/3", source="s", question="Q?", answer="1", meta={"level": "easy"})
    assert read(to_dict(row)) == row


@pytest.mark.parametrize(
    ("rows", "fields", "words"),
    [
        ([NUMINA, {"problem": None, "solution": "x"}], {}, "row 2: field 'problem' is empty"),
        ([NUMINA, {"solution": "x"}], {}, "row 2: no field 'problem'; there are ['solution']"),
        ([NUMINA, {"problem": ["x"], "solution": "x"}], {}, "'problem' should be text or a number"),
        ([NUMINA, {"problem": "x", "solution": True}], {}, "'solution' should be text or a number"),
        ([{"a": 1, "b": 2}], {}, "no known layout has the fields ['a', 'b']"),
        ([{"a": 1}], {"question": "q"}, "no field 'q'"),
        ([{"a": 1}], {"qestion": "a"}, "unknown ['qestion']"),
        ([{"a": 1}], {"answer": "a"}, "question is missing"),
        ([NUMINA, [1]], {}, "row 2: expected a JSON object, found list"),
        ([], {}, "no rows"),
    ],
)
def test_schema_errors_name_file_row_and_field(tmp_path, rows, fields, words):
    path = write(tmp_path / "mine.jsonl", rows)
    with pytest.raises(PSRError) as caught:
        sources.open_source("mine.jsonl", "train", tmp_path, fields=fields)
    message = str(caught.value)
    assert words in message and "\n" not in message
    assert str(path) in message or "data.fields" in message


def test_fields_may_be_named_and_nested(tmp_path):
    write(tmp_path / "mine.jsonl", [{"a": {"b": ["Q?"]}, "c": "It is \\boxed{4}."}])
    fields = {"question": "a.b.0", "solution": "c"}
    source = sources.open_source("mine.jsonl", "train", tmp_path, fields=fields)
    assert source.problem(0).question == "Q?" and source.problem(0).answer == "4"
    assert source.problem(0).id == "mine/0"


@pytest.mark.parametrize(
    "name", ["train.jsonl", "train.jsonl.gz", "data/train-00000-of-00001.parquet"]
)
def test_folders_as_they_are_downloaded(tmp_path, name):
    if name.endswith("parquet"):
        import pandas as pd

        (tmp_path / "set/data").mkdir(parents=True)
        pd.DataFrame([NUMINA, NUMINA]).to_parquet(tmp_path / "set" / name)
    else:
        write(tmp_path / "set" / name, [NUMINA, NUMINA])
    source = sources.open_source("set", "train", tmp_path)
    assert len(source) == 2 and source.problem(1).answer == "2" and source.name == "set"


def test_maths_own_folder_of_files(tmp_path):
    for k in range(3):
        row = {"problem": f"P{k}?", "level": "Level 1", "type": "Algebra", "solution": "\\boxed{3}"}
        path = tmp_path / f"MATH/train/algebra/{k}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(row))
    source = sources.open_source("MATH", "train", tmp_path)
    assert [source.problem(k).question for k in range(3)] == ["P0?", "P1?", "P2?"]
    assert source.where(1).endswith("1.json, row 1")
    with pytest.raises(PSRError, match=r"no test\.jsonl"):
        sources.open_source("MATH", "test", tmp_path)
    (tmp_path / "MATH/train/algebra/1.json").write_text('{"problem": 1, "solution": {}}')
    with pytest.raises(PSRError, match=r"1\.json, row 1: field 'solution'"):
        sources.open_source("MATH", "train", tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [("nothing.jsonl", "none of procedural"), ("gsm8q", "gsm8k"), ("mine.txt", "not a .jsonl")],
)
def test_what_is_not_there_is_one_line(tmp_path, name, words):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(PSRError, match=words):
        sources.open_source(name, "train", tmp_path)


class FakeHub(types.ModuleType):
    """Stands for the datasets library: what was asked for, and rows or an error."""

    def __init__(self, rows):
        super().__init__("datasets")
        self.rows, self.asked = rows, []

    def load_dataset(self, *args, **settings):
        self.asked.append((args, settings))
        if isinstance(self.rows, Exception):
            raise self.rows
        return list(self.rows)

    @staticmethod
    def concatenate_datasets(parts):
        return [row for part in parts for row in part]


@pytest.mark.parametrize(
    ("name", "asked", "parts"),
    [
        ("numina", ("AI-MO/NuminaMath-CoT", None), 1),
        ("gsm8k", ("openai/gsm8k", "main"), 1),
        ("openai/gsm8k", ("openai/gsm8k", "main"), 1),
        ("math", ("EleutherAI/hendrycks_math", "algebra"), 7),
        ("prm800k", ("tasksource/PRM800K", None), 1),
        ("some-one/a.set", ("some-one/a.set", None), 1),
    ],
)
def test_hub_names(tmp_path, monkeypatch, name, asked, parts):
    hub = FakeHub([NUMINA])
    monkeypatch.setitem(sys.modules, "datasets", hub)
    source = sources.open_source(name, "train", tmp_path)
    assert len(source) == parts == len(hub.asked)
    assert hub.asked[0][0] == asked and hub.asked[0][1]["split"] == "train"
    assert source.problem(0).answer == "2" and source.path == ""


def test_an_unreachable_hub_is_one_line_that_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", FakeHub(ConnectionError("no\nroute " * 90)))
    with pytest.raises(
        PSRError, match=r"openai/gsm8k: not to be had .* set data\.source to"
    ) as caught:
        sources.open_source("gsm8k", "train", tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


class Mapped(list):
    """Rows that lie in the library's cache, below the folder of their commit."""

    def __init__(self, rows, commit):
        super().__init__(rows)
        self.cache_files = [{"filename": f"/cache/openai___gsm8k/main/0.0.0/{commit}/x.arrow"}]


class CachedHub(FakeHub):
    """A datasets library whose rows are of the commit that is asked for, or of `cached` alone."""

    cached = ""

    def load_dataset(self, *args, **settings):
        return Mapped(super().load_dataset(*args, **settings), self.cached or settings["revision"])


OLD, NEW = "0" * 40, "1" * 40
GSM8K_HUB = sources.Hub("openai/gsm8k", ("main",))


@pytest.fixture
def cached(monkeypatch):
    """The hub's libraries: `newest` is what the hub says, an error where it does not answer."""
    hub = CachedHub([GSM8K])
    hub.newest = OLD

    def dataset_info(repo, **_):
        if isinstance(hub.newest, Exception):
            raise hub.newest
        return types.SimpleNamespace(sha=hub.newest)

    monkeypatch.setitem(sys.modules, "datasets", hub)
    by_the_runner(monkeypatch)
    api = types.SimpleNamespace(dataset_info=dataset_info)
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: api)
    return hub


def read_as_01(tmp_path, *splits):
    """The data stage of a run, which has read these splits of GSM8K."""
    stage = opened(tmp_path / "runs")
    for split in splits:
        stage.hub(GSM8K_HUB, split, "data.source")
    return stage


def test_both_splits_of_a_data_set_are_inputs_at_the_commit_that_was_read(tmp_path, cached):
    stage = read_as_01(tmp_path, "train")
    cached.newest = NEW
    stage.hub(GSM8K_HUB, "test", "data.benchmark_folder")
    assert stage.made_from["inputs"] == {
        "hub:datasets/openai/gsm8k/main/train": OLD, "hub:datasets/openai/gsm8k/main/test": OLD
    }  # fmt: skip
    assert [settings["revision"] for _, settings in cached.asked] == [OLD, OLD]


def test_pools_and_test_sets_are_read_at_one_commit(tmp_path, cached):
    real = "data.source=gsm8k teacher.ift=rule data.eft_from=none data.benchmark_folder=hub"
    stage = opened(tmp_path / "runs", f"{real} data.benchmarks=[gsm8k] data.benchmark_size=1")
    assert [source.name for source in source_pools.open_sources(stage)] == ["gsm8k"]
    cached.newest = NEW
    assert benchmarks.open_sets(stage)["gsm8k"][0].answer == "7"
    assert set(stage.made_from["inputs"].values()) == {OLD} and len(stage.made_from["inputs"]) == 2


def test_later_stages_read_the_data_set_at_the_first_ones_commit(tmp_path, cached):
    stage = read_as_01(tmp_path, "train")
    stage.output("ift.jsonl").write_text("{}\n")
    assert stage.finish()["inputs"]["hub:datasets/openai/gsm8k/main/train"] == {"hash": OLD}
    cached.newest = NEW
    names = {"preset": "smoke", "runs_dir": str(tmp_path / "runs"), "iteration": 1}
    later = runs.open_stage("05_evaluate", **names)
    later.hub(GSM8K_HUB, "test", "data.benchmark_folder")
    assert cached.asked[-1][1]["revision"] == OLD
    later.hub(sources.KNOWN["numina"], "train", "data.source")
    assert cached.asked[-1][1]["revision"] == NEW, "another data set"


def test_without_a_connection_the_commit_is_that_of_the_cache(tmp_path, cached):
    cached.newest, cached.cached = ConnectionError("no route"), NEW
    stage = read_as_01(tmp_path, "train")
    assert stage.made_from["inputs"] == {"hub:datasets/openai/gsm8k/main/train": NEW}
    cached.cached = "an old folder"
    with pytest.raises(PSRError, match=r"gsm8k: its cache does not tell which commit .* data.sour"):
        read_as_01(tmp_path / "other", "train")


def test_a_cache_that_holds_another_commit_than_the_run_read_is_refused(tmp_path, cached):
    stage = read_as_01(tmp_path, "train")
    cached.newest, cached.cached = ConnectionError("no route"), NEW
    with pytest.raises(PSRError, match=rf"one commit, .* holds another \({OLD}, {NEW}\); down"):
        stage.hub(GSM8K_HUB, "test", "data.source")


# --- hygiene


def ask(k, text):
    return Problem(id=f"a/{k}", source="a", question=text, answer="")


def test_the_screen_gives_its_reasons():
    tested = {"gsm8k/3": "Tom buys 4 red pens and 5 blue pens for $9.", "svamp/1": "How many?"}
    screen = Screen(tested, ngram=6)
    texts = ["Find $x$.", "find  x", "Find $x^2$.", "tom buys 4 red pens and 5 blue pens for $ 9",
             "She says: Tom buys 4 red pens, and 7 more.", "Tom buys 4 red pens or 5.", "how many",
             "How many are 2 + 3?", "How many are 2 - 3?"]  # fmt: skip
    taken = [screen.takes(ask(k, text)) for k, text in enumerate(texts)]
    assert taken == [True, False, True, False, False, True, False, True, True]
    assert [(row["id"], row["reason"], row["of"]) for row in screen.removed] == [
        ("a/1", "duplicate", "a/0"), ("a/3", "benchmark", "gsm8k/3"),
        ("a/4", "benchmark n-gram", "gsm8k/3"), ("a/6", "benchmark", "svamp/1"),
    ]  # fmt: skip
    assert screen.removed[2]["shared"] == "tom buys 4 red pens and"
    assert screen.counts() == {"looked_at": 9, "removed_duplicates": 1, "removed_benchmark": 2,
                               "removed_ngram": 1}  # fmt: skip


def test_without_ngrams_whole_questions_are_compared():
    screen = Screen({"b/0": "Tom buys 4 red pens and 5 blue pens."}, ngram=0)
    assert screen.takes(ask(0, "Tom buys 4 red pens and 5 blue pens now."))
    assert not screen.takes(ask(1, "Tom buys 4 red pens and 5 blue pens!"))


# --- whole pools


def texts_of(stage, rows):
    found = []
    for name in rows:
        if name != "removed":
            for row in read_jsonl(stage.folder / f"{name}.jsonl"):
                found.append(row.get("question") or row["text"])
    return found


def test_a_preset_and_a_path_make_every_pool(tmp_path):
    bad = {"question": "Ann has no solution here?", "answer": "Nothing to see."}
    stage = stage_of(tmp_path, [*many(120), *many(3), bad])
    rows = data_prep.make_pools(stage)
    assert rows == {"questions_2": 5, "questions_3": 6, "questions_4": 7, "ift": 12,
                     "ift_more_2": 4, "ift_more_3": 4, "ift_more_4": 4,
                    "removed": rows["removed"]}  # fmt: skip
    texts = texts_of(stage, rows)
    assert len(texts) == len(set(texts)) == 42
    assert not any("Ann99 " in text for text in texts)
    ift = read_jsonl(stage.folder / "ift.jsonl", IFTExample)
    k = int(ift[0].question.split()[2])
    last = f"Step 2: Now {k} + {k + 1} = {2 * k + 1} pens.\nThe answer is \\boxed{{{2 * k + 1}}}."
    assert ift[0].steps == [f"Step 1: Ann{k} had {k} pens at first.", last]
    assert ift[0].meta == {"tries": 1, "changed": ["box", "calculator"]}
    asked = (stage.folder / "questions_2.jsonl").read_text()
    assert "answer" not in asked and read_jsonl(stage.folder / "questions_2.jsonl", Question)
    assert stage.counts["source_rows"] == 124 and stage.counts["ift_kept"] == 24
    assert stage.counts["looked_at"] == 42 + rows["removed"]
    assert f"{tmp_path}/mine/train.jsonl" in stage.inputs
    assert f"{tmp_path}/sets/math500/test.jsonl" in stage.inputs


def test_all_that_is_removed_is_reported(tmp_path):
    bad = [{"question": f"Ann{k} has no solution?", "answer": "None. #### "} for k in range(3)]
    stage = stage_of(tmp_path, [*many(100), *many(9), *bad], "data.ift=80", "data.ift_more=5",
                     "data.questions=[1,1,1]")  # fmt: skip
    data_prep.make_pools(stage)
    removed = read_jsonl(stage.folder / "removed.jsonl")
    reasons = {row["reason"].split(":")[0] for row in removed}
    assert reasons >= {"duplicate", "benchmark"}
    assert next(row["of"] for row in removed if row["reason"] == "benchmark") == "math500/0"
    with pytest.raises(PSRError, match=r"ift: \d+ of 500 solutions could be used, \d+ failed"):
        data_prep.make_pools(stage_of(tmp_path, [*many(100), *bad], "data.ift=500"))
    with pytest.raises(PSRError, match=r"data\.questions: 500 problems are asked for and \d+ are"):
        data_prep.make_pools(stage_of(tmp_path, many(100), "data.questions=[5,500,5]"))


def test_several_sources_take_turns_and_bear_their_names(tmp_path):
    write(tmp_path / "one/train.jsonl", many(6))
    write(tmp_path / "two/train.jsonl", many(60, start=200))
    names = f"{tmp_path}/one+{tmp_path}/two"
    found = sources.open_sources(names, "train", tmp_path)
    assert [(source.name, len(source)) for source in found] == [("one", 6), ("two", 60)]
    drawn = list(source_pools.drawn(found, 0, Screen({}, 0)))
    assert [p.source for p in drawn] == ["one", "two"] * 6 + ["two"] * 54
    assert drawn == list(source_pools.drawn(found, 0, Screen({}, 0)))
    assert drawn != list(source_pools.drawn(found, 1, Screen({}, 0)))
    assert len({problem.id for problem in drawn}) == 66
    stage = stage_of(tmp_path, [], f"data.source={names}")
    data_prep.make_pools(stage)
    assert {f"{tmp_path}/{name}/train.jsonl" for name in ("one", "two")} <= set(stage.inputs)
    assert stage.counts["source_rows"] == 66
    (tmp_path / "one+two").mkdir()
    write(tmp_path / "one+two/train.jsonl", many(3))
    assert len(sources.open_sources("one+two", "train", tmp_path)) == 1, "a folder of that name"
    with pytest.raises(PSRError, match="two are called 'one'"):
        sources.open_sources("one+one", "train", tmp_path)


def test_a_missing_engine_is_said_before_a_teacher_is_paid(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    chain = ["data.eft_from=chain", "teacher.judge=rule", "prm.labels=rule"]
    for engine in (["engine.kind=vllm"], ["engine.kind=ray", "engine.worker=vllm"]):
        with pytest.raises(PSRError, match="vllm is not installed; pip install"):
            data_prep.make_pools(stage_of(tmp_path, many(40), *chain, *engine))
    assert not (tmp_path / "data").exists()


def test_seeds_draw_other_pools_and_teachers_leave_the_questions_alone(tmp_path):
    def pools(seed, *overrides):
        stage = stage_of(tmp_path, many(200), *overrides)
        stage.seed = seed
        data_prep.make_pools(stage)
        return {path.name: path.read_bytes() for path in stage.folder.glob("*.jsonl")}

    one = pools(0)
    assert one == pools(0) and one["ift.jsonl"] != pools(1)["ift.jsonl"]
    assert one["questions_4.jsonl"] == pools(0, "data.ift=20")["questions_4.jsonl"]


# --- benchmarks


def test_benchmarks_are_found_in_each_layout(tmp_path):
    write(tmp_path / "aime24/test.jsonl", [AIME, AIME])
    write(tmp_path / "olympiadbench/test.jsonl.gz", [OLYMPIAD])
    write(tmp_path / "svamp.jsonl", [SVAMP])
    write(tmp_path / "test/gsm8k.jsonl", [GSM8K])
    write(tmp_path / "mawps/multiarith.jsonl", [{"input": "Q?", "target": 8}])
    names = ("aime2024", "olympiadbench", "svamp", "gsm8k", "multiarith")
    sets = benchmarks.load(tmp_path, names, 0)
    assert [len(sets[name]) for name in names] == [2, 1, 1, 1, 1]
    assert [sets[name][0].answer for name in names] == ["025", "$(1,2)$", "51", "7", "8"]
    assert sets["aime2024"][1].id == "aime2024/1"
    assert sets["olympiadbench"][0].meta == {"id": 1606, "is_multiple_answer": False}
    with pytest.raises(
        PSRError, match=r"benchmark 'amc2023': no file .* set data\.benchmark_folder"
    ):
        benchmarks.load(tmp_path, ("amc2023",), 0)
    with pytest.raises(PSRError, match=r"'svamp': 1 problems, data\.benchmark_size asks for 2"):
        benchmarks.load(tmp_path, ("svamp",), 2)
    write(tmp_path / "gsm8k.jsonl", [])
    (tmp_path / "test/gsm8k.jsonl").unlink()
    with pytest.raises(PSRError, match=r"'gsm8k': .*gsm8k\.jsonl holds no rows"):
        benchmarks.load(tmp_path, ("gsm8k",), 0)


def test_a_row_without_gold_stays_and_a_broken_one_is_named(tmp_path):
    rows = [{"question": "Q?", "answer": ""}, {"question": "", "answer": "1"}]
    write(tmp_path / "gaokao2023en/test.jsonl", rows[:1])
    assert benchmarks.load(tmp_path, ("gaokao2023en",), 0)["gaokao2023en"][0].answer == ""
    write(tmp_path / "gaokao2023en/test.jsonl", rows)
    with pytest.raises(PSRError, match=r"test\.jsonl, row 2: field 'question' is empty"):
        benchmarks.load(tmp_path, ("gaokao2023en",), 0)


def test_benchmarks_of_the_hub(tmp_path, monkeypatch):
    hub = FakeHub([SVAMP])
    monkeypatch.setitem(sys.modules, "datasets", hub)
    from_hub = ["data.benchmark_folder=hub", "data.benchmark_size=0"]
    stage = FakeStage(tmp_path, [*from_hub, "data.benchmarks=[svamp]"])
    assert benchmarks.open_sets(stage)["svamp"][0].answer == "51"
    assert hub.asked[0][1]["split"] == "train+test" and stage.inputs == ["ChilleD/SVAMP"]
    with pytest.raises(PSRError, match="'mine' has no place on the hub"):
        benchmarks.open_sets(FakeStage(tmp_path, [*from_hub, "data.benchmarks=[mine]"]))
