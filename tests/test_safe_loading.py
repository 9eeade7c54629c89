"""Files that others wrote run no code here, and a key stays in the environment."""

import ast
import gzip
import json
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import teacher_server
from chain_runs import by_the_runner, opened
from conftest import ROOT
from real_pools import many, write
from teacher_server import TeacherServer
from test_teacher_api import cut_lines
from tiny_model import make_tiny_model

from psr_lib import benchmarks, data_prep, embedding, notebook_runner, presets, rounds, runs
from psr_lib.engines import vllm as vllm_engine
from psr_lib.models import load_model, load_tokenizer
from psr_lib.notebook_runner import NotebookFailed
from psr_lib.records import PSRError, read_json, write_json, write_jsonl

SECRET = "sk-planted-9f8e7d6c5b4a3210"
SOURCES = sorted((ROOT / "psr_lib").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


# --- what the code calls


def code_of(path):
    """The syntax tree of a file, or of a notebook's code cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [c for c in json.loads(text)["cells"] if c["cell_type"] == "code"]
        lines = "\n".join("".join(cell["source"]) for cell in cells).split("\n")
        text = "\n".join(line for line in lines if not line.startswith("%%"))  # `%%writefile`
    return ast.parse(text)


def calls(path):
    """Every call of a file: its dotted name, its named arguments, and its line."""
    for node in ast.walk(code_of(path)):
        if isinstance(node, ast.Call):
            named = {word.arg: ast.unparse(word.value) for word in node.keywords}
            yield ast.unparse(node.func), named, f"{path.name}:{node.lineno}"


def imports(path):
    """The packages that a file imports from."""
    for node in ast.walk(code_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


UNSAFE = {"eval", "exec", "compile", "pickle.load", "pickle.loads", "torch.load", "marshal.loads",
          "yaml.load", "yaml.full_load", "yaml.unsafe_load", "joblib.load", "shelve.open",
          "os.system", "os.popen", "shutil.unpack_archive", "tarfile.open", "zipfile.ZipFile",
          "np.load", "numpy.load"}  # fmt: skip
ARCHIVES = {"tarfile", "zipfile", "py7zr", "rarfile", "dill", "cloudpickle", "shelve", "marshal"}


def test_no_file_is_read_in_a_way_that_can_run_code():
    assert len(SOURCES) > 100 and len(NOTEBOOKS) > 8
    for path in [*SOURCES, *NOTEBOOKS]:
        check_calls(path)
        unsafe = set(imports(path)) & ARCHIVES
        assert not unsafe, f"{path.name}: {unsafe}; names in an archive could leave its folder"


def check_calls(path):
    """That no call of a file runs what it reads."""
    for name, named, where in calls(path):
        assert name not in UNSAFE, f"{where}: {name}"
        assert named.get("shell") != "True" and named.get("allow_pickle") != "True", where
        if name.endswith(".from_pretrained") and name.startswith("Auto"):
            given = named if None not in named else named | {"trust_remote_code": "how"}
            assert given.get("trust_remote_code", "True") != "True", f"{where}: by name, never True"
            safe = named.get("use_safetensors") == "True" or "gguf_file" in named  # GGUF holds data
            assert "Model" not in name or safe, where
        if name.endswith("vllm.LLM"):
            assert named["load_format"] == "'safetensors'" and "trust_remote_code" in named, where


def test_every_preset_leaves_a_models_own_code_off_and_names_the_switch():
    assert presets.names()
    for name in presets.names():
        assert presets.load(name).model.trust_remote_code is False
        assert presets.load(name).extensions == (), "a preset that ships imports nobody's code"
    asked = SimpleNamespace(preset=presets.load("smoke", "model.trust_remote_code=true"))
    assert rounds._loading(asked)["trust_remote_code"] is True


def test_notebooks_load_models_as_the_preset_says():
    loaders, found = {"load_tokenizer", "load_model", "show.moved"}, set()
    for path in NOTEBOOKS:
        tree = code_of(path)
        for node in (one for one in ast.walk(tree) if isinstance(one, ast.Call)):
            if (name := ast.unparse(node.func)) in loaders:
                assert ast.unparse(node.args[-1]) == "trust", f"{path.name}: {name}"
                assert "stage.preset.model.trust_remote_code" in ast.unparse(tree)
                found.add((path.name[:2], name))
    tokenizers = {(n, "load_tokenizer") for n in ("00", "02", "04")}
    assert found == {*tokenizers, ("04", "show.moved")}


def test_yaml_makes_no_objects():
    with pytest.raises(PSRError, match="is not a value"):
        presets.load("smoke", "data.questions=[!!python/object/apply:os.getcwd{}]")


# --- folders that others made


class Bomb:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def bomb(tmp_path):
    """Bytes that leave a mark when they are unpickled, and a check that they were not."""
    mark = tmp_path / "mark"
    yield pickle.dumps(Bomb(mark))
    assert not mark.exists(), "a weight file ran code"
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()  # the mark works


@pytest.fixture
def folder(tmp_path):
    """A model folder."""
    return make_tiny_model(tmp_path / "model")[0]


def refuse_vllm(monkeypatch):
    """A vllm that only notes how it was opened."""
    opened = []

    def llm(**settings):
        opened.append(settings)
        raise RuntimeError("noted")

    monkeypatch.setattr(vllm_engine, "import_vllm", lambda: SimpleNamespace(LLM=llm))
    return opened


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickled_weights_are_refused_by_every_loader(folder, bomb, name, monkeypatch):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(bomb)
    with pytest.raises(PSRError, match=r"no \.safetensors weights"):
        load_model(folder, "float32", "cpu")
    with pytest.raises(PSRError, match="cannot be loaded"):
        embedding.embed(["a"], folder, "cpu")
    opened_with = refuse_vllm(monkeypatch)
    with pytest.raises(PSRError, match=r"no \.safetensors weights"):
        vllm_engine.VLLMEngine.load(folder)
    assert opened_with == []


def test_pickled_weights_beside_safetensors_are_left_alone(folder, bomb, monkeypatch):
    (folder / "pytorch_model.bin").write_bytes(bomb)
    assert load_model(folder, "float32", "cpu").num_parameters() > 0
    opened_with = refuse_vllm(monkeypatch)
    with pytest.raises(PSRError, match="noted"):
        vllm_engine.VLLMEngine.load(folder)
    ((settings),) = opened_with
    assert settings["load_format"] == "safetensors" and settings["trust_remote_code"] is False


def test_a_pickled_adapter_is_refused(folder, bomb, tmp_path, monkeypatch):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": str(folder), "r": 2,
              "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}  # fmt: skip
    write_json(adapter / "adapter_config.json", config)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (adapter / name).write_bytes((folder / name).read_bytes())
    (adapter / "adapter_model.bin").write_bytes(bomb)
    with pytest.raises(PSRError, match=r"adapter: no \.safetensors weights"):
        load_model(adapter, "float32", "cpu")
    opened_with = refuse_vllm(monkeypatch)
    with pytest.raises(PSRError, match=r"adapter: no \.safetensors weights"):
        vllm_engine.VLLMEngine.load(adapter)
    assert opened_with == []


OWN_CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
Path({mark!r}).touch()
class OddConfig(LlamaConfig):
    model_type = "odd"
class OddModel(LlamaForCausalLM):
    config_class = OddConfig
"""


def test_a_models_own_code_runs_only_where_the_preset_says_so(folder, tmp_path, monkeypatch):
    mark = tmp_path / "mark"
    (folder / "odd.py").write_text(OWN_CODE.format(mark=str(mark)), encoding="utf-8")
    named = {"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.OddModel",
             "AutoModel": "odd.OddModel"}  # fmt: skip
    config = read_json(folder / "config.json") | {"model_type": "odd", "auto_map": named}
    write_json(folder / "config.json", config)
    modules = tmp_path / "modules"
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(modules))
    monkeypatch.setattr(sys, "path", list(sys.path))
    for load in (lambda: load_tokenizer(folder), lambda: load_model(folder, "float32", "cpu")):
        try:
            load()
        except PSRError as error:
            assert str(folder) in str(error)
        assert not mark.exists()
    with pytest.raises(PSRError, match="cannot be loaded"):
        embedding.embed(["a"], folder, "cpu")
    assert not mark.exists() and not modules.exists()
    assert load_model(folder, "float32", "cpu", trust_remote_code=True).config.model_type == "odd"
    assert mark.exists()


# --- the key


class ApiServer(TeacherServer):
    """A chat server that an engine may ask too."""

    def found(self, path, body, fault):
        """Its list of models, or an answer."""
        if path == "/v1/models":
            return 200, {"data": [{"id": self.model}]}
        kept = {key: body[key] for key in set(body) & teacher_server.KNOWN}
        return super().found(path, kept, fault)


@pytest.fixture
def key(monkeypatch):
    """A key in the environment of a stage that the runner has opened."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("PSR_WARM_KERNELS", "0")
    by_the_runner(monkeypatch)


def holding(folder):
    """The files of a folder that hold the key, packed ones opened."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files, "nothing was written"
    found = {path: path.read_bytes() for path in files}
    texts = {p: gzip.decompress(raw) if p.suffix == ".gz" else raw for p, raw in found.items()}
    return [str(path) for path, text in texts.items() if SECRET.encode() in text]


def test_a_teachers_key_is_in_nothing_that_a_stage_writes_or_says(key, tmp_path, capfd):
    write(tmp_path / "mine/train.jsonl", many(60))
    changes = (
        f"data.source={tmp_path}/mine data.eft_from=none teacher.ift=api prompts=paper "
        "data.ift=6 data.ift_more=2 teacher.retries=4 teacher.timeout=5 teacher.url="
    )
    with ApiServer(cut_lines, "o1").running() as server:
        server.tells = f"odd key {SECRET}"  # what a host may answer
        server.faults = [429, 500, "empty", 400, "half"]
        stage = opened(tmp_path / "runs", changes + server.url)
        data_prep.make_pools(stage)
        stage.finish()
        assert {head["Authorization"] for head in server.headers} == {f"Bearer {SECRET}"}
        server.faults = [402] * 99
        with pytest.raises(PSRError) as caught:
            data_prep.make_pools(opened(tmp_path / "runs", changes + server.url + " data.ift=9"))
    said = capfd.readouterr()
    assert SECRET not in str(caught.value) + said.out + said.err and "***" in str(caught.value)
    assert (tmp_path / "runs/paid").is_dir() and holding(tmp_path / "runs") == []


ASKED = (
    "data.eft_from=direct data.ift=16 data.eft=40 data.eft_heldout=4 data.benchmark_size=1 "
    "reference.model=teacher reference.prompts=compact engine.retries=1 reference.url="
)


def evaluated(root, changes):
    """The main cells of notebook 05 on an API model."""
    data = opened(root, changes)
    data_prep.make_pools(data)
    data.finish()
    stage = runs.open_stage("05_evaluate", preset="smoke", method="reference", seed=0,
                            runs_dir=str(root), overrides=changes)  # fmt: skip
    engine = rounds.open_engine(stage, 0)
    answers = rounds.solve(stage, engine, benchmarks.open_sets(stage))
    write_jsonl(stage.output("answers.jsonl.gz"), answers)
    write_jsonl(stage.output("verdicts.jsonl"), rounds.evaluate_judge(stage, engine)[0])
    return stage.finish()


def test_an_api_models_key_is_in_no_result_and_in_no_notebook(key, tmp_path, capfd):
    root, notebook = tmp_path / "runs", "05_evaluate.ipynb"
    with ApiServer(lambda messages: "Step 1: so \\boxed{7}. [[A]]").running() as server:
        changes = ASKED + server.url
        assert evaluated(root, changes)["tokens"]["judged"]
        assert {head["Authorization"] for head in server.headers} == {f"Bearer {SECRET}"}
        server.tells, server.faults = f"odd key {SECRET}", [402] * 99
        values = {"preset": "smoke", "method": "reference", "iteration": 0, "overrides": changes}
        with pytest.raises(NotebookFailed, match=r"odd key \*\*\*") as caught:
            notebook_runner.execute(ROOT / "notebooks" / notebook, root / notebook,
                                    values | {"runs_dir": str(root)})  # fmt: skip
    said = capfd.readouterr()
    assert SECRET not in str(caught.value) + said.out + said.err
    assert "***" in (root / notebook).read_text(encoding="utf-8"), "a traceback was kept"
    assert holding(root) == []
