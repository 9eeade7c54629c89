r"""Cut a worked solution into steps without changing a word of it (paper section 3.2, Figure 3).

The offline teacher `rule`. It knows formulas, which are never cut; lines and paragraphs, where a
solution says by itself that something new begins; sentences; and equations: a step ends with the
sentence that states a result, so what only prepares it stays with it. The answer's step is last.

>>> cut("Half of 48 is 48 / 2 = 24. Together that is 48 + 24 = 72. The answer is \\boxed{72}.")
['Half of 48 is 48 / 2 = 24.', 'Together that is 48 + 24 = 72. The answer is \\boxed{72}.']
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from psr_lib.formulas import Formula, formulas

SHORT = 30  # characters; a shorter beginning waits for what follows it
NEAR = 60  # characters looked at on either side of a gap
LONG = 240  # characters; so much prose is a step even if it states no result

END = re.compile(r"[.?!…][)\]}\"'’”*_]*$")
FACTORIAL = re.compile(r"[\d)}\w]!$")
ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|cf|vs|etc|resp|approx|w\.l\.o\.g|Mr|Mrs|Ms|Dr|St|Prof|Jr|Sr|Fig|Eqs?|No|Nos|"
    r"Thm|Prop|Sec|Ch|Vol|pp?|a\.m|p\.m|viz)|\b[A-Z][a-z]+ [A-Z]|\.\.)\.$"
)
LABEL = re.compile(
    r"[\s*#(_\-•]*(?:(?:Case|Step|Part|Method|Solution|Claim|Lemma|Remark|Note)\s+)?"
    r"(?:\d{1,2}|[A-Za-z]|[ivxIVX]{1,4})?[.):]+[\s*_]*"
)
START = re.compile(r"[A-Z\d$\\(\[\"'“‘*#•\-–—<√~|&\x01À-ÖØ-ÞΑ-Ωα-ω]")
ITEM = re.compile(
    r"(?:\d{1,2}[.)]\s|[-*•]\s|#{1,6}\s|\([a-zA-Z\d]{1,3}\)\s|\*\*|(?:Step|Case|Part|Method)\s+\w+\s*[:.])"
)
OPEN_END = re.compile(
    r"(?:[,:;=+*/×÷<>≤≥&(\[{\-–]|\\\\|\b(?:the|an?|of|and|or|is|are|by|to|that|with|for|from|"
    r"if|then|where|since|because|have|has|gives|equals))$"
)
CONTINUES = re.compile(r"(?:[,.;:=+*/×÷<>≤≥)\]}&]|-\s?\d)")
RESULT = re.compile(
    r"[=<>≤≥≈≡≠∈→⇒]|\\(?:[lg]eq?(?:slant)?|approx|equiv|sim|cong|neq?|in|mid|implies|Rightarrow|"
    r"to|rightarrow|boxed|subset\w*|parallel|perp)\b"
)
BARE_ANSWER = re.compile(
    r"(?:\w+,? ){0,3}(?:the |our |my )?(?:final |desired |correct )?answer (?:is|=|:)?\s*"
    r"[$\\(\[]*\s*\\boxed\{.*\}[^A-Za-z]*"
    r"|[$\\(\[\s]*\\boxed\{.*\}[^A-Za-z]*",
    re.DOTALL,
)


class Piece(NamedTuple):
    """A sentence, or what stands for one; `block` counts the lines or paragraphs before it."""

    text: str
    block: int
    result: bool


def cut(solution: str) -> list[str]:
    """The steps of a solution, in order, without marks; joined they are the solution.

    A solution of several sentences never comes back whole, unless its first sentence has the
    answer: nothing may follow the step that boxes it.
    """
    pieces = sentences(solution)
    steps = answer_last(grouped(pieces))
    return steps if len(steps) > 1 else answer_last([piece.text for piece in pieces])


def grouped(pieces: Iterable[Piece]) -> list[str]:
    """Sentences put together until they state a result, within their line or paragraph.

    What is left of a paragraph and too short for a step goes to the step before it, or, where the
    paragraph has none, to what follows.
    """
    steps: list[str] = []
    held, result, block, last = "", False, -1, -1  # `last`: the block of the last step
    for piece in pieces:
        if held and piece.block != block:
            if result or len(held.strip()) >= SHORT:
                steps, held, last = [*steps, held], "", block
            elif last == block:
                steps, held = [*steps[:-1], steps[-1] + held], ""
            result = result and bool(held)
        held, block, result = held + piece.text, piece.block, result or piece.result
        if (result and len(held.strip()) >= SHORT) or len(held) >= LONG:
            steps, held, last, result = [*steps, held], "", block, False
    return _with_rest(steps, held)


def _with_rest(steps: list[str], rest: str) -> list[str]:
    """A last piece that is too short for a step belongs to the one before it."""
    if not rest.strip():
        return steps
    if steps and len(rest.strip()) < SHORT:
        return [*steps[:-1], steps[-1] + rest]
    return [*steps, rest]


def answer_last(steps: list[str]) -> list[str]:
    """All that follows the box goes into its step; a step that only repeats the answer, too."""
    first = next((k for k, step in enumerate(steps) if "\\boxed" in step), len(steps) - 1)
    steps = [*steps[:first], "".join(steps[first:])]
    if len(steps) > 2 and BARE_ANSWER.fullmatch(steps[-1].strip()):
        steps = [*steps[:-2], steps[-2] + steps[-1]]
    return [step.strip() for step in steps if step.strip()]


def sentences(text: str) -> list[Piece]:
    """The sentences of a text with their white space; a formula is never cut, lines may be ends."""
    spans = formulas(text)
    pieces, start, block = [], 0, 0
    for place, new_block in _ends(text, spans):
        if not LABEL.fullmatch(text[start:place].strip()):
            pieces.append(_piece(text[start:place], block, spans, start))
            start = place
        block += new_block
    if text[start:].strip():
        pieces.append(_piece(text[start:], block, spans, start))
    return pieces


def _piece(text: str, block: int, spans: list[Formula], start: int) -> Piece:
    shown = text
    for span in spans:  # a drawing's code is full of signs that state nothing
        if span.drawing and start <= span.start < start + len(text):
            shown = shown.replace(span.text, "")
    return Piece(text, block, bool(RESULT.search(shown)))


def _ends(text: str, spans: list[Formula]) -> Iterable[tuple[int, bool]]:
    """Where sentences and lines end: the place of the next one, and whether it begins a block."""
    inside = {k for span in spans for k in range(span.start + 1, span.end)}
    last = {span.end: span for span in spans}
    first = {span.start: span for span in spans}
    lines = _by_lines(text, spans)
    for gap in re.finditer(r"\s+|(?<=[\]$}])(?=[A-Z\[$\\])", text):
        begin, end = gap.span()
        if not begin or end == len(text) or inside & {begin, end}:
            continue
        before, after = last.get(begin), first.get(end)
        if begin == end and not (before and before.display):
            continue
        left, right = text[max(0, begin - NEAR) : begin], text[end : end + NEAR]
        found = _end(left, right, gap.group(), before, after, lines)
        if found is not None:
            yield end, found


def _end(
    left: str, right: str, gap: str, before: Formula | None, after: Formula | None, lines: bool
) -> bool | None:
    """Whether the gap begins a block (True), only a sentence (False), or neither (None)."""
    said = before.content.rstrip() if before else left.rstrip("*_")
    stops = bool(END.search(said)) and not (before is None and ABBREVIATION.search(said))
    block = gap.count("\n") > 1 or (lines and "\n" in gap) or ("\n" in gap and _item(right))
    if after and (after.drawing or (after.display and not stops)):
        return None  # a drawing or a displayed formula belongs to what introduces it
    if block:
        return None if _goes_on(said, right, before, stops) else True
    if before and before.display and not stops:
        stops = bool(re.match(r"[A-Z][a-z]*\b", right)) and not said.endswith((",", "and", "="))
    return False if stops and _begins(said, right) else None


def _item(right: str) -> bool:
    return bool(ITEM.match(right))


def _goes_on(said: str, right: str, before: Formula | None, stops: bool) -> bool:
    """Whether a new line only carries on: it or the line before it is no whole thought."""
    if _item(right):
        return False
    if CONTINUES.match(right) or (not stops and re.match(r"[a-z]{2,}\b", right)):
        return True
    return not stops and bool(OPEN_END.search(said)) and not (before and before.display)


def _begins(said: str, right: str) -> bool:
    """Whether a sentence can begin so; after a factorial only a word can."""
    if FACTORIAL.search(said):
        return bool(re.match(r"[A-Z][a-z]", right))
    return bool(START.match(right)) and not CONTINUES.match(right)


def _by_lines(text: str, spans: list[Formula]) -> bool:
    """Whether each line of a text is a thought: there are no paragraphs or displayed formulas."""
    return "\n" in text.strip() and "\n\n" not in text and not any(s.display for s in spans)
