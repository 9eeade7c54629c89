"""Split a solution into `Step k:` segments and find its boxed answer (paper section 3.2).

A step is held without its trailing newline. In a prompt, in training and in search every step but
the last is followed by one newline, so the boundary is the same everywhere.

>>> split_steps("Step 1: 2 + 2 = 4.\\nStep 2: The answer is \\\\boxed{4}.")
['Step 1: 2 + 2 = 4.', 'Step 2: The answer is \\\\boxed{4}.']
"""

import re
from collections.abc import Iterable

MARK = re.compile(r"^[ \t]*Step[ \t]+(\d+)[ \t]*:", re.MULTILINE)
DIGITS = 9  # of a step's number, at most; Python itself refuses to read thousands of them
STOP = "\nStep"  # what follows a finished step that does not end the solution


def split_steps(text: str) -> list[str]:
    """Cut at every line that begins with `Step k:`; text before the first mark stays with it.

    A text without any mark is one step; an empty text is none.
    """
    text = text.strip()  # of odd blanks too, behind which a mark would not begin its line
    starts = [match.start() for match in MARK.finditer(text)]
    if not starts:
        return [text] if text else []
    starts[0] = 0
    ends = [*starts[1:], len(text)]
    return [text[start:end].strip() for start, end in zip(starts, ends, strict=True)]


def join_steps(steps: Iterable[str]) -> str:
    """The steps as they stand in a prompt: each followed by a newline."""
    return "".join(f"{step}\n" for step in steps)


def number(step: str) -> int | None:
    """The k of `Step k:`, or None where the step carries no mark, or a number that no step has."""
    match = MARK.match(step)
    return int(match.group(1)) if match and len(match.group(1)) <= DIGITS else None


def body(step: str) -> str:
    """The step without its `Step k:` mark."""
    return MARK.sub("", step, count=1).strip()


def boxed(text: str) -> str | None:
    r"""Content of the last \boxed{...}, braces balanced; None if there is none or it never closes.

    >>> boxed(r"so \boxed{\frac{1}{2}}")
    '\\frac{1}{2}'
    """
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 0, start + len("\\boxed{")
    for position in range(begin, len(text)):
        if text[position] == "{":
            depth += 1
        elif text[position] == "}":
            if depth == 0:
                return text[begin:position].strip()
            depth -= 1
    return None


def is_final(step: str) -> bool:
    r"""Whether a step carries the answer (a closed \boxed{...}) and so completes the solution."""
    return boxed(step) is not None
