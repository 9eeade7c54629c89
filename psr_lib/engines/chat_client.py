"""A model behind `/chat/completions`: one user turn in, one answer out (OpenAI's protocol).

It is no engine: nothing is sampled twice, no token is scored. Passing faults (429, 5xx, time-outs,
cut connections) are tried again by `http_json`; an answer that came but is of no use (no JSON, no
text) is tried again here, and what it cost is counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psr_lib.engines.http_json import Http, Refused

ITEM = (400, 413, 422)  # refusals that concern this request, not the key or the address
REFUSED, CUT = "refused", "empty: cut by the limit of tokens"  # not worth another try


@dataclass(frozen=True)
class Reply:
    """An answer; `fault` says why there is no text. Tokens are those of every try, as reported."""

    text: str
    fault: str = ""
    prompt_tokens: int = 0
    tokens: int = 0
    tries: int = 1


class ChatClient:
    """Asks one model; safe for several threads. The key comes from the environment alone."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        options: Mapping[str, Any],
        timeout: float,
        retries: int,
        concurrency: int,
        backoff: float = 0.5,
    ):
        """`options` go into every request, such as a temperature and a limit of tokens."""
        self.model, self.options, self.retries = model, dict(options), retries
        self.http = Http(
            url, timeout=timeout, retries=retries, connections=concurrency, backoff=backoff,
            section="annotate",
        )  # fmt: skip

    def ask(self, prompt: str) -> Reply:
        """The answer to one prompt.

        Raises Refused where the server refuses the key or the address, EngineError after the last
        try in vain.
        """
        replies = [self._once(prompt)]
        while len(replies) <= self.retries and _odd(replies[-1]):
            replies.append(self._once(prompt))
        last, read = replies[-1], sum(r.prompt_tokens for r in replies)
        return Reply(last.text, last.fault, read, sum(r.tokens for r in replies), len(replies))

    def _once(self, prompt: str) -> Reply:
        turn = [{"role": "user", "content": prompt}]
        try:
            answer = self.http.ask(
                "chat/completions", {"model": self.model, "messages": turn, **self.options}
            )
        except Refused as error:
            if error.status in ITEM:
                return Reply("", f"{REFUSED}: {error.reason}")
            if not error.status:
                return Reply("", "no JSON")
            raise
        return _read(answer)

    def close(self) -> None:
        """Close the connections."""
        self.http.close()


def _read(answer: Any) -> Reply:
    """The text of an answer and its tokens; hidden reasoning counts as written, as it is paid."""
    try:
        usage = answer.get("usage") or {}
        spent = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        choice = answer["choices"][0]
        text = choice["message"]["content"] or ""
        if not isinstance(text, str):
            raise TypeError
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        return Reply("", "no chat completion")
    if not text.strip():
        return Reply("", CUT if choice.get("finish_reason") == "length" else "empty", *spent)
    return Reply(text, "", *spent)


def _odd(reply: Reply) -> bool:
    """Whether the same request may well have a better answer."""
    return bool(reply.fault) and not reply.fault.startswith((REFUSED, CUT))
