"""From a preset's section `train` to the command lines that start its processes.

`single` is one process without accelerate, on one device.
`ddp`, `fsdp` and `deepspeed` are the accelerate configurations beside this file; any other value is
the path of one of the user's own. With a machine file (`host slots=8` a line, as DeepSpeed and MPI
have it; the first host is this one) a launcher is started on each host by ssh; all of them need
this repository and the runs at the same path.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from psr_lib import manifest
from psr_lib.launch import job, worker
from psr_lib.presets import suggest
from psr_lib.records import PSRError, read_json

LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"  # torch's name; read when it first takes memory
PRELOAD, ALLOCATOR = "LD_PRELOAD", "libtcmalloc_minimal.so.4"
SINGLE = "single"
SHIPPED = {path.stem: path for path in Path(__file__).parent.glob("*.yaml")}
PORT = 29500  # of the main process where there are several machines
AS = "as: node1 slots=8"
LACKS = 3  # exit code of the line that looks for files on another host
PATIENCE = 20  # seconds that a host is waited for
SSH = ("ssh", "-o", "BatchMode=yes")
FORWARDED = ("HF_HOME", "HF_HUB_OFFLINE", "NCCL_SOCKET_IFNAME", "NCCL_DEBUG", "OMP_NUM_THREADS")


@dataclass(frozen=True)
class Plan:
    """What is started: so many processes in all, on these hosts ('' alone: on this machine).

    Without a configuration of accelerate it is one process, started as it is.
    """

    config: Path | None
    processes: int
    bf16: bool
    hosts: tuple[str, ...] = ("",)
    environment: dict[str, str] = field(default_factory=dict)

    def commands(self, *folders: Path) -> list[list[str]]:
        """A launcher for each host, the first on this one."""
        lines = [self._line(rank, folders) for rank in range(len(self.hosts))]
        return lines[:1] + [
            [*SSH, host, self._remote(line)]
            for host, line in zip(self.hosts[1:], lines[1:], strict=True)
        ]

    def check_batch(self, batch: int, name: str = "the batch") -> None:
        """Raise PSRError where a batch does not divide over the processes."""
        if batch % self.processes:
            raise PSRError(f"train.processes: {name} of {batch} rows does not divide over "
                           f"{self.processes} processes; set train.processes to a divisor of it, "
                           "or the batch to a multiple")  # fmt: skip

    def _line(self, rank: int, folders: tuple[Path, ...]) -> list[str]:
        if self.config is None:
            return [sys.executable, "-m", worker.__name__, *map(str, folders)]
        several = len(self.hosts) > 1
        where = ["--main_process_ip", self.hosts[0]] if several else []
        return [
            sys.executable, "-m", "accelerate.commands.launch",
            "--config_file", str(self.config), "--num_processes", str(self.processes),
            "--num_machines", str(len(self.hosts)), "--machine_rank", str(rank), *where,
            "--main_process_port", str(PORT if several else 0),
            "--mixed_precision", "bf16" if self.bf16 else "no", "--dynamo_backend", "no",
            "--module", worker.__name__, *map(str, folders),
        ]  # fmt: skip

    def _remote(self, line: list[str]) -> str:
        """The line for another host's shell; there is nobody there to look after."""
        kept = {name: os.environ[name] for name in FORWARDED if name in os.environ}
        given = {**kept, **self.environment}
        for own in (worker.CALLER, PRELOAD):
            given.pop(own, None)
        words = ["env", *(f"{name}={value}" for name, value in given.items()), *line]
        return f"cd {shlex.quote(str(manifest.root()))} && {shlex.join(words)}"


def plan(how: Any, device: str, bf16: bool) -> Plan:
    """What a preset's `train` section starts for models on `device` (as in `model.device`).

    Raises PSRError where a file is missing or unreadable, or the devices do not fit.
    """
    from psr_lib.models import device_of

    if how.launch == SINGLE:
        return Plan(None, 1, bf16, environment=_environment(device_of(device).type))
    config, values = read_config(how.launch)
    hosts, slots = read_machines(how.machines) if how.machines else (("",), 0)
    kind = device_of(device).type
    _check_device(how.launch, str(values.get("distributed_type")), kind)
    if not how.machines and int(values.get("num_machines") or 1) > 1:
        raise PSRError(f"{manifest.shown(config)}: num_machines is {values['num_machines']}; name "
                       "the machines in a file and that in train.machines")  # fmt: skip
    count = how.processes or slots or _configured(how.launch, values) or _devices(kind, len(hosts))
    if count % len(hosts):
        raise PSRError(f"train.processes: {count} do not divide over {len(hosts)} machines")
    return Plan(config, count, bf16, hosts, _environment(kind))


def _environment(device: str) -> dict[str, str]:
    """What each process has to find in its environment."""
    paths = [str(manifest.root()), os.environ.get("PYTHONPATH", "")]
    shared = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "TQDM_DISABLE": "1",
              worker.CALLER: str(os.getpid())}  # fmt: skip
    if device != "cpu":
        return shared
    # Activations of a larger model may be memory fresh from the system, cleared at each call: by
    # pages of two megabytes that costs less than by pages of four kilobytes.
    large_pages = {LARGE_PAGES: os.environ.get(LARGE_PAGES, "1")}
    return shared | {"ACCELERATE_USE_CPU": "true"} | large_pages | _allocator()


def _allocator() -> dict[str, str]:
    """A malloc that keeps what is freed for the next call, where one is there.

    The C library's own gives larger activations back and takes them anew, cleared, at each call.
    """
    if PRELOAD in os.environ or sys.platform != "linux":
        return {}
    for name in (str(Path(sys.prefix, "lib", ALLOCATOR)), ALLOCATOR):
        found = {PRELOAD: name}
        tried = subprocess.run(["true"], env=os.environ | found, stderr=subprocess.PIPE)
        if not tried.stderr:  # the loader complains of what it cannot find or use
            return found
    return {}


def read_config(name: str) -> tuple[Path, dict[str, Any]]:
    """An accelerate configuration, shipped or the user's, read by accelerate's own loader.

    Raises PSRError where it is not there, or accelerate does not take it.
    """
    from accelerate.commands.config import load_config_from_file

    path = SHIPPED.get(name) or manifest.root() / Path(name).expanduser()
    if not path.is_file():
        known = suggest(name, ["single", *SHIPPED])
        raise PSRError(f"train.launch={name}: no such accelerate configuration; {known}, or name "
                       "the path of one of yours")  # fmt: skip
    try:
        return path, load_config_from_file(str(path)).to_dict()
    except Exception as error:  # YAML, unknown keys or unknown values
        reason = " ".join(str(error).split())[:160]
        raise PSRError(f"{manifest.shown(path)}: accelerate does not take it ({reason}); make it "
                       "anew with: accelerate config") from None  # fmt: skip


def read_machines(name: str) -> tuple[tuple[str, ...], int]:
    """Hosts of a machine file and their slots in all (0: not said); as many on each.

    Raises PSRError that names the file and the row.
    """
    path = manifest.root() / Path(name).expanduser()
    if not path.is_file():
        raise PSRError(f"train.machines={name}: no such file; write a host a line, {AS}")
    hosts, slots = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not (words := line.partition("#")[0].split()):
            continue
        if not (found := re.fullmatch(r"(\S+)(?: slots=([1-9]\d*))?", " ".join(words))):
            raise PSRError(f"{path}, row {number}: {line.strip()!r} is no host; write it {AS}")
        hosts.append(found[1])
        slots.append(int(found[2] or 0))
    if not hosts or len(set(slots)) > 1:
        wrong = "slots differ" if hosts else "no host in it"
        raise PSRError(f"{path}: {wrong}; write a host a line, each with as many slots, {AS}")
    return tuple(hosts), sum(slots)


def check_hosts(hosts: Sequence[str], folders: Sequence[Path]) -> None:
    """Raise PSRError where another host cannot be reached, or lacks what these jobs read there."""
    if len(hosts) < 2:
        return
    paths = shlex.join(map(str, _read_there(folders)))
    script = f'for f in {paths}; do test -e "$f" || {{ echo "$f"; exit {LACKS}; }}; done'
    line = shlex.join(["sh", "-c", script])  # whatever shell that user has
    for host in hosts[1:]:
        done = subprocess.run([*SSH, "-o", f"ConnectTimeout={PATIENCE}", host, line],
                              stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8",
                              errors="replace")  # fmt: skip
        if done.returncode == LACKS:
            lacking = done.stdout.strip().splitlines()[-1]
            raise PSRError(
                f"train.machines: {host} has no {lacking}; repository, environment, "
                "runs and models (HF_HOME) must lie at the same path on every host"
            )
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no answer"])[-1][:160]
            raise PSRError(f"train.machines: {host} cannot be reached ({said}); ssh {host} has to "
                           "work without a password")  # fmt: skip


def _read_there(folders: Sequence[Path]) -> list[Any]:
    """What a launcher reads: the code, its Python, the jobs, and the models they begin with."""
    calls = [read_json(folder / job.JOB)["call"] for folder in folders]
    models = {call[name] for call in calls for name in job.MODELS if name in call}
    return [manifest.root(), sys.executable, *folders, *sorted(models)]


def _check_device(launch: str, kind: str, device: str) -> None:
    """Raise PSRError where a way to divide a model has no devices, or its package is missing."""
    sharding = any(name in kind for name in ("FSDP", "DEEPSPEED"))
    if sharding and device != "cuda":
        raise PSRError(f"train.launch={launch}: divides a model over GPUs, and there is none here; "
                       "take single, or ddp with train.processes")  # fmt: skip
    if "DEEPSPEED" in kind and not find_spec("deepspeed"):
        raise PSRError(f"train.launch={launch}: deepspeed is not installed; pip install deepspeed, "
                       "or take fsdp, which needs no package")  # fmt: skip


def _configured(launch: str, values: dict[str, Any]) -> int:
    """Processes that the user's own configuration names; the shipped ones name none."""
    return 0 if launch in SHIPPED else int(values.get("num_processes") or 0)


def _devices(kind: str, machines: int) -> int:
    """A process for each GPU of this machine, as many on the others."""
    import torch

    if kind == "cuda":
        return torch.cuda.device_count() * machines
    raise PSRError("train.processes: no GPU here to count; say how many processes")
