"""Presets: one YAML that fixes model, data sizes, search, training and evaluation.

A preset file holds every key, each commented with its source; a missing or unknown key, a wrong
type or a value out of range is an error before anything is written. Overrides change single
values and are typed by the field they change.

>>> load("tiny", ["search.width=4"]).search.width
4
"""

from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from psr_lib import registry
from psr_lib.presets import together
from psr_lib.presets.overrides import all_keys, apply, quoted, split_overrides
from psr_lib.presets.preset import Preset, plain
from psr_lib.presets.sections import Srlm
from psr_lib.presets.together import PROCEDURAL, check_method
from psr_lib.presets.values import build, items, suggest
from psr_lib.records import PSRError

__all__ = ["FOLDER", "PROCEDURAL", "Preset", "Srlm", "all_keys", "check_method", "load", "names",
           "plain", "quoted", "registered", "split_overrides", "suggest", "title"]  # fmt: skip
FOLDER = Path(__file__).parent


def load(name: str, overrides: Iterable[str] | str = ()) -> Preset:
    """The preset of that name with the overrides applied, every value checked.

    Raises PSRError that names the preset, key or value, and the way out.
    """
    path = FOLDER / f"{name}.yaml"
    if name not in names():
        raise PSRError(f"preset {name!r} is unknown; {suggest(name, names())}")
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise PSRError(f"preset {name}: the file holds no keys")
    for override in split_overrides(overrides):
        apply(values, override)
    _import_extensions(values.get("extensions"))
    preset = build(Preset, values, f"preset {name}")
    together.check(preset)
    return preset


def title(name: str) -> str:
    """How figures name a preset: those of procedural problems alone are a laboratory.

    >>> title("tiny"), title("paper-7b"), title("mine")
    ('tiny laboratory', 'preset paper-7b', 'preset mine')
    """
    made_here = name in names() and load(name).data.source == PROCEDURAL
    return f"{name} laboratory" if made_here else f"preset {name}"


def _import_extensions(found: Any) -> None:
    """What they register is then known to the other keys; a wrong value is left to `build`."""
    for name in found if isinstance(found, list) else ():
        if isinstance(name, str):
            registry.use(name)


def registered(section: Any) -> Iterator[tuple[str, str]]:
    """(kind, name) of all that a section names of the registry."""
    for spec in fields(section) if is_dataclass(section) else ():
        kinds = filter(None, (spec.metadata.get(key) for key in ("kind", "also")))
        yield from ((kind, name) for kind in kinds for name in items(getattr(section, spec.name)))


def names() -> list[str]:
    """Names of all presets."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))
