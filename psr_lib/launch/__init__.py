"""Training outside the notebook: its call, made again in each process of `accelerate launch`.

    launch.call(stage.preset.train, train_dpo, start, reference, pairs, settings, ...)

With `train.launch=single` a small model is trained by the function itself, in this process; another
has a process of its own, which gives its memory back when it ends. Otherwise the arguments are
written to a folder beside the model, `accelerate launch` starts one process a device, each makes
the same call (`worker`), and the main one writes the model and the result. The caller only waits,
so generation and training of what fills a device never share a process. A call that was killed
goes on from its last checkpoint if the same is asked for again.
"""

import fcntl
import inspect
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import IO, Any

from psr_lib.launch import command, job, worker
from psr_lib.manifest import shown
from psr_lib.records import PSRError, read_json, writing

FOLDER, LOG = "launch", "log.txt"
SMALL = 64 * 2**20  # bytes of weights that are trained where the notebook runs
PATIENCE = 120.0  # seconds that the processes of a killed call are waited for
LOOK_AGAIN = 1.0  # seconds between two looks at the launchers of other hosts


def call(how: Any, function: Callable[..., Any], *args: Any, **options: Any) -> dict[str, Any]:
    """What the training function returns, wherever the preset's section `train` has it run.

    Raises PSRError where the devices, the configuration or the batch do not go together, before
    anything starts, and where the training itself does.
    """
    given = inspect.signature(function).bind(*args, **options).arguments
    if how.launch == command.SINGLE and weight_bytes(given["model_dir"]) <= SMALL:
        return function(*args, **options)
    settings = given["settings"]
    plan = command.plan(how, given.get("device", "auto"), settings.bf16)
    plan.check_batch(settings.batch)
    folder = Path(given["out_dir"]).resolve() / FOLDER
    with _held(folder) as lock:
        job.write(folder, function.__name__, given, plan.processes, how.save_every)
        run(plan, [folder], given.get("on_progress"), lock)
        result = read_json(folder / job.RESULT)
    shutil.rmtree(folder)
    return result


def weight_bytes(folder: Path | str) -> int:
    """Size of a model folder's weights."""
    return sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))


@contextmanager
def _held(folder: Path) -> Iterator[int]:
    """The folder for this call alone: those of a killed one end soon after it."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    handle, last = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT), time.monotonic() + PATIENCE
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > last:
                    raise PSRError(f"{shown(folder)}: another training is at work here; wait for "
                                   "it, or end its processes") from None  # fmt: skip
                time.sleep(0.5)
        yield handle
    finally:
        os.close(handle)


def run(
    plan: command.Plan, folders: Sequence[Path], on_progress: Any = None, lock: int | None = None
) -> None:
    """Have the processes of a plan carry out the jobs in these folders, one after the other.

    Progress of the main process is passed on; all else goes to a log in the first folder. Raises
    PSRError with the error of the first process that had one.
    """
    for path in [path for folder in folders for path in folder.glob(f"{job.ERROR}*")]:
        path.unlink()
    with open(folders[0] / LOG, "a", encoding="utf-8") as log:
        start = log.tell()  # what stands before is of earlier launches
        codes = _run(plan, folders, on_progress, lock, log)
    if any(codes) or not all((folder / job.RESULT).is_file() for folder in folders):
        raise PSRError(_reason(folders, codes, plan.hosts, start))


def _run(
    plan: command.Plan, folders: Sequence[Path], on_progress: Any, lock: int | None, log: IO[str]
) -> list[int]:
    """Start a launcher on each host and wait for all; returns how each ended.

    Where one fails the others would wait for it, so they are ended.
    """
    command.check_hosts(plan.hosts, folders)
    started, over = [], Event()
    try:
        for rank, line in enumerate(plan.commands(*folders)):
            out = log if rank else subprocess.PIPE
            started.append(_start(line, plan.environment, lock, out))
        Thread(target=_watch, args=(started, over), daemon=True).start()
        for line in started[0].stdout or ():
            if not line.startswith(worker.MARK):
                log.write(line)
            elif on_progress:
                on_progress(*json.loads(line.removeprefix(worker.MARK)))
        code = started[0].wait()
        if any(process.poll() for process in started[1:]):  # the first was ended for their sake
            return [0, *(process.poll() or 0 for process in started[1:])]
        return [code] if code else [process.wait() for process in started]
    finally:
        over.set()
        for process in started:
            _end(process)


def _watch(started: Sequence[subprocess.Popen], over: Event) -> None:
    """End the first launcher as soon as another host's has failed: it would wait for that one."""
    while not over.wait(LOOK_AGAIN):
        if started[0].poll() is None and any(process.poll() for process in started[1:]):
            with suppress(ProcessLookupError):
                os.killpg(started[0].pid, signal.SIGTERM)
            return


def _start(
    line: list[str], environment: Mapping[str, str], lock: int | None, out: Any
) -> subprocess.Popen:
    """A launcher in a group of its own; it holds the folder for as long as it lives."""
    return subprocess.Popen(
        line, env={**os.environ, **environment}, stdout=out, stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL, encoding="utf-8", errors="replace", start_new_session=True,
        pass_fds=() if lock is None else (lock,),
    )  # fmt: skip


def _end(process: subprocess.Popen) -> None:
    """Stop a launcher that still runs, and with it its processes."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
    if process.stdout:
        process.stdout.close()


def _reason(
    folders: Sequence[Path], codes: list[int], hosts: Sequence[str] = ("",), start: int = 0
) -> str:
    """The error of the first process that had one, else where the log lies.

    `start`: bytes of the log that earlier launches wrote.
    """
    for path in sorted(path for folder in folders for path in folder.glob(f"{job.ERROR}*")):
        return path.read_text(encoding="utf-8").strip()
    log = folders[0] / LOG
    text = log.read_bytes()[start:].decode("utf-8", errors="replace")
    if -signal.SIGKILL in codes or "SIGKILL" in text:
        return ("training: one of its processes was killed, most often for want of memory; lower "
                "max_length, set lora_r, or take more or larger devices, then run again: it goes "
                "on from the last checkpoint")  # fmt: skip
    lines = [
        line
        for line in text.splitlines()
        if ("Error" in line and "ChildFailed" not in line) or line.startswith("ssh:")
    ]
    said = f" ({lines[-1].strip()[:160]})" if lines else ""
    rank = max(range(len(codes)), key=lambda rank: abs(codes[rank]))
    where = f" on {hosts[rank]}" if hosts[rank] else ""
    return (
        f"training: a process of the launch{where} ended with code {codes[rank]}{said}; see "
        f"{shown(log)}, then run again: it goes on from the last checkpoint"
    )
