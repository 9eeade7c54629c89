"""Whole solutions from one prompt each."""

from collections.abc import Sequence
from typing import Any

from psr_lib.engines.base import Completion, Engine
from psr_lib.engines.tasks import Sample, Task, alone
from psr_lib.prompts import Family
from psr_lib.records import Question


def greedy_solutions(
    engine: Engine,
    family: Family,
    tokenizer: Any,
    questions: Sequence[Question],
    max_tokens: int = 512,
    prefixes: Sequence[Sequence[str]] | None = None,
) -> list[Completion]:
    """Whole solutions by greedy decoding, each after its prefix of steps if there is one."""
    return alone(engine, solving(family, tokenizer, questions, max_tokens, prefixes))


def solving(
    family: Family,
    tokenizer: Any,
    questions: Sequence[Question],
    max_tokens: int,
    prefixes: Sequence[Sequence[str]] | None = None,
) -> Task:
    """`greedy_solutions` as a task."""
    prefixes = prefixes or [()] * len(questions)
    prompts = [
        family.render(tokenizer, family.solve(question.text, prefix))
        for question, prefix in zip(questions, prefixes, strict=True)
    ]
    found = yield Sample(
        doing="decoding greedily",
        prompts=prompts,
        seeds=[0] * len(prompts),
        temperature=0.0,
        top_p=1.0,
        max_tokens=max_tokens,
        # A base model may go on to a next problem of its own making.
        stop=[] if family.chat else ["\n\n"],
    )
    return [completions[0] for completions in found]


def sampled_solutions(
    engine: Engine,
    family: Family,
    tokenizer: Any,
    questions: Sequence[Question],
    seeds: Sequence[int],
    **how: Any,
) -> list[list[Completion]]:
    """Sampled whole solutions of each question; `how` and their noise as in `sampling`."""
    return alone(engine, sampling(family, tokenizer, questions, seeds, **how))


def sampling(
    family: Family,
    tokenizer: Any,
    questions: Sequence[Question],
    seeds: Sequence[int],
    *,
    n: int = 1,
    temperature: float,
    top_p: float,
    max_tokens: int,
) -> Task:
    """`sampled_solutions` as a task: n of each question; their noise belongs to its seed."""
    return (
        yield Sample(
            doing="sampling solutions",
            prompts=[family.render(tokenizer, family.solve(q.text)) for q in questions],
            seeds=list(seeds),
            n=n,
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            stop=[] if family.chat else ["\n\n"],
        )
    )
