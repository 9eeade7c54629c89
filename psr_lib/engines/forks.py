"""Shares of one call done by forked processes of this one.

Two threads of one process take turns at Python's interpreter between any two operations of a small
model; two processes do not. A fork has the weights already, starts in milliseconds, ends with the
call and leaves nothing behind. Only for a CPU, and only on Linux: elsewhere the system's libraries
do not allow it.
"""

import ctypes
import gc
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from typing import Any, NoReturn

import torch

from psr_lib.engines.base import EngineError

Tick = Callable[[int], None]  # rows that were finished
Work = Callable[[Any, Tick], Any]  # one share of the call; its result can be pickled

POSSIBLE = sys.platform == "linux"
DIE_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG


def in_forks(shares: Sequence[Any], work: Work, tick: Tick) -> list[Any]:
    """`work(share, tick)` of every share, the first in this process; results in order.

    Raises EngineError where a process dies, and whatever the work itself raises.
    """
    children: list[Child] = []
    gc.freeze()  # the collector would write to, and so copy, every page that the forks share
    try:
        for share in shares[1:]:
            children.append(Child(work, share))

        def tick_all(rows: int) -> None:
            tick(rows)
            for child in children:
                child.listen(tick)

        found = [work(shares[0], tick_all)]
        return found + [child.result(tick) for child in children]
    finally:
        for child in children:
            child.end()
        gc.unfreeze()


class Child:
    """A forked process that does one share."""

    def __init__(self, work: Work, share: Any):
        self.found: Any = None
        self.done = False
        self.pipe, there = Pipe(duplex=False)
        with warnings.catch_warnings():  # Python warns of any thread, and a kernel always has some
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            _serve(there, work, share)
        there.close()

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
            raise EngineError(
                "engine hf: one of its processes died in the middle of a call; run again, with a "
                "lower engine.batch_tokens if memory ran out"
            ) from None
        if kind == "tick":
            tick(value)
        elif kind == "failed":
            raise value
        else:
            self.found, self.done = value, True

    def end(self) -> None:
        """Stop it, if it is still at work, and let the system forget it."""
        self.pipe.close()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _serve(pipe: Any, work: Work, share: Any) -> NoReturn:
    """Do the share in the child; nothing of the parent's is ended or flushed."""
    try:
        gc.disable()  # it does not live long
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
        torch.set_num_threads(1)
        found = work(share, lambda rows: pipe.send(("tick", rows)) if rows else None)
        pipe.send(("found", found))
    except Exception as error:
        with suppress(Exception):
            pipe.send(("failed", error))
    finally:
        os._exit(0)
