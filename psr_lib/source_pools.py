"""Pools of a run from real problems: the questions of each round, tree search's problems, IFT.

Problems are drawn in an order that the seed fixes and screened one at a time, so that a source of
any size can be used. Questions are drawn first: another teacher leaves them as they are.
"""

import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

from psr_lib import benchmarks, ift, manifest, prompts, sources
from psr_lib.engines.base import EngineError
from psr_lib.engines.chat import Chat
from psr_lib.hygiene import Screen
from psr_lib.paid import Paid
from psr_lib.records import IFTExample, Problem, PSRError, Question, seed_of, write_jsonl

REPORT = "removed"


def make_pools(stage: Any) -> dict[str, int]:
    """Write every pool of a real source, and the report of what was removed; returns rows a file.

    Raises PSRError where the source is too small or cannot be read, or a teacher's server fails.
    """
    source = open_source(stage)
    tested = {row.id: row.question
              for rows in benchmarks.open_sets(stage, size=0).values() for row in rows}  # fmt: skip
    screen = Screen(tested, stage.preset.data.ngram)
    fresh, tally = drawn(source, stage.seed, screen), ift.Tally()
    pools: dict[str, list[Any]] = questions(stage, fresh)
    pools["eft_problems"] = take(fresh, stage.preset.data.eft_problems, "data.eft_problems")
    pools |= solutions(stage, fresh, tally)
    pools[REPORT] = [*screen.removed, *tally.failures]
    stage.count(source_rows=len(source), **screen.counts(), **tally.counts())
    return {name: write_jsonl(stage.output(f"{name}.jsonl"), rows) for name, rows in pools.items()}


def open_source(stage: Any) -> sources.Source:
    """The preset's source; a file that it reads is an input of the stage."""
    settings = stage.preset.data
    source = sources.open_source(
        settings.source, settings.source_split, manifest.root(), fields=settings.fields,
        calculator=settings.calculator, seed=seed_of("source", stage.seed),
    )  # fmt: skip
    if source.path:
        stage.source(source.path)
    elif source.hub:
        stage.hub(source.hub)
    return source


def drawn(source: sources.Source, seed: int, screen: Screen) -> Iterator[Problem]:
    """The source's problems in the seed's order, those that the screen takes."""
    order = list(range(len(source)))
    random.Random(seed_of("pools", seed)).shuffle(order)
    return filter(screen.takes, map(source.problem, order))


def take(fresh: Iterator[Problem], size: int, setting: str) -> list[Problem]:
    """The next problems; raises PSRError where there are not so many left."""
    found = list(islice(fresh, size))
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
    settings, chat = stage.preset.data, None
    sizes = {"ift": settings.ift}
    if settings.ift_more:
        sizes |= {f"ift_more_{n}": settings.ift_more for n in range(2, stage.preset.rounds + 1)}
    teacher, threads = ift.by_rule, 1
    if stage.preset.teacher.ift == "oracle":
        raise PSRError("teacher.ift: the oracle knows procedural problems only; set it to rule "
                       "(offline) or api")  # fmt: skip
    if stage.preset.teacher.ift == "api":
        chat = open_chat(stage)
        family, attempts = prompts.load(stage.preset.prompts), stage.preset.teacher.attempts
        teacher = ift.ApiTeacher(chat, family, attempts)
        threads = stage.preset.teacher.concurrency
    made: dict[str, list[IFTExample]] = {}
    try:
        for name, size in sizes.items():
            made[name] = ift.make_rows(fresh, size, teacher, name, tally, threads)
    except EngineError as error:
        kept = f"{len(chat.paid)} answers are kept and the next call goes on from there"
        raise PSRError(f"{error}; {kept}") from error
    finally:
        if chat:
            close_chat(stage, chat)
    return made


def open_chat(stage: Any) -> Chat:
    """The teacher's server; its answers are kept beside the runs, by model."""
    name = stage.preset.teacher.model.replace("/", "--")
    return Chat(stage.preset.teacher, Paid(stage.beside(f"paid/{name}.jsonl")))


def close_chat(stage: Any, chat: Chat) -> None:
    """Close the connections and count what was asked and what it cost."""
    chat.close()
    stage.count(teacher_calls=chat.asked, teacher_prompt_tokens=chat.prompt_tokens,
                teacher_tokens=chat.tokens, teacher_answers_kept=len(chat.paid))  # fmt: skip
