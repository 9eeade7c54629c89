"""Work that asks an engine again and again, as tasks that wait for its answers.

A task is a generator: it yields what it asks and is sent the answer, and knows of no other task.
`drive` keeps many of them going at once: an engine that takes requests while it works has those of
all tasks under way (`flow.py`); for others, tasks that ask for the same kind of thing are put
together into one call.
"""

from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from psr_lib.engines.calls import RequestEngine, Sampling, Scoring
from psr_lib.engines.flow import Flow
from psr_lib.guard import engine_call


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Completions asked of `Engine.sample`; `doing` says in an error what they were for."""

    doing: str
    prompts: list[str]
    seeds: list[int]
    n: int = 1
    temperature: float
    top_p: float
    max_tokens: int
    stop: list[str] = field(default_factory=list)

    @property
    def settings(self) -> dict[str, Any]:
        """What requests must have in common to be one call."""
        names = ("n", "temperature", "top_p", "max_tokens", "stop")
        return {name: getattr(self, name) for name in names}

    def call(self, engine: RequestEngine) -> Sampling:
        """The call that a flow begins with; it tells nobody, as it is one of many."""
        call = engine.sampling(self.prompts, self.seeds, **self.settings)
        call.progress = None
        return call


@dataclass(frozen=True, kw_only=True)
class Choose:
    """Scores asked of `Engine.choose`: of the same options after each prompt."""

    doing: str
    prompts: list[str]
    options: list[str]

    @property
    def settings(self) -> dict[str, Any]:
        """What requests must have in common to be one call."""
        return {"options": self.options}

    def call(self, engine: RequestEngine) -> Scoring:
        """The call that a flow begins with."""
        return engine.scoring(self.prompts, self.options)


Request = Sample | Choose
Task = Generator[Request, Any, Any]  # it is sent the list of its answers, None to begin


def answer(engine: Any, requests: Sequence[Request]) -> list[list]:
    """The engine's answers to requests of one kind, in one call.

    Raises PSRError that says what was being done where the engine fails.
    """
    first, prompts = requests[0], [prompt for request in requests for prompt in request.prompts]
    with engine_call(first.doing):
        if isinstance(first, Choose):
            found = engine.choose(prompts, first.options)
        else:
            asked = [request for request in requests if isinstance(request, Sample)]
            seeds = [seed for request in asked for seed in request.seeds]
            found = engine.sample(prompts, seeds=seeds, **first.settings)
    rest = iter(found)
    return [list(islice(rest, len(request.prompts))) for request in requests]


def alone(engine: Any, task: Task) -> Any:
    """What one task comes to, with nothing beside it."""
    ((_, found),) = _in_calls(engine, [(0, task)], 1)  # a call tells of its progress
    return found


def drive(engine: Any, tasks: Iterable[tuple[Any, Task]], live: int) -> Iterator[tuple[Any, Any]]:
    """(name, result) of each named task as it ends, at most `live` of them open at once.

    An engine with a `flow` works on for all of them at once; with another, what most tasks wait for
    is called first, and the others wait for them. Raises PSRError where the engine fails.
    """
    if hasattr(engine, "flow"):
        with engine.flow() as flow:
            yield from _in_flow(flow, tasks, live)
    else:
        yield from _in_calls(engine, tasks, live)


def _in_flow(
    flow: Flow, tasks: Iterable[tuple[Any, Task]], live: int
) -> Iterator[tuple[Any, Any]]:  # fmt: skip
    """Each task goes on as soon as its own answer is there."""
    waiting = iter(tasks)
    open_: dict[Any, Task] = {}
    news: list[tuple[Any, list | None]] = []
    while True:
        for name, task in islice(waiting, live - len(open_)):
            open_[name] = task
            news.append((name, None))
        if not open_:
            return
        for name, found in news:
            step = go_on(open_[name], found)
            if step.request:
                flow.ask(name, step.request)
            else:
                del open_[name]
                yield name, step.result
        news = list(flow.answers())


def _in_calls(
    engine: Any, tasks: Iterable[tuple[Any, Task]], live: int
) -> Iterator[tuple[Any, Any]]:  # fmt: skip
    """What most tasks wait for is one call."""
    waiting = iter(tasks)
    open_: dict[Any, tuple[Task, Next]] = {}
    while True:
        for name, task in islice(waiting, live - len(open_)):
            open_[name] = task, go_on(task)
        if not open_:
            return
        for name, found in _most_wanted(engine, open_):
            task, _ = open_[name]
            open_[name] = task, go_on(task, found)
        for name in [name for name, (_, next_) in open_.items() if next_.request is None]:
            yield name, open_.pop(name)[1].result


@dataclass(frozen=True)
class Next:
    """What a task asks next; None where it has ended, with its result."""

    request: Request | None
    result: Any = None


def go_on(task: Task, found: list | None = None) -> Next:
    """Send a task its answer, or start it."""
    try:
        return Next(task.send(found))
    except StopIteration as end:
        return Next(None, end.value)


def _most_wanted(engine: Any, open_: dict) -> Iterable[tuple[Any, list]]:
    """The names of tasks that wait for the commonest kind of request, each with its answer."""
    asked = {name: step.request for name, (_, step) in open_.items() if step.request}
    if not asked:
        return []
    kinds = {name: _kind(request) for name, request in asked.items()}
    ((most, _),) = Counter(kinds.values()).most_common(1)
    names = [name for name, kind in kinds.items() if kind == most]
    return zip(names, answer(engine, [asked[name] for name in names]), strict=True)


def _kind(request: Request) -> tuple[str, str]:
    return type(request).__name__, repr(request.settings)
