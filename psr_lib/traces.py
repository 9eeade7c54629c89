"""What a search leaves behind: every candidate, score, verdict and decision, and their rates."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from psr_lib.judge import RoundRobin, verdict_stats
from psr_lib.records import Question, StepPair
from psr_lib.steps import join_steps

STATUSES = ("complete", "cap", "overflow")


@dataclass(frozen=True)
class Candidate:
    """One sampled next step; `final` if it ends the solution, `valid` if it may be judged."""

    text: str
    valid: bool
    final: bool
    finish: str
    tokens: int


@dataclass
class Expansion:
    """One visit to a node: its candidates, their scores and what was decided.

    `scores` is None for an ill-formed candidate; `multiplicity` counts equal texts among the valid
    ones; `outcome` is `kept`, `tie` (rolled back, resampled, or continued without a pair), or
    `overflow`; `tie` says whether the best and the worst score were equal.
    """

    depth: int
    attempt: int
    prefix: list[str]
    candidates: list[Candidate]
    scores: list[int | None]
    multiplicity: list[int]
    robin: RoundRobin
    chosen: int | None = None
    rejected: int | None = None
    tie: bool = False
    rolled_back: bool = False
    outcome: str = ""


@dataclass
class SearchTrace:
    """The search of one problem: its path, every expansion and the pairs that survived.

    `status`: `complete`, `cap` (out of expansions) or `overflow` (out of context). `rest` is what
    greedy decoding wrote after the path, in test-time search only.
    """

    question: Question
    path: list[str] = field(default_factory=list)
    status: str = ""
    expansions: list[Expansion] = field(default_factory=list)
    pairs: list[StepPair] = field(default_factory=list)
    rest: str = ""
    tokens: Counter = field(default_factory=Counter)
    _kept: list[StepPair | None] = field(default_factory=list, repr=False)

    @property
    def text(self) -> str:
        """The whole solution."""
        return (join_steps(self.path) + self.rest).rstrip("\n")

    def visits(self, depth: int) -> int:
        """How often a step at this depth has been sampled so far."""
        return sum(e.depth == depth for e in self.expansions)

    def to_row(self) -> dict[str, Any]:
        """The trace as one JSON row, every verdict included."""
        expansions = []
        for e in self.expansions:
            row = {k: v for k, v in vars(e).items() if k not in ("candidates", "robin")}
            row["candidates"] = [asdict(c) for c in e.candidates]
            # Verdicts count the valid candidates only; `places` leads back to all of them.
            row["places"] = [i for i, c in enumerate(e.candidates) if c.valid]
            row |= {"verdicts": e.robin.rows(), "calls": e.robin.calls, "made": e.robin.made}
            expansions.append(row)
        return {
            "question_id": self.question.id,
            "status": self.status,
            "path": self.path,
            "rest": self.rest,
            "tokens": dict(self.tokens),
            "pairs": [pair.id for pair in self.pairs],
            "expansions": expansions,
        }


def search_stats(traces: Sequence[SearchTrace]) -> dict[str, float | int]:
    """What a round of search did: rates over its expansions and candidates, and the judge's."""
    expansions = [e for t in traces for e in t.expansions]
    candidates = [c for e in expansions for c in e.candidates]
    distinct = [len({c.text for c in e.candidates if c.valid}) for e in expansions]
    valid = sum(c.valid for c in candidates)
    judge = verdict_stats([e.robin for e in expansions])
    judge.pop("ties")
    ties, back = sum(e.tie for e in expansions), sum(e.rolled_back for e in expansions)
    ended = Counter(trace.status for trace in traces)
    tokens = sum((trace.tokens for trace in traces), Counter())
    return {
        "problems": len(traces),
        **{status: ended[status] for status in STATUSES},
        "pairs": sum(len(t.pairs) for t in traces),
        "expansions": len(expansions),
        "ties": ties,
        "rollbacks": back,
        "tie_rate": ties / max(1, len(expansions)),
        "rollback_rate": back / max(1, len(expansions)),
        "candidates": len(candidates),
        "ill_formed": len(candidates) - valid,
        "cut": sum(c.finish == "length" for c in candidates),
        "distinct": sum(distinct) / max(1, len(distinct)),
        "duplicate_rate": 1 - sum(distinct) / max(1, valid),
        **{f"judge_{name}": value for name, value in judge.items()},
        **{f"{name}_tokens": tokens[name] for name in ("prompt", "generated", "judged")},
    }
