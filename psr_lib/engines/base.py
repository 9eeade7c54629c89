"""The interface of an engine: two calls, each over one big batch.

Judge and evaluation know nothing else about a model, so that transformers, a server or a scripted
table in a test can stand behind them. A search asks two things more, which an engine need not have:
whether it takes requests while it works (`flow`, see `flow.py`), and whether it has processes or
machines that search by themselves (`spreads`; then `shards` says how many, and `spread` has them do
it).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

from psr_lib.records import PSRError

FINISHES = ("stop", "eos", "length", "overflow")


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt.

    `text` leaves out the stop string and the end-of-text token; `tokens` counts all that was
    generated, those included. `finish` is one of `stop`, `eos`, `length` (cut by `max_tokens` or by
    the end of the context) or `overflow` (the prompt alone fills the context; nothing is written).
    """

    text: str
    tokens: int
    finish: str
    prompt_tokens: int


# Told while a call goes on: rows done, rows in all, and what was just written to which prompt.
Told = Callable[[int, int, list[tuple[int, str]]], None]


class EngineError(PSRError):
    """An engine stopped in the middle of a call.

    `finished` holds what was complete by then: the index of a prompt -> its completions (or its
    scores). A caller may keep those rows and ask for the others again.
    """

    def __init__(self, message: str, finished: Mapping[int, list] | None = None):
        """`message`: one line; `finished`: complete results by index of their prompt."""
        super().__init__(message)
        self.finished = dict(finished or {})

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors travel between processes with what was finished."""
        return type(self), (str(self), self.finished)


@dataclass
class Usage:
    """Work done by an engine since it was made, in tokens.

    `prompt` counts every row's prompt as if nothing were shared; `prefill` counts the prompt tokens
    that really went through the model; `generated` counts the tokens of all completions.
    """

    rows: int = 0
    prompt: int = 0
    prefill: int = 0
    generated: int = 0
    overflow: int = 0

    def add(self, other: "Usage") -> None:
        """Add another count to this one."""
        for spec in fields(self):
            setattr(self, spec.name, getattr(self, spec.name) + getattr(other, spec.name))

    def since(self, before: "Usage") -> "Usage":
        """What was done after `before` was copied."""
        pairs = {f.name: getattr(self, f.name) - getattr(before, f.name) for f in fields(self)}
        return Usage(**pairs)

    def copy(self) -> "Usage":
        """A snapshot."""
        return self.since(Usage())


def close(engine: Any) -> None:
    """Give back what an engine holds, processes or a device's memory, where it holds any."""
    if hasattr(engine, "close"):
        engine.close()


@runtime_checkable
class Engine(Protocol):
    """A model behind two calls.

    `honours_seeds` says whether equal seeds give equal samples whatever else is in the batch;
    `tokenizer` is the model's, None where a server keeps it to itself.
    """

    honours_seeds: bool
    usage: Usage
    tokenizer: Any

    def sample(
        self,
        prompts: list[str],
        *,
        n: int,
        temperature: float,
        top_p: float,
        max_tokens: int,
        stop: list[str],
        seeds: list[int],
    ) -> list[list[Completion]]:
        """`n` completions of each prompt; temperature 0 is greedy; one seed a prompt."""
        ...

    def choose(self, prompts: list[str], options: list[str]) -> list[list[float]]:
        """Summed log-probability of each option's tokens after each prompt."""
        ...
