"""What `make bench` measures: token rates, the literal loop, judge calls, and lossy judging.

Two things that are compared run in turns, in changing order, and a ratio is taken of each turn.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from types import SimpleNamespace
from typing import Any

from psr_lib import prompts
from psr_lib.agreement import agreement
from psr_lib.engines.base import Engine
from psr_lib.judge import Judge
from psr_lib.literal import LiteralLoop
from psr_lib.models import load_tokenizer
from psr_lib.presets import Preset
from psr_lib.records import PSRError, Question
from psr_lib.search import step_search
from psr_lib.traces import SearchTrace, search_stats

Way = Callable[[], Any]
FULL = "the full procedure"
LOSSY: dict[str, dict[str, Any]] = {
    FULL: {},
    "likelier mark after the explanation": {"verdict": "explained"},
    "likelier mark, no explanation": {"verdict": "direct"},
    "early stop": {"early_stop": True},
    "agreement of both slots": {"scoring": "agreement"},
    "one vote at T 0.7": {"temperature": 0.7},
    "three votes at T 0.7": {"temperature": 0.7, "votes": 3},
}


def opened(preset: Preset, folder: Any, **changes: Any) -> Engine:
    """The preset's engine, with changes, on the model of a folder."""
    from psr_lib.rounds import open_engine

    dtype = changes.pop("dtype", preset.engine.dtype)
    sections = {"engine": replace(preset.engine, dtype=dtype, **changes), "model": preset.model}
    stage = SimpleNamespace(
        preset=SimpleNamespace(**sections), model=lambda n: folder, method="psrlm"
    )
    return open_engine(stage, 1)


@dataclass(frozen=True)
class Subject:
    """A search to measure: a preset's settings on one engine and some questions."""

    preset: Preset
    engine: Any
    questions: Sequence[Question]
    seed: int = 0

    @property
    def family(self) -> prompts.Family:
        """The preset's prompts."""
        return prompts.load(self.preset.prompts)

    def judge(self, engine: Any = None, scoring: str = "", **changes: Any) -> Judge:
        """A judge with an empty memory."""
        return Judge(
            engine or self.engine, self.family, self.engine.tokenizer,
            replace(self.preset.judge, **changes), seed=self.seed,
            scoring=scoring or self.preset.search.scoring,
        )  # fmt: skip

    def search(self, engine: Any = None) -> list[SearchTrace]:
        """Our search, nothing remembered from before."""
        engine, search = engine or self.engine, self.preset.search
        tokenizer, judge = self.engine.tokenizer, self.judge(engine)
        return step_search(engine, self.family, tokenizer, self.questions, search, judge, self.seed)

    def literal(self, together: bool) -> LiteralLoop:
        """The literal loop under the same settings."""
        return LiteralLoop(
            self.engine, self.family, self.engine.tokenizer, self.preset.search, self.judge(),
            self.seed, together=together,
        )  # fmt: skip


class Recorder:
    """Passes calls on to an engine and keeps what they asked."""

    def __init__(self, engine: Any):
        self.engine, self.usage = engine, engine.usage
        self.honours_seeds = engine.honours_seeds
        self.calls: dict[tuple, tuple[list[str], list[int]]] = {}

    def sample(self, prompts: list[str], *, seeds: list[int], **settings: Any) -> list:
        """The engine's answer."""
        key = tuple((k, tuple(v) if k == "stop" else v) for k, v in settings.items())
        kept = self.calls.setdefault(key, ([], []))
        kept[0].extend(prompts)
        kept[1].extend(seeds)
        return self.engine.sample(prompts, seeds=seeds, **settings)

    @property
    def asked(self) -> list[str]:
        """Every prompt so far."""
        return [prompt for asked, _ in self.calls.values() for prompt in asked]

    def replay(self) -> None:
        """All prompts again, each kind in one call: the engine without a search around it."""
        for key, (asked, seeds) in self.calls.items():
            settings = {k: list(v) if k == "stop" else v for k, v in key}
            self.engine.sample(asked, seeds=seeds, **settings)


def in_turns(repeats: int, ways: dict[str, Way]) -> dict[str, list[float]]:
    """Wall seconds of each way, `repeats` times, the order turned round every time."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for k in range(repeats):
        for name in list(ways)[:: -1 if k % 2 else 1]:
            started = time.perf_counter()
            ways[name]()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest of the turns' ratios."""
    found = [a / b for a, b in zip(above, below, strict=True)]
    return {"median": median(found), "low": min(found), "high": max(found), "runs": len(found)}


def token_rates(subject: Subject, recorder: Recorder, repeats: int) -> dict[str, Any]:
    """Generated tokens a second of the search and of the engine on the search's own prompts.

    `recorder` stands before the subject's engine; it has the prompts afterwards.
    """
    before = subject.engine.usage.copy()
    traces = subject.search(recorder)
    searched = subject.engine.usage.since(before)
    before = subject.engine.usage.copy()
    recorder.replay()
    raw = subject.engine.usage.since(before)
    seconds = in_turns(repeats, {"raw": recorder.replay, "search": subject.search})
    rates = {name: median(seconds[name]) for name in seconds}
    if not searched.generated or not raw.generated:
        raise PSRError("bench: the search generated nothing; give another model or questions")
    per_token = {
        "raw": [s / raw.generated for s in seconds["raw"]],
        "search": [s / searched.generated for s in seconds["search"]],
    }
    return {
        "problems": len(subject.questions),
        "generated_tokens": searched.generated,
        "raw_generated_tokens": raw.generated,
        "prefill_tokens": searched.prefill,
        "raw_prefill_tokens": raw.prefill,
        "raw_rate": raw.generated / rates["raw"],
        "search_rate": searched.generated / rates["search"],
        "ratio": ratio(per_token["raw"], per_token["search"]),
        "search_seconds": rates["search"],
        "seconds": seconds,
        **{f"search_{name}": value for name, value in judge_calls(traces).items()},
    }


def read_rate(engine: Engine, asked: list[str], repeats: int) -> dict[str, Any]:
    """Prompt tokens a second of the engine as a step PRM: an option is scored, nothing written.

    `asked`: the prompts, as those of a search; tokens of a common beginning count once.
    """
    found = []
    for _ in range(repeats + 1):
        before, started = engine.usage.copy(), time.perf_counter()
        engine.choose(asked, [" +"])
        found.append(engine.usage.since(before).prefill / (time.perf_counter() - started))
    return {"read_rate": median(found[1:])}  # the first call warms up


def train_rate(
    folder: Any, rows: Sequence[Any], settings: Any, family: Any, updates: int, repeats: int
) -> dict[str, Any]:
    """Tokens a second through forward and backward of SFT on a model folder, padding not counted.

    Loading and saving are left out; the first run, which warms up, is not counted.
    """
    from psr_lib.sft import train_sft  # TRL takes seconds to load

    tokenizer, found = load_tokenizer(folder), []
    for seed in range(repeats + 1):
        with tempfile.TemporaryDirectory() as work:
            made = train_sft(
                folder, tokenizer, rows, settings, work, seed, family, max_steps=updates
            )
        found.append(made["tokens"] / made["seconds"])
    return {"updates": updates, "repeats": repeats, "train_rate": median(found[1:])}


def judge_calls(traces: Sequence[SearchTrace]) -> dict[str, float]:
    """Judgements that the literal loop makes on these candidates, and ours."""
    stats = search_stats(traces)
    return {
        "literal_calls": stats["judge_calls"],
        "calls_made": stats["judge_made"],
        "fewer": stats["judge_calls"] / max(1, stats["judge_made"]),
        "distinct": stats["distinct"],
        "expansions": stats["expansions"],
        "pairs": stats["pairs"],
    }


def against_literal(subject: Subject, repeats: int, together: bool, slices: bool) -> dict[str, Any]:
    """Wall time of the literal loop over ours, and whether the PPD is the same.

    With `slices`, turn k of the literal loop takes every `repeats`-th question from the k-th on and
    its time counts `repeats`-fold: one pass over all questions instead of as many as turns.
    """
    loop = subject.literal(together)
    found: dict[int, list] = {}
    turn = [0]

    def literal() -> None:
        step = repeats if slices else 1
        places = range(len(subject.questions))[turn[0] % step :: step]
        turn[0] += 1
        found.update(zip(places, loop.run([subject.questions[k] for k in places]), strict=True))

    ours = [[_plain(pair) for pair in trace.pairs] for trace in subject.search()]
    seconds = in_turns(repeats, {"literal": literal, "ours": subject.search})
    if slices:
        seconds["literal"] = [s * repeats for s in seconds["literal"]]
    return {
        "problems": len(subject.questions),
        "identical_problems": sum(found[k] == ours[k] for k in found),
        "compared_problems": len(found),
        "pairs": sum(map(len, ours)),
        "literal_seconds": median(seconds["literal"]),
        "our_seconds": median(seconds["ours"]),
        "ratio": ratio(seconds["literal"], seconds["ours"]),
        "sliced": slices,
        "seconds": seconds,
    }


def _plain(pair: Any) -> tuple:
    finals = pair.chosen_final, pair.rejected_final
    return pair.prefix, pair.chosen, pair.rejected, *finals


def lossy_table(subject: Subject) -> list[dict[str, Any]]:
    """Each lossy way of judging against the full procedure, on the candidates of one search."""
    traces, rows = subject.search(), []
    for name, changes in LOSSY.items():
        judge = subject.judge(**changes)
        started = time.perf_counter()
        report = agreement(traces, judge, subject.seed, subject.preset.search.pick)
        seconds = time.perf_counter() - started
        rows.append({"way": name, **report, "seconds": seconds})
    return rows


def equal_rows(subject: Subject, other: Any) -> dict[str, Any]:
    """How far another engine (bf16, vLLM) judges the same candidates to the same rows."""
    return agreement(subject.search(), subject.judge(other), subject.seed)
