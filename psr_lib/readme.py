"""The README's numbers and figures: blocks between `<!-- made: NAME -->` marks are written here.

`make readme` fills the blocks from data/results and data/paper and draws the figures; `--check`
fails if a block or a figure's CSV differs, or if a result stands outside the blocks or in a stored
notebook: a number that was typed in, or went stale, is found.
"""

import re
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from psr_lib import (
    ablation_tables,
    claims,
    facts,
    ledger,
    manifest,
    more_tables,
    paper_tables,
    readme_short,
    results,
    showcase,
    typed,
    unlike,
)
from psr_lib.budgets import budgets
from psr_lib.evidence import COUNTED, GREEDY, Column, Evidence, NotRun, Source, sources
from psr_lib.paper_tables import OURS
from psr_lib.readme_costs import (
    NOT_RUN,
    cost_block,
    plans_block,
    presets_block,
    price_block,
    summaries,
    table,
)
from psr_lib.readme_speed import speed_block
from psr_lib.records import PSRError, write_text
from psr_lib.seeds import Estimate
from psr_lib.tables import unbroken

BLOCK = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


@cache
def kept_evidence(preset: str = "tiny") -> Evidence:
    """All kept summaries of a preset, those on dev problems left out."""
    found = [results.load(preset, seed, method) for seed, method in results.kept(preset)]
    return Evidence(one for one in found if one["split"] == "test")


def noted(block: str, made_of: Iterable[Source]) -> str:
    """A block with what has to be said of the runs that it leans on."""
    return block + "".join(f"\nNote: {one}.\n" for one in unlike.notes(kept_evidence(), made_of))


def _all() -> tuple[Source, ...]:
    """The last model of every kept method, as a solver."""
    found = kept_evidence()
    return sources((name, found.models(name)[-1], GREEDY) for name in found.methods)


def accuracy_block() -> str:
    """Mean accuracy of M0..M[n] for every kept method and seed, 95 % intervals over problems."""
    rows = []
    for method in sorted({name for _, name in results.kept("tiny")}):
        for one in summaries(method):
            alone = Evidence([one])
            means = [alone.share((method, model["model"], GREEDY)) for model in one["models"]]
            rows.append([method, str(one["seed"]), *map(shown, means)])
    if not rows:
        return NOT_RUN
    width = max(len(row) for row in rows) - 2
    return noted(table(["method", "seed", *(f"M{n}" for n in range(width))], rows), _all())


def shown(found: Estimate) -> str:
    """A share in percent with its interval, which stays on one line."""
    return f"{found.value:.1f} " + unbroken(f"[{found.low:.1f}, {found.high:.1f}]")


def short_block() -> str:
    """What the kept runs show, in a few sentences."""
    lines = readme_short.sentences(kept_evidence())
    return noted("".join(f"- {line}\n" for line in lines), _all()) if lines else NOT_RUN


def test_block() -> str:
    """Rises M1 -> M4, and psrlm's lead over each other method, with their intervals."""
    found = kept_evidence()
    rows = [[name, *_points(found, *ends)] for name, ends in differences(found).items()]
    header = ["difference in mean accuracy", "points", "95 % interval", "p", "each seed"]
    kept = [row for row in rows if len(row) > 1]
    return noted(f"{table(header, kept)}\n{paper_tables.P_TEST}.\n", _all()) if rows else NOT_RUN


def differences(found: Evidence) -> dict[str, tuple[Column, Column]]:
    """The differences of `test_block` by name: from which column to which."""
    models = found.models("psrlm")
    if len(models) < 2:
        return {}
    end = ("psrlm", models[-1], GREEDY)
    others = [method for method in found.methods if method != "psrlm"]
    return {"psrlm: M1 → last": (("psrlm", "M1", GREEDY), end)} | {
        f"psrlm − {method}, last model": ((method, models[-1], GREEDY), end) for method in others
    }


def _points(found: Evidence, before: Column, after: Column) -> list[str]:
    """A change in words; nothing where no seed has both."""
    try:
        change, p = found.change(before, after), found.p_value(before, after)
    except NotRun:
        return []
    seeds = ", ".join(f"{one:+.1f}" for one in change.per_seed)
    interval = f"{change.low:+.1f} to {change.high:+.1f}"
    return [f"{change.value:+.1f}", interval, f"{p:.3f}" if p >= 0.001 else "< 0.001", seeds]


def budget_block() -> str:
    """What the baseline's searches were given and have spent, by round and seed."""
    rows = [
        [str(one["seed"]), row["model"], f"{row['budget']:,}", f"{row['spent']:,}",
         f"{100 * row['share']:.1f}", f"{row['solutions']:.1f}", "yes" if row["equal"] else "NO"]
        for one in summaries("srlm") for row in budgets(_own(one))
    ]  # fmt: skip
    header = ["seed", "search for", "psrlm's tokens", "srlm's tokens", "%", "solutions a question",
              "within 5 %"]  # fmt: skip
    return table(header, rows) if rows else NOT_RUN


def _own(one: dict[str, Any]) -> list[dict[str, Any]]:
    """The stages that are a method's own; the baseline's summary holds psrlm's searches too."""
    return [made for made in one["stages"] if made["method"] == one["method"]]


def search_block() -> str:
    """What each round's search found: pairs, variety, ties, and the judge on its own siblings."""
    kept = summaries("psrlm")
    if not kept:
        return NOT_RUN
    shares = {"duplicate_rate": "duplicates", "tie_rate": "ties", "rollback_rate": "roll-backs",
              "judge_first_position": "first position", "judge_unreadable": "unreadable",
              "siblings_judge_accuracy": "right on siblings", "chosen_right": "chosen right",
              "rejected_right": "rejected right"}  # fmt: skip
    found, seed = Evidence(kept[:1]), kept[0]["seed"]
    rows = []
    for n, counts in _searches(found, seed):
        cells = (shown(found.counted(OURS, n, name)) for name in shares)
        rows.append([f"M{n}", f"{counts['pairs']}", f"{counts['distinct']:.1f}", *cells])
    return table(["search for", "pairs", "distinct", *shares.values()], rows) + f"\n{COUNTED}.\n"


def _searches(found: Evidence, seed: int) -> list[tuple[int, dict[str, Any]]]:
    """The rounds of a seed's psrlm that searched, with what they counted."""
    made = found.by_method[OURS][seed]["stages"]
    return [(one["iteration"], one["counts"]) for one in made if one["stage"] == "03_search_judge"]


def judge_block() -> str:
    """Judge accuracy on held-out pairs, and its three skills, of each model (first kept seed)."""
    kept = summaries("psrlm")
    if not kept:
        return NOT_RUN
    names = ["accuracy", "skill_recompute", "skill_copy", "skill_compare", "first_position"]
    rows = [[m["model"], *(_judged(m, name) for name in names)] for m in kept[0]["models"]]
    made = table(["model", *(name.removeprefix("skill_") for name in names)], rows)
    return f"{made}\n95 % intervals over problems.\n"


def _judged(model: dict[str, Any], name: str) -> str:
    """A share of held-out pairs with its interval: all of it where there was nothing to count."""
    low, high = model["judge_shares"].get(name, (0.0, 1.0))
    return shown(Estimate(model["judge"][name], low, high, (), 0, "").times(100))


def claims_block() -> str:
    """The claim ledger: each claim with its effect, interval and verdict."""
    return ledger.short(claims.ledger(kept_evidence()))


PICTURES = {
    "judge": "Held-out judging, and the same judge on its own steps",
    "tokens": "Accuracy against the tokens of search and judging, in the rounds and at test time",
    "steps": "Number and length of steps over the rounds",
}


def pictures_block() -> str:
    """Those figures of the claims that the kept runs give."""
    drawn = showcase.csv_rows(kept_evidence())
    lines = [f"![{text}](figures/{name}.png)\n" for name, text in PICTURES.items() if name in drawn]
    return "".join(lines) or NOT_RUN


def intervals_block() -> str:
    """What the intervals on this page are over."""
    found = kept_evidence()
    return f"From {paper_tables.whose(found)}.\n" if found.all else NOT_RUN


MADE_BY = {"figure1": "Figure 1", "figure2": "Figure 2"} | {
    f"table{n}": f"Table {n}" for n in range(1, 10)
}


def status_block() -> str:
    """Each table and figure of the paper: whether the kept runs hold what it needs.

    They are the small laboratory's. Whether a claim is replicated there, the ledger says.
    """
    found = kept_evidence()
    tables = {one.name: one.run for one in more_tables.make_all(found)}
    drawn = {"figure1": bool(found.all), "figure2": showcase.map_file("tiny").is_file()}
    rows = [
        [
            name,
            CONTENT[key],
            f"small-scale only{HERE.get(key, '')}" if (tables | drawn)[key] else "not run",
        ]
        for key, name in sorted(MADE_BY.items(), key=lambda pair: pair[1])
    ]
    return table(["in the paper", "is", "here"], rows)


CONTENT = {
    "table1": "accuracy on every benchmark", "table2": "what the rounds add",
    "table3": "accuracy as a judge", "table4": "number and length of steps",
    "table5": "test-time search, on average", "table6": "judging pairs against scoring, by GPT-4o",
    "table7": "steps by benchmark, 7B", "table8": "steps by benchmark, 72B",
    "table9": "test-time search by benchmark", "figure1": "the pipeline, with counts",
    "figure2": "map of prompts and responses",
}  # fmt: skip
LEVELS = ("{} of the preset as it is stands at {} %, by the grid: the same seeds and settings "
          "have trained other models, as they can on another machine. Compare within a "
          "grid.")  # fmt: skip
HERE = {"table6": ", by the model itself", "table8": ", the same runs as Table 7"}


def secondary_block() -> str:
    """What summaries of the paper get wrong, and what it says."""
    rows = [[row["summary"], row["says"], row["paper"], row["where"]] for row in facts.secondary()]
    return table(["where", "it says", "the paper", "see"], rows)


def contradictions_block() -> str:
    """Where the paper contradicts itself, and what is taken here."""
    rows = [
        [row["about"], f"{row['first_says']} ({row['first_place']})",
         f"{row['second_says']} ({row['second_place']})", row["taken"]]
        for row in facts.contradictions()
    ]  # fmt: skip
    return table(["about", "says", "says too", "taken here"], rows)


def ablations_block() -> str:
    """What each kept ablation of the small laboratory found, a row a value."""
    if not (paths := ablation_tables.kept()):
        return NOT_RUN
    knobs: dict[str, list[str]] = {}
    for grid, _ in map(ablation_tables.load, paths):
        seeds = ", ".join(map(str, grid.seeds))
        knobs.setdefault(f"M{grid.n} of seeds {seeds}", []).append(grid.knob)
    says = "; ".join(f"{whose}: {', '.join(own)}" for whose, own in knobs.items())
    rows = [line for path in paths for line in ablation_tables.shown(path)]
    says = " ".join([f"{says}. Changes are paired by problem.", *_levels(paths)])
    return f"{table(ablation_tables.HEADER, rows)}\n{says}\n"


def _levels(paths: Iterable[Path]) -> list[str]:
    """A sentence where grids have found different levels for the preset as it is."""
    found: dict[str, set[str]] = {}
    for grid, runs in map(ablation_tables.load, paths):
        if grid.own and grid.title == grid.knob:
            rows = ablation_tables.rows_of(grid, runs)
            own = next(row for row in rows if row["setting"] == grid.own)
            found.setdefault(f"M{grid.n}", set()).add(f"{own['accuracy']:.1f}")
    return [LEVELS.format(name, " and ".join(sorted(levels)))
            for name, levels in found.items() if len(levels) > 1]  # fmt: skip


BLOCKS: dict[str, Callable[[], str]] = {
    "ablations": ablations_block, "budget": budget_block, "price": price_block,
    "cost": cost_block, "presets": presets_block, "plans": plans_block,
    "accuracy": accuracy_block, "tests": test_block, "judge": judge_block,
    "search": search_block, "claims": claims_block, "intervals": intervals_block,
    "pictures": pictures_block, "status": status_block, "secondary": secondary_block,
    "contradictions": contradictions_block, "speed": speed_block, "short": short_block,
}  # fmt: skip


def filled(text: str) -> str:
    """The text with every block made anew; raises PSRError for an unknown block."""

    def fill(match: re.Match) -> str:
        if match[2] not in BLOCKS:
            raise PSRError(f"README.md: no block {match[2]!r}; choose from {sorted(BLOCKS)}")
        return match[1] + BLOCKS[match[2]]() + match[3]

    return BLOCK.sub(fill, text)


def main() -> int:
    """Fill the README and draw the figures, or with `--check` compare what is there."""
    kept_evidence.cache_clear()
    path = manifest.root() / "README.md"
    old = path.read_text(encoding="utf-8")
    new = filled(old)
    if "--check" in sys.argv:
        faults = [] if new == old else ["README.md is stale; run make readme"]
        faults += [*typed.in_readme(old), *typed.in_notebooks()]
        faults += [*showcase.stale(kept_evidence()), *ablation_tables.stale()]
        print("\n".join(faults) or "README.md is current")
        return int(bool(faults))
    write_text(path, new)
    ablations = map(ablation_tables.draw, ablation_tables.kept())
    for drawn in (*showcase.draw(kept_evidence()), *ablations):
        print(f"drawn: {drawn.relative_to(manifest.root())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
