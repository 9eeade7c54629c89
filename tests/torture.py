"""Kill a run again and again; it must end as one that was never killed.

    python tests/torture.py --kills 100 --seed 0

The whole path of a preset (`reproduce`, `paper`) runs once undisturbed. Then it runs in the same
place again: at points of the work that are drawn by seed and go through all stages, SIGKILL hits
the runner, its kernel, one of the kernel's workers or all of them, and the same command starts
again. In between a few SIGTERM and SIGINT ask it to end. After each no process may be left; at the
end every file has to be what it was (`same_runs` says what may differ).

A kill costs what was not finished, no more: the processes that start anew are forks of this one,
which has the libraries loaded. Linux only, as it looks into /proc.
"""

import argparse
import atexit
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing import forkserver
from pathlib import Path

import same_runs
from processes import alive, below, command, cpu, send

from psr_lib import commands, notebook_runner, stages, warm_kernels
from psr_lib.run_dirs import Key

PATH = ("reproduce", "paper")
KILLS = ("runner", "kernel", "worker", "all")
STOPS = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
KINDS = {"01": "data", "02": "SFT", "03": "search", "04": "DPO", "05": "evaluate", "08": "paper"}
RUNNING = re.compile(r"^(\d\d_\w+.*): running ", re.MULTILINE)
PATIENCE = 180.0  # seconds that a process may take to end
POLL = 0.04


class Failed(Exception):
    """The run did not do what it should; the text says what."""


@dataclass(frozen=True)
class Point:
    """Where to strike: after a share of a stage's work and a pause, at whom or with which signal.

    The pause, in seconds, takes some to where one stage ends and the next begins.
    """

    stage: str
    share: float
    pause: float
    victim: str


def points(work: dict[str, float], kills: int, stops: int, rng: random.Random) -> list[Point]:
    """Kills and stops in the order of the stages: each stage once, the others by its work."""
    names = list(work)
    total = kills + stops
    drawn = names[:total] if total < len(names) else names
    drawn = drawn + rng.choices(names, list(work.values()), k=total - len(drawn))
    victims = [KILLS[k % len(KILLS)] for k in range(kills)]
    victims += [list(STOPS)[k % len(STOPS)] for k in range(stops)]
    rng.shuffle(victims)
    drawn.sort(key=names.index)
    return [Point(name, rng.uniform(0.0, 0.98), rng.uniform(0.0, 0.3), victim)
            for name, victim in zip(drawn, victims, strict=True)]  # fmt: skip


class Attempt:
    """The path in a process of its own, as make starts it."""

    def __init__(self, words: Sequence[str], log: Path) -> None:
        self.log = log
        log.touch()
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=_path, args=(list(words), log))
        self.process.start()
        atexit.register(self.process.kill)  # whoever ends the harness ends the run

    @property
    def text(self) -> str:
        """What it has printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def stage(self) -> str:
        """The stage that it began last, '' before the first."""
        return (RUNNING.findall(self.text) or [""])[-1]

    @property
    def work(self) -> float:
        """Processor time of the stage's kernel; by the clock a busy machine would be elsewhere."""
        return cpu(pid for kernel in self.kernels() for pid in (kernel, *below(kernel)))

    def reach(self, point: Point, work: dict[str, float]) -> bool:
        """Wait for the point, in its stage or one after it; False if the path ends before."""
        names = list(work)[list(work).index(point.stage) :]
        while self.process.is_alive():
            if self.stage in names and self.work >= point.share * work[self.stage]:
                self.process.join(point.pause)
                break
            time.sleep(POLL)
        return self.process.is_alive()

    def end(self) -> int:
        """Wait for its end; its exit code."""
        self.process.join(PATIENCE)
        if self.process.exitcode is None:
            raise Failed(f"the runner did not end within {PATIENCE:.0f} s\n{self.text}")
        return self.process.exitcode

    def kernels(self) -> list[int]:
        """Its kernels; where they are forks the fork server is their parent."""
        server = forkserver._forkserver._forkserver_pid
        return below(server, 1) if server else below(self.process.pid, 1)

    def strike(self, victim: str) -> None:
        """Kill, and see that nothing is left."""
        kernels = self.kernels()
        workers = [pid for kernel in kernels for pid in below(kernel)]
        family = alive([self.process.pid, *kernels, *workers])
        targets = {"kernel": kernels, "worker": workers[:1], "all": list(family)}.get(victim)
        for pid in targets or [self.process.pid]:
            send(pid, STOPS.get(victim, signal.SIGKILL))
        if victim == "worker":  # an idle one is replaced, and the stage goes on
            self.process.join(2.0)
            self.process.kill()
        code = self.end()
        last = self.text.splitlines()[-1]
        if victim in STOPS and code and (code != 130 or "interrupted:" not in last):
            raise Failed(f"{victim} ended in {code} without a word\n{self.text}")
        if left := left_of(family, self.kernels):
            raise Failed(f"{victim} left processes behind: {left}\n{self.text}")


def left_of(family: dict[int, str], kernels: Callable[[], list[int]]) -> list[str]:
    """Those of a family, or kernels, that still live after a while."""
    until = time.monotonic() + PATIENCE
    while True:
        now = alive([*family, *kernels()])
        left = [pid for pid in now if family.get(pid, now[pid]) == now[pid]]
        if not left or time.monotonic() > until:
            return [f"{pid} {command(pid)}" for pid in left]
        time.sleep(0.05)


def _path(words: list[str], log: Path) -> None:
    """In a fork: be the runner of each command in turn."""
    os.setsid()
    handle = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(handle, 1), os.dup2(handle, 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - as long as the process
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    forkserver._forkserver.ensure_running = lambda: None  # it runs, but is no child of this one
    try:
        sys.exit(next((code for name in PATH if (code := commands.main([name, *words]))), 0))
    except KeyboardInterrupt:  # between the two, where nobody is there to say it
        print("interrupted: before the next command")
        sys.exit(130)


def warm_up() -> None:
    """Load the libraries once, here for the runners and in a fork server for their kernels."""
    import papermill  # noqa: F401

    from psr_lib import evaluation  # noqa: F401

    if warm_kernels.possible():
        with notebook_runner.kernel_environment(stages.notebook_of(Key("02_init"))):
            forkserver.set_forkserver_preload(list(warm_kernels.LIBRARIES))
            first = multiprocessing.get_context("forkserver").Process(target=time.sleep, args=(0,))
            first.start()
            first.join()  # until then the libraries are loaded


def undisturbed(words: Sequence[str], log: Path) -> dict[str, float]:
    """Run the path once; the processor time that each stage took."""
    attempt, work = Attempt(words, log), {}
    while attempt.process.is_alive():
        if name := attempt.stage:
            work[name] = max(work.get(name, 0.0), attempt.work)
        time.sleep(POLL)
    if attempt.end():
        raise Failed(f"the path fails even if nobody kills it\n{attempt.text}")
    return work


def tortured(
    words: Sequence[str], work: dict[str, float], plan: Sequence[Point], folder: Path
) -> Counter:
    """Strike at every point, then let the path end; what was hit, by stage and victim."""
    hit = Counter()
    for k, point in enumerate(plan, 1):
        attempt = Attempt(words, folder / f"{k}.log")
        while not attempt.reach(point, work):
            attempt = again(words, point.stage, attempt)
            point = replace(point, share=0.8 * point.share)  # it may take less than the first time
        stage = attempt.stage
        attempt.strike(point.victim)
        hit[stage, point.victim] += 1
        print(f"{k:>4} {point.victim:<8} {stage}", flush=True)
    last = Attempt(words, folder / "last.log")
    last.process.join()
    if last.end():
        raise Failed(f"the path does not end after all kills\n{last.text}")
    return hit


def again(words: Sequence[str], stage: str, before: Attempt) -> Attempt:
    """The path was at its end too early: remove a stage and start once more."""
    if before.end():
        raise Failed(f"the path fails after a kill\n{before.text}")
    name, *rest = stage.split()
    number = [f"--n={one[1:]}" for one in rest if one.startswith("M")]
    if commands.main(["clean-stage", *words, f"--stage={name}", *number]):
        raise Failed(f"{stage} can't be removed")
    return Attempt(words, before.log.with_stem(f"{before.log.stem}-again"))


def torture(args: argparse.Namespace, folder: Path) -> None:
    """Run, kill, compare. Raises Failed."""
    runs = folder / "runs"
    words = ["--preset", args.preset, "--set", args.set, "--runs-dir", str(runs)]
    warm_up()
    work = undisturbed(words, folder / "undisturbed.log")
    print(f"undisturbed: {len(work)} stages, {sum(work.values()):.0f} s of work", flush=True)
    runs.rename(folder / "undisturbed")  # the same paths for both: notebooks show their parameters
    plan = points(work, args.kills, args.stops, random.Random(args.seed))
    started = time.monotonic()
    hit = tortured(words, work, plan, folder)
    if found := same_runs.differences(folder / "undisturbed", runs):
        raise Failed("\n".join(["not as if it had never been killed:", *found]))
    kinds = Counter(KINDS.get(stage[:2], "other") for stage, victim in hit if victim in KILLS)
    if missing := set(KINDS.values()) - set(kinds) if args.kills >= 25 else ():
        raise Failed(f"no kill hit {', '.join(sorted(missing))}; raise --kills")
    files = len(same_runs.contents(runs))
    print(f"{args.kills} kills and {args.stops} stops in {time.monotonic() - started:.0f} s: "
          f"{files} files, all as if there had been none")  # fmt: skip


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs")
    parser.add_argument("--stops", type=int, default=4, help="SIGTERMs and SIGINTs by turns")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and victims")
    parser.add_argument("--preset", default="smoke")
    parser.add_argument("--set", default="", help="changed values of the preset")
    parser.add_argument("--keep", action="store_true", help="keep runs and logs anyway")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        torture(args, folder)
    except Failed as error:
        print(f"{error}\nruns and logs are in {folder}", file=sys.stderr)
        return 1
    if not args.keep:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
