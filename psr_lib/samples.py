"""avg@k: the mean accuracy of k sampled answers, for sets too small for one greedy answer each.

On 30 problems one answer more or less is 3.3 points. The mean over k answers to each problem has
less noise and estimates the same thing as one sampled answer; it is no majority and no best of k.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from psr_lib import tallies
from psr_lib.engines.base import Engine
from psr_lib.evaluation import MEAN, Benchmarks, Row, answer_row, graded
from psr_lib.grading import Grader
from psr_lib.prompts import Family
from psr_lib.records import seed_of
from psr_lib.shares import share
from psr_lib.solving import sampled_solutions
from psr_lib.stats import paired_bootstrap


def small_sets(benchmarks: Benchmarks, settings: Any) -> Benchmarks:
    """The sets that the preset's `eval` has sampled: those of up to `samples_up_to` problems."""
    most = settings.samples_up_to if settings.samples else 0
    return {name: problems for name, problems in benchmarks.items() if len(problems) <= most}


def sampled_answers(
    engine: Engine,
    family: Family,
    tokenizer: Any,
    benchmarks: Benchmarks,
    settings: Any,
    seed: int,
    grader: Grader | None = None,
) -> list[Row]:
    """`settings.samples` graded answer rows a problem, each with its `sample` number."""
    flat = [(name, problem) for name, problems in benchmarks.items() for problem in problems]
    if not flat:
        return []
    tally = tallies.Matches([problem.answer for _, problem in flat], tallies.is_right)
    with tallies.watching(engine, "sampled answers", tally):
        found = sampled_solutions(
            engine, family, tokenizer, [problem.ask() for _, problem in flat],
            [seed_of(seed, "avg", problem.id) for _, problem in flat], n=settings.samples,
            temperature=settings.sample_temperature, top_p=settings.sample_top_p,
            max_tokens=settings.max_tokens,
        )  # fmt: skip
    rows, golds = [], []
    for (name, problem), completions in zip(flat, found, strict=True):
        for k, c in enumerate(completions):
            spent = {"prefill": 0 if k else c.prompt_tokens, "generated": c.tokens}
            rows.append(answer_row(name, problem, c.text, c.finish, spent) | {"sample": k})
            golds.append(problem.answer)
    return graded(rows, golds, grader)


def average_rows(answers: Sequence[Row], greedy: Sequence[Row] = ()) -> list[Row]:
    """avg@k of each set with its 95 % interval over problems, then the mean over these sets.

    `greedy` rows (`evaluation.accuracy_rows`) of the same sets are shown beside.
    """
    beside = {row["benchmark"]: row["accuracy"] for row in greedy}
    rows, means = [], {}
    for name in dict.fromkeys(row["benchmark"] for row in answers):
        mine = [row for row in answers if row["benchmark"] == name]
        means[name] = _per_problem(mine)
        found = share(list(means[name].values()), [1] * len(means[name]), list(means[name]))
        rows.append(_row(name, mine, (found.value, found.low, found.high), beside.get(name)))
    if len(rows) > 1:
        known = [beside[name] for name in means if name in beside]
        mean = sum(known) / len(known) if len(known) == len(means) else None
        rows.append(_row(MEAN, answers, _over_sets(means), mean))
    return rows


def _per_problem(answers: Sequence[Row]) -> dict[str, float]:
    """Problem id -> share of its answers that are right."""
    found: dict[str, list[bool]] = {}
    for row in answers:
        found.setdefault(row["problem_id"], []).append(row["strict"])
    return {name: sum(right) / len(right) for name, right in found.items()}


def _over_sets(means: Mapping[str, Mapping[str, float]]) -> tuple[float, float, float]:
    values = {name: list(shares.values()) for name, shares in means.items()}
    zeros = {name: [0.0] * len(shares) for name, shares in means.items()}
    found = paired_bootstrap([zeros], [values])
    return found.mean, found.low, found.high


def _row(name: str, answers: Sequence[Row], found: tuple, greedy: float | None) -> Row:
    problems = {(row["benchmark"], row["problem_id"]) for row in answers}
    value, low, high = found
    row = {"benchmark": name, "n": len(problems), "samples": len(answers) // len(problems)}
    return row | {"accuracy": value, "low": low, "high": high, "greedy": greedy}
