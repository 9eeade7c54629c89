"""Plain-text progress: done / total, rate and time left, at most one line every few seconds.

It prints whole lines and nothing else, so it reads the same in a terminal and in a log. In a
notebook that somebody runs by hand each line takes the place of the one before. It is silent where
the environment sets CI or PSR_QUIET=1.

    for row in track(rows, "grading"):
        ...
    with track(300, "search") as progress:
        progress.update(120, pairs=57)

What the numbers are is told by `tallies`.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any

MARK = "  .. "  # how the runner knows the lines that it passes on from a notebook
EVERY = 5.0  # seconds between two lines
SETTLED = 60.0  # seconds after which the time left is told though less than 1 % is done
RUNNING = "PSR_RUNNER"  # tells a notebook's kernel that the runner has prepared its run


def quiet() -> bool:
    """Whether progress is switched off by CI or PSR_QUIET=1."""
    return bool(os.environ.get("CI")) or os.environ.get("PSR_QUIET", "") not in ("", "0")


def by_hand() -> bool:
    """Whether this is the kernel of a notebook that somebody runs cell by cell."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None and not os.environ.get(RUNNING)


class Progress:
    """A counter that prints where it stands; made by `track`."""

    def __init__(
        self,
        items: Iterable[Any] | int,
        label: str,
        every: float = EVERY,
        clock: Callable[[], float] = time.monotonic,
        begun: int = 0,
    ) -> None:
        """`begun`: how many were done before, by a call that was cut short."""
        self.items = items
        self.label = label
        self.total = items if isinstance(items, int) else _length(items)
        self.every, self.clock = every, clock
        self.done = self.begun = begun
        self.numbers: dict[str, Any] = {}
        self.started = self.printed = clock()
        self.shown = -1  # what the last printed line said was done
        self.place: Any = None  # of the line in a notebook that is run by hand

    def __iter__(self) -> Iterator[Any]:
        with self:
            for item in range(self.items) if isinstance(self.items, int) else self.items:
                yield item
                self.update(self.done + 1)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: Any) -> None:
        if self.shown not in (-1, self.done):  # short work stays silent
            self._print()

    def update(self, done: int, **numbers: Any) -> None:
        """Say that `done` of the total are done; other numbers are shown beside it."""
        self.done = done
        self.numbers.update(numbers)
        if self.clock() - self.printed >= self.every:
            self._print()

    def line(self) -> str:
        """The line as printed, such as 'search 120/300, 12.0/s, 0:15 left, pairs 57'."""
        rate = (self.done - self.begun) / max(self.clock() - self.started, 1e-9)
        parts = [f"{self.label} {self.done}" + (f"/{self.total}" if self.total else "")]
        parts.append(f"{rate:.1f}/s" if rate >= 0.1 else f"{rate * 60:.1f}/min")
        if self.total and rate and self._settled():
            parts.append(f"{clock_time(max(self.total - self.done, 0) / rate)} left")
        parts += [f"{name} {value}" for name, value in self.numbers.items()]
        return MARK + ", ".join(parts)

    def _settled(self) -> bool:
        """Whether the rate says anything: the first of many items come late, and many at once."""
        begun, now = self.done - self.begun, self.clock() - self.started
        return begun * 100 >= (self.total or 0) - self.begun or now >= SETTLED

    def _print(self) -> None:
        self.printed, self.shown = self.clock(), self.done
        if quiet():
            return
        if by_hand():
            self._write_over({"text/plain": self.line()})
        else:
            print(self.line(), flush=True)

    def _write_over(self, line: dict[str, str]) -> None:
        if self.place is None:
            self.place = sys.modules["IPython"].display.display(line, raw=True, display_id=True)
        else:
            self.place.update(line, raw=True)


def track(items: Iterable[Any] | int, label: str, begun: int = 0) -> Progress:
    """Progress over an iterable, or over a total that the caller counts with `update`."""
    return Progress(items, label, begun=begun)


def say(line: str) -> None:
    """Print a line where lines of progress go: what whoever waits should know, and no result."""
    if not quiet():
        print(MARK + line, flush=True)


def show(label: str) -> Any:
    """A training callback that prints progress."""
    state: dict[str, Any] = {}

    def update(done: int, total: int, last: dict[str, float]) -> None:
        bar = state.setdefault("bar", track(total, label))
        numbers = {"loss": f"{last['loss']:.3f}"} if "loss" in last else {}
        if (ordered := last.get("rewards/accuracies")) is not None:  # preference training
            numbers["ordered"] = f"{100 * ordered:.0f} %"
        bar.update(done, **numbers)

    return update


def clock_time(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss.

    >>> clock_time(75)
    '1:15'
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _length(items: Iterable[Any]) -> int:
    return len(items) if isinstance(items, Sized) else 0
