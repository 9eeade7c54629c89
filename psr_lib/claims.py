"""The claim ledger: what the paper says against what a run measured (data/paper/claims.yaml).

Each claim's test stands in that file; nothing here knows a threshold. A condition holds if its
whole interval lies in the region, fails if all of it lies outside, and is open otherwise.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from psr_lib import facts, seeds, unlike
from psr_lib.evidence import GREEDY, JUDGE, STEPS, TOKENS, Evidence, NotRun
from psr_lib.records import PSRError
from psr_lib.seeds import Estimate

HOLDS, FAILS, OPEN, MISSING = "holds", "fails", "open", "not run"
REPLICATED, NOT, INCONCLUSIVE = "replicated", "not replicated", "inconclusive"
ELSEWHERE = "not applicable"
METHOD = "psrlm"
Condition = Mapping[str, Any]
Sets = Sequence[str]


@dataclass(frozen=True)
class Checked:
    """A condition on one quantity: what it is, the region, the estimate and whether it holds."""

    what: str
    region: str
    unit: str
    state: str
    found: Estimate | None = None
    why: str = ""


@dataclass(frozen=True)
class Finding:
    """A claim with its verdict; `effect` is the condition whose number stands for it."""

    id: str
    claim: str
    paper: str
    verdict: str
    effect: Checked | None
    checked: tuple[Checked, ...]
    unlike: str = ""  # settings in which runs differ, or that are not those of the claim

    @property
    def decides(self) -> str:
        """What made the verdict other than replicated: the conditions that failed, or are open."""
        if self.unlike:
            return self.unlike
        states = {NOT: FAILS, INCONCLUSIVE: OPEN, MISSING: MISSING}
        chosen = [one for one in self.checked if one.state == states.get(self.verdict)]
        if self.verdict == MISSING:
            return "needs " + "; ".join(dict.fromkeys(one.why for one in chosen))
        return "; ".join(f"{one.what} {one.state}" for one in chosen)


def ledger(evidence: Evidence) -> list[Finding]:
    """Every claim with its verdict, in the file's order."""
    return [judge(claim, evidence) for claim in facts.claims()]


def judge(claim: Mapping[str, Any], evidence: Evidence) -> Finding:
    """The verdict on one claim."""
    named = {name: claim[name] for name in ("id", "claim", "paper")}
    if not _applies(claim.get("only", {}), evidence):
        return Finding(**named, verdict=ELSEWHERE, effect=None, checked=())
    if other := unlike.otherwise(evidence, METHOD, claim.get("settings", {})):
        return Finding(**named, verdict=ELSEWHERE, effect=None, checked=(), unlike=other)
    groups = [check(condition, evidence) for condition in claim["conditions"]]
    everything = tuple(one for group in groups for one in group)
    effect = groups[claim["effect"] - 1][0]
    found, apart = verdict([one.state for one in everything]), ""
    if found != MISSING:  # what runs of unlike settings show is no answer to the claim
        made_of = (source for one in everything if one.found for source in one.found.sources)
        apart = unlike.short(evidence, made_of)
    return Finding(**named, verdict=INCONCLUSIVE if apart else found, effect=effect,
                   checked=everything, unlike=apart)  # fmt: skip


def verdict(states: Sequence[str]) -> str:
    """What the states of all conditions say together; a failure settles it."""
    if FAILS in states:
        return NOT
    if MISSING in states:
        return MISSING
    return INCONCLUSIVE if OPEN in states else REPLICATED


def _applies(only: Mapping[str, Any], evidence: Evidence) -> bool:
    """Whether the run has the base model and benchmarks that a claim is about alone."""
    bases = {one.get("base", "").rpartition("/")[2] for one in evidence.all}
    return set(only.get("sets", ())) <= set(evidence.sets) and only.get("base", "") in {"", *bases}


def check(condition: Condition, evidence: Evidence) -> list[Checked]:
    """A condition's state; `sets: each` makes one of every benchmark."""
    if condition["quantity"] not in QUANTITIES:
        known = sorted(QUANTITIES)
        raise PSRError(f"claims.yaml: no quantity {condition['quantity']!r}; choose from {known}")
    measure, unit = QUANTITIES[condition["quantity"]]
    return [_check(condition, measure, unit, evidence, sets, label)
            for sets, label in _sets(condition, evidence)]  # fmt: skip


def _check(
    condition: Condition, measure: Callable, unit: str, evidence: Evidence, sets: Sets, label: str
) -> Checked:
    low, high = region(condition)
    words = " ".join(filter(None, (name_of(condition), label)))
    try:
        found = measure(evidence, condition, sets)
    except NotRun as error:
        return Checked(words, region_text(low, high), unit, MISSING, why=str(error))
    return Checked(words, region_text(low, high), unit, state(found, low, high), found)


def _sets(condition: Condition, evidence: Evidence) -> list[tuple[Sets, str]]:
    """The benchmarks of a condition, and how to call them where that is not plain."""
    wanted = condition.get("sets")
    if wanted is None:
        return [((), "")]
    if wanted == "each":
        return [((name,), f"on {name}") for name in evidence.sets] or [((), "")]
    if wanted == "all" or not set(wanted) <= set(evidence.sets):
        return [((), "on average")]
    return [(tuple(wanted), f"on {' and '.join(wanted)}")]


def region(condition: Condition) -> tuple[float, float]:
    """The open region that a condition names, as its two ends."""
    if "between" in condition:
        low, high = condition["between"]
        return float(low), float(high)
    return float(condition.get("above", -inf)), float(condition.get("below", inf))


def region_text(low: float, high: float) -> str:
    """The region in words."""
    if low > -inf and high < inf:
        return f"between {low:g} and {high:g}"
    return f"above {low:g}" if low > -inf else f"below {high:g}"


def state(found: Estimate, low: float, high: float) -> str:
    """Whether the interval lies in the region, outside, or on an end of it."""
    if low < found.low and found.high < high:
        return HOLDS
    return FAILS if found.high <= low or found.low >= high else OPEN


def name_of(condition: Condition) -> str:
    """The quantity in words, such as `accuracy change M1 → M4`."""
    words = condition["quantity"].replace("_", " ")
    if "from" in condition:
        words += f" {condition['from']} → {condition['to']}"
    for key, text in (("model", "{}"), ("than", "more than {}"), ("over", "over {}"),
                      ("measure", "in {}")):  # fmt: skip
        if key in condition:
            words += " " + text.format(condition[key])
    return words


def _level(what: str) -> Callable[[Evidence, Condition, Sets], Estimate]:
    return lambda e, c, sets: e.share((METHOD, c["model"], what), sets)


def _ends(c: Condition, what: str, method: str = METHOD) -> list[tuple[str, str, str]]:
    return [(method, c["from"], what), (method, c["to"], what)]


def _change(what: str, factor: float = 100) -> Callable[[Evidence, Condition, Sets], Estimate]:
    """The change from one model to another, or how much larger it is than another method's."""

    def measure(e: Evidence, c: Condition, sets: Sets) -> Estimate:
        columns = _ends(c, what)
        if "than" in c:
            return e.estimate(seeds.lead, [*_ends(c, what, c["than"]), *columns], sets, factor)
        return e.estimate(seeds.difference, columns, sets, factor)

    return measure


def _length(e: Evidence, c: Condition, sets: Sets) -> Estimate:
    columns = [(METHOD, c[end], what) for end in ("from", "to") for what in (TOKENS, STEPS)]
    return e.estimate(seeds.ratio_difference, columns, sets, factor=1)


def _total(e: Evidence, c: Condition, sets: Sets) -> Estimate:
    return e.estimate(seeds.growth, _ends(c, TOKENS), sets)


def _search(e: Evidence, c: Condition, sets: Sets) -> Estimate:
    return e.change((METHOD, c["model"], GREEDY), (METHOD, c["model"], "search"), sets)


def _lead(e: Evidence, c: Condition, sets: Sets) -> Estimate:
    return e.change((c["over"], c["model"], GREEDY), (METHOD, c["model"], GREEDY), sets)


def _laboratory(e: Evidence, c: Condition, sets: Sets) -> Estimate:
    """Pairwise less scoring: shares of different items, so the difference is not paired."""
    return e.laboratory_difference(c["measure"])


QUANTITIES: dict[str, tuple[Callable[[Evidence, Condition, Sets], Estimate], str]] = {
    "judge_accuracy": (_level(JUDGE), "%"),
    "judge_change": (_change(JUDGE), "points"),
    "accuracy": (_level(GREEDY), "%"),
    "accuracy_change": (_change(GREEDY), "points"),
    "accuracy_lead": (_lead, "points"),
    "search_gain": (_search, "points"),
    "step_number_change": (_change(STEPS, 1), "steps"),
    "step_length_change": (_length, "tokens"),
    "total_length_change": (_total, "%"),
    "pairwise_less_scoring": (_laboratory, "points"),
}
