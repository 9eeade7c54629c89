"""Presets: one YAML that fixes model, data sizes, search, training and evaluation.

A preset file holds every key, each commented with its source; a missing or unknown key, a wrong
type or a value out of range is an error before anything is written. Overrides change single
values and are typed by the field they change.

>>> load("tiny", ["search.width=4"]).search.width
4
"""

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml

from psr_lib import registry
from psr_lib.presets.sections import (
    Annotate,
    Data,
    Dpo,
    Engine,
    Eval,
    Judge,
    Lab,
    Model,
    Paper,
    Prm,
    Reference,
    Search,
    Sft,
    Srlm,
    Teacher,
    Train,
    Tree,
    names_or_none,
    num,
    text,
)
from psr_lib.records import PSRError, fits, hash_json

FOLDER = Path(__file__).parent
PROCEDURAL = "procedural"  # the source of the small laboratory, whose every step an oracle knows


@dataclass(frozen=True, kw_only=True)
class Preset:
    """All that fixes a run but its seed and its method."""

    name: str = text()
    prompts: str = text()
    rounds: int = num(low=1)
    extensions: tuple[str, ...] = names_or_none()
    model: Model
    data: Data
    teacher: Teacher
    search: Search
    judge: Judge
    srlm: Srlm
    sft: Sft
    dpo: Dpo
    eval: Eval
    engine: Engine
    reference: Reference
    lab: Lab
    prm: Prm
    tree: Tree
    annotate: Annotate
    paper: Paper
    train: Train = field(default_factory=Train)

    def sections(self, *names: str) -> dict[str, Any]:
        """These sections (or top-level values) as plain JSON values, in the given order."""
        return {name: plain(getattr(self, name)) for name in names}

    def section_hash(self, *names: str) -> str:
        """sha256 of these sections only, so that a stage depends on just what it reads."""
        return hash_json(self.sections(*names))


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
        _apply(values, override)
    _import_extensions(values.get("extensions"))
    preset = build(Preset, values, f"preset {name}")
    _check_together(preset)
    return preset


def _import_extensions(found: Any) -> None:
    """What they register is then known to the other keys; a wrong value is left to `build`."""
    for name in found if isinstance(found, list) else ():
        if isinstance(name, str):
            registry.use(name)


def registered(section: Any) -> Iterator[tuple[str, str]]:
    """(kind, name) of all that a section names of the registry."""
    for spec in fields(section) if is_dataclass(section) else ():
        if kind := spec.metadata.get("kind"):
            yield from ((kind, name) for name in _items(getattr(section, spec.name)))


def names() -> list[str]:
    """Names of all presets."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def split_overrides(overrides: Iterable[str] | str) -> list[str]:
    """Assignments from a text separated by commas or spaces; [...] and {...} stay whole.

    >>> split_overrides("search.width=4, data.questions=[10, 20]")
    ['search.width=4', 'data.questions=[10, 20]']
    """
    joined = overrides if isinstance(overrides, str) else " ".join(overrides)
    return re.findall(r"(?:\[[^\]]*\]?|\{[^}]*\}?|[^\s,\[{])+", joined)


def suggest(word: str, known: Iterable[str]) -> str:
    """'did you mean ...?' where one name is near, else the list of the known names."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(known)}"


def plain(value: Any) -> Any:
    """A preset's value as JSON holds it: dataclasses as objects, tuples as lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return {key: plain(item) for key, item in asdict(value).items()}
    return list(value) if isinstance(value, tuple) else value


def build(cls: type, values: Any, where: str) -> Any:
    """A dataclass of the preset from a mapping, every key there, known, typed and in range.

    The section `train` alone has defaults: it says where training runs, and nothing of a result.
    """
    if not isinstance(values, Mapping):
        raise PSRError(f"{where}: expected keys with values, found {values!r}")
    known = {spec.name: spec for spec in fields(cls)}
    for key in values:
        if key not in known:
            raise PSRError(f"{where}: unknown key {key!r}; {suggest(str(key), known)}")
    missing = [key for key in known if key not in values and not _has_default(known[key])]
    if missing:
        raise PSRError(f"{where}: key {missing[0]!r} is missing; add it as in tiny.yaml")
    return cls(**{key: _value(known[key], values[key], where) for key in known if key in values})


def _has_default(spec: Any) -> bool:
    return spec.default is not MISSING or spec.default_factory is not MISSING


def _value(spec: Any, value: Any, where: str) -> Any:
    where = f"{where}: {spec.name}" if ": " not in where else f"{where}.{spec.name}"
    if isinstance(spec.type, type) and is_dataclass(spec.type):
        return build(spec.type, value, where)
    if value == [] and spec.metadata.get("empty"):
        return ()
    value = _typed(spec.type, value, where)
    for item in _items(value):
        _check_range(spec.metadata, item, where)
    return value


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, tuple) else [value]


def _typed(kind: Any, value: Any, where: str) -> Any:
    if kind == dict[str, str]:
        return _names(value, where)
    if get_origin(kind) is dict:
        if not isinstance(value, dict) or not value:
            raise PSRError(f"{where}: expected names with numbers such as {{easy: 1}}; {value!r}")
        return {str(key): _typed(float, item, f"{where}.{key}") for key, item in value.items()}
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise PSRError(f"{where}: expected a list such as [1, 2], found {value!r}")
        if get_args(kind)[0] is str and (not value or len(set(map(str, value))) < len(value)):
            raise PSRError(f"{where}: expected names that differ, at least one; found {value!r}")
        return tuple(_typed(get_args(kind)[0], item, where) for item in value)
    if kind is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as a text
        value = _number(value, where)
    if not fits(value, kind) or (kind is float and not math.isfinite(value)):
        raise PSRError(f"{where}: expected {kind.__name__}, found {value!r}")
    return float(value) if kind is float else value


def _names(value: Any, where: str) -> dict[str, str]:
    texts = isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
    if not texts:
        raise PSRError(f"{where}: expected names such as {{question: problem}}, found {value!r}")
    return {str(key): item for key, item in value.items()}


def _number(value: str, where: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise PSRError(f"{where}: expected float, found {value!r}") from None


def _check_range(rule: Mapping[str, Any], value: Any, where: str) -> None:
    low, above, high = (rule.get(key) for key in ("low", "above", "high"))
    if low is not None and value < low:
        raise PSRError(f"{where}: {value} is too small; take {low} or more")
    if above is not None and value <= above:
        raise PSRError(f"{where}: {value} is too small; take more than {above}")
    if high is not None and value > high:
        raise PSRError(f"{where}: {value} is too large; take {high} or less")
    if "choices" in rule and value not in rule["choices"]:
        raise PSRError(f"{where}: {value!r} is unknown; {suggest(value, rule['choices'])}")
    if rule.get("kind"):
        _check_name(rule, value, where)
    if rule.get("filled") and not value.strip():
        raise PSRError(f"{where}: may not be empty")


def _check_name(rule: Mapping[str, Any], value: str, where: str) -> None:
    kind, more = rule["kind"], rule["more"]
    if not (rule["files"] or value in more or registry.known(kind, value)):
        there = (*more, *registry.names(kind))
        raise PSRError(f"{where}: {value!r} is unknown; {suggest(value, there)}")


def _apply(values: dict[str, Any], override: str) -> None:
    key, sign, raw = override.partition("=")
    if not sign or not key or not raw:
        raise PSRError(f"override {override!r}: write it as key=value, such as search.width=4")
    spec = _field(key)
    if key == "name" or is_dataclass(spec.type):
        raise PSRError(f"override {override!r}: {key} cannot be set; set one value of a section")
    section, _, leaf = key.rpartition(".")
    (values.setdefault(section, {}) if section else values)[leaf] = _read(spec.type, raw, override)


def _field(key: str) -> Any:
    """The dataclass field that a dotted key names; raises PSRError with the nearest key."""
    spec: Any = None
    cls: Any = Preset
    for part in key.split("."):
        found = {f.name: f for f in fields(cls)} if is_dataclass(cls) else {}
        if part not in found:
            raise PSRError(f"override key {key!r} is unknown; {suggest(key, all_keys())}")
        spec = found[part]
        cls = spec.type
    return spec


def all_keys() -> list[str]:
    """Every dotted key that an override may set."""
    keys = [f.name for f in fields(Preset) if not is_dataclass(f.type) and f.name != "name"]
    for section in fields(Preset):
        if isinstance(section.type, type) and is_dataclass(section.type):
            keys += [f"{section.name}.{leaf.name}" for leaf in fields(section.type)]
    return keys


def _read(kind: Any, raw: str, override: str) -> Any:
    """The override's text as a value of the field's type (a float may be written 1e-3)."""
    if kind is str:
        return raw
    if kind is float:
        return _number(raw, f"override {override!r}")
    if get_origin(kind) is tuple and not raw.startswith("["):
        raise PSRError(f"override {override!r}: expected a list such as [1,2]")
    if get_origin(kind) is dict:  # a missing blank after the colon would make one text of it
        raw = re.sub(r":(?=\S)", ": ", raw)
    try:
        return yaml.safe_load(raw)
    except (yaml.YAMLError, ValueError, RecursionError):  # such as a date that is none
        raise PSRError(f"override {override!r}: {raw!r} is not a value") from None


def _check_together(preset: Preset) -> None:
    have, need = len(preset.data.questions), preset.rounds - 1
    if have < need:
        raise PSRError(
            f"preset {preset.name}: data.questions holds {have} counts but rounds 2 to "
            f"{preset.rounds} need {need}; give one count a round"
        )
    for section in ("engine", "teacher", "reference"):  # a preset is written into every manifest
        if re.search("[@?#]", getattr(preset, section).url):
            raise PSRError(
                f"preset {preset.name}: {section}.url may hold no user, password or query; a key "
                "goes into OPENAI_API_KEY in the environment"
            )
    if wrong := next(_unknown_to_teacher(preset), None):
        key, value, way = wrong
        raise PSRError(
            f"preset {preset.name}: {key}={value} does not go with data.source="
            f"{preset.data.source}; set it to {way}"
        )


def _unknown_to_teacher(preset: Preset) -> Iterator[tuple[str, str, str]]:
    """Settings that ask a teacher about problems that it does not know, and what else to take."""
    data, teacher, prm = preset.data, preset.teacher, preset.prm
    chain = data.eft_from == "chain"
    if data.source == PROCEDURAL:
        if teacher.ift != "oracle":
            yield "teacher.ift", teacher.ift, "oracle, since procedural problems come in steps"
        if chain and teacher.judge == "rule":
            yield "teacher.judge", teacher.judge, "oracle, which knows every step, or api"
        if chain and prm.labels == "rule":
            yield "prm.labels", prm.labels, "oracle, which knows every step"
        return
    if teacher.ift == "oracle":
        yield "teacher.ift", teacher.ift, "rule (offline) or api"
    if data.eft_from == "direct":
        yield "data.eft_from", data.eft_from, "chain, or to none for IFT and questions alone"
    if chain and teacher.judge == "oracle":
        yield "teacher.judge", teacher.judge, "rule (offline) or api"
    if chain and prm.labels == "oracle":
        yield "prm.labels", prm.labels, "rule (offline), prm800k, or the path of a file of its form"
