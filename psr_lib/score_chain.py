"""Solutions for the scoring EFT of `srlm`, from where the step judge's EFT is from (section 3.2).

The policy of the tree search (M0 fine-tuned on IFT, or M0) solves the very problems that were
searched, with the tree's sampling; a right and a wrong solution of a problem make a contest. So
neither method is shown solutions that its policy could not write.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from psr_lib import chain, manifest, prompts, tallies
from psr_lib.contests import Contest, sampled
from psr_lib.engines.base import Engine
from psr_lib.engines.tasks import Task, drive
from psr_lib.journal import Journal, search_into
from psr_lib.progress import track
from psr_lib.prompts import Family
from psr_lib.records import IFTExample, Problem, Question, read_jsonl, seed_of
from psr_lib.solution_traces import SolutionTrace
from psr_lib.solving import sampling

PROBLEMS = "data/eft_problems.jsonl"


def contests(stage: Any) -> tuple[list[Contest], dict[str, str]]:
    """Contests of the policy's own solutions, and the worked solutions by question.

    A call after one that was cut short goes on with the problems that are left. Raises PSRError
    where the engine fails.
    """
    problems = read_jsonl(stage.input(PROBLEMS), Problem)
    traces = _solved(stage, problems)
    found = sampled(problems, traces, stage.seed)
    stage.count(problems_sampled=len(problems), contests=len(found),
                solutions_sampled=sum(len(trace.solutions) for trace in traces))  # fmt: skip
    return found, {problem.question: problem.solution for problem in problems}


def _solved(stage: Any, problems: Sequence[Problem]) -> list[SolutionTrace]:
    folder = chain.policy(stage, read_jsonl(stage.input("data/ift.jsonl"), IFTExample))
    engine, family = chain.open_engine(stage, folder), prompts.load(stage.preset.prompts)
    questions = [problem.ask() for problem in problems]
    made_from = chain.common(stage) | {
        "srlm": asdict(stage.preset.srlm), "tree": asdict(replace(stage.preset.tree, live=1)),
        "questions": chain.hash_rows(questions), "weights": manifest.identity(folder),
    }  # fmt: skip
    journal = Journal(chain.making(stage) / "solutions.jsonl", made_from)
    tally = tallies.Sampled(problems, map(SolutionTrace.from_row, journal.rows()))
    with track(len(questions), "solutions", journal.count) as progress:
        search_into(
            journal, questions, lambda asked: solution_stream(engine, family, asked, stage),
            lambda done, trace: progress.update(done, **tally(trace)),
        )  # fmt: skip
    traces = [SolutionTrace.from_row(row) for row in journal.rows()]
    journal.close()
    stage.tokens(generated=sum(trace.tokens["generated"] for trace in traces))
    return traces


def solution_stream(
    engine: Engine, family: Family, asked: Iterable[tuple[int, Question]], stage: Any
) -> Iterator[tuple[int, SolutionTrace]]:
    """(number, trace) of each numbered question; `srlm.eft_solutions` sampled solutions of each.

    At most `tree.live` questions are open at once; no result depends on which.
    """
    tasks = ((place, _solutions(family, engine.tokenizer, question, stage))
             for place, question in asked)  # fmt: skip
    yield from drive(engine, tasks, stage.preset.tree.live)


def _solutions(family: Family, tokenizer: Any, question: Question, stage: Any) -> Task:
    tree, srlm = stage.preset.tree, stage.preset.srlm
    found = yield from sampling(
        family, tokenizer, [question], [seed_of(stage.seed, "contest", question.id)],
        n=srlm.eft_solutions, temperature=tree.temperature, top_p=tree.top_p,
        max_tokens=srlm.max_tokens,
    )  # fmt: skip
    trace = SolutionTrace(question)
    for completion in found[0]:
        trace.take(completion)
    return trace
