"""Chat completions of any OpenAI-compatible server: how a teacher model is asked (section 3.2).

It is no engine: nothing is sampled twice, no token is scored. Passing faults (429, 5xx, time-outs,
cut connections) are tried again by `http_json`; an answer that came but is of no use (no JSON, no
text) is tried again here. What was paid for once is never asked for again.
"""

from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any

from psr_lib.engines.base import EngineError
from psr_lib.engines.http_json import Http, Refused, readable
from psr_lib.paid import Paid
from psr_lib.records import hash_json

Messages = list[dict[str, str]]

REQUEST = (400, 413, 422)  # refusals of one request, not of the key, the model or the address
REFUSED, CUT = "refused", "empty: cut by the limit of tokens"  # the same request fails again
HOPELESS = 10  # answers of no use in a row, after which asking on is of none


@dataclass(frozen=True)
class Reply:
    """An answer and what it cost; `fault` says why there is no text.

    Tokens are those of every try, as the server reports them: hidden reasoning counts, as it is
    paid for. `letters` is the length of what was asked, in characters.
    """

    text: str
    fault: str = ""
    prompt_tokens: int = 0
    tokens: int = 0
    letters: int = 0


class Chat:
    """A model behind `<url>/chat/completions`; safe for several threads.

    `used` holds every answer that was given, whether it was sent for now or paid for before;
    `prompt_tokens` and `tokens` are what they cost. `asked` counts what was sent for now.
    """

    def __init__(self, settings: Any, paid: Paid, backoff: float = 0.5):
        """`settings`: the preset's section `teacher`; `backoff`: seconds before the second try.

        The key comes from the environment alone. Raises PSRError for an odd address or key.
        """
        self.settings, self.paid = settings, paid
        self.asked, self.used = 0, dict[str, Reply]()
        self._lock, self._in_vain = Lock(), 0
        self.http = Http(
            settings.url,
            timeout=settings.timeout,
            retries=settings.retries,
            connections=settings.concurrency,
            backoff=backoff,
            section="teacher",
        )

    def known(self, messages: Messages, attempt: int = 1) -> Reply | None:
        """The answer to a conversation that was paid for before, None if there is none."""
        found = self.paid.get(self._key(messages, attempt))
        return None if found is None else Reply(**found)

    def ask(self, messages: Messages, attempt: int = 1) -> Reply:
        """The answer to a conversation; another `attempt` at the same one is another answer.

        Raises EngineError where the server gives none after the last try, refuses the key, the
        model or the address, or gives nothing of use many times in a row.
        """
        key, found = self._key(messages, attempt), self.known(messages, attempt)
        if found is None:
            found = self._ask(messages)
            if found.prompt_tokens or found.tokens or not found.fault:
                self.paid.add(key, asdict(found))
            self._count(found)
        self.used[key] = found
        return found

    @property
    def prompt_tokens(self) -> int:
        """Tokens that were read for the answers that were used."""
        return sum(reply.prompt_tokens for reply in self.used.values())

    @property
    def tokens(self) -> int:
        """Tokens that were written for the answers that were used."""
        return sum(reply.tokens for reply in self.used.values())

    def _key(self, messages: Messages, attempt: int) -> str:
        """Another model, setting or prompt is another answer; another address is not."""
        return hash_json({"body": self._body(messages), "attempt": attempt})

    def _body(self, messages: Messages) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.settings.model, "messages": messages}
        if self.settings.temperature != 1:  # the protocol's default, and all that some models take
            body["temperature"] = self.settings.temperature
        if self.settings.max_tokens:
            body[self.settings.limit] = self.settings.max_tokens
        return body

    def _ask(self, messages: Messages) -> Reply:
        tries = [self._once(messages)]
        while len(tries) <= self.settings.retries and _may_pass(tries[-1]):
            tries.append(self._once(messages))
        read, written = (sum(getattr(r, n) for r in tries) for n in ("prompt_tokens", "tokens"))
        letters = sum(len(turn["content"]) for turn in messages)
        return Reply(tries[-1].text, tries[-1].fault, read, written, letters)

    def _once(self, messages: Messages) -> Reply:
        try:
            return read_reply(self.http.ask("chat/completions", self._body(messages)))
        except Refused as error:
            if error.status in REQUEST:
                return Reply("", f"{REFUSED}: {error.reason}")
            if not error.status:
                return Reply("", "no JSON")
            raise

    def _count(self, found: Reply) -> None:
        with self._lock:
            self.asked += 1
            self._in_vain = self._in_vain + 1 if found.fault else 0
            if self._in_vain >= HOPELESS:
                raise EngineError(
                    f"teacher server: {self.http.url} gave {HOPELESS} answers of no use in a row "
                    f"(the last: {found.fault}); set teacher.model, teacher.limit or "
                    "teacher.max_tokens, or use another server"
                )

    def close(self) -> None:
        """Close the connections."""
        self.http.close()


def read_reply(answer: Any) -> Reply:
    """The text in a server's answer and what it cost."""
    try:
        usage = answer.get("usage") or {}
        cost = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
        choice = answer["choices"][0]
        text = readable(choice["message"]["content"] or "")
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError):
        return Reply("", "no chat completion")
    if not text.strip():
        return Reply("", CUT if choice.get("finish_reason") == "length" else "empty", *cost)
    return Reply(text, "", *cost)


def _may_pass(reply: Reply) -> bool:
    """Whether the same request may well have a better answer."""
    return bool(reply.fault) and not reply.fault.startswith((REFUSED, CUT))
