"""Over how many of a machine's devices a preset's training and generation are spread."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from psr_lib.launch import command
from psr_lib.machines import Machine
from psr_lib.presets import Preset
from psr_lib.stages import stage_preset
from psr_lib.work import Work

DIVIDING = ("fsdp", "deepspeed")  # of the shipped launches
ZERO_3 = 3  # DeepSpeed's lower stages divide less than all


@dataclass(frozen=True)
class Together:
    """Processes that train together; `divided`: each holds its part of weights and moments only."""

    processes: int = 1
    divided: bool = False

    def on_each(self, devices: int) -> int:
        """Processes that share a device where there are more of them than devices (on a CPU)."""
        return -(-self.processes // devices)


def training(how: Any, machine: Machine) -> Together:
    """How a preset's section `train` spreads a model on this machine.

    Raises PSRError where its configuration or its machine file is missing or unreadable.
    """
    if how.launch == command.SINGLE:
        return Together()
    divided, configured = _configured(how.launch)
    slots = command.read_machines(how.machines)[1] if how.machines else 0
    return Together(how.processes or slots or configured or machine.count, divided)


@lru_cache
def _configured(launch: str) -> tuple[bool, int]:
    """Whether a launch divides the model, and the processes that a user's own names (0: none)."""
    if launch in command.SHIPPED:
        return launch in DIVIDING, 0
    values = command.read_config(launch)[1]
    kind = str(values.get("distributed_type"))
    stage = (values.get("deepspeed_config") or {}).get("zero_stage")
    divided = "FSDP" in kind or ("DEEPSPEED" in kind and stage == ZERO_3)
    return divided, int(values.get("num_processes") or 0)


def reached(preset: Preset, machine: Machine) -> Machine:
    """The machine at hand with the devices of the other hosts that `train.machines` names."""
    if not (machine.at_hand and preset.train.machines):
        return machine
    hosts, slots = command.read_machines(preset.train.machines)
    several = slots if slots and machine.device == "cuda" else machine.count * len(hosts)
    return replace(machine, count=several)


def wanted(preset: Preset) -> int:
    """Devices on which the engine generates; 0 where that is not the preset's to say."""
    engine, split = preset.engine, _split(preset.engine)
    return {"hf": 1, "vllm": split, "ray": engine.workers * split}.get(engine.kind, 0)


def _split(engine: Any) -> int:
    """Devices that hold one model together; transformers' engine takes one."""
    kind = engine.worker if engine.kind == "ray" else engine.kind
    return engine.tensor_parallel if kind == "vllm" else 1


def devices(work: Work, preset: Preset, machine: Machine) -> int:
    """How many of the machine's devices do this work."""
    if work.kind == "train":
        return min(training(preset.train, machine).processes, machine.count)
    return min(wanted(stage_preset(preset, work.key)) or machine.count, machine.count)


def idle_lines(works: Sequence[Work], preset: Preset, machine: Machine) -> list[str]:
    """A line for training and one for generation where it leaves some of the devices idle, and one
    where it asks for more than there are."""
    count, lines = machine.count, []
    training_on, generating_on = (
        min((devices(one, preset, machine) for one in works if is_part(one)), default=count)
        for is_part in (lambda one: one.section, lambda one: one.written + one.read)
    )
    if training_on < count:
        lines.append(f"warning: training (train.launch={preset.train.launch}) works on "
                     f"{training_on} of {count} devices; ddp or fsdp with train.processes=0 takes "
                     "all")  # fmt: skip
    if generating_on < count:
        more = _more_workers(preset, machine, generating_on)
        lines.append(f"warning: generation (engine.kind={preset.engine.kind}) works on "
                     f"{generating_on} of {count} devices{more}")  # fmt: skip
    return lines + _too_many(preset, machine)


def _more_workers(preset: Preset, machine: Machine, now: int) -> str:
    """The setting that would have more of the devices generate, if there is one."""
    engine, each = preset.engine, _split(preset.engine)
    workers = machine.count // each
    if workers * each <= now:
        return ""
    kind = " engine.worker=hf" if engine.kind == "hf" else ""
    return f"; engine.kind=ray{kind} with engine.workers={workers} takes {workers * each}"


def _too_many(preset: Preset, machine: Machine) -> list[str]:
    """A line where more devices are asked for than there are."""
    found: list[str] = []
    engine = preset.engine
    if machine.device != "cuda":
        return found
    if (processes := training(preset.train, machine).processes) > machine.count:
        found.append(f"warning: training asks for {processes} devices of {machine.count}; lower "
                     "train.processes, or slots in train.machines")  # fmt: skip
    if (asked := wanted(preset)) > machine.count:
        found.append(f"warning: engine.kind={engine.kind} asks for {asked} devices of "
                     f"{machine.count}; lower engine.tensor_parallel"
                     f"{' or engine.workers' if engine.kind == 'ray' else ''}")  # fmt: skip
    return found
