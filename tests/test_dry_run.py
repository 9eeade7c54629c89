"""A dry run: narrow copies of real architectures, checks, and nothing of a real run touched."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import ROOT

from psr_lib import (
    architectures,
    commands,
    dry_run,
    manifest,
    models,
    preflight,
    presets,
    prompts,
    requirements,
    shipped,
    stand_in,
    targets,
)
from psr_lib.models import load_model, load_tokenizer
from psr_lib.presets.sections import Train
from psr_lib.records import PSRError
from psr_lib.run_dirs import Key, RunDir

FAMILY = prompts.load("paper")
REAL = ("smol", "qwen2.5-math-1.5b", "paper-7b", "paper-72b")


def check(preset, keys, seed=0):
    """What a run of these stages needs of this machine, said as `targets` has it said."""
    requirements.check(preset, RunDir(preset.name, seed, "nowhere"), keys)


def states(rows, what):
    return [row.state for row in rows if what in row.what]


# --- what stands in for a model -----------------------------------------------------------------


@pytest.mark.parametrize("name", REAL)
def test_a_narrow_copy_is_of_the_same_architecture_and_small(name):
    base, tokenizer = presets.load(name).model.base, stand_in.make_tokenizer(FAMILY)
    real = architectures.config(base)[0]
    for wide in (False, True):
        config = stand_in.narrow(real, tokenizer, wide)
        with torch.device("meta"):
            model = stand_in.untrained(config)
        assert type(config) is type(real) and config.tie_word_embeddings == real.tie_word_embeddings
        assert config.max_position_embeddings == real.max_position_embeddings
        heads, kept = config.num_attention_heads, config.num_key_value_heads
        assert heads / kept == real.num_attention_heads / real.num_key_value_heads
        assert (heads == real.num_attention_heads) or not wide
        assert wide or model.num_parameters() < 700_000
        assert model.config.num_hidden_layers == 2 < real.num_hidden_layers


def test_a_stand_in_is_a_model_folder_and_the_same_each_time(tmp_path):
    one, two = (stand_in.make("Qwen/Qwen2.5-Math-7B", FAMILY, tmp_path / n) for n in "ab")
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    assert stand_in.make("Qwen/Qwen2.5-Math-7B", FAMILY, tmp_path / "a") == one
    config = json.loads((one / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForCausalLM"]
    tokenizer = load_tokenizer(one)
    text = FAMILY.render(
        tokenizer, FAMILY.judge("Tom has 47 pens.", [], "Step 1: 4.", "Step 1: 7.")
    )
    assert text.endswith("assistant\n") and tokenizer.decode(tokenizer(text).input_ids) == text
    assert [tokenizer.decode(i) for i in tokenizer("47").input_ids] == ["4", "7"]
    assert load_model(one, "bfloat16", "cpu").config.hidden_size >= stand_in.HIDDEN


# --- checks that run nothing --------------------------------------------------------------------


def look(name, overrides=""):
    preset = presets.load(name, overrides)
    return preflight.look(preset, RunDir(name), [Key("01_data_prep"), Key("02_init", "psrlm", 1)])


def test_a_preset_of_a_large_model_is_checked_without_it(monkeypatch):
    monkeypatch.setenv(preflight.KEY, "a secret")
    rows = look("paper-7b", "data.benchmark_folder=data/tiny")
    assert preflight.failed(rows) == []
    assert (
        states(rows, "Qwen2.5-Math-7B, weights") == states(rows, "data.source") == ["not checked"]
    )
    assert states(rows, "data.benchmark_folder") == ["checked"]
    assert states(rows, "train.launch=fsdp") == states(rows, "disk")[:1] == ["checked"]
    text = preflight.table(rows)
    assert "OPENAI_API_KEY is set, and was not used" in text and "a secret" not in text
    assert "7,615,616,512 parameters" in text


@pytest.mark.parametrize(
    ("override", "what", "words"),
    [
        ("data.source=nowhere.jsonl", "data.source", "nowhere.jsonl: no such file"),
        ("prm.labels=labels.jsonl", "prm.labels", "labels.jsonl: no such file"),
        ("model.base=nobody/nothing", "nobody/nothing", "no configuration on this machine"),
        ("model.dtype=float16 model.device=cpu", "number formats", "no fast float16"),
        ("engine.tensor_parallel=8", "Qwen2.5-Math-7B, heads", "28 heads over tensor_parallel=8"),
        ("train.processes=24", "batches", "sft.batch=32, dpo.batch=32, prm.batch=128 does not"),
        ("train.launch=mine.yaml", "train.launch", "no such accelerate configuration"),
    ],
)
def test_what_would_end_a_run_is_found(override, what, words):
    wrong = preflight.failed(look("paper-7b", override))
    assert [row.what for row in wrong if what in row.what and words in row.detail], wrong


# --- the run itself -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", REAL)
def test_every_real_preset_gets_settings_that_need_nobody(name, tmp_path):
    swaps = dry_run.replaced(presets.load(name), tmp_path)
    dry = presets.load(name, " ".join(f"{key}={value}" for key, (value, _) in swaps.items()))
    assert dry.data.source == "procedural" and dry.data.benchmark_folder == "data/tiny"
    assert dry.teacher.ift == dry.teacher.judge == "oracle" and dry.data.eft_from == "direct"
    assert (ROOT / dry.model.base / "config.json").is_file()
    check(dry, [Key("02_init", "psrlm", 1), Key("03_search_judge", "psrlm", 2)])
    assert dry.dpo == replace(presets.load(name).dpo, bf16=dry.dpo.bf16)
    assert dry.prompts == "paper"


def test_a_dry_runs_batch_goes_round_the_processes_that_will_be_started(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr("psr_lib.models.device_of", lambda device: torch.device("cuda"))
    swaps = dry_run.replaced(presets.load("paper-7b"), tmp_path)
    assert "train.launch" not in swaps and swaps["sft.batch"] == (8, "")
    six = presets.load("paper-7b", "train.processes=6")
    assert dry_run.replaced(six, tmp_path)["sft.batch"] == (6, "")


@pytest.mark.parametrize(
    ("changes", "have", "build", "wanted"),
    [
        ("", 8, "0.32.0", {}),
        ("", 4, "0.32.0", {}),
        ("", 3, "0.32.0", {"engine.tensor_parallel": 2}),
        ("", 1, "0.32.0", {"engine.tensor_parallel": 1}),
        ("", 0, "0.32.0+cpu", {"engine.tensor_parallel": 1}),
        ("", 0, "0.32.0", {"engine.kind": "hf"}),
        ("engine.kind=ray", 8, "0.32.0", {}),
        ("engine.kind=ray", 4, "0.32.0", {"engine.workers": 1}),
        ("engine.kind=ray", 2, "0.32.0", {"engine.tensor_parallel": 2, "engine.workers": 1}),
        ("engine.kind=ray engine.worker=hf", 0, "0.32.0", {}),
        ("engine.kind=hf", 1, "0.32.0", {}),
    ],
)
def test_a_dry_run_takes_the_gpus_that_are_here(changes, have, build, wanted, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("psr_lib.engines.opening.find_spec", lambda name: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: have)
    monkeypatch.setattr(requirements, "vllm_on_cpu", lambda: "cpu" in build)
    swaps = dry_run._engine(presets.load("paper-7b", changes))
    assert {name: value for name, (value, _) in swaps.items()} == wanted
    rows = dry_run._announced(swaps)
    assert [row.what for row in rows[:-1]] == list(wanted), "each is announced with its reason"


def test_a_dry_run_has_rows_for_ift_more_where_the_run_has(tmp_path):
    more = [dry_run.replaced(presets.load(name), tmp_path)["data.ift_more"][0] for name in REAL]
    assert [bool(rows) for rows in more] == [presets.load(n).data.ift_more > 0 for n in REAL]
    with pytest.raises(PSRError, match=r"METHOD=ift-more: .* \(data\.ift_more=0\); give the rows"):
        presets.check_method(presets.load("smol", "data.ift_more=0"), "ift-more")
    presets.check_method(presets.load("smol"), "ift-more")


def test_a_dry_run_uses_the_runner_in_a_folder_of_its_own(tmp_path, capsys):
    """The base model's notebook is really executed; the other stages are, by hand."""
    args = ["iteration", "--preset", "paper-7b", "--n", "2", "--dry", "--runs-dir", str(tmp_path)]
    seen = []

    def first(request, keys):
        seen.append((request, keys))
        return targets.build(request, [Key("00_base_model")])

    with pytest.raises(PSRError, match="dry run: 5 of the checks above would end the real run"):
        dry_run.rehearse(commands.make_parser().parse_args(args), first)
    ((request, keys),) = seen
    assert keys[-1] == Key("05_evaluate", "psrlm", 2) and request.preset.engine.kind == "hf"
    assert request.preset.train == Train(launch="single")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dry"]
    assert (tmp_path / "dry/paper-7b/seed0/base/manifest.json").is_file()
    said = capsys.readouterr().out
    for words in ("procedural: problems", "untrained, narrow", "vllm is not installed",
                  "gone through in", "what was checked", "it may be removed"):  # fmt: skip
        assert words in said, words


@pytest.mark.slow
def test_a_stage_that_failed_is_not_checked_by_what_an_earlier_dry_run_left(tmp_path, monkeypatch):
    words = ["iteration", "--preset", "smoke", "--n", "1", "--dry", "--runs-dir", str(tmp_path)]
    key, seen = Key("00_base_model"), []
    monkeypatch.setattr(preflight, "look", lambda *args: [])

    def first(request, keys):
        seen.append(request)
        return targets.build(request, [key])

    with pytest.raises(PSRError, match="dry run"):
        dry_run.rehearse(commands.make_parser().parse_args(words), first)
    (request,) = seen
    folder = request.run.folder(key)
    assert dry_run._stage(request, key).state == "checked"
    request.preset = replace(request.preset, prompts="paper")
    assert dry_run._stage(request, key).state == "wrong"
    request.preset = replace(request.preset, prompts="compact")
    assert dry_run._stage(request, key).state == "checked"
    manifest.set_aside(folder)
    assert manifest.read(folder) and dry_run._stage(request, key).state == "wrong"


def test_only_an_iteration_has_a_dry_run(capsys):
    assert commands.main(["reproduce", "--preset", "paper-7b", "--dry"]) == 2
    assert "DRY=1 goes with make iteration" in capsys.readouterr().err


# --- what a machine lacks -----------------------------------------------------------------------


def test_what_is_missing_is_said_before_the_first_stage(monkeypatch):
    """A missing engine would else be found after M1 was trained."""
    monkeypatch.setattr("psr_lib.models.slow_bfloat16", lambda device: False)
    search, train = Key("03_search_judge", "psrlm", 2), Key("02_init", "psrlm", 1)
    with pytest.raises(PSRError, match="vllm is not installed"):
        check(presets.load("smol", "engine.kind=vllm"), [train, search])
    check(presets.load("smol", "engine.kind=vllm"), [train])
    with pytest.raises(PSRError, match="there is none here"):
        check(presets.load("smol", "train.launch=fsdp model.device=cpu"), [train])
    uneven = presets.load("smol", "train.launch=ddp train.processes=3 model.device=cpu dpo.batch=3")
    with pytest.raises(PSRError, match=r"sft\.batch of \d+ rows does not divide over 3"):
        check(uneven, [train, Key("04_step_dpo", "psrlm", 2)])


@pytest.mark.parametrize("changes", ["engine.kind=server", "engine.kind=ray engine.workers=1"])
def test_an_engine_that_cannot_hold_the_chains_weights_is_found_before_they_are_trained(
    changes, monkeypatch
):
    data, search = Key("01_data_prep"), Key("03_search_judge", "psrlm", 2)
    monkeypatch.setattr("psr_lib.engines.opening.find_spec", lambda name: True)
    words = r"engine\.kind to hf or vllm" if "server" in changes else r"engine\.workers=1: the tree"
    preset = presets.load("smoke", f"data.eft_from=chain {changes}")
    with pytest.raises(PSRError, match=words):
        check(preset, [data, search])
    check(preset, [search])
    check(presets.load("smoke", changes), [data, search])  # the oracle builds its pairs
    rows = preflight.look(preset, RunDir("smoke"), [data])
    assert states(rows, "data.eft_from=chain") == ["wrong"]


def test_rows_that_ship_need_no_engine_of_their_own(monkeypatch):
    preset, data = presets.load("tiny", "engine.kind=server"), Key("01_data_prep")
    monkeypatch.setattr(shipped, "ahead", lambda preset, run: ROOT if run.seed == 0 else None)
    check(preset, [data])
    with pytest.raises(PSRError, match=r"set engine\.kind to hf or vllm"):
        check(preset, [data], seed=7)
    with pytest.raises(PSRError, match=r"set engine\.kind to hf or vllm"):
        check(preset, [Key("01_data_prep", "srlm")])


def test_a_key_that_will_be_asked_for_is_missed_before_the_first_stage(tmp_path, monkeypatch):
    monkeypatch.setattr("psr_lib.models.slow_bfloat16", lambda device: False)
    monkeypatch.setenv(preflight.KEY, "a secret")
    data, srlm, search = (
        Key("01_data_prep"), Key("01_data_prep", "srlm"), Key("03_search_judge", "psrlm", 2)
    )  # fmt: skip
    here, measured = RunDir("smol", 0, tmp_path), Key("05_evaluate", "reference")
    asked = [("teacher.judge=api", data, "teacher.judge=api"),
             ("teacher.judge=api", srlm, "teacher.judge=api"),
             ("teacher.ift=api", data, "teacher.ift=api"),
             ("engine.kind=server engine.url=https://host/v1", search, "engine.kind=server"),
             ("", measured, "METHOD=reference")]  # fmt: skip
    for changes, key, _ in asked:
        requirements.check(presets.load("smol", changes), here, [key])
    monkeypatch.delenv(preflight.KEY)
    for changes, key, name in asked:
        with pytest.raises(PSRError, match=f"^{name}: OPENAI_API_KEY is not set, and https://"):
            requirements.check(presets.load("smol", changes), here, [key])
    judged = presets.load("smol", "teacher.judge=api")
    for without in ("teacher.url=http://127.0.0.1:8000/v1", "teacher.dry_run=true"):
        requirements.check(presets.load("smol", f"teacher.judge=api {without}"), here, [data])
    requirements.check(judged, here, [search])
    here.paid.mkdir()
    (here.paid / "o1-judge.jsonl").touch()  # there may be no more to ask
    requirements.check(judged, here, [data])


def test_a_model_that_vllm_cannot_divide_is_found_before_it_is_trained(monkeypatch):
    monkeypatch.setattr("psr_lib.models.slow_bfloat16", lambda device: False)
    monkeypatch.setattr("psr_lib.engines.opening.find_spec", lambda name: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setenv(preflight.KEY, "a secret")
    search = Key("03_search_judge", "psrlm", 2)

    def load(changes):
        return presets.load("paper-7b", f"train.launch=single {changes}")

    check(load(""), [search])
    with pytest.raises(PSRError, match=r"=8: the 28 attention heads of Qwen/Qwen2\.5-Math"):
        check(load("engine.tensor_parallel=8"), [search])
    with pytest.raises(PSRError, match=r"=7: the 64 attention heads of Qwen/Qwen2\.5-72B do not"):
        check(load("engine.tensor_parallel=7"), [Key("01_data_prep"), search])
    check(load("engine.tensor_parallel=7"), [search])  # the step PRM has done its work
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(PSRError, match=r"=4: more than the 2 GPUs .* set it to 2 or lower, or"):
        check(load(""), [search])
    check(load("engine.kind=ray"), [search])  # a cluster may have more
    check(load("engine.kind=hf"), [search])
    monkeypatch.setattr(requirements.metadata, "version", lambda name: "0.32.0+cpu")
    check(load(""), [search])


@pytest.mark.parametrize(
    ("machine", "capability", "slow"),
    [("x86_64", "AVX2", True), ("AMD64", "DEFAULT", True), ("x86_64", "AVX512", False),
     ("arm64", "DEFAULT", False)],
)  # fmt: skip
def test_a_cpu_without_bfloat16_is_known(machine, capability, slow, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert models.slow_bfloat16(torch.device("cpu")) is slow
    assert not models.slow_bfloat16(torch.device("cuda"))


def test_bfloat16_on_a_cpu_that_has_none_names_the_settings(monkeypatch, tmp_path):
    for place in (models, dry_run):
        monkeypatch.setattr(place, "slow_bfloat16", lambda device: True)
    data, train = Key("01_data_prep"), Key("02_init", "psrlm", 1)
    smol = presets.load("smol", "model.device=cpu")
    with pytest.raises(PSRError, match=r"; set sft\.bf16=false$"):
        check(smol, [train])
    with pytest.raises(PSRError) as caught:
        check(smol, [data, train])
    found = str(caught.value).partition("; set ")[2]
    assert found == "model.dtype=float32 prm.bf16=false sft.bf16=false"
    check(presets.load("smol", f"model.device=cpu {found}"), [data, train])
    with pytest.raises(PSRError, match=r"set engine\.dtype=float32$"):
        check(presets.load("tiny", "engine.dtype=bfloat16"), [data])
    assert states(look("smol", "model.device=cpu"), "number formats") == ["warning"]
    swaps = dry_run.replaced(smol, tmp_path)
    dry = presets.load("smol", " ".join(f"{key}={value}" for key, (value, _) in swaps.items()))
    check(dry, [data, train, Key("04_step_dpo", "psrlm", 2)])
