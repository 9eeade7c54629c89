"""Solutions step by step: coloured by the oracle or by the judge's wins, and compared.

Where nothing knows the right steps (any problem but the laboratory's), steps are plain, or have the
share of wins that the judge gave them.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from psr_lib import show_marks
from psr_lib.lab_pairs import PairRow
from psr_lib.markup import Html, View, bar, chip, fold, join, note, tag
from psr_lib.records import JudgeExample, StepPair
from psr_lib.robins import SLOTS
from psr_lib.solution_traces import SolutionTrace
from psr_lib.steps import boxed, join_steps, split_steps
from psr_lib.traces import SearchTrace

WINS = "In per cent: the wins that the judge gave a step, of all that it could have."
KINDS = {"chosen": "kept", "rejected": "rejected"}
LOOKS = {True: "right", False: "wrong", None: "line"}


def solution(question: str, text: str, shares: Sequence[float] = (), gold: str = "") -> View:
    """A solution, each step marked by the oracle; `shares` of wins, 0 to 1, are the judge's."""
    steps = split_steps(text)
    found = list(zip_longest(steps, show_marks.truths(question, steps), shares[: len(steps)]))
    rows = [_step(*one) for one in found]
    lines = [" ".join(filter(None, (_percent(share), show_marks.word(right), step)))
             for step, right, share in found]  # fmt: skip
    end = ended(text, gold)
    told = f"{end}. {WINS}" if shares else end
    parts = [_question(question), *rows, tag("div", told, look="quiet")]
    return View(join(parts), "\n".join([question, *lines, end]))


def searched(trace: SearchTrace, scoring: str = "ordered", gold: str = "") -> View:
    """The path that a search kept, each step with the share of wins that its judge gave it.

    `scoring`: the search's, which says how many wins a step could have.
    """
    latest = {tuple(e.prefix): e for e in trace.expansions if e.chosen is not None}
    shares = []
    for k in range(len(trace.path)):
        e = latest[tuple(trace.path[:k])]
        others = sum(score is not None for score in e.scores) - 1
        wins = e.scores[e.chosen] if e.chosen is not None else None
        shares.append((wins or 0) / max(1, others * SLOTS.get(scoring, 1)))
    return solution(trace.question.text, trace.text, shares, gold)


def ended(text: str, gold: str = "") -> str:
    """What a solution answers, and what is right where that is known."""
    found = boxed(text)
    said = f"answer {found}" if found else "no boxed answer"
    return f"{said}; gold {gold}" if gold else said


def _question(question: str) -> Html:
    return tag("div", tag("bdi", question), look="question")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _step(
    step: str, right: bool | None, share: float | None = None, words: Html | None = None
) -> Html:
    first, rest = show_marks.clipped(step)
    body: list[Html | str] = [words] if words is not None else [tag("bdi", first), *_more(rest)]
    if share is not None:
        body = [bar(share, "kept"), f" {share:.0%} ", *body]
    return tag("div", *body, show_marks.badge(right), look=LOOKS[right], style="margin:2px 0")


def _more(rest: str) -> list[Html]:
    return [fold("…", tag("bdi", rest))] if rest else []


def answers(question: str, texts: Mapping[str, str], gold: str = "") -> View:
    """The answers of several models to one problem side by side, each against the one before it.

    Marked is what the model before did not write; in the first, what the second one dropped.
    """
    names, cards = list(texts), []
    for k, name in enumerate(names):
        other = texts[names[k - 1]] if k else texts[names[1]] if len(names) > 1 else texts[name]
        cards.append(_card(question, name, texts[name], other, "new" if k else "gone", gold))
    lines = [line for name in names for line in (f"\n{name}:", repr(solution(question, texts[name],
             gold=gold)).partition("\n")[2])]  # fmt: skip
    body = join([_question(question), tag("div", *cards, look="cards")])
    return View(body, "\n".join([question, *lines]))


def _card(question: str, name: str, text: str, other: str, look: str, gold: str) -> Html:
    steps, others = split_steps(text), split_steps(other)
    rights = show_marks.truths(question, steps)
    rows = [
        _step(
            step, right, None, show_marks.marked(step, others[k] if k < len(others) else "", look)
        )
        for k, (step, right) in enumerate(zip(steps, rights, strict=True))
    ]
    return tag(
        "div", tag("b", name), *rows, tag("div", ended(text, gold), look="quiet"), look="card"
    )


def pair(row: StepPair) -> View:
    """A preference pair: the context, then both steps with the words that only one of them has."""
    right, wrong = (
        show_marks.truth(row.question, row.prefix, s) for s in (row.chosen, row.rejected)
    )
    chosen = _side("chosen", "kept", row.chosen, row.rejected, "new", right)
    rejected = _side("rejected", "rejected", row.rejected, row.chosen, "gone", wrong)
    lines = [row.question, *row.prefix, f"chosen   {show_marks.word(right)} {row.chosen}",
             f"rejected {show_marks.word(wrong)} {row.rejected}"]  # fmt: skip
    return View(join([*_context(row.question, row.prefix), chosen, rejected]), "\n".join(lines))


def _side(name: str, kind: str, text: str, other: str, look: str, right: bool | None) -> Html:
    marked = show_marks.marked(text, other, look)
    return tag("div", chip(name, kind), show_marks.badge(right), " ", marked, look=kind,
               style="margin:2px 0")  # fmt: skip


def _context(question: str, prefix: Sequence[str]) -> list[Html]:
    count = show_marks.count(len(prefix), "step")
    before = [fold(f"{count} before it", tag("div", join_steps(prefix), look="line"),
                   opened=len(prefix) < 4)] if prefix else []  # fmt: skip
    return [_question(question), *before]


def verdict(example: JudgeExample, row: Mapping[str, Any]) -> View:
    """A held-out pair with the judge's explanation, and whether it named the better step."""
    said, right = row["verdict"] or "unreadable", row["correct"]
    steps = {"A": (example.step_a, example.step_b), "B": (example.step_b, example.step_a)}
    sides = [_side(name, "kept" if name == example.better else "plain", *texts, "new", None)
             for name, texts in steps.items()]  # fmt: skip
    kind, word = ("right", "✓ right") if right else ("wrong", "✗ wrong")
    head = tag("div", f"better: {example.better}, verdict: {said} ", chip(word, kind))
    parts = [*_context(example.question, example.prefix), *sides, head,
             tag("div", tag("bdi", row["explanation"]), look="line")]  # fmt: skip
    lines = [example.question, *example.prefix, f"A {example.step_a}", f"B {example.step_b}",
             f"better {example.better} -> {said} | {row['explanation']}"]  # fmt: skip
    return View(join(parts), "\n".join(lines))


def both_orders(row: PairRow) -> View:
    """Two next steps that a judge was asked about in both orders, and which one won each time."""
    won = [{"A": "a", "B": "b", None: "unreadable"}[winner] for winner in row.winners]
    said = f"{row.source}: better is {(row.better or 'unknown').lower()}; "
    said += f"with a first: {won[0]}; with b first: {won[1]}"
    sides = [_side(name, "kept" if name.upper() == row.better else "plain", *texts, "new", None)
             for name, texts in {"a": (row.a, row.b), "b": (row.b, row.a)}.items()]  # fmt: skip
    return View(join([tag("div", said), *sides]), f"{said}\n  a {row.a}\n  b {row.b}")


def scored(trace: SolutionTrace) -> View:
    """Under `srlm`: each distinct solution with its copies, its points and what became of it."""
    fates: dict[str, str] = {}
    for k, one in enumerate(trace.solutions):
        fate = {trace.chosen: "chosen", trace.rejected: "rejected"}.get(k, "")
        fates[one.text] = fate or fates.get(one.text, "")
    cards = [_scored_card(trace, text, fate) for text, fate in fates.items()]
    lines = [f"\n{fate or '-'}, {_points(trace, text)}\n{text}" for text, fate in fates.items()]
    question = trace.question.text
    return View(join([_question(question), tag("div", *cards, look="cards")]),
                "\n".join([question, *lines]))  # fmt: skip


def _points(trace: SolutionTrace, text: str) -> str:
    """Copies of a solution, its mean score, and the points of each justification, ? unreadable."""
    copies, score = sum(one.text == text for one in trace.solutions), trace.scored.get(text)
    if score is None or score.mean is None:
        return f"{copies} ×, {'cut, not scored' if score is None else 'no readable score'}"
    points = ", ".join("?" if p is None else f"{p:g}" for p in score.points)
    return f"{copies} ×, mean {score.mean:.2f} of {points}"


def _scored_card(trace: SolutionTrace, text: str, fate: str) -> Html:
    steps = split_steps(text)
    found = zip(steps, show_marks.truths(trace.question.text, steps), strict=True)
    name = [chip(fate, KINDS[fate]), " "] if fate else []
    return tag("div", *name, tag("b", _points(trace, text)), *(_step(*one) for one in found),
               look="card")  # fmt: skip


def justified(trace: SolutionTrace) -> View:
    """Under `srlm`: what the judge wrote about the chosen and the rejected solution."""
    places = {"chosen": trace.chosen, "rejected": trace.rejected}
    said = {name: trace.scored[trace.solutions[k].text].texts
            for name, k in places.items() if k is not None}  # fmt: skip
    if not said:
        return note("the scores of this question chose no solution")
    parts = [tag("div", chip(name, KINDS[name]), " ", tag("bdi", text), look="line")
             for name, texts in said.items() for text in texts]  # fmt: skip
    return View(
        join(parts), "\n".join(f"{name}: {t}" for name, texts in said.items() for t in texts)
    )
