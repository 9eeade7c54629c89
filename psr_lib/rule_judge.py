r"""The offline teacher `rule`: a judge of steps that knows the worked solution of the problem.

Each equation of a step is worked out again (`arithmetic`), and what the step gets is looked for in
the worked solution, which EFT's problems have (questions of the loop have none). A step is

    wrong    an equation does not hold, or its boxed answer is not the right one
    needed   all holds, and its result is one that the solution works out too, or the answer
    aside    all holds, but the solution has no such result, or the step repeats an earlier one
    silent   it states no result that can be read: nothing is shown

A needed step is better than one aside, and that is better than a wrong one: what is not needed can
still be followed by what is, what is wrong goes into all that follows. Two of a kind stay
undecided, and so does what is silent. A right step by another way than the solution's counts as
aside; that is what such a judge cannot see.

>>> solution = "Half of 48 is 48 / 2 = 24. Together that is 48 + 24 = 72."
>>> explain(solution, [], "Step 1: 48 / 2 = 24.", "Step 1: 48 / 2 = 26.").splitlines()[-1]
"So assistant A's step is better. [[A]]"
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from psr_lib.annotate import Answer, Call
from psr_lib.answers import plain_number
from psr_lib.arithmetic import equations
from psr_lib.prompts import VERDICT
from psr_lib.segment import cut
from psr_lib.steps import MARK, body, boxed

WRONG, NEEDED, ASIDE, SILENT = "wrong", "needed", "aside", "silent"
BOX = re.compile(r"\\boxed\{([^{}]*)\}")
RANK = {WRONG: 0, ASIDE: 1, NEEDED: 2}
PLACES = 4  # decimals of a recomputed number
LONGEST = 1000  # digits that are written out, as many as a plain answer may have


@dataclass(frozen=True)
class Finding:
    """What was found about a step, and in words why."""

    kind: str
    why: str = ""
    result: Fraction | None = None


@dataclass(frozen=True)
class Worked:
    """A worked solution: its steps without marks, what each works out, and its answer."""

    steps: tuple[str, ...]
    results: tuple[frozenset[Fraction], ...]
    answer: Fraction | None

    def step_to(self, result: Fraction | None) -> str:
        """The step that works a result out; the last one for the answer."""
        places = [k for k, found in enumerate(self.results) if result in found]
        return self.steps[places[0] if places else -1]

    def next_step(self, prefix: Sequence[str]) -> str:
        """The first step with a result that the prefix does not state; the last one if none has."""
        stated = {result for text in prefix for result in results(body(text))}
        places = [k for k, found in enumerate(self.results) if found - stated]
        return self.steps[places[0] if places else -1]


@lru_cache(maxsize=4096)
def worked(solution: str) -> Worked:
    """A worked solution as the judge reads it."""
    steps = cut(MARK.sub("", solution))
    found = tuple(frozenset(results(step)) for step in steps)
    return Worked(tuple(steps), found, plain_number(boxed(solution) or ""))


def results(text: str) -> list[Fraction]:
    """What the equations of a text work out: the numbers on their right sides."""
    return [equation.right.value for equation in equations(text) if equation.right.plain]


def find(step: str, prefix: Sequence[str], solution: Worked) -> Finding:
    """What can be shown of a step after a prefix."""
    stated = equations(body(step))
    if broken := next((equation for equation in stated if not equation.holds), None):
        value = number(broken.left.value)
        return Finding(WRONG, f"{broken} is wrong, since {broken.left} = {value}")
    if boxed(step) is not None:
        return _close(boxed(step) or "", solution)
    if not (shown := [equation for equation in stated if equation.right.plain]):
        return Finding(SILENT)
    last, result = shown[-1], shown[-1].right.value
    earlier = {str(equation) for text in prefix for equation in equations(body(text))}
    if str(last) in earlier:
        return Finding(ASIDE, f"{last} was found before", result)
    if any(result in found for found in solution.results):
        return Finding(NEEDED, f"{last} is right and {number(result)} is needed", result)
    return Finding(ASIDE, f"{last} is right but {number(result)} is not needed", result)


def _close(answer: str, solution: Worked) -> Finding:
    """A step that ends the solution, by its answer; equations in it hold."""
    stated = plain_number(answer)
    if stated is None or solution.answer is None:
        return Finding(SILENT)
    if stated == solution.answer:
        return Finding(NEEDED, f"the answer {number(stated)} is right", stated)
    right = number(solution.answer)
    return Finding(WRONG, f"the answer {number(stated)} is wrong, since it is {right}", stated)


def number(value: Fraction) -> str:
    """A number as people write it.

    >>> number(Fraction(7, 2)), number(Fraction(6))
    ('3.5', '6')
    """
    if abs(value) >= 10**LONGEST:  # Python itself refuses to write much longer ones
        return "a number that is too long to write"
    if value.denominator == 1:
        return str(value.numerator)
    value = Fraction(round(value * 10**PLACES), 10**PLACES)
    sign, (whole, rest) = "-" * (value < 0), divmod(abs(value), 1)
    return f"{sign}{whole}.{int(rest * 10**PLACES):0{PLACES}}".rstrip("0").rstrip(".")


def explain(solution: str, prefix: Sequence[str], step_a: str, step_b: str) -> str:
    """The explanation that ends in a verdict; '' where nothing is decided.

    It writes down the solution's own step first (to the better step's result, if it has that), then
    what holds of each candidate, so that a model that learns it solves before it compares.
    """
    known = worked(solution)
    a, b = (find(step, prefix, known) for step in (step_a, step_b))
    if a.kind == b.kind or SILENT in (a.kind, b.kind) or not any(known.results):
        return ""
    name, good = ("A", a) if RANK[a.kind] > RANK[b.kind] else ("B", b)
    own = known.step_to(good.result) if good.kind == NEEDED else known.next_step(prefix)
    right = BOX.sub(r"\1", own).strip()
    lines = [f"What is needed: {right}", f"Assistant A: {a.why}.", f"Assistant B: {b.why}.",
             f"So assistant {name}'s step is better. [[{name}]]"]  # fmt: skip
    return "" if VERDICT.search(right) else "\n".join(lines)


class RuleJudge:
    """A teacher of `annotate` that needs no model; it knows worked solutions of EFT's problems."""

    concurrency = 1

    def __init__(self, solutions: Mapping[str, str]):
        """`solutions`: worked solution by question."""
        self.solutions = solutions

    def answer(self, call: Call) -> Answer:
        """The explanation; no answer where nothing could be shown."""
        text = explain(self.solutions.get(call.question, ""), call.prefix, call.a, call.b)
        return Answer(text, "" if text else "undecided")
