"""Any server that speaks the OpenAI completions protocol: `vllm serve`, or a hosted model.

Prompts go as token ids where the model's tokenizer is at hand, so a server adds nothing to them.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from psr_lib.engines.base import Completion, EngineError
from psr_lib.engines.calls import UNKNOWN_CONTEXT, Keep, Place, Request, RequestEngine
from psr_lib.engines.http_json import Http, Refused, readable
from psr_lib.engines.threads import each
from psr_lib.records import PSRError, read_json

SEEDS = ("sent", "none", "noise")
ODD = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)
TOO_LONG = ("context_length", "context length", "maximum model length", "max_model_len")


class ServerEngine(RequestEngine):
    """Samples from and scores with a model behind `<url>/completions`.

    `seeds` says how a row's seed travels: `sent` as the protocol's `seed`, which servers keep as
    well as they can, so nothing is promised; `none`, for those that refuse one; `noise`, for a
    `vllm serve --logits-processors psr_lib.engines.vllm_noise:SeededNoise`, whose texts are then
    those of the other engines, in any batch.
    """

    def __init__(
        self,
        url: str,
        model: str,
        tokenizer: Any = None,
        *,
        context: int = 0,
        concurrency: int = 32,
        timeout: float = 600.0,
        retries: int = 5,
        backoff: float = 0.5,
        seeds: str = "sent",
    ):
        """`timeout`: seconds for one request; `concurrency`: requests under way at once.

        Without a tokenizer prompts go as text and `choose` is not to be had. Raises PSRError where
        the server is not there, refuses the key, or has no such model.
        """
        super().__init__()
        if seeds not in SEEDS:
            raise PSRError(f"engine.seeds: {seeds!r} is unknown; choose one of {', '.join(SEEDS)}")
        self.model, self.tokenizer, self.seeds = model, tokenizer, seeds
        self.honours_seeds, self.concurrency = seeds == "noise", concurrency
        self.http = Http(
            url, timeout=timeout, retries=retries, connections=concurrency, backoff=backoff
        )
        found = self._served().get("max_model_len")
        self.context = min(context or UNKNOWN_CONTEXT, found or UNKNOWN_CONTEXT)

    @classmethod
    def load(cls, url: str, model: str, folder: Path | str, **settings: Any) -> "ServerEngine":
        """A server of the model of a local folder, whose tokenizer and context are read there."""
        from psr_lib.models import load_tokenizer

        tokenizer = load_tokenizer(folder, settings.pop("trust_remote_code", False))
        config = Path(folder) / "config.json"
        known = read_json(config).get("max_position_embeddings") if config.is_file() else None
        settings["context"] = settings.get("context") or known or 0
        return cls(url, model, tokenizer, **settings)

    def _served(self) -> dict[str, Any]:
        """What the server says of the model; {} where it lists none."""
        try:
            rows = self.http.ask("models")["data"]
            names = {row["id"]: row for row in rows}
        except Refused as error:
            if error.status in (404, 405):
                return {}
            raise
        except (KeyError, TypeError):
            return {}
        if self.model not in names:
            some = ", ".join(sorted(names)[:8]) or "none"
            raise PSRError(
                f"engine server: no model {self.model!r} at {self.http.url}, which has {some}; "
                "serve it under that name or set engine.model"
            )
        return names[self.model]

    def _generate(self, requests: list[Request], keep: Keep) -> None:
        self._each(requests, lambda request: (request.place, *self._complete(request)), keep)

    def _score(self, items: list, keep: Keep) -> None:
        self._each(items, lambda item: (item[0], *self._log_prob(*item[1:])), keep)

    def _each(
        self, jobs: Iterable[Any], do: Callable[[Any], tuple[Place, Any, int]], keep: Keep
    ) -> None:
        """Do the jobs, some at a time; after the first failure those under way are finished."""

        def take(found: tuple[Place, Any, int]) -> None:
            keep(*found[:2])
            self.usage.prefill += found[2]

        each(jobs, do, take, self.concurrency)

    def _complete(self, r: Request) -> tuple[Completion, int]:
        """A completion, and how many tokens of its prompt went through the model."""
        body: dict[str, Any] = {
            "model": self.model, "prompt": r.ids or r.prompt, "max_tokens": r.room,
            "temperature": r.temperature, "top_p": r.top_p, "n": 1,
        }  # fmt: skip
        body |= {"stop": r.stop} if r.stop else {}
        body |= self._seed(r) if r.temperature > 0 else {}
        try:
            answer = self.http.ask("completions", body)
        except Refused as error:
            if not too_long(error):
                raise
            return Completion("", 0, "overflow", len(r.ids)), 0
        try:
            return read_choice(answer, str(answer["choices"][0]["text"]), r)
        except ODD:
            raise self._odd_answer(answer) from None

    def _seed(self, r: Request) -> dict[str, Any]:
        if self.seeds == "noise":
            noise = {"psr_noise": [r.seed, r.temperature, r.top_p]}
            return {"temperature": 0.0, "top_p": 1.0, "vllm_xargs": noise}
        return {"seed": r.seed} if self.seeds == "sent" else {}

    def _log_prob(self, prompt: list[int], extra: list[int]) -> tuple[float, int]:
        """Summed log-probability of the tokens `extra` after `prompt`, from an echoed prompt."""
        body = {"model": self.model, "prompt": prompt + extra, "echo": True, "logprobs": 1,
                "max_tokens": 0, "temperature": 0.0}  # fmt: skip
        try:
            answer = self.http.ask("completions", body)
        except Refused as error:
            if not too_long(error):
                raise
            return float("-inf"), 0
        try:
            found = answer["choices"][0]["logprobs"]["token_logprobs"]
            return sum(map(float, found[len(prompt) :][: len(extra)])), len(prompt)
        except ODD:
            raise self._odd_answer(answer) from None

    def _odd_answer(self, answer: Any, path: str = "completions") -> EngineError:
        return EngineError(
            f"engine server: {self.http.url}/{path} gave {self.http.clean(answer)!r}, not an "
            "OpenAI completion with text, usage and log-probabilities; use another server"
        )

    def close(self) -> None:
        """Close the connections; the server goes on."""
        self.http.close()


def read_choice(answer: dict[str, Any], text: str, r: Request) -> tuple[Completion, int]:
    """A server's answer as a completion, and how many tokens of its prompt the model read."""
    usage, text = answer["usage"], readable(text)
    tokens, finish = int(usage["completion_tokens"]), _finish(answer["choices"][0], r.stop)
    prompt = len(r.ids) or int(usage["prompt_tokens"])
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    ends = [at for at in (text.find(s) for s in r.stop) if at >= 0]
    return Completion(text[: min(ends, default=None)], tokens, finish, prompt), prompt - cached


def _finish(choice: dict[str, Any], stop: list[str]) -> str:
    """`eos` or `stop`, told apart by what vLLM (`stop_reason`) and SGLang (`matched_stop`) add.

    A server that adds neither counts as stopped by a stop string where one was asked for.
    """
    if choice["finish_reason"] == "length":
        return "length"
    for name in ("stop_reason", "matched_stop"):
        if name in choice:
            return "stop" if isinstance(choice[name], str) else "eos"
    return "stop" if stop else "eos"


def too_long(error: Refused) -> bool:
    """Whether the server says that a prompt is longer than its context."""
    return error.status in (400, 413, 422) and any(s in error.reason.lower() for s in TOO_LONG)
