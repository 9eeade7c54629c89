"""The paper's loop read literally: what `make bench` compares the search with.

One problem at a time, w (w - 1) judgements a step whatever the candidates, nothing remembered. It
shares no code with `search.py` but the reading of a candidate, so an equal PPD says something.
"""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from psr_lib.engines.base import Engine
from psr_lib.judge import Call, Judge
from psr_lib.records import Question, seed_of
from psr_lib.search import read_candidate

Row = tuple[list[str], str, str, bool, bool]  # prefix, chosen, rejected, chosen and rejected final


class LiteralLoop:
    """Searches questions one after the other; `together` judges a step's pairs in one call.

    `judge` gives the prompts and settings only. `calls` counts its judgements.
    """

    def __init__(
        self, engine: Engine, family: Any, tokenizer: Any, search: Any, judge: Judge, seed: int,
        *, together: bool = False,
    ):  # fmt: skip
        self.engine, self.family, self.tokenizer = engine, family, tokenizer
        self.search, self.judge, self.seed, self.together = search, judge, seed, together
        self.calls = 0

    def run(self, questions: Sequence[Question]) -> list[list[Row]]:
        """The preference pairs of each question, in order."""
        return [self.solve(question) for question in questions]

    def solve(self, question: Question) -> list[Row]:
        """The pseudo-code of section 3.3 with its tie rule and cap, for one question."""
        path: list[str] = []
        pairs: list[Row | None] = []
        visits: Counter = Counter()
        for _ in range(self.search.max_iterations):
            depth = len(path) + 1
            turn, visits[depth] = visits[depth], visits[depth] + 1
            candidates = self.sample(question, path, turn)
            if all(c.finish == "overflow" for c in candidates):
                break
            wins = self.score(question, path, candidates)
            if wins is None:
                break
            if len(set(wins.values())) < 2:
                path, pairs = path[:-1], pairs[:-1]
                continue
            noise = random.Random(seed_of(self.seed, "pick", question.id, depth, turn))
            ends = [max(wins.values()), min(wins.values())]
            best, worst = (
                candidates[noise.choice([i for i, n in wins.items() if n == end])] for end in ends
            )
            pairs.append(_row(path, best, worst))
            path = [*path, best.text]
            if best.final:
                break
        return [pair for pair in pairs if pair]

    def sample(self, question: Question, path: list[str], turn: int) -> list[Any]:
        """One engine call for the candidates of one step."""
        search, depth = self.search, len(path) + 1
        found = self.engine.sample(
            [self.family.render(self.tokenizer, self.family.solve(question.text, path))],
            n=search.width,
            temperature=search.temperature,
            top_p=search.top_p,
            max_tokens=search.max_step_tokens,
            stop=[self.family.stop],
            seeds=[seed_of(self.seed, "sample", question.id, depth, turn)],
        )
        return [read_candidate(c, depth) for c in found[0]]

    def score(self, question: Question, path: list[str], candidates: list) -> dict | None:
        """Eq. 2: wins of each well-formed candidate; None where a prompt is too long."""
        valid = [i for i, c in enumerate(candidates) if c.valid]
        pairs = [(i, j) for i in valid for j in valid if i != j]
        prompts = [
            self.judge.prompt(Call(question, tuple(path), candidates[i].text, candidates[j].text))
            for i, j in pairs
        ]
        self.calls += len(prompts)
        batches = [prompts] if self.together else [[prompt] for prompt in prompts]
        said = [c for batch in batches if batch for c in self.ask(batch)]
        wins = dict.fromkeys(valid, 0)
        for (i, _), completion in zip(pairs, said, strict=True):
            wins[i] += self.family.verdict(completion.text) == "A"
        return None if any(c.finish == "overflow" for c in said) else wins

    def ask(self, prompts: list[str]) -> list[Any]:
        """One engine call for these judgements."""
        settings = self.judge.settings
        found = self.engine.sample(
            prompts,
            n=1,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=settings.max_tokens,
            stop=[] if self.family.chat else ["\n\n"],
            seeds=[0] * len(prompts),
        )
        return [completions[0] for completions in found]


def _row(path: list[str], best: Any, worst: Any) -> Row | None:
    if best.text.split() == worst.text.split():
        return None
    return path, best.text, worst.text, best.final, worst.final
