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
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml

from psr_lib.records import PSRError, fits, hash_json

FOLDER = Path(__file__).parent
LOSSES = ("sigmoid", "hinge", "ipo", "robust", "apo_zero", "nca_pair")


def num(low: float | None = None, above: float | None = None, high: float | None = None) -> Any:
    """A number field with its range: at least `low`, greater than `above`, at most `high`."""
    return field(metadata={"low": low, "above": above, "high": high})


def one_of(*choices: str) -> Any:
    """A text field that takes one of the choices."""
    return field(metadata={"choices": choices})


def text() -> Any:
    """A text field that may not be empty."""
    return field(metadata={"filled": True})


@dataclass(frozen=True, kw_only=True)
class Model:
    """Which base model, and how its weights are held."""

    base: str = text()
    dtype: str = one_of("float32", "bfloat16", "float16")
    device: str = one_of("auto", "cpu", "cuda", "mps")
    trust_remote_code: bool


@dataclass(frozen=True, kw_only=True)
class Data:
    """What is solved, judged and asked in each round (counts of problems)."""

    source: str = text()
    ift: int = num(low=1)
    ift_shares: dict[str, float] = num(low=0)  # noqa: RUF009 - num() makes a field()
    eft_shares: dict[str, float] = num(low=0)  # noqa: RUF009 - num() makes a field()
    eft: int = num(low=1)
    eft_heldout: int = num(low=1)
    questions: tuple[int, ...] = num(low=1)
    benchmarks: tuple[str, ...]
    benchmark_size: int = num(low=1)
    split: str = one_of("test", "dev")
    search_size: int = num(low=0)


@dataclass(frozen=True, kw_only=True)
class Search:
    """Step search (paper section 3.3, Eq. 1-5)."""

    width: int = num(low=2)
    temperature: float = num(low=0)
    top_p: float = num(above=0, high=1)
    max_iterations: int = num(low=1)
    max_step_tokens: int = num(low=1)
    tie: str = one_of("rollback", "first")
    pick: str = one_of("random", "first")
    scoring: str = one_of("ordered", "both_slots", "single_order", "agreement")
    live: int = num(low=1)


@dataclass(frozen=True, kw_only=True)
class Judge:
    """How verdicts are decoded, and who gives them."""

    temperature: float = num(low=0)
    top_p: float = num(above=0, high=1)
    max_tokens: int = num(low=1)
    kind: str = one_of("self", "random", "oracle")
    verdict: str = one_of("written", "explained", "direct")
    votes: int = num(low=1)
    early_stop: bool


@dataclass(frozen=True, kw_only=True)
class Sft:
    """Supervised fine-tuning, M0 -> M1; `lora_r` 0 trains every weight."""

    epochs: int = num(low=1)
    lr: float = num(above=0)
    batch: int = num(low=1)
    scheduler: str = one_of("cosine", "linear", "constant")
    warmup_ratio: float = num(low=0, high=1)
    weight_decay: float = num(low=0)
    max_length: int = num(low=8)
    lora_r: int = num(low=0)
    lora_alpha: int = num(low=1)
    bf16: bool


@dataclass(frozen=True, kw_only=True)
class Dpo(Sft):
    """Step-wise DPO, M[n-1] -> M[n] (paper section 3.4, Eq. 6-8)."""

    beta: float = num(above=0)
    nll_weight: float = num(low=0)
    loss: str = one_of(*LOSSES)
    reference: str = one_of("previous", "sft")
    start_from: str = one_of("previous", "sft")


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Greedy accuracy, judge accuracy and test-time search."""

    max_tokens: int = num(low=1)
    search_rounds: tuple[int, ...] = num(low=0)
    judge_shots: int = num(low=0)


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What generates text; which kinds read a setting stands beside it in tiny.yaml."""

    kind: str = one_of("hf", "vllm", "server", "ray")
    batch_tokens: int = num(low=1)
    dtype: str = one_of("", "float32", "bfloat16", "float16")
    context: int = num(low=0)
    tensor_parallel: int = num(low=1)
    gpu_memory: float = num(above=0, high=1)
    workers: int = num(low=1)
    worker: str = one_of("hf", "vllm")
    cores: int = num(low=0)
    url: str = text()
    model: str = text()
    seeds: str = one_of("sent", "none", "noise")
    concurrency: int = num(low=1)
    timeout: float = num(above=0)
    retries: int = num(low=0)


@dataclass(frozen=True, kw_only=True)
class Paper:
    """Figure 2, the map of prompts and responses (section 5.2); `embedding` own, or a model."""

    embedding: str = text()
    embedded: int = num(low=4)
    perplexity: float = num(low=1)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """All that fixes a run but its seed and its method."""

    name: str = text()
    prompts: str = text()
    rounds: int = num(low=1)
    model: Model
    data: Data
    search: Search
    judge: Judge
    sft: Sft
    dpo: Dpo
    eval: Eval
    engine: Engine
    paper: Paper

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
    preset = build(Preset, values, f"preset {name}")
    _check_together(preset)
    return preset


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
    if is_dataclass(value):
        return {key: plain(item) for key, item in asdict(value).items()}
    return list(value) if isinstance(value, tuple) else value


def build(cls: type, values: Any, where: str) -> Any:
    """A dataclass of the preset from a mapping, every key there, known, typed and in range."""
    if not isinstance(values, Mapping):
        raise PSRError(f"{where}: expected keys with values, found {values!r}")
    known = {spec.name: spec for spec in fields(cls)}
    for key in values:
        if key not in known:
            raise PSRError(f"{where}: unknown key {key!r}; {suggest(str(key), known)}")
    missing = [key for key in known if key not in values]
    if missing:
        raise PSRError(f"{where}: key {missing[0]!r} is missing; add it as in tiny.yaml")
    return cls(**{key: _value(known[key], values[key], where) for key in known})


def _value(spec: Any, value: Any, where: str) -> Any:
    where = f"{where}: {spec.name}" if ": " not in where else f"{where}.{spec.name}"
    if is_dataclass(spec.type):
        return build(spec.type, value, where)
    value = _typed(spec.type, value, where)
    for item in _items(value):
        _check_range(spec.metadata, item, where)
    return value


def _items(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, tuple) else [value]


def _typed(kind: Any, value: Any, where: str) -> Any:
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
    if rule.get("filled") and not value.strip():
        raise PSRError(f"{where}: may not be empty")


def _apply(values: dict[str, Any], override: str) -> None:
    key, sign, raw = override.partition("=")
    if not sign or not key or not raw:
        raise PSRError(f"override {override!r}: write it as key=value, such as search.width=4")
    spec = _field(key)
    if key == "name" or is_dataclass(spec.type):
        raise PSRError(f"override {override!r}: {key} cannot be set; set one value of a section")
    section, _, leaf = key.rpartition(".")
    (values[section] if section else values)[leaf] = _read(spec.type, raw, override)


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
    for section in (f for f in fields(Preset) if is_dataclass(f.type)):
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
    except yaml.YAMLError:
        raise PSRError(f"override {override!r}: {raw!r} is not a value") from None


def _check_together(preset: Preset) -> None:
    have, need = len(preset.data.questions), preset.rounds - 1
    if have < need:
        raise PSRError(
            f"preset {preset.name}: data.questions holds {have} counts but rounds 2 to "
            f"{preset.rounds} need {need}; give one count a round"
        )
    if re.search("[@?#]", preset.engine.url):  # a preset is written into every manifest
        raise PSRError(
            f"preset {preset.name}: engine.url may hold no user, password or query; a key goes "
            "into OPENAI_API_KEY in the environment"
        )
