"""How long a part of a stage takes: by a measured rate, or by an assumption that says it is one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psr_lib.architectures import Architecture
from psr_lib.footprint import engine_kind
from psr_lib.machines import Machine
from psr_lib.presets import Preset
from psr_lib.rate_table import TRAINER, Rate, find
from psr_lib.work import Work

# Shares of a device's bfloat16 peak. Nobody measured them here: they are what a plan assumes where
# no rate is in the table, and it says so. Whoever writes waits for memory, token by token.
ASSUMED = {"train": 0.40, "read": 0.40, "write": 0.05}
FORWARD = 2  # FLOP a parameter and token; backward takes twice as many (Kaplan et al., 2001.08361)


@dataclass(frozen=True)
class Duration:
    """Hours of one device: `measured` by a `rate` of the table, or None; `assumed` from the FLOPs
    of a device whose peak is known, or None."""

    measured: float | None
    assumed: float | None
    rate: Rate | None = None

    @property
    def hours(self) -> float | None:
        """What there is, the measured first."""
        return self.assumed if self.measured is None else self.measured


def of(
    work: Work, preset: Preset, model: Architecture, machine: Machine, rates: Sequence[Rate]
) -> Duration:
    """How long the work takes on one of the machine's devices."""
    tokens = {"train": work.trained, "read": work.read}.get(work.kind, work.written)
    if not tokens:
        return Duration(0.0, 0.0)
    found = find(rates, work.kind, model.parameters, *_means(work, preset), machine.name)
    measured = tokens / found.tokens_per_second / 3600 if found else None
    return Duration(measured, _assumed(work, model, machine), found)


def _assumed(work: Work, model: Architecture, machine: Machine) -> float | None:
    """Hours by FLOPs, None where the device's peak is not known."""
    if not machine.peak:
        return None
    tokens = {"train": 3 * work.trained, "read": work.read, "write": work.written}
    equal = sum(count / ASSUMED[name] for name, count in tokens.items())
    return equal * FORWARD * model.parameters / machine.peak / 3600


def _means(work: Work, preset: Preset) -> tuple[str, str]:
    """The engine (or trainer) and the number format of a work."""
    if work.kind == "train":
        settings: Any = getattr(preset, work.section)
        return TRAINER[settings.lora_r > 0], "bfloat16" if settings.bf16 else "float32"
    return engine_kind(preset), preset.engine.dtype or preset.model.dtype


def missing(work: Work, preset: Preset, model: Architecture, machine: Machine) -> str:
    """What would have to be measured, in words."""
    engine, dtype = _means(work, preset)
    return f"no measured rate ({work.kind}, {model.name}, {engine} {dtype}, {machine.name})"


def assumption() -> str:
    """What the assumed hours rest on."""
    shares = ", ".join(f"{name} {share:.0%}" for name, share in ASSUMED.items())
    return (f"ASSUMED, not measured: {FORWARD} FLOP a parameter and token ({3 * FORWARD} in "
            f"training) at these shares of the device's bfloat16 peak: {shares}")  # fmt: skip
