"""Shares of an engine's calls done by forked processes of this one.

Two threads of one process take turns at Python's interpreter between any two operations of a small
model; two processes do not. A fork has the weights already and starts in milliseconds. It serves
call after call, because every fork makes the system copy the pages that either side writes to
afterwards. Only for a CPU, and only on Linux: elsewhere the system's libraries do not allow it.
"""

import ctypes
import gc
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import wait
from typing import Any, NoReturn

import torch

from psr_lib.engines.base import EngineError

Tick = Callable[[Any], None]  # takes how many rows were finished, or what was found so far
Work = Callable[[Any, Tick], Any]  # one share of a call; the share and its result can be pickled

POSSIBLE = sys.platform == "linux"
SMALL = 20_000_000  # parameters of a model whose time lies between its operations, not in them
DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG


def small(model: Any) -> bool:
    """Whether a model is so small that each process had better do whole pieces of work with it."""
    return model.num_parameters() <= SMALL


class Workers:
    """Forked processes that know this one's objects as they were when it forked them."""

    def __init__(self, count: int, work: Work):
        """Fork `count` processes that will each do `work(share, tick)` whenever they are asked."""
        gc.freeze()  # the collector would write to, and so copy, every page that is shared
        try:
            self.children = [Child(work) for _ in range(count)]
        finally:
            gc.unfreeze()

    def run(self, work: Work, shares: Sequence[Any], tick: Tick) -> list[Any]:
        """`work(share, tick)` of every share, the first in this process; results in order.

        Raises EngineError where a process dies, and whatever the work itself raises. Afterwards the
        processes have ended, and only then.
        """
        asked = self.children[: len(shares) - 1]

        def tick_all(rows: int) -> None:
            tick(rows)
            for child in asked:
                child.listen(tick)

        try:
            for child, share in zip(asked, shares[1:], strict=True):
                child.ask(share)
            found = [work(shares[0], tick_all)]
            return found + [child.result(tick) for child in asked]
        except BaseException:
            self.end()
            raise

    def stream(self, shares: Sequence[Any]) -> Generator[Any, None, list[Any]]:
        """Yield what the processes send, as it comes, and return what each of them found.

        This process only listens. Raises as `run` does. Afterwards the processes have ended.
        """
        asked = self.children[: len(shares)]
        try:
            for child, share in zip(asked, shares, strict=True):
                child.ask(share)
            busy: dict[Any, Child] = {child.pipe: child for child in asked}
            while busy:
                sent: list[Any] = []
                failures: list[BaseException] = []
                for pipe in wait(list(busy)):
                    try:
                        busy[pipe].listen(sent.append)
                    except Exception as error:  # what came before it counts
                        failures.append(error)
                yield from sent
                for failure in failures:
                    raise failure
                busy = {pipe: child for pipe, child in busy.items() if not child.done}
            return [child.found for child in asked]
        finally:
            self.end()

    def end(self) -> None:
        """Stop all processes."""
        for child in self.children:
            child.end()
        self.children = []


class Child:
    """A forked process that does one share at a time."""

    def __init__(self, work: Work):
        self.found: Any = None
        self.done = True
        self.pipe, there = Pipe()
        mortal = threading.current_thread() is threading.main_thread()  # the signal follows threads
        with warnings.catch_warnings():  # Python warns of any thread, and a kernel always has some
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            self.pipe.close()
            _serve(there, work, mortal)
        there.close()

    def ask(self, share: Any) -> None:
        """Give it a share to do."""
        self.found, self.done = None, False
        try:
            self.pipe.send(share)
        except OSError:
            raise _died() from None

    def listen(self, tick: Tick) -> None:
        """Read what it has sent."""
        while not self.done and self.pipe.poll():
            self._read(tick)

    def result(self, tick: Tick) -> Any:
        """Wait for what it found."""
        while not self.done:
            self._read(tick)
        return self.found

    def _read(self, tick: Tick) -> None:
        try:
            kind, value = self.pipe.recv()
        except (EOFError, OSError):
            raise _died() from None
        if kind == "tick":
            tick(value)
        elif kind == "failed":
            raise value
        else:
            self.found, self.done = value, True

    def end(self) -> None:
        """Stop it, at work or not, and let the system forget it."""
        self.pipe.close()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _died() -> EngineError:
    return EngineError(
        "engine hf: one of its processes died in the middle of a call; run again, with a lower "
        "engine.batch_tokens if memory ran out"
    )


def _serve(pipe: Any, work: Work, mortal: bool) -> NoReturn:
    """Do shares in the child until the parent is gone; nothing of the parent's is flushed."""

    def tick(sent: Any) -> None:
        if sent:
            pipe.send(("tick", sent))

    try:
        gc.freeze()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then ends this
        if mortal:
            ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
        torch.set_num_threads(1)
        while True:
            pipe.send(("found", work(pipe.recv(), tick)))
    except (EOFError, ConnectionError):  # the parent has ended
        pass
    except Exception as error:
        with suppress(Exception):
            pipe.send(("failed", error))
    finally:
        os._exit(0)
