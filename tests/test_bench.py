"""The benchmark's own arithmetic, on a scripted engine: it must not flatter anyone."""

import resource
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT
from scripted import Scripted, questions, random_script

from psr_lib import (
    architectures,
    bench,
    bench_memory,
    bench_rates,
    items,
    prompts,
    rate_table,
    readme_items,
    readme_speed,
    why,
)
from psr_lib.engines.hf import HFEngine
from psr_lib.presets import load
from psr_lib.prompts import Family
from psr_lib.records import (
    PSRError,
    Question,
    read_json,
    read_jsonl,
    seed_of,
    write_json,
    write_jsonl,
)
from psr_lib.run_dirs import RunDir

ASKED = questions(10, 2)


class Counting(Scripted):
    """A scripted engine that counts as real ones do."""

    tokenizer = None

    def sample(self, prompts, **settings):
        found = super().sample(prompts, **settings)
        self.usage.generated += sum(c.tokens for some in found for c in some)
        return found


def subject(table=2, asked=ASKED, **changes):
    overrides = [f"search.{key}={value}" for key, value in changes.items()]
    return bench_rates.Subject(load("tiny", overrides), Counting(random_script(table)), asked, 7)


@pytest.mark.parametrize("together", [False, True])
def test_the_timed_literal_loop_makes_the_same_pairs_with_every_call(together):
    pairs = 0
    for table in range(6):
        one = subject(table)
        loop = one.literal(together)
        ours = one.search()
        calls = len(one.engine.asked)
        assert loop.run(ASKED) == [[bench_rates._plain(p) for p in t.pairs] for t in ours]
        overflow = any(t.status == "overflow" for t in ours)
        assert overflow or loop.calls == bench_rates.judge_calls(ours)["literal_calls"]
        assert len(one.engine.asked) > calls
        pairs += sum(len(t.pairs) for t in ours)
    assert pairs > 50


@pytest.mark.parametrize("slices", [False, True])
def test_a_literal_comparison_covers_every_problem(slices):
    row = bench_rates.against_literal(subject(), 3, False, slices)
    assert row["identical_problems"] == row["compared_problems"] == 10 and row["pairs"] > 0
    assert row["ratio"]["runs"] == 3 and row["sliced"] == slices
    assert row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"]


def test_a_difference_from_the_literal_loop_is_seen():
    one = subject()
    literal = one.literal(False)
    literal.seed = 8
    object.__setattr__(one, "literal", lambda together: literal)
    row = bench_rates.against_literal(one, 1, False, False)
    assert row["identical_problems"] < row["compared_problems"]


def test_rates_replay_just_what_the_search_asked():
    one = subject()
    recorder = bench_rates.Recorder(one.engine)
    row = bench_rates.token_rates(one, recorder, 2)
    assert len(recorder.asked) > len(one.questions)
    assert row["generated_tokens"] == row["raw_generated_tokens"] > 0
    assert row["ratio"]["runs"] == 2 and row["search_rate"] > 0
    assert row["search_calls_made"] < row["search_literal_calls"]


def test_turns_change_their_order():
    log = []
    seconds = bench_rates.in_turns(3, {"a": lambda: log.append("a"), "b": lambda: log.append("b")})
    assert "".join(log) == "abbaab" and [len(s) for s in seconds.values()] == [3, 3]
    assert bench_rates.ratio([4, 1, 9], [2, 1, 3]) == {"median": 2, "low": 1, "high": 3, "runs": 3}


def test_memory_is_measured_on_the_whole_way_to_the_files():
    row = bench_memory.measure(25, "", "", "search.live=4")
    assert row["problems"] == 25 and row["pairs"] > 25 and row["peak_mib"] > 5
    assert row["pairs"] == bench_memory.measure(25, "", "", "search.live=25")["pairs"]


def test_memory_and_time_of_processes_that_search_by_themselves_count(tmp_path):
    asked = [Question(id="0", text="Tom has 4 pens. How many pens does Tom have?")]
    write_jsonl(tmp_path / "asked.jsonl", asked)
    settings = "search.width=2 search.max_iterations=2 search.max_step_tokens=20 judge.max_tokens=4"
    model = str(ROOT / "data/tiny/base")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    row = bench_memory.measure(8, model, str(tmp_path / "asked.jsonl"), settings)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if HFEngine.load(model, "float32", "cpu").spreads:
        assert row["cpu_seconds"] >= after.ru_utime - before.ru_utime > 0
    assert row["peak_mib"] * 1024 >= after.ru_maxrss


def options(tmp_path, *more):
    return ["--model", str(tmp_path / "no"), "--out", str(tmp_path / "b.json"), *more]


def test_missing_parts_are_told_in_a_line_and_the_rest_goes_on(tmp_path, capsys):
    assert bench.main(options(tmp_path, "--only", "smol,rates,vlm")) == 2
    out, err = capsys.readouterr()
    assert "skipped: no --smol FOLDER" in out
    assert "give --model" in err and "did you mean 'vllm'" in err
    assert read_json(tmp_path / "b.json") == {"parts": {}}
    assert str(tmp_path) not in (tmp_path / "b.json").read_text()


def test_questions_come_from_the_models_own_run(tmp_path):
    args = SimpleNamespace(model=str(tmp_path / "psrlm/M1/model"), questions="")
    with pytest.raises(PSRError, match="--questions"):
        bench.questions_of(args, 1)
    for n in (2, 3):
        write_jsonl(tmp_path / f"data/questions_{n}.jsonl", questions(4, n))
    assert [q.id for q in bench.questions_of(args, 6)][3:5] == ["t2/3", "t3/0"]
    with pytest.raises(PSRError, match="8 questions, 9 wanted"):
        bench.questions_of(args, 9)


class ByText(Family):
    """Reads a verdict from every letter of an explanation, so that none may differ.

    The base model was never taught to judge: it goes on from both steps, which depends on both.
    """

    def judge(self, question, prefix, step_a, step_b, shots=()):
        return self.solve(question, [*prefix, step_a, step_b])

    @staticmethod
    def verdict(text):
        return "AB"[seed_of(text) % 2]


def test_the_search_equals_the_literal_loop_on_the_tiny_model_in_float32(monkeypatch):
    """Exact equality on transformers, whatever is in a batch (base model, fp32)."""
    base = ROOT / "data/tiny/base"
    family = ByText(**vars(prompts.load("compact")))
    changes = ["search.width=4", "search.max_iterations=4", "search.max_step_tokens=60",
               "search.temperature=1.3", "judge.max_tokens=12"]  # fmt: skip
    preset, engine = load("tiny", changes), HFEngine.load(base, "float32", "cpu")
    rows = read_jsonl(ROOT / "data/tiny/dev/words.jsonl")[:3]
    asked = [Question(id=str(k), text=row["question"]) for k, row in enumerate(rows)]
    one = bench_rates.Subject(preset, engine, asked, 3)
    monkeypatch.setattr(bench_rates.Subject, "family", family)
    ours = [[bench_rates._plain(pair) for pair in trace.pairs] for trace in one.search()]
    assert one.literal(False).run(asked) == ours and sum(map(len, ours)) > 1


def test_reading_is_timed_over_the_tokens_that_went_through_the_model():
    engine = HFEngine.load(ROOT / "data/tiny/base", "float32", "cpu")
    changes = ["search.width=2", "search.max_iterations=1", "search.max_step_tokens=8",
               "judge.max_tokens=4"]  # fmt: skip
    asked = [Question(id="0", text="Tom has 4 pens. How many pens does Tom have?")]
    one = bench_rates.Subject(load("tiny", changes), engine, asked, 3)
    read, recorder = [], bench_rates.Recorder(engine)
    one.search(recorder)
    choose = engine.choose
    engine.choose = lambda *call: read.append(call) or choose(*call)
    row = bench_rates.read_rate(engine, recorder.asked, 2)
    assert row["read_rate"] > 0 and len(read) == 3, "one call warms up"
    assert all(prompts and options == [" +"] for prompts, options in read)


def test_a_rate_of_training_is_tokens_over_seconds_without_the_first_run(monkeypatch):
    runs = iter([(100, 50.0), (100, 4.0), (100, 2.0), (100, 1.0)])

    def train_sft(folder, tokenizer, rows, settings, out, seed, family, *, max_steps):
        assert (rows, settings, max_steps) == (["a row"], "settings", 7)
        return dict(zip(("tokens", "seconds"), next(runs), strict=True))

    monkeypatch.setitem(sys.modules, "psr_lib.sft", SimpleNamespace(train_sft=train_sft))
    base = ROOT / "data/tiny/base"
    found = bench_rates.train_rate(base, ["a row"], "settings", None, updates=7, repeats=3)
    assert found == {"updates": 7, "repeats": 3, "train_rate": 50.0}


def test_a_rate_names_the_model_that_it_was_measured_on():
    found = bench._subject("tiny/hf", "data/tiny/base", "float32")
    size = architectures.of("data/tiny/base").parameters
    assert found == {"model": "tiny", "kind": "hf", "parameters": size, "dtype": "float32"}


def test_what_a_part_measured_reaches_the_table_of_rates(tmp_path, monkeypatch):
    row = {"model": "tiny", "kind": "hf", "parameters": 7, "dtype": "float32", "search_rate": 9.0}

    def part(args):
        """A part."""
        return [row]

    monkeypatch.setitem(bench.PARTS, "rates", part)
    file = tmp_path / "rates.csv"
    assert bench.main(options(tmp_path, "--only", "rates", "--rates", str(file))) == 0
    (found,) = rate_table.load(file)
    assert (found.work, found.tokens_per_second, found.parameters) == ("search", 9.0, 7)
    assert str(tmp_path) not in (tmp_path / "b.json").read_text()


def test_parts_measured_earlier_stay_in_the_file_with_how_they_were_made(tmp_path, monkeypatch):
    file = tmp_path / "b.json"
    old = {"made": {"device": "another"}, "rows": [1]}
    write_json(file, {"parts": {"lossy": old, "calls": old}})
    row = {"temperature": 1.3, "fewer": 8.0, "distinct": 2.0}

    def part(args):
        """A part."""
        return [row]

    monkeypatch.setitem(bench.PARTS, "calls", part)
    assert bench.main(options(tmp_path, "--only", "calls")) == 0
    parts = read_json(file)["parts"]
    assert parts["lossy"] == old and parts["calls"]["rows"] == [row]
    assert parts["calls"]["made"]["device"] != "another"


def test_the_readme_shows_each_ratio_with_the_range_of_its_turns(tmp_path):
    made = {"device": "cpu", "git": {"commit": "0123456789"}}
    found = {"median": 21.26, "low": 9.5, "high": 30.0, "runs": 5}
    literal = {"literal loop": "a call", "ratio": found, "identical_problems": 99,
               "compared_problems": 100}  # fmt: skip
    memory = [{"engine": "e", "problems": k, "memory_ratio": ratio, "cpu_ratio": 1.0}
              for k, ratio in ((1000, 1), (10000, 1.04))]  # fmt: skip
    parts = {"memory": memory, "literal": [literal]}
    file = tmp_path / "b.json"
    assert readme_speed.speed_block(file) == readme_speed.NOT_RUN
    write_json(file, {"parts": {name: {"made": made, "rows": r} for name, r in parts.items()}})
    text = readme_speed.speed_block(file)
    assert "| 21.3 | 9.50 to 30.0, 5 turns | 99 of 100 problems have the same PPD |" in text
    assert "| peak memory | 1.04 |" in text and text.count("peak memory") == 1
    assert text.endswith("cpu, commit 01234567; start-up of engines and workers left out.\n")


def test_where_a_ratio_of_the_readme_comes_from_is_told(monkeypatch):
    block = "| what | ratio |\n|---|---|\n| peak memory | 1.04 |\n"
    (item,) = readme_items._items("speed", readme_items.cells(block), "")
    monkeypatch.setattr(items, "find", lambda known, name: item)
    line = why.explain(RunDir("tiny", 0), item.name)[2]
    assert line.strip().startswith("from  data/results/bench.json: measured by make bench")


def test_every_part_that_compares_has_a_line_in_the_readme():
    assert set(readme_speed.LINES) == set(bench.PARTS) - {"train"}
