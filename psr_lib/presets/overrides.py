"""Changed values of a preset, such as search.width=4, each typed by the field that it changes."""

import re
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any, get_origin

import yaml

from psr_lib.presets.preset import Preset
from psr_lib.presets.values import number, suggest
from psr_lib.records import PSRError

# Quotes hold a value together where they stand around all of it; elsewhere they are letters.
QUOTED = r"""(?<![^\s=,:\[{])(?:'[^']*'|"[^"]*")(?![^\s,:\]}])"""
PIECE = re.compile(rf"(?:{QUOTED}|\[(?:{QUOTED}|[^\]])*\]?|\{{(?:{QUOTED}|[^}}])*\}}?|[^\s,\[{{])+")


def split_overrides(overrides: Iterable[str] | str) -> list[str]:
    """Assignments from a text separated by commas or spaces; [...], {...} and quotes stay whole.

    >>> split_overrides("search.width=4, data.questions=[10, 20]")
    ['search.width=4', 'data.questions=[10, 20]']
    >>> split_overrides("rounds=2 model.base='/my models/x'")
    ['rounds=2', "model.base='/my models/x'"]
    """
    joined = overrides if isinstance(overrides, str) else " ".join(overrides)
    return PIECE.findall(joined)


def quoted(value: Any) -> str:
    """A value as an override holds it: in quotes where it would be divided.

    >>> quoted(4), quoted("[1, 2]"), quoted("/my models/x")
    ('4', '[1, 2]', "'/my models/x'")
    """
    text = str(value)
    if split_overrides(text) == [text]:
        return text
    mark = '"' if "'" in text else "'"
    return f"{mark}{text}{mark}"


def apply(values: dict[str, Any], override: str) -> None:
    """Change the value that the override names.

    Raises PSRError where it is no assignment, or where its key or its value is wrong.
    """
    key, sign, raw = override.partition("=")
    if not sign:
        raise PSRError(
            f"override {override!r}: write it as key=value, such as search.width=4; "
            "a value with blanks or commas in quotes: model.base='my models/x'"
        )
    if not key or not raw:
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
    if re.fullmatch(QUOTED, raw):
        raw = raw[1:-1]
    if kind is str:
        return raw
    if kind is float:
        return number(raw, f"override {override!r}")
    if get_origin(kind) is tuple and not raw.startswith("["):
        raise PSRError(f"override {override!r}: expected a list such as [1,2]")
    if get_origin(kind) is dict:  # a missing blank after the colon would make one text of it
        raw = re.sub(r":(?=\S)", ": ", raw)
    try:
        return yaml.safe_load(raw)
    except (yaml.YAMLError, ValueError, RecursionError):  # such as a date that is none
        raise PSRError(f"override {override!r}: {raw!r} is not a value") from None
