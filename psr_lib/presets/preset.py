"""The typed preset: its sections together, and their hashes."""

from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

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
from psr_lib.records import hash_json


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


def plain(value: Any) -> Any:
    """A preset's value as JSON holds it: dataclasses as objects, tuples as lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return {key: plain(item) for key, item in asdict(value).items()}
    return list(value) if isinstance(value, tuple) else value
