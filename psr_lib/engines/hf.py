"""A transformers model as an engine, on CPU or GPU.

What makes it quick on a laptop: the instruction that all prompts begin with is read once
(`roots.py`); prompts with a longer common beginning are prefilled once and keep one copy of its
cache (`attention.py`); siblings are decoded once until they part (`batch.py`); finished rows make
room for waiting ones at once; one process a core (`forks.py`), each with its own batch, because a
small model's kernels are too short to share.
"""

import gc
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import torch

from psr_lib.engines import attention, forks
from psr_lib.engines.base import Completion, EngineError, Told, Usage
from psr_lib.engines.batch import Batch, PlainBatch, SharedBatch, merged, read_root
from psr_lib.engines.calls import checked_seeds, encode, one_line, option_lists
from psr_lib.engines.forks import Tick
from psr_lib.engines.groups import Extent, Group, Row, chunked, divided, grouped, with_options
from psr_lib.engines.roots import Layers, Root, Roots
from psr_lib.engines.sampling import next_tokens
from psr_lib.records import seed_of

CPU_ROWS, GPU_ROWS = 384, 1024  # rows decoded together
CPU_PREFILL, GPU_PREFILL = 1024, 16384  # prompt tokens in one forward pass
LEAST_SHARED = 16  # rows of a call that are worth a second process
Job = Callable[["HFEngine", list[Group], Tick], Any]  # can be pickled
COMPACT = 0.25  # share of idle lanes at which a batch is compacted


class HFEngine:
    """Samples from and scores with a causal language model of transformers."""

    honours_seeds = True
    progress: Told | None = None

    def __init__(
        self,
        model,
        tokenizer,
        *,
        batch_tokens: int = 65536,
        max_rows: int = 0,
        workers: int = 0,
    ):
        """`batch_tokens`: cache columns of all rows decoded at once; `workers`: CPU cores.

        The workers have equal parts of them, as all of their batches lie in the same memory.
        """
        self.model, self.tokenizer = model.eval(), tokenizer
        self.batch_tokens = batch_tokens
        cpu = model.device.type == "cpu"
        self.max_rows = max_rows or (CPU_ROWS if cpu else GPU_ROWS)
        self.prefill_tokens = CPU_PREFILL if cpu else GPU_PREFILL
        self.workers = (workers or torch.get_num_threads()) if cpu else 1
        self.columns = max(1, batch_tokens // self.workers)  # of one worker's batch
        self.usage = Usage()
        self.batch_class: type[SharedBatch | PlainBatch] = PlainBatch
        if attention.supports(model.config):
            model.set_attn_implementation(attention.NAME)
            self.batch_class = SharedBatch
        self.eos = _eos_ids(model, tokenizer)
        self.pad_id = next((i for i in [tokenizer.pad_token_id, *self.eos] if i is not None), 0)
        self.context = getattr(model.config, "max_position_embeddings", None) or 2**31
        self._texts: list[str] = []
        self._lock = threading.Lock()
        self._workers: forks.Workers | None = None
        self._known: tuple = ()
        self._roots = Roots()
        self._read_with: tuple = ()

    @classmethod
    def load(cls, folder: Path | str, dtype: str = "", device: str = "auto", **settings: Any):
        """The engine of a model folder; `trust_remote_code` and the settings above may follow.

        Without a dtype, float32 on a CPU and bfloat16 elsewhere. Raises PSRError as `models` does.
        """
        from psr_lib.models import device_of, load_model, load_tokenizer

        trust, place = settings.pop("trust_remote_code", False), device_of(device)
        dtype = dtype or ("float32" if place.type == "cpu" else "bfloat16")
        tokenizer = load_tokenizer(folder, trust_remote_code=trust)
        return cls(load_model(folder, dtype, place, trust_remote_code=trust), tokenizer, **settings)

    def close(self) -> None:
        """Let the model go, and what its device holds for it; the engine can do nothing after."""
        if self._workers:
            self._workers.end()
        place, self.model, self._roots = self.model.device.type, None, Roots()
        gc.collect()
        if place == "cuda":
            torch.cuda.empty_cache()

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
        """`n` completions of each prompt, in order; see `engines.base.Engine.sample`."""
        seeds = checked_seeds(prompts, seeds)
        ids = encode(self.tokenizer, prompts)
        copies = n if temperature > 0 else 1  # greedy siblings are equal
        items = []
        for i, (prompt, seed) in enumerate(zip(ids, seeds, strict=True)):
            room = min(max_tokens, self.context - len(prompt))
            for k in range(copies if room > 0 else 0):
                items.append((prompt, Row((i, k), [], seed_of(seed, k), room)))
        # Workers that were forked before somebody watched are told with the job.
        job = partial(_decode, temperature, top_p, stop or [], self.progress is not None)
        done = dict(chain(*self._work(grouped(items), job)))
        overflow = [Completion("", 0, "overflow", len(prompt)) for prompt in ids]
        self._count(ids, n, done.values(), sum(len(p) >= self.context for p in ids) * n)
        return [
            [done.get((i, k if copies > 1 else 0), overflow[i]) for k in range(n)]
            for i in range(len(prompts))
        ]

    def choose(self, prompts: list[str], options: list) -> list[list[float]]:
        """Summed log-probability of each option's own tokens after each prompt.

        `options` is one list for all prompts or one list a prompt. A prompt that leaves no room for
        an option gets -inf there, and is counted as overflow.
        """
        lists = option_lists(prompts, options)
        ids, items, scores, overflow = encode(self.tokenizer, prompts), [], {}, 0
        for i, prompt in enumerate(ids):
            rows: dict[tuple, Row] = {}  # options that part at their last token are one row
            for k, option in enumerate(lists[i]):
                extra = self.tokenizer.encode(option, add_special_tokens=False)
                if len(prompt) + len(extra) > self.context:
                    overflow += 1
                elif not extra:
                    scores[i, k] = 0.0
                else:
                    *begin, last = extra
                    row = rows.setdefault(tuple(begin), Row((i, k), [], 0, 0, ids=begin))
                    row.ends.append((k, last))
            items += [(prompt, row) for row in rows.values()]
        for found in self._work(with_options(grouped(items)), _score):
            scores.update(found)
        self._count(ids, max(map(len, lists), default=0), overflow=overflow)
        return [
            [scores.get((i, k), float("-inf")) for k in range(len(lists[i]))]
            for i in range(len(prompts))
        ]

    @property
    def shards(self) -> int:
        """Processes among which `spread` divides its items."""
        return self.workers if forks.POSSIBLE else 1

    @property
    def spreads(self) -> bool:
        """Whether a search goes to processes as a whole.

        A larger model's time is all in its calls. Their rows can be divided evenly; problems can't,
        as nobody knows how much will be written for each.
        """
        return self.shards > 1 and forks.small(self.model)

    def spread(
        self, work: Callable[[list[Any]], Iterator[Any]], items: Sequence[Any]
    ) -> Iterator[Any]:
        """What `work` finds for parts of the items, each in a process of its own, as it comes.

        For work that calls this engine again and again: its parts never wait for each other, while
        the parts of a single call all wait for the longest one.
        """
        parts = [part for part in (items[k :: self.shards] for k in range(self.shards)) if part]
        if len(parts) < 2:
            yield from work(list(items))
            return

        def do(part: list[Any], send: Tick) -> Usage:
            self.workers, self.progress, before = 1, None, self.usage.copy()
            for found in work(part):
                send(found)
            return self.usage.since(before)

        for usage in (yield from forks.Workers(len(parts), do).stream(parts)):
            self.usage.add(usage)

    def batches(
        self, groups: list[Group], keep: Callable[[list[Group]], int] = lambda _: 1
    ) -> Iterator[Any]:
        """The groups, prefilled in parts that fit; `keep`: columns of a part that need logits."""
        roots: list[tuple[Root | None, list[Group]]] = [(None, groups)]
        if self.batch_class is SharedBatch:
            roots = self._roots.over(groups, self._read)
        for root, some in roots:
            for chunk in chunked(some, self.prefill_tokens, len(root.ids) if root else 0):
                batch = self.batch_class(chunk, self.model, self.pad_id, keep(chunk), root)
                self.prefilled(batch.prefilled)
                yield batch

    def _read(self, ids: list[int]) -> Layers:
        self.prefilled(len(ids))
        return read_root(self.model, ids)

    def prefilled(self, tokens: int) -> None:
        """Count prompt tokens that went through the model."""
        with self._lock:
            self.usage.prefill += tokens

    def _work(self, groups: list[Group], job: Job) -> list[Any]:
        """Share the groups among the workers, always the same groups together; each one's result.

        Raises EngineError where the model fails.
        """
        total, done = sum(len(g.rows) for g in groups), [0]

        def tick(rows: int | list[tuple[int, str]]) -> None:
            written = [] if isinstance(rows, int) else rows
            with self._lock:
                done[0] += rows if isinstance(rows, int) else len(rows)
                if self.progress:
                    self.progress(done[0], total, written)

        if self._read_with != (weights := self._weights()):
            self._roots, self._read_with = Roots(), weights
        parts = divided(groups, self.workers if total >= LEAST_SHARED else 1)
        if len(parts) < 2:
            return [self._share((job, part), tick)[0] for part in parts]
        shares = [(job, part) for part in parts]
        with one_thread():
            if not forks.POSSIBLE:
                with ThreadPoolExecutor(len(parts)) as pool:
                    return [found for found, _ in pool.map(self._share, shares, repeat(tick))]
            own, *others = self._forked().run(self._share, shares, tick)
        self.prefilled(sum(tokens for _, tokens in others))  # counted in the forks, not here
        return [found for found, _ in (own, *others)]

    def _share(self, share: tuple[Job, list[Group]], tick: Tick) -> tuple[Any, int]:
        """One worker's part of a call: what the job found, and the prompt tokens it took."""
        job, groups = share
        before = self.usage.prefill
        try:
            with torch.inference_mode():
                return job(self, groups, tick), self.usage.prefill - before
        except (RuntimeError, MemoryError) as error:  # memory, or a damaged device
            raise EngineError(
                f"engine hf: stopped in the middle of a call ({one_line(error)}); run "
                "again, with a lower engine.batch_tokens if memory ran out"
            ) from error

    def _forked(self) -> forks.Workers:
        """The other workers; new ones where the old ones do not know the engine as it is now."""
        known = (self._weights(), self.batch_class, self.columns, self.max_rows, self.workers)
        if self._workers is None or not self._workers.children or self._known != known:
            if self._workers:
                self._workers.end()
            self._workers, self._known = forks.Workers(self.workers - 1, self._share), known
            weakref.finalize(self, self._workers.end)
        return self._workers

    def _weights(self) -> tuple:
        """What changes when the model's weights do."""
        return tuple((p.data_ptr(), p._version) for p in self.model.parameters())

    def _count(self, ids: list, n: int, done: Iterable[Completion] = (), overflow: int = 0) -> None:
        self.usage.rows += len(ids) * n
        self.usage.prompt += n * sum(map(len, ids))
        self.usage.generated += sum(completion.tokens for completion in done)
        self.usage.overflow += overflow

    def token_texts(self) -> list[str]:
        """The text of every token, byte-level and SentencePiece marks read as blank and newline."""
        if not self._texts:
            size = self.model.get_input_embeddings().num_embeddings
            raw = self.tokenizer.convert_ids_to_tokens(list(range(min(size, len(self.tokenizer)))))
            plain = [[token or ""] for token in raw]
            for i, text in enumerate(self.tokenizer.batch_decode([[i] for i in range(len(raw))])):
                plain[i].append(text)
            marks = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n"})
            self._texts = [f"{a.translate(marks)}{b}" for a, b in plain]
        return self._texts


def _score(engine: HFEngine, groups: list[Group], tick: Tick) -> dict[tuple[int, int], float]:
    """The score of every option of these groups, by the places of its prompt and of itself."""
    scores = {}

    def keep(chunk: list[Group]) -> int:
        return 1 + max(len(row.ids) for group in chunk for row in group.rows)

    for batch in engine.batches(groups, keep):
        assert batch.tail_logits is not None  # no step was made
        logs = torch.log_softmax(batch.tail_logits.float(), -1)
        for lane, row in zip(batch.row_lanes(), batch.rows, strict=True):
            # The last columns hold the prompt's last token and the option but for its end.
            log, begin = logs[lane, -len(row.ids) - 1 :], torch.tensor(row.ids, dtype=torch.long)
            shared = float(log[:-1].gather(-1, begin[:, None].to(log.device)).sum())
            last = log[-1, [token for _, token in row.ends]].tolist()
            for (k, _), end in zip(row.ends, last, strict=True):
                scores[row.place[0], k] = shared + end
        tick(len(batch.rows))
    return scores


def _decode(
    temperature: float,
    top_p: float,
    stop: list[str],
    watched: bool,
    engine: HFEngine,
    groups: list[Group],
    tick: Tick,
) -> list[tuple[tuple[int, int], Completion]]:
    return Run(engine, temperature, top_p, stop, watched).decode(groups, tick)


class Run:
    """One call of `sample`: its settings, and the loop that each worker runs."""

    def __init__(
        self, engine: HFEngine, temperature: float, top_p: float, stop: list[str],
        watched: bool = False,
    ):  # fmt: skip
        """`watched`: finished rows are told with their texts, not only counted."""
        self.engine, self.temperature, self.top_p = engine, temperature, top_p
        self.watched = watched
        self.stop = [s for s in stop if s]
        self.eos = set(engine.eos)
        ends = {s[-1] for s in self.stop}
        # Only a token whose text holds the last character of a stop string can complete one.
        self.triggers = {
            i
            for i, text in enumerate(engine.token_texts() if ends else [])
            if any(end in text for end in ends) or "\ufffd" in text
        }
        self.tail = 8 + 2 * max(map(len, self.stop), default=0)

    def decode(self, groups: list[Group], tick: Tick) -> list[tuple[tuple[int, int], Completion]]:
        """Decode all rows of these groups: fill up, draw, drop what is finished, step.

        Returns each row's place and completion.
        """
        queue = deque(groups)
        batch: Batch | None = None
        while queue or batch:
            if batch is None or (queue and self._has_room(batch)):
                batch = self._fill(queue, batch)
            tokens = self._draw(batch, tick)
            alive = [i for i, row in enumerate(batch.rows) if not row.finish]
            if not alive:
                batch = None
                continue
            # A finished row is carried along until dropping rows is worth the copy.
            if batch.idle(alive) >= COMPACT:
                tokens, alive = tokens[batch.select(alive)], list(range(len(alive)))
            batch.step(tokens, alive)
        return [
            (row.place, self.completion(row, len(group.prefix) + len(row.tail)))
            for group in groups
            for row in group.rows
        ]

    def _has_room(self, batch: Batch) -> bool:
        return batch.mergeable and batch.lanes <= 0.75 * self.engine.max_rows

    def _fill(self, queue: deque, batch: Batch | None) -> Batch:
        """Prefill waiting groups until the lane or the column budget is reached."""
        engine = self.engine
        lanes, extent = (batch.lanes, batch.extent) if batch else (0, Extent())
        taken: list[Group] = []
        while queue and (not lanes or lanes + queue[0].lanes <= engine.max_rows):
            wider = extent.and_group(queue[0])
            if lanes and wider.columns > engine.columns:
                break
            lanes, extent = lanes + queue[0].lanes, wider
            taken.append(queue.popleft())
        taken.sort(key=lambda group: group.shape)  # neighbours are padded to one length
        if engine.batch_class is PlainBatch:  # which no other can be merged with
            new = PlainBatch(taken, engine.model, engine.pad_id)
            engine.prefilled(new.prefilled)
            return new
        return merged(
            [*([batch] if isinstance(batch, SharedBatch) else []), *engine.batches(taken)]
        )

    def _draw(self, batch: Batch, tick: Tick) -> torch.Tensor:
        """Draw a token for every row [rows] and note which rows it finishes."""
        logits, seeds, counts = batch.row_logits(), batch.seeds, batch.counts
        tokens = next_tokens(logits, self.temperature, self.top_p, seeds, counts)
        ended = []
        for row, token in zip(batch.rows, tokens.tolist(), strict=True):
            if not row.finish:
                row.ids.append(token)
                row.finish = self._finish(row, token)
                ended += [row] if row.finish else []
        if self.watched:
            tick([(row.place[0], self.completion(row, 0).text) for row in ended])
        else:
            tick(len(ended))
        return tokens

    def _finish(self, row: Row, token: int) -> str:
        if token in self.eos:
            return "eos"
        if token in self.triggers:
            text = self._text(row.ids[-self.tail :])
            if any(s in text for s in self.stop):
                return "stop"
        return "length" if len(row.ids) >= row.room else ""

    def _text(self, ids: list[int]) -> str:
        return self.engine.tokenizer.decode(ids, clean_up_tokenization_spaces=False)

    def completion(self, row: Row, prompt_tokens: int) -> Completion:
        """The finished row as text, cut before the first stop string."""
        ids = row.ids[:-1] if row.finish == "eos" else row.ids
        text = self._text(ids)
        if row.finish == "stop":
            text = text[: min(at for at in (text.find(s) for s in self.stop) if at >= 0)]
        return Completion(text, len(row.ids), row.finish, prompt_tokens)


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block each of torch's operations stays on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _eos_ids(model, tokenizer) -> list[int]:
    found = getattr(model.generation_config, "eos_token_id", None)
    found = found if isinstance(found, list) else [found]
    return sorted({i for i in [*found, tokenizer.eos_token_id] if i is not None})
