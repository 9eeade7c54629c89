"""A small server of the OpenAI chat protocol whose answers are scripted, and a client of it."""

import json
import socket
from collections.abc import Callable
from types import SimpleNamespace

from completions_server import CompletionsServer

from psr_lib.engines.chat import Chat, Messages
from psr_lib.paid import Paid

KNOWN = {"model", "messages", "max_tokens", "max_completion_tokens", "temperature"}
SECRET = "sk-secret-0123456789"


class TeacherServer(CompletionsServer):
    """Answers a conversation by `script(messages)`; knows one model, or with '' any.

    Its faults are those of `CompletionsServer`, and: `empty` and `null` (no text), `half` (half of
    a JSON text), `cut` (the connection ends in the middle of an answer). `deadline`: requests after
    so many are refused as by a key that has died.
    """

    def __init__(self, script: Callable[[Messages], str], model: str = "teacher"):
        super().__init__(None)
        self.script, self.model, self.deadline = script, model, None

    def found(self, path, body, fault):
        """Status and answer."""
        if isinstance(fault, int) or fault in ("nonsense", "page"):
            return super().found(path, body, fault)
        assert path == "/v1/chat/completions" and not set(body) - KNOWN, (path, body)
        with self.lock:
            self.seen.append(body)
            dead = self.deadline is not None and len(self.seen) > self.deadline
        if dead:
            return 401, {"error": {"message": "this key is no longer valid"}}
        if self.model and body["model"] != self.model:
            return 404, {"error": {"message": f"no model {body['model']}"}}
        texts = {"empty": "  ", "null": None}
        text = texts[fault] if fault in texts else self.script(body["messages"])
        made = answer(text, sum(len(turn["content"].split()) for turn in body["messages"]))
        whole = json.dumps(made)
        return 200, {"half": whole[: len(whole) // 2], "cut": whole.encode()}.get(fault, made)

    def send(self, handler, status, found):
        """An answer as JSON; of bytes only a part."""
        if not isinstance(found, bytes):
            return super().send(handler, status, found)
        handler.send_response(status)
        handler.send_header("content-length", str(len(found)))
        handler.end_headers()
        handler.wfile.write(found[: len(found) // 2])
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)


def answer(text, prompt_tokens=0, finish="stop"):
    """A chat completion; a word is a token."""
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len((text or "").split())}
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return {"choices": [choice], "usage": usage}


def settings(url="http://127.0.0.1:9/v1", **changes):
    """A preset's section `teacher` for a server on this machine."""
    values = {"ift": "api", "judge": "api", "dry_run": False, "prompts": "paper", "attempts": 3,
              "url": url, "model": "teacher", "temperature": 1.0, "max_tokens": 50,
              "limit": "max_tokens", "answer_tokens": 100, "concurrency": 4, "timeout": 5.0,
              "retries": 4}  # fmt: skip
    return SimpleNamespace(**(values | changes))


def connect(server, path, **changes):
    """A client that waits little; its answers are kept at `path`."""
    return Chat(settings(server.url, **changes), Paid(path), backoff=0.01)


def scripted(*texts):
    """A script of replies in turn, the last again and again."""
    left = list(texts)
    return lambda messages: left.pop(0) if len(left) > 1 else left[0]
