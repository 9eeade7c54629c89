"""What stages need of this machine, said before the first of them begins and a teacher is paid."""

from collections.abc import Iterable
from typing import Any

from psr_lib import stages
from psr_lib.launch import command
from psr_lib.methods import DATA, DPO, INIT, REFERENCE
from psr_lib.presets import Preset
from psr_lib.run_dirs import Key


def check(preset: Preset, keys: Iterable[Key]) -> None:
    """Raise PSRError where the engine is not installed, or training cannot be launched here."""
    due = [key for key in keys if key.method != REFERENCE]
    generates = any("engine" in stages.sections(preset, key) for key in due)
    if generates and preset.engine.kind in ("vllm", "ray"):
        from psr_lib.engines import opening  # loads torch, which a runner does without

        opening.check_installed(preset.engine)
    trained = list(dict.fromkeys(part for key in due for part in _trained(preset, key)))
    if trained and preset.train.launch != command.SINGLE:
        for part in trained:
            settings = getattr(preset, part)
            plan = command.plan(preset.train, preset.model.device, settings.bf16)
            plan.check_batch(settings.batch, f"{part}.batch")


def _trained(preset: Preset, key: Key) -> list[Any]:
    """The sections of the preset by which a stage trains."""
    if key.stage == DATA:
        return ["prm", "sft"] if preset.data.eft_from == "chain" and not key.method else []
    return {INIT: ["sft"], DPO: ["dpo"]}.get(key.stage, [])
