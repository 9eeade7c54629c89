"""What notebook 08 writes from a run's folder, finished or not, and what summaries keep for it."""

from random import Random
from types import SimpleNamespace

import pytest
from card_runs import finish
from test_results import SETS, fake_run
from tiny_model import eft, ift, step_pair

from psr_lib import (
    locks,
    manifest,
    paper,
    presets,
    prompt_sheets,
    results,
    run_details,
    step_counts,
    telling,
)
from psr_lib.evaluation import read_csv, write_csv
from psr_lib.evidence import Evidence
from psr_lib.memory import Memory
from psr_lib.methods import PAPER, SEARCH
from psr_lib.records import PSRError, read_json, write_json, write_jsonl
from psr_lib.run_dirs import Key, RunDir, SeedsDir

TINY = presets.load("tiny", "paper.embedded=6 paper.perplexity=3 rounds=2")


def open_report(run):
    """A stage as notebook 08 has it: what it read, where it writes."""
    read = []

    def take(path):
        assert path.is_file(), path
        read.append(path)
        return path

    return SimpleNamespace(
        run=run, preset=TINY, read=read, holding=take, output=lambda name: run.paper / name,
        holdings=lambda: sorted(run.path.rglob(manifest.NAME)), model=lambda n: None,
    )  # fmt: skip


def add_search(run, method="psrlm", n=1, ways=("search",)):
    """Answers of other decodings to the first problem of each benchmark."""
    rows = [
        {"problem_id": f"{name}/0", "benchmark": name, "strict": True, "generated": 50,
         "judged": 70, "way": way}
        for way in ways for name in SETS
    ]  # fmt: skip
    home = run.eval(method, n)
    if len(ways) > 1:
        write_jsonl(home / "ways_answers.jsonl.gz", rows)
    else:
        write_jsonl(home / "search_answers.jsonl.gz", [{**r, "way": ways[0]} for r in rows])


def add_steps(run, answers):
    """Notebook 06's rows of every model, and the manifests that say which answers were read."""
    rows, inputs = [], {}
    for n in answers:
        home = run.eval("psrlm", n)
        place = home.parent.relative_to(run.path).as_posix()
        texts = [{**row, "text": "Step 1: a b\nStep 2: c"} for row in answers[n]]
        rows += step_counts.answer_rows(
            place, texts, lambda steps: [len(step.split()) for step in steps]
        )
        made = read_json(home / manifest.NAME)
        made["outputs"]["answers.jsonl.gz"] = {"hash": f"h{n}", "bytes": 0}
        inputs[f"run:{place}/eval/answers.jsonl.gz"] = {"hash": f"h{n}"}
        write_json(home / manifest.NAME, made)
    write_jsonl(run.steps / step_counts.FILE, rows)
    base = read_json(run.folder(Key("01_data_prep")) / manifest.NAME)
    write_json(run.steps / manifest.NAME, {**base, "outputs": {}, "inputs": inputs})


def test_a_summary_keeps_what_figures_and_claims_need(root):
    run, answers = fake_run(root / "runs")
    add_search(run)
    add_steps(run, answers)
    write_csv(run.model("psrlm", 2) / "figures" / "training.csv", [
        {"step": 1, "loss": 1.0, "rewards/margins": 0.123456, "logps/chosen": -2.0,
         "logps/rejected": -3.0, "epoch": 0.1}])  # fmt: skip
    found = results.gather(run, "psrlm", 2)
    first, second = found["models"][1:3]
    assert first["decodings"]["search"]["outcomes"] == {"big": "1--", "easy": "1---"}
    assert first["decodings"]["search"]["tokens"] == {"prefill": 0, "generated": 50, "judged": 70}
    assert first["decodings"]["search"]["spent"] == {"big": "120 - -", "easy": "120 - - -"}
    assert first["spent"]["big"] == "9 9 9" and first["judge_problems"] == "0 0 1 1 2 2 3 3 4 4"
    assert first["steps"] == {"big": "2 2 2", "easy": "2 2 2 2"}
    assert first["step_tokens"]["big"] == "3 3 3"
    assert second["training"] == {"step": [1.0], "loss": [1.0], "margin": [0.1235],
                                  "chosen": [-2.0], "rejected": [-3.0]}  # fmt: skip
    assert len(first["judge_outcomes"]) == 10 and "decodings" not in second


def test_counted_steps_are_read_once_for_all_models_and_again_when_they_change(root, monkeypatch):
    run, answers = fake_run(root / "runs")
    add_steps(run, answers)
    file, seen, read = run.steps / step_counts.FILE, [], run_details.read_jsonl
    monkeypatch.setattr(run_details, "read_jsonl", lambda path: (seen.append(path), read(path))[1])
    first = results.gather(run, "psrlm", 2)["models"]
    assert len([model for model in first if "steps" in model]) > 1 and seen.count(file) == 1
    rows = [{**row, "steps": row["steps"] + 1} for row in read(file)]
    write_jsonl(file, rows)
    assert results.gather(run, "psrlm", 2)["models"][1]["steps"]["big"] == "3 3 3"


def test_several_ways_in_one_file_and_samples_in_none(root):
    run, answers = fake_run(root / "runs")
    add_search(run, ways=("greedy", "majority", "best-of-N"))
    sampled = [{"problem_id": "easy/0", "benchmark": "easy", "strict": True, "sample": 0}]
    write_jsonl(run.eval("psrlm", 1) / "sampled_answers.jsonl.gz", sampled)
    found = run_details.of_model(run, "psrlm", 1, answers[1], lambda path: path)
    assert set(found["decodings"]) == {"majority", "best-of-N"}


def test_m0_with_its_own_template_and_sampled_answers_are_kept(root):
    run, answers = fake_run(root / "runs")
    own = [{**row, "strict": True, "generated": 5} for row in answers[0]]
    write_jsonl(run.eval("psrlm", 0) / "own_prompts.jsonl.gz", own)
    sampled = [{"problem_id": f"big/{n}", "benchmark": "big", "strict": n > k, "sample": k}
               for n in range(3) for k in range(2)]  # fmt: skip
    write_jsonl(run.eval("psrlm", 1) / "sampled_answers.jsonl.gz", sampled)
    first, second = results.gather(run, "psrlm", 2)["models"][:2]
    assert first["own_prompts"]["outcomes"] == {"big": "111", "easy": "1111"}
    assert second["sampled"] == {"k": 2, "shares": {"big": "0 0.5 1"}}
    found = Evidence([results.gather(run, "psrlm", 2)])
    assert found.share(("psrlm", "M0", "own_prompts")).value == 100
    assert found.share(("psrlm", "M1", "sampled"), ("big",)).value == pytest.approx(50)
    table = paper.more_tables.make_all(found)[0]
    labels = {row[1].shown for panel in table.panels for row in panel.rows}
    assert {"M0 (own template)", "M1 avg@2"} <= labels and "M2 avg@2" not in labels


def test_a_summary_keeps_the_judges_intervals_over_problems(root):
    run, _ = fake_run(root / "runs")
    rows = [{"problem_id": f"p/{k // 5}", "correct": k < 8, "verdict": "AB"[k % 2],
             "skill_copy": k < 5} for k in range(10)]  # fmt: skip
    write_jsonl(run.eval("psrlm", 1) / "verdicts.jsonl.gz", rows)
    kept = results.gather(run, "psrlm", 2)["models"][1]["judge_shares"]
    assert set(kept) == {"accuracy", "first_position", "skill_copy"}
    assert kept["skill_copy"] == [0.0, 1.0], "two problems, one all right and one all wrong"


def test_steps_of_other_answers_are_not_taken(root):
    run, answers = fake_run(root / "runs")
    add_steps(run, answers)
    made = read_json(run.eval("psrlm", 1) / manifest.NAME)
    made["outputs"]["answers.jsonl.gz"]["hash"] = "newer"
    write_json(run.eval("psrlm", 1) / manifest.NAME, made)
    models = results.gather(run, "psrlm", 2)["models"]
    assert "steps" not in models[1] and "steps" in models[2]


def test_the_laboratorys_rows_are_kept_as_numbers(root):
    run, _ = fake_run(root / "runs")
    write_csv(run.round("psrlm", 2) / "judge" / "other.csv", [{"a": 1}])
    write_csv(run.round("psrlm", 2) / "judge" / "table.csv", [
        {"strategy": "pairwise", "judge": "itself", "model": "M1", "consistency": 0.5,
         "agreement": None}])  # fmt: skip
    made = read_json(run.eval("psrlm", 2) / manifest.NAME)
    write_json(run.lab("psrlm", 2) / manifest.NAME, made)
    (row,) = results.gather(run, "psrlm", 2)["laboratory"]
    assert row["consistency"] == 0.5 and row["agreement"] is None and row["model"] == "M1"


def test_an_api_model_measured_beside_has_a_summary(root):
    run, _ = fake_run(root / "runs")
    assert results.gather_reference(run) is None
    made = read_json(run.eval("psrlm", 1) / manifest.NAME)
    from test_results import fake_evaluation

    fake_evaluation(run.path / "reference" / "eval", Random(5))
    made["params"] = {"engine": {"model": "some-model"}}
    write_json(run.path / "reference" / "eval" / manifest.NAME, made)
    found = Evidence([results.gather(run, "psrlm", 2), results.gather_reference(run)])
    assert found.models("reference") == ["some-model"] and found.methods == ["psrlm"]
    assert found.share(("reference", "some-model", "greedy")).problems == sum(SETS.values())


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_an_unfinished_run_is_gathered_as_far_as_it_got(root, missing):
    run, _ = fake_run(root / "runs")
    (run.eval("psrlm", missing) / manifest.NAME).unlink()
    names = [model["model"] for model in results.gather(run, "psrlm", 2)["models"]]
    assert names == [f"M{n}" for n in range(3) if n != missing]


def test_nothing_is_gathered_from_an_empty_folder(root):
    assert results.gather(RunDir("tiny", 3, root), "psrlm", 2) is None
    evidence, memory = paper.collect(open_report(RunDir("tiny", 3, root)))
    assert evidence.all == [] and memory.known == {}


def add_data(run):
    write_jsonl(run.data / "eft.jsonl", [eft(k) for k in range(9)])
    write_jsonl(run.data / "ift.jsonl", [ift(k) for k in range(9)])
    write_jsonl(run.ppd("psrlm", 2) / "ppd.jsonl", [step_pair(k) for k in range(9)])


@pytest.fixture
def tiny_folder(tmp_path_factory):
    from tiny_model import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("model") / "m")[0]


def write_all(stage):
    evidence, memory = paper.collect(stage)
    tables = paper.write_tables(stage, evidence)
    drawn = paper.write_figures(stage, evidence, memory)
    text = paper.write_prompts(stage)
    paper.write_page(stage, tables, drawn, evidence)
    return paper.counts(tables, drawn), text


def test_everything_is_written_for_a_finished_run(root, tiny_folder):
    run, answers = fake_run(root / "runs")
    for n in (1, 2):
        add_search(run, n=n)
    add_steps(run, answers)
    add_data(run)
    stage = open_report(run)
    stage.model = lambda n: tiny_folder
    counts, text = write_all(stage)
    assert counts == {"tables": 11, "of_tables": 13, "figures": 7, "of_figures": 8}
    missing = {
        one.name for one in paper.more_tables.make_all(paper.collect(stage)[0]) if not one.run
    }
    assert missing == {"table6", "controls"}, "no laboratory, and no other method"
    for name in [f"table{n}" for n in range(1, 10)] + ["claims", "controls", "judge", "budget"]:
        for kind in ("csv", "md", "tex"):
            assert (run.paper / "tables" / f"{name}.{kind}").stat().st_size > 100
    page = (run.paper / "paper.md").read_text()
    assert "(figures/figure2.png)" in page and "not run: no training curve" in page
    assert {"Figure 3", "Figure 4", "Figure 5"} == {
        f"Figure {k}" for k in "345" if f"Figure {k}." in text
    }
    assert (run.paper / "figures" / "figure2_separation.csv").is_file()
    assert run.eval("psrlm", 1) / "answers.jsonl.gz" in stage.read, "what was read is noted"
    again = open_report(run)
    _, memory = paper.collect(again)
    assert memory.known, "the map and the intervals are remembered"
    again.model = stage.model
    before = (run.paper / "figures" / "figure2.csv").read_bytes()
    write_all(again)
    assert (run.paper / "figures" / "figure2.csv").read_bytes() == before


def test_everything_is_written_for_an_empty_run(root):
    run = RunDir("tiny", 0, root / "runs")
    counts, text = write_all(open_report(run))
    assert counts == {"tables": 0, "of_tables": 13, "figures": 0, "of_figures": 8}
    assert "not run" in text and not list((run.paper / "figures").iterdir())
    page = (run.paper / "paper.md").read_text()
    assert page.count("not run") > 50 and "None" not in page and "nan" not in page


def test_several_seeds_are_one_evidence(root):
    for seed in (0, 1):
        for method in ("psrlm", "random-judge"):
            fake_run(root / "runs", method, seed)
    run = SeedsDir("tiny", 0, root / "runs", (0, 1))
    evidence, _ = paper.collect(open_report(run))
    assert evidence.methods == ["psrlm", "random-judge"]
    assert len(evidence.share(("psrlm", "M2", "greedy")).per_seed) == 2
    assert "seeds 0, 1, run at 01234567" in paper.source_of(evidence)


def test_prompts_are_those_of_the_family_with_the_runs_examples():
    found = prompt_sheets.sheets("compact", ift(0), eft(1))
    names = [(one.figure[:8], one.family) for one in found]
    assert names == [("Figure 3", "paper"), ("Figure 4", "compact"), ("Figure 4", "paper"),
                     ("Figure 5", "compact"), ("Figure 5", "paper")]  # fmt: skip
    segment = found[0].prompt
    assert ift(0).question in segment and "Step 1:" not in segment.partition("Provided]")[2]
    assert "{" not in segment.replace("\\boxed{", "")
    assert eft(1).step_a in found[3].prompt
    page = prompt_sheets.markdown(found)
    prompts_only = [line for line in page.split("\n") if not line.startswith("**")]
    assert max(map(len, prompts_only)) <= prompt_sheets.WIDTH, "a notebook would break a word"
    assert " ".join(found[-1].prompt.split()) in " ".join(page.split()), "no word is lost"
    tex = prompt_sheets.latex(found)
    assert tex.count(r"\begin{figure}") == 5 == tex.count(r"\end{figure}")


def test_the_map_of_one_of_the_runs_is_kept(root):
    runs = [RunDir("tiny", seed, root / "runs") for seed in (0, 1)]
    assert results.keep_map(runs) is None
    for name in results.MAP_FILES:
        write_csv(runs[1].paper / "figures" / name, [{"side": "prompt"}])
    assert results.keep_map(runs) is None, "notebook 08 has not finished"
    finish(runs[1], Key(PAPER))
    kept = results.keep_map(runs)
    assert kept == root / "data/results/tiny/figure2.csv" and read_csv(kept) == [{"side": "prompt"}]
    (runs[1].paper / "figures" / results.MAP_FILES[1]).write_text("side\nby hand\n")
    with pytest.raises(PSRError, match=r"figure2_separation.csv changed after it was written"):
        results.keep_map(runs)
    assert read_csv(kept.with_name(results.MAP_FILES[1])) == [{"side": "prompt"}]


def test_the_map_is_kept_while_its_run_is_held(root, monkeypatch):
    run = RunDir("tiny", 0, root / "runs")
    run.path.mkdir(parents=True)
    held = []
    monkeypatch.setattr(
        results, "keep_map", lambda runs: held.append(run.path / locks.RUN in locks._held)
    )
    assert telling._keep_map([run]) is None and held == [True]
    assert run.path / locks.RUN not in locks._held


def test_memory_is_beside_the_report_and_not_part_of_it(root):
    run, _ = fake_run(root / "runs")
    evidence, memory = paper.collect(open_report(run))
    evidence.share(("psrlm", "M1", "greedy"))
    memory.close()
    assert memory.path == run.path / "memory" / "paper.json"
    assert isinstance(memory, Memory) and not memory.path.is_relative_to(run.paper)
    assert Key(SEARCH, "psrlm", 2) in results.run_stages("psrlm", 2)
