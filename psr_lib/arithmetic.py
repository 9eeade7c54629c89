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
from functools import lru_cache

LONGEST = 4000  # characters of a text that are read
TOKENS = 100  # of a side
DIGITS, POWER, LARGE = 15, 9, 10**6  # of a number, largest exponent and base: nothing explodes
BITS = 4096  # of a numerator or denominator: a small fraction's powers of powers explode too
NUMBER = r"(?:\d++(?:\.\d++)?+|\.\d++)"  # taken whole, so that a long one is passed over once
FIRST = rf"(?<!\d){NUMBER}"  # where one is looked for anywhere, so that no digit begins another
COUNTS = (
    "hundreds?|thousands?|[mbtr]+illions?|dozens?|percent|halves|half|thirds?|quarters?|fourths?|"
    "fifths?|tenths?|minus|plus|squared|cubed"
)
MEASURES = (
    "hour|hr|minute|min|second|sec|day|week|month|year|dollar|cent|feet|foot|inch|yard|mile|pound|lb|"
    "ounce|oz|gallon|quart|pint|cup|lit(?:er|re)|met(?:er|re)|k?g(?:ram)?|kilo|[cmk]?m|m?l"
)
UNIT = rf"\s+(?!(?:{COUNTS}|times|than|of|more|less|and|or|is|are|pi)\b)[A-Za-z][A-Za-z'’]+"
SPELLED = (
    (r"(?<=\d)\s+(?=\\[dt]?frac)", ""),  # 1 1/2, which stays as it is and so is not read
    (r"(?<!\d)\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}", r"((\1)/(\2))"),
    (r"\\(?:boxed|text|mathrm|mbox|textbf)\{([^{}]*)\}", r" \1 "),
    (r"\\times|\\cdot|[×·∗]", "*"), (r"\\div|÷", "/"), (r"[−–]", "-"), (r"\\approx", "≈"),
    (r"²", "^2"), (r"³", "^3"),
    # Left with a sign that is not read: 1 and 1/2, $2 + 50 cents, 2 hours + 30 minutes.
    (r"(?<=\d)\s+and\s+(?=\d+/\d)", r"\\"),
    (rf"([$]\s?{NUMBER})\s*[-+]\s*(?={NUMBER}\s+cents?\b)", r"\1\\"),
    (rf"({FIRST})\s+({MEASURES})(?:e?s)?\s*[-+]\s*"
     rf"(?={NUMBER}\s+(?!\2)(?:{MEASURES})(?:e?s)?\b)", r"\1\\"),
    (r"\\(?:left|right|[,;:! ()\[\]])|\\?[$£€]|\{,\}", ""), (r"\\%", "%"),
    (r"^\s*[-*•]\s+|\.(?=\s|$)|\n", " ; "),  # a list's mark is no sign; a sentence ends
    (r"(?<=[\d)%])\s*(?:[xX]|times|multiplied by)\s*(?=[\d(.])", " * "),
    (r"(?<=[\d)])\s+plus\s+(?=\d)", " + "), (r"(?<=[\d)])\s+minus\s+(?=\d)", " - "),
    (r"(?<=[\d)])\s+divided by\s+(?=\d)", " / "),
    (r"(?<=[A-Za-z\d])-(?=[A-Za-z])", " "),  # a 40-foot shark
    (r"/\s*(?=[A-Za-z])", " per "),  # 5 apples/day
    (r"(?<=\d),(?=\d{3}(?!\d))", ""),
    (rf"({FIRST}|\))(%?)(?:{UNIT}){{1,5}}\s*\^\s*\{{?[23]\}}?", r"\1\2 "),  # 15 cm^2
    (rf"({FIRST}|\))(%?)(?:{UNIT}){{1,5}}\s*(?=[-+*/^=≈)])", r"\1\2 "),
)  # fmt: skip
REWRITTEN = tuple((re.compile(found, re.MULTILINE), plain) for found, plain in SPELLED)
IN_RUN = r"[\d.+\-*/^()%\s=≈]"
RUN = re.compile(rf"(?<!{IN_RUN}){IN_RUN}*[=≈]{IN_RUN}*")
TOKEN = re.compile(rf"{NUMBER}|\*\*|[-+*/^()%]")
# What makes something else of the number beside it: half of 10 + 2, 5 more than 3 * 4, 2x, 1,5,
# 25 pupils + their 2 teachers.
AHEAD = re.compile(
    rf"(?:[A-Za-z_\\{{}}√]|\d[,:]|\b(?:{COUNTS}|than|times|by|twice|double|triple|negative|log|ln)\s+|"
    rf"(?:\b(?:{COUNTS}|root|square|cube|average|mean)|[%\d])\s+of\s+(?:\w+\s+)?|"
    r"[-+*/]\s+(?:[A-Za-z]+\s+){1,3}|(?:^|\s)[B-HJ-Zb-z]\s+)$"
)
BEHIND = re.compile(
    rf"[A-Za-z_\\{{]|[,:]\d|\s+(?:(?:\w+\s+)?per\s+)?[B-HJ-Zb-z]\b|\s+(?:{COUNTS})\b"
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
    def percent(self) -> bool:
        """Whether it is a percentage, or is worked out as one."""
        return (self.plain and "%" in self.tokens) or self.tokens[-2:] == ("100", "%")

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
    return list(_equations(text[:LONGEST]))


@lru_cache(maxsize=1024)  # a step is read again for each of those after it
def _equations(text: str) -> tuple[Equation, ...]:
    found = []
    for sides, signs in chains(text):
        for left, right, sign in zip(sides, sides[1:], signs, strict=False):
            if left and right and not (left.plain and right.plain):
                holds = equal(left, right, sign == "≈")
                if holds or not may_mean_more(left, right):
                    found.append(Equation(left, right, holds))
    return tuple(found)


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
    return any(
        a == b or abs(a - b) < one + other
        for a, one in _readings(left, about) for b, other in _readings(right, about)
    )  # fmt: skip


def _readings(side: Side, about: bool) -> list[tuple[Fraction, Fraction]]:
    """What a side may stand for, and how far that may be rounded.

    A percentage may stand for its number too: 5/20 * 100 = 25%, 5/20 * 100% = 25.
    """
    rounded = side.plain and (side.places or about)
    off = Fraction(1, 10**side.places) if rounded else Fraction(0)
    if side.percent:
        return [(side.value, off / 100), (side.value * 100, off)]
    return [(side.value, off)]


def may_mean_more(left: Side, right: Side) -> bool:
    """Whether sides that differ may be right all the same, so that nothing is shown.

    They go over to another unit, or the left names a number that is then worked out (`4.5 gallons =
    4.5 * 8 pints`), or divides by a fraction without brackets, or the right is the whole part of a
    quotient.
    """
    one, other = left.value, right.value
    if one and other and {one / other, other / one} & UNITS_APART:
        return True
    return left.plain or _whole_part(left, right) or left.tokens.count("/") > 1


def _whole_part(left: Side, right: Side) -> bool:
    """Whether the right side is a whole number, or per cent, next to the left one."""
    whole = any(value.denominator == 1 for value, _ in _readings(right, True))
    return right.plain and whole and left.value.denominator > 1 and equal(left, right, True)


def read(text: str) -> Side | None:
    """A side as numbers and signs; None where it holds anything else.

    >>> str(read("(3+4)*2").value), read("3 4")
    ('14', None)
    """
    tokens = TOKEN.findall(text)
    try:
        if not 0 < len(tokens) <= TOKENS or "".join(tokens) != "".join(text.split()):
            raise Unread
        if re.search(r"\d\s+\(", text):  # 4 (15 minutes each)
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


def _limit(*values: Fraction) -> None:
    """Raise Unread where the sum or product of these could be too long to work with."""
    if sum(max(v.numerator.bit_length(), v.denominator.bit_length()) for v in values) > BITS:
        raise Unread


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
            sign, term = self.take(), self.product()
            _limit(value, term)
            value += term if sign == "+" else -term
        return value

    def product(self) -> Fraction:
        value = self.power()
        while self.next in ("*", "/", "("):
            times = self.next == "(" or self.take() == "*"
            factor = self.power()
            _limit(value, factor)
            value = value * factor if times else value / factor
        return value

    def power(self) -> Fraction:
        value = self.atom()
        if self.next not in ("^", "**"):
            return value
        self.take()
        exponent = self.atom()
        if exponent.denominator != 1 or not 0 <= exponent <= POWER or abs(value) > LARGE:
            raise Unread
        _limit(*[value] * int(exponent))
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
        if token[0] == "0" and token[1:2].isdigit():  # a time of day, a code
            raise Unread
        percent = self.next == "%" and self.take()
        return Fraction(token) / (100 if percent else 1)
