"""Training in many processes: a notebook's call, made again in each process of `accelerate launch`.

    launch.call(stage.preset.train, train_dpo, start, reference, pairs, settings, ...)

With `train.launch=single` that is the function itself, in this process. Otherwise the arguments are
written to a folder beside the model, `accelerate launch` starts one process a device, each makes
the same call (`worker`), and the main one writes the model and the result. The caller only waits,
so generation and training never share a process. A call that was killed goes on from its last
checkpoint if the same is asked for again.
"""

import fcntl
import inspect
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from psr_lib.launch import command, job, worker
from psr_lib.manifest import shown
from psr_lib.records import PSRError, read_json, writing

SINGLE, FOLDER, LOG = "single", "launch", "log.txt"
PATIENCE = 120.0  # seconds that the processes of a killed call are waited for


def call(how: Any, function: Callable[..., Any], *args: Any, **options: Any) -> dict[str, Any]:
    """What the training function returns, wherever the preset's section `train` has it run.

    Raises PSRError where the devices, the configuration or the batch do not go together, before
    anything starts, and where the training itself does.
    """
    if how.launch == SINGLE:
        return function(*args, **options)
    given = inspect.signature(function).bind(*args, **options).arguments
    settings = given["settings"]
    plan = command.plan(how, given.get("device", "auto"), settings.bf16)
    if settings.batch % plan.processes:
        raise PSRError(f"train.launch={how.launch}: a batch of {settings.batch} does not divide "
                       f"over {plan.processes} processes; set train.processes to a divisor of it, "
                       "or the batch to a multiple")  # fmt: skip
    folder = Path(given["out_dir"]).resolve() / FOLDER
    with _held(folder) as lock:
        job.write(folder, function.__name__, given, plan.processes, how.save_every)
        _run(plan, folder, given.get("on_progress"), lock)
        result = read_json(folder / job.RESULT)
    shutil.rmtree(folder)
    return result


@contextmanager
def _held(folder: Path) -> Iterator[int]:
    """The folder for this call alone: processes of a killed one stop at their next update."""
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


def _run(plan: command.Plan, folder: Path, on_progress: Any, lock: int) -> None:
    """Start the processes, pass their progress on and keep the rest in a log."""
    for path in folder.glob(f"{job.ERROR}*"):
        path.unlink()
    started = [_start(line, plan.environment, lock) for line in plan.commands(folder)]
    try:
        with open(folder / LOG, "a", encoding="utf-8") as log:
            for line in started[0].stdout or ():
                if line.startswith(worker.MARK):
                    if on_progress:
                        on_progress(*json.loads(line.removeprefix(worker.MARK)))
                else:
                    log.write(line)
        codes = [process.wait() for process in started]
    finally:
        for process in started:
            _end(process)
    if any(codes) or not (folder / job.RESULT).is_file():
        raise PSRError(_reason(folder, codes))


def _start(line: list[str], environment: Mapping[str, str], lock: int) -> subprocess.Popen:
    """A launcher in a group of its own; it holds the folder for as long as it lives."""
    return subprocess.Popen(
        line, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        encoding="utf-8", errors="replace", start_new_session=True, pass_fds=(lock,),
    )  # fmt: skip


def _end(process: subprocess.Popen) -> None:
    """Stop a launcher that still runs, and with it its processes."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
    if process.stdout:
        process.stdout.close()


def _reason(folder: Path, codes: list[int]) -> str:
    """The error of the first process that had one, else where the log lies."""
    for path in sorted(folder.glob(f"{job.ERROR}*")):
        return path.read_text(encoding="utf-8").strip()
    text = (folder / LOG).read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if "Error" in line and "ChildFailed" not in line]
    said = f" ({lines[-1].strip()[:160]})" if lines else ""
    code = max(codes, key=abs)
    return (
        f"training: a process of the launch ended with code {code}{said}; see "
        f"{shown(folder / LOG)}, then run again: it goes on from the last checkpoint"
    )
