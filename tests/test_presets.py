"""Presets: every key there and commented, bad values refused in one line, overrides typed."""

import re
from operator import attrgetter

import pytest
import yaml

from psr_lib import presets
from psr_lib.presets import load, names, quoted, split_overrides
from psr_lib.records import PSRError


@pytest.mark.parametrize("name", names())
def test_every_preset_loads_and_is_named_as_its_file(name):
    assert load(name).name == name


@pytest.mark.parametrize("name", names())
def test_every_key_is_commented_with_its_source(name):
    text = (presets.FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    for line in text.splitlines():
        if re.match(r"\s*\w+: *\S", line) and not line.startswith("#"):
            assert re.search(r"# .*(paper|laboratory choice)", line), line


def test_tiny_holds_what_the_issue_asks_for():
    tiny = load("tiny")
    assert tiny.rounds == 4 and tiny.search.width == 6
    assert tiny.data.questions >= (150, 300, 450) and tiny.data.benchmark_size >= 300
    assert tiny.data.eft_heldout == 500 and tiny.eval.search_rounds == (1, 4)


PAPER = {  # section 4 of the paper, and Eq. 8
    "rounds": 4, "data.ift": 28889, "data.eft": 4179, "data.eft_heldout": 500,
    "data.questions": (400, 800, 1200), "data.source": "numina", "data.benchmark_size": 0,
    "data.benchmarks": ("gsm8k", "math", "gaokao2023en", "olympiadbench", "aime2024", "amc2023"),
    "teacher.ift": "api", "teacher.judge": "api", "teacher.model": "o1",
    "search.width": 6, "search.temperature": 0.5, "search.top_p": 0.95,
    "search.max_iterations": 20, "search.tie": "rollback", "search.scoring": "ordered",
    "sft.epochs": 3, "sft.lr": 1e-6, "sft.batch": 32, "sft.lora_r": 0,
    "dpo.epochs": 1, "dpo.lr": 5e-7, "dpo.batch": 32, "dpo.lora_r": 0, "dpo.nll_weight": 0.0,
    "prm.base": "Qwen/Qwen2.5-72B", "prm.labels": "prm800k", "prm.epochs": 1, "prm.lr": 1e-5,
    "prm.batch": 128, "prm.lora_r": 0, "tree.iterations": 100, "tree.simulation_depth": 3,
    "tree.temperature": 0.7, "tree.top_p": 0.95, "eval.judge_shots": 3,
}  # fmt: skip


@pytest.mark.parametrize("size", ["7b", "72b"])
def test_the_papers_presets_hold_the_papers_values(size):
    preset = load(f"paper-{size}")
    found = {key: attrgetter(key)(preset) for key in PAPER}
    assert found == PAPER
    assert preset.model.base == f"Qwen/Qwen2.5-Math-{size.upper()}"
    assert preset.engine.kind == "vllm" and preset.sft.bf16 and preset.dpo.bf16
    assert preset.eval.search_rounds == ((1, 4) if size == "72b" else ())


@pytest.mark.parametrize("name", ["smol", "qwen2.5-math-1.5b", "paper-7b", "paper-72b"])
def test_real_models_have_the_papers_prompts_sampling_and_loss(name):
    preset = load(name)
    assert preset.prompts == "paper" and preset.judge.kind == "self"
    assert (preset.search.temperature, preset.search.top_p) == (0.5, 0.95)
    assert preset.dpo.nll_weight == 0.0 and preset.dpo.loss == "sigmoid"
    assert preset.dpo.reference == preset.dpo.start_from == "previous"
    own = preset.eval.max_tokens + preset.engine.context
    assert not preset.engine.context or preset.eval.max_tokens < preset.engine.context < own


def test_smol_needs_no_server():
    smol = load("smol")
    assert smol.teacher.ift == smol.teacher.judge == smol.prm.labels == "rule"
    assert smol.engine.kind == "hf" and smol.data.source.split("+") == ["gsm_symbolic", "gsm8k"]
    assert set(smol.data.benchmarks) == {"gsm8k", "svamp", "multiarith", "gsm_symbolic"}


def test_overrides_take_the_type_of_their_field():
    changed = load("tiny", "search.width=4, dpo.lr=1e-3 data.questions=[10,20,30] sft.bf16=true")
    assert changed.search.width == 4 and type(changed.search.width) is int
    assert changed.dpo.lr == 0.001 and changed.sft.bf16 is True
    assert changed.data.questions == (10, 20, 30)
    assert load("tiny", ["search.temperature=1"]).search.temperature == 1.0
    assert load("tiny").search.width == 6


def test_overrides_split_at_commas_and_spaces_but_not_in_lists():
    assert split_overrides(" a=1,b=2  c=[1, 2] ") == ["a=1", "b=2", "c=[1, 2]"]
    assert split_overrides("") == [] and split_overrides(["a=1", "b=2"]) == ["a=1", "b=2"]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("model.base='/my models/x', rounds=2", ["model.base='/my models/x'", "rounds=2"]),
        ('model.base="/o\'neil/a, b" rounds=2', ['model.base="/o\'neil/a, b"', "rounds=2"]),
        ("lab.audit=['a b/c]', \"d, e\"] a=1", ["lab.audit=['a b/c]', \"d, e\"]", "a=1"]),
        ("data.fields={question: 'my }', b: c} a=1", ["data.fields={question: 'my }', b: c}",
                                                     "a=1"]),
        ("model.base=/o'neil/x data.source=o'hara/y", ["model.base=/o'neil/x",
                                                      "data.source=o'hara/y"]),
        ("model.base='open a=1", ["model.base='open", "a=1"]),
        ("lab.audit=[it's] model.base='x y'", ["lab.audit=[it's]", "model.base='x y'"]),
        ("a='' b=1", ["a=''", "b=1"]),
    ],
)  # fmt: skip
def test_quotes_keep_a_value_whole(text, pieces):
    assert split_overrides(text) == pieces


def test_a_quoted_value_is_read_without_its_quotes():
    changed = load("tiny", "model.base='/my models/x' lab.audit=['a, b', c d] search.width='4'")
    assert changed.model.base == "/my models/x" and changed.search.width == 4
    assert changed.lab.audit == ("a, b", "c d")
    with pytest.raises(PSRError, match=r"override 'models/x': .* in quotes: model\.base='my mod"):
        load("tiny", "model.base=/my models/x")


@pytest.mark.parametrize("value", ["/a b/c", "/o'neil/a b", "x,y", "[1, 2]", "plain", "", 3])
def test_a_quoted_text_comes_back(value):
    (piece,) = split_overrides(f"key={quoted(value)}")
    assert piece.removeprefix("key=").strip("'\"") == str(value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("search.wdth=3", "did you mean 'search.width'"),
        ("search.width=1", "search.width: 1 is too small"),
        ("search.width=2.5", "expected int"),
        ("search.width=true", "expected int"),
        ("search.temperature=-0.1", "too small"),
        ("search.temperature=nan", "expected float"),
        ("search.top_p=0", "more than 0"),
        ("search.top_p=1.1", "too large"),
        ("search.tie=rolback", "did you mean 'rollback'"),
        ("sft.bf16=maybe", "expected bool"),
        ("dpo.lr=fast", "expected float"),
        ("data.questions=3", "list such as"),
        ("data.questions=[1,x,3]", "expected int"),
        ("data.questions=[1,2]", "one count a round"),
        ("data.benchmarks=[easy,easy]", "differ"),
        ("data.split=train", "choose one of dev, test"),
        ("rounds=0", "too small"),
        ("rounds=5", "one count a round"),
        ("name=other", "cannot be set"),
        ("search=3", "cannot be set"),
        ("search.width", "key=value"),
        ("search.width=", "key=value"),
        ("search.width=[", "not a value"),
    ],
)
def test_bad_overrides_are_one_line_that_names_the_key(override, words):
    with pytest.raises(PSRError) as caught:
        load("tiny", [override])
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_list_of_files_may_be_empty_and_other_lists_may_not():
    assert load("tiny").lab.audit == ()
    assert load("tiny", "lab.audit=[a/b.jsonl, c]").lab.audit == ("a/b.jsonl", "c")
    with pytest.raises(PSRError, match=r"data\.benchmarks"):
        load("tiny", "data.benchmarks=[]")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ("dpo.min_margin=2 dpo.filters=[length]", "min_margin=2.0 has no effect.*add margin to"),
        ("dpo.length_ratio=0.5 dpo.filters=[margin]", "length_ratio=0.5 .*add length to dpo.filt"),
        ("search.kind=mcts search.tie=first", "search.tie=first .*set search.tie=rollback"),
    ],
)
def test_a_setting_that_nothing_would_read_is_refused(changes, words):
    with pytest.raises(PSRError, match=words):
        load("tiny", changes)
    load("tiny", changes.split()[0])


@pytest.mark.parametrize("name", ["engine", "reference"])
def test_an_address_holds_no_secret(name):
    with pytest.raises(PSRError, match=rf"{name}\.url.*OPENAI_API_KEY"):
        load("tiny", f"{name}.url=http://me:secret@host/v1")


@pytest.mark.parametrize("name", ["tinny", "", "../presets/tiny", "tiny.yaml"])
def test_unknown_presets_are_refused_with_the_known_names(name):
    with pytest.raises(PSRError, match="tiny"):
        load(name)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            "teacher.ift=api",
            "teacher.ift=api does not go with data.source=procedural; set it to or",
        ),
        (
            "data.source=gsm8k",
            "teacher.ift=oracle does not go with data.source=gsm8k; set it to ru",
        ),
        (
            "data.source=gsm8k teacher.ift=rule data.eft_from=direct",
            "data.eft_from=direct does not go with data.source",
        ),
        ("data.source=x teacher.ift=rule", "teacher.judge=oracle does not go"),
        ("teacher.judge=rule", "teacher.judge=rule does not go with data.source=procedural"),
        ("prm.labels=rule", "prm.labels=rule does not go with data.source=procedural"),
        (
            "data.source=x teacher.ift=api data.eft_from=chain teacher.judge=api",
            "prm.labels=oracle",
        ),
    ],
)
def test_no_oracle_is_asked_about_real_problems(overrides, words):
    with pytest.raises(PSRError, match=f"preset tiny: {words}"):
        load("tiny", overrides)
    real = "data.source=x teacher.ift=rule data.eft_from="
    assert load("tiny", f"{real}none").teacher.judge == "oracle"
    assert load("tiny", f"{real}chain teacher.judge=api prm.labels=prm800k").prm.labels == "prm800k"
    assert load("tiny", f"{real}chain teacher.judge=rule prm.labels=rule").prm.labels == "rule"


def test_a_file_with_an_unknown_or_missing_key_is_refused(tmp_path, monkeypatch):
    values = yaml.safe_load((presets.FOLDER / "tiny.yaml").read_text(encoding="utf-8"))
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    values["search"]["widht"] = values["search"].pop("width")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(PSRError, match=r"search: unknown key 'widht'; did you mean 'width'"):
        load("mine")
    del values["search"]["widht"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(PSRError, match=r"search: key 'width' is missing"):
        load("mine")


def test_a_section_hash_depends_on_its_sections_alone():
    plain, other = load("tiny"), load("tiny", "eval.max_tokens=64")
    assert plain.section_hash("search", "judge") == other.section_hash("search", "judge")
    assert plain.section_hash("eval") != other.section_hash("eval")


def test_yaml_and_override_spell_a_number_the_same_way():
    lr = load("tiny").dpo.lr
    assert load("tiny", f"dpo.lr={lr:.1e}").section_hash("dpo") == load("tiny").section_hash("dpo")
