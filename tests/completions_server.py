"""A small server of the OpenAI completions protocol over the transformers engine, for tests.

It runs in the test's own process, says what vLLM's server says, and can be told to misbehave.
"""

import json
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch

from psr_lib.engines.calls import encode
from psr_lib.engines.groups import Row, grouped
from psr_lib.engines.hf import HFEngine, Run

KNOWN = {"model", "prompt", "max_tokens", "temperature", "top_p", "n", "stop", "seed", "echo",
         "logprobs", "vllm_xargs"}  # fmt: skip


class Patient(ThreadingHTTPServer):
    """Lets many callers wait at the door; five, the default, are too few on a busy machine."""

    request_queue_size = 128


class Refusal(Exception):
    """An answer that is not a completion: a status and a message."""


class CompletionsServer:
    """Serves one model; `faults` are used up one a request, the first first.

    A fault is a status to answer, `hang` (answers too late) or `drop` (closes the connection).
    """

    def __init__(self, engine: HFEngine, names: tuple[str, ...] = ("M1",), bare: bool = False):
        self.engine, self.names, self.bare = engine, names, bare
        self.faults: list = []
        self.seen: list[dict] = []
        self.headers: list[dict] = []
        self.tells = "out of luck"
        self.retry_after = ""
        self.hang = 1.0
        self.busy = self.busiest = 0
        self.lock, self.model_lock = threading.Lock(), threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                server.answer(self, None)

            def do_POST(self):
                length = int(self.headers["content-length"])
                server.answer(self, json.loads(self.rfile.read(length)))

            def log_message(self, *args):
                pass

        self.httpd = Patient(("127.0.0.1", 0), Handler)
        self.httpd.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.httpd.server_port}/v1"
        self.thread = threading.Thread(target=self.httpd.serve_forever, args=(0.02,), daemon=True)

    @contextmanager
    def running(self):
        """Serve within the block."""
        self.thread.start()
        try:
            yield self
        finally:
            self.stop()

    def stop(self):
        """Go down for good."""
        self.httpd.shutdown()
        self.httpd.server_close()

    def answer(self, handler, body):
        """Misbehave as told, else answer."""
        with self.lock:
            self.busy += 1
            self.busiest = max(self.busiest, self.busy)
            self.headers.append(dict(handler.headers))
            fault = self.faults.pop(0) if self.faults and body is not None else None
        try:
            if fault == "drop":
                handler.connection.shutdown(socket.SHUT_RDWR)
                return
            if fault == "hang":
                time.sleep(self.hang)
            status, found = self.found(handler.path, body, fault)
            self.send(handler, status, found)
        except (BrokenPipeError, ConnectionError):
            pass  # the client gave up
        finally:
            with self.lock:
                self.busy -= 1

    def send(self, handler, status, found):
        """An answer as JSON."""
        data = json.dumps(found).encode() if not isinstance(found, str) else found.encode()
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(data)))
        if status == 429 and self.retry_after:
            handler.send_header("retry-after", self.retry_after)
        handler.end_headers()
        handler.wfile.write(data)

    def found(self, path, body, fault):
        """Status and answer."""
        if isinstance(fault, int):
            return fault, {"error": {"message": self.tells}}
        if fault == "nonsense":
            return 200, {"choices": []}
        if fault == "page":
            return 200, "<html>hello</html>"
        if path == "/v1/models":
            limit = {} if self.bare else {"max_model_len": self.engine.context}
            return 200, {"data": [{"id": name, **limit} for name in self.names]}
        assert path == "/v1/completions" and not set(body) - KNOWN, (path, body)
        self.seen.append(body)
        try:
            with self.model_lock:
                return 200, self.score(body) if body.get("echo") else self.complete(body)
        except Refusal as error:
            return error.args[0], {"error": {"message": error.args[1]}}

    def ids(self, body):
        """The prompt's tokens, if there is room for one more."""
        prompt = body["prompt"]
        ids = encode(self.engine.tokenizer, [prompt])[0] if isinstance(prompt, str) else prompt
        if len(ids) + body["max_tokens"] > self.engine.context:
            raise Refusal(400, f"maximum context length is {self.engine.context} tokens")
        return ids

    def complete(self, body):
        """One completion; the noise is that of `vllm_xargs`, as vLLM's processor draws it."""
        assert body["n"] == 1
        ids, engine = self.ids(body), self.engine
        noise = body.get("vllm_xargs", {}).get("psr_noise")
        seed, heat, top_p = noise or (body.get("seed", 7), body["temperature"], body["top_p"])
        row = Row((0, 0), [], seed, body["max_tokens"])
        run = Run(engine, heat, top_p, body.get("stop", []))
        with torch.inference_mode():
            ((_, completion),) = run.decode(grouped([(ids, row)]), lambda rows: None)
        choice = {"text": completion.text, "finish_reason": "length"}
        if completion.finish != "length":
            reason = {} if self.bare else {"stop_reason": self.reason(completion, body)}
            choice |= {"finish_reason": "stop", **reason}
        usage = {"prompt_tokens": len(ids), "completion_tokens": completion.tokens}
        return {"choices": [choice], "usage": usage}

    def reason(self, completion, body):
        """What vLLM says beside `stop`: the stop string, or null for the end-of-text token."""
        return body["stop"][0] if completion.finish == "stop" else None

    def score(self, body):
        """The log-probability of every token of the prompt after those before it."""
        assert body["max_tokens"] == 0
        ids = self.ids(body)
        with torch.inference_mode():
            logs = torch.log_softmax(self.engine.model(torch.tensor([ids])).logits[0].float(), -1)
        found = [None, *(float(logs[i - 1, ids[i]]) for i in range(1, len(ids)))]
        return {"choices": [{"text": "", "finish_reason": "length",
                             "logprobs": {"token_logprobs": found}}],
                "usage": {"prompt_tokens": len(ids), "completion_tokens": 0}}  # fmt: skip
