"""From what a stage wrote back to what it was made from: stages, a manifest each, joined by inputs.

A record is a stage's manifest, or what a kept summary has of it. Records go by the stage's folder
within its run, such as `psrlm/M4/eval`.
"""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from psr_lib import integrity, manifest
from psr_lib.methods import REPORTS
from psr_lib.records import PSRError
from psr_lib.run_dirs import RunDir

Record = dict[str, Any]
Made = Mapping[str, Record]
DIGITS = 16  # of a hash, in summaries
KEPT = ("stage", "method", "iteration", "git", "params_hash", "started", "device")
NAMES = ("method", "iteration", "seed")  # parameters that are no settings


def records(run: RunDir, damaged: bool = True) -> dict[str, Record]:
    """Every complete stage of a run by its folder.

    Raises PSRError where a manifest is damaged, with its stage; without `damaged` it is left out.
    """
    found: dict[str, Record] = {}
    for path in sorted(run.path.rglob(manifest.NAME)):
        with nullcontext() if damaged else suppress(PSRError):
            one = integrity.read(run, path.parent) or {}
            found[path.parent.relative_to(run.path).as_posix()] = one
    return found


def chain(made: Made, start: Iterable[str]) -> list[str]:
    """The folders that these go back to, newest first, each after all that was made from it."""
    order: list[str] = []

    def visit(folder: str) -> None:
        if folder not in order:
            for before in sources_of(made, folder):
                visit(before)
            order.append(folder)

    for folder in start:
        visit(folder)
    return order[::-1]


def sources_of(made: Made, folder: str) -> list[str]:
    """The folders that a stage has read from; a report reads all there are, which says nothing."""
    one = made[folder]
    found = () if one["stage"] in REPORTS else (owner_of(made, name) for name in one["inputs"])
    return [name for name in dict.fromkeys(found) if name and name != folder]


def made_from(made: Made, folder: str) -> list[str]:
    """The folders that go back to this one, reports included, by name."""
    found: set[str] = set()
    wave = {folder}
    while wave:
        wave = {name for name, one in made.items()
                if wave & {owner_of(made, input_) for input_ in one["inputs"]}}  # fmt: skip
        wave -= found | {folder}
        found |= wave
    return sorted(found)


def owner_of(made: Made, name: str) -> str | None:
    """The folder of the stage that made an input, None for what no stage of the run has made."""
    label, _, path = name.partition(":")
    above = [path, *(parent.as_posix() for parent in Path(path).parents)]
    return next((one for one in above if one in made), None) if label == "run" else None


def brief(run: RunDir, ends: Iterable[Path]) -> Record:
    """What a summary keeps, so that its numbers can be traced without the run.

    The stages that these folders go back to, each with the hashes of what it read and wrote, and
    the parameters of all of them, section by section. Folders without a stage are passed over.
    """
    made = records(run)
    names = (end.relative_to(run.path).as_posix() for end in ends)
    folders = chain(made, [name for name in dict.fromkeys(names) if name in made])
    return {"stages": {name: _brief(made[name]) for name in folders},
            "settings": settings(made[name] for name in folders)}  # fmt: skip


def _brief(one: Record) -> Record:
    kept = {name: one[name] for name in KEPT if name in one}
    for side in ("inputs", "outputs"):
        kept[side] = {name: short(entry["hash"], DIGITS) for name, entry in one[side].items()}
    if one["stage"] in REPORTS:
        kept["inputs"] = {}  # as in `sources_of`
    return {**kept, "sections": sections(one), "templates": templates(one)}


def short(text: str, digits: int) -> str:
    """The first digits of a hash, of a sampled file's too, which begins with the file's size."""
    return (text.rpartition("-")[2] if text.startswith("sampled-") else text)[:digits]


def templates(one: Record) -> dict[str, str]:
    """Hashes of the prompts that a stage could render, by their names."""
    if "templates" in one:
        return one["templates"]
    kinds = {"": one["params"].get("templates", {}), "own ": one["params"].get("own_templates", {})}
    return {f"{kind}{name}": text[:DIGITS] for kind, found in kinds.items()
            for name, text in found.items()}  # fmt: skip


def sections(one: Record) -> list[str]:
    """The sections of the preset that a stage read."""
    if "sections" in one:
        return one["sections"]
    return [name for name in one["params"] if name not in NAMES and "templates" not in name]


def by_stage(made: Iterable[Record]) -> Record:
    """What each stage was set to, in short: each value of a section once, and which a stage had."""
    values: dict[str, list[Any]] = {}
    found = []
    for one in made:
        had = {name: one["params"][name] for name in sections(one)} | {"templates": templates(one)}
        for name, value in had.items():
            if value not in values.setdefault(name, []):
                values[name].append(value)
        places = {name: values[name].index(value) for name, value in had.items()}
        names = ("stage", "method", "iteration")
        found.append({**{name: one[name] for name in names}, "sections": places})
    return {"values": values, "stages": found}


def settings(made: Iterable[Record]) -> Record:
    """The parameters of stages, section by section; where stages differ the stage is named."""
    found: Record = {}
    for one in made:
        for name in sections(one):
            value = one["params"][name]
            if found.setdefault(name, value) != value:
                found[f"{name} in {one['stage']} {one['method']}".rstrip()] = value
    return found
