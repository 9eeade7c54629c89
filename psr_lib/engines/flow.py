"""Calls of many tasks under way at once, each answered as soon as it is complete.

A call of its own for all that wait would leave the engine with ever fewer rows until its longest
text ends. Here whoever is answered asks on at once, so an engine that takes requests while it works
(vLLM) is kept full, with steps and judgements side by side.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from psr_lib.engines.calls import Call, Item, Keep, Place, Request, RequestEngine, Scoring
from psr_lib.guard import engine_call

Put = Callable[[list[Any], Keep, Any], None]


class FlowingEngine(RequestEngine):
    """An engine that takes requests while it works.

    Every request has an owner, for which it can be dropped; the owners know nothing of each other.
    """

    def put_requests(self, requests: list[Request], keep: Keep, owner: Any) -> None:
        """Begin with these; their completions go to `keep`."""
        raise NotImplementedError

    def put_items(self, items: list[Item], keep: Keep, owner: Any) -> None:
        """Begin with these; their scores go to `keep`."""
        raise NotImplementedError

    def work(self) -> None:
        """Work on until something may have been kept."""
        raise NotImplementedError

    def drop(self, owner: Any) -> None:
        """Give up what is under way for this owner."""
        raise NotImplementedError

    def at_work(self) -> AbstractContextManager[None]:
        """What must hold while the engine works."""
        return nullcontext()

    @contextmanager
    def flow(self) -> Iterator["Flow"]:
        """Requests of many tasks under way at once; those still open at the end are dropped."""
        flow = Flow(self)
        with self.at_work():
            try:
                yield flow
            finally:
                self.drop(flow)

    def _generate(self, requests: list[Request], keep: Keep) -> None:
        self._work_off(self.put_requests, requests, keep)

    def _score(self, items: list[Item], keep: Keep) -> None:
        self._work_off(self.put_items, items, keep)

    def _work_off(self, put: Put, jobs: list[Any], keep: Keep) -> None:
        """Do these jobs, and what happens to be under way beside them."""
        left, owner = [len(jobs)], object()

        def count(place: Place, found: Any) -> None:
            keep(place, found)
            left[0] -= 1

        with self.at_work():
            try:
                put(jobs, count, owner)
                while left[0]:
                    self.work()
            finally:
                self.drop(owner)


class Flow:
    """Named requests of tasks (`tasks.Sample`, `tasks.Choose`), answered in the order they end."""

    def __init__(self, engine: FlowingEngine):
        self.engine = engine
        self.open: dict[Any, Call] = {}
        self.ended: list[Any] = []

    def ask(self, name: Any, request: Any) -> None:
        """Begin with a task's request; raises PSRError that says what was being done."""
        with engine_call(request.doing):
            call = self.open[name] = request.call(self.engine)

            def keep(place: Place, found: Any) -> None:
                call.keep(place, found)
                if call.complete:
                    self.ended.append(name)

            if call.complete:  # every prompt was too long
                self.ended.append(name)
            scored = isinstance(call, Scoring)
            put = self.engine.put_items if scored else self.engine.put_requests
            put(call.jobs, keep, self)

    def answers(self) -> list[tuple[Any, list]]:
        """(name, answer) of every request that is complete, waiting for one; none if none is open.

        Raises EngineError where the engine stops.
        """
        with engine_call("working for several tasks"):
            while self.open and not self.ended:
                self.engine.work()
        ended, self.ended = self.ended, []
        return [(name, self.open.pop(name).result(self.engine.usage)) for name in ended]
