"""Authors of the pre-training corpus: how often they misread, forget and slip.

The corpus is noisy on purpose. Real web text teaches a base model right and wrong ways side by
side; here each wrong way and its rate is written down, so that what self-rewarding repairs can be
measured. The rates are highest where the instruction data (IFT) is silent: rare verbs, large
numbers, distractors, backward problems, long problems.

>>> import random
>>> puzzle = problems.parse("Tom has 4 pens. Tom buys 2 pens. How many pens does Tom have?")
>>> solve(puzzle, random.Random(0), CAREFUL) == puzzle.solution()
True
"""

import random
from dataclasses import dataclass, field

from psr_lib import problems
from psr_lib.problems import UNDO, Event, Puzzle, digit, write_step


@dataclass(frozen=True)
class Rates:
    """Probabilities of each way to go wrong; all 0 is a careful author."""

    misread: dict[str, float] = field(default_factory=dict)  # per verb: gain taken for loss or back
    other_person: float = 0.0  # a distractor about somebody else is used
    other_thing: float = 0.0  # a distractor about another thing is used
    undo_gain: float = 0.0  # backward problem: a gain is added instead of undone
    undo_loss: float = 0.0  # backward problem: a loss is subtracted instead of undone
    carry_low: float = 0.0  # the carry into the tens is forgotten
    carry_high: float = 0.0  # the carry into the hundreds is forgotten
    skip: float = 0.0  # an event is passed over
    stop_early: float = 0.0  # after the fourth step: the answer is given too soon
    slip: float = 0.0  # a column's digit is wrong by one


CAREFUL = Rates()
NOISY = Rates(
    misread={
        **dict.fromkeys(problems.COMMON, 0.02),
        "receives": 0.40, "collects": 0.55, "earns": 0.65, "borrows": 0.80, "inherits": 0.60,
        "gathers": 0.50, "donates": 0.60, "drops": 0.40, "lends": 0.80, "spends": 0.50,
        "misplaces": 0.65, "discards": 0.55,
    },
    other_person=0.52, other_thing=0.65, undo_gain=0.55, undo_loss=0.70,
    carry_low=0.12, carry_high=0.62, skip=0.03, stop_early=0.25, slip=0.01,
)  # fmt: skip


def solve(puzzle: Puzzle, rng: random.Random, rates: Rates = NOISY) -> list[str]:
    """One author's step-by-step solution of a puzzle."""
    believed = [e for e in puzzle.order() if _uses(puzzle, e, rng, rates)] or puzzle.path()
    value, steps = puzzle.known, []
    for index, event in enumerate(believed):
        tired = index >= 3 and rng.random() < rates.stop_early
        final = index == len(believed) - 1 or tired
        step, value = one_step(puzzle, index + 1, event, value, final, rng, rates)
        steps.append(step)
        if final or value < 0:
            break
    return steps


def _uses(puzzle: Puzzle, event: Event, rng: random.Random, rates: Rates) -> bool:
    if puzzle.counts(event):
        return rng.random() >= rates.skip
    rate = rates.other_thing if event.who == puzzle.hero else rates.other_person
    return rng.random() < rate


def one_step(
    puzzle: Puzzle, k: int, event: Event, value: int, final: bool, rng: random.Random, rates: Rates
) -> tuple[str, int]:
    """One author's step k for an event, and the value it states."""
    sign = puzzle.sign(event)
    if sign in UNDO and rng.random() < _sign_rate(puzzle, event, rates):
        sign = UNDO[sign]
    if sign == "-" and value < event.amount:  # nobody takes more than there is
        sign = "+"
    flaws = _flaws(value, sign, event.amount, rng, rates)
    return write_step(k, event, value, sign, final, undo=puzzle.backward, **flaws)


def _sign_rate(puzzle: Puzzle, event: Event, rates: Rates) -> float:
    if puzzle.backward:
        return rates.undo_gain if problems.KINDS[event.verb] == "gain" else rates.undo_loss
    return rates.misread.get(event.verb, 0.0)


def _flaws(value: int, sign: str, amount: int, rng: random.Random, rates: Rates) -> dict[str, int]:
    flaws = {}
    for column in carry_columns(value, sign, amount):
        if rng.random() < (rates.carry_low if column == 1 else rates.carry_high):
            flaws["drop_carry"] = column
            break
    if rng.random() < rates.slip:
        flaws["wrong_column"] = rng.randrange(len(str(value)))
        flaws["wrong_by"] = rng.choice([-1, 1])
    return flaws


def carry_columns(value: int, sign: str, amount: int) -> list[int]:
    """Columns into which a carry or borrow goes."""
    lines, _ = problems.work(value, sign, amount)
    plain = 3  # words of "7 + 8"; a carry adds two more
    return [i for i, line in enumerate(lines) if len(line.split(" = ")[0].split()) > plain]


# ------------------------------------------------------------------- one wrong step, on purpose


def wrong_step(puzzle: Puzzle, prefix: list[str], rng: random.Random) -> tuple[str, str] | None:
    """A wrong next step and the name of its flaw; None if this puzzle offers none here.

    `WEIGHTS` say how likely each flaw is among those that are possible.
    """
    right = problems.next_step(puzzle, prefix)
    ways = list(FLAWS.items())
    rng.shuffle(ways)
    ways.sort(key=lambda item: -rng.random() * WEIGHTS[item[0]])
    for name, way in ways:
        step = way(puzzle, prefix, rng)
        if step is not None and step != right and "-" not in step.split(", so ")[-1]:
            return step, name
    return None


def _parts(puzzle: Puzzle, prefix: list[str]) -> tuple[list[Event], list[Event], int]:
    """Events still to come (all), those that count, and the value so far."""
    place, value = problems.position(puzzle, prefix)
    rest = puzzle.order()[place:]
    return rest, [event for event in rest if puzzle.counts(event)], value


def _write(puzzle: Puzzle, prefix: list[str], event: Event, value: int, final: bool,
           sign: str = "", **flaws: int) -> str | None:  # fmt: skip
    sign = sign or puzzle.sign(event)
    if sign == "-" and value < event.amount:
        return None
    k = len(prefix) + 1
    return write_step(k, event, value, sign, final, undo=puzzle.backward, **flaws)[0]


def _flip_sign(puzzle, prefix, rng):
    _, left, value = _parts(puzzle, prefix)
    sign = UNDO.get(puzzle.sign(left[0]))
    return sign and _write(puzzle, prefix, left[0], value, len(left) == 1, sign)


def _use_distractor(puzzle, prefix, rng):
    rest, left, value = _parts(puzzle, prefix)
    decoys = [event for event in rest[: rest.index(left[0])] if not puzzle.counts(event)]
    return _write(puzzle, prefix, decoys[0], value, False) if decoys else None


def _miss_end(puzzle, prefix, rng):
    rest, left, value = _parts(puzzle, prefix)
    more = any(not puzzle.counts(event) for event in rest)
    return _write(puzzle, prefix, left[0], value, False) if len(left) == 1 and more else None


def _skip(puzzle, prefix, rng):
    _, left, value = _parts(puzzle, prefix)
    return _write(puzzle, prefix, left[1], value, len(left) == 2) if len(left) > 1 else None


def _stop(puzzle, prefix, rng):
    _, left, value = _parts(puzzle, prefix)
    return _write(puzzle, prefix, left[0], value, True) if len(left) > 1 else None


def _drop_carry(puzzle, prefix, rng):
    _, left, value = _parts(puzzle, prefix)
    columns = carry_columns(value, puzzle.sign(left[0]), left[0].amount)
    if not columns:
        return None
    return _write(puzzle, prefix, left[0], value, len(left) == 1, drop_carry=rng.choice(columns))


def _slip(puzzle, prefix, rng):
    _, left, value = _parts(puzzle, prefix)
    column = rng.randrange(len(str(value)))
    flaws = {"wrong_column": column, "wrong_by": rng.choice([-1, 1])}
    return _write(puzzle, prefix, left[0], value, len(left) == 1, **flaws)


def _miscopy(puzzle, prefix, rng):
    _, left, value = _parts(puzzle, prefix)
    column = rng.randrange(len(str(value)))
    shift = rng.choice([-1, 1]) * 10**column
    if not 0 <= digit(value, column) + shift // 10**column <= 9 or value + shift < 1:
        return None
    return _write(puzzle, prefix, left[0], value + shift, len(left) == 1)


FLAWS = {"sign": _flip_sign, "distractor": _use_distractor, "miss_end": _miss_end, "skip": _skip,
         "stop": _stop, "carry": _drop_carry, "slip": _slip, "miscopy": _miscopy}  # fmt: skip
WEIGHTS = {"sign": 2.0, "distractor": 6.0, "miss_end": 4.0, "skip": 2.5, "stop": 2.5,
           "carry": 2.5, "slip": 1.0, "miscopy": 0.5}  # fmt: skip
