"""How the small laboratory's oracle scores a whole solution: step by step, points as it goes.

The review writes down the right step, sets the solution's result beside its own and counts the
points so far; it ends at the first difference. One point for each step that holds, four at most;
five for a solution that holds to its end. That keeps the additive 0 to 5 scale of Yuan et al.
(arXiv 2401.10020) with criteria that a step oracle can decide. As in `reviews`, the parts of the
skill can be measured apart.

>>> question = "Tom has 4 pens. Tom buys 2 pens. How many pens does Tom have?"
>>> review(question, ["Step 1: Tom buys 2. 4 + 2: 4 + 2 = 7, so 7. The answer is \\\\boxed{7}."])[1]
0
"""

import re
from collections.abc import Sequence

from psr_lib import problems
from psr_lib.prompts import MOST
from psr_lib.records import ScoreExample
from psr_lib.reviews import key
from psr_lib.steps import split_steps

_LINE = re.compile(r"\b(\w+(?: end)?) = (\w+(?: end)?) (yes|no) (\d)\.")


def review(question: str, steps: Sequence[str]) -> tuple[str, int]:
    """The justification, which ends in the points, and the points.

    Raises PSRError for a question of another form.
    """
    puzzle, lines, points = problems.parse(question), [], 0
    for k, step in enumerate(steps):
        right = problems.next_step(puzzle, steps[:k])
        if right is None:
            break
        same = key(step) == key(right)
        points = _add(points, key(right)) if same else points
        lines += [right, f"{key(step)} = {key(right)} {'yes' if same else 'no'} {points}."]
        if not same:
            break
    return " ".join([*lines, f"Solution: {points}."]), points


def _add(points: int, right: str) -> int:
    return MOST if right.endswith(" end") else min(points + 1, MOST - 1)


def skills(example: ScoreExample, text: str) -> dict[str, bool]:
    """Whether a justification recomputes, copies, compares and counts rightly.

    `recompute`: every step it writes is the oracle's after the solution's earlier ones; `copy`:
    each result that it sets first is the solution's own; `compare`: every yes/no fits the two
    numbers beside it; `count`: the points go up as they should, and the last are what it gives.
    """
    steps, puzzle = split_steps(example.solution), problems.parse(example.question)
    found = list(_LINE.finditer(text))
    if not found:
        return dict.fromkeys(("recompute", "copy", "compare", "count"), False)
    lines, starts = [match.groups() for match in found], [0, *(match.end() for match in found)]
    written = [text[a : m.start()].strip() for a, m in zip(starts, found, strict=False)]
    given = re.findall(r"Solution: (\d)\.", text)
    return {
        "recompute": written == [problems.next_step(puzzle, steps[:k]) for k in range(len(lines))],
        "copy": [line[0] for line in lines] == [key(step) for step in steps[: len(lines)]],
        "compare": all((a == b) == (word == "yes") for a, b, word, _ in lines),
        "count": _counted(lines) and given[-1:] == [lines[-1][3]],
    }


def _counted(lines: Sequence[tuple[str, ...]]) -> bool:
    points = 0
    for _, right, word, stated in lines:
        points = _add(points, right) if word == "yes" else points
        if int(stated) != points:
            return False
    return True
