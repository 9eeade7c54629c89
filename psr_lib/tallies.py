"""The numbers so far that progress lines show beside done and total: right, pairs, ties.

They are for whoever waits: no result is made from them, and they cost what counting costs. Answers
are compared as plain numbers and texts alone, so one that only Math-Verify can tell is left out.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from psr_lib.annotate import Answer, Call, calls_of
from psr_lib.grading import compare_plainly
from psr_lib.progress import quiet, track
from psr_lib.records import Problem, StepPair
from psr_lib.steps import boxed
from psr_lib.traces import SearchTrace

Numbers = dict[str, Any]
Written = Sequence[tuple[int, str]]  # place of a prompt in its call, and what was written to it


class Share:
    """A running share, shown as '61 %'; '–' before the first."""

    def __init__(self) -> None:
        self.yes = self.known = 0

    def add(self, yes: bool | None) -> None:
        """Count one more; None is not known and left out."""
        self.known += yes is not None
        self.yes += bool(yes)

    def __str__(self) -> str:
        return f"{100 * self.yes / self.known:.0f} %" if self.known else "–"


def is_right(gold: str, text: str) -> bool | None:
    """Whether the boxed answer is gold, as far as a plain comparison tells."""
    answer = boxed(text)
    found = compare_plainly(gold, answer) if answer is not None else (False, "")
    return found[0] if found else None


class Searches:
    """Of finished step searches: pairs and the share of ties; with gold answers, of right ones."""

    def __init__(self, golds: Mapping[str, str] | None = None) -> None:
        self.pairs, self.ties, self.right, self.golds = 0, Share(), Share(), golds

    def __call__(self, trace: Any) -> Numbers:
        """Count a finished search in."""
        for expansion in trace.expansions:
            self.ties.add(expansion.tie)
        if self.golds is not None:
            self.right.add(is_right(self.golds[trace.question.id], trace.text))
            return {"right": self.right, "ties": self.ties}
        self.pairs += len(trace.pairs)
        return {"pairs": self.pairs, "ties": self.ties}


@contextmanager
def searching(
    journal: Any, total: int, label: str, golds: Mapping[str, str] | None = None
) -> Iterator[Callable[[int, Any], None]]:
    """Progress of searches into a journal: what to call with how many are done, and the last."""
    tally = Searches(golds)
    begun: list[Numbers] = [tally(SearchTrace.from_row(row)) for row in journal.rows()]
    with track(total, label, journal.count) as progress:
        progress.update(journal.count, **(begun[-1] if begun else {}))
        yield lambda done, trace: progress.update(done, **tally(trace))


class Pairs:
    """Pairs of finished trees; `begun` are those of a call that was cut short."""

    def __init__(self, pairs_of: Callable[[Any], Sequence[Any]], begun: Iterable[Any] = ()) -> None:
        self.pairs_of, self.pairs = pairs_of, sum(len(pairs_of(tree)) for tree in begun)

    def __call__(self, tree: Any) -> Numbers:
        """Count a tree in."""
        self.pairs += len(self.pairs_of(tree))
        return {"pairs": self.pairs}


class Sampled:
    """Share of right ones of all sampled solutions; `begun` as in `Pairs`."""

    def __init__(self, problems: Iterable[Problem], begun: Iterable[Any] = ()) -> None:
        self.golds, self.share = {one.id: one.answer for one in problems}, Share()
        for trace in begun:
            self(trace)

    def __call__(self, trace: Any) -> Numbers:
        """Count a question's solutions in."""
        for solution in trace.solutions:
            self.share.add(is_right(self.golds[trace.question.id], solution.text))
        return {"right": self.share}


class Agreement:
    """Share of a teacher's answers that name the step that the PRM ranks first."""

    def __init__(self, pairs: Iterable[StepPair]) -> None:
        self.share = Share()
        self.wanted = {call: slot for pair in pairs
                       for call, slot in zip(calls_of(pair), "AB", strict=True)}  # fmt: skip

    def __call__(self, call: Call, answer: Answer) -> Numbers:
        """Count an answer in."""
        self.share.add(answer.verdict == self.wanted[call])
        return {"as the PRM": self.share}


def solutions(traces: Sequence[Any]) -> Numbers:
    """Of the searches of whole solutions so far: questions with a pair, share of ties."""
    ties, pairs = Share(), 0
    for trace in traces:
        found = {score for score in trace.scores if score is not None}
        pairs += len(found) > 1
        ties.add(len(found) == 1 if found else None)
    return {"pairs": pairs, "ties": ties}


class Matches:
    """Share of written texts that say what was wanted of their prompt, under a name of its own."""

    def __init__(
        self, wanted: Sequence[str], match: Callable[[str, str], bool | None], name: str = "right"
    ) -> None:
        self.wanted, self.match, self.name, self.share = wanted, match, name, Share()

    def __call__(self, written: Written) -> Numbers:
        """Count texts in; `match` is given what was wanted, and the text."""
        for place, text in written:
            if place < len(self.wanted):
                self.share.add(self.match(self.wanted[place], text))
        return {self.name: self.share} if self.share.known else {}


@contextmanager
def watching(
    engine: Any, label: str, count: Callable[[Written], Numbers] = lambda written: {}
) -> Iterator[None]:
    """Within the block each call of the engine is a line of progress, with what `count` says.

    An engine tells as its rows end (`progress`), or not at all; where nothing is to be shown it is
    not asked to. What it generates is the same.
    """
    if quiet() or engine is None:
        yield
        return
    bar = track(0, label)

    def tell(done: int, total: int, written: Written) -> None:
        nonlocal bar
        if bar.done and (bar.total != total or done < bar.done):  # another call
            bar = track(total, label)
        bar.total = total
        bar.update(done, **count(written))

    before, engine.progress = getattr(engine, "progress", None), tell
    try:
        yield
    finally:
        engine.progress = before
        bar.__exit__()
