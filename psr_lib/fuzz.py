"""Generated model outputs through all that reads a model's text: nothing may crash or hang.

    python -m psr_lib.fuzz --count 1000000

An output follows from the seed and its number alone, so a failure names the call that repeats it.
Steps, verdicts, points, answers, teachers' replies and explanations are read of every output; one
in `--graded` is graded too, by worker processes, as that takes a thousand times as long.
"""

import argparse
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from psr_lib import answers, grading, ift, prompts, redteam, rule_scores, solution_reviews
from psr_lib.arithmetic import equations
from psr_lib.engines.base import FINISHES, Completion
from psr_lib.grading import Grader
from psr_lib.problems import read_step
from psr_lib.progress import track
from psr_lib.prompts import slots
from psr_lib.records import JudgeExample, ScoreExample, seed_of
from psr_lib.reviews import skills
from psr_lib.rule_judge import find, worked
from psr_lib.search import read_candidate
from psr_lib.steps import body, boxed, is_final, join_steps, number, split_steps

SECONDS = 1.0  # of processor time for one output through all readers, at most
MOST = 20  # failures that are shown, then the fuzzing ends
BATCH = 100  # outputs that are graded together
LONG = 3000  # repetitions of a piece, at most: what takes quadratic time shows then
FAMILIES = [prompts.load(name) for name in redteam.FAMILIES]
QUESTION = "Tom has 14 pens. Tom buys 25 pens. How many pens does Tom have?"
SOLUTION = "Step 1: Tom buys 25. 14 + 25: 4 + 5 = 9, 1 + 2 = 3, so 39. The answer is \\boxed{39}."
GOLDS = ("39", "\\frac{1}{2}", "(1,2)", "x^2+1", "\\text{Tuesday}", "50\\%", "{x|x>2}", "52_8")
PIECES = (
    "Step 1: ", "Step 2:", "\nStep 3: ", "Step", "step 4:", f"Step {'7' * 5000}: ", "\n", " ", "\t",
    "\\boxed{", "\\boxed{39}", "}", "{", "39", "1,234.5", "-.5", "1/2", "\\frac{1}{2}", "$", "%",
    "1" * 5000, "9^{9^9}", "[[A]]", "[[B]]", "[[", "]]", "[A]", "Score: 4", "**Score:** ", "/5",
    "Score: ", "/ 10", "Score is ", "1 + 1 + 1 = ", "out of", "Solution: 3.", "(Score", ")", "=",
    ":", "so 39.", "A: 39 = 39 yes.", "14 + 25: 4 + 5 = 9", "25 times as many. ", "\\text{", "_{8}",
    "\\left(", "^\\circ", "x = ", "or", "and", "\u2028", "\r", "\x00", "\ud800", "\u0661",
    "\uff13", "\u200b", "\U0001d7d9", "\\", "(1,2]", "\\pm", SOLUTION, f"{SOLUTION}\nStep 2: no.",
    "The answer is", "\\begin{", "\\end{", "\\[", "\\(", "[asy]", "{x|", "<|im_end|>", "Review:",
    "\uff3b", "\uff3d", "\xad", "\nreview\uff1a", "\xa0", "</ response>", "**Review:**", "`",
    "\u02bc", "(((((0.1)^9)^9)^9)^9)", "0.1^9", "1/", " = 3. ", "^",
)  # fmt: skip
ATTACKS = tuple(text for win in "AB" for own in redteam.attacks(win).values() for text in own)


def output(seed: int, k: int) -> str:
    """The k-th generated output: pieces in a row, one piece again and again, or a torn solution."""
    noise = random.Random(seed_of(seed, "fuzz", k))
    kind = noise.random()
    if kind < 0.7:
        return "".join(_pieces(noise, noise.randint(0, 14)))
    if kind < 0.73:
        return _letters(noise)
    if kind < 0.76:
        first, again, last = _pieces(noise, 3)
        return first + again[:40] * int(LONG ** noise.random()) + last
    return _torn(SOLUTION * noise.randint(1, 3), noise)


def _pieces(noise: random.Random, count: int) -> list[str]:
    return [noise.choice(ATTACKS if noise.random() < 0.15 else PIECES) for _ in range(count)]


def _letters(noise: random.Random) -> str:
    """Any characters at all, halves of surrogate pairs among them."""
    highest = noise.choice([0x80, 0x300, 0xFFFF, 0x10FFFF])
    return "".join(chr(noise.randint(0, highest)) for _ in range(noise.randint(0, 200)))


def _torn(text: str, noise: random.Random) -> str:
    """The text with stretches cut out, doubled, or replaced by a piece."""
    for _ in range(noise.randint(1, 6)):
        start = noise.randint(0, len(text))
        end = start + noise.randint(0, 12)
        new = noise.choice(["", text[start:end] * 2, noise.choice(PIECES)])
        text = text[:start] + new + text[end:]
    return text


# --- what reads an output, and what must hold whatever it says


def read_steps(text: str) -> None:
    """Steps: nothing is lost but blanks, and joined steps are cut as before."""
    steps = split_steps(text)
    assert "".join("".join(steps).split()) == "".join(text.split()), "split_steps lost something"
    assert split_steps(join_steps(steps)) == steps, "joined steps are cut elsewhere"
    for step in steps:
        number(step), body(step), is_final(step), read_step(step)


def read_answer(text: str) -> None:
    """Answers: the box is in the text, and comparing plainly comes to something or to None."""
    box, last = boxed(text), answers.last_number(text)
    assert box is None or box in text, "the box is not in the text"
    for gold in GOLDS if box is not None or last else ():
        grading.compare_plainly(gold, box if box is not None else last or "")
    short = (box or "")[: answers.LONGEST]
    answers.clash("39", answers.aligned("(1,2)", answers.tidy(short)))


def read_verdict(text: str) -> None:
    """Verdicts and points: none is left where the text has stood in a slot of the prompt."""
    for family in FAMILIES:
        assert family.verdict(text) in ("A", "B", None)
        points = family.points(text)
        assert points is None or 0 <= points <= prompts.MOST
        fitted = slots.fit(text, family.marks)
        assert family.verdict(fitted) is None, "a verdict is left"
        assert _letters_of(fitted) == _letters_of(text), "a slot lost something"
        assert family.points(family._defuse_points(text)) is None, "points are left"
    broken = slots.plain(None, text)  # it goes on until none is left
    assert "".join(broken.split()) == "".join(text.split()), "special tokens lost something"


def _letters_of(text: str) -> str:
    """The text without what `fit` writes in another way."""
    return re.sub(r"[\[\]()<>\ufe47\ufe48\ufe64\ufe65\uff1c\uff1e\uff3b\uff3d\s]", "", text)


def read_completion(text: str) -> None:
    """Candidates: a valid one is a single step of its depth."""
    for depth, finish in enumerate(FINISHES, start=1):
        found = read_candidate(Completion(text, 1, finish, 1), depth)
        assert not found.valid or split_steps(found.text) == [found.text]


def read_reply(text: str) -> None:
    """A teacher's reply: steps that are found wanting, or say what the solution says."""
    steps = ift.read_reply(text)
    if not ift.fault(SOLUTION, steps):
        assert "".join("".join(map(body, steps)).split()) == "".join(body(SOLUTION).split())


def read_explanation(text: str) -> None:
    """Which skills an explanation shows: of the step judge, and of the scorer of solutions."""
    common: dict[str, Any] = {"id": "", "problem_id": "", "question": QUESTION}
    skills(JudgeExample(**common, prefix=[text], step_a=text, step_b=SOLUTION, better="B",
                        explanation=text), text)  # fmt: skip
    solution_reviews.skills(ScoreExample(**common, solution=text, points=1, explanation=text,
                                         right=False), text)  # fmt: skip


def read_by_rule(text: str) -> None:
    """What the offline teacher works out: of a text, of a step, of a whole solution."""
    for equation in equations(text):
        assert str(equation)
    known = worked(SOLUTION)
    find(text, [SOLUTION], known), find(SOLUTION, [text], known)
    assert rule_scores.review(text, [SOLUTION])[1] is not None or not text
    rule_scores.review(SOLUTION, split_steps(text))


Reader = Callable[[str], None]
SLOW = 10  # one output in so many goes through the reader that takes longer than all others
READERS: tuple[Reader, ...] = (
    read_steps, read_answer, read_verdict, read_completion, read_reply, read_explanation,
    read_by_rule,
)  # fmt: skip


class TooLong(Exception):
    """An output took more processor time than any may."""


@dataclass(frozen=True)
class Failure:
    """What went wrong with which output."""

    seed: int
    k: int
    what: str

    def __str__(self) -> str:
        again = f"python -m psr_lib.fuzz --seed {self.seed} --first {self.k} --count 1"
        return (
            f"output {self.k}: {self.what}\n  {output(self.seed, self.k)!r:.300}\n  again: {again}"
        )


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TooLong in the block after so much of this process's own time (main thread only)."""

    def stop(*_: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def try_all(text: str, readers: Iterable[Reader] = READERS, seconds: float = SECONDS) -> str:
    """What goes wrong when all of these read an output; '' if nothing does."""
    name = ""
    try:
        with limited(seconds):
            for reader in readers:
                name = reader.__name__
                reader(text)
    except TooLong:
        return f"{name}: more than {seconds:g} s"
    except Exception as error:
        return f"{name}: {_said(error)}"
    return ""


def readers_of(k: int) -> tuple[Reader, ...]:
    """The readers of output number `k`."""
    return tuple(reader for reader in READERS if reader is not read_by_rule or k % SLOW == 0)


def _said(error: Exception) -> str:
    """An error in one line that any terminal can show; it may quote the output."""
    return ascii(f"{type(error).__name__}: {error}")[1:-1][:200]


def fuzz(seed: int, first: int, count: int, graded: int = 0) -> tuple[list[Failure], float]:
    """Try outputs number `first` and on; what failed, and the seconds of the slowest one.

    One in `graded` is graded too, 0 for none.
    """
    failures: list[Failure] = []
    slowest = 0.0
    with Grader(seconds=SECONDS) as grader, track(count, "fuzz") as progress:
        waiting: list[int] = []
        for k in range(first, first + count):
            text, started = output(seed, k), time.process_time()
            if what := try_all(text, readers_of(k)):
                failures.append(Failure(seed, k, what))
            slowest = max(slowest, time.process_time() - started)
            waiting += [k] if graded and k % graded == 0 else []
            if len(waiting) == BATCH or k == first + count - 1:
                failures += _grade(grader, seed, waiting)
                waiting = []
            progress.update(k - first + 1, failures=len(failures))
            if len(failures) >= MOST:
                break
    return failures, slowest


def _grade(grader: Grader, seed: int, numbers: Sequence[int]) -> list[Failure]:
    """Grade these outputs together; a failure of the batch is put down to its first output."""
    rows = [(GOLDS[k % len(GOLDS)], output(seed, k)) for k in numbers]
    started = time.monotonic()
    try:
        grader.grade_all(rows)
        workers = [worker for worker in grader._started if worker.process.poll() is None]
        assert len(workers) <= grader.size, f"{len(workers)} workers of {grader.size} are alive"
        # Each comparison may be tried twice, and wait for a processor; the start is not counted.
        most = grading.START_SECONDS + 2 * grading.WALL * grader.seconds * len(rows)
        assert time.monotonic() - started < most, "grading took longer than its limits allow"
    except Exception as error:
        return [Failure(seed, numbers[0], f"grading {len(rows)} from here: {_said(error)}")]
    return []


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 if an output failed."""
    parser = argparse.ArgumentParser(prog="python -m psr_lib.fuzz", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--count", type=int, default=1_000_000, help="outputs")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--graded", type=int, default=100, help="grade one in so many; 0: none")
    args = parser.parse_args(arguments)
    graded = 1 if args.count == 1 else args.graded
    failures, slowest = fuzz(args.seed, args.first, args.count, graded)
    for failure in failures:
        print(failure)
    print(f"fuzz: {args.count} outputs of seed {args.seed}, {len(failures)} failed, "
          f"the slowest took {slowest:.2f} s")  # fmt: skip
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
