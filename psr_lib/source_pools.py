"""Pools of a run from real problems: the questions of each round and of the tree search, IFT, EFT.

Problems are drawn in an order that the seed fixes and screened one at a time, so that a source of
any size can be used; several sources take turns. Questions are drawn first: another teacher leaves
them as they are.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from psr_lib import asking, benchmarks, ift, manifest, prompts, registry, sources
from psr_lib.hygiene import Screen
from psr_lib.records import IFTExample, Problem, PSRError, Question, seed_of, write_jsonl
from psr_lib.registry import register

REPORT = "removed"
PROBLEMS = "eft_problems"  # what the tree search was asked, with answers: for 01 under srlm alone


def make_pools(stage: Any) -> dict[str, int]:
    """Write every pool of a real source, and the report of what was removed; returns rows a file.

    Raises PSRError where the source is too small or cannot be read, or a teacher's server fails.
    """
    found = open_sources(stage)
    tested = {row.id: row.question
              for rows in benchmarks.open_sets(stage, size=0).values() for row in rows}  # fmt: skip
    screen = Screen(tested, stage.preset.data.ngram)
    fresh, tally = drawn(found, stage.seed, screen), ift.Tally()
    pools: dict[str, Any] = {**questions(stage, fresh)}
    searched, labelled = tree_problems(stage, fresh), problems_to_label(stage, fresh)
    pools |= solutions(stage, fresh, tally)
    pools |= eft(stage, pools["ift"], searched, labelled, screen)
    pools[REPORT] = [*screen.removed, *tally.failures]
    stage.count(source_rows=sum(map(len, found)), **screen.counts(), **tally.counts())
    return {name: write_jsonl(stage.output(f"{name}.jsonl"), rows) for name, rows in pools.items()}


def tree_problems(stage: Any, fresh: Iterator[Problem]) -> list[Problem]:
    """The problems of the tree search that makes EFT, none where no EFT is made."""
    if stage.preset.data.eft_from == "none":
        return []
    return take(fresh, stage.preset.tree.questions, "tree.questions")


def problems_to_label(stage: Any, fresh: Iterator[Problem]) -> list[Problem]:
    """The problems on which the rule labels steps for the step PRM, if it does."""
    if stage.preset.data.eft_from == "none" or stage.preset.prm.labels != "rule":
        return []
    return take(fresh, stage.preset.prm.solutions, "prm.solutions")


def eft(
    stage: Any, rows: Sequence[IFTExample], searched: Sequence[Problem],
    to_label: Sequence[Problem], screen: Screen,
) -> dict[str, list]:  # fmt: skip
    """EFT of the chain (section 3.2), with a step PRM trained on labels of people or of the rule.

    People's labels stay as they are, as in the paper; how many are on a benchmark's problems is
    counted. Worked solutions of these problems are for the teacher `rule` alone.
    """
    if not searched:
        return {}
    from psr_lib import chain, rule_labels

    labelled = (rule_labels.make_labels(stage, rows, to_label) if to_label
                else chain.labels_of(stage, set()))  # fmt: skip
    tested = sum(bool(screen.tested(row.question)) for part in labelled for row in part)
    stage.count(prm_rows_of_benchmarks=tested)
    asked = [problem.ask() for problem in searched]
    known = {problem.question: problem.solution for problem in searched}
    made = chain.make_eft(stage, rows, asked, labelled, solutions=known)
    return {PROBLEMS: list(searched), **made}


def open_sources(stage: Any) -> list[sources.Source]:
    """The preset's sources; what they read is an input of the stage."""
    settings = stage.preset.data
    found = sources.open_sources(
        settings.source, settings.source_split, manifest.root(), fields=settings.fields,
        calculator=settings.calculator, seed=seed_of("source", stage.seed), read=stage.hub,
    )  # fmt: skip
    for source in found:
        if source.path:
            stage.source(source.path)
    return found


def drawn(found: Sequence[sources.Source], seed: int, screen: Screen) -> Iterator[Problem]:
    """The sources' problems in the seed's order, in turn, those that the screen takes."""
    rng, lines = random.Random(seed_of("pools", seed)), []
    for source in found:
        order = list(range(len(source)))
        rng.shuffle(order)
        lines.append(map(source.problem, order))
    return filter(screen.takes, in_turn(lines))


def in_turn(lines: Sequence[Iterator[Problem]]) -> Iterator[Problem]:
    """One of each line in turn, and what is left of the longer ones."""
    for row in itertools.zip_longest(*lines):
        yield from (problem for problem in row if problem is not None)


def take(fresh: Iterator[Problem], size: int, setting: str) -> list[Problem]:
    """The next problems; raises PSRError where there are not so many left."""
    found = list(itertools.islice(fresh, size))
    if len(found) < size:
        raise PSRError(f"{setting}: {size} problems are asked for and {len(found)} are left; lower "
                       "it or take a larger data.source")  # fmt: skip
    return found


def questions(stage: Any, fresh: Iterator[Problem]) -> dict[str, list[Question]]:
    """The questions of rounds 2, 3, ..., without answers."""
    sizes = stage.preset.data.questions[: stage.preset.rounds - 1]
    return {
        f"questions_{n}": [problem.ask() for problem in take(fresh, size, "data.questions")]
        for n, size in enumerate(sizes, start=2)
    }


def solutions(stage: Any, fresh: Iterator[Problem], tally: ift.Tally) -> dict[str, list]:
    """IFT, and more of it for each round of the control `ift-more`."""
    settings = stage.preset.data
    sizes = {"ift": settings.ift}
    if settings.ift_more:
        sizes |= {f"ift_more_{n}": settings.ift_more for n in range(2, stage.preset.rounds + 1)}
    first = {name: list(itertools.islice(fresh, size)) for name, size in sizes.items()}
    with segmenter(stage, [row for rows in first.values() for row in rows]) as (teacher, threads):
        return {
            name: ift.make_rows(
                itertools.chain(first[name], fresh), size, teacher, name, tally, threads
            )
            for name, size in sizes.items()
        }


Segmenter = tuple[ift.Teacher, int]  # who cuts a solution into steps, and how many at once


def segmenter(stage: Any, problems: Sequence[Problem]) -> AbstractContextManager[Segmenter]:
    """The teacher that cuts solutions (`teacher.ift`), registered as a context manager.

    What it will cost for these problems is announced first.
    """
    return registry.find("segmenter", stage.preset.teacher.ift)(stage, problems)


@register("segmenter", "rule")
@contextmanager
def _rule(stage: Any, problems: Sequence[Problem]) -> Iterator[Segmenter]:
    yield ift.by_rule, 1


@register("segmenter", "api")
@contextmanager
def _api(stage: Any, problems: Sequence[Problem]) -> Iterator[Segmenter]:
    settings = stage.preset.teacher
    with asking.opened(stage, "segment") as chat:
        teacher = ift.ApiSegmenter(chat, prompts.load(settings.prompts), settings.attempts)
        asking.announce(chat, map(teacher.first_turn, problems))
        yield teacher, settings.concurrency
