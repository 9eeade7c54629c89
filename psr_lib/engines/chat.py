"""Chat completions of any OpenAI-compatible server: how a teacher model is asked (section 3.2).

Only what every such server knows is sent. An answer that is no answer (broken JSON, no content) is
asked for again like a failed request; what was paid for once is never asked for again.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from threading import Event
from typing import Any, TypeVar

from psr_lib.engines.base import EngineError
from psr_lib.engines.http_json import Http, Refused
from psr_lib.paid import Paid
from psr_lib.records import hash_json

Item = TypeVar("Item")
Done = TypeVar("Done")
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Reply:
    """What the model wrote, the tokens it cost, and how it ended (`stop`, `length`, ...)."""

    text: str
    prompt_tokens: int
    tokens: int
    finish: str


class Chat:
    """A model behind `<url>/chat/completions`; safe for several threads.

    `settings` is the preset's section `teacher`. Answers go to and come from `paid`; `asked` counts
    those that were sent for, so a repeated stage shows what it cost.
    """

    def __init__(self, settings: Any, paid: Paid, backoff: float = 0.5, section: str = "teacher"):
        """`backoff`: seconds before the second try. Raises PSRError for an odd address or key."""
        self.settings, self.paid, self.section = settings, paid, section
        self.asked = self.prompt_tokens = self.tokens = 0
        self.http = Http(
            settings.url, timeout=settings.timeout, retries=settings.retries,
            connections=settings.concurrency, backoff=backoff, section=section,
        )  # fmt: skip

    def reply(self, messages: Messages, attempt: int = 1) -> Reply:
        """The answer to a conversation, from what was paid for or from the server.

        Another `attempt` at the same conversation is another answer. Raises EngineError where the
        server gives none after all tries.
        """
        body = {"model": self.settings.model, "messages": messages,
                "temperature": self.settings.temperature}  # fmt: skip
        if self.settings.max_tokens:
            body["max_completion_tokens"] = self.settings.max_tokens
        key = hash_json({"body": body, "attempt": attempt})
        known = self.paid.get(key)
        if known is None:
            known = asdict(self._ask(body))
            self.paid.add(key, known)
        return Reply(**known)

    def _ask(self, body: dict[str, Any]) -> Reply:
        for _ in range(self.settings.retries + 1):
            try:
                answer = self.http.ask("chat/completions", body)
            except Refused as error:
                if error.status:
                    raise
                answer = None  # no JSON
            found = _read(answer)
            if found is not None:
                self._count(found)
                return found
        raise EngineError(
            f"{self.section} server: {self.http.url}/chat/completions gave no answer in "
            f"{self.settings.retries + 1} tries (the last: {self.http.clean(answer)!r}); set "
            f"{self.section}.model or {self.section}.max_tokens, or use another server"
        )

    def _count(self, found: Reply) -> None:
        self.asked += 1
        self.prompt_tokens += found.prompt_tokens
        self.tokens += found.tokens

    def close(self) -> None:
        """Close the connections."""
        self.http.close()


def _read(answer: Any) -> Reply | None:
    """The reply in a server's answer; None if there is no text in it."""
    try:
        choice, usage = answer["choices"][0], answer.get("usage") or {}
        text = choice["message"]["content"]
        if not isinstance(text, str) or not text.strip():
            return None
        cost = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
        return Reply(text, *cost, str(choice.get("finish_reason") or ""))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return None


def in_threads(
    items: Iterable[Item], do: Callable[[Item], Done], threads: int
) -> Iterator[tuple[int, Done]]:
    """(index, result) of each item as they are done; a failure ends it when those under way end."""
    stop = Event()

    def unless_stopped(index: int, item: Item) -> tuple[int, Done] | None:
        try:
            return None if stop.is_set() else (index, do(item))
        except BaseException:
            stop.set()
            raise

    with ThreadPoolExecutor(threads) as pool:
        jobs = [pool.submit(unless_stopped, index, item) for index, item in enumerate(items)]
        failure = None
        try:
            for job in as_completed(jobs):
                if error := job.exception():
                    failure = failure or error
                elif found := job.result():
                    yield found
        finally:
            stop.set()  # an interrupt, too, leaves nothing behind
    if failure:
        raise failure
