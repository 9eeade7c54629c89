"""One process at a time in a run's folder.

The runner of make (or a notebook that is opened by hand) holds the run; the kernel that it starts
holds the stage. A runner that is killed takes its kernel along within a moment, and until then the
kernel may still write: who takes the run next waits for it.
"""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from psr_lib import manifest
from psr_lib.records import PSRError, writing
from psr_lib.run_dirs import RunDir

RUN, STAGE = ".lock", ".lock.stage"
PATIENCE = 30.0  # seconds that a kernel without its runner is waited for

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
    """Take the run's lock until `unlock` or the end of the process; PSRError if it is taken.

    Several seeds together are held with each of theirs, so that none changes while it is read.
    """
    try:
        for path in _folders(run):
            _take(path / RUN, path, doing)
            _wait_for_kernel(path)
    except PSRError:
        unlock(run)
        raise


def unlock(run: RunDir) -> None:
    """Give the run's lock back; nothing happens if this process does not hold it."""
    for path in _folders(run):
        _give(path / RUN)


def lock_stage(run: RunDir, doing: str) -> None:
    """Hold the run as a kernel of its runner, until `unlock_stage` or the end of the process."""
    _take(run.path / STAGE, run.path, doing, PATIENCE)


def unlock_stage(run: RunDir) -> None:
    """The stage has been finished."""
    _give(run.path / STAGE)


def at_work(run: RunDir) -> str:
    """Which process works on which stage of the run just now, '' if none does."""
    try:
        _wait_for_kernel(run.path, 0.0)
    except PSRError:
        return (run.path / STAGE).read_text(encoding="utf-8", errors="replace")
    return ""


def _folders(run: RunDir) -> list[Path]:
    return list(dict.fromkeys(part.path for part in (run, *run.parts)))


def _wait_for_kernel(place: Path, patience: float = PATIENCE) -> None:
    """Wait until no kernel works in the folder; writes nothing."""
    if (place / STAGE).is_file():
        os.close(_opened(place / STAGE, place, patience))


def _take(path: Path, place: Path, doing: str, patience: float = 0.0) -> None:
    if path in _held:
        return
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _opened(path, place, patience)
    _held[path] = handle
    with suppress(OSError):  # a full disk: the lock holds, and nobody can read whose it is
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} ({doing}) on {socket.gethostname()}".encode())


def _opened(path: Path, place: Path, patience: float) -> int:
    """The lock file, locked; PSRError that names who has it if it cannot be had in time."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    until = time.monotonic() + patience
    while not _locked(handle, path):
        if time.monotonic() >= until:
            owner = os.read(handle, 200).decode("utf-8", "replace").strip() or "another process"
            os.close(handle)
            shown = manifest.shown(place)
            raise PSRError(f"{shown} is in use by {owner}; wait until it ends, or stop it")
        time.sleep(0.1)
    return handle


def _locked(handle: int, path: Path) -> bool:
    """Whether the lock was free; PSRError, the file closed, where there are no locks at all."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # EWOULDBLOCK: somebody else has it
        return False
    except OSError as error:
        os.close(handle)
        raise PSRError(
            f"{manifest.shown(path)}: the file system gives no lock ({error.strerror}); mount it "
            "with locks (flock), or put the runs on a disk that has them"
        ) from None
    return True


def _give(path: Path) -> None:
    handle = _held.pop(path, None)
    if handle is not None:
        os.ftruncate(handle, 0)
        fcntl.flock(handle, fcntl.LOCK_UN)  # forked workers have the handle too
        os.close(handle)
