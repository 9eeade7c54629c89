"""The judge's explanation in the small laboratory: recompute the step, copy both results, compare.

An explanation writes down the right next step, then puts the result of each candidate beside it,
then names the better one and gives the verdict. Each of the three skills can be measured apart,
because the verdict alone hides which one is missing.

>>> explain("Step 1: ..., so 85.", "Step 1: ..., so 85.", "Step 1: ..., so 75.", "A")
'Step 1: ..., so 85. A: 85 = 85 yes. B: 75 = 85 no. so A. [[A]]'
"""

import re

from psr_lib import problems
from psr_lib.records import JudgeExample

_RESULT = re.compile(r"so (\d+)\.( The answer is \\boxed\{\d+\}\.)?")
_COMPARE = re.compile(r"([AB]): (\d+(?: end)?) = (\d+(?: end)?) (yes|no)\.")


def key(step: str) -> str:
    """What two steps are compared by: the stated result, and whether the step ends the solution."""
    match = _RESULT.search(step)
    return "none" if not match else match.group(1) + (" end" if match.group(2) else "")


def explain(right: str, step_a: str, step_b: str, better: str) -> str:
    """The explanation that ends in the verdict `[[better]]`.

    The winner is named in a word of its own first. With the mark alone a single token of the whole
    explanation carries the verdict, and SFT did not always learn it in its updates.
    """
    lines = f"{compare('A', step_a, right)} {compare('B', step_b, right)}"
    return f"{right} {lines} so {better}. [[{better}]]"


def decides(right: str, step_a: str, step_b: str) -> bool:
    """Whether an explanation's comparison tells the steps apart: just one has the right result.

    >>> decides("... gets 5. ..., so 85.", "... gets 5. ..., so 85.", "... buys 5. ..., so 85.")
    False
    """
    return (key(step_a) == key(right)) != (key(step_b) == key(right))


def compare(name: str, step: str, right: str) -> str:
    """One line that sets a candidate's result beside the right one."""
    same = "yes" if key(step) == key(right) else "no"
    return f"{name}: {key(step)} = {key(right)} {same}."


def skills(example: JudgeExample, text: str) -> dict[str, bool]:
    """Whether an explanation recomputes, copies and compares rightly.

    `recompute`: the step it writes is the oracle's; `copy`: both candidates' results are quoted as
    they stand and beside the recomputed one; `compare`: every yes/no fits the two numbers that it
    quotes.
    """
    right = problems.next_step(problems.parse(example.question), example.prefix)
    written = re.split(r" A: | \[\[", text.strip())[0]
    lines = {name: (left, other, word) for name, left, other, word in _COMPARE.findall(text)}
    steps = {"A": example.step_a, "B": example.step_b}
    return {
        "recompute": written == right,
        "copy": all(lines.get(n, ("",) * 3)[:2] == (key(steps[n]), key(written)) for n in "AB"),
        "compare": len(lines) == 2 and all((a == b) == (w == "yes") for a, b, w in lines.values()),
    }
