"""What every engine does before and after its model works: tokens, seeds, overflow, counting.

`RequestEngine` is the base of engines that send one request a completion (vllm, server). Each
sibling has its own seed and is asked for by itself, so that a text depends neither on how many
siblings it has nor on the batch, and its tokens are counted exactly.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from psr_lib.engines.base import Completion, EngineError, Told, Usage
from psr_lib.records import PSRError, seed_of

UNKNOWN_CONTEXT = 2**31

Place = tuple[int, int]  # index of the prompt; number of the sibling or option
Item = tuple[Place, list[int], list[int]]  # where, a prompt, an option to be scored after it
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


@dataclass(kw_only=True)
class Call:
    """One call of an engine: what is asked, and what is there of the answer.

    `widths`: answers to be found for each prompt; `jobs`: what the engine has to do for them.
    """

    widths: list[int]
    jobs: list[Any] = field(default_factory=list)
    done: dict[Place, Any] = field(default_factory=dict)
    wanted: int = field(init=False)

    def __post_init__(self) -> None:
        self.wanted = sum(self.widths)

    def keep(self, place: Place, found: Any) -> None:
        """Take the answer of one job."""
        self.done[place] = found

    @property
    def complete(self) -> bool:
        """Whether every answer is there."""
        return len(self.done) == self.wanted

    def rows(self) -> dict[int, list]:
        """Index of each prompt that is complete -> its answers."""
        return {
            i: [self.done[i, k] for k in range(width)]
            for i, width in enumerate(self.widths)
            if all((i, k) in self.done for k in range(width))
        }

    def result(self, usage: Usage) -> list[list]:
        """The whole answer, counted into `usage`."""
        raise NotImplementedError


@dataclass(kw_only=True)
class Sampling(Call):
    """A call of `sample`; its jobs are Requests, and each prompt is given `n` completions."""

    n: int
    progress: Told | None = None

    def keep(self, place: Place, found: Completion) -> None:
        """Take a completion, and tell of it."""
        super().keep(place, found)
        if self.progress:
            self.progress(len(self.done), self.wanted, [(place[0], found.text)])

    def rows(self) -> dict[int, list[Completion]]:
        """As `Call.rows`; one greedy completion is given n times."""
        found = super().rows()
        return {i: row if len(row) == self.n else row * self.n for i, row in found.items()}

    def result(self, usage: Usage) -> list[list[Completion]]:
        """The whole answer, counted into `usage`."""
        rows = list(self.rows().values())
        completions = [c for row in rows for c in row]
        usage.rows += len(completions)
        usage.prompt += sum(c.prompt_tokens for c in completions)
        usage.generated += sum(self.done[job.place].tokens for job in self.jobs)
        usage.overflow += sum(c.finish == "overflow" for c in completions)
        return rows


@dataclass(kw_only=True)
class Scoring(Call):
    """A call of `choose`; its jobs are Items, its answers summed log-probabilities."""

    prompt_tokens: int

    def result(self, usage: Usage) -> list[list[float]]:
        """The whole answer, counted into `usage`."""
        width = max(self.widths, default=0)
        usage.overflow += sum(score == float("-inf") for score in self.done.values())
        usage.rows += width * len(self.widths)
        usage.prompt += width * self.prompt_tokens
        return list(self.rows().values())


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
        settings = (n, temperature, top_p, max_tokens, stop or [])
        call = self.sampling(prompts, checked_seeds(prompts, seeds), *settings)
        self._run(self._generate, call)
        return call.result(self.usage)

    def sampling(
        self, prompts: list[str], seeds: list[int], n: int, temperature: float, top_p: float,
        max_tokens: int, stop: list[str],
    ) -> Sampling:  # fmt: skip
        """What `sample` asks for, with nothing asked yet."""
        ids = self._encode(prompts)
        copies = n if temperature > 0 else 1  # greedy siblings are equal
        call = Sampling(widths=[copies] * len(prompts), n=n, progress=self.progress)
        ends = [end for end in stop if end]
        common: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "stop": ends}
        for i, (prompt, row) in enumerate(zip(prompts, ids, strict=True)):
            room = min(max_tokens, self.context - len(row))
            for k in range(copies):
                seed = seed_of(seeds[i], k)
                if room > 0:
                    call.jobs.append(Request(place=(i, k), prompt=prompt, ids=row, seed=seed,
                                             room=room, **common))  # fmt: skip
                else:
                    call.done[i, k] = Completion("", 0, "overflow", len(row))
        return call

    def choose(self, prompts: list[str], options: list) -> list[list[float]]:
        """Summed log-probability of each option's own tokens after each prompt.

        `options` is one list for all prompts or one list a prompt. A prompt that leaves no room for
        an option gets -inf there, and is counted as overflow.
        """
        call = self.scoring(prompts, options)
        self._run(self._score, call)
        return call.result(self.usage)

    def scoring(self, prompts: list[str], options: list) -> Scoring:
        """What `choose` asks for, with nothing asked yet."""
        lists, ids = option_lists(prompts, options), self._encode(prompts)
        if self.tokenizer is None:
            raise PSRError("engine: choose needs the model's tokenizer; give its folder")
        widths = [len(options) for options in lists]
        call = Scoring(widths=widths, prompt_tokens=sum(map(len, ids)))
        for i, prompt in enumerate(ids):
            for k, option in enumerate(lists[i]):
                extra = self.tokenizer.encode(option, add_special_tokens=False)
                fits = len(prompt) + len(extra) <= self.context
                if fits and extra:
                    call.jobs.append(((i, k), prompt, extra))
                else:
                    call.done[i, k] = 0.0 if fits else float("-inf")
        return call

    def _generate(self, requests: list[Request], keep: Keep) -> None:
        """Hand a Completion of every request to `keep`."""
        raise NotImplementedError

    def _score(self, items: list[Item], keep: Keep) -> None:
        """Hand the summed log-probability of every (place, prompt, option) to `keep`."""
        raise NotImplementedError

    def _encode(self, prompts: list[str]) -> list[list[int]]:
        if self.tokenizer is None:  # the server counts them; overflow is seen from its answer
            return [[] for _ in prompts]
        return encode(self.tokenizer, prompts)

    def _run(self, do: Callable[[list[Any], Keep], None], call: Call) -> None:
        """Do the call's jobs; what was finished before an error goes with the error."""
        try:
            do(call.jobs, call.keep)
        except EngineError as error:
            raise EngineError(str(error), call.rows()) from None
