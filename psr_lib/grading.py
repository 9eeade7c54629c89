"""Is an answer equal to gold? Plain numbers are compared exactly, the rest by Math-Verify.

Two readings of a response: *strict* takes the last closed \\boxed{...} and nothing else; *lenient*
takes that, else the last number in the text. Math-Verify runs in worker processes under a hard time
limit, since symbolic algebra can hang and can't be stopped from a thread. What it misreads is put
right before it sees it (`answers`).

>>> Grader().grade("1200", "Step 1: so \\\\boxed{1,200}.").strict
True
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

from psr_lib.answers import (
    LONGEST,
    aligned,
    clash,
    in_words,
    last_number,
    plain_number,
    plain_text,
    tidy,
)
from psr_lib.steps import boxed

START_SECONDS = 60.0  # a worker's start (importing sympy) is not counted against an answer
WALL = 10.0  # times the limit: how long to wait for a worker that gets no processor
MEMORY = 4 * 2**30  # bytes of address space a worker may take; 9**9**9 would take all there is


@dataclass(frozen=True)
class Grade:
    """Verdict on one response; `answer` is what was read from it, `method` how it was compared.

    `method`: `none` (no answer), `number`, `text` (equal texts, or a gold that is words and not
    maths), `math-verify`, `unreadable` (Math-Verify parsed nothing in gold or answer, or the answer
    is too long) or `timeout` (its worker was killed or died).
    """

    answer: str | None
    strict: bool
    lenient: bool
    method: str


class Grader:
    """Grades responses; keeps answers already compared, and the workers, until `close`."""

    def __init__(self, seconds: float = 5.0, workers: int = 2):
        """`seconds` of processor time for one comparison; the kernel ends a worker that takes more.

        So a busy machine changes no grade; on an idle one it is the time by the clock.
        """
        self.seconds, self.size = seconds, workers
        self.known: dict[bytes, tuple[bool, str]] = {}  # by hash, since answers may be long
        self.timeouts = 0
        self._free: Queue[Worker] = Queue()
        self._started: list[Worker] = []

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker processes."""
        for worker in self._started:
            worker.kill()
        self._started, self._free = [], Queue()

    def grade(self, gold: str, text: str) -> Grade:
        """Grade one response."""
        return self.grade_all([(gold, text)])[0]

    def grade_all(self, rows: Iterable[tuple[str, str]]) -> list[Grade]:
        """Grade (gold, response) rows, in order."""
        read = [(gold, boxed(text), last_number(text)) for gold, text in rows]
        pairs = {(gold, box if box is not None else last) for gold, box, last in read}
        self.compare_all([(gold, answer) for gold, answer in pairs if answer is not None])
        return [self._grade(*row) for row in read]

    def _grade(self, gold: str, box: str | None, last: str | None) -> Grade:
        answer = box if box is not None else last
        if answer is None:
            return Grade(None, False, False, "none")
        right, method = self.known[key(gold, answer)]
        return Grade(answer, right and box is not None, right, method)

    def equal(self, gold: str, answer: str) -> bool:
        """Whether an answer equals the gold one (not symmetric: gold first)."""
        self.compare_all([(gold, answer)])
        return self.known[key(gold, answer)][0]

    def readable(self, gold: str) -> bool:
        """Whether a gold answer can be compared as maths; check when a benchmark is loaded."""
        if plain_number(gold) is not None:
            return True
        return not in_words(gold) and self._verify(gold, gold)[1] == "math-verify"

    def compare_all(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Compare (gold, answer) pairs that are not known yet."""
        hard = {}
        for pair in pairs:
            name = key(*pair)
            if name not in self.known and name not in hard:
                easy = compare_plainly(*pair)
                if easy is None:
                    hard[name] = pair
                else:
                    self.known[name] = easy
        if hard:
            # Each thread only waits for a process of its own; the algebra runs there.
            with ThreadPoolExecutor(self.size) as pool:
                results = list(pool.map(lambda pair: self._verify(*pair), hard.values()))
            self.known.update(zip(hard, results, strict=True))

    def _verify(self, gold: str, answer: str) -> tuple[bool, str]:
        question = {"gold": gold, "answer": answer, "seconds": self.seconds}
        for _ in range(2):
            worker = self._worker()
            reply = worker.ask(question, WALL * self.seconds) if worker.is_ready() else None
            if reply is not None:
                self._free.put(worker)
                return reply["equal"], reply["method"]
            self._drop(worker)
            if worker.ended:
                break  # at its limit, or by what it was asked; a stalled machine earns another try
        self.timeouts += 1
        return False, "timeout"

    def _worker(self) -> "Worker":
        with suppress(Empty):
            while True:
                worker = self._free.get_nowait()
                if worker.process.poll() is None:
                    return worker
                self._drop(worker)  # it died while it waited
        worker = Worker()
        self._started.append(worker)
        return worker

    def _drop(self, worker: "Worker") -> None:
        worker.kill()
        self._started.remove(worker)


def key(gold: str, answer: str) -> bytes:
    """What a comparison is remembered by."""
    text = json.dumps([gold, answer])  # escapes what UTF-8 cannot hold, such as half a surrogate
    return hashlib.sha256(text.encode("ascii")).digest()


def compare_plainly(gold: str, answer: str) -> tuple[bool, str] | None:
    """Equality of plain numbers, or of equal texts; None where that does not decide."""
    one, two = plain_number(gold), plain_number(answer)
    if one is not None and two is not None:
        return one == two, "number"
    if plain_text(gold) == plain_text(answer) != "":
        return True, "text"
    if in_words(gold):
        return False, "text"
    return (False, "unreadable") if len(answer) > LONGEST else None


class Worker:
    """A process that compares answers by Math-Verify: JSON lines in, JSON lines out."""

    def __init__(self) -> None:
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "psr_lib.grading"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self.process.stdin and self.process.stdout  # both are pipes
        self.asked, self.said = self.process.stdin, self.process.stdout
        self.lines: Queue[str] = Queue()
        Thread(target=self._listen, daemon=True).start()
        self.ready = self.ended = False

    def _listen(self) -> None:
        for line in self.said:
            self.lines.put(line)
        self.lines.put("")  # the process has ended

    def is_ready(self) -> bool:
        """Wait until the process has started; False if it does not."""
        with suppress(Empty):
            self.ready = self.ready or bool(self.lines.get(timeout=START_SECONDS))
        return self.ready

    def ask(self, question: dict, seconds: float) -> dict | None:
        """The reply, or None if the process took too long or died."""
        try:
            self.asked.write(json.dumps(question) + "\n")
            self.asked.flush()
            line = self.lines.get(timeout=seconds)
        except (Empty, OSError):
            return None
        self.ended = not line
        return json.loads(line) if line else None

    def kill(self) -> None:
        """End the process now."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.asked, self.said):
            with suppress(OSError, ValueError):
                pipe.close()


def verify(gold: str, answer: str) -> dict[str, bool | str]:
    """Math-Verify's judgement; runs in a worker. Both sides are boxed, so bare LaTeX is parsed."""
    from math_verify import parse
    from math_verify import verify as equal

    gold, answer = tidy(gold), tidy(answer)
    answer = aligned(gold, answer)
    sides = [parse(f"\\boxed{{{text}}}", parsing_timeout=None) for text in (gold, answer)]
    if sides[0] and all(isinstance(found, str) for found in sides[0]):
        return {"equal": False, "method": "text"}  # equal texts were found before
    method = "math-verify" if all(sides) else "unreadable"
    if method == "unreadable" or clash(gold, answer):
        return {"equal": False, "method": method}
    found = equal(*sides, timeout_seconds=None, allow_set_relation_comp=True)
    return {"equal": bool(found), "method": method}


def _serve() -> None:
    import math_verify  # noqa: F401  so that the first answer does not wait for it

    with suppress(ImportError, ValueError, OSError):  # no such limit on this system
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print("{}", flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        _die_in(question["seconds"])  # whether the parent is there to end it, or stopped or gone
        try:
            reply = verify(question["gold"], question["answer"])
        except Exception:  # whatever an odd answer does to the parser, it is not equal to gold
            reply = {"equal": False, "method": "unreadable"}
        _die_in(0.0)
        print(json.dumps(reply), flush=True)


def _die_in(seconds: float) -> None:
    """Let the kernel end this process after so much processor time; 0 calls it off."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


if __name__ == "__main__":
    _serve()
