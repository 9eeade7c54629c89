"""Whether numbers that stand side by side were made with the same settings, and of the same files.

A summary keeps what each stage was set to (`lineage.by_stage`). A number leans on the stages that
its model goes back to; a setting in which these differ between summaries is named, but for those
that make the method what it is (`methods.SWITCHES`). Summaries that hold no settings (older ones)
are not compared.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from psr_lib import integrity
from psr_lib.evidence import GREEDY, JUDGE, LABORATORY, REFERENCE, STEPS, TOKENS, Evidence, Source
from psr_lib.methods import BASE, EVALUATE, LAB, SEARCH, SWITCHES
from psr_lib.tables import RUN, Table

# How fast, and on what: no result is meant to depend on it.
SPEED = frozenset({
    "model.device", "search.live", "tree.live", "teacher.dry_run",
    *(f"engine.{name}" for name in ("batch_tokens", "tensor_parallel", "gpu_memory", "workers",
                                    "cores", "concurrency", "timeout", "retries")),
    *(f"teacher.{name}" for name in ("concurrency", "timeout", "retries")),
})  # fmt: skip
# What 05 reads for its other numbers, by the beginnings of the settings' names.
ELSE = ("search.", "eval.s", "eval.own", "data.search_size", "templates.own")
ALONE = (*ELSE, "judge.", "srlm.", "eval.judge")
OTHERS = {GREEDY: ALONE, STEPS: ALONE, TOKENS: ALONE, JUDGE: (*ELSE, "eval.max_tokens")}
SEARCHED = "search"  # as a way of decoding
SHARED = "data."  # what an API model has in common with the run's own
NAMED = 4  # settings that a note spells out
WIDE = 40  # signs of a value in a note
Who = tuple[str, int]  # method and seed
Values = dict[str, list[Who]]  # who has which value


def differing(evidence: Evidence, made_of: Iterable[Source]) -> dict[str, Values]:
    """The settings, such as `search.width`, that are not the same in all that numbers lean on."""
    slots: dict[tuple[str, int, str], Values] = {}
    leaning = _by_method(made_of)
    for method in (name for name in (*evidence.methods, REFERENCE) if name in leaning):
        for seed, one in evidence.by_method.get(method, {}).items():
            had = {slot: value for source in leaning[method] for slot, value in _had(one, source)}
            for slot, value in had.items():
                slots.setdefault(slot, {}).setdefault(value, []).append((method, seed))
    found: dict[str, Values] = {}
    for (_, _, key), values in slots.items():
        if len(values) > 1:
            found.setdefault(key, values)
    return found


def _by_method(made_of: Iterable[Source]) -> dict[str, list[Source]]:
    found: dict[str, list[Source]] = {}
    for source in dict.fromkeys(made_of):
        found.setdefault(source.method, []).append(source)
    return found


def _had(summary: dict[str, Any], source: Source) -> Iterator[tuple[tuple[str, int, str], str]]:
    """((stage, round, setting), value) of the stages that a number of a summary leans on."""
    kept = summary.get("settings", {"stages": []})
    for (stage, n), made in _own(kept["stages"], source.method).items():
        if not _leans(source, stage, n):
            continue
        switched = SWITCHES.get(made["method"], {}).get(stage, {})
        for name, place in made["sections"].items():
            for key, value in _flat(name, kept["values"][name][place]).items():
                own = key.partition(".")[2] in switched.get(name, {})
                if not own and _counts(source, stage, key):
                    yield (stage, n, key), json.dumps(value, sort_keys=True)


def _own(stages: Iterable[dict[str, Any]], method: str) -> dict[tuple[str, int], dict[str, Any]]:
    """The stages by kind and round: a method's own before one that it borrows, the last 07 only."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for one in sorted(stages, key=lambda one: one["method"] == method):
        found[one["stage"], 0 if one["stage"] == LAB else one["iteration"]] = one
    return found


def _leans(source: Source, stage: str, n: int) -> bool:
    """Whether a number was made by way of a stage."""
    digits = source.model.removeprefix("M")
    last = int(digits) if digits.isdecimal() else 0
    if stage == LAB:
        return source.what not in (GREEDY, JUDGE, STEPS, TOKENS, SEARCH, SEARCHED)
    if stage == EVALUATE:
        return n == last and source.what not in (SEARCH, LABORATORY)
    return n <= last and (n > 0 or stage == BASE or last > 0)


def _counts(source: Source, stage: str, key: str) -> bool:
    """Whether a number depends on a setting that the stage has read."""
    if key in SPEED or (source.method == REFERENCE and not key.startswith(SHARED)):
        return False
    return stage != EVALUATE or not key.startswith(OTHERS.get(source.what, ()))


def _flat(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {f"{name}.{key}": one for key, one in value.items()}


def otherwise(evidence: Evidence, method: str, wanted: Mapping[str, Any]) -> str:
    """What a method was set to where that is not what is wanted, by setting; '' where it is."""
    kept = [one["settings"]["values"] for one in evidence.by_method.get(method, {}).values()
            if "settings" in one]  # fmt: skip
    had = [(key, value) for values in kept for name, section in values.items()
           for one in section for key, value in _flat(name, one).items()]  # fmt: skip
    apart = (f"{key} is {value}" for key, value in had if key in wanted and value != wanted[key])
    return ", ".join(dict.fromkeys(apart))


def short(evidence: Evidence, made_of: Iterable[Source]) -> str:
    """The names of those settings, such as `settings differ: search.width`; '' for none."""
    names = list(differing(evidence, made_of))
    return f"settings differ: {_first(names)}" if names else ""


def note(evidence: Evidence, made_of: Iterable[Source]) -> str:
    """The same with each value and whose it is."""
    found = differing(evidence, made_of)
    told = [f"{key} is {_values(evidence, values)}" for key, values in found.items()]
    return f"made with settings that differ: {_first(told, '; ')}" if told else ""


def _first(names: list[str], joint: str = ", ") -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return joint.join(names[:NAMED]) + more


def _values(evidence: Evidence, values: Values) -> str:
    return ", ".join(f"{_cut(value)} in {_whose(evidence, who)}" for value, who in values.items())


def _cut(value: str) -> str:
    return value if len(value) <= WIDE else f"{value[: WIDE - 1]}…"


def _whose(evidence: Evidence, who: list[Who]) -> str:
    """Methods, and which of their seeds where it is not all."""
    groups: dict[str, list[int]] = {}
    for method, seed in who:
        groups.setdefault(method, []).append(seed)
    parts = (
        method
        if len(own) == len(evidence.by_method[method])
        else f"{method} (seed {', '.join(map(str, own))})"
        for method, own in groups.items()
    )
    return " and ".join(parts)


def mixed(evidence: Evidence, made_of: Iterable[Source]) -> str:
    """What to say of stages behind these numbers that read something made anew since; or ''."""
    methods = {source.method for source in made_of}
    found = (f"seed{one['seed']}/{name}" for one in evidence.all if one["method"] in methods
             for name in one.get("mixed", ()))  # fmt: skip
    return integrity.told(list(dict.fromkeys(found)))


def notes(evidence: Evidence, made_of: Iterable[Source]) -> tuple[str, ...]:
    """Both notes, those that there are."""
    sources = tuple(made_of)
    return tuple(filter(None, (note(evidence, sources), mixed(evidence, sources))))


def noted(table: Table, evidence: Evidence) -> Table:
    """A table with what has to be said of the runs that its own numbers lean on."""
    rows = (row for panel in table.panels if panel.source == RUN for row in panel.rows)
    named = (source for row in rows for cell in row for source in cell.sources)
    made_of = (source for source in named if isinstance(source, Source))
    return replace(table, notes=(*table.notes, *notes(evidence, made_of)))
