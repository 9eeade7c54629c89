r"""How the offline teacher `rule` scores a whole solution beside the worked one, 0 to 5 points.

One point for each step that works out something needed, four at most, five where the boxed answer
is right too; the review ends at the first step that is wrong. The same additive scale as
`solution_reviews`, with what `rule_judge` can show of a real step.

>>> worked = "Half of 48 is 48 / 2 = 24. Together that is 48 + 24 = 72. The answer is \boxed{72}."
>>> print(review(worked, ["Step 1: 48 / 2 = 24.", "Step 2: 48 + 24 = 71, so \boxed{71}."])[0])
Step 1: 48 / 2 = 24 is right and 24 is needed. Points: 1.
Step 2: 48 + 24 = 71 is wrong, since 48 + 24 = 72. Points: 1.
Score: 1
"""

from collections.abc import Sequence

from psr_lib.prompts import MOST
from psr_lib.rule_judge import NEEDED, WRONG, find, worked
from psr_lib.steps import boxed


def review(solution: str, steps: Sequence[str]) -> tuple[str, int | None]:
    """The justification, which ends in the points, and the points; None without a worked solution.

    `solution` is the worked one, `steps` those of the solution under review.
    """
    if not solution:
        return "", None
    known, points, lines = worked(solution), 0, []
    for k, step in enumerate(steps):
        found = find(step, steps[:k], known)
        if found.kind == NEEDED:
            points = MOST if boxed(step) is not None else min(points + 1, MOST - 1)
        why = found.why or "nothing that can be checked"
        lines.append(f"Step {k + 1}: {why}. Points: {points}.")
        if found.kind == WRONG:
            break
    return "\n".join([*lines, f"Score: {points}"]), points
