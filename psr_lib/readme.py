"""The README's numbers and figures: blocks between `<!-- made: NAME -->` marks are written here.

`make readme` fills the blocks from data/results and draws the figures; `--check` fails if a block
differs, so a number that was typed in, or went stale, is found.
"""

import re
import sys
from collections.abc import Callable
from typing import Any

from psr_lib import manifest, results, showcase
from psr_lib.evaluation import MEAN
from psr_lib.records import PSRError, write_text
from psr_lib.stats import Difference

BLOCK = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
NOT_RUN = "not run yet\n"
SHORT = {"00_base_model": "base model", "01_data_prep": "data", "02_init": "M1 (SFT)",
         "03_search_judge": "search and judge", "04_step_dpo": "step-wise DPO",
         "05_evaluate": "evaluate"}  # fmt: skip


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def summaries(method: str, preset: str = "tiny") -> list[dict[str, Any]]:
    """Kept summaries of a method, by seed; those on dev problems are left out."""
    seeds = sorted(seed for seed, name in results.kept(preset) if name == method)
    found = [results.load(preset, seed, method) for seed in seeds]
    return [one for one in found if one["split"] == "test"]


def cost_block() -> str:
    """Minutes and tokens of each stage of `make reproduce` (tiny, psrlm, first kept seed)."""
    kept = summaries("psrlm")
    if not kept:
        return NOT_RUN
    totals: dict[str, list[float]] = {}
    for made in kept[0]["stages"]:
        entry = totals.setdefault(SHORT[made["stage"]], [0.0, 0.0, 0.0])
        entry[0] += made["wall_seconds"] / 60
        entry[1] += made["tokens"]["generated"] / 1e6
        entry[2] += made["tokens"]["judged"] / 1e6
    totals["all"] = [sum(column) for column in zip(*totals.values(), strict=True)]
    rows = [[name, *(f"{value:.1f}" for value in entry)] for name, entry in totals.items()]
    device = kept[0]["device"]
    return table(["stage", "minutes", "M tokens generated", "M tokens judged"], rows) + (
        f"\nMeasured: seed {kept[0]['seed']} on {device}, commit {kept[0]['git']['commit'][:8]}.\n"
    )


def accuracy_block() -> str:
    """Mean accuracy of M0..M[n] for every kept method and seed."""
    rows = []
    for method in sorted({name for _, name in results.kept("tiny")}):
        for one in summaries(method):
            means = [f"{100 * model['accuracy'][MEAN]:.1f}" for model in one["models"]]
            rows.append([method, str(one["seed"]), *means])
    if not rows:
        return NOT_RUN
    width = max(len(row) for row in rows) - 2
    return table(["method", "seed", *(f"M{n}" for n in range(width))], rows)


def test_block() -> str:
    """Rises M1 -> M4, and psrlm's lead over each control, with paired-bootstrap intervals."""
    ours = summaries("psrlm")
    if not ours:
        return NOT_RUN
    rows = [["psrlm: M1 → last", *_points(results.rise(ours))]]
    for method in sorted({name for _, name in results.kept("tiny")} - {"psrlm"}):
        both, theirs = results.shared(ours, summaries(method))
        if both:
            rows.append([f"psrlm − {method}, last model", *_points(results.lead(both, theirs))])
    return table(["difference in mean accuracy", "points", "95 % interval", "each seed"], rows)


def _points(found: Difference) -> list[str]:
    seeds = ", ".join(f"{100 * one:+.1f}" for one in found.per_seed)
    return [f"{100 * found.mean:+.1f}", f"{100 * found.low:+.1f} to {100 * found.high:+.1f}", seeds]


def search_block() -> str:
    """What each round's search found: pairs, variety, ties, and the judge on its own siblings."""
    kept = summaries("psrlm")
    if not kept:
        return NOT_RUN
    shares = {"duplicate_rate": "duplicates", "tie_rate": "ties", "rollback_rate": "roll-backs",
              "judge_first_position": "first position", "judge_unreadable": "unreadable",
              "siblings_judge_accuracy": "right on siblings", "chosen_right": "chosen right",
              "rejected_right": "rejected right"}  # fmt: skip
    rows = []
    for made in kept[0]["stages"]:
        if made["stage"] == "03_search_judge":
            counts = made["counts"]
            rows.append([f"M{made['iteration']}", f"{counts['pairs']}", f"{counts['distinct']:.1f}",
                         *(f"{100 * counts[name]:.1f}" for name in shares)])  # fmt: skip
    return table(["search for", "pairs", "distinct", *shares.values()], rows)


def judge_block() -> str:
    """Judge accuracy on held-out pairs, and its three skills, of each model (first kept seed)."""
    kept = summaries("psrlm")
    if not kept:
        return NOT_RUN
    names = ["accuracy", "skill_recompute", "skill_copy", "skill_compare", "first_position"]
    rows = [[m["model"], *(f"{100 * m['judge'][name]:.1f}" for name in names)]
            for m in kept[0]["models"]]  # fmt: skip
    return table(["model", *(name.removeprefix("skill_") for name in names)], rows)


BLOCKS: dict[str, Callable[[], str]] = {
    "cost": cost_block, "accuracy": accuracy_block, "tests": test_block, "judge": judge_block,
    "search": search_block,
}  # fmt: skip


def filled(text: str) -> str:
    """The text with every block made anew; raises PSRError for an unknown block."""

    def fill(match: re.Match) -> str:
        if match[2] not in BLOCKS:
            raise PSRError(f"README.md: no block {match[2]!r}; choose from {sorted(BLOCKS)}")
        return match[1] + BLOCKS[match[2]]() + match[3]

    return BLOCK.sub(fill, text)


def main() -> int:
    """Fill the README, or with `--check` compare it."""
    path = manifest.root() / "README.md"
    old = path.read_text(encoding="utf-8")
    new = filled(old)
    if "--check" in sys.argv:
        print("README.md is current" if new == old else "README.md is stale; run make readme")
        return int(new != old)
    write_text(path, new)
    names = {name for _, name in results.kept("tiny")}
    methods = sorted(names, key=lambda name: (name != "psrlm", name))
    for drawn in showcase.draw({name: summaries(name) for name in methods}):
        print(f"drawn: {drawn.relative_to(manifest.root())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
