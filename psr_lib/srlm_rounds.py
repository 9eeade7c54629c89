"""What the stage notebooks call under the baseline `srlm`, where `rounds` passes it on."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from psr_lib import problems, prompts, shares, solution_reviews, tallies
from psr_lib.engines.base import Engine
from psr_lib.grading import compare_plainly
from psr_lib.journal import Questions
from psr_lib.progress import track
from psr_lib.records import (
    Question,
    ScoreExample,
    hash_json,
    iter_jsonl,
    read_jsonl,
    write_jsonl,
)
from psr_lib.scoring import Scored, score_solutions
from psr_lib.solution_traces import SolutionTrace, SolutionTraceFile, solution_stats
from psr_lib.srlm import solution_search
from psr_lib.steps import boxed

EFT, HELDOUT = "srlm/data/eft_scores.jsonl", "srlm/data/eft_scores_heldout.jsonl"
NAMES = {"problems": "questions", "solutions": "solutions", "judge_scores": "scores asked for",
         "pairs": "preference pairs"}  # fmt: skip
SHOWN = ("pairs", "solutions_each", "solutions_least", "solutions_most", "distinct",
         "duplicate_rate", "tie_rate", "unscored", "cut", "judge_unreadable", "judge_mean",
         "judge_spread", "spent", "budget", "budget_used")  # fmt: skip


def search_round(stage: Any, questions: Questions, engine: Engine) -> SolutionTraceFile:
    """Solutions, scores and pairs of round n by M[n-1], at psrlm's tokens of that round.

    A call after one that was cut short goes on after its last whole pass. Counts go to the
    manifest: `spent` tokens, the `budget`, and the share of it that was used.
    """
    settings, budget = stage.preset.srlm, _budget(stage)
    path, made_from = stage.scratch("traces.jsonl.gz"), hash_json([stage.made_from, budget])
    with track(budget or len(questions) * settings.solutions, "solutions") as progress:

        def keep(traces: list[SolutionTrace]) -> None:
            write_jsonl(path, [{"made_from": made_from}, *(trace.to_row() for trace in traces)])
            done = sum(t.spent if budget else len(t.solutions) for t in traces)
            progress.update(min(done, progress.total), **tallies.solutions(traces))

        with tallies.watching(engine, "solutions and scores"):
            traces = solution_search(
                engine, prompts.load(stage.preset.prompts), engine.tokenizer, list(questions),
                stage.preset.search, settings, stage.seed, budget=budget,
                begun=_begun(path, made_from), keep=keep,
            )  # fmt: skip
    return _written(stage, traces, budget)


def _budget(stage: Any) -> int:
    """Tokens that psrlm's search of this round has generated and judged; 0 without a budget."""
    if stage.preset.srlm.budget == "none":
        return 0
    rows = iter_jsonl(stage.input(f"psrlm/M{stage.iteration}/ppd/traces.jsonl.gz"))
    return sum(row["tokens"].get(name, 0) for row in rows for name in ("generated", "judged"))


def _begun(path: Any, made_from: str) -> list[SolutionTrace]:
    """The traces of a call that was cut short, if it was made from the same."""
    rows = read_jsonl(path) if path.is_file() else []
    if not rows or rows[0] != {"made_from": made_from}:
        return []
    return [SolutionTrace.from_row(row) for row in rows[1:]]


def _written(stage: Any, traces: Sequence[SolutionTrace], budget: int) -> SolutionTraceFile:
    write_jsonl(stage.output("traces.jsonl.gz"), (trace.to_row() for trace in traces))
    write_jsonl(stage.output("ppd.jsonl"), (pair for trace in traces for pair in trace.pairs))
    stats, spent = solution_stats(traces), sum(trace.spent for trace in traces)
    stage.tokens(generated=stats["generated_tokens"], judged=stats["judged_tokens"])
    stage.count(**stats, spent=spent, budget=budget, budget_used=spent / budget if budget else 0.0)
    return SolutionTraceFile(stage.folder / "traces.jsonl.gz")


def judge_heldout(stage: Any, engine: Engine) -> list[dict[str, Any]]:
    """Scores of the held-out solutions by the model itself, one row a pair; see `pair_rows`."""
    examples = read_jsonl(stage.input(HELDOUT), ScoreExample)
    items = [(Question(id=e.problem_id, text=e.question), e.solution) for e in examples]
    found = score_solutions(
        engine, prompts.load(stage.preset.prompts), engine.tokenizer, items, stage.preset.srlm,
        stage.seed,
    )  # fmt: skip
    rows = pair_rows(examples, found)
    stage.tokens(judged=sum(row["tokens"] for row in rows))
    return rows


def pair_rows(examples: Sequence[ScoreExample], found: Sequence[Scored]) -> list[dict[str, Any]]:
    """One row for each right solution and the wrong one after it: which has the higher mean.

    `verdict`: `right`, `wrong`, `tie`, or None where a solution has no readable score.
    """
    both = list(zip(examples, found, strict=True))
    return [_pair_row(*both[k], *both[k + 1]) for k in range(0, len(both), 2)]


def _pair_row(right: ScoreExample, high: Scored, wrong: ScoreExample, low: Scored) -> dict:
    verdict, both = compare(high.mean, low.mean), ((right, high), (wrong, low))
    ours = problems.is_procedural(right.question)  # of other problems no step is known to be right
    skills = [solution_reviews.skills(e, one.texts[0]) for e, one in both] if ours else [{}]
    return {
        "id": right.id, "problem_id": right.problem_id, "better": "right", "verdict": verdict,
        "correct": verdict == "right",
        "points_right": list(high.points), "points_wrong": list(low.points),
        "unreadable": high.unreadable + low.unreadable,
        "exact": sum(points == e.points for e, one in both for points in one.readable),
        "explanation": f"{high.texts[0]} | {low.texts[0]}", "tokens": high.tokens + low.tokens,
        **{f"skill_{name}": sum(found[name] for found in skills) for name in skills[0]},
    }  # fmt: skip


def compare(right: float | None, wrong: float | None) -> str | None:
    """Which of two mean scores is higher; None where one is missing."""
    if right is None or wrong is None:
        return None
    return "tie" if right == wrong else "right" if right > wrong else "wrong"


def judge_summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Share of pairs ordered rightly (a tie is wrong), its interval over problems, and the rest.

    `half_credit` counts a tie as half; `unreadable`, and `exact` (the teacher's own points), are
    shares of all justifications; skills are those of each solution's first one.
    """
    n, asked = len(rows), sum(len(r["points_right"]) + len(r["points_wrong"]) for r in rows)
    right, ties = (sum(r["verdict"] == word for r in rows) for word in ("right", "tie"))
    names = [name for name in rows[0] if name.startswith("skill_")] if rows else []
    return {
        "n": n,
        **shares.of_rows(rows),
        "half_credit": (right + ties / 2) / max(1, n),
        "ties": ties / max(1, n),
        "unreadable": sum(r["unreadable"] for r in rows) / max(1, asked),
        "exact": sum(r["exact"] for r in rows) / max(1, asked),
        **{name: sum(r[name] for r in rows) / max(1, 2 * n) for name in names},
    }


def oracle_report(traces: Iterable[SolutionTrace]) -> dict[str, float | int]:
    """How the self-judge did on the model's own solutions, by their answers; {} on others'.

    `siblings_judge_accuracy` over pairs of solutions of a question of which just one is right and
    both have a score; a tie (`siblings_tied`) is wrong. The other names as in a step search.
    """
    n: Counter = Counter()
    first = next(iter(traces), None)
    if first and not problems.is_procedural(first.question.text):
        return {}
    for trace in traces:
        right = [s.valid and is_right(trace.question.text, s.text) for s in trace.solutions]
        n.update({"solutions": len(right), "right": sum(right)})
        n.update(_siblings(trace, right))
        if trace.pairs and trace.chosen is not None and trace.rejected is not None:
            n.update(["pairs", _order(right[trace.chosen], right[trace.rejected])])
    siblings, solutions, pairs = (max(1, n[name]) for name in ("siblings", "solutions", "pairs"))
    return {
        "siblings_judge_accuracy": n["siblings right"] / siblings,
        "siblings_tied": n["siblings tie"] / siblings, "siblings_n": n["siblings"],
        "solutions_right": n["right"] / solutions,
        "chosen_right": (n["ordered"] + n["both"]) / pairs,
        "rejected_right": (n["reversed"] + n["both"]) / pairs,
        "ordered_right": n["ordered"] / pairs, "ordered_wrong": n["reversed"] / pairs,
    }  # fmt: skip


def _siblings(trace: SolutionTrace, right: Sequence[bool]) -> Counter:
    """Verdicts between the scored solutions of a question of which just one is right."""
    scored = [k for k, s in enumerate(trace.scores) if s is not None]
    found: Counter[str] = Counter()
    for i, j in combinations(scored, 2):
        if right[i] != right[j]:
            good, bad = (i, j) if right[i] else (j, i)
            found["siblings"] += 1
            found[f"siblings {compare(trace.scores[good], trace.scores[bad])}"] += 1
    return found


def _order(chosen: bool, rejected: bool) -> str:
    if chosen == rejected:
        return "both" if chosen else "neither"
    return "ordered" if chosen else "reversed"


def is_right(question: str, solution: str) -> bool:
    """Whether a solution's boxed answer is the problem's (laboratory problems only)."""
    answer = boxed(solution)
    found = compare_plainly(str(problems.parse(question).answer()), answer) if answer else None
    return bool(found and found[0])
