"""The server engine when the server misbehaves, and the one place that opens engines."""

import subprocess
import sys
from pathlib import Path

import pytest
import tiny_model
from completions_server import CompletionsServer
from conftest import ROOT

from psr_lib import presets
from psr_lib.engines.base import EngineError
from psr_lib.engines.hf import HFEngine
from psr_lib.engines.http_json import checked_url
from psr_lib.engines.opening import open_engine, served_name
from psr_lib.engines.server import ServerEngine
from psr_lib.records import PSRError

SECRET = "sk-secret-0123456789"
PROMPTS = [f"Tom has {k} {k * 7} pens. How many" for k in range(8)]


@pytest.fixture(scope="module")
def hf(tmp_path_factory):
    """The engine behind every server here."""
    folder = tmp_path_factory.mktemp("server") / "model"
    tiny_model.make_tiny_model(folder)
    engine = HFEngine.load(folder, device="cpu", workers=1)
    engine.folder = folder
    return engine


@pytest.fixture
def server(hf, monkeypatch):
    """A server, and a key in the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with CompletionsServer(hf).running() as running:
        yield running


def connect(server, hf, **settings):
    """An engine that waits little."""
    settings = {"timeout": 10.0, "retries": 4, "backoff": 0.01, "seeds": "noise"} | settings
    return ServerEngine.load(server.url, settings.pop("model", "M1"), hf.folder, **settings)


def sample(engine, prompts=PROMPTS, **changes):
    """Sample with short defaults."""
    settings = {"n": 1, "temperature": 1.0, "top_p": 0.9, "max_tokens": 6, "stop": []}
    settings |= {"seeds": list(range(len(prompts)))}
    return engine.sample(prompts, **(settings | changes))


def test_every_passing_fault_is_tried_again(server, hf):
    engine = connect(server, hf, timeout=0.5)
    server.faults = [429, 500, "drop", 503, "hang", 502, "drop", 429]
    assert sample(engine) == sample(hf)
    assert not server.faults
    engine.close()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (500, "status 500: out of luck"),
        (429, "status 429"),
        ("drop", "3 tries"),
        ("hang", "no answer in 0.2 s"),
    ],
)
def test_a_lasting_fault_is_one_line_after_the_last_try(server, hf, fault, words):
    engine = connect(server, hf, timeout=0.2 if fault == "hang" else 10, retries=2, concurrency=1)
    server.faults = [None] * 3 + [fault] * 50
    with pytest.raises(EngineError) as caught:
        sample(engine)
    message = str(caught.value)
    assert words in message and "3 tries" in message and "\n" not in message
    assert SECRET not in message and server.url in message
    assert caught.value.finished == dict(enumerate(sample(hf)[:3]))
    assert len(server.faults) == 47  # three tries, and no further request after the failure
    server.faults = []
    assert sample(engine) == sample(hf)  # the next call goes on


def test_a_servers_wish_to_wait_is_kept(server, hf, monkeypatch):
    waits = []
    monkeypatch.setattr("psr_lib.engines.http_json.time.sleep", waits.append)
    engine = connect(server, hf, backoff=1.0, concurrency=1)
    server.retry_after, server.faults = "7", [429, 500, 500, 500]
    sample(engine, PROMPTS[:1])
    assert waits[0] == 7.0 and 6 <= waits[3] <= 10
    assert 1.5 <= waits[1] <= 2.5 and 3 <= waits[2] <= 5 and 6 <= waits[3] <= 10
    server.retry_after, server.faults = "86400", [429]
    sample(engine, PROMPTS[:1])
    assert waits[4] == 60.0


def test_the_key_is_sent_and_never_told(server, hf):
    engine = connect(server, hf, retries=0)
    sample(engine, PROMPTS[:1])
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {SECRET}"}
    server.tells = f"odd key {SECRET} in the request"
    for status in (400, 500):
        server.faults = [status]
        with pytest.raises(EngineError, match=r"odd key \*\*\*") as caught:
            sample(engine, PROMPTS[:1])
        assert SECRET not in repr(caught.value) and caught.value.__suppress_context__
    server.faults = [401]
    with pytest.raises(EngineError, match="set OPENAI_API_KEY") as caught:
        sample(engine, PROMPTS[:1])
    assert "odd key" not in str(caught.value)  # hosts answer with parts of the key
    assert SECRET not in repr(vars(engine)) and SECRET not in str(server.seen)


def test_without_a_key_no_header_is_sent(server, hf, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    sample(connect(server, hf), PROMPTS[:1])
    assert all("Authorization" not in headers for headers in server.headers)
    monkeypatch.setenv("OPENAI_API_KEY", "sk\nodd")
    with pytest.raises(PSRError, match="odd characters") as caught:
        connect(server, hf)
    assert "sk" not in str(caught.value)


def test_requests_under_way_are_limited(server, hf):
    engine = connect(server, hf, concurrency=3)
    sample(engine, PROMPTS * 4)
    assert 1 < server.busiest <= 3


@pytest.mark.parametrize(
    ("fault", "words"),
    [("nonsense", "not an OpenAI completion"), ("page", "should end in /v1"), (404, "says 404")],
)
def test_odd_answers_are_named_at_once(server, hf, fault, words):
    engine = connect(server, hf, concurrency=1)
    server.faults = [fault, 500]
    with pytest.raises(EngineError, match=words) as caught:
        sample(engine)
    assert "\n" not in str(caught.value) and server.faults == [500]


def test_a_missing_server_or_model_is_named_when_opened(server, hf):
    with pytest.raises(PSRError, match=r"no model 'M7' at .* which has M1"):
        connect(server, hf, model="M7")
    server.stop()
    with pytest.raises(EngineError, match=r"one try .*vllm serve"):
        connect(server, hf, retries=0)


def test_a_server_that_says_little_still_works(hf):
    """No context length, no reason beside `stop`, no tokenizer here: prompts go as text."""
    with CompletionsServer(hf, bare=True).running() as server:
        engine = ServerEngine(server.url, "M1", retries=0, seeds="noise")
        assert engine.context > 10**6
        assert sample(engine) == sample(hf)
        assert all(isinstance(body["prompt"], str) for body in server.seen)
        stopped = sample(engine, max_tokens=60, stop=[" "])
        assert [c.text for (c,) in stopped] == [
            c.text for (c,) in sample(hf, max_tokens=60, stop=[" "])
        ]
        (long,) = sample(engine, ["3" * 600])
        assert long[0].finish == "overflow" and engine.usage.overflow == 1
        with pytest.raises(PSRError, match="tokenizer"):
            engine.choose(["3"], ["9"])


def test_how_a_seed_travels_and_what_is_promised(server, hf):
    for seeds, keys in (("sent", {"seed"}), ("none", set()), ("noise", {"vllm_xargs"})):
        server.seen.clear()
        engine = connect(server, hf, seeds=seeds)
        assert engine.honours_seeds == (seeds == "noise")
        sample(engine, PROMPTS[:2], n=2)
        assert all(set(body) & {"seed", "vllm_xargs"} == keys for body in server.seen)
        assert len(server.seen) == 4  # one request a sibling, each with its own seed
        sample(engine, PROMPTS[:2], n=2, temperature=0.0)
        assert len(server.seen) == 6 and not {"seed", "vllm_xargs"} & set(server.seen[-1])
    sent = [body["seed"] for body in server.seen if "seed" in body]
    assert len(sent) == len(set(sent))


# --- opening


def engine_of(*overrides, folder=".", n=None):
    """What the preset tiny with these overrides opens."""
    found = presets.load("tiny", ["model.device=cpu", *overrides])
    return open_engine(found.engine, found.model, folder, n)


def test_the_preset_chooses_the_engine(server, hf):
    assert isinstance(engine_of(folder=hf.folder), HFEngine)
    address = ["engine.kind=server", f"engine.url={server.url}"]
    engine = engine_of(*address, "engine.timeout=3", "engine.retries=1", folder=hf.folder, n=1)
    assert isinstance(engine, ServerEngine) and engine.model == "M1" and engine.concurrency == 32
    assert (engine.http.timeout, engine.http.retries) == (3.0, 1)
    with pytest.raises(PSRError, match=r"write \{n\}"):
        engine_of(*address, "engine.model=qwen", folder=hf.folder, n=2)
    assert served_name("qwen", None) == "qwen"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("engine.kind=vlm", "did you mean 'vllm'"),
        ("engine.kind=xyz", "choose one of hf, ray, server, vllm"),
        ("engine.workers=0", "too small"),
        ("engine.gpu_memory=1.5", "too large"),
        ("engine.timeout=0", "more than 0"),
        ("engine.seeds=always", "choose one of"),
        (f"engine.url=http://me:{SECRET}@host/v1", "OPENAI_API_KEY"),
        (f"engine.url=http://host/v1?key={SECRET}", "OPENAI_API_KEY"),
    ],
)
def test_bad_settings_are_refused_before_anything_runs(override, words):
    with pytest.raises(PSRError) as caught:
        presets.load("tiny", [override])
    assert words in str(caught.value) and SECRET not in str(caught.value)


def test_addresses_are_checked():
    assert checked_url("http://127.0.0.1:8000/v1/") == "http://127.0.0.1:8000/v1"
    for url in ("localhost:8000", "ftp://host/v1", "http:///v1", f"https://{SECRET}@host/v1"):
        with pytest.raises(PSRError) as caught:
            checked_url(url)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("kind", ["vllm", "ray"])
def test_a_missing_extra_is_one_line(kind, hf, monkeypatch):
    monkeypatch.setitem(sys.modules, kind, None)  # as if it were not installed
    with pytest.raises(PSRError, match=rf"pip install -e '.\[{kind}\]'.*engine.kind=hf") as caught:
        engine_of(f"engine.kind={kind}", folder=hf.folder)
    assert "\n" not in str(caught.value)


def test_a_broken_vllm_is_one_line(hf, tmp_path, monkeypatch):
    (tmp_path / "vllm.py").write_text("raise RuntimeError('operator x does not exist\\nmore')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    with pytest.raises(PSRError, match=r"broken \(operator x does not exist\)"):
        engine_of("engine.kind=vllm", folder=hf.folder)


def test_the_extras_are_imported_only_when_asked_for():
    code = "import sys, psr_lib.rounds; print(*{'ray', 'vllm', 'httpx2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.split() in ([], ["httpx2"]), done.stderr


def test_no_file_of_the_repository_holds_a_key():
    for path in [*Path(presets.FOLDER).glob("*.yaml"), *(ROOT / "notebooks").glob("*.ipynb")]:
        assert "sk-" not in path.read_text(encoding="utf-8"), path
