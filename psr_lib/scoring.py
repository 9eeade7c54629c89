"""Scoring whole solutions from 0 to 5: the judge of the baseline `srlm`, and its laboratory.

Each solution is scored by several sampled justifications, and their readable points are averaged
(Yuan et al., arXiv 2401.10020). The noise belongs to the seed, the question, the solution's text
and the number of the justification, so equal texts have equal scores and are asked about once,
whatever is scored beside them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from psr_lib import tallies
from psr_lib.engines.base import Engine
from psr_lib.engines.tasks import Sample, Task, alone
from psr_lib.prompts import Family
from psr_lib.records import PSRError, Question, seed_of

Item = tuple[Question, str]  # a question and the text of a solution


class ScoreSettings(Protocol):
    """What is read of a preset's `srlm` section."""

    scores: int
    score_temperature: float
    score_top_p: float
    max_score_tokens: int


@dataclass(frozen=True)
class Scored:
    """The justifications of one solution: their points (None = unreadable), texts and cost."""

    points: tuple[float | None, ...]
    texts: tuple[str, ...] = ()
    tokens: int = 0
    prompt_tokens: int = 0
    overflow: bool = False

    @property
    def readable(self) -> list[float]:
        """The points that could be read."""
        return [points for points in self.points if points is not None]

    @property
    def unreadable(self) -> int:
        """How many could not."""
        return self.points.count(None)

    @property
    def mean(self) -> float | None:
        """Mean of the readable points; None if there are none."""
        found = self.readable
        return round(sum(found) / len(found), 9) if found else None


def score_solutions(
    engine: Engine,
    family: Family,
    tokenizer: Any,
    items: Sequence[Item],
    settings: ScoreSettings,
    seed: int = 0,
) -> list[Scored]:
    """Each solution scored `settings.scores` times, in order; one engine call for all of them.

    Raises PSRError where the settings ask for several scores that can only be equal, or the engine
    fails.
    """
    tally = tallies.Matches(
        [text for _, text in items], lambda _, said: family.points(said) is not None, "readable"
    )
    with tallies.watching(engine, "scoring", tally):
        return alone(engine, scoring(family, tokenizer, items, settings, seed))


def scoring(
    family: Family, tokenizer: Any, items: Sequence[Item], settings: ScoreSettings, seed: int
) -> Task:
    """`score_solutions` as a task."""
    check(settings)
    asked = list({_key(item): item for item in items}.values())
    if not asked:
        return []
    found = yield Sample(
        doing="scoring solutions",
        prompts=[family.render(tokenizer, family.score(q.text, text)) for q, text in asked],
        seeds=[seed_of(seed, "score", *_key(item)) for item in asked],
        n=settings.scores,
        temperature=settings.score_temperature,
        top_p=settings.score_top_p,
        max_tokens=settings.max_score_tokens,
        stop=[] if family.chat else ["\n\n"],
    )
    known = {_key(item): _read(family, said) for item, said in zip(asked, found, strict=True)}
    return [known[_key(item)] for item in items]


def check(settings: ScoreSettings) -> None:
    """Raise PSRError where several scores could only be equal."""
    if settings.scores > 1 and settings.score_temperature == 0:
        raise PSRError(
            f"srlm: {settings.scores} scores that can only be equal; set srlm.scores to 1, or "
            "srlm.score_temperature above 0"
        )


def _key(item: Item) -> tuple[str, str]:
    return item[0].id, item[1]


def _read(family: Family, said: Sequence[Any]) -> Scored:
    """The prompt is counted once: siblings share it."""
    return Scored(
        tuple(family.points(c.text) for c in said),
        tuple(c.text.strip() for c in said),
        sum(c.tokens for c in said),
        said[0].prompt_tokens,
        said[0].finish == "overflow",
    )


def score_stats(found: Sequence[Scored]) -> dict[str, float | int]:
    """How the judge behaved over these solutions.

    `unreadable` is a share of all justifications; `spread` the mean distance between the highest
    and the lowest points of one solution; `points_<k>` the share of readable points that are k.
    """
    points = [p for one in found for p in one.readable]
    several = [one.readable for one in found if len(one.readable) > 1]
    asked, rounded = sum(len(one.points) for one in found), Counter(map(round, points))
    return {
        "scores": asked,
        "unreadable": sum(one.unreadable for one in found) / max(1, asked),
        "mean": sum(points) / max(1, len(points)),
        "spread": sum(max(p) - min(p) for p in several) / max(1, len(several)),
        **{f"points_{k}": rounded[k] / max(1, len(points)) for k in range(6)},
    }
