"""Any server that speaks the OpenAI chat protocol only, as hosted models do.

A chat server renders its own template, so the conversation travels through `Family.render` as JSON
instead of as text. Such a server begins a new turn each time: it cannot go on from a prefix, and it
tells no log-probabilities of given options.
"""

import json
from collections.abc import Sequence
from typing import Any

from psr_lib.engines.base import Completion
from psr_lib.engines.calls import Request
from psr_lib.engines.http_json import Refused
from psr_lib.engines.server import ODD, ServerEngine, read_choice, too_long
from psr_lib.records import PSRError

END = "\x1e"  # parts the conversation from what the model's own turn begins with


class Conversation:
    """Stands where a tokenizer does: its chat template keeps the turns as they are."""

    def apply_chat_template(
        self, turns: Sequence[dict[str, str]], tokenize: bool = False,
        add_generation_prompt: bool = True,
    ) -> str:  # fmt: skip
        """The turns as JSON.

        >>> Conversation().apply_chat_template([{"role": "user", "content": "1 + 1?"}])
        '[{"role": "user", "content": "1 + 1?"}]\\x1e'
        """
        return json.dumps(list(turns), ensure_ascii=False) + END


def messages_of(prompt: str) -> list[dict[str, str]]:
    """The turns of a rendered prompt; plain text is a turn of the user.

    Raises PSRError where the model's turn has begun already.
    """
    turns, parted, begun = prompt.partition(END)
    if not parted:
        return [{"role": "user", "content": prompt}]
    if begun:
        raise PSRError(
            "engine server: a chat server cannot go on from the steps so far; set "
            "engine.protocol=completions for a search"
        )
    return json.loads(turns)


class ChatServerEngine(ServerEngine):
    """Samples from a model behind `<url>/chat/completions`."""

    def __init__(self, url: str, model: str, **settings: Any):
        """As for ServerEngine, without a tokenizer."""
        super().__init__(url, model, None, **settings)
        self.tokenizer = Conversation()

    def _encode(self, prompts: list[str]) -> list[list[int]]:
        return [[] for _ in prompts]

    def choose(self, prompts: list[str], options: list) -> list[list[float]]:
        """Not to be had: raises PSRError."""
        raise PSRError("engine server: a chat server scores no options; set judge.verdict=written")

    def _complete(self, r: Request) -> tuple[Completion, int]:
        body = {"model": self.model, "messages": messages_of(r.prompt), "max_tokens": r.room,
                "temperature": r.temperature, "top_p": r.top_p, "n": 1}  # fmt: skip
        body |= {"stop": r.stop} if r.stop else {}
        body |= self._seed(r) if r.temperature > 0 else {}
        try:
            answer = self.http.ask("chat/completions", body)
        except Refused as error:
            if not too_long(error):
                raise
            return Completion("", 0, "overflow", 0), 0
        try:
            return read_choice(answer, answer["choices"][0]["message"]["content"] or "", r)
        except ODD:
            raise self._odd_answer(answer, "chat/completions") from None
