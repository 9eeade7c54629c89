"""Whole solutions from one prompt each."""

from collections.abc import Sequence
from typing import Any

from psr_lib.engines.base import Completion, Engine
from psr_lib.guard import engine_call
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
    prefixes = prefixes or [()] * len(questions)
    prompts = [
        family.render(tokenizer, family.solve(question.text, prefix))
        for question, prefix in zip(questions, prefixes, strict=True)
    ]
    with engine_call("decoding greedily"):
        found = engine.sample(
            prompts,
            n=1,
            temperature=0.0,
            top_p=1.0,
            max_tokens=max_tokens,
            # A base model may go on to a next problem of its own making.
            stop=[] if family.chat else ["\n\n"],
            seeds=[0] * len(prompts),
        )
    return [completions[0] for completions in found]


def sampled_solutions(
    engine: Engine,
    family: Family,
    tokenizer: Any,
    questions: Sequence[Question],
    seeds: Sequence[int],
    *,
    temperature: float,
    top_p: float,
    max_tokens: int,
) -> list[Completion]:
    """One sampled whole solution for each question; its noise belongs to its seed."""
    prompts = [family.render(tokenizer, family.solve(question.text)) for question in questions]
    with engine_call("sampling solutions"):
        found = engine.sample(
            prompts,
            n=1,
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            stop=[] if family.chat else ["\n\n"],
            seeds=list(seeds),
        )
    return [completions[0] for completions in found]
