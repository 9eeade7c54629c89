"""A step search as a tree: what was proposed at each step, what was kept, what was rolled back.

A visit stands below the candidate that it goes on from; a step that was sampled again stands below
its first attempt. Works for the paper's search and for `search.kind=mcts`, whose visits may go on
from any candidate.
"""

from dataclasses import dataclass, field

from psr_lib import show_marks
from psr_lib.markup import Html, View, bar, chip, fold, join, tag
from psr_lib.traces import Expansion, SearchTrace

KINDS = {"kept": "kept", "dropped later": "tie", "rejected": "rejected"}  # a fate's colour
ENDS = {"complete": "complete", "cap": "out of visits", "overflow": "out of context"}
SIGNS = {"kept": "●", "dropped later": "◌", "rejected": "▼", "ill-formed": "✕", "cut": "✕", "": "○"}


@dataclass
class Visit:
    """An expansion, its number in the search, and the visits that went on from its candidates."""

    number: int
    expansion: Expansion
    on_path: bool = False
    paired: bool = False
    below: dict[str, list["Visit"]] = field(default_factory=dict)


@dataclass
class Leaf:
    """The candidates of a visit with one text and one score: how many, and what became of them."""

    text: str
    copies: int
    wins: int | None
    fate: str
    right: bool | None
    below: list[Visit] = field(default_factory=list)

    @property
    def counted(self) -> str:
        """A sign for its fate, and its wins."""
        wins = "no score" if self.wins is None else show_marks.count(self.wins, "win")
        return f"{SIGNS[self.fate]} {wins}"


def grow(trace: SearchTrace) -> list[Visit]:
    """The visits to the empty prefix, all others below them."""
    roots: list[Visit] = []
    holder: dict[tuple[str, ...], Visit] = {}  # a step with all before it -> who proposed it last
    latest: dict[tuple[str, ...], Visit] = {}
    for number, e in enumerate(trace.expansions, 1):
        visit, place = Visit(number, e), tuple(e.prefix)
        above = holder.get(place)
        (above.below.setdefault(place[-1], []) if above else roots).append(visit)
        holder |= {(*place, c.text): visit for c in e.candidates}
        latest[place] = visit
    _mark(trace, latest)
    return roots


def _mark(trace: SearchTrace, latest: dict[tuple[str, ...], Visit]) -> None:
    """Say of each visit whether the final path goes through it, and whether its pair was kept."""
    kept = {pair.id.rpartition("#")[2] for pair in trace.pairs}
    for k in range(len(trace.path) + 1):
        visit = latest.get(tuple(trace.path[:k]))
        # What follows the whole path chose nothing, or what it chose was dropped.
        if visit and (k < len(trace.path) or visit.expansion.chosen is None):
            visit.on_path = True
            visit.paired = f"{visit.expansion.depth}.{visit.expansion.attempt}" in kept


def leaves(visit: Visit, question: str) -> list[Leaf]:
    """The candidates of a visit, equal ones together, the one that it goes on from last.

    Copies may differ in their wins, where the judge is sampled.
    """
    e, groups = visit.expansion, dict[tuple[str, int | None], list[int]]()
    for i, c in enumerate(e.candidates):
        groups.setdefault((c.text, e.scores[i]), []).append(i)
    found = [_leaf(visit, places, question) for places in groups.values()]
    found.sort(key=lambda leaf: leaf.fate in ("kept", "dropped later"))
    left = dict(visit.below)
    for leaf in reversed(found):  # of equal texts the kept one
        leaf.below = left.pop(leaf.text, [])
    return sorted(found, key=lambda leaf: bool(leaf.below))


def _leaf(visit: Visit, places: list[int], question: str) -> Leaf:
    e, fates = visit.expansion, [_fate(visit, i) for i in places]
    candidate = e.candidates[places[0]]
    right = show_marks.truth(question, e.prefix, candidate.text) if candidate.valid else None
    fate = min(fates, key=list(SIGNS).index)
    return Leaf(candidate.text, len(places), e.scores[places[0]], fate, right)


def _fate(visit: Visit, i: int) -> str:
    e = visit.expansion
    if i == e.chosen:
        return "kept" if visit.on_path else "dropped later"
    if i == e.rejected:
        return "rejected"
    if e.candidates[i].valid:
        return ""
    return "cut" if e.candidates[i].finish in ("length", "overflow") else "ill-formed"


def outcome(visit: Visit) -> tuple[str, str]:
    """What was decided in a visit, in words, and its colour."""
    e = visit.expansion
    if e.outcome == "overflow":
        return "no room is left in the context", "wrong"
    if e.rolled_back:
        return f"all equal: rolled back, step {e.depth - 1} is sampled again", "tie"
    if e.outcome == "explored":
        return "explored", "plain"
    if e.tie:
        return ("all equal, nothing kept" if e.chosen is None else "all equal, one kept"), "tie"
    if not visit.on_path:
        return "best kept, but dropped by a later tie", "tie"
    return "best kept" + (", a pair for training" if visit.paired else ""), "kept"


def tree(trace: SearchTrace) -> View:
    """The whole search of one question."""
    roots, question = grow(trace), trace.question.text
    drawn = [_visit_html(visit, question) for visit in roots]
    head = tag("div", tag("bdi", question), look="question")
    rest = [tag("div", "Greedy decoding wrote the rest: ", tag("bdi", trace.rest.strip()),
                look="line")] if trace.rest else []  # fmt: skip
    foot = tag("div", summary(trace), look="quiet")
    lines = [question, *(line for visit in roots for line in _visit_lines(visit, question))]
    lines += [f"greedy decoding wrote the rest: {trace.rest.strip()}"] if trace.rest else []
    return View(join([head, *drawn, *rest, foot]), "\n".join([*lines, summary(trace)]))


def summary(trace: SearchTrace) -> str:
    """How a search ended and what it took."""
    visits, spent = trace.expansions, trace.tokens
    ties, back = (sum(getattr(e, name) for e in visits) for name in ("tie", "rolled_back"))
    counts = {"visit": len(visits), "tie": ties, "roll-back": back, "pair": len(trace.pairs)}
    crowded = trace.status == "cap" and visits[-1].outcome == "overflow"
    parts = ["no room for the judge" if crowded else ENDS.get(trace.status, "not finished")]
    parts += [show_marks.count(number, name) for name, number in counts.items()]
    return (f"{', '.join(parts)}; {spent['generated']:,} tokens proposed, "
            f"{spent['judged']:,} judged")  # fmt: skip


def _title(visit: Visit) -> str:
    e = visit.expansion
    different = len({c.text for c in e.candidates})
    again = f", attempt {e.attempt + 1}" if e.attempt else ""
    return (f"Visit {visit.number}, step {e.depth}{again}: {len(e.candidates)} candidates, "
            f"{different} different")  # fmt: skip


def _visit_html(visit: Visit, question: str) -> Html:
    """A visit as a list that can be folded; what the path does not go through is folded."""
    words, kind = outcome(visit)
    most = max([1, *(wins for wins in visit.expansion.scores if wins is not None)])
    items = [_leaf_html(leaf, most, question) for leaf in leaves(visit, question)]
    head = join([tag("b", _title(visit)), " ", chip(words, kind)])
    return fold(head, tag("ul", *items, look="list"), opened=visit.on_path)


def _leaf_html(leaf: Leaf, most: int, question: str) -> Html:
    first, rest = show_marks.clipped(leaf.text)
    counted = tag("b", leaf.counted)
    copies = f" × {leaf.copies}" if leaf.copies > 1 else ""
    fate = join([" ", chip(leaf.fate, KINDS.get(leaf.fate, "plain"))]) if leaf.fate else ""
    body = [bar((leaf.wins or 0) / most, "kept"), " ", counted, copies, fate,
            show_marks.badge(leaf.right), " ", tag("bdi", first)]  # fmt: skip
    body += [fold("…", tag("bdi", rest))] if rest else []
    line = tag("div", *body, look=KINDS.get(leaf.fate, "line"))
    return tag("li", line, *(_visit_html(v, question) for v in leaf.below), look="item")


def _visit_lines(visit: Visit, question: str, indent: str = "") -> list[str]:
    """The same in plain text, one level of indentation a step."""
    lines = [f"{indent}{_title(visit)}; {outcome(visit)[0]}"]
    for leaf in leaves(visit, question):
        copies = f" × {leaf.copies}" if leaf.copies > 1 else ""
        parts = [f"{leaf.counted}{copies}", leaf.fate, show_marks.word(leaf.right)]
        lines.append(f"{indent}  {', '.join(filter(None, parts))}: {leaf.text}")
        for below in leaf.below:
            lines += _visit_lines(below, question, f"{indent}    ")
    return lines
