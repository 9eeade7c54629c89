"""A small server of the OpenAI chat protocol whose answers are scripted, for tests.

Its faults are those of `completions_server`, and `empty`: an answer without text.
"""

from collections.abc import Callable

from completions_server import CompletionsServer

KNOWN = {"model", "messages", "max_tokens", "max_completion_tokens", "temperature"}


class TeacherServer(CompletionsServer):
    """Answers prompts by a function; knows one model and any number of keys.

    `deadline`: requests after so many are refused as by a key that has died. `cut` answers with
    half a JSON text.
    """

    def __init__(self, script: Callable[[str], str], model: str = "teacher"):
        super().__init__(None)
        self.script, self.model, self.deadline = script, model, None

    def found(self, path, body, fault):
        """Status and answer."""
        if isinstance(fault, int):
            return fault, {"error": {"message": self.tells}}
        if fault == "cut":
            return 200, '{"choices": [{"message": {"content": "So [[A'
        if fault in ("nonsense", "page"):
            return super().found(path, body, fault)
        assert path == "/v1/chat/completions" and not set(body) - KNOWN, (path, body)
        with self.lock:
            self.seen.append(body)
            dead = self.deadline is not None and len(self.seen) > self.deadline
        if dead:
            return 401, {"error": {"message": "this key is no longer valid"}}
        if body["model"] != self.model:
            return 404, {"error": {"message": f"no model {body['model']}"}}
        (turn,) = body["messages"]
        text = "" if fault == "empty" else self.script(turn["content"])
        return 200, answer(text, len(turn["content"].split()))


def answer(text, prompt_tokens=0, finish="stop"):
    """A chat completion; a word is a token."""
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(text.split())}
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return {"choices": [choice], "usage": usage}
