"""The teachers that score whole solutions for the EFT of `srlm`: the oracle, the rule, an API.

A scorer is registered under the name of the preset's `teacher.judge`: a context manager of the open
stage, the contests and the worked solutions by question, which gives a `Scorer`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from psr_lib import asking, prompts, registry, rule_scores
from psr_lib.contests import Contest
from psr_lib.engines.chat import Chat, Messages
from psr_lib.prompts import Family
from psr_lib.prompts.slots import plain
from psr_lib.registry import register
from psr_lib.solution_reviews import review
from psr_lib.steps import split_steps


@dataclass(frozen=True)
class Said:
    """A justification and its points, 0 to 5; None where there are none that can be read."""

    text: str
    points: float | None


class Scorer(Protocol):
    """Whoever scores; `concurrency` says how many solutions it takes at once."""

    concurrency: int

    def score(self, question: str, solution: str) -> Said:
        """What it says; called by several threads. Raises PSRError where it cannot go on."""
        ...


class OracleScorer:
    """Reviews step by step, as `solution_reviews` writes it; laboratory problems only."""

    concurrency = 1

    def score(self, question: str, solution: str) -> Said:
        """The review."""
        return Said(*review(question, split_steps(solution)))


class RuleScorer:
    """Recomputes each step's equations beside the worked solution; needs no model."""

    concurrency = 1

    def __init__(self, solutions: Mapping[str, str]):
        """`solutions`: worked solution by question."""
        self.solutions = solutions

    def score(self, question: str, solution: str) -> Said:
        """The review; no points where no worked solution is known."""
        return Said(*rule_scores.review(self.solutions.get(question, ""), split_steps(solution)))


class ApiScorer:
    """A chat model that is asked with the prompt of Yuan et al. (arXiv 2401.10020, Fig. 2)."""

    def __init__(self, chat: Chat, family: Family):
        """`family` holds the prompt and reads the points."""
        self.chat, self.family = chat, family
        self.concurrency = chat.settings.concurrency

    def turn(self, question: str, solution: str) -> Messages:
        """What it reads; no tokenizer is known here, so the customary special tokens are broken."""
        return [
            {"role": "user", "content": plain(None, self.family.score(question, solution).user)}
        ]

    def score(self, question: str, solution: str) -> Said:
        """What it says; raises EngineError where the server fails for good."""
        text = self.chat.ask(self.turn(question, solution)).text.strip()
        return Said(text, self.family.points(text))


def opened(
    stage: Any, contests: Sequence[Contest], solutions: Mapping[str, str]
) -> AbstractContextManager[Scorer]:
    """The scorer that the preset's teacher is; what it will cost for these is announced first.

    Raises PSRError with the estimate in a dry run, and where the teacher's server fails for good.
    """
    return registry.find("scorer", stage.preset.teacher.judge)(stage, contests, solutions)


@register("scorer", "oracle")
@contextmanager
def _oracle(stage: Any, contests: Sequence[Contest], solutions: Mapping[str, str]) -> Iterator:
    yield OracleScorer()


@register("scorer", "rule")
@contextmanager
def _rule(stage: Any, contests: Sequence[Contest], solutions: Mapping[str, str]) -> Iterator:
    yield RuleScorer(solutions)


@register("scorer", "api")
@contextmanager
def _api(stage: Any, contests: Sequence[Contest], solutions: Mapping[str, str]) -> Iterator:
    with asking.opened(stage, "score") as chat:
        scorer = ApiScorer(chat, prompts.load(stage.preset.teacher.prompts))
        texts = [(one.question, text) for one in contests for text in one.solutions]
        asking.announce(chat, [scorer.turn(*both) for both in texts])
        yield scorer
