"""Peak memory and CPU time of a search over so many problems, in a process of its own.

    python -m psr_lib.bench_memory 10000            # a scripted engine
    python -m psr_lib.bench_memory 1000 --model runs/tiny/seed0/psrlm/M1/model --questions ...

Everything that a stage does with its searches is in it: the journal, both files, the statistics.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from psr_lib import presets, prompts
from psr_lib.engines.base import Completion, Usage
from psr_lib.journal import Journal, search_into
from psr_lib.judge import Judge
from psr_lib.records import Question, Rows, seed_of, write_jsonl
from psr_lib.search import search_stream
from psr_lib.traces import TraceFile, search_stats


class Scripted:
    """An engine that answers by hash, so that all memory is the search's own."""

    honours_seeds = True

    def __init__(self) -> None:
        self.usage = Usage()

    def sample(self, prompts: list[str], *, n: int, seeds: list[int], **_: Any) -> list[list]:
        """Steps of which some are equal and some end the solution, or verdicts."""
        rows = zip(prompts, seeds, strict=True)
        return [[self._one(p, Random(seed_of(p, s, k))) for k in range(n)] for p, s in rows]

    def _one(self, prompt: str, noise: Random) -> Completion:
        if prompt.endswith("Review:"):
            text = f"Because it is so and not otherwise. [[{noise.choice('AB')}]]"
        else:
            depth = prompt.split("Solution:\n")[1].count("\n") + 1
            end = " \\boxed{7}" if noise.random() < 0.3 else ""
            text = f"Step {depth}: take {noise.randrange(4)} pens, so {noise.randrange(2)}.{end}"
        return Completion(text, len(text.split()), "stop", len(prompt.split()))


class Repeated:
    """So many questions made on the way, from a few texts, each with an id of its own."""

    def __init__(self, count: int, texts: list[str]):
        self.count, self.texts = count, texts

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Question]:
        for k in range(self.count):
            yield Question(id=f"bench/{k}", text=self.texts[k % len(self.texts)])


def measure(problems: int, model: str, questions: str, overrides: str) -> dict[str, float]:
    """Peak resident memory (MiB) of a process, and CPU seconds of all, in which the search ran.

    Engine `hf` searches in forked processes, while this one only listens.
    """
    preset = presets.load("tiny", overrides)
    texts, tokenizer = ["Tom has 4 pens. How many pens?"], None
    engine: Any = Scripted()
    if model:
        from psr_lib.bench_rates import opened

        texts = [row.text for row in Rows(questions, Question)]
        engine = opened(preset, model)
        tokenizer = engine.tokenizer
    before, started = _cpu_seconds(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = _search(engine, tokenizer, preset, Repeated(problems, texts), Path(folder))
    return {
        "problems": problems,
        "peak_mib": max(used.ru_maxrss for used in _used()) / 1024,
        "cpu_seconds": _cpu_seconds() - before,
        "wall_seconds": time.perf_counter() - started,
        "pairs": found["pairs"],
    }


def _used() -> list[Any]:
    """What this process used, and those of its children that have ended (the largest of them)."""
    return [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]


def _cpu_seconds() -> float:
    return sum(used.ru_utime + used.ru_stime for used in _used())


def _search(engine: Any, tokenizer: Any, preset: Any, asked: Repeated, folder: Path) -> dict:
    family = prompts.load(preset.prompts)
    judge = Judge(engine, family, tokenizer, preset.judge, scoring=preset.search.scoring)
    journal = Journal(folder / "traces.part", "bench")

    def search(left: Any) -> Any:
        return search_stream(engine, family, tokenizer, left, preset.search, judge, 0)

    search_into(journal, asked, search)
    write_jsonl(folder / "traces.jsonl.gz", journal.rows())
    journal.close()
    traces = TraceFile(folder / "traces.jsonl.gz")
    write_jsonl(folder / "ppd.jsonl", (pair for trace in traces for pair in trace.pairs))
    return search_stats(traces)


def main(argv: list[str] | None = None) -> int:
    """Print the measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("problems", type=int)
    parser.add_argument("--model", default="")
    parser.add_argument("--questions", default="")
    parser.add_argument("--set", default="", help="overrides of the preset tiny")
    args = parser.parse_args(argv)
    print(json.dumps(measure(args.problems, args.model, args.questions, args.set)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
