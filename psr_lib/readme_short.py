"""The README's few sentences on what the kept runs show, each written from their numbers."""

from collections.abc import Iterator

from psr_lib.evidence import GREEDY, JUDGE, Evidence, NotRun
from psr_lib.paper_tables import OURS
from psr_lib.seeds import Estimate

BASELINE, SEARCH = "srlm", "search"


def sentences(found: Evidence) -> list[str]:
    """What the rounds, the controls, the baseline, search and the judge show; what has not been
    run is left out."""
    models = found.models(OURS)
    if "M1" not in models or models[-1] in ("M0", "M1"):
        return []
    first, last = "M1", models[-1]
    makers = (rounds, controls, baseline, searching, judging)
    return [line for make in makers for line in _told(make(found, first, last))]


def _told(lines: Iterator[str]) -> list[str]:
    try:
        return list(lines)
    except NotRun:
        return []


def points(change: Estimate) -> str:
    """A change with its interval, such as `+1.5 points [+0.2, +2.8]`."""
    return f"{change.value:+.1f} points [{change.low:+.1f}, {change.high:+.1f}]"


def rounds(found: Evidence, first: str, last: str) -> Iterator[str]:
    """What the rounds changed, and on which test sets."""
    ends = (OURS, first, GREEDY), (OURS, last, GREEDY)
    sets = {name: found.change(*ends, (name,)).value for name in found.sets}
    order = sorted(sets, key=lambda name: -sets[name])
    each = ", ".join(f"{name} {sets[name]:+.1f}" for name in order)
    yield f"`{OURS}` from {first} to {last}: {points(found.change(*ends))}. By test set: {each}."


def controls(found: Evidence, first: str, last: str) -> Iterator[str]:
    """Which methods the last model is above, below, or not told apart from."""
    told: dict[str, list[str]] = {"above": [], "below": [], "not told apart from": []}
    for method in found.methods:
        if method != OURS:
            try:
                lead = found.change((method, last, GREEDY), (OURS, last, GREEDY))
            except NotRun:
                continue
            where = "above" if lead.low > 0 else "below" if lead.high < 0 else "not told apart from"
            told[where].append(f"`{method}` ({lead.value:+.1f})")
    parts = [f"{where} {', '.join(names)}" for where, names in told.items() if names]
    if parts:
        yield f"{last} of `{OURS}` is {'; '.join(parts)}."


def baseline(found: Evidence, first: str, last: str) -> Iterator[str]:
    """Where the baseline starts, and what each gains from there."""
    level = {name: found.share((name, first, GREEDY)).value for name in (BASELINE, OURS)}
    gain = found.change((BASELINE, first, GREEDY), (BASELINE, last, GREEDY))
    yield (
        f"`{BASELINE}` starts from an {first} of its own, which solves {level[BASELINE]:.1f} % "
        f"where that of `{OURS}` solves {level[OURS]:.1f} %; from there it gains {points(gain)}."
    )


def searching(found: Evidence, first: str, last: str) -> Iterator[str]:
    """Search by the model's own judge against greedy decoding, at both ends."""
    gains = [found.change((OURS, name, GREEDY), (OURS, name, SEARCH)) for name in (first, last)]
    yield (
        f"Step search by the model's own judge, against greedy decoding: {points(gains[0])} with "
        f"{first}, {points(gains[1])} with {last}."
    )


def judging(found: Evidence, first: str, last: str) -> Iterator[str]:
    """The judge on held-out pairs, at both ends."""
    share = found.share((OURS, first, JUDGE))
    change = found.change((OURS, first, JUDGE), (OURS, last, JUDGE))
    yield (
        f"The judge on held-out pairs: {share.value:.1f} % right at {first}; to {last} it changes "
        f"by {points(change)}."
    )
