"""What stages need of this machine, said before the first of them begins and a teacher is paid."""

from collections.abc import Iterable

from psr_lib import stages
from psr_lib.launch import command
from psr_lib.methods import DATA, DPO, INIT, REFERENCE
from psr_lib.presets import Preset
from psr_lib.records import PSRError
from psr_lib.run_dirs import Key


def check(preset: Preset, keys: Iterable[Key]) -> None:
    """Raise PSRError where the engine is not installed, or training cannot be launched here.

    Or where a number format would make a run on this CPU hopelessly slow.
    """
    due = [key for key in keys if key.method != REFERENCE]
    generates = any("engine" in stages.sections(preset, key) for key in due)
    if generates and preset.engine.kind in ("vllm", "ray"):
        from psr_lib.engines import opening  # loads torch, which a runner does without

        opening.check_installed(preset.engine)
    here = generates and preset.engine.kind in ("hf", "vllm")
    trained = list(dict.fromkeys(part for key in due for part in _trained(preset, key)))
    check_speed(preset, here, trained)
    if trained and preset.train.launch != command.SINGLE:
        for part in trained:
            settings = getattr(preset, part)
            plan = command.plan(preset.train, preset.model.device, settings.bf16)
            plan.check_batch(settings.batch, f"{part}.batch")


def check_speed(preset: Preset, generates: bool, trained: Iterable[str]) -> None:
    """Raise PSRError naming the settings that ask a CPU for a format which it has not."""
    asked = [f"{part}.bf16=false" for part in trained if getattr(preset, part).bf16]
    name = "engine.dtype" if preset.engine.dtype else "model.dtype"
    if generates and (preset.engine.dtype or preset.model.dtype) == "bfloat16":
        asked = [f"{name}=float32", *asked]
    if not asked:
        return
    from psr_lib.models import device_of, slow_bfloat16

    if slow_bfloat16(device_of(preset.model.device)):
        raise PSRError("bfloat16: this CPU has no AVX-512 and is many times slower in it than in "
                       f"float32; set {' '.join(asked)}")  # fmt: skip


def _trained(preset: Preset, key: Key) -> list[str]:
    """The sections of the preset by which a stage trains."""
    if key.stage == DATA:
        return ["prm", "sft"] if preset.data.eft_from == "chain" and not key.method else []
    return {INIT: ["sft"], DPO: ["dpo"]}.get(key.stage, [])
