"""Monte-Carlo tree search in the loop, with the self-judge's wins as value: a named comparison.

Some summaries say that the paper's loop is such a search (data/paper/secondary.csv). It is not: it
keeps the best of w candidates at each step and goes on from it (section 3.3). `search.kind=mcts`
does what they say, with the same candidates, judge, cap on visits and rows of PPD.

A visit walks down by UCT to a step that nothing was tried after, samples w next steps there and
lets the judge play them against each other (Eq. 2). Each new step enters with its share of the wins
that it could have; the highest share is the value that is added to all steps on the way. At the end
the most visited step is kept at each depth, and (kept, lowest mean value) becomes a pair. Nothing
is rolled back: where all are equal there is no pair.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import log, sqrt
from typing import Any

from psr_lib.engines.base import Engine
from psr_lib.engines.tasks import Task
from psr_lib.judge import Judge
from psr_lib.prompts import Family
from psr_lib.records import Question, seed_of
from psr_lib.robins import SLOTS
from psr_lib.search import Search, step_pair
from psr_lib.traces import Expansion, SearchTrace


@dataclass
class Node:
    """A step with all before it, its visits, and the sum of the values that they saw.

    `children` are the distinct well-formed next steps by the number of the first such candidate of
    `expansion`. A `dead` step has none, and is not tried again.
    """

    steps: tuple[str, ...] = ()
    final: bool = False
    visits: int = 0
    total: float = 0.0
    dead: bool = False
    expansion: Expansion | None = None
    children: dict[int, "Node"] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """Mean value of its visits."""
        return self.total / max(1, self.visits)

    def line(self, exploration: float) -> list["Node"]:
        """The way down from here to a step without children, by UCT, the first of equals."""
        found = [self]
        while found[-1].children:
            above = found[-1]
            found.append(max(above.children.values(), key=lambda n: n.uct(above, exploration)))
        return found

    def uct(self, above: "Node", exploration: float) -> float:
        """Mean value and the bonus for few visits (Kocsis and Szepesvari 2006)."""
        return self.value + exploration * sqrt(log(max(1, above.visits)) / self.visits)

    def grow(self, expansion: Expansion, slots: int) -> None:
        """Take each distinct candidate as a child, with its share of the wins as first value."""
        self.expansion, seen = expansion, set()
        scores = {i: wins for i, wins in enumerate(expansion.scores) if wins is not None}
        most = max(1, slots * (len(scores) - 1))
        for i, wins in scores.items():
            candidate = expansion.candidates[i]
            if candidate.text not in seen:
                seen.add(candidate.text)
                steps = (*self.steps, candidate.text)
                self.children[i] = Node(steps, candidate.final, visits=1, total=wins / most)


class TreeSearch(Search):
    """The search of `search.py` with another way through the steps."""

    def task(self, trace: SearchTrace) -> Task:
        """One question from its first visit to its end; the result is its trace."""
        root = Node()
        for _ in range(self.search.max_iterations):
            line = root.line(self.search.exploration)
            value = yield from self.visit(trace, line[-1])
            for node in line:
                node.visits, node.total = node.visits + 1, node.total + value
            if trace.status:
                break
        self.conclude(trace, root)
        self.judge.forget(trace.question)
        if self.select and trace.status == "cap":
            yield from self.finish(trace)
        return trace

    def visit(self, trace: SearchTrace, node: Node) -> Task:
        """Try what comes after a step; the value of what was seen."""
        if node.final or node.dead:
            return 0.0 if node.dead else node.value
        trace.path = list(node.steps)
        candidates, robin = yield from self.expand(trace)
        expansion = self.record(trace, candidates, robin)
        expansion.outcome = "explored"
        if self.overflowed(expansion):
            expansion.outcome = "overflow"
            trace.status = "" if node.steps else self.ended(expansion)
        else:
            node.grow(expansion, SLOTS.get(self.judge.scoring, 1))
        # Without a well-formed candidate a step is dead; the beginning alone is tried again.
        node.dead = bool(node.steps) and not node.children
        return max((child.value for child in node.children.values()), default=0.0)

    def conclude(self, trace: SearchTrace, root: Node) -> None:
        """Keep the most visited step at each depth, and close the trace."""
        node = root
        while node.children:
            best = self._keep_best(trace, node)
            node = node.children[best]
        trace.path = list(node.steps)
        trace.status = trace.status or ("complete" if node.final else "cap")

    def _keep_best(self, trace: SearchTrace, node: Node) -> int:
        """The number of the child to go on with; its pair is added where another is worse."""
        noise = random.Random(seed_of(self.seed, "keep", trace.question.id, *node.steps))
        children, expansion = node.children, node.expansion
        assert expansion is not None  # it has children
        best = self._one(children, max, lambda child: (child.visits, child.value), noise)
        worst = self._one(children, min, lambda child: child.value, noise)
        worse = children[worst].value < children[best].value
        expansion.chosen, expansion.outcome = best, "kept" if worse else "tie"
        if worse:
            expansion.rejected = worst
            pair = None if self.select else step_pair(trace, expansion)
            trace.pairs += [pair] if pair else []
        return best

    def _one(
        self, children: dict[int, Node], end: Callable, key: Callable[[Node], Any],
        noise: random.Random,
    ) -> int:  # fmt: skip
        """The number of the first or last child by `key`; equals by `search.pick`."""
        far = end(map(key, children.values()))
        equal = [i for i, child in children.items() if key(child) == far]
        return equal[0] if self.search.pick == "first" else noise.choice(equal)


def mcts_stream(
    engine: Engine, family: Family, tokenizer: Any, asked: Iterable[tuple[int, Question]],
    search: Any, judge: Judge, seed: int, *, select: bool = False, max_tokens: int = 512,
) -> Iterator[tuple[int, SearchTrace]]:  # fmt: skip
    """`search_stream` by tree search."""
    run = TreeSearch(engine, family, tokenizer, search, judge, seed, select, max_tokens)
    return run.spread(asked)
