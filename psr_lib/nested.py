"""Shares of things that belong to problems, where every seed has things and problems of its own.

So it is with a judge's held-out pairs: several are of one problem, and the next seed has others.
Problems are drawn within a seed; the seeds' values are averaged.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from psr_lib import seeds, shares
from psr_lib.records import PSRError
from psr_lib.seeds import Estimate


class Outcomes(NamedTuple):
    """What one seed has: 0 or 1 a thing, and the problem that each belongs to."""

    right: np.ndarray
    problems: Sequence[str | int]


def level(found: Sequence[Outcomes]) -> Estimate:
    """The share of right ones, the mean over seeds, with its interval."""
    parts = [shares.share(one.right.tolist(), [1] * len(one.right), one.problems) for one in found]
    ends = [(p.value or 0.0, p.low or 0.0, 1.0 if p.high is None else p.high) for p in parts]
    return seeds.clipped(seeds.mean_share(ends, sum(part.problems for part in parts)))


def change(before: Sequence[Outcomes], after: Sequence[Outcomes]) -> Estimate:
    """How much the share rises between outcomes on the same things, seed by seed.

    Raises PSRError where a seed's things are not the same.
    """
    ends, count = [], 0
    for one, other in zip(before, after, strict=True):
        if list(one.problems) != list(other.problems):
            raise PSRError("change: a seed's outcomes are of other problems before and after")
        gains, wholes = shares.by_problem(other.right - one.right, one.problems)
        ends.append(shares.rise(gains, wholes))
        count += len(wholes)
    return seeds.mean_share(ends, count)
