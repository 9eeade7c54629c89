"""`make status`: what a run holds, for every method and model, at a glance."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from psr_lib import leftovers, locks, manifest, stages
from psr_lib.methods import (
    BASE,
    BORROWED_PAIRS,
    DATA,
    EVALUATE,
    LAB,
    METHODS,
    PAPER,
    REFERENCE,
    REPORTS,
    SEARCH,
    SRLM,
    starter,
)
from psr_lib.presets import Preset
from psr_lib.records import PSRError
from psr_lib.run_dirs import Key, RunDir
from psr_lib.stages import State

DONE, PARTIAL = "done", "partial"
COLUMNS = ("data", "pairs", "model", "evaluation", "judge lab")
OPTIONAL = (LAB, *REPORTS)  # no part of `make reproduce`


class Row(NamedTuple):
    """A model, or what belongs to none, with the stage that stands in each column."""

    method: str
    model: str
    keys: tuple[Key | None, ...]


def rows(methods: Iterable[str], rounds: int) -> Iterator[Row]:
    """What all methods share, then every model of each method; reports are the last row."""
    yield Row("", "M0", (Key(DATA), None, Key(BASE), Key(EVALUATE), Key(LAB)))
    for method in methods:
        if method == REFERENCE:
            yield Row(method, "API", (None, None, None, Key(EVALUATE, method), Key(LAB, method)))
        elif starter(method) == method:
            data = Key(DATA, SRLM) if method == SRLM else None
            yield Row(method, "M1", (data, None, *_model(method, 1)))
        for n in range(2, rounds + 1) if method != REFERENCE else ():
            pairs = None if method in BORROWED_PAIRS else Key(SEARCH, method, n)
            yield Row(method, f"M{n}", (None, pairs, *_model(method, n)))


def _model(method: str, n: int) -> tuple[Key, Key, Key]:
    return stages.model_key(method, n), Key(EVALUATE, method, n), Key(LAB, method, n)


def methods_of(run: RunDir, asked: Sequence[str]) -> list[str]:
    """The methods that were asked for, and those that have a folder in the run."""
    return [name for name in METHODS if name in asked or (run.path / name).is_dir()]


def state_of(run: RunDir, key: Key, preset: Preset) -> State:
    """A stage's state in the words of `make status`: done, stale, damaged, partial or missing.

    While it runs: running.
    """
    if f"({key})" in (worker := locks.at_work(run)):
        return State("running", worker)
    found = stages.stage_state(run, key, preset)
    if found.word == "current":
        return State(DONE)
    if found.word == "missing" and (kept := leftovers.work_kept(run, key)):
        return State(PARTIAL, kept)
    return found


def page(run: RunDir, preset: Preset, asked: Sequence[str]) -> list[str]:
    """The table of all models, the reports, then a line for each stage that is not done."""
    made = list(rows(methods_of(run, asked), preset.rounds))
    keys = [key for row in made for key in row.keys if key] + [Key(name) for name in REPORTS]
    states = {key: state_of(run, key, preset) for key in keys}
    costs = {key: cost(run, key) for key in keys}
    lines = [_line((manifest.shown(run.path), "", *COLUMNS, "minutes", "M tokens"))]
    lines += [_line((row.method or "shared", row.model, *_words(row, states), *_costs(row, costs)))
              for row in made]  # fmt: skip
    lines.append(_total(costs, states))
    lines += [f"{name}: {_word(Key(name), states)}" for name in REPORTS]
    return lines + _reasons(states)


def common(run: RunDir, preset: Preset) -> list[str]:
    """The tables that several seeds have in common, and why where they are not done."""
    states = {Key(PAPER): state_of(run, Key(PAPER), preset)}
    return [f"{manifest.shown(run.path)} {PAPER}: {_word(Key(PAPER), states)}", *_reasons(states)]


def lines_of(run: RunDir, preset: Preset, keys: Iterable[Key]) -> list[str]:
    """A line a stage, those that are done too; for scripts."""
    return [_reason(key, state_of(run, key, preset)) for key in keys]


def cost(run: RunDir, key: Key) -> tuple[float, int]:
    """Seconds and tokens that a stage took when it last ran, (0, 0) where it is not complete."""
    try:
        found = manifest.read(run.folder(key))
    except PSRError:
        return 0.0, 0
    return (found["wall_seconds"], sum(found["tokens"].values())) if found else (0.0, 0)


def _words(row: Row, states: dict[Key, State]) -> list[str]:
    return [_word(key, states) for key in row.keys]


def _word(key: Key | None, states: dict[Key, State]) -> str:
    """The state; a dash where there is no such stage, or one that nobody has asked for."""
    if key is None or (key.stage in OPTIONAL and states[key].word == "missing"):
        return "-"
    return states[key].word


def _costs(row: Row, costs: dict[Key, tuple[float, int]]) -> tuple[str, str]:
    return _sums(costs[key] for key in row.keys if key)


def _sums(found: Iterable[tuple[float, int]]) -> tuple[str, str]:
    seconds, tokens = (sum(column) for column in zip(*found, strict=True))
    return f"{seconds / 60:.1f}", f"{tokens / 1e6:.2f}"


def _total(costs: dict[Key, tuple[float, int]], states: dict[Key, State]) -> str:
    wanted = [state.word for key, state in states.items() if key.stage not in OPTIONAL]
    done = f"{wanted.count(DONE)} of {len(wanted)} done"
    return _line(("all", "", done, *[""] * (len(COLUMNS) - 1), *_sums(costs.values())))


def _line(cells: Sequence[str]) -> str:
    method, model, *middle, minutes, tokens = cells
    text = f"{method:<18} {model:<4} " + "".join(f"{cell:<11}" for cell in middle)
    return f"{text}{minutes:>8} {tokens:>9}".rstrip()


def _reasons(states: dict[Key, State]) -> list[str]:
    told = [(key, state) for key, state in states.items() if state.reason]
    told = [(key, state) for key, state in told if state.word != "missing"]
    return ["", *(_reason(key, state) for key, state in told)] if told else []


def _reason(key: Key, state: State) -> str:
    return f"{key!s:<38} {state.word:<8} {state.reason}".rstrip()
