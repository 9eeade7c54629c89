"""What searches at an equal budget have spent: the baseline `srlm` beside psrlm, round by round."""

from collections.abc import Iterable, Mapping
from typing import Any

WITHIN = 0.05  # how far from its budget a search may end and still be called equal


def budgets(made: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the searches at an equal budget (method `srlm`) were given and have spent, by round.

    `made` are manifests, or the `stages` of a summary. Tokens are those generated, solutions and
    justifications together; `share` is spent / budget, and `equal` whether that is within 5 %.
    """
    searches = [
        one for one in made if one["stage"] == "03_search_judge" and one["counts"].get("budget")
    ]
    return [
        {"model": f"M{one['iteration']}", "budget": one["counts"]["budget"],
         "spent": one["counts"]["spent"], "share": one["counts"]["budget_used"],
         "equal": _near(**one["counts"]),
         "solutions": one["counts"]["solutions_each"]}
        for one in searches
    ]  # fmt: skip


def budget_lines(made: Iterable[Mapping[str, Any]]) -> list[str]:
    """`budgets` in words, one line a round; a search that is not at an equal budget says so."""
    words = (
        "{model}: searched with {spent:,} tokens, {share:.1%} of psrlm's {budget:,}{not_equal}; "
        "{solutions:.1f} solutions a question"
    )
    outside = f" (NOT EQUAL: more than {WITHIN:.0%} apart)"
    return [words.format(**row, not_equal="" if row["equal"] else outside) for row in budgets(made)]


def _near(budget: int, spent: int, **_: Any) -> bool:
    return abs(spent - budget) <= WITHIN * budget
