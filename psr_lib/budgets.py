"""What searches at an equal budget have spent: the baseline `srlm` beside psrlm, round by round."""

from collections.abc import Iterable, Mapping
from typing import Any


def budgets(made: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the searches at an equal budget (method `srlm`) were given and have spent, by round.

    `made` are manifests, or the `stages` of a summary. Tokens are those generated, solutions and
    justifications together; `share` is spent / budget.
    """
    searches = [
        one for one in made if one["stage"] == "03_search_judge" and one["counts"].get("budget")
    ]
    return [
        {"model": f"M{one['iteration']}", "budget": one["counts"]["budget"],
         "spent": one["counts"]["spent"], "share": one["counts"]["budget_used"],
         "solutions": one["counts"]["solutions_each"]}
        for one in searches
    ]  # fmt: skip
