"""A preset's values as YAML gives them, made into typed ones; errors name the key."""

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_args, get_origin

from psr_lib import registry
from psr_lib.records import PSRError, fits


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
    for item in items(value):
        _check_range(spec.metadata, item, where)
    return value


def items(value: Any) -> list[Any]:
    """What a value holds one by one; itself, where it is no list and no mapping."""
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
        value = number(value, where)
    if not fits(value, kind) or (kind is float and not math.isfinite(value)):
        raise PSRError(f"{where}: expected {kind.__name__}, found {value!r}")
    return float(value) if kind is float else value


def _names(value: Any, where: str) -> dict[str, str]:
    texts = isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
    if not texts:
        raise PSRError(f"{where}: expected names such as {{question: problem}}, found {value!r}")
    return {str(key): item for key, item in value.items()}


def number(value: str, where: str) -> float:
    """A text such as 1e-3 as a number; raises PSRError where it is none."""
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
    kind, more, also = rule["kind"], rule["more"], rule["also"]
    if not (rule["files"] or value in more or registry.known(kind, value)):
        if also and registry.known(also, value):
            raise PSRError(f"{where}: {value!r} is a {also} alone; register a {kind} of that name "
                           "too, since every run needs one")  # fmt: skip
        there = (*more, *registry.names(kind))
        raise PSRError(f"{where}: {value!r} is unknown; {suggest(value, there)}")


def suggest(word: str, known: Iterable[str]) -> str:
    """'did you mean ...?' where one name is near, else the list of the known names."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(known)}"
