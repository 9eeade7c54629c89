"""What a search leaves behind: every candidate, score, verdict and decision, and their rates."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from psr_lib.records import Question, Rows, StepPair, to_dict
from psr_lib.robins import RoundRobin, Verdict, verdict_counts, verdict_rates
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
    ones; `outcome` is `kept`, `tie` (rolled back, resampled, or continued without a pair), in a
    tree search `explored` (off the path that was kept), or `overflow`; `tie` says whether the best
    and the worst score were equal.
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

    `status`: `complete`, `cap` (out of expansions, or at test time nothing that the judge could
    choose from) or `overflow` (out of context). `rest` is what
    greedy decoding wrote after the path, in test-time search only. `tokens`: `prompt` counts the
    prompt of every candidate and verdict, `prefill` that of siblings once; `generated` are those of
    candidates, `judged` those of verdicts that were asked for.
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
        return {
            "question_id": self.question.id,
            "question": self.question.text,
            "status": self.status,
            "path": self.path,
            "rest": self.rest,
            "tokens": dict(self.tokens),
            "pairs": [to_dict(pair) for pair in self.pairs],
            "expansions": [_expansion_row(e) for e in self.expansions],
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "SearchTrace":
        """The trace that `to_row` wrote."""
        return cls(
            Question(id=row["question_id"], text=row["question"]),
            path=row["path"],
            status=row["status"],
            expansions=[_expansion(e) for e in row["expansions"]],
            pairs=[StepPair(**pair) for pair in row["pairs"]],
            rest=row["rest"],
            tokens=Counter(row["tokens"]),
        )


ROBIN = ("calls", "made", "judged", "prefill")


def _expansion_row(e: Expansion) -> dict[str, Any]:
    row = {k: v for k, v in vars(e).items() if k not in ("candidates", "robin")}
    row["candidates"] = [dict(vars(c)) for c in e.candidates]
    # Verdicts count the valid candidates only; `places` leads back to all of them.
    row["places"] = [i for i, c in enumerate(e.candidates) if c.valid]
    return row | {"verdicts": e.robin.rows(), **{name: getattr(e.robin, name) for name in ROBIN}}


def _expansion(row: dict[str, Any]) -> Expansion:
    row = dict(row)
    scores = tuple(row["scores"][i] for i in row.pop("places"))
    verdicts = {(v.pop("a"), v.pop("b")): Verdict(**v) for v in map(dict, row.pop("verdicts"))}
    robin = RoundRobin(scores, verdicts, **{name: row.pop(name) for name in ROBIN})
    candidates = [Candidate(**c) for c in row.pop("candidates")]
    return Expansion(candidates=candidates, robin=robin, **row)


class TraceFile(Rows):
    """The traces of a file, read one at a time each time they are looped over."""

    def __iter__(self) -> Iterator[SearchTrace]:
        return map(SearchTrace.from_row, super().__iter__())


def search_stats(traces: Iterable[SearchTrace]) -> dict[str, float | int]:
    """What a round of search did: rates over its expansions and candidates, and the judge's."""
    n: Counter[str] = Counter()
    judge: Counter[str] = Counter()
    for trace in traces:
        n.update(_trace_counts(trace))
        for e in trace.expansions:
            n.update(_expansion_counts(e))
            judge.update(verdict_counts(e.robin))
    rates = verdict_rates(judge)
    rates.pop("ties")
    whole = ("pairs", "expansions", "ties", "rollbacks")
    return {
        "problems": n["problems"],
        **{name: n[name] for name in (*STATUSES, *whole)},
        "tie_rate": n["ties"] / max(1, n["expansions"]),
        "rollback_rate": n["rollbacks"] / max(1, n["expansions"]),
        **{name: n[name] for name in ("candidates", "ill_formed", "cut")},
        "distinct": n["distinct"] / max(1, n["expansions"]),
        "duplicate_rate": 1 - n["distinct"] / max(1, n["candidates"] - n["ill_formed"]),
        **{f"judge_{name}": value for name, value in rates.items()},
        **{f"{name}_tokens": n[name] for name in ("prompt", "prefill", "generated", "judged")},
    }


def _trace_counts(trace: SearchTrace) -> Counter:
    return Counter({"problems": 1, trace.status: 1, "pairs": len(trace.pairs)}) + trace.tokens


def _expansion_counts(e: Expansion) -> Counter:
    return Counter(
        expansions=1,
        ties=e.tie,
        rollbacks=e.rolled_back,
        candidates=len(e.candidates),
        ill_formed=sum(not c.valid for c in e.candidates),
        cut=sum(c.finish == "length" for c in e.candidates),
        distinct=len({c.text for c in e.candidates if c.valid}),
    )
