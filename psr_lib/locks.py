"""One process at a time in a run's folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from psr_lib import manifest
from psr_lib.records import PSRError, writing
from psr_lib.run_dirs import RunDir

_held: dict[Path, int] = {}  # locks of this process, so that a notebook can open its stage again


@contextmanager
def locked(run: RunDir, doing: str) -> Iterator[None]:
    """Hold the run's folder, so that two makes never write into it at once."""
    lock(run, doing)
    try:
        yield
    finally:
        unlock(run)


def lock(run: RunDir, doing: str) -> None:
    """Take the run's lock until `unlock` or the end of the process; PSRError if it is taken."""
    path = run.path / ".lock"
    if path in _held:
        return
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(handle, 200).decode("utf-8", "replace").strip() or "another process"
        os.close(handle)
        place = manifest.shown(run.path)
        raise PSRError(f"{place} is in use by {owner}; wait until it ends, or stop it") from None
    _held[path] = handle
    with suppress(OSError):  # a full disk: the lock holds, and nobody can read whose it is
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} ({doing})".encode())


def unlock(run: RunDir) -> None:
    """Give the run's lock back; nothing happens if this process does not hold it."""
    handle = _held.pop(run.path / ".lock", None)
    if handle is not None:
        os.ftruncate(handle, 0)
        os.close(handle)
