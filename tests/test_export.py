"""Exports: loaded by transformers alone they are M[n], merged; no other folder is overwritten."""

import fcntl
import json

import pytest
import torch
from card_runs import evaluate, finish, make_run
from huggingface_hub import ModelCard
from peft import LoraConfig, PeftModel, get_peft_model
from tiny_model import make_tiny_model, random_model, word_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from psr_lib import architectures, commands, export, locks, manifest
from psr_lib.models import ADAPTER, load_model, save_adapter, save_model
from psr_lib.records import PSRError, read_json, write_json
from psr_lib.run_dirs import Key

IDS = torch.tensor([[3, 5, 8, 4, 6, 9, 2, 7]])
TEMPLATE = "{% for turn in messages %}{{ turn['content'] }}{% endfor %}"
DPO = Key("04_step_dpo", "psrlm", 2)


def logits(model):
    with torch.inference_mode():
        return model(IDS).logits


@pytest.fixture
def run(tmp_path):
    """A run whose M1 has weights; M2 is a LoRA adapter on it, with a tokenizer of its own."""
    run = make_run(tmp_path / "runs")
    base, tokenizer = run.model("psrlm", 1), word_tokenizer()
    tokenizer.chat_template = TEMPLATE
    make_tiny_model(base, seed=1, tokenizer=tokenizer)
    finish(run, Key("02_init", "psrlm", 1))
    save_adapter(lora(base), base, run.model("psrlm", 2))
    tokenizer.save_pretrained(run.model("psrlm", 2))
    finish(run, DPO, {"run:psrlm/M1/model": {"hash": manifest.fingerprint(base)}})
    return run


def lora(base):
    """An adapter whose weights are far from 0, so that its merging shows."""
    torch.manual_seed(7)
    config = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(load_model(base, "float32", "cpu"), config)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return model


def loaded(folder):
    """The model as a user of transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()


def test_an_exported_adapter_has_the_logits_of_base_and_adapter(run):
    base = load_model(run.model("psrlm", 1), "float32", "cpu")
    before = logits(base)
    both = PeftModel.from_pretrained(base, str(run.model("psrlm", 2)))
    wanted = logits(both)
    found = logits(loaded(export.export(run, "psrlm", 2)))
    assert torch.allclose(found, wanted, atol=1e-5)
    assert not torch.allclose(before, wanted, atol=1e-1), "the adapter does something"


def test_a_whole_model_is_exported_as_it_is(run):
    folder = export.export(run, "psrlm", 1)
    wanted = logits(load_model(run.model("psrlm", 1), "float32", "cpu"))
    assert torch.equal(logits(loaded(folder)), wanted)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_weights_have_the_presets_number_format(run, dtype):
    path = run.model("psrlm", 1) / manifest.NAME
    made = read_json(path)
    made["params"]["model"]["dtype"] = dtype
    write_json(path, made)
    folder = export.export(run, "psrlm", 1)
    assert loaded(folder).dtype == getattr(torch, dtype)
    assert read_json(folder / "config.json")["dtype"] == dtype


def test_the_folder_holds_what_readers_ask_for(run):
    evaluate(run, "psrlm")
    folder = export.export(run, "psrlm", 2)
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "generation_config.json", "tokenizer.json",
            "tokenizer_config.json", "chat_template.jinja", "README.md", "DATA_CARD.md",
            "export.json"} == names  # fmt: skip
    config = read_json(folder / "config.json")
    assert config["architectures"] == ["LlamaForCausalLM"], "vLLM chooses its class by it"
    assert read_json(folder / "generation_config.json")["eos_token_id"] == 1
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    turns = [{"role": "user", "content": "Problem"}]
    assert tokenizer.apply_chat_template(turns, tokenize=False) == "Problem"
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "apache-2.0" and card.data.eval_results[0].metric_value == 62.5
    mark = read_json(folder / "export.json")
    assert mark["from"] == manifest.fingerprint(run.model("psrlm", 2))
    assert set(mark["files"]) == names - {"export.json"}


def test_a_tokenizer_that_an_adapter_lacks_is_its_bases(run):
    source = run.model("psrlm", 2)
    for path in source.iterdir():
        if "token" in path.name or "template" in path.name:
            path.unlink()
    finish(run, DPO, read_json(source / manifest.NAME)["inputs"])
    folder = export.export(run, "psrlm", 2)
    assert AutoTokenizer.from_pretrained(folder, local_files_only=True).eos_token_id == 1


def test_an_export_is_replaced_by_a_new_one(run):
    folder = export.export(run, "psrlm", 1, str(run.path / "out"))
    make_tiny_model(run.model("psrlm", 1), seed=2)
    finish(run, Key("02_init", "psrlm", 1))
    first = read_json(folder / "export.json")["from"]
    assert export.export(run, "psrlm", 1, str(run.path / "out")) == folder
    assert read_json(folder / "export.json")["from"] != first
    wanted = logits(load_model(run.model("psrlm", 1), "float32", "cpu"))
    assert torch.equal(logits(loaded(folder)), wanted)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [("thesis.tex", "x", "holds files that are no export"), ("", "", "a file")],
)
def test_a_folder_that_is_no_export_is_not_overwritten(run, tmp_path, name, text, words):
    target = tmp_path / "mine"
    target.mkdir() if name else target.write_text("x")
    if name:
        (target / name).write_text(text)
    with pytest.raises(PSRError, match=words):
        export.export(run, "psrlm", 1, str(target))
    assert not name or [path.name for path in target.iterdir()] == [name]


def test_a_file_that_was_put_into_an_export_is_not_lost(run):
    folder = export.export(run, "psrlm", 1)
    (folder / "notes.md").write_text("mine")
    with pytest.raises(PSRError, match=r"notes.md is not of the export"):
        export.export(run, "psrlm", 1)
    assert (folder / "notes.md").read_text() == "mine"


def test_an_empty_folder_is_taken(run, tmp_path):
    (tmp_path / "new").mkdir()
    assert export.export(run, "psrlm", 1, str(tmp_path / "new")).joinpath("export.json").is_file()


def test_a_model_that_does_not_verify_is_refused(run):
    with open(run.model("psrlm", 1) / "model.safetensors", "ab") as file:
        file.write(b"\0")
    with pytest.raises(PSRError, match=r"model.safetensors changed after it was written"):
        export.export(run, "psrlm", 1)
    assert not (run.round("psrlm", 1) / "export").exists()


def test_an_adapter_on_another_base_is_refused(run):
    save_model(random_model(len(word_tokenizer()), 9), word_tokenizer(), run.model("psrlm", 1))
    with pytest.raises(PSRError, match="this adapter is for another base"):
        export.export(run, "psrlm", 2)
    config = run.model("psrlm", 2) / ADAPTER
    config.write_text(json.dumps(read_json(config) | {"r": 3}))
    with pytest.raises(PSRError, match=r"adapter_config.json changed"):
        export.export(run, "psrlm", 2)


@pytest.mark.parametrize(("n", "words"), [(0, "the base model itself"), (3, "no complete M3")])
def test_a_model_that_is_not_there_is_one_line(run, n, words):
    with pytest.raises(PSRError, match=words):
        export.export(run, "psrlm", n)


def test_the_command_says_what_to_do_next(run, capsys):
    args = ["export", "--preset", "smoke", "--runs-dir", str(run.root)]
    assert commands.main([*args, "--n", "1"]) == 0
    shown = capsys.readouterr().out.splitlines()
    place = str(run.round("psrlm", 1) / "export")
    assert shown[0] == f"exported to {place}" and f"vllm serve {place}" in shown[1]
    assert commands.main([*args, "--n", "3"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert commands.main(args) == 2 and "N is missing" in capsys.readouterr().err
    with open(run.path / locks.RUN, "w") as file:  # as another process has it
        fcntl.flock(file, fcntl.LOCK_EX)
        assert commands.main([*args, "--n", "1"]) == 2
    assert "in use by another process" in capsys.readouterr().err


def test_an_adapters_size_is_what_a_plan_says(monkeypatch):
    model = random_model(40, num_key_value_heads=1)
    monkeypatch.setattr(architectures, "config", lambda base, **_: (model.config, "a test"))
    config = LoraConfig(r=3, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    found = architectures.of.__wrapped__("a test's model")
    assert found.adapter(3) == found.trained(3) == trained
