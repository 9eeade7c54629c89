"""An API model behind the chat protocol: what is sent, what is read, and what it cannot do."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from psr_lib import evaluation, prompts, rounds, teachers
from psr_lib.engines.base import EngineError
from psr_lib.engines.chat_server import ChatServerEngine, Conversation, messages_of
from psr_lib.engines.opening import open_api
from psr_lib.engines.server import ServerEngine
from psr_lib.methods import EVALUATE
from psr_lib.presets import load
from psr_lib.records import Problem, PSRError
from psr_lib.run_dirs import Key
from psr_lib.stages import stage_preset

FAMILY = prompts.load("paper")
KNOWN = {"model", "messages", "max_tokens", "temperature", "top_p", "n", "stop", "seed"}


class ChatServer:
    """Answers every conversation with what `says` makes of it; keeps all bodies."""

    def __init__(self, says):
        self.says, self.seen = says, []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer(200, {"data": [{"id": "some-api"}]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                assert self.path == "/v1/chat/completions" and not set(body) - KNOWN
                server.seen.append(body)
                self.answer(*server.says(body))

            def answer(self, status, found):
                data = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.httpd.server_port}/v1"


def said(text, finish="stop"):
    """A chat completion of four tokens after a prompt of nine."""
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return 200, {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}


@contextmanager
def engine_of(says, **settings):
    """An engine at a server that says this."""
    server = ChatServer(says)
    thread = threading.Thread(target=server.httpd.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    engine = ChatServerEngine(server.url, "some-api", retries=0, timeout=10.0, **settings)
    try:
        yield engine, server
    finally:
        engine.close()
        server.httpd.shutdown()
        server.httpd.server_close()


def sample(engine, texts, **changes):
    settings = {"n": 1, "temperature": 0.0, "top_p": 1.0, "max_tokens": 50, "stop": []}
    return engine.sample(texts, **(settings | {"seeds": list(range(len(texts)))} | changes))


def test_turns_travel_through_a_rendered_prompt():
    text = FAMILY.render(Conversation(), FAMILY.solve("1 + 1?"))
    (turn,) = messages_of(text)
    assert turn["role"] == "user" and turn["content"].endswith("1 + 1?")
    qwen = prompts.load("qwen")
    turns = messages_of(qwen.render(Conversation(), qwen.solve("1 + 1?")))
    assert [turn["role"] for turn in turns] == ["system", "user"]
    assert turns[1]["content"] == "1 + 1?" and "\\boxed{}" in turns[0]["content"]
    assert messages_of("plain text") == [{"role": "user", "content": "plain text"}]


def test_an_answer_is_a_completion():
    with engine_of(lambda body: said("so 2\nStep 9: more")) as (engine, server):
        ((found,),) = sample(engine, ["1 + 1?"], stop=["\nStep "])
        assert (found.text, found.tokens, found.prompt_tokens) == ("so 2", 4, 9)
        assert found.finish == "stop" and server.seen[0]["max_tokens"] == 50
        assert "seed" not in server.seen[0], "a greedy answer has no noise"
        sample(engine, ["1 + 1?"], temperature=0.5, n=2)
        assert len({body["seed"] for body in server.seen[1:]}) == 2


def test_a_refused_seed_is_left_out():
    with engine_of(lambda body: said("2"), seeds="none") as (engine, server):
        sample(engine, ["1 + 1?"], temperature=0.5)
        assert "seed" not in server.seen[0]


def test_too_long_a_prompt_is_overflow_and_other_refusals_are_errors():
    tells = {"a": "maximum context length is 9 tokens", "b": "no such thing"}
    says = lambda body: (400, {"error": {"message": tells[body["messages"][0]["content"]]}})  # noqa: E731
    with engine_of(says) as (engine, _):
        assert sample(engine, ["a"])[0][0].finish == "overflow"
        with pytest.raises(EngineError, match="no such thing"):
            sample(engine, ["b"])


def test_an_odd_answer_and_an_empty_one():
    answers = [(200, {"choices": []}), said(None, "length")]
    with engine_of(lambda body: answers.pop(0)) as (engine, _):
        with pytest.raises(EngineError, match="chat/completions gave"):
            sample(engine, ["a"])
        ((found,),) = sample(engine, ["a"])
        assert (found.text, found.finish) == ("", "length")


def test_what_a_chat_cannot_do_is_an_error_with_a_way_out():
    with engine_of(lambda body: said("2")) as (engine, _):
        with pytest.raises(PSRError, match=r"judge\.verdict=written"):
            engine.choose(["a"], ["A", "B"])
        begun = FAMILY.render(Conversation(), FAMILY.solve("1 + 1?", ["Step 1: so"]))
        with pytest.raises(PSRError, match=r"engine\.protocol=completions"):
            sample(engine, [begun])


def test_an_api_model_is_evaluated_as_solver_and_as_judge():
    """Its preset is `reference`'s; the server alone knows the model."""

    def says(body):
        (turn,) = body["messages"]
        return said("so [[B]]" if "impartial judge" in turn["content"] else "Step 1: \\boxed{2}")

    with engine_of(says) as (_, server):
        values = f"reference.url={server.url} reference.model=some-api reference.max_tokens=77"
        preset = stage_preset(load("smoke", values), Key(EVALUATE, "reference"))
        assert preset.eval.search_rounds == () and preset.eval.judge_shots == 0
        stage = SimpleNamespace(method="reference", preset=preset, seed=0, tokens=lambda **n: None)
        opened = rounds.open_engine(stage, 0)
        sets = {"easy": [Problem(id="p", source="t", question="1 + 1?", answer="2")]}
        (row,) = rounds.solve(stage, opened, sets)
        assert row["strict"] and server.seen[-1]["max_tokens"] == 77
        pairs = teachers.eft_rows(6, seed=3, taken=set())
        judged = evaluation.judge_summary(rounds.judge_heldout(stage, opened, pairs, []))
        assert (judged["accuracy"], judged["first_position"]) == (0.5, 0)
        opened.close()


def test_the_protocol_decides_which_engine_is_opened():
    with engine_of(lambda body: said("2")) as (_, server):
        found = []
        for protocol in ("chat", "completions"):
            values = f"engine.url={server.url} engine.protocol={protocol} engine.retries=0"
            engine = open_api(load("smoke", values).engine, "some-api")
            found.append((type(engine), engine.tokenizer is None))
            engine.close()
        assert found == [(ChatServerEngine, False), (ServerEngine, True)]
        with pytest.raises(PSRError, match=r"no model 'other'.*some-api"):
            open_api(load("smoke", f"engine.url={server.url} engine.retries=0").engine, "other")
