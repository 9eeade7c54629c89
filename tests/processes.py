"""Processes of this machine, as /proc shows them."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def table() -> dict[int, tuple[int, str, str]]:
    """Process -> (its parent, when it started, its state)."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rsplit(")", 1)[1].split()
            found[int(path.parent.name)] = (int(fields[1]), fields[19], fields[0])
    return found


def below(pid: int, depth: int = 99) -> list[int]:
    """Those that a process has started, and those that they have, down to a depth."""
    parents, found, wave = table(), [], {pid}
    for _ in range(depth):
        wave = {child for child, (parent, *_) in parents.items() if parent in wave}
        if not wave:
            break
        found += sorted(wave)
    return found


def alive(pids: Iterable[int]) -> dict[int, str]:
    """Those that still run, each with when it started, which tells it from a later namesake."""
    now = table()
    return {pid: now[pid][1] for pid in pids if pid in now and now[pid][2] not in "ZX"}


def cpu(pids: Iterable[int]) -> float:
    """Seconds of processor time that they, and children of theirs that have ended, have taken."""
    ticks = 0
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def command(pid: int) -> str:
    """Its command line, the beginning of it."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[:80]
    return "gone"


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
