"""Is an answer equal to gold? Plain numbers are compared exactly, the rest by Math-Verify.

Two readings of a response: *strict* takes the last closed \\boxed{...} and nothing else; *lenient*
takes that, else the last number in the text. Math-Verify runs in worker processes under a hard time
limit, since symbolic algebra can hang and can't be stopped from a thread.

>>> Grader().grade("1200", "Step 1: so \\\\boxed{1,200}.").strict
True
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

from psr_lib.steps import boxed

PLAIN = re.compile(r"[+-]?(\d{1,3}(,\d{3})+|\d+)?(\.\d+)?\.?", re.ASCII)
NUMBERS = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|-?\.\d+")
WRAP = re.compile(r"\\(?:text|mathrm|textbf)\{([^{}]*)\}")
START_SECONDS = 60.0  # a worker's start (importing sympy) is not counted against an answer


@dataclass(frozen=True)
class Grade:
    """Verdict on one response; `answer` is what was read from it, `method` how it was compared.

    `method`: `none` (no answer), `number`, `text`, `math-verify`, `unreadable` (Math-Verify parsed
    nothing in gold or answer) or `timeout` (or its workers died).
    """

    answer: str | None
    strict: bool
    lenient: bool
    method: str


def last_number(text: str) -> str | None:
    """The last number of a text, as written."""
    found = NUMBERS.findall(text)
    return found[-1] if found else None


def plain_number(text: str) -> Fraction | None:
    """An integer or decimal, thousands commas allowed, exactly; None for anything else.

    >>> plain_number("1,234.50") == Fraction("1234.5")
    True
    """
    text = text.strip().strip("$").strip()
    if not PLAIN.fullmatch(text) or not any(c.isdigit() for c in text):
        return None
    return Fraction(text.replace(",", "").rstrip("."))


def plain_text(text: str) -> str:
    """A text without dollar signs, \\text wrappers, blanks and case."""
    return "".join(WRAP.sub(r"\1", text).replace("$", "").split()).lower().rstrip(".")


class Grader:
    """Grades responses; keeps answers already compared, and the workers, until `close`."""

    def __init__(self, seconds: float = 5.0, workers: int = 2):
        """`seconds`: limit for one comparison; a worker that exceeds it is killed and replaced."""
        self.seconds, self.size = seconds, workers
        self.known: dict[tuple[str, str], tuple[bool, str]] = {}
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
        right, method = self.known[gold, answer]
        return Grade(answer, right and box is not None, right, method)

    def equal(self, gold: str, answer: str) -> bool:
        """Whether an answer equals the gold one (not symmetric: gold first)."""
        self.compare_all([(gold, answer)])
        return self.known[gold, answer][0]

    def readable(self, gold: str) -> bool:
        """Whether a gold answer can be compared at all; check when a benchmark is loaded."""
        if plain_number(gold) is not None:
            return True
        return self._verify(gold, gold)[1] == "math-verify"

    def compare_all(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Compare (gold, answer) pairs that are not known yet."""
        hard = []
        for pair in dict.fromkeys(pairs):
            if pair not in self.known:
                easy = compare_plainly(*pair)
                if easy is None:
                    hard.append(pair)
                else:
                    self.known[pair] = easy
        if hard:
            # Each thread only waits for a process of its own; the algebra runs there.
            with ThreadPoolExecutor(self.size) as pool:
                results = list(pool.map(lambda pair: self._verify(*pair), hard))
            self.known.update(zip(hard, results, strict=True))

    def _verify(self, gold: str, answer: str) -> tuple[bool, str]:
        for _ in range(self.size + 1):  # workers found dead are replaced
            worker = self._worker()
            reply = worker.ask({"gold": gold, "answer": answer}, self.seconds)
            if reply is not None:
                self._free.put(worker)
                return reply["equal"], "math-verify" if reply["parsed"] else "unreadable"
            died = worker.process.poll() is not None
            worker.kill()
            self._started.remove(worker)
            if not died:
                break
        self.timeouts += 1
        return False, "timeout"

    def _worker(self) -> "Worker":
        try:
            return self._free.get_nowait()
        except Empty:
            worker = Worker()
            self._started.append(worker)
            return worker


def compare_plainly(gold: str, answer: str) -> tuple[bool, str] | None:
    """Equality of plain numbers, or of equal texts; None where that does not decide."""
    one, two = plain_number(gold), plain_number(answer)
    if one is not None and two is not None:
        return one == two, "number"
    if plain_text(gold) == plain_text(answer) != "":
        return True, "text"
    return None


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
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": path},
        )
        self.lines: Queue[str] = Queue()
        Thread(target=self._listen, daemon=True).start()
        self.ready = False

    def _listen(self) -> None:
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")  # the process has ended

    def ask(self, question: dict, seconds: float) -> dict | None:
        """The reply, or None if the process took too long or died."""
        try:
            if not self.ready:
                self.ready = bool(self.lines.get(timeout=START_SECONDS))
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            line = self.lines.get(timeout=seconds)
        except (Empty, OSError):
            return None
        return json.loads(line) if line else None

    def kill(self) -> None:
        """End the process now."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError, ValueError):
                pipe.close()


def verify(gold: str, answer: str) -> dict[str, bool]:
    """Math-Verify's judgement; runs in a worker. Both sides are boxed, so bare LaTeX is parsed."""
    from math_verify import parse
    from math_verify import verify as equal

    sides = [parse(f"\\boxed{{{text}}}", parsing_timeout=None) for text in (gold, answer)]
    parsed = all(sides)
    return {"equal": parsed and bool(equal(*sides, timeout_seconds=None)), "parsed": parsed}


def _serve() -> None:
    import math_verify  # noqa: F401  so that the first answer does not wait for it

    print("{}", flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        try:
            reply = verify(question["gold"], question["answer"])
        except Exception:  # whatever an odd answer does to the parser, it is not equal to gold
            reply = {"equal": False, "parsed": False}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    _serve()
