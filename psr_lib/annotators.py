"""The teachers of `annotate`: a model behind an API, the laboratory's oracle, and the rule.

A teacher is registered under its name (`teacher.judge`): a context manager of the open stage, the
pairs to be judged and the worked solutions by question, which gives an `annotate.Teacher`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from psr_lib import asking, problems, prompts, registry, reviews
from psr_lib.annotate import Answer, Call, Teacher, calls_of, judge_prompt
from psr_lib.engines.chat import Chat, Messages
from psr_lib.prompts import Family
from psr_lib.records import StepPair
from psr_lib.registry import register
from psr_lib.rule_judge import RuleJudge


class ApiJudge:
    """A chat model that is asked with the judge's prompt (paper Fig. 5); the paper's is o1."""

    def __init__(self, chat: Chat, family: Family):
        """`family` holds the judge's prompt."""
        self.chat, self.family = chat, family
        self.concurrency = chat.settings.concurrency

    def turn(self, call: Call) -> Messages:
        """What it reads."""
        return [{"role": "user", "content": judge_prompt(self.family, call)}]

    def answer(self, call: Call) -> Answer:
        """What it says; raises EngineError where the server fails for good."""
        reply = self.chat.ask(self.turn(call))
        return Answer(reply.text, reply.fault)


class OracleJudge:
    """Recomputes the step and compares, as `reviews` writes it; laboratory problems only."""

    concurrency = 1

    def answer(self, call: Call) -> Answer:
        """The explanation; no answer where not just one step is right, or it would not show.

        Two steps with one result differ in a word of which the comparison says nothing.
        """
        verdict = problems.oracle_verdict(call.question, call.prefix, call.a, call.b)
        right = problems.next_step(problems.parse(call.question), call.prefix)
        if verdict is None or right is None or not reviews.decides(right, call.a, call.b):
            return Answer("", "undecided")
        return Answer(reviews.explain(right, call.a, call.b, verdict))


def opened(
    stage: Any, pairs: Sequence[StepPair], solutions: Mapping[str, str] | None = None
) -> AbstractContextManager[Teacher]:
    """The teacher that the preset names; what it will cost for these pairs is announced first.

    `solutions`: worked ones by question, for the rule. Raises PSRError with the estimate in a dry
    run, and where the teacher's server fails for good.
    """
    return registry.find("teacher", stage.preset.teacher.judge)(stage, pairs, solutions or {})


@register("teacher", "oracle")
@contextmanager
def _oracle(stage: Any, pairs: Sequence[StepPair], solutions: Mapping[str, str]) -> Iterator:
    yield OracleJudge()


@register("teacher", "rule")
@contextmanager
def _rule(stage: Any, pairs: Sequence[StepPair], solutions: Mapping[str, str]) -> Iterator:
    yield RuleJudge(solutions)


@register("teacher", "api")
@contextmanager
def _api(stage: Any, pairs: Sequence[StepPair], solutions: Mapping[str, str]) -> Iterator:
    with asking.opened(stage, "judge") as chat:
        teacher = ApiJudge(chat, prompts.load(stage.preset.teacher.prompts))
        asking.announce(chat, [teacher.turn(call) for pair in pairs for call in calls_of(pair)])
        yield teacher
