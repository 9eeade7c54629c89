"""Step-by-step search with self-judging (paper section 3.3, Eq. 1-5).

Each round every open problem samples w next steps, the judge plays them against each other, the
winner is appended and (winner, loser) becomes a preference pair. If the best and the worst score
are equal, the previous step and its pair are dropped and sampled again. `max_iterations` counts
every expansion, those that roll back too. Every problem is a task of its own (`engines/tasks.py`):
all live ones share the engine's batches, and new ones come in as others finish.

An ill-formed candidate (one that does not begin with the mark of its own step, holds another step's
mark, or was cut by the token limit) takes no part: it is counted, not judged, and neither chosen
nor rejected, so the pairs teach reasoning and not the format.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from psr_lib.engines.base import Completion, Engine
from psr_lib.engines.tasks import Sample, Task, drive
from psr_lib.judge import Item, Judge
from psr_lib.prompts import Family
from psr_lib.records import PSRError, Question, StepPair, seed_of
from psr_lib.robins import RoundRobin
from psr_lib.solving import solving
from psr_lib.steps import is_final, number, split_steps
from psr_lib.traces import Candidate, Expansion, SearchTrace

TIES, PICKS = ("rollback", "first"), ("random", "first")
Progress = Callable[[int, int], None]


def step_search(
    engine: Engine,
    family: Family,
    tokenizer: Any,
    questions: Sequence[Question],
    search: Any,
    judge: Judge,
    seed: int,
    *,
    select: bool = False,
    max_tokens: int = 512,
    progress: Progress | None = None,
) -> list[SearchTrace]:
    """Search every question; one trace each, in order. See `search_stream`."""
    found: dict[int, SearchTrace] = {}
    run = Search(engine, family, tokenizer, search, judge, seed, select, max_tokens)
    for place, trace in run.spread(enumerate(questions)):
        found[place] = trace
        if progress:
            progress(len(found), len(questions))
    return [found[place] for place in range(len(questions))]


def search_stream(
    engine: Engine,
    family: Family,
    tokenizer: Any,
    asked: Iterable[tuple[int, Question]],
    search: Any,
    judge: Judge,
    seed: int,
    *,
    select: bool = False,
    max_tokens: int = 512,
) -> Iterator[tuple[int, SearchTrace]]:
    """Search numbered questions; (number, trace) of each as it finishes.

    `search` is the preset's block of that name; `judge` ranks the candidates with its own scoring.
    At most `search.live` questions are open at once, and others come in as these finish, so memory
    does not grow with their number; no result depends on who is searched beside whom. With `select`
    it is the test-time search (section 4): no pairs and no roll-back, a tie goes to the most
    frequent candidate, and at the cap greedy decoding finishes within `max_tokens`.
    Raises PSRError where the engine fails.
    """
    run = Search(engine, family, tokenizer, search, judge, seed, select, max_tokens)
    return run.spread(asked)


@dataclass
class Search:
    """A search over one engine; `search_stream` says what its fields are."""

    engine: Engine
    family: Family
    tokenizer: Any
    search: Any
    judge: Judge
    seed: int
    select: bool
    max_tokens: int

    def __post_init__(self) -> None:
        _check(self.search)
        if self.judge.asks_model and self.judge.engine is not self.engine:
            raise PSRError("search: the judge has another engine than the search; give it this one")

    def spread(self, asked: Iterable[tuple[int, Question]]) -> Iterator[tuple[int, SearchTrace]]:
        """`stream`; where the engine has processes for it, a search of its own in each.

        The longest questions are dealt first, which makes the shares alike.
        """
        engine: Any = self.engine  # not every kind has `spread`
        if not getattr(engine, "spreads", False):
            return self.stream(asked)
        live = -(-self.search.live // engine.shards)
        share = replace(self, search=replace(self.search, live=live))
        longest = sorted(asked, key=lambda item: (-len(item[1].text), item[0]))
        return engine.spread(share.stream, longest)

    def stream(self, asked: Iterable[tuple[int, Question]]) -> Iterator[tuple[int, SearchTrace]]:
        """Numbered traces as they end; new questions come in for those that have ended."""
        tasks = ((place, self.task(SearchTrace(question))) for place, question in asked)
        return drive(self.engine, tasks, self.search.live)

    def task(self, trace: SearchTrace) -> Task:
        """One question from its first expansion to its end; the result is its trace."""
        while not trace.status:
            candidates, robin = yield from self.expand(trace)
            self.advance(trace, candidates, robin)
        trace.pairs = [pair for pair in trace._kept if pair is not None]
        self.judge.forget(trace.question)
        if self.select and trace.status == "cap":
            yield from self.finish(trace)
        return trace

    def expand(self, trace: SearchTrace) -> Task:
        """Candidates for the trace's next step, and their round robin (Eq. 1-2)."""
        candidates = yield from self.propose(trace)
        texts = tuple(c.text for c in candidates if c.valid)
        item = Item(trace.question, tuple(trace.path), texts, len(trace.expansions))
        (robin,) = yield from self.judge.ranking([item], skip_unanimous=self.select)
        return candidates, robin

    def propose(self, trace: SearchTrace) -> Task:
        """w candidates for the trace's next step (Eq. 1).

        The noise belongs to (seed, problem, depth, attempt) and the sibling's number.
        """
        prompt = self.family.solve(trace.question.text, trace.path)
        (found,) = yield Sample(
            doing="sampling steps",
            prompts=[self.family.render(self.tokenizer, prompt)],
            seeds=[self.step_seed(trace, "sample")],
            n=self.search.width,
            temperature=self.search.temperature,
            top_p=self.search.top_p,
            max_tokens=self.search.max_step_tokens,
            stop=[self.family.stop],
        )
        trace.tokens["prompt"] += sum(c.prompt_tokens for c in found)
        trace.tokens["prefill"] += found[0].prompt_tokens
        trace.tokens["generated"] += sum(c.tokens for c in found)
        return [read_candidate(c, len(trace.path) + 1) for c in found]

    def finish(self, trace: SearchTrace) -> Task:
        """Complete a capped path greedily."""
        asked = solving(
            self.family, self.tokenizer, [trace.question], self.max_tokens, [trace.path]
        )
        (completion,) = yield from asked
        trace.rest = completion.text
        for name in ("prompt", "prefill"):
            trace.tokens[name] += completion.prompt_tokens
        trace.tokens["generated"] += completion.tokens

    def step_seed(self, trace: SearchTrace, use: str) -> int:
        depth = len(trace.path) + 1
        return seed_of(self.seed, use, trace.question.id, depth, trace.visits(depth))

    def record(
        self, trace: SearchTrace, candidates: list[Candidate], robin: RoundRobin
    ) -> Expansion:
        """Add what was found at the trace's path to it, with its cost; nothing is decided."""
        trace.tokens["judged"] += robin.judged
        trace.tokens["prefill"] += robin.prefill
        trace.tokens["prompt"] += robin.prefill
        valid = [i for i, c in enumerate(candidates) if c.valid]
        depth, counts = len(trace.path) + 1, Counter(candidates[i].text for i in valid)
        wins = dict(zip(valid, robin.scores, strict=True))
        expansion = Expansion(
            depth=depth,
            attempt=trace.visits(depth),
            prefix=list(trace.path),
            candidates=candidates,
            scores=[wins.get(i) for i in range(len(candidates))],
            multiplicity=[counts[c.text] if c.valid else 0 for c in candidates],
            robin=robin,
            tie=len(set(wins.values())) < 2,
        )
        trace.expansions.append(expansion)
        return expansion

    @staticmethod
    def overflowed(expansion: Expansion) -> bool:
        """Whether they leave the solver or the judge no room."""
        return expansion.robin.overflow or Search.full(expansion)

    def ended(self, expansion: Expansion) -> str:
        """How a search without room ends: where only the judge lacks it, greedily at test time."""
        return "cap" if self.select and not self.full(expansion) else "overflow"

    @staticmethod
    def full(expansion: Expansion) -> bool:
        """Whether the steps so far leave the solver no room."""
        return all(c.finish == "overflow" for c in expansion.candidates)

    def advance(self, trace: SearchTrace, candidates: list[Candidate], robin: RoundRobin) -> None:
        """Choose, keep or roll back (Eq. 3-5), and close the trace if it is done."""
        noise = random.Random(self.step_seed(trace, "pick"))
        expansion = self.record(trace, candidates, robin)
        wins = {i: score for i, score in enumerate(expansion.scores) if score is not None}
        if self.overflowed(expansion):
            expansion.outcome, trace.status = "overflow", self.ended(expansion)
        elif expansion.tie:
            self._tied(trace, expansion, list(wins))
        else:
            self._keep(trace, expansion, wins, noise)
        if not trace.status and len(trace.expansions) >= self.search.max_iterations:
            trace.status = "cap"

    def _keep(self, trace: SearchTrace, expansion: Expansion, wins: dict, noise) -> None:
        expansion.outcome = "kept"
        expansion.chosen, expansion.rejected = decide(wins, self.search.pick, noise)
        self._append(trace, expansion, None if self.select else step_pair(trace, expansion))

    def _tied(self, trace: SearchTrace, expansion: Expansion, valid: list[int]) -> None:
        expansion.outcome = "tie"
        if self.select and not valid:
            trace.status = "cap"  # nothing to choose from: greedy decoding goes on from here
        elif self.select or (self.search.tie == "first" and valid):
            often = expansion.multiplicity if self.select else [1] * len(expansion.candidates)
            expansion.chosen = max(valid, key=lambda i: (often[i], -i))
            self._append(trace, expansion, None)
        elif trace.path and self.search.tie == "rollback":
            expansion.rolled_back = True
            trace.path.pop()
            trace._kept.pop()

    def _append(self, trace: SearchTrace, expansion: Expansion, pair: StepPair | None) -> None:
        assert expansion.chosen is not None
        chosen = expansion.candidates[expansion.chosen]
        trace.path.append(chosen.text)
        trace._kept.append(pair)
        if chosen.final:
            trace.status = "complete"


def decide(wins: Mapping[int, float], pick: str, noise: random.Random) -> tuple[int, int]:
    """Which candidate is best and which worst (Eq. 3-5); equals by `pick`, best drawn first."""
    best = [i for i, score in wins.items() if score == max(wins.values())]
    worst = [i for i, score in wins.items() if score == min(wins.values())]
    if pick == "first":
        return best[0], worst[0]
    return noise.choice(best), noise.choice(worst)


def read_candidate(completion: Completion, depth: int) -> Candidate:
    """A completion as a candidate for step `depth`."""
    text = completion.text.strip()
    whole = completion.finish in ("stop", "eos")
    valid = whole and number(text) == depth and len(split_steps(text)) == 1
    final = is_final(text) or completion.finish == "eos"
    return Candidate(text, valid, final, completion.finish, completion.tokens)


def step_pair(trace: SearchTrace, expansion: Expansion) -> StepPair | None:
    """The preference pair; None where both texts are the same up to blanks (no gradient)."""
    assert expansion.chosen is not None and expansion.rejected is not None
    chosen = expansion.candidates[expansion.chosen]
    rejected = expansion.candidates[expansion.rejected]
    if chosen.text.split() == rejected.text.split():
        return None
    return StepPair(
        id=f"{trace.question.id}#{expansion.depth}.{expansion.attempt}",
        problem_id=trace.question.id,
        question=trace.question.text,
        prefix=list(expansion.prefix),
        chosen=chosen.text,
        rejected=rejected.text,
        chosen_final=chosen.final,
        rejected_final=rejected.final,
        meta={
            "scores": expansion.scores,
            "chosen": expansion.chosen,
            "rejected": expansion.rejected,
        },
    )


def _check(search: Any) -> None:
    for name, known in (("tie", TIES), ("pick", PICKS)):
        value = getattr(search, name)
        if value not in known:
            raise PSRError(f"search.{name}: no {value!r}; choose one of {list(known)}")
    for name in ("width", "max_iterations", "max_step_tokens", "live"):
        if getattr(search, name) < 1:
            raise PSRError(f"search.{name}: {getattr(search, name)} is too small; give at least 1")
