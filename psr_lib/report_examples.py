"""Examples of a run for its report, chosen by rule: the first that tells something, good or bad."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from psr_lib import show
from psr_lib.methods import MAIN
from psr_lib.presets import Preset
from psr_lib.records import JudgeExample, StepPair, read_jsonl
from psr_lib.run_dirs import RunDir
from psr_lib.traces import TraceFile

Example = dict[str, Any]
# By which rule an example was taken.
SEARCH = "Of those that gave pairs the shortest with a roll-back, without any that with most pairs."
TESTED = "Of the searches that came to an end, the one with most different candidates."
JUDGE = "The visit with most verdicts, if possible of those that have right and wrong steps."
PAIR = "The first of the file. Marked are the words that only one of the steps has."
TURNED = "The first that {} answers {} and the last model does not; without one, the first of all."
VERDICT = "The first wrong and the first right verdict."


def examples(run: RunDir, preset: Preset, method: str = MAIN) -> list[Example]:
    """A search, its judge, pairs, one problem under all models, verdicts; what is there of them."""
    makers: list[Callable[[RunDir, Preset, str], Iterator[Example]]] = [
        _search, _pairs, _problems, _verdicts,
    ]  # fmt: skip
    return [one for make in makers for one in make(run, preset, method)]


def _example(title: str, says: str, view: show.View) -> Example:
    return {"title": title, "says": says, "view": view}


def _last(preset: Preset, path_of: Callable[[int], Path]) -> tuple[int, Path] | None:
    """The last round that has a file of a complete stage, and the file."""
    found = [(n, path_of(n)) for n in range(preset.rounds, 0, -1)]
    return next(((n, path) for n, path in found if show.complete(path)), None)


def _search(run: RunDir, preset: Preset, method: str) -> Iterator[Example]:
    """A search of the last round, else the last test-time search, and its judge."""
    trained = _last(preset, lambda n: run.ppd(method, n) / "traces.jsonl.gz")
    tested = _last(preset, lambda n: run.eval(method, n) / "search_traces.jsonl.gz")
    if not (found := trained or tested):
        return
    n, path = found
    what = f"for the pairs of M{n}, by M{n - 1}" if trained else f"at test time, by M{n}"
    trace = show.telling(TraceFile(path))
    yield _example(f"A search {what}", SEARCH if trained else TESTED, show.search(trace))
    yield _example("Its judge", JUDGE, show.judge(trace))


def _pairs(run: RunDir, preset: Preset, method: str) -> Iterator[Example]:
    """The first pairs that the last model was trained on."""
    found = _last(preset, lambda n: run.ppd(method, n) / "ppd.jsonl")
    n, path = found or (0, None)
    for k, pair in enumerate(read_jsonl(path, StepPair)[:2] if path else (), 1):
        yield _example(f"Preference pair {k} of M{n}", PAIR, show.pair(pair))


def _problems(run: RunDir, preset: Preset, method: str) -> Iterator[Example]:
    """A problem that the last model gained, and one that it lost; of one model an answer alone."""
    ways, sets = show.models(run, method, preset.rounds), show.local_sets(preset)
    if len(ways) == 1:
        yield _example(f"An answer of {next(iter(ways))}", "The first.", show.differing(sets, ways))
    turns = {"wrong": "gained", "right": "lost"} if len(ways) > 1 else {}
    for first, title in turns.items():
        says = TURNED.format(next(iter(ways)), first)
        yield _example(f"A problem that was {title}", says, show.differing(sets, ways, first))


def _verdicts(run: RunDir, preset: Preset, method: str) -> Iterator[Example]:
    """A wrong and a right verdict of the last model on held-out pairs."""
    found = _last(preset, lambda n: run.eval(method, n) / "verdicts.jsonl.gz")
    heldout = run.data / "eft_heldout.jsonl"
    if found and show.complete(heldout):
        pairs = read_jsonl(heldout, JudgeExample)
        for view in show.verdicts(pairs, read_jsonl(found[1])):
            yield _example(f"A held-out pair, judged by M{found[0]}", VERDICT, view)
