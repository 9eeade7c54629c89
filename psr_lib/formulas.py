r"""Where a text holds formulas: what must stay whole when it is cut, and how a formula ends.

LaTeX in all its delimiters, environments, drawings and code; a dollar sign may also be money.

>>> [f.content for f in formulas(r"It costs $5 and $3, so \(5 + 3 = 8.\)")]
['5 + 3 = 8.']
"""

import re
from dataclasses import dataclass

OPENERS = re.compile(
    r"\[asy\]|```|\\begin\{(?P<env>[A-Za-z]+\*?)\}|\$\$|\\\[|\\\(|(?<!\\)\$|\\(?:boxed|text\w*)\{"
)
CLOSERS = {"[asy]": "[/asy]", "```": "```", "$$": "$$", "\\[": "\\]", "\\(": "\\)"}
DISPLAYS = ("\\begin", "$$", "\\[", "```", "[asy]")
PROSE = re.compile(r"(?:\b[A-Za-z]{3,}\b[ ,]+){3}")
TEXT = re.compile(r"\\[A-Za-z]+(?:\{[^{}]*\})?")


@dataclass(frozen=True)
class Formula:
    """A stretch of text that is one formula; `display` if it stands on lines of its own."""

    start: int
    end: int
    text: str
    content: str
    display: bool
    drawing: bool


def formulas(text: str) -> list[Formula]:
    """All formulas of a text in order, none inside another."""
    found, place = [], 0
    dollars = latex_dollars(text)
    while opener := OPENERS.search(text, place):
        close = _close(text, opener, dollars)
        if close is None:
            place = opener.end()
            continue
        found.append(_formula(text, opener, *close))
        place = close[1]
    return found


def _formula(text: str, opener: re.Match, inner: int, end: int) -> Formula:
    whole = text[opener.start() : end]
    return Formula(
        start=opener.start(), end=end, text=whole, content=text[opener.end() : inner],
        display=whole.startswith(DISPLAYS), drawing=whole.startswith("[asy]"),
    )  # fmt: skip


def _close(text: str, opener: re.Match, dollars: bool) -> tuple[int, int] | None:
    """Where the formula's content ends, and where the formula ends; None if it never does."""
    sign, begin = opener.group(), opener.end()
    if opener["env"]:
        return _close_nested(text, begin, sign, f"\\end{{{opener['env']}}}")
    if sign in CLOSERS:
        at = text.find(CLOSERS[sign], begin)
        return None if at < 0 else (at, at + len(CLOSERS[sign]))
    if sign == "$":
        return _close_dollar(text, begin, dollars)
    return _close_nested(text, begin, "{", "}")


def _close_nested(text: str, begin: int, opened: str, closed: str) -> tuple[int, int] | None:
    depth = 1
    for match in re.finditer(f"{re.escape(opened)}|{re.escape(closed)}", text[begin:]):
        depth += 1 if match.group() == opened else -1
        if depth == 0:
            return begin + match.start(), begin + match.end()
    return None


def _close_dollar(text: str, begin: int, latex: bool) -> tuple[int, int] | None:
    """The closing dollar: the next one; beside money only if it hugs its formula, as in Pandoc."""
    match = re.compile(r"(?<!\\)\$").search(text, begin)
    if match is None:
        return None
    at = match.start()
    if not latex:
        content, after = text[begin:at], text[at + 1 : at + 2]
        if not content or content != content.strip() or "\n" in content or after.isdigit():
            return None
    return at, at + 1


def latex_dollars(text: str) -> bool:
    """Whether dollar signs come in pairs around formulas, and none is money."""
    bare = text.replace("$$", "  ")
    parts = re.split(r"(?<!\\)\$", bare)
    inside = parts[1::2]
    if len(parts) % 2 == 0 or any("\n\n" in part for part in inside):
        return False
    return not any(PROSE.search(TEXT.sub(" ", part)) for part in inside) and not _money(parts)


def _money(parts: list[str]) -> bool:
    """Whether what would be formulas begin with amounts and end in blanks, as money between words.

    `$5 bills amount to $` would be a formula of words; `$20 + $` ends in a blank.
    """
    inside, outside = parts[1::2], parts[2::2]
    odd = sum(
        bool(re.match(r"[\d.,]+(?:\s|$)", one)) and one.endswith((" ", "(")) and two[:1].isdigit()
        for one, two in zip(inside, outside, strict=False)
    )
    return odd > 0
