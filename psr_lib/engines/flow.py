"""Calls of many tasks under way at once, each answered as soon as it is complete.

A call of its own for all that wait would leave the engine with ever fewer rows until its longest
text ends. Here whoever is answered asks on at once, so an engine that takes requests while it works
(vLLM) is kept full, with steps and judgements side by side.
"""

from collections.abc import Callable
from typing import Any

from psr_lib.engines.calls import Call, Item, Keep, Place, Request, RequestEngine
from psr_lib.guard import engine_call


class FlowingEngine(RequestEngine):
    """An engine that takes requests while it works."""

    def put_requests(self, requests: list[Request], keep: Keep) -> None:
        """Begin with these; their completions go to `keep`."""
        raise NotImplementedError

    def put_items(self, items: list[Item], keep: Keep) -> None:
        """Begin with these; their scores go to `keep`."""
        raise NotImplementedError

    def work(self) -> None:
        """Work on until something may have been kept."""
        raise NotImplementedError


class Flow:
    """Named requests of tasks (`tasks.Sample`, `tasks.Choose`), answered in the order they end."""

    def __init__(self, engine: FlowingEngine):
        self.engine = engine
        self.open: dict[Any, Call] = {}
        self.ended: list[Any] = []

    def ask(self, name: Any, request: Any) -> None:
        """Begin with a task's request; raises PSRError that says what was being done."""
        with engine_call(request.doing):
            call, put = self._call(request)
            self.open[name] = call

            def keep(place: Place, found: Any) -> None:
                call.keep(place, found)
                if call.complete:
                    self.ended.append(name)

            if call.complete:  # every prompt was too long
                self.ended.append(name)
            put(call.jobs, keep)

    def _call(self, request: Any) -> tuple[Call, Callable[[list, Keep], None]]:
        """What a request asks of the engine, and with what it begins."""
        if hasattr(request, "options"):
            return self.engine.scoring(request.prompts, request.options), self.engine.put_items
        sampling = self.engine.sampling(request.prompts, request.seeds, **request.settings)
        sampling.progress = None  # there are no rows in all of which these would be a part
        return sampling, self.engine.put_requests

    def answers(self) -> list[tuple[Any, list]]:
        """(name, answer) of every request that is complete, waiting for one; none if none is open.

        Raises EngineError where the engine stops.
        """
        while self.open and not self.ended:
            self.engine.work()
        ended, self.ended = self.ended, []
        return [(name, self.open.pop(name).result(self.engine.usage)) for name in ended]
