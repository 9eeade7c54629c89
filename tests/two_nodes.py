"""A round on two Ray nodes of this machine; one of its two workers is killed in the search.

    python tests/two_nodes.py --preset tiny

makes M2 twice in a folder of its own: with engine `hf`, then with a worker on each node, one of
which gets SIGKILL when the search has kept its first question. It fails unless both end with the
same pairs, searches, answers and weights. The copy starts with what the first run made, so only
what the engine has a part in is made twice. Linux only, as it looks into /proc; needs ray.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from processes import below, command, send

from psr_lib.environ import variables
from psr_lib.run_dirs import RunDir

ROOT = Path(__file__).resolve().parents[1]
SAME = ("ppd.jsonl", "traces.jsonl.gz", "answers.jsonl.gz", "verdicts.jsonl.gz", "accuracy.csv",
        "search_answers.jsonl.gz", "model.safetensors")  # fmt: skip
WORKING = ("ray::Worker.call", "ray::Worker.search")  # Ray's names of a worker that is at work
SOON = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500}
PATIENT = {"RAY_agent_register_timeout_ms": "120000"}  # two nodes share a small machine


class Failed(Exception):
    """The run did not do what it should; the text says what."""


@contextmanager
def nodes() -> Iterator[Any]:
    """A cluster of two nodes with one core each, to which RAY_ADDRESS leads."""
    from ray.cluster_utils import Cluster

    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with variables({"PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0", **PATIENT}):
        head = {"include_dashboard": False, "_system_config": SOON}
        cluster = Cluster(True, head_node_args={**_small(), **head})
        try:
            cluster.add_node(**_small())
            with variables({"RAY_ADDRESS": cluster.address}):
                yield cluster
        finally:
            _left_by_driver()
            cluster.shutdown()


def _small() -> dict[str, int]:
    return {"num_cpus": 1, "object_store_memory": 10**8}


def _left_by_driver() -> None:
    """A node cannot go while this process is connected to it."""
    import ray

    ray.shutdown()


def working() -> list[int]:
    """The workers on the nodes of this process that are in the middle of something."""
    return [pid for pid in below(os.getpid()) if command(pid).startswith(WORKING)]


def _kill(pid: int) -> None:
    send(pid, signal.SIGKILL)


class Killer(threading.Thread):
    """Kills a worker at work, once a search below `folder` has kept a question; `hit` is who."""

    def __init__(self, folder: Path, strike: Callable[[int], None] = _kill) -> None:
        super().__init__(daemon=True)
        self.folder, self.strike, self.hit, self.over = folder, strike, 0, threading.Event()

    def run(self) -> None:
        while not self.hit and not self.over.wait(0.02):
            if any(len(file.read_bytes().splitlines()) > 1
                   for file in self.folder.rglob("traces.jsonl.gz.part")):  # fmt: skip
                for pid in working()[:1]:
                    self.hit = pid
                    self.strike(pid)

    def __enter__(self) -> "Killer":
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.over.set()
        self.join()


def make(folder: Path, preset: str, changed: str) -> str:
    """`make iteration N=2`, without make; what it printed."""
    line = [sys.executable, "-m", "psr_lib.runs", "iteration", "--preset", preset, "--n", "2",
            "--runs-dir", str(folder), "--set", changed]  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "PSR_QUIET")}
    began = time.monotonic()
    done = subprocess.run(line, cwd=ROOT, env=kept, text=True, capture_output=True)
    print(f"{done.stdout}{folder.name}: {time.monotonic() - began:.0f} s", flush=True)
    if done.returncode:
        raise Failed(f"the run in {folder} failed: {done.stderr.strip()}")
    return done.stdout


def differences(one: RunDir, other: RunDir) -> list[str]:
    """Results of the two runs that are not the same, byte for byte; raises Failed without any."""
    found = [path.relative_to(one.path) for path in sorted(one.path.rglob("*"))
             if path.name in SAME and path.parent.name != "notebooks"]  # fmt: skip
    if not found:
        raise Failed(f"{one.path} holds no results")
    print(f"{len(found)} files of results compared")
    return [str(name) for name in found
            if (one.path / name).read_bytes() != (other.path / name).read_bytes()]  # fmt: skip


def check(preset: str, changed: str, folder: Path) -> None:
    """Both runs, and the death; raises Failed."""
    one, two = folder / "hf", folder / "ray"
    with nodes():
        make(one, preset, changed)
        shutil.copytree(one, two)
        with Killer(two) as killer:
            said = make(two, preset, f"{changed} engine.kind=ray engine.workers=2")
    if not killer.hit or " died;" not in said:
        raise Failed("no worker was killed in the middle of the search; set search.live lower")
    if wrong := differences(RunDir(preset, 0, one), RunDir(preset, 0, two)):
        raise Failed("\n".join(["not as with engine hf:", *wrong]))
    print(f"worker {killer.hit} was killed in the search; everything is as with engine hf")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="smoke")
    parser.add_argument("--set", default="search.live=2", help="changed values of the preset")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="two-nodes-"))
    try:
        check(args.preset, args.set, folder)
    except Failed as error:
        print(f"{error}\nruns are in {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
