"""Procedural word problems in English whose every step can be checked exactly (the oracle).

A puzzle is a hero, a thing that is counted, and events in reading order. An event counts only if it
is about the hero and that thing; the others are distractors. A backward puzzle tells the end and
asks for the start, so its events are undone from last to first. One step is one event, worked out
digit by digit from the right, because a small model cannot add two numbers in one token burst.

>>> p = parse("Tom has 47 pens. Tom buys 38 pens. Mia buys 5 pens. How many pens does Tom have?")
>>> p.solution()
['Step 1: Tom buys 38. 47 + 38: 7 + 8 = 15, 4 + 3 + 1 = 8, so 85. The answer is \\\\boxed{85}.']
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from psr_lib.records import Problem, PSRError, seed_of

NAMES = ("Tom", "Mia", "Sam", "Ana", "Leo", "Zoe", "Ben", "Eva")
ITEMS = ("apples", "pens", "books", "cards", "coins", "shells", "stamps", "marbles")
COMMON = {
    "buys": "gain",
    "finds": "gain",
    "gets": "gain",
    "sells": "loss",
    "loses": "loss",
    "breaks": "loss",
}
RARE = {"receives": "gain", "collects": "gain", "earns": "gain",
        "borrows": "gain", "inherits": "gain", "gathers": "gain",
        "donates": "loss", "drops": "loss", "lends": "loss",
        "spends": "loss", "misplaces": "loss", "discards": "loss"}  # fmt: skip
KINDS = {**COMMON, **RARE, "times": "times"}
LIMIT = 999  # no value in a problem or its solution is larger
SIGN = {"gain": "+", "loss": "-", "times": "*"}
UNDO = {"+": "-", "-": "+"}


@dataclass(frozen=True)
class Event:
    """Something that happens: `who verb amount what`, or `times` as many."""

    who: str
    verb: str
    amount: int
    what: str

    def sentence(self) -> str:
        if self.verb == "times":
            return f"Then {self.who} has {self.amount} times as many {self.what}."
        return f"{self.who} {self.verb} {self.amount} {self.what}."

    def phrase(self) -> str:
        """How a step names the event."""
        return (
            f"{self.amount} times as many"
            if self.verb == "times"
            else (f"{self.who} {self.verb} {self.amount}")
        )


@dataclass(frozen=True)
class Puzzle:
    """A problem with its structure: `known` is the start, or the end of a backward puzzle."""

    hero: str
    what: str
    known: int
    events: tuple[Event, ...]
    backward: bool = False

    def counts(self, event: Event) -> bool:
        """Whether the event changes what is asked for (it is no distractor)."""
        return event.who == self.hero and event.what == self.what

    def order(self) -> list[Event]:
        """All events in the order in which a solution meets them."""
        return list(reversed(self.events)) if self.backward else list(self.events)

    def path(self) -> list[Event]:
        """The events that a right solution uses, in order."""
        return [event for event in self.order() if self.counts(event)]

    def sign(self, event: Event) -> str:
        """The operation that the event asks for in a right solution."""
        sign = SIGN[KINDS[event.verb]]
        return UNDO[sign] if self.backward else sign

    def text(self) -> str:
        """The question as it is asked."""
        middle = " ".join(event.sentence() for event in self.events)
        if self.backward:
            return (
                f"{self.hero} has some {self.what}. {middle} Now {self.hero} has {self.known} "
                f"{self.what}. How many {self.what} did {self.hero} have at first?"
            )
        return (f"{self.hero} has {self.known} {self.what}. {middle} "
                f"How many {self.what} does {self.hero} have?")  # fmt: skip

    def solution(self) -> list[str]:
        """The right steps."""
        path, value, steps = self.path(), self.known, []
        for index, event in enumerate(path):
            step, value = self.step(index + 1, event, value, final=index == len(path) - 1)
            steps.append(step)
        return steps

    def step(self, k: int, event: Event, value: int, final: bool) -> tuple[str, int]:
        """Step k of a right solution and the value after it."""
        return write_step(k, event, value, self.sign(event), final, undo=self.backward)

    def answer(self) -> int:
        """The gold answer."""
        value = self.known
        for event in self.path():
            value = apply(value, self.sign(event), event.amount)
        return value


def apply(value: int, sign: str, amount: int) -> int:
    """`value sign amount` for +, - and *."""
    return {"+": value + amount, "-": value - amount, "*": value * amount}[sign]


def write_step(
    k: int,
    event: Event,
    value: int,
    sign: str,
    final: bool,
    undo: bool = False,
    drop_carry: int = -1,
    wrong_column: int = -1,
    wrong_by: int = 1,
) -> tuple[str, int]:
    """The text of one step and the value it states.

    `drop_carry` names a column (0 = ones) whose incoming carry is forgotten, `wrong_column` one
    whose digit is off by `wrong_by`; -1 means none, which is a right step.
    """
    lines, result = work(value, sign, event.amount, drop_carry, wrong_column, wrong_by)
    named = f"undo {event.phrase()}" if undo else event.phrase()
    text = f"Step {k}: {named}. {value} {sign} {event.amount}: {', '.join(lines)}, so {result}."
    return (f"{text} The answer is \\boxed{{{result}}}." if final else text), result


def work(
    value: int, sign: str, amount: int, drop_carry: int = -1, wrong_column: int = -1,
    wrong_by: int = 1,
) -> tuple[list[str], int]:  # fmt: skip
    """Column by column from the right: the equations and the number they spell.

    >>> work(47, "+", 38)
    (['7 + 8 = 15', '4 + 3 + 1 = 8'], 85)
    >>> work(141, "-", 47)
    (['11 - 7 = 4', '14 - 4 - 1 = 9', '1 - 0 - 1 = 0'], 94)
    """
    width = len(str(value)) if sign == "*" else max(len(str(value)), len(str(amount)))
    carry, lines, digits = 0, [], []
    for column in range(width):
        given = 0 if column == drop_carry else carry
        top, low = digit(value, column), amount if sign == "*" else digit(amount, column)
        equation, total, carry = _column(top, sign, low, given)
        if column == wrong_column:
            total = (total + wrong_by) % 10 + total // 10 * 10
        lines.append(f"{equation} = {total}")
        digits.append(total % 10)
    result = int("".join(map(str, [carry, *reversed(digits)])))
    return lines, result


def _column(top: int, sign: str, low: int, carry: int) -> tuple[str, int, int]:
    """One column: its left side, its right side, and the carry or borrow to the next."""
    tail = f" {'-' if sign == '-' else '+'} {carry}" if carry else ""
    if sign == "-":
        borrow = int(top - low - carry < 0)
        top += 10 * borrow
        # The borrow is settled within the columns, so the top column hands nothing on.
        return f"{top} - {low}{tail}", top - low - carry, borrow
    total = apply(top, sign, low) + carry
    return f"{top} {sign} {low}{tail}", total, total // 10


def digit(number: int, column: int) -> int:
    """The digit of a non-negative number in a column (0 = ones)."""
    return number // 10**column % 10


# ---------------------------------------------------------------------------- reading text back

LONGEST = 1000  # characters of a step that is read; numbers of thousands of digits are none
_OPEN = re.compile(r"(\w+) has (\d+|some) (\w+)\.")
_EVENT = re.compile(
    r"(?:Then (?P<hero>\w+) has (?P<times>\d+) times as many (?P<thing>\w+)\."
    r"|(?P<who>\w+) (?P<verb>" + "|".join([*COMMON, *RARE]) + r") (?P<n>\d+) (?P<what>\w+)\.)"
)
_END = re.compile(r"Now \w+ has (\d+) \w+\.")
_STEP = re.compile(
    r"^Step (?P<k>\d+): (?P<undo>undo )?(?:(?P<times>\d+) times as many|(?P<who>\w+) (?P<verb>\w+) "
    r"(?P<n>\d+))\. (?P<value>\d+) (?P<sign>[-+*]) (?P<amount>\d+): (?P<work>.+), so "
    r"(?P<result>\d+)\.(?: The answer is \\boxed\{(?P<box>\d+)\}\.)?$"
)


def parse(question: str) -> Puzzle:
    """The puzzle behind a question's text; raises PSRError for a text of another form."""
    opening = _OPEN.match(question)
    if not opening:
        raise PSRError(f"not a procedural word problem: {question[:60]!r}")
    hero, known, what = opening.groups()
    events = tuple(_read_event(match) for match in _EVENT.finditer(question))
    if known != "some":
        return Puzzle(hero, what, int(known), events)
    end = _END.search(question)
    if not end:
        raise PSRError(f"a backward problem without its end: {question[:60]!r}")
    return Puzzle(hero, what, int(end.group(1)), events, backward=True)


def is_procedural(question: str) -> bool:
    """Whether a question is the laboratory's, whose every step the oracle knows."""
    try:
        return parse(question).text() == question
    except PSRError:
        return False


def _read_event(match: re.Match) -> Event:
    if match["times"]:
        return Event(match["hero"], "times", int(match["times"]), match["thing"])
    return Event(match["who"], match["verb"], int(match["n"]), match["what"])


@dataclass(frozen=True)
class Stated:
    """What a step's text says: its event, its value, its operation, its result, its box."""

    verb: str
    amount: int
    value: int
    sign: str
    result: int
    final: bool


def read_step(step: str) -> Stated | None:
    """The parts of a step, or None where it is not written in the laboratory's form."""
    match = _STEP.match(step) if len(step) < LONGEST else None
    if not match:
        return None
    verb = "times" if match["times"] else match["verb"]
    named = int(match["times"] or match["n"])
    return Stated(verb, named, int(match["value"]), match["sign"], int(match["result"]),
                  match["box"] is not None)  # fmt: skip


# ---------------------------------------------------------------------------- the oracle


def position(puzzle: Puzzle, prefix: Sequence[str]) -> tuple[int, int]:
    """Where the steps so far have got to: (place in `puzzle.order()`, value stated last).

    Each step moves the place behind the event that it names; a step that names none moves it behind
    the next event that counts. So a wrong prefix still has a right continuation.
    """
    order, place, value = puzzle.order(), 0, puzzle.known
    for step in prefix:
        stated = read_step(step)
        named = (stated.verb, stated.amount) if stated else None
        later = [i for i in range(place, len(order)) if (order[i].verb, order[i].amount) == named]
        if not later:
            later = [i for i in range(place, len(order)) if puzzle.counts(order[i])]
        place = later[0] + 1 if later else len(order)
        value = stated.result if stated else value
    return place, value


def next_step(puzzle: Puzzle, prefix: Sequence[str]) -> str | None:
    """The right next step after a prefix; None where nothing is left or the value went below 0."""
    place, value = position(puzzle, prefix)
    left = [event for event in puzzle.order()[place:] if puzzle.counts(event)]
    if not left or (puzzle.sign(left[0]) == "-" and value < left[0].amount):
        return None
    return puzzle.step(len(prefix) + 1, left[0], value, final=len(left) == 1)[0]


def is_right(question: str, prefix: Sequence[str], step: str) -> bool:
    """The oracle: whether a step is the right one after this prefix, working included."""
    return step.strip() == next_step(parse(question), prefix)


def oracle_verdict(question: str, prefix: Sequence[str], step_a: str, step_b: str) -> str | None:
    """`A` or `B` if just one of the two is right, else None."""
    right_a, right_b = (is_right(question, prefix, step) for step in (step_a, step_b))
    return None if right_a == right_b else "A" if right_a else "B"


# ---------------------------------------------------------------------------- making problems


@dataclass(frozen=True)
class Level:
    """A kind of problem: how many events count, number size, words, distractors, direction."""

    events: tuple[int, int]
    big: bool = False
    rare: bool = False
    distractors: tuple[int, int] = (0, 0)
    backward: bool = False


LEVELS = {
    "easy": Level((2, 3)),
    "words": Level((2, 4), rare=True),
    "big": Level((2, 3), big=True),
    "distractor": Level((2, 3), distractors=(1, 2)),
    "start": Level((2, 3), backward=True),
    "long": Level((4, 6)),
    "mixed": Level((2, 4), big=True, rare=True, distractors=(0, 1)),
    "longer": Level((7, 8)),
}
TEST_SETS = ("easy", "words", "big", "distractor", "start", "longer")


def make_puzzle(level: Level, rng: random.Random) -> Puzzle:
    """Draw one puzzle of that level; every amount differs, every value stays in 0..999."""
    while True:
        puzzle = _draw(level, rng)
        if puzzle is not None:
            return puzzle


def _draw(level: Level, rng: random.Random) -> Puzzle | None:
    hero, other = rng.sample(NAMES, 2)
    what, thing = rng.sample(ITEMS, 2)
    start = rng.randint(100, 700) if level.big else rng.randint(5, 60)
    events, value = [], start
    for _ in range(rng.randint(*level.events)):
        event = _draw_event(level, hero, what, rng)
        value = apply(value, SIGN[KINDS[event.verb]], event.amount)
        events.append(event)
        if not 1 <= value <= (LIMIT if level.big else 99):
            return None
    for _ in range(rng.randint(*level.distractors)):
        owner, owned = rng.choice([(other, what), (hero, thing)])
        decoy = _draw_event(replace(level, backward=True), owner, owned, rng)
        events.insert(rng.randint(0, len(events)), decoy)
    if len({event.amount for event in events}) < len(events):
        return None
    return Puzzle(hero, what, value if level.backward else start, tuple(events), level.backward)


def _draw_event(level: Level, who: str, what: str, rng: random.Random) -> Event:
    # Undoing a multiplication would need division, and a decoy never multiplies.
    if not level.backward and rng.random() < 0.15:
        return Event(who, "times", rng.randint(2, 5), what)
    verb = rng.choice(list(RARE if level.rare and rng.random() < 0.7 else COMMON))
    return Event(who, verb, rng.randint(20, 400) if level.big else rng.randint(2, 40), what)


def make_problems(
    source: str, levels: Sequence[str], size: int, seed: int, taken: set[str] | None = None
) -> list[Problem]:
    """`size` problems that go through `levels` in turn, none of them in `taken`.

    `taken` (question texts) grows by what is made, so that pools made one after another with the
    same set are disjoint.
    """
    taken = set() if taken is None else taken
    problems: list[Problem] = []
    rng = random.Random(seed_of("problems", source, seed))
    while len(problems) < size:
        level = levels[len(problems) % len(levels)]
        puzzle = make_puzzle(LEVELS[level], rng)
        if puzzle.text() not in taken:
            taken.add(puzzle.text())
            problems.append(_record(puzzle, f"{source}/{level}/{len(problems)}", source, level))
    return problems


def _record(puzzle: Puzzle, name: str, source: str, level: str) -> Problem:
    return Problem(
        id=name, source=source, question=puzzle.text(), answer=str(puzzle.answer()),
        solution="\n".join(puzzle.solution()), meta={"level": level},
    )  # fmt: skip
