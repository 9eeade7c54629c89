"""Fields of a preset with their rules, and the settings that every kind of training has."""

from dataclasses import dataclass, field
from typing import Any


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
