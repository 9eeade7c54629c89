"""Step labels without people and without a larger model, in the manner of PRM800K.

A training problem's worked solution is the path; after each of its prefixes the policy of the tree
search (M0 fine-tuned on IFT) writes one next step, and `rule_judge` says what it can show of every
step: a needed one is `+`, a wrong one `-`, a silent one has no label. What a step aside counts is
`prm.neutral`, as PRM800K's 0 does. Every labelled step stands after right ones.

The PRM and the teacher `rule` then rest on the same worked solutions, so that their agreement, one
of the filters of EFT, is weaker evidence than that of a PRM and a model.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from psr_lib import chain, ift, manifest, prompts, tallies
from psr_lib.engines.base import Engine, close
from psr_lib.guard import engine_call
from psr_lib.prm800k import NEUTRAL
from psr_lib.records import (
    IFTExample,
    Problem,
    PSRError,
    StepLabels,
    read_json,
    read_jsonl,
    seed_of,
    to_dict,
    write_json,
    write_jsonl,
)
from psr_lib.rule_judge import ASIDE, NEEDED, SILENT, WRONG, find, worked
from psr_lib.search import read_candidate

FILE = "labels.jsonl"
SPENT = "spent.json"  # what the labels took, for a stage that finds them there
SAMPLED = ("temperature", "top_p", "max_step_tokens")  # settings of the tree search that it shares


def make_labels(
    stage: Any, rows: Sequence[IFTExample], problems: Sequence[Problem]
) -> chain.Labelled:
    """Labelled steps to train the PRM on and, of other problems, to measure it on.

    They are kept in the run's folder `making/` for as long as they are made from the same; what
    they took is counted by whichever stage uses them. Raises PSRError where all labels of a part
    are alike, since nothing could be learned or measured.
    """
    settings, tree, folder = stage.preset.prm, stage.preset.tree, chain.policy(stage, rows)

    def build(home: Path) -> None:
        engine = chain.open_engine(stage, folder)
        rows, tokens = labelled(stage, engine, problems)
        write_jsonl(home / FILE, rows)
        write_json(home / SPENT, {"generated": tokens})
        close(engine)  # the PRM needs its memory next

    made_from = {"policy": manifest.identity(folder), "neutral": settings.neutral,
                 "sampled": [getattr(tree, name) for name in SAMPLED],
                 "problems": [to_dict(problem) for problem in problems]}  # fmt: skip
    home = chain.cached(stage, stage.run.making / "labels", made_from, build)
    found = read_jsonl(home / FILE, StepLabels)
    stage.tokens(**read_json(home / SPENT))
    parts = chain.divide(found, settings.heldout, stage.seed)
    good, bad = (sum(row.labels.count(sign) for row in found) for sign in "+-")
    stage.count(labelled_rows=len(found), labelled_good=good, labelled_bad=bad)
    for name, part in zip(("prm.solutions", "prm.heldout"), parts, strict=True):
        if {sign for row in part for sign in row.labels} - {""} != {"+", "-"}:
            raise PSRError(f"prm.labels=rule: no + or no - among the labels of {name}; raise it")
    return parts


def labelled(
    stage: Any, engine: Engine, problems: Sequence[Problem]
) -> tuple[list[StepLabels], int]:
    """The labelled steps of each problem: those of its solution, and one sampled at each place.

    Second: the tokens that were generated.
    """
    cut = [(problem, ift.by_rule(problem)) for problem in problems]
    paths = [(problem, found.steps) for problem, found in cut if not found.fault]
    rows = [solution_row(problem, steps) for problem, steps in paths]
    places = [(problem, steps[:k]) for problem, steps in paths for k in range(len(steps))]
    written, tokens = sampled(stage, engine, places)
    for (problem, prefix), step in zip(places, written, strict=True):
        if step:
            rows.append(sampled_row(problem, prefix, step, stage.preset.prm.neutral))
    return [row for row in rows if any(row.labels)], tokens


def sampled(
    stage: Any, engine: Engine, places: Sequence[tuple[Problem, list[str]]]
) -> tuple[list[str], int]:
    """A next step of the policy after each prefix, '' where it wrote no well-formed one; tokens."""
    family, settings = prompts.load(stage.preset.prompts), stage.preset.tree
    texts = [family.render(engine.tokenizer, family.solve(problem.question, prefix))
             for problem, prefix in places]  # fmt: skip
    with engine_call("sampling steps to label"), tallies.watching(engine, "steps to label"):
        found = engine.sample(
            texts, n=1, temperature=settings.temperature, top_p=settings.top_p,
            max_tokens=settings.max_step_tokens, stop=[family.stop],
            seeds=[seed_of(stage.seed, "labels", problem.id, len(prefix))
                   for problem, prefix in places],
        )  # fmt: skip
    candidates = [read_candidate(row[0], len(prefix) + 1)
                  for row, (_, prefix) in zip(found, places, strict=True)]  # fmt: skip
    texts = [candidate.text if candidate.valid else "" for candidate in candidates]
    return texts, sum(row[0].tokens for row in found)


def solution_row(problem: Problem, steps: Sequence[str]) -> StepLabels:
    """The worked solution itself: `+` where a step works out a result, else no label."""
    known = worked(problem.solution)
    kinds = [find(step, steps[:k], known).kind for k, step in enumerate(steps)]
    return _row(problem, "solution", steps, ["+" if kind == NEEDED else "" for kind in kinds])


def sampled_row(
    problem: Problem, prefix: Sequence[str], step: str, neutral: str
) -> StepLabels:  # fmt: skip
    """A sampled step after a prefix of the solution, which has no labels here."""
    meaning = {NEEDED: "+", WRONG: "-", ASIDE: NEUTRAL[neutral], SILENT: ""}
    kind = find(step, prefix, worked(problem.solution)).kind
    return _row(problem, len(prefix), [*prefix, step], [*[""] * len(prefix), meaning[kind]])


def _row(problem: Problem, name: Any, steps: Sequence[str], labels: list[str]) -> StepLabels:
    return StepLabels(id=f"rule/{problem.id}/{name}", problem_id=problem.id,
                      question=problem.question, steps=list(steps), labels=labels)  # fmt: skip
