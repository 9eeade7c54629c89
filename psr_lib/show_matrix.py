"""The judge's verdicts on the candidates of one step: a matrix, and what was written for each.

Row: the step in slot A; column: the step in slot B. Eq. 2 counts the A of a row.
"""

from dataclasses import dataclass

from psr_lib import show_marks
from psr_lib.markup import Html, View, chip, fold, join, note, tag
from psr_lib.records import PSRError
from psr_lib.robins import Verdict
from psr_lib.traces import Expansion, SearchTrace

KINDS = {"A": "kept", "B": "rejected", "?": "plain"}
LEGEND = (
    "A: the row's step wins; B: the column's; ?: unreadable. "
    "≠: the other order names the other step; ✗: wrong by the oracle."
)


@dataclass(frozen=True)
class Player:
    """The equal candidates of a step: their number here, how many, Eq. 2's score of each."""

    number: int
    place: int
    text: str
    copies: int
    wins: int
    right: bool | None


@dataclass(frozen=True)
class Game:
    """A verdict on two players, with its signs."""

    a: Player
    b: Player
    verdict: Verdict
    signs: str

    @property
    def shown(self) -> str:
        """The verdict in a letter."""
        return self.verdict.answer or "?"


def most_telling(trace: SearchTrace) -> int:
    """The number of the visit with right and wrong steps and most verdicts; 0 for none at all.

    Where no visit has both, or nothing can tell, verdicts count, and a visit without a tie goes
    before others.
    """
    visits = [(n, e) for n, e in enumerate(trace.expansions, 1) if e.robin.verdicts]
    ranks = [(_mixed(trace, e), len(e.robin.verdicts), not e.tie, -n) for n, e in visits]
    return -max(ranks)[-1] if ranks else 0


def _mixed(trace: SearchTrace, e: Expansion) -> bool:
    return {True, False} <= {player.right for player in players(trace, e)}


def players(trace: SearchTrace, e: Expansion) -> list[Player]:
    """The candidates that took part, in order: each text once where equal calls were made once.

    A sampled judge is asked about copies too, and may say something else of each: they stand apart.
    """
    texts = [c.text for c in e.candidates if c.valid]
    first = [texts.index(text) for text in texts]
    apart = any(first[place] != place for pair in e.robin.verdicts for place in pair)
    places = [k for k in range(len(texts)) if apart or first[k] == k]
    rights = {k: show_marks.truth(trace.question.text, e.prefix, texts[k]) for k in places}
    return [
        Player(n, k, texts[k], 1 if apart else texts.count(texts[k]), e.robin.scores[k], rights[k])
        for n, k in enumerate(places, 1)
    ]


def games(found: list[Player], e: Expansion) -> dict[tuple[int, int], Game]:
    """The verdicts by the numbers of both players."""
    verdicts, by_place = e.robin.verdicts, {p.place: p for p in found}
    return {
        (by_place[i].number, by_place[j].number): Game(
            by_place[i], by_place[j], verdict, _signs(by_place[i], by_place[j], verdict,
                                                      verdicts.get((j, i)) if i != j else None))
        for (i, j), verdict in verdicts.items() if i in by_place and j in by_place
    }  # fmt: skip


def _signs(a: Player, b: Player, verdict: Verdict, other: Verdict | None) -> str:
    """`≠` where the same slot wins both orders, `✗` where the oracle says otherwise."""
    signs = "≠" if other and verdict.answer and verdict.answer == other.answer else ""
    decided = None not in (a.right, b.right) and a.right != b.right
    return signs + ("✗" if decided and verdict.answer != ("A" if a.right else "B") else "")


def matrix(trace: SearchTrace, visit: int = 0) -> View:
    """The verdicts of a visit by its number, 1 for the first; 0 takes the most telling one.

    Raises PSRError where there is no such visit.
    """
    number = visit or most_telling(trace)
    if not number:
        return note("the judge was asked for no verdict in this search")
    if not 1 <= number <= len(trace.expansions):
        raise PSRError(f"visit {number}: {trace.question.id} has 1 to {len(trace.expansions)}")
    e = trace.expansions[number - 1]
    found = players(trace, e)
    played = games(found, e)
    title = f"Step {e.depth}, visit {number} of the search: {len(played)} verdicts"
    parts = [tag("b", title), _players_html(found), _table(found, played),
             tag("div", LEGEND, look="quiet"), _written(played)]  # fmt: skip
    return View(join(parts), "\n".join([title, *_lines(found, played)]))


def _players_html(found: list[Player]) -> Html:
    items = [
        tag("li", tag("b", f"{p.number}"), f" × {p.copies}" if p.copies > 1 else "",
            show_marks.badge(p.right), " ", tag("bdi", p.text), look="item")
        for p in found
    ]  # fmt: skip
    return tag("ul", *items, look="list")


def _table(found: list[Player], played: dict[tuple[int, int], Game]) -> Html:
    head = [
        tag("th", "A \\ B", look="cell"),
        *(tag("th", str(p.number), look="cell") for p in found),
    ]
    rows = [
        tag("tr", tag("th", str(a.number), look="cell"),
            *(_cell(played.get((a.number, b.number))) for b in found),
            tag("td", tag("b", str(a.wins)), look="cell"))
        for a in found
    ]  # fmt: skip
    top = tag("tr", *head, tag("th", "wins, each copy", look="cell"))
    return tag("table", tag("thead", top), tag("tbody", *rows), look="table")


def _cell(game: Game | None) -> Html:
    if game is None:
        return tag("td", "–", look="cell")
    letter = chip(game.shown, KINDS[game.shown], game.verdict.explanation)
    return tag("td", letter, f" {game.signs}", look="cell")


def _written(played: dict[tuple[int, int], Game]) -> Html:
    """What the judge wrote: the first explanation about two different steps open, others folded."""
    told = [game for game in played.values() if game.verdict.explanation]
    told.sort(key=lambda game: game.a is game.b)
    return join(
        fold(_heading(game), tag("div", tag("bdi", game.verdict.explanation), look="line"),
             opened=k == 0)
        for k, game in enumerate(told)
    )  # fmt: skip


def _heading(game: Game) -> str:
    signs = f" {game.signs}" if game.signs else ""
    return f"A is {game.a.number}, B is {game.b.number}: {game.shown}{signs}"


def _lines(found: list[Player], played: dict[tuple[int, int], Game]) -> list[str]:
    lines = [f"{p.number} x{p.copies}, {p.wins} wins {show_marks.word(p.right)}: {p.text}".strip()
             for p in found]  # fmt: skip
    told = [f"{_heading(game)}: {game.verdict.explanation}" for game in played.values()]
    return [*lines, *told, LEGEND]
