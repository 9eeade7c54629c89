"""What notebook 07 calls: M[n] (or an API model) under test as a judge, beside those before it.

Verdicts on held-out pairs and on a model's own siblings were given before, by its evaluation and
its searches; they are read from there. Asked anew are the held-out pairs with their steps in each
other's slot, and steps and solutions that people have labelled; a model that has learned to scores
whole solutions too. Nothing of this is on the way from M0 to the last model.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from psr_lib import (
    evaluation,
    lab_attacks,
    lab_pairs,
    lab_scores,
    lab_table,
    labels,
    problems,
    prompts,
    rounds,
    srlm_rounds,
    stages,
    tallies,
)
from psr_lib.engines.base import Engine
from psr_lib.evaluation import Row
from psr_lib.lab_scores import ANY, SAME, Scorer
from psr_lib.lab_table import HELDOUT, OWN, SCORING, SOLUTIONS, TESTING, TRAINING, Group
from psr_lib.labels import LabelledSolution
from psr_lib.methods import REFERENCE, SRLM
from psr_lib.presets import PROCEDURAL
from psr_lib.records import JudgeExample, Problem, Question, ScoreExample, read_jsonl, seed_of
from psr_lib.scoring import Scored, score_solutions
from psr_lib.solving import sampled_solutions
from psr_lib.traces import TraceFile

TABLE = "judge.csv"


def name_of(stage: Any) -> str:
    """The judge under test: `M[n]`, or an API model's own name."""
    return stage.preset.engine.model if stage.method == REFERENCE else f"M{stage.iteration}"


def judges_steps(stage: Any) -> bool:
    """Whether the judge under test compares two steps; the baseline `srlm` learned to score."""
    return stage.method != SRLM or not stage.iteration


def scores(stage: Any) -> bool:
    """Whether it scores whole solutions: the baseline does, an API model can do both."""
    return stage.method == REFERENCE or not judges_steps(stage)


def earlier(stage: Any) -> list[Row]:
    """The table of the model before this one, with those of all before it; [] for the first."""
    if not stage.iteration:
        return []
    return lab_table.read(_input(stage, stage.run.lab(stage.method, stage.iteration - 1) / TABLE))


def heldout(stage: Any, engine: Engine) -> list[Group]:
    """Verdicts on the held-out pairs of EFT (Table 3) in both orders; M0's without examples too.

    The pairs as they stand were judged by the evaluation (05); only the other order is asked.
    """
    if not judges_steps(stage):
        return []
    examples, forward, shots = _judged(stage)
    found = [_heldout(stage, examples, forward, _turned(stage, engine, examples, shots), shots)]
    if shots:
        bare = ask(stage, engine, examples), _turned(stage, engine, examples)
        found.append(_heldout(stage, examples, *bare))
    return found


def _judged(stage: Any) -> tuple[list[JudgeExample], list[str | None], list[JudgeExample]]:
    """The held-out pairs, the verdicts that the evaluation got, and the worked examples before."""
    examples = read_jsonl(stage.input("data/eft_heldout.jsonl"), JudgeExample)
    shots = rounds.fixed_shots(stage) if stage.iteration == 0 else []
    path = stage.run.eval(stage.method, stage.iteration) / "verdicts.jsonl.gz"
    return examples, [row["verdict"] for row in read_jsonl(_input(stage, path))], shots


def _heldout(
    stage: Any, examples: Sequence[JudgeExample], forward: Sequence[str | None],
    swapped: Sequence[str | None], shots: Sequence[JudgeExample] = (),
) -> Group:  # fmt: skip
    known = "oracle" if stage.preset.data.source == PROCEDURAL else "teacher"
    rows = lab_pairs.pair_rows(examples, forward, swapped, source=HELDOUT)
    return Group(model=name_of(stage), source=HELDOUT, labels=known, rows=rows, shots=len(shots))


def _turned(
    stage: Any, engine: Engine, pairs: Sequence[JudgeExample], shots: Sequence[JudgeExample] = ()
) -> list[str | None]:
    return ask(stage, engine, [lab_pairs.flipped(pair) for pair in pairs], shots)


def _input(stage: Any, path: Path) -> Path:
    return stage.input(path.relative_to(stage.run.path).as_posix())


def siblings(stage: Any) -> list[Group]:
    """Verdicts on a model's own next steps, in the searches that it steered.

    M[n-1]'s training search made the pairs of M[n], so it stands here; M[n] has its test-time
    search. On the small laboratory's problems the oracle says which of two siblings is right.
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
    n = stage.iteration
    if stages.steered(stage.method, n):
        traces = stage.run.ppd(stage.method, n) / "traces.jsonl.gz"
        yield f"M{n - 1}", TRAINING, traces
    if has_searched(stage):
        traces = stage.run.eval(stage.method, n) / "search_traces.jsonl.gz"
        yield f"M{n}", TESTING, traces


def has_searched(stage: Any) -> bool:
    """Whether the evaluation of M[n] held a test-time search."""
    return rounds.searches(stage)


def _oracle(question: Question, prefix: list[str], a: str, b: str) -> str | None:
    return problems.oracle_verdict(question.text, prefix, a, b)


def answers(stage: Any, name: str) -> list[Row]:
    """Answer rows that the evaluation of M[n] wrote, such as `search_answers`."""
    path = stage.run.eval(stage.method, stage.iteration) / f"{name}.jsonl.gz"
    return read_jsonl(_input(stage, path))


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
    if not pairs or not judges_steps(stage):
        return []
    rows = lab_pairs.pair_rows(pairs, ask(stage, engine, pairs), _turned(stage, engine, pairs))
    return audit_groups(name_of(stage), pairs, rows)


def audit_groups(
    model: str, pairs: Sequence[JudgeExample], rows: Sequence[lab_pairs.PairRow]
) -> list[Group]:
    """A group for each source and each way in which its labels came about."""
    known = [(pair.meta["source"], pair.meta["labels"]) for pair in pairs]
    return [
        Group(model=model, source=source, labels=origin,
              rows=[row for row, own in zip(rows, known, strict=True) if own == (source, origin)])
        for source, origin in dict.fromkeys(known)
    ]  # fmt: skip


def ask(
    stage: Any, engine: Engine, pairs: Sequence[JudgeExample], shots: Sequence[JudgeExample] = ()
) -> list[str | None]:
    """Verdicts on the pairs as they stand; what they cost is counted."""
    rows = evaluation.judge_accuracy(
        engine, prompts.load(stage.preset.prompts), engine.tokenizer, pairs, stage.preset.judge,
        seed=stage.seed, shots=shots,
    )  # fmt: skip
    stage.tokens(judged=sum(row["tokens"] for row in rows))
    return [row["verdict"] for row in rows]


def attacked(stage: Any, engine: Engine) -> list[lab_attacks.AttackRow]:
    """Verdicts on held-out pairs that it judged rightly, their wrong step now with an attack.

    On `lab.attacked` pairs, in the order in which they were judged; [] for a scorer of solutions.
    """
    if not judges_steps(stage) or not stage.preset.lab.attacked:
        return []
    examples, forward, shots = _judged(stage)
    chosen = lab_attacks.targets(examples, forward, stage.preset.lab.attacked)
    made = [attack for pair in chosen for attack in lab_attacks.attacked(pair, stage.seed)]
    return lab_attacks.attack_rows(made, ask(stage, engine, [pair for _, _, pair in made], shots))


def own_solutions(
    stage: Any, engine: Engine, sets: Mapping[str, Sequence[Problem]]
) -> list[LabelledSolution]:
    """Solutions that the judge under test samples itself, unequal texts, right by the gold answer.

    `lab.solutions` of each of the first `lab.problems` problems of every set, sampled as steps are.
    """
    lab, search, family = stage.preset.lab, stage.preset.search, prompts.load(stage.preset.prompts)
    small = {name: list(problems[: lab.problems]) for name, problems in sets.items()}
    flat = [(name, problem) for name, problems in small.items() for problem in problems]
    tally = tallies.Matches([problem.answer for _, problem in flat], tallies.is_right)
    with tallies.watching(engine, "own solutions", tally):
        found = sampled_solutions(
            engine, family, engine.tokenizer, [problem.ask() for _, problem in flat],
            [seed_of(stage.seed, "lab", problem.id) for _, problem in flat], n=lab.solutions,
            temperature=search.temperature, top_p=search.top_p,
            max_tokens=stage.preset.eval.max_tokens,
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
    if not scores(stage):
        return []
    asked = [*heldout_solutions(stage), *own_solutions(stage, engine, sets), *labelled]
    return score_groups(stage, scorer(stage, engine), asked)


def heldout_solutions(stage: Any) -> list[LabelledSolution]:
    """The held-out rows of the baseline's own EFT; [] for an API model."""
    if stage.method != SRLM:
        return []
    rows = read_jsonl(stage.input(srlm_rounds.HELDOUT), ScoreExample)
    return [
        LabelledSolution(id=row.id, problem_id=row.problem_id, question=row.question,
                         text=row.solution, right=row.right, source=SOLUTIONS)
        for row in rows
    ]  # fmt: skip


def scorer(stage: Any, engine: Engine) -> Scorer:
    """The judge under test as `srlm` scores: several sampled justifications, their mean.

    The first run has the noise of the evaluation (05). What it costs is counted.
    """
    family = prompts.load(stage.preset.prompts)

    def score(items: Sequence[tuple[Question, str]], run: int) -> list[Scored]:
        seed = seed_of(stage.seed, "lab run", run) if run else stage.seed
        found = score_solutions(engine, family, engine.tokenizer, items, stage.preset.srlm, seed)
        stage.tokens(judged=sum(one.tokens for one in {id(one): one for one in found}.values()))
        return found

    return score


LABELS = {OWN: "gold answer", SOLUTIONS: "teacher"}  # who says which solutions are right


def score_groups(stage: Any, scorer: Scorer, solutions: Sequence[LabelledSolution]) -> list[Group]:
    """Whole solutions scored in two runs each, a group a source.

    A model's own solutions are compared problem by problem. Of those that people have labelled
    there often is one a problem, so they are compared across problems too.
    """
    model, rows = name_of(stage), lab_scores.score_rows(solutions, scorer)
    groups = []
    for source in dict.fromkeys(row.source for row in rows):
        mine = [row for row in rows if row.source == source]
        known = LABELS.get(source, labels.HUMAN)
        group = Group(model=model, source=source, labels=known, rows=mine, strategy=SCORING,
                      pairs=SAME)  # fmt: skip
        groups += [group] if source in LABELS else [group, replace(group, pairs=ANY)]
    return groups
