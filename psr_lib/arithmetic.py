r"""Equations that stand in a text, and whether they hold: a small reader of school arithmetic.

It reads numbers with + - * / ^ and brackets as people write them between words: units, money, per
cent, LaTeX. Nothing is evaluated but what it has read itself, and exactly, in fractions. Where a
side holds anything else (an unknown, two numbers in a row, a percentage added to a number, another
unit) the equation is not read at all, since a wrong reading would call a right step wrong.

>>> found = equations("30 onions / 15 onions/minute = 2 minutes, so 2 x 4 = $9.")
>>> [(str(equation), equation.holds) for equation in found]
[('30 / 15 = 2', True), ('2 * 4 = 9', False)]
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

LONGEST = 4000  # characters of a text that are read
TOKENS = 100  # of a side
DIGITS, POWER, LARGE = 15, 9, 10**6  # of a number, largest exponent and base: nothing explodes
NUMBER = r"(?:\d+(?:\.\d+)?|\.\d+)"
COUNTS = (
    "hundreds?|thousands?|[mbtr]+illions?|dozens?|percent|halves|half|thirds?|quarters?|fourths?|"
    "fifths?|tenths?|minus|plus|squared|cubed"
)
UNIT = rf"\s+(?!(?:{COUNTS}|times|than|of|more|less|and|or|is|are)\b)[A-Za-z][A-Za-z'’]+"
SPELLED = (
    (r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}", r"((\1)/(\2))"),
    (r"\\(?:boxed|text|mathrm|mbox|textbf)\{([^{}]*)\}", r" \1 "),
    (r"\\times|\\cdot|[×·∗]", "*"), (r"\\div|÷", "/"), (r"[−–]", "-"), (r"\\approx", "≈"),
    (r"\\(?:left|right|[,;:! ()\[\]])|\\?[$£€]|\{,\}", ""), (r"\\%", "%"),
    (r"^\s*[-*•]\s+|\.(?=\s|$)|\n", " ; "),  # a list's mark is no sign; a sentence ends
    (r"(?<=[\d)%])\s*(?:[xX]|times|multiplied by)\s*(?=[\d(.])", " * "),
    (r"(?<=[\d)])\s+plus\s+(?=\d)", " + "), (r"(?<=[\d)])\s+minus\s+(?=\d)", " - "),
    (r"(?<=[\d)])\s+divided by\s+(?=\d)", " / "),
    (r"(?<=[A-Za-z\d])-(?=[A-Za-z])", " "),  # a 40-foot shark
    (r"/\s*(?=[A-Za-z])", " per "),  # 5 apples/day
    (r"(?<=\d),(?=\d{3}(?!\d))", ""),
    (rf"({NUMBER}|\))(%?)(?:{UNIT}){{1,5}}\s*(?=[-+*/^=≈)])", r"\1\2 "),
)  # fmt: skip
REWRITTEN = tuple((re.compile(found, re.MULTILINE), plain) for found, plain in SPELLED)
RUN = re.compile(r"[\d.+\-*/^()%\s=≈]*[=≈][\d.+\-*/^()%\s=≈]*")
TOKEN = re.compile(rf"{NUMBER}|\*\*|[-+*/^()%]")
# What makes something else of the number beside it: half of 10 + 2, 5 more than 3 * 4, 2x, 1,5.
AHEAD = re.compile(
    rf"(?:[A-Za-z_\\{{}}]|\d[,:]|\b(?:{COUNTS}|than|times|by|twice|double|triple|negative)\s+|"
    rf"(?:\b(?:{COUNTS})|%)\s+of\s+(?:\w+\s+)?|(?:^|\s)[B-HJ-Zb-z]\s+)$"
)
BEHIND = re.compile(
    rf"[A-Za-z_\\{{]|[,:]\d|\s+(?:(?:\w+\s+)?per\s+)?[B-HJ-Zb-z]\b|\s+(?:{COUNTS}|and\s+\d+/\d+)\b"
)
# A wrong equation whose sides differ by one of these may only go over to another unit.
UNITS_APART = frozenset({7, 12, 16, 24, 30, 36, 52, 60, 100, 365, 1000, 3600})


class Unread(ValueError):
    """A side that is no plain arithmetic."""


@dataclass(frozen=True)
class Side:
    """One side of an equation: its tokens, and its exact value."""

    tokens: tuple[str, ...]
    value: Fraction

    @property
    def plain(self) -> bool:
        """Whether it is a number, not an operation."""
        return len(self.tokens) - self.tokens.count("%") - (self.tokens[0] == "-") == 1

    @property
    def places(self) -> int:
        """Decimals of a plain number, 0 for an operation."""
        number = next(token for token in self.tokens if token not in "-%()")
        return len(number.partition(".")[2]) if self.plain else 0

    def __str__(self) -> str:
        text = " ".join(self.tokens).replace("( ", "(").replace(" )", ")").replace(" %", "%")
        return re.sub(r"^- |(?<=\()- ", "-", text)


@dataclass(frozen=True)
class Equation:
    """Two sides, and whether they are equal.

    A number that is written with decimals may be rounded in its last place, after `≈` any number.
    """

    left: Side
    right: Side
    holds: bool

    def __str__(self) -> str:
        return f"{self.left} = {self.right}"


def equations(text: str) -> list[Equation]:
    """Every equation of a text in which something is worked out and both sides can be read."""
    found = []
    for sides, signs in chains(text):
        for left, right, sign in zip(sides, sides[1:], signs, strict=False):
            if left and right and not (left.plain and right.plain):
                holds = equal(left, right, sign == "≈")
                if holds or not may_mean_more(left, right):
                    found.append(Equation(left, right, holds))
    return found


def chains(text: str) -> Iterator[tuple[list[Side | None], list[str]]]:
    """The sides of each `a = b = c` in a text, None where one cannot be read, and its signs."""
    text = text[:LONGEST]
    for pattern, plain in REWRITTEN:
        text = pattern.sub(plain, text)
    for match in RUN.finditer(text):
        parts = re.split("([=≈])", match.group())
        begin = match.end() - len(match.group().lstrip())
        end = match.start() + len(match.group().rstrip())
        sides = [read(part) for part in _trimmed(parts[::2])]
        joined = re.match(r"\s*(?:[+*/^]|-\s)", parts[0]) and re.search(r"\w\s*$", text[:begin])
        sides[0] = None if joined or AHEAD.search(text[:begin]) else sides[0]
        sides[-1] = None if BEHIND.match(text[end:]) else sides[-1]
        yield sides, parts[1::2]


def _trimmed(parts: list[str]) -> list[str]:
    """The outer sides without brackets and dashes that belong to the sentence."""
    first = re.sub(r"^[\s.]+(?=\s)", "", parts[0]).strip()
    last = re.sub(r"\s+-\s*$|\(\s*$|\.+\s*$", "", parts[-1]).strip()
    while first.count("(") > first.count(")") and first.startswith("("):
        first = first[1:].strip()
    while last.count(")") > last.count("(") and last.endswith(")"):
        last = last[:-1].strip()
    return [first, *parts[1:-1], last]


def equal(left: Side, right: Side, about: bool = False) -> bool:
    """Whether two sides are equal, as far as the decimals of a plain number say."""
    places = [side.places for side in (left, right) if side.plain]
    within = [Fraction(1, 10**count) for count in places if count or about]
    gap = min(abs(a - b) for a in _readings(left) for b in _readings(right))
    return gap < within[0] if within else gap == 0


def _readings(side: Side) -> list[Fraction]:
    """A percentage may stand for its number too: 5/20 * 100 = 25%, 5/20 * 100% = 25."""
    percent = (side.plain and "%" in side.tokens) or side.tokens[-2:] == ("100", "%")
    return [side.value, side.value * 100] if percent else [side.value]


def may_mean_more(left: Side, right: Side) -> bool:
    """Whether sides that differ may be right all the same, so that nothing is shown.

    They go over to another unit, or the left names a number that is then worked out (`4.5 gallons =
    4.5 * 8 pints`), or divides by a fraction without brackets, or the right is the whole part of a
    quotient.
    """
    one, other = left.value, right.value
    if one and other and {one / other, other / one} & UNITS_APART:
        return True
    whole = right.plain and other.denominator == 1 and one.denominator > 1 and abs(one - other) < 1
    return left.plain or whole or left.tokens.count("/") > 1


def read(text: str) -> Side | None:
    """A side as numbers and signs; None where it holds anything else.

    >>> str(read("(3+4)*2").value), read("3 4")
    ('14', None)
    """
    tokens = TOKEN.findall(text)
    try:
        if not 0 < len(tokens) <= TOKENS or "".join(tokens) != "".join(text.split()):
            raise Unread
        if "%" in tokens and _adds_a_percentage(tokens):
            raise Unread
        return Side(tuple(tokens), _Reader(tokens).whole())
    except (Unread, ZeroDivisionError):
        return None


def _adds_a_percentage(tokens: Sequence[str]) -> bool:
    """70 + 10% means 77 to most people; 100% - 25% is clear."""
    numbers = sum(token[-1].isdigit() for token in tokens)
    return bool({"+", "-"} & set(tokens)) and tokens.count("%") != numbers


class _Reader:
    """Reads a sum of products of powers."""

    def __init__(self, tokens: Sequence[str]):
        self.tokens, self.at = [*tokens, ""], 0

    @property
    def next(self) -> str:
        return self.tokens[self.at]

    def take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def whole(self) -> Fraction:
        value = self.sum()
        if self.next:
            raise Unread
        return value

    def sum(self) -> Fraction:
        value = self.product()
        while self.next in ("+", "-"):
            value += self.product() if self.take() == "+" else -self.product()
        return value

    def product(self) -> Fraction:
        value = self.power()
        while self.next in ("*", "/", "("):
            if self.next == "(" or self.take() == "*":
                value *= self.power()
            else:
                value /= self.power()
        return value

    def power(self) -> Fraction:
        value = self.atom()
        if self.next not in ("^", "**"):
            return value
        self.take()
        exponent = self.atom()
        if exponent.denominator != 1 or not 0 <= exponent <= POWER or abs(value) > LARGE:
            raise Unread
        return value ** int(exponent)

    def atom(self) -> Fraction:
        token = self.take()
        if token == "-":
            return -self.power()
        if token == "(":
            value = self.sum()
            if self.take() != ")":
                raise Unread
            return value
        if not token or not token[-1].isdigit() or len(token) > DIGITS:
            raise Unread
        percent = self.next == "%" and self.take()
        return Fraction(token) / (100 if percent else 1)
