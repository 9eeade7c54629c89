"""What a device has to hold in each use of it, and which settings would make a use fit."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from psr_lib import architectures, footprint, spread
from psr_lib.architectures import Architecture
from psr_lib.footprint import Parts
from psr_lib.machines import Machine
from psr_lib.presets import Preset
from psr_lib.stages import stage_preset
from psr_lib.work import Work

RANK = 16  # of the LoRA that is tried
MOST = 1024  # devices that are tried
SHORTER = 4  # lengths are tried divided by this: shorter ones cut most rows off

Size = Callable[[Preset], tuple[Parts, float]]


@dataclass(frozen=True)
class Use:
    """A use of a device: training by a `section` of the preset, or its `engine`.

    `size`: under a preset its parts in bytes, and the bytes that they may take together.
    """

    name: str
    section: str
    preset: Preset
    size: Size

    def fits(self, **changes: Any) -> bool:
        """Whether the device holds it, with other settings in its section."""
        section = replace(getattr(self.preset, self.section), **changes)
        parts, room = self.size(replace(self.preset, **{self.section: section}))
        return sum(parts.values()) <= room


def uses(
    parts: Iterable[tuple[Work, Architecture, Any]], preset: Preset, machine: Machine
) -> dict[str, Use]:
    """The uses of a device by these parts of a run, by name."""
    found = {}
    for work, model, _ in parts:
        seen = stage_preset(preset, work.key)
        if work.section:
            size, name = _training(work.section, model, machine), f"training by {work.section}"
            found[name] = Use(name, work.section, seen, size)
        elif work.written + work.read:
            name = f"generation by {seen.engine.kind}, {model.name}"
            name += " as step PRM" if work.kind == "read" else ""
            found[name] = Use(name, "engine", seen, _generation(work, model, machine))
    return found


def enough(plan_uses: Callable[[Machine], Iterable[Use]], machine: Machine) -> Machine | None:
    """The fewest of the same devices, these at least, that hold every use and over which every
    batch divides.

    None where as many as `MOST` do not do.
    """
    for count in range(machine.count, MOST + 1):
        more = replace(machine, count=count)
        if all(_even(use, more) and use.fits() for use in plan_uses(more)):
            return more
    return None


def devices(
    parts: Sequence[tuple[Work, Architecture, Any]], preset: Preset, machine: Machine
) -> str:
    """How many of the same devices would hold these parts, in words, as ON takes them."""
    if machine.device != "cuda":
        return "a GPU or several (ON=8xH100 plans for such)"
    dividing = replace(preset, train=replace(preset.train, launch="fsdp", processes=0))
    for seen, launch in ((preset, ""), (dividing, " with train.launch=fsdp")):
        found = enough(partial(_listed, parts, seen), machine)
        if found:
            known = f" (ON={found.count}x{found.name})" if not machine.at_hand else ""
            return f"{found.count} of them{known}{launch}, or larger ones"
    return "larger devices"


def _listed(
    parts: Sequence[tuple[Work, Architecture, Any]], preset: Preset, machine: Machine
) -> Iterable[Use]:
    return uses(parts, preset, machine).values()


def _even(use: Use, machine: Machine) -> bool:
    """Whether the use's batch divides over the processes that the machine would have."""
    if use.section == "engine":
        return True
    together = spread.training(use.preset.train, machine)
    return getattr(use.preset, use.section).batch % together.processes == 0


def _training(section: str, model: Architecture, machine: Machine) -> Size:
    rows = 2 if section == "dpo" else 1

    def size(preset: Preset) -> tuple[Parts, float]:
        settings, together = getattr(preset, section), spread.training(preset.train, machine)
        parts = footprint.training(model, settings, machine, rows, together)
        return parts, footprint.room(machine)

    return size


def _generation(work: Work, model: Architecture, machine: Machine) -> Size:
    """A step PRM reads while the policy of its tree search is open, too."""

    def size(preset: Preset) -> tuple[Parts, float]:
        parts = footprint.generation(model, preset)
        if work.kind == "read":
            parts |= footprint.beside(architectures.of(preset.model.base), preset)
        return parts, footprint.generation_room(preset, machine)

    return size


def ways(use: Use, machine: Machine) -> list[str]:
    """Settings each of which would make a use fit, or all together; none where they would not, or
    it fits as it is."""
    if use.fits():
        return []
    tried = _changes(use, machine)
    alone = [words for words, changes in tried.items() if use.fits(**changes)]
    together = {name: value for changes in tried.values() for name, value in changes.items()}
    if alone or not use.fits(**together):
        return alone
    return [" with ".join(tried)]


def _changes(use: Use, machine: Machine) -> dict[str, dict[str, int]]:
    """What could be set otherwise to save memory, in words."""
    name, settings = use.section, getattr(use.preset, use.section)
    if name != "engine":
        lora = {} if settings.lora_r else {f"LoRA ({name}.lora_r)": {"lora_r": RANK}}
        return lora | {f"a lower {name}.max_length": _less("max_length", settings.max_length)}
    if footprint.engine_kind(use.preset) == "hf":
        return {"a lower engine.batch_tokens": _less("batch_tokens", settings.batch_tokens)}
    split = {"tensor_parallel": max(machine.count, settings.tensor_parallel)}
    return {"a higher engine.tensor_parallel": split}


def _less(name: str, value: int) -> dict[str, int]:
    return {name: max(1, value // SHORTER)}
