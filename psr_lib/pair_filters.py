"""Which preference pairs are trained on: `dpo.filters` names filters, and each must keep a pair.

    @register("filter", "first-steps")
    def first_steps(pair, settings):
        return not pair.prefix

`settings` is the preset's `dpo` section. What is left out stays in the round's `ppd.jsonl`, so that
another filter needs no other search.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from psr_lib import registry
from psr_lib.records import PSRError, StepPair
from psr_lib.registry import register

Filter = Callable[[StepPair, Any], bool]
WAYS = {"margin": "lower dpo.min_margin", "length": "lower dpo.length_ratio"}


def gap(pair: StepPair) -> float:
    """Score of the chosen candidate less that of the rejected one: wins of Eq. 2, or points."""
    scores = pair.meta["scores"]
    return scores[pair.meta["chosen"]] - scores[pair.meta["rejected"]]


@register("filter", "margin")
def margin(pair: StepPair, settings: Any) -> bool:
    """Whether the scores of a pair differ by `dpo.min_margin` or more."""
    return not settings.min_margin or gap(pair) >= settings.min_margin


@register("filter", "length")
def length(pair: StepPair, settings: Any) -> bool:
    """Whether the shorter step has `dpo.length_ratio` of the longer one's letters, or more.

    The judge, and DPO itself, may prefer a length (Park et al. 2024, arXiv 2403.19159): pairs of
    like length cannot teach one.
    """
    short, long = sorted(len(step) for step in (pair.chosen, pair.rejected))
    return short >= settings.length_ratio * long


def kept(pairs: Sequence[StepPair], settings: Any) -> tuple[list[StepPair], Counter]:
    """The pairs that every filter keeps, in order, and how many each left out, first come first.

    Raises PSRError where nothing is left.
    """
    tests: dict[str, Filter] = {name: registry.find("filter", name) for name in settings.filters}
    out = [_against(pair, settings, tests) for pair in pairs]
    left = [pair for pair, name in zip(pairs, out, strict=True) if name is None]
    lost = Counter(name for name in out if name)
    if not left:
        said = ", ".join(f"{name} {count}" for name, count in lost.items())
        ways = " or ".join(WAYS.get(name, f"take {name} out of dpo.filters") for name in lost)
        raise PSRError(f"dpo.filters: none of {len(pairs)} pairs is left (left out by {said}); "
                       f"{ways}")  # fmt: skip
    return left, lost


def _against(pair: StepPair, settings: Any, tests: dict[str, Filter]) -> str | None:
    """The first filter that does not keep a pair."""
    return next((name for name, test in tests.items() if not test(pair, settings)), None)
