"""The devices that a run is planned for: those at hand, or named ones such as `8xH100`."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from psr_lib import manifest
from psr_lib.presets import suggest
from psr_lib.records import PSRError

TABLE = Path(__file__).with_name("machines.yaml")
GIB = 2**30


@dataclass(frozen=True)
class Machine:
    """So many equal devices: memory of one in bytes, its bfloat16 peak in FLOP/s (0: not known).

    `device` is `cuda`, `mps` or `cpu`; `at_hand` says whether the devices are this machine's.
    """

    name: str
    device: str
    count: int
    memory: int
    peak: float = 0.0
    at_hand: bool = True

    def __str__(self) -> str:
        size = f"{self.name}, {self.memory / GIB:.0f} GiB"
        return f"{self.count} x {size}" if self.count > 1 else size


def named(text: str) -> Machine:
    """The machine that a text such as `8xH100` names; '' is the one at hand.

    Raises PSRError where the device is not in machines.yaml.
    """
    if not text:
        return at_hand()
    match = re.fullmatch(r"(?:(\d+) *x *)?([\w-]+)", text.strip())
    name, known = match[2] if match else text, _table()
    if match is None or name not in known:
        raise PSRError(f"ON={text}: no device {name!r}; {suggest(name, known)}, as in ON=8xH100, "
                       f"or add it to psr_lib/{TABLE.name}")  # fmt: skip
    count, entry = max(1, int(match[1] or 1)), known[name]
    return Machine(name, "cuda", count, entry["memory"] * GIB, entry["peak"] * 1e12, at_hand=False)


def at_hand() -> Machine:
    """The accelerators that torch sees, else the processor with this machine's memory."""
    import torch

    if torch.cuda.is_available():
        found = torch.cuda.get_device_properties(0)
        peak = next((e["peak"] for n, e in _table().items() if n in found.name), 0) * 1e12
        return Machine(found.name, "cuda", torch.cuda.device_count(), found.total_memory, peak)
    memory = host_memory()
    device = "mps" if torch.backends.mps.is_available() else "cpu"
    return Machine(manifest.device(), device, 1, memory)


def host_memory() -> int:
    """Bytes of this machine's own memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _table() -> dict[str, dict]:
    return yaml.safe_load(TABLE.read_text(encoding="utf-8"))
