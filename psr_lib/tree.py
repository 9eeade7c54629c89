"""Monte-Carlo tree search over steps, scored by the step PRM (paper sections 3.2 and 4).

An iteration walks down the tree by UCT to a node without children, samples `width` next steps
there, continues one of them by a rollout of at most `simulation_depth` steps, and adds the value of
what it saw to every node on the way. The value is the PRM's: the gold answer plays no part. The
siblings with the highest and the lowest p(+) then become a pair.

    UCT(child) = total / visits + c sqrt(ln visits(parent) / visits)   (Kocsis and Szepesvari 2006)

All open trees advance together: an iteration is one engine call for all expansions, one for each
step of the rollouts, and one of the PRM. What the paper leaves open are named settings.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from math import inf, log, prod, sqrt
from typing import Any

from psr_lib.engines.base import Completion, Engine
from psr_lib.guard import engine_call
from psr_lib.prm import PRM
from psr_lib.prompts import Family
from psr_lib.records import Question, StepPair, seed_of
from psr_lib.search import read_candidate
from psr_lib.traces import Candidate

DIGITS = 3  # of p(+): below that a batch's company decides, and no choice should hang on it
VALUES: dict[str, Callable[[Sequence[float]], float]] = {
    "min": min,
    "product": prod,
    "mean": lambda scores: sum(scores) / len(scores),
    "last": lambda scores: scores[-1],
}


@dataclass
class Node:
    """One step: its PRM score p(+), whether it ends the solution, and its visits and values.

    `parent` and `children` are places in the tree's list of nodes; the root is no step. `copies`
    counts the samples that gave this text. A `dead` node had no well-formed continuation.
    """

    text: str = ""
    parent: int = -1
    p: float = 1.0
    final: bool = False
    copies: int = 1
    visits: int = 0
    total: float = 0.0
    dead: bool = False
    children: list[int] = field(default_factory=list)


@dataclass
class Tree:
    """The search tree of one question; `counts` holds what was sampled, scored and dropped."""

    question: Question
    nodes: list[Node] = field(default_factory=lambda: [Node()])
    iterations: int = 0
    counts: Counter = field(default_factory=Counter)

    def line(self, place: int) -> list[int]:
        """The places from the first step to this node."""
        found = []
        while place > 0:
            found.append(place)
            place = self.nodes[place].parent
        return found[::-1]

    def steps(self, place: int) -> list[str]:
        """The steps that lead to this node, its own last."""
        return [self.nodes[k].text for k in self.line(place)]

    def scores(self, place: int) -> list[float]:
        """p(+) of each of those steps."""
        return [self.nodes[k].p for k in self.line(place)]

    def select(self, exploration: float) -> int:
        """Walk down from the root to a node without children, by UCT."""
        place = 0
        while self.nodes[place].children:
            above = self.nodes[place].visits
            place = max(
                self.nodes[place].children, key=lambda k: uct(self.nodes[k], above, exploration)
            )
        return place

    def grow(self, place: int, texts: Sequence[tuple[Candidate, int, float]]) -> list[int]:
        """Give a node its children: (candidate, copies, p(+)) of each."""
        for candidate, copies, p in texts:
            self.nodes[place].children.append(len(self.nodes))
            self.nodes.append(Node(candidate.text, place, p, candidate.final, copies))
        self.nodes[place].dead = not self.nodes[place].children
        return self.nodes[place].children

    def back_up(self, place: int, value: float) -> None:
        """Add a simulation's value to a node and all above it; this ends an iteration."""
        while place >= 0:
            self.nodes[place].visits += 1
            self.nodes[place].total += value
            place = self.nodes[place].parent
        self.iterations += 1

    def to_row(self) -> dict[str, Any]:
        """The tree as one JSON row."""
        return {
            "question_id": self.question.id,
            "question": self.question.text,
            "iterations": self.iterations,
            "counts": dict(self.counts),
            "nodes": [asdict(node) for node in self.nodes],
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Tree":
        """The tree that `to_row` wrote."""
        question = Question(id=row["question_id"], text=row["question"])
        nodes = [Node(**node) for node in row["nodes"]]
        return cls(question, nodes, row["iterations"], Counter(row["counts"]))


def uct(node: Node, above: int, exploration: float) -> float:
    """The node's mean value and its bonus for few visits; unvisited nodes come first."""
    if not node.visits:
        return inf
    return node.total / node.visits + exploration * sqrt(log(above) / node.visits)


def sibling_pairs(tree: Tree, value: str = "min") -> list[StepPair]:
    """Best and worst sibling by p(+) of every node whose children differ in it (paper 3.2).

    `v_chosen` and `v_rejected` are the values of the solutions that they end, prefix included.
    """
    pairs = []
    for place, node in enumerate(tree.nodes):
        ranked = sorted(node.children, key=lambda k: -tree.nodes[k].p)  # stable: first of equals
        if len(ranked) > 1 and tree.nodes[ranked[0]].p > tree.nodes[ranked[-1]].p:
            pairs.append(_pair(tree, place, ranked[0], ranked[-1], VALUES[value]))
    return pairs


def _pair(
    tree: Tree, place: int, first: int, last: int, value: Callable[[Sequence[float]], float]
) -> StepPair:
    question, node = tree.question, tree.nodes[place]
    best, worst = tree.nodes[first], tree.nodes[last]
    return StepPair(
        id=f"{question.id}@{place}", problem_id=question.id, question=question.text,
        prefix=tree.steps(place), chosen=best.text, rejected=worst.text,
        chosen_final=best.final, rejected_final=worst.final,
        meta={"p_chosen": best.p, "p_rejected": worst.p, "v_chosen": value(tree.scores(first)),
              "v_rejected": value(tree.scores(last)), "siblings": len(node.children),
              "visits": node.visits},
    )  # fmt: skip


def tree_stream(
    engine: Engine,
    prm: PRM,
    family: Family,
    tokenizer: Any,
    asked: Iterable[tuple[int, Question]],
    settings: Any,
    seed: int,
) -> Iterator[tuple[int, Tree]]:
    """Search numbered questions; (number, tree) of each when its iterations are done.

    `settings` is the preset's `tree` block. At most `settings.live` trees are open at once; no
    result depends on which. Raises PSRError where an engine fails.
    """
    forest, waiting = _Forest(engine, prm, family, tokenizer, settings, seed), iter(asked)
    live: dict[int, Tree] = {}
    while True:
        new = islice(waiting, settings.live - len(live))
        live |= {place: Tree(question) for place, question in new}
        if not live:
            return
        forest.advance(list(live.values()))
        ended = {k: tree for k, tree in live.items() if tree.iterations >= settings.iterations}
        live = {k: tree for k, tree in live.items() if k not in ended}
        yield from ended.items()


@dataclass
class _Visit:
    """One iteration of one tree: the leaf, its new siblings, and the rollout after the first."""

    tree: Tree
    leaf: int
    siblings: list[tuple[Candidate, int]] = field(default_factory=list)
    rollout: list[Candidate] = field(default_factory=list)

    @property
    def open(self) -> bool:
        """Whether the rollout can go on."""
        return bool(self.rollout) and self.rollout[-1].valid and not self.rollout[-1].final

    @property
    def steps(self) -> list[str]:
        """All steps so far, the rollout's well-formed ones included."""
        return [*self.tree.steps(self.leaf), *(c.text for c in self.rollout if c.valid)]

    def asked(self) -> list[tuple[str, list[str]]]:
        """What the PRM has to score: every sibling, then the rollout's steps after the first."""
        question, before, steps = self.tree.question.text, self.tree.steps(self.leaf), self.steps
        siblings = [(question, [*before, c.text]) for c, _ in self.siblings]
        return siblings + [(question, steps[:k]) for k in range(len(before) + 2, len(steps) + 1)]


@dataclass
class _Forest:
    engine: Engine
    prm: PRM
    family: Family
    tokenizer: Any
    settings: Any
    seed: int

    def advance(self, trees: list[Tree]) -> None:
        """One iteration that asks the models, of every tree that still has one."""
        visits = [visit for visit in map(self.descend, trees) if visit]
        self.expand(visits)
        for _ in range(self.settings.simulation_depth):
            self.roll([visit for visit in visits if visit.open])
        asked = [visit.asked() for visit in visits]
        scores = iter(self.prm.score([row for rows in asked for row in rows]))
        for visit, rows in zip(visits, asked, strict=True):
            self.settle(visit, list(islice(scores, len(rows))))

    def descend(self, tree: Tree) -> _Visit | None:
        """Select a leaf; where a leaf needs no model its value is added and the next is taken."""
        while tree.iterations < self.settings.iterations:
            leaf = tree.select(self.settings.exploration)
            node, steps = tree.nodes[leaf], tree.scores(leaf)
            node.dead |= not node.final and len(steps) >= self.settings.max_steps
            if not (node.final or node.dead):
                return _Visit(tree, leaf)
            tree.back_up(leaf, 0.0 if node.dead else self.value(steps))
        return None

    def value(self, scores: Sequence[float]) -> float:
        """The value of a path from its steps' p(+)."""
        return VALUES[self.settings.value](scores)

    def expand(self, visits: list[_Visit]) -> None:
        """Sample the siblings of every visit; equal texts become one."""
        for visit, found in zip(
            visits, self._sample(visits, self.settings.width, "expand"), strict=True
        ):
            valid = [c for c in found if c.valid]
            copies = Counter(_plain(c.text) for c in valid)
            first = {_plain(c.text): c for c in reversed(valid)}
            order = dict.fromkeys(_plain(c.text) for c in valid)
            visit.siblings = [(first[key], copies[key]) for key in order]
            visit.rollout = valid[:1]
            visit.tree.counts.update(
                expansions=1, candidates=len(found), ill_formed=len(found) - len(valid),
                distinct=len(visit.siblings),
            )  # fmt: skip

    def roll(self, visits: list[_Visit]) -> None:
        """One more step of every rollout."""
        for visit, (candidate,) in zip(visits, self._sample(visits, 1, "roll"), strict=True):
            visit.rollout.append(candidate)
            visit.tree.counts.update(rolled=1)

    def _sample(self, visits: list[_Visit], n: int, use: str) -> list[list[Candidate]]:
        """Candidates after every visit's steps; the noise belongs to the leaf and its use."""
        if not visits:
            return []
        steps, settings = [visit.steps for visit in visits], self.settings
        with engine_call("searching the tree"):
            found = self.engine.sample(
                [self._prompt(v.tree.question, s) for v, s in zip(visits, steps, strict=True)],
                n=n, temperature=settings.temperature, top_p=settings.top_p,
                max_tokens=settings.max_step_tokens, stop=[self.family.stop],
                seeds=[seed_of(self.seed, use, v.tree.question.id, v.leaf, len(s))
                       for v, s in zip(visits, steps, strict=True)],
            )  # fmt: skip
        for visit, row in zip(visits, found, strict=True):
            visit.tree.counts.update(_tokens(row))
        return [[read_candidate(c, len(s) + 1) for c in row]
                for s, row in zip(steps, found, strict=True)]  # fmt: skip

    def _prompt(self, question: Question, steps: list[str]) -> str:
        return self.family.render(self.tokenizer, self.family.solve(question.text, steps))

    def settle(self, visit: _Visit, scores: list[float | None]) -> None:
        """Grow the tree by the siblings and add the value of the simulation."""
        scores = [p if p is None else round(p, DIGITS) for p in scores]
        tree, own = visit.tree, scores[: len(visit.siblings)]
        tree.counts.update(scored=len(scores), unscored=scores.count(None))
        scored = [(c, n, p) for (c, n), p in zip(visit.siblings, own, strict=True) if p is not None]
        children = tree.grow(visit.leaf, scored)
        if not children:
            tree.back_up(visit.leaf, 0.0)
            return
        first = own[0] is not None  # else nothing was rolled out from the first child that is kept
        rest = scores[len(own) :] if first else []
        line = tree.scores(children[0]) + [p for p in rest if p is not None]
        tree.back_up(children[0], self.value(line))


def _plain(text: str) -> str:
    """What makes two steps equal: all but their white space."""
    return " ".join(text.split())


def _tokens(row: Sequence[Completion]) -> dict[str, int]:
    return {"prompt_tokens": row[0].prompt_tokens, "generated_tokens": sum(c.tokens for c in row)}
