"""Step labels without people and without a larger model: sampled solutions, labelled by the rule.

The policy of the tree search (M0 fine-tuned on IFT) solves training problems, one solution each,
and `rule_judge` says of each step what it can show: a needed step is `+`, a wrong one `-`, a silent
one has no label. What a step aside counts is `prm.neutral`, as PRM800K's 0 does. Labels end at the
first `-`, as PRM800K's solutions do: what follows a wrong step is judged by nobody.

The PRM and the teacher `rule` then rest on the same worked solutions, so that their agreement, one
of the filters of EFT, is weaker evidence than that of a PRM and a model.
"""

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from psr_lib import chain, manifest, prompts
from psr_lib.engines.base import Engine
from psr_lib.guard import engine_call
from psr_lib.prm800k import NEUTRAL
from psr_lib.records import (
    IFTExample,
    Problem,
    StepLabels,
    read_jsonl,
    seed_of,
    to_dict,
    write_jsonl,
)
from psr_lib.rule_judge import ASIDE, NEEDED, SILENT, WRONG, Worked, find, worked
from psr_lib.steps import number, split_steps

FILE = "labels.jsonl"


def make_labels(
    stage: Any, ift: Sequence[IFTExample], problems: Sequence[Problem]
) -> chain.Labelled:
    """Labelled solutions to train the PRM on and, of other problems, to measure it on.

    They are kept in the run's folder `making/` for as long as they are made from the same.
    """
    settings = stage.preset.prm
    folder = chain.policy(stage, ift)

    def build(home: Path) -> None:
        engine = chain.open_engine(stage, folder)
        write_jsonl(home / FILE, sampled(stage, engine, problems))
        getattr(engine, "close", int)()  # vLLM's memory, which the PRM needs next

    made_from = {"policy": manifest.identity(folder), "neutral": settings.neutral,
                 "sampled": [stage.preset.tree.temperature, stage.preset.tree.top_p],
                 "max_length": settings.max_length,
                 "problems": [to_dict(problem) for problem in problems]}  # fmt: skip
    home = chain.cached(stage, stage.run.making / "labels", made_from, build)
    rows = [row for row in read_jsonl(home / FILE, StepLabels) if any(row.labels)]
    labels = [label for row in rows for label in row.labels if label]
    stage.count(labelled_solutions=len(rows), labelled_steps=len(labels),
                labelled_good=labels.count("+"))  # fmt: skip
    return chain.divide(rows, settings.heldout, stage.seed)


def sampled(stage: Any, engine: Engine, problems: Sequence[Problem]) -> list[StepLabels]:
    """A solution of each problem by the policy, its steps labelled."""
    family, settings = prompts.load(stage.preset.prompts), stage.preset.tree
    texts = [family.render(engine.tokenizer, family.solve(p.question)) for p in problems]
    with engine_call("sampling solutions to label"):
        found = engine.sample(
            texts, temperature=settings.temperature, top_p=settings.top_p,
            max_tokens=stage.preset.prm.max_length,
            seeds=[seed_of(stage.seed, "labels", problem.id) for problem in problems],
        )  # fmt: skip
    stage.tokens(generated=sum(row[0].tokens for row in found))
    return [labelled(problem, row[0].text, stage.preset.prm.neutral)
            for problem, row in zip(problems, found, strict=True)]  # fmt: skip


def labelled(problem: Problem, text: str, neutral: str) -> StepLabels:
    """The steps of a solution as far as they are marked in order, each with its label."""
    in_order = takewhile(lambda item: number(item[1]) == item[0], enumerate(split_steps(text), 1))
    steps = [step for _, step in in_order]
    return StepLabels(
        id=f"rule/{problem.id}", problem_id=problem.id, question=problem.question, steps=steps,
        labels=labels_of(steps, worked(problem.solution), neutral),
    )  # fmt: skip


def labels_of(steps: Sequence[str], solution: Worked, neutral: str) -> list[str]:
    """The label of each step; none after the first `-`."""
    meaning = {NEEDED: "+", WRONG: "-", ASIDE: NEUTRAL[neutral], SILENT: ""}
    labels: list[str] = []
    for k, step in enumerate(steps):
        labels.append("" if "-" in labels else meaning[find(step, steps[:k], solution).kind])
    return labels
