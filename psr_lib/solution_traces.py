"""What a round of the baseline `srlm` leaves behind: whole solutions, their scores, the pair."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from psr_lib.engines.base import Completion
from psr_lib.records import Question, Rows, StepPair, to_dict
from psr_lib.scoring import Scored, score_stats

OUTCOMES = ("kept", "tie", "unscored", "identical")


@dataclass(frozen=True)
class Solution:
    """One sampled solution; `valid` if it came to an end of its own and so may be scored."""

    text: str
    valid: bool
    finish: str
    tokens: int


def read_solution(completion: Completion) -> Solution:
    """A completion as a solution; one that was cut takes no part, as a cut step does not."""
    text = completion.text.strip()
    valid = completion.finish in ("stop", "eos") and bool(text)
    return Solution(text, valid, completion.finish, completion.tokens)


@dataclass
class SolutionTrace:
    """The solutions of one question, the score of each text, and what was decided.

    `outcome`: `kept`; `tie` (highest and lowest mean are equal); `unscored` (none has a readable
    score); `identical` (best and worst are the same up to blanks). `tokens` as in `SearchTrace`.
    """

    question: Question
    solutions: list[Solution] = field(default_factory=list)
    scored: dict[str, Scored] = field(default_factory=dict)
    tokens: Counter = field(default_factory=Counter)
    outcome: str = ""
    chosen: int | None = None
    rejected: int | None = None
    pairs: list[StepPair] = field(default_factory=list)

    @property
    def spent(self) -> int:
        """Tokens generated, justifications included."""
        return self.tokens["generated"] + self.tokens["judged"]

    @property
    def full(self) -> bool:
        """Whether the question leaves the model no room to answer."""
        return any(solution.finish == "overflow" for solution in self.solutions)

    @property
    def scores(self) -> list[float | None]:
        """The mean score of each solution; None for a cut one and where no score is readable."""
        known = [self.scored.get(s.text) if s.valid else None for s in self.solutions]
        return [one.mean if one else None for one in known]

    def unscored(self) -> list[str]:
        """The texts that have not been scored yet, each once."""
        texts = dict.fromkeys(s.text for s in self.solutions if s.valid)
        return [text for text in texts if text not in self.scored]

    def take(self, completion: Completion) -> None:
        """Add a solution and what it cost."""
        self.solutions.append(read_solution(completion))
        self.tokens.update(generated=completion.tokens, prompt=completion.prompt_tokens,
                           prefill=completion.prompt_tokens)  # fmt: skip

    def rate(self, text: str, found: Scored) -> None:
        """Add a text's score and what it cost."""
        self.scored[text] = found
        self.tokens.update(judged=found.tokens, prompt=found.prompt_tokens * len(found.points),
                           prefill=found.prompt_tokens)  # fmt: skip

    def to_row(self) -> dict[str, Any]:
        """The trace as one JSON row, every justification included."""
        return {
            "question_id": self.question.id,
            "question": self.question.text,
            "outcome": self.outcome,
            "chosen": self.chosen,
            "rejected": self.rejected,
            "tokens": dict(self.tokens),
            "pairs": [to_dict(pair) for pair in self.pairs],
            "solutions": [dict(vars(solution)) for solution in self.solutions],
            "scored": [{"text": text, **asdict(found)} for text, found in self.scored.items()],
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "SolutionTrace":
        """The trace that `to_row` wrote."""
        scored = [dict(entry) for entry in row["scored"]]
        return cls(
            Question(id=row["question_id"], text=row["question"]),
            solutions=[Solution(**solution) for solution in row["solutions"]],
            scored={entry.pop("text"): _scored(entry) for entry in scored},
            tokens=Counter(row["tokens"]),
            outcome=row["outcome"],
            chosen=row["chosen"],
            rejected=row["rejected"],
            pairs=[StepPair(**pair) for pair in row["pairs"]],
        )


def _scored(entry: dict[str, Any]) -> Scored:
    return Scored(**{**entry, "points": tuple(entry["points"]), "texts": tuple(entry["texts"])})


class SolutionTraceFile(Rows):
    """The traces of a file, read one at a time each time they are looped over."""

    def __iter__(self) -> Iterator[SolutionTrace]:
        return map(SolutionTrace.from_row, super().__iter__())


def solution_stats(traces: Iterable[SolutionTrace]) -> dict[str, float | int]:
    """What a round did: solutions a question, copies, cuts, ties, and the judge's own rates.

    Names that a step search has too mean the same here; `distinct` is a mean over questions.
    """
    traces = list(traces)
    n: Counter = Counter()
    for trace in traces:
        n.update(_counts(trace))
    judge = score_stats([found for trace in traces for found in trace.scored.values()])
    valid = n["solutions"] - n["cut"]
    return {
        "problems": len(traces),
        **{name: n[name] for name in (*OUTCOMES, "pairs", "solutions", "cut")},
        "solutions_each": n["solutions"] / max(1, len(traces)),
        "solutions_least": min((len(t.solutions) for t in traces), default=0),
        "solutions_most": max((len(t.solutions) for t in traces), default=0),
        "distinct": n["distinct"] / max(1, len(traces)),
        "duplicate_rate": 1 - n["distinct"] / max(1, valid),
        "tie_rate": n["tie"] / max(1, len(traces)),
        **{f"judge_{name}": value for name, value in judge.items()},
        **{f"{name}_tokens": n[name] for name in ("prompt", "prefill", "generated", "judged")},
    }


def _counts(trace: SolutionTrace) -> Counter:
    return trace.tokens + Counter({
        trace.outcome: 1,
        "pairs": len(trace.pairs),
        "solutions": len(trace.solutions),
        "cut": sum(not solution.valid for solution in trace.solutions),
        "distinct": len({solution.text for solution in trace.solutions if solution.valid}),
    })  # fmt: skip
