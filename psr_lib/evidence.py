"""What runs have measured, as tables, figures and claims ask for it: levels, changes, intervals.

Built from summaries (`results.gather`, `results.load`), one a method and seed. A quantity that no
seed has is `NotRun`, never a blank or a guess. Shares and their changes are in percent.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from psr_lib import manifest, nested, seeds
from psr_lib.evaluation import MEAN
from psr_lib.memory import Memory
from psr_lib.methods import REFERENCE, SEARCH
from psr_lib.records import PSRError, hash_text
from psr_lib.run_details import NOT_ASKED
from psr_lib.seeds import Estimate
from psr_lib.stats import wilson

GREEDY, JUDGE, STEPS, TOKENS = "greedy", "judge", "steps", "step_tokens"
OWN, SAMPLED = "own_prompts", "sampled"  # greedy with M0's own template; avg@k
SPENT = "tokens spent by "  # and a way of decoding: generated and judged
PAIRS = "held-out pairs"  # what the judge's outcomes are about, where solvers have benchmarks
# Who judges in Table 6, first found first: (method, model), None for the API model's own name.
LABORATORIES: dict[str, tuple[tuple[str, str | None], ...]] = {
    "pairwise": ((REFERENCE, None), ("psrlm", "M1")),
    "scoring": ((REFERENCE, None), ("srlm", "M1")),
}
TABLE6 = ("consistency", "agreement")
LABORATORY = "laboratory"  # as a source: the table of notebook 07
COUNTED = (
    "95 % intervals of shares of a search: over its questions, each counted as one thing, since how"
    " its visits, pairs and verdicts fall on them is not kept; as a rule too wide, but for those of"
    " the judge on siblings where its laboratory has measured them"
)
OF_SIBLINGS = "siblings_judge_accuracy"
# method, model, what: GREEDY, JUDGE, STEPS, TOKENS, OWN, SAMPLED, a decoding, SPENT and a decoding
Column = tuple[str, str, str]
Summary = dict[str, Any]


class Source(NamedTuple):
    """What a number was computed from: outcomes of a model (`what` as in a column), or counts of
    the stage that `what` names; `sets` where not all benchmarks are in it.

    >>> Source.read("psrlm/M4/greedy/easy+big").sets
    ('easy', 'big')
    """

    method: str
    model: str
    what: str
    sets: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "/".join(filter(None, (*self[:3], "+".join(self.sets))))

    @classmethod
    def read(cls, text: str) -> "Source":
        """The source that `str` wrote."""
        method, model, what, *sets = text.split("/")
        return cls(method, model, what, tuple(sets[0].split("+")) if sets else ())


def sources(columns: Iterable[Column], sets: Sequence[str] = ()) -> tuple[Source, ...]:
    """The sources of a number that was computed from these columns; an API model goes unnamed."""
    return tuple(Source(method, "API" if method == REFERENCE else model, what, tuple(sets))
                 for method, model, what in dict.fromkeys(columns))  # fmt: skip


class NotRun(Exception):
    """What was asked for was not measured; the text says what is missing."""


class Evidence:
    """Summaries of the runs of one preset, by method and seed."""

    def __init__(self, summaries: Iterable[Summary], memory: Memory | None = None) -> None:
        self.by_method: dict[str, dict[int, Summary]] = {}
        for one in sorted(summaries, key=lambda one: one["seed"]):
            self.by_method.setdefault(one["method"], {})[one["seed"]] = one
        self.memory = memory or Memory()
        self._code = [manifest.fingerprint(Path(seeds.__file__).with_name(name))
                      for name in ("seeds.py", "stats.py")]  # fmt: skip

    @property
    def all(self) -> list[Summary]:
        """Every summary."""
        return [one for seeds_ in self.by_method.values() for one in seeds_.values()]

    @property
    def methods(self) -> list[str]:
        """Methods with a model of their own, the paper's first, its baseline second."""
        first = ("psrlm", "srlm")
        rest = sorted(set(self.by_method) - {*first, REFERENCE})
        return [name for name in (*first, *rest) if name in self.by_method]

    @property
    def sets(self) -> list[str]:
        """The benchmarks, in the preset's order."""
        found = (m["accuracy"] for one in self.all for m in one["models"])
        return list(dict.fromkeys(k for sets in found for k in sets if k != MEAN))

    def models(self, method: str) -> list[str]:
        """Models of a method that some seed has evaluated, M0 first."""
        found = {m["model"] for one in self.by_method.get(method, {}).values()
                 for m in one["models"]}  # fmt: skip
        return sorted(found, key=lambda name: (len(name), name))

    def model(self, method: str, seed: int, name: str) -> dict[str, Any]:
        """A model's part of a summary; raises NotRun if it was not evaluated."""
        found = self.by_method.get(method, {}).get(seed, {"models": []})["models"]
        for one in found:
            if one["model"] == name:
                return one
        raise NotRun(f"{method} {name}, seed {seed}")

    def column(self, column: Column, seed: int) -> dict[str, np.ndarray]:
        """Benchmark -> one number a problem; NaN where a decoding was not asked."""
        method, name, what = column
        one = self.model(method, seed, name)
        if what == JUDGE:
            return {PAIRS: _signs(_part(one, "judge_outcomes", column))}
        if what in (STEPS, TOKENS):
            found = _part(one, what, column)
            return {k: np.array(v.split(), dtype=float) for k, v in found.items()}
        if what.startswith(SPENT):
            way = what.removeprefix(SPENT)
            one = one if way == GREEDY else _part(one.get("decodings", {}), way, column)
            return {k: _numbers(v) for k, v in _part(one, "spent", column).items()}
        if what == SAMPLED:
            return {k: _numbers(v) for k, v in _part(one, what, column)["shares"].items()}
        if what == OWN:
            one = _part(one, what, column)
        elif what != GREEDY:
            one = _part(one.get("decodings", {}), what, column)
        return {k: _signs(v) for k, v in one["outcomes"].items()}

    def data(self, columns: Sequence[Column], sets: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """Benchmark -> [columns, seeds, problems] over the seeds that have every column.

        Problems that some column was not asked are left out. Raises NotRun where no seed has all.
        """
        found, missing = [], NotRun("nothing was evaluated")
        for seed in sorted(
            {seed for method, *_ in columns for seed in self.by_method.get(method, {})}
        ):
            try:
                found.append([self.column(column, seed) for column in columns])
            except NotRun as error:
                missing = error
        if not found:
            raise missing
        names = list(sets) or [k for k in self.sets if k in found[0][0]] or list(found[0][0])
        if lacking := [name for name in names for one in found[0] if name not in one]:
            raise NotRun(f"benchmark {lacking[0]}")
        return {name: _whole([[one[name] for one in seed] for seed in found]) for name in names}

    def share(self, column: Column, sets: Sequence[str] = ()) -> Estimate:
        """A share of right answers (greedy, judge, another decoding) in percent."""
        if column[2] == JUDGE:
            return self._judged([column], nested.level)
        data = self.data([column], sets)
        found = self._kept("share", data, lambda: seeds.share(data)).times(100)
        return replace(found, sources=sources([column], sets))

    def estimate(
        self, statistic: seeds.Statistic, columns: Sequence[Column], sets: Sequence[str] = (),
        factor: float = 100,
    ) -> Estimate:  # fmt: skip
        """A statistic of `seeds` over columns, times 100 unless told otherwise.

        Raises PSRError where another one than a change is asked of a judge.
        """
        if JUDGE in {what for *_, what in columns}:
            if statistic is not seeds.difference:
                raise PSRError("of a judge there are levels and changes, no other quantity")
            return self._judged(columns, nested.change)
        data, name = self.data(columns, sets), statistic.__name__
        found = self._kept(name, data, lambda: seeds.estimate(data, statistic)).times(factor)
        return replace(found, sources=sources(columns, sets))

    def change(self, before: Column, after: Column, sets: Sequence[str] = ()) -> Estimate:
        """The paired change from one column to the other, in points."""
        return self.estimate(seeds.difference, [before, after], sets)

    def _judged(self, columns: Sequence[Column], measure: Callable[..., Estimate]) -> Estimate:
        """A level or a change of the judge on held-out pairs, which are each seed's own."""
        found, missing = [], NotRun("no judge was evaluated")
        for seed in sorted({s for method, *_ in columns for s in self.by_method.get(method, {})}):
            try:
                outcomes = [self.judged(column, seed) for column in columns]
            except NotRun as error:
                missing = error
                continue
            if len({tuple(one.problems) for one in outcomes}) > 1:
                missing = NotRun(f"judges on the same pairs (seed {seed})")
                continue
            found.append(outcomes)
        if not found:
            raise missing
        estimate = measure(*(list(column) for column in zip(*found, strict=True)))
        return replace(estimate.times(100), sources=sources(columns))

    def judged(self, column: Column, seed: int) -> nested.Outcomes:
        """The outcomes on a seed's held-out pairs, and their problems."""
        one = self.model(column[0], seed, column[1])
        right = _signs(_part(one, "judge_outcomes", column))
        return nested.Outcomes(right, one["judge_problems"].split())

    def p_value(self, before: Column, after: Column, sets: Sequence[str] = ()) -> float:
        """Exact two-sided p-value of a paired change; with one seed McNemar's."""
        data = self.data([before, after], sets).values()
        pair = np.concatenate([values for values in data], axis=2)
        return seeds.sign_test(pair[0], pair[1])

    def _kept(self, name: str, data: seeds.Data, make: Callable[[], Estimate]) -> Estimate:
        shown = {k: [list(v.shape), hash_text(v.tobytes().hex())] for k, v in data.items()}
        found = self.memory.get([name, shown, self._code], lambda: vars(make()))
        return Estimate(**{**found, "per_seed": tuple(found["per_seed"])})

    def measured(self, method: str, name: str, *path: str) -> list[float]:
        """A number of each seed's summary of a model, such as `judge`, `first_position`."""
        found = []
        for seed in self.by_method.get(method, {}):
            try:
                value: Any = self.model(method, seed, name)
                for key in path:
                    value = value[key]
            except (NotRun, KeyError):
                continue
            found.append(float(value))
        if not found:
            raise NotRun(f"{method} {name} {' '.join(path)}")
        return found

    def laboratory(self, strategy: str, measure: str, null: str = "") -> Estimate:
        """A share of the judge laboratory, such as `pairwise`, `consistency`; mean over seeds.

        The judge is the API model where one was tested, else M1 of the method that learned it; or
        on the same items a null judge, such as `longer`.
        """
        found = self._laboratory_rows(strategy, measure)
        found = [other for row in found for other in self._null_rows(row, null)] if null else found
        if not found:
            raise NotRun(f"the judge laboratory's {measure} of {strategy} judging")
        names = (measure, f"{measure}_low", f"{measure}_high")
        share = seeds.mean_share([tuple(row[n] for n in names) for row in found],
                                 sum(row["n"] for row in found))  # fmt: skip
        share = seeds.clipped(share)
        return replace(share, sources=sources((r["method"], r["model"], LABORATORY) for r in found))

    def _laboratory_rows(self, strategy: str, measure: str) -> list[dict[str, Any]]:
        """A row a seed: of the first items that have all measures of Table 6, else this one."""
        for method, model in LABORATORIES[strategy]:
            found = []
            for seed, one in self.by_method.get(method, {}).items():
                made, whose = one.get("laboratory", ()), {"method": method, "seed": seed}
                rows = [row | whose for row in made if _is_of(row, strategy, model)]
                rows = [row for row in rows if row.get(measure) is not None]
                whole = [row for row in rows if all(row.get(n) is not None for n in TABLE6)]
                found += (whole or rows)[:1]
            if found:
                return found
        return []

    def _null_rows(self, row: dict[str, Any], null: str) -> list[dict[str, Any]]:
        """A null judge's row of the same items in the same summary, where it is kept."""
        made = self.by_method[row["method"]][row["seed"]]["laboratory"]
        same = ("strategy", "items", "pairs", "n")
        found = [one for one in made if one["judge"] == null
                 and all(one.get(name) == row.get(name) for name in same)]  # fmt: skip
        return [one | {"method": row["method"]} for one in found[:1]]

    def laboratory_nulls(self, strategy: str) -> list[str]:
        """The null judges that are kept on the items of Table 6."""
        rows = self._laboratory_rows(strategy, TABLE6[0])
        names = dict.fromkeys(one["judge"] for row in rows for one in
                              self.by_method[row["method"]][row["seed"]]["laboratory"])  # fmt: skip
        return [name for name in names if any(self._null_rows(row, name) for row in rows)
                and name != "itself"]  # fmt: skip

    def laboratory_items(self, strategy: str) -> str:
        """What was judged there, and who says what is right; '' where nothing was."""
        rows = [row for measure in TABLE6 for row in self._laboratory_rows(strategy, measure)]
        kinds = (f"{row['items']} (right by {row['labels']})" for row in rows)
        return ", ".join(dict.fromkeys(kinds))

    def laboratory_difference(self, measure: str) -> Estimate:
        """Pairwise less scoring, in points; their items differ, so nothing is paired."""
        scoring, pairwise = (self.laboratory(name, measure) for name in ("scoring", "pairwise"))
        both = scoring.sources + pairwise.sources
        return replace(seeds.unpaired(scoring, pairwise).times(100), sources=both)

    def stages_by_seed(self, method: str, stage: str, n: int) -> dict[int, dict[str, Any]]:
        """A stage of M[n] by seed: the method's own, else the one that it borrows."""
        found = {}
        for seed, one in self.by_method.get(method, {}).items():
            made = [s for s in one["stages"] if (s["stage"], s["iteration"]) == (stage, n)]
            own = [s for s in made if s["method"] == method]
            if made:
                found[seed] = (own or made)[0]
        return found

    def stages(self, method: str, stage: str, n: int) -> list[dict[str, Any]]:
        """The same as a list, one a seed."""
        return list(self.stages_by_seed(method, stage, n).values())

    def counted(self, method: str, n: int, name: str) -> Estimate:
        """A share that the search for M[n] counted, in percent; mean over seeds.

        Only totals are kept, so a problem counts as one thing (`COUNTED`), but for the judge on its
        own siblings where its laboratory has their interval over problems.
        """
        parts, problems = [], 0
        for seed, made in self.stages_by_seed(method, SEARCH, n).items():
            counts = made["counts"]
            if name in counts:
                size = counts.get("problems", 0)
                ends = self._siblings(method, seed, n) if name == OF_SIBLINGS else None
                parts.append((counts[name], *(ends or wilson(counts[name] * size, size))))
                problems += size
        if not parts:
            raise NotRun(f"{SEARCH} {method} M{n}")
        return replace(seeds.mean_share(parts, problems).times(100),
                       sources=sources([(method, f"M{n}", SEARCH)]))  # fmt: skip

    def _siblings(self, method: str, seed: int, n: int) -> tuple[float, float] | None:
        """The laboratory's interval of the judge that made the pairs of M[n], on its siblings."""
        for row in self.by_method[method][seed].get("laboratory", ()):
            of_search = row["items"] == "siblings, training search"
            if _is_of(row, "pairwise", f"M{n - 1}") and of_search and row.get("agreement_low"):
                return row["agreement_low"], row["agreement_high"]
        return None

    def counts(self, method: str, stage: str, n: int, *names: str) -> list[dict[str, float]]:
        """Counts that a stage of M[n] wrote, one a seed; raises NotRun where no seed has them."""
        found = [made["counts"] for made in self.stages(method, stage, n)]
        found = [counts for counts in found if all(name in counts for name in names)]
        if not found:
            raise NotRun(f"{stage} {method} M{n}")
        return found


def _is_of(row: dict[str, Any], strategy: str, model: str | None) -> bool:
    """Whether a row of the laboratory is a model's own judging, and no null judge's."""
    own = row["judge"] == "itself" and row["strategy"] == strategy
    return own and model in (None, row["model"])


def _part(one: dict[str, Any], name: str, column: Column) -> Any:
    if name not in one:
        raise NotRun(" ".join(column))
    return one[name]


def _signs(text: str) -> np.ndarray:
    """Outcomes as numbers, NaN where a problem was not asked."""
    return np.array([np.nan if sign == NOT_ASKED else float(sign) for sign in text])


def _numbers(text: str) -> np.ndarray:
    """Numbers a problem, NaN where it was not asked."""
    return np.array([np.nan if word == NOT_ASKED else float(word) for word in text.split()])


def _whole(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """[seeds][columns] of problems as [columns, seeds, problems], without gaps."""
    sizes = {len(column) for seed in rows for column in seed}
    if len(sizes) > 1:
        raise NotRun(f"the same problems in every run (found {sorted(sizes)})")
    values = np.array(rows).transpose(1, 0, 2)
    asked = ~np.isnan(values).any((0, 1))
    if not asked.any():
        raise NotRun("a problem that all were given")
    return values[:, :, asked]
