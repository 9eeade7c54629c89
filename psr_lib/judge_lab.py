"""What notebook 07 calls: the judges of a method under test, M0 to M[n], or an API model.

Verdicts on held-out pairs and on the models' own siblings were given before, by the evaluations and
the searches; they are read from there. The last model, the judge under test, is asked about steps
and solutions that people have labelled, and scores solutions if it has learned to.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from psr_lib import evaluation, lab_pairs, lab_scores, labels, problems, prompts, stages
from psr_lib.engines.base import Engine
from psr_lib.guard import engine_call
from psr_lib.lab_scores import ANY, SAME, Scorer
from psr_lib.lab_table import HELDOUT, OWN, SCORING, Group
from psr_lib.labels import LabelledSolution
from psr_lib.records import JudgeExample, Problem, Question, read_jsonl, seed_of
from psr_lib.stages import REFERENCE
from psr_lib.traces import TraceFile

PROCEDURAL = "procedural"  # the source whose every step an oracle knows
# Methods whose models score whole solutions, and what opens a model's scorer.
SCORERS: dict[str, Callable[[Any, Engine], Scorer]] = {}


def models(stage: Any) -> Iterator[tuple[str, int]]:
    """Name and number of each model under test; the API model goes by its own name."""
    if stage.method == REFERENCE:
        yield stage.preset.engine.model, 0
    else:
        yield from ((f"M{n}", n) for n in range(stage.iteration + 1))


def heldout(stage: Any) -> list[Group]:
    """Each model's verdicts on the held-out pairs of EFT (Table 3), in both orders."""
    examples = read_jsonl(stage.input("data/eft_heldout.jsonl"), JudgeExample)
    known = "oracle" if stage.preset.data.source == PROCEDURAL else "teacher"
    groups = []
    for model, n in models(stage):
        found = [_verdicts(stage, n, name) for name in ("verdicts", "verdicts_swapped")]
        rows = lab_pairs.pair_rows(examples, *found, source=HELDOUT)
        shots = stage.preset.eval.judge_shots if model == "M0" else 0
        groups.append(Group(model=model, source=HELDOUT, labels=known, rows=rows, shots=shots))
    return groups


def _verdicts(stage: Any, n: int, name: str) -> list[str | None]:
    path = stage.run.eval(stage.method, n) / f"{name}.jsonl.gz"
    return [row["verdict"] for row in read_jsonl(_input(stage, path))]


def _input(stage: Any, path: Path) -> Path:
    return stage.input(path.relative_to(stage.run.path).as_posix())


def siblings(stage: Any) -> list[Group]:
    """Each model's verdicts on its own next steps, in the searches that it steered.

    On the small laboratory's problems the oracle says which of two siblings is right.
    """
    has_oracle = stage.preset.data.source == PROCEDURAL
    groups = []
    for model, source, path in _searches(stage):
        traces = TraceFile(_input(stage, path))
        rows = lab_pairs.sibling_rows(traces, source, _oracle if has_oracle else None)
        groups.append(Group(model=model, source=source, labels="oracle" if has_oracle else "",
                            rows=rows, search_ties=lab_pairs.search_ties(traces)))  # fmt: skip
    return groups


def _searches(stage: Any) -> Iterator[tuple[str, str, Path]]:
    """Model, kind of items and trace file of each search with the model's own verdicts."""
    if stage.method == REFERENCE:
        return
    for n in stages.searches_of(stage.method, stage.iteration):
        traces = stage.run.ppd(stage.method, n) / "traces.jsonl.gz"
        yield f"M{n - 1}", "siblings, training search", traces
    for n in range(stage.iteration + 1):
        if n in stage.preset.eval.search_rounds and stage.preset.data.search_size:
            traces = stage.run.eval(stage.method, n) / "search_traces.jsonl.gz"
            yield f"M{n}", "siblings, test-time search", traces


def _oracle(question: Question, prefix: list[str], a: str, b: str) -> str | None:
    return problems.oracle_verdict(question.text, prefix, a, b)


def read_audit(stage: Any) -> labels.Labels:
    """Labels of the files that `lab.audit` names, thinned to `lab.audit_size` of each source.

    Solutions also give pairs: next steps after equal right steps, and right against wrong ones.
    """
    settings = stage.preset.lab
    found = labels.read_labels(stage.source(name) for name in settings.audit)
    pairs = [*found.pairs, *labels.step_pairs(found.solutions),
             *labels.solution_pairs(found.solutions)]  # fmt: skip
    return labels.Labels(
        labels.spread(pairs, settings.audit_size, lambda pair: pair.meta["source"]),
        labels.spread(found.solutions, settings.audit_size, lambda one: one.source),
    )


def audit(stage: Any, engine: Engine, pairs: Sequence[JudgeExample]) -> list[Group]:
    """The judge under test on pairs labelled by people, in both orders, a group a source."""
    model, _ = list(models(stage))[-1]
    orders = [ask(stage, engine, some) for some in (pairs, list(map(lab_pairs.flipped, pairs)))]
    rows = lab_pairs.pair_rows(pairs, *orders)
    known = {pair.meta["source"]: pair.meta["labels"] for pair in pairs}
    return [
        Group(model=model, source=source, labels=origin,
              rows=[row for row in rows if row.source == source])
        for source, origin in known.items()
    ]  # fmt: skip


def ask(stage: Any, engine: Engine, pairs: Sequence[JudgeExample]) -> list[str | None]:
    """Verdicts on the pairs as they stand; what they cost is counted."""
    rows = evaluation.judge_accuracy(
        engine, prompts.load(stage.preset.prompts), engine.tokenizer, pairs, stage.preset.judge,
        seed=stage.seed,
    )  # fmt: skip
    stage.tokens(judged=sum(row["tokens"] for row in rows))
    return [row["verdict"] for row in rows]


def own_solutions(
    stage: Any, engine: Engine, sets: Mapping[str, Sequence[Problem]]
) -> list[LabelledSolution]:
    """Solutions that the judge under test samples itself, unequal texts, right by the gold answer.

    `lab.solutions` of each of the first `lab.problems` problems of every set, sampled as steps are.
    """
    lab, search, family = stage.preset.lab, stage.preset.search, prompts.load(stage.preset.prompts)
    small = {name: list(problems[: lab.problems]) for name, problems in sets.items()}
    flat = [(name, problem) for name, problems in small.items() for problem in problems]
    asked = [family.render(engine.tokenizer, family.solve(p.question)) for _, p in flat]
    with engine_call("sampling solutions"):
        found = engine.sample(
            asked, n=lab.solutions, temperature=search.temperature, top_p=search.top_p,
            max_tokens=stage.preset.eval.max_tokens, stop=[] if family.chat else ["\n\n"],
            seeds=[seed_of(stage.seed, "lab", problem.id) for _, problem in flat],
        )  # fmt: skip
    stage.tokens(generated=sum(c.tokens for row in found for c in row))
    unequal = [(name, problem, c) for (name, problem), row in zip(flat, found, strict=True)
               for c in {c.text: c for c in row}.values()]  # fmt: skip
    rows = [evaluation.answer_row(name, p, c.text, c.finish, {}) for name, p, c in unequal]
    grades = evaluation.graded(rows, [problem.answer for _, problem, _ in unequal])
    return [
        LabelledSolution(id=f"{problem.id}/{k}", problem_id=problem.id, question=problem.question,
                         text=row["text"], right=row["strict"], source=OWN)
        for k, (row, (_, problem, _)) in enumerate(zip(grades, unequal, strict=True))
    ]  # fmt: skip


def scoring(
    stage: Any, engine: Engine, sets: Mapping[str, Sequence[Problem]],
    labelled: Sequence[LabelledSolution],
) -> list[Group]:  # fmt: skip
    """The judge under test as a scorer of its own and of labelled solutions; [] if it is none."""
    if stage.method not in SCORERS:
        return []
    own = own_solutions(stage, engine, sets)
    return score_groups(stage, SCORERS[stage.method](stage, engine), [*own, *labelled])


def score_groups(stage: Any, scorer: Scorer, solutions: Sequence[LabelledSolution]) -> list[Group]:
    """Whole solutions scored in two runs each, a group a source.

    A model's own solutions are compared problem by problem. Of those that people have labelled
    there often is one a problem, so they are compared across problems too.
    """
    model, _ = list(models(stage))[-1]
    rows = lab_scores.score_rows(solutions, scorer)
    groups = []
    for source in dict.fromkeys(row.source for row in rows):
        mine = [row for row in rows if row.source == source]
        known = "gold answer" if source == OWN else labels.HUMAN
        group = Group(model=model, source=source, labels=known, rows=mine, strategy=SCORING,
                      pairs=SAME)  # fmt: skip
        groups += [group] if source == OWN else [group, replace(group, pairs=ANY)]
    return groups
