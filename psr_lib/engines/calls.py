"""What every engine does before and after its model works: tokens, seeds, overflow, counting.

`RequestEngine` is the base of engines that send one request a completion (vllm, server). Each
sibling has its own seed and is asked for by itself, so that a text depends neither on how many
siblings it has nor on the batch, and its tokens are counted exactly.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psr_lib.engines.base import Completion, EngineError, Told, Usage
from psr_lib.records import PSRError, seed_of

UNKNOWN_CONTEXT = 2**31

Place = tuple[int, int]  # index of the prompt; number of the sibling or option
Keep = Callable[[Place, Any], None]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One completion that is asked for; `room`: most new tokens; no `ids` without a tokenizer."""

    place: Place
    prompt: str
    ids: list[int]
    seed: int
    room: int
    temperature: float
    top_p: float
    stop: list[str]


def one_line(error: BaseException | str, limit: int = 200) -> str:
    """The first line of an error, short enough for a message."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:limit]


def checked_seeds(prompts: list[str], seeds: list[int] | None) -> list[int]:
    """One seed a prompt; raises PSRError where their numbers differ."""
    seeds = list(range(len(prompts))) if seeds is None else list(seeds)
    if len(seeds) != len(prompts):
        raise PSRError(f"engine: {len(prompts)} prompts but {len(seeds)} seeds; give one each")
    return seeds


def option_lists(prompts: list[str], options: list) -> list[list[str]]:
    """One list of options a prompt, from one list for all or a list of lists."""
    if options and isinstance(options[0], list):
        if len(options) != len(prompts):
            raise PSRError(f"engine: {len(prompts)} prompts but {len(options)} lists of options")
        return options
    return [list(options)] * len(prompts)


def encode(tokenizer: Any, prompts: list[str]) -> list[list[int]]:
    """Token ids; a beginning-of-text token where the model has one, once.

    Raises PSRError where a prompt has no tokens.
    """
    bos, texts = tokenizer.bos_token_id, list(dict.fromkeys(prompts))
    adds_bos = bos is not None and bos in tokenizer("").input_ids
    found = tokenizer(texts, add_special_tokens=False).input_ids if texts else []
    known = {}
    for text, ids in zip(texts, found, strict=True):
        known[text] = [bos, *ids] if adds_bos and ids[:1] != [bos] else list(ids)
        if not known[text]:
            raise PSRError("engine: a prompt has no tokens; give it some text")
    return [known[prompt] for prompt in prompts]


class RequestEngine:
    """`sample` and `choose` over `_generate` and `_score`, which a kind of engine fills in.

    Both hand every result to `keep` as it comes, so that a call that fails half-way still says
    what it finished.
    """

    honours_seeds = False
    context = UNKNOWN_CONTEXT
    tokenizer: Any = None
    progress: Told | None = None

    def __init__(self) -> None:
        self.usage = Usage()

    def sample(
        self,
        prompts: list[str],
        *,
        n: int = 1,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_tokens: int = 128,
        stop: list[str] | None = None,
        seeds: list[int] | None = None,
    ) -> list[list[Completion]]:
        """`n` completions of each prompt, in order; see `engines.base.Engine.sample`.

        Raises EngineError where the engine stops in the middle.
        """
        seeds, ids = checked_seeds(prompts, seeds), self._encode(prompts)
        copies = n if temperature > 0 else 1  # greedy siblings are equal
        rooms = [min(max_tokens, self.context - len(row)) for row in ids]
        ends = [end for end in stop or [] if end]
        common: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "stop": ends}
        requests = [
            Request(place=(i, k), prompt=prompts[i], ids=ids[i], seed=seed_of(seeds[i], k),
                    room=rooms[i], **common)
            for i in range(len(prompts)) if rooms[i] > 0 for k in range(copies)
        ]  # fmt: skip
        done: dict[Place, Completion] = {
            (i, k): Completion("", 0, "overflow", len(ids[i]))
            for i, room in enumerate(rooms) if room <= 0 for k in range(copies)
        }  # fmt: skip

        def rows() -> dict[int, list[Completion]]:
            return _whole(done, [copies] * len(prompts), n)

        def keep(place: Place, completion: Completion) -> None:
            done[place] = completion
            if self.progress:
                self.progress(len(done), copies * len(prompts), [(place[0], completion.text)])

        self._run(lambda: self._generate(requests, keep), rows)
        self._count(rows(), n, sum(done[r.place].tokens for r in requests))
        return list(rows().values())

    def choose(self, prompts: list[str], options: list) -> list[list[float]]:
        """Summed log-probability of each option's own tokens after each prompt.

        `options` is one list for all prompts or one list a prompt. A prompt that leaves no room for
        an option gets -inf there, and is counted as overflow.
        """
        lists, ids = option_lists(prompts, options), self._encode(prompts)
        if self.tokenizer is None:
            raise PSRError("engine: choose needs the model's tokenizer; give its folder")
        done: dict[Place, float] = {}
        items = []
        for i, prompt in enumerate(ids):
            for k, option in enumerate(lists[i]):
                extra = self.tokenizer.encode(option, add_special_tokens=False)
                fits = len(prompt) + len(extra) <= self.context
                if fits and extra:
                    items.append(((i, k), prompt, extra))
                else:
                    done[i, k] = 0.0 if fits else float("-inf")

        def rows() -> dict[int, list[float]]:
            return _whole(done, [len(options) for options in lists])

        self._run(lambda: self._score(items, done.__setitem__), rows)
        width = max(map(len, lists), default=0)
        self.usage.overflow += sum(value == float("-inf") for value in done.values())
        self.usage.rows += width * len(ids)
        self.usage.prompt += width * sum(map(len, ids))
        return list(rows().values())

    def _generate(self, requests: list[Request], keep: Keep) -> None:
        """Hand a Completion of every request to `keep`."""
        raise NotImplementedError

    def _score(self, items: list[tuple[Place, list[int], list[int]]], keep: Keep) -> None:
        """Hand the summed log-probability of every (place, prompt, option) to `keep`."""
        raise NotImplementedError

    def _encode(self, prompts: list[str]) -> list[list[int]]:
        if self.tokenizer is None:  # the server counts them; overflow is seen from its answer
            return [[] for _ in prompts]
        return encode(self.tokenizer, prompts)

    def _run(self, work: Callable[[], None], rows: Callable[[], dict[int, list]]) -> None:
        """Do the work; what it finished before an error goes with the error."""
        try:
            work()
        except EngineError as error:
            raise EngineError(str(error), rows()) from None

    def _count(self, rows: dict[int, list[Completion]], n: int, generated: int) -> None:
        completions = [c for row in rows.values() for c in row]
        self.usage.rows += len(completions)
        self.usage.prompt += sum(c.prompt_tokens for c in completions)
        self.usage.generated += generated
        self.usage.overflow += sum(c.finish == "overflow" for c in completions)


def _whole(done: dict[Place, Any], widths: list[int], copies: int = 0) -> dict[int, list]:
    """Index of each prompt that is complete -> its results; one greedy result is given n times."""
    found = {}
    for i, width in enumerate(widths):
        if all((i, k) in done for k in range(width)):
            row = [done[i, k] for k in range(width)]
            found[i] = [row[k if width > 1 else 0] for k in range(copies)] if copies else row
    return found
