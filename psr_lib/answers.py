r"""How an answer is read before it is compared: plain numbers, plain texts, and what would mislead.

Math-Verify reads LaTeX well, but reads some answers as something else and then finds wrong equals:
`52_8` as 52, `\{x|-2 \leq x < 1\}` as 1, an equation as its right side. `tidy` rewrites what it can
not read, `clash` names pairs that it would call equal and are not. Each rule here was found on the
golds of real benchmarks, against each other and against perturbed copies of themselves.

>>> tidy(r"$\{x | -2 \leq x < 1\}$"), clash("52_8", "52_9")
('-2 \\leq x < 1', True)
"""

import re
from fractions import Fraction

LONGEST = 2000  # characters; a longer answer is not compared, except as the same text
DIGITS = 1000  # of a plain number; Python itself refuses to read much longer ones

PLAIN = re.compile(r"[+-]?(\d{1,3}(,\d{3})+|\d+)?(\.\d+)?\.?", re.ASCII)
NUMBERS = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|-?\.\d+")
WRAP = re.compile(r"\\(?:text|mathrm|textbf|mbox)\{([^{}]*)\}")

FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}  # "４" is typed for "4"
GAP = re.compile(r"(?<=\d)(?:\\[,! ]|~|\{,\})(?=\d{3}(?!\d))")
MIXED = re.compile(r"(-?\d+) (\d+)/(\d+)")
SET_BUILDER = re.compile(r"\\?\{\s*[A-Za-z]\s*(?:\||\\mid|:)\s*(.+?)\s*\\?\}")
COUNTED = re.compile(r"([+-]?[\d,]*\.?\d+)\s+([A-Za-z]{3}[A-Za-z .]*)")
NO_UNIT = re.compile(r"percent|hundred|thousand|[mbtr]+illion|dozen|sin|cos|tan|log|sqrt", re.I)
BASE = re.compile(r"[0-9A-F]+_\{?(\d+)\}?")
NAME_INDEX = re.compile(r"_\{\\(max|min)\s*\}")
UNIT_POWER = re.compile(r"\\(?:text|mathrm)\{[^{}]*\}\s*\^\{?(\d+)\}?")
BRACKETED = re.compile(r"(?:\\left)?\(([^()\[\]]*)(?:\\right)?\)")
RELATION = re.compile(r"[=<>]|\\(?:l|g)e(?:q|qslant)?\b|\\neq?\b")
COMMAND = re.compile(r"\\(?:text|mathrm|mbox)\{[^{}]*\}|\\[A-Za-z]+|_\{?\w+\}?")
SUM_OF_NAMES = re.compile(r"[A-Za-z\s+\-*(),'|{}]*")
WORD = re.compile(r"(?<![\\A-Za-z])[a-z]{3,}(?![A-Za-z])")
LINKS = frozenset({"and", "sin", "cos", "tan", "cot", "sec", "csc", "log", "sqrt"})


def last_number(text: str) -> str | None:
    """The last number of a text, as written."""
    found = None
    for match in NUMBERS.finditer(text):
        found = match
    return found.group() if found else None


def plain_number(text: str) -> Fraction | None:
    """An integer or decimal, thousands commas allowed, exactly; None for anything else.

    >>> plain_number("1,234.50") == Fraction("1234.5")
    True
    """
    text = text.strip().strip("$").strip()
    if len(text) > DIGITS or not PLAIN.fullmatch(text) or not any(c.isdigit() for c in text):
        return None
    return Fraction(text.replace(",", "").rstrip("."))


def plain_text(text: str) -> str:
    """A text without dollar signs, \\text wrappers, blanks and case."""
    return "".join(WRAP.sub(r"\1", text).replace("$", "").split()).lower().rstrip(".")


def tidy(text: str) -> str:
    r"""An answer as Math-Verify reads it right; what needs no change stays as it is.

    >>> tidy("1 1/2"), tidy(r"1\,234"), tidy("5 dollars")
    ('1\\frac{1}{2}', '1234', '5')
    """
    text = text.translate(FULL_WIDTH).replace("\\mbox{", "\\text{").strip()
    bare = text.rstrip(".").strip("$").strip()
    text = bare if "$" not in bare else text
    if match := SET_BUILDER.fullmatch(text):
        return match[1]
    if match := MIXED.fullmatch(text):
        return f"{match[1]}\\frac{{{match[2]}}}{{{match[3]}}}"
    if (match := COUNTED.fullmatch(text)) and not NO_UNIT.match(match[2]):
        return match[1]
    return NAME_INDEX.sub(r"_{\1}", GAP.sub("", text))


def aligned(gold: str, answer: str) -> str:
    """The answer, in the gold's brackets where those were left out: `1,2` for `(1,2)`."""
    pair = BRACKETED.fullmatch(gold)
    if pair is None or re.search(r"[()\[\]{}=]", answer):
        return answer
    return f"({answer})" if answer.count(",") == pair[1].count(",") > 0 else answer


def clash(gold: str, answer: str) -> bool:
    r"""Whether two tidy answers differ in what Math-Verify leaves out.

    Number bases and powers of units are compared where both are written; an equation is no answer
    to a gold without a relation, unless its left side is a name or a sum of names (`x + y = 5`).

    >>> clash("5", "x + y = 5"), clash("1", r"\frac{x^2}{2} - y^2 = 1")
    (False, True)
    """
    for pattern in (BASE, UNIT_POWER):
        one, two = (pattern.search(text) for text in (gold, answer))
        if one and two and int(one[1]) != int(two[1]):
            return True
    return not RELATION.search(gold) and _equation(answer)


def _equation(answer: str) -> bool:
    """Whether the left side is more than a name for the right one, or a value that was worked."""
    left, sign, _ = answer.partition("=")
    names = COMMAND.sub("", left.replace("\\frac", "^"))
    worked = not re.search(r"[A-Za-z]", names)
    return bool(sign) and not worked and not SUM_OF_NAMES.fullmatch(names)


def in_words(gold: str) -> bool:
    """Whether a gold answer is a sentence around formulas, which only its text can be held to."""
    words = WORD.findall(WRAP.sub("", tidy(gold)))
    return len([word for word in words if word not in LINKS]) >= 3
