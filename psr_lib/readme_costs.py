"""What runs cost, by the kept summaries, or will cost, by plans: blocks of the README."""

from pathlib import Path
from typing import Any

from psr_lib import plan, presets, results
from psr_lib.methods import MAIN
from psr_lib.run_dirs import RunDir

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


def stage_costs(one: dict[str, Any]) -> dict[str, list[float]]:
    """Minutes, and millions of tokens generated and judged, of each kind of stage, then of all."""
    totals: dict[str, list[float]] = {}
    for made in one["stages"]:
        entry = totals.setdefault(SHORT[made["stage"]], [0.0, 0.0, 0.0])
        entry[0] += made["wall_seconds"] / 60
        entry[1] += made["tokens"]["generated"] / 1e6
        entry[2] += made["tokens"]["judged"] / 1e6
    return totals | {"all": [sum(column) for column in zip(*totals.values(), strict=True)]}


def cost_block() -> str:
    """Minutes and tokens of each stage of `make reproduce` (tiny, psrlm, first kept seed)."""
    kept = summaries("psrlm")
    if not kept:
        return NOT_RUN
    rows = [[name, *(f"{value:.1f}" for value in entry)]
            for name, entry in stage_costs(kept[0]).items()]  # fmt: skip
    device = kept[0]["device"]
    return table(["stage", "minutes", "M tokens generated", "M tokens judged"], rows) + (
        f"\nMeasured: seed {kept[0]['seed']} on {device}, commit {kept[0]['git']['commit'][:8]}.\n"
    )


def price_block() -> str:
    """One line: what `make reproduce` took in the kept runs of psrlm."""
    kept = summaries("psrlm")
    if not kept:
        return NOT_RUN
    found = [stage_costs(one)["all"] for one in kept]
    minutes = sorted({f"{entry[0]:.0f}" for entry in found}, key=int)
    most = max(entry[1] + entry[2] for entry in found)
    seeds = ", ".join(str(one["seed"]) for one in kept)
    devices = ", ".join(dict.fromkeys(one["device"] for one in kept))
    span = " to ".join(dict.fromkeys((minutes[0], minutes[-1])))
    return (
        f"`make reproduce` took {span} minutes and up to {most:.1f} million tokens (seeds {seeds}, "
        f"{devices}), set-up not counted.\n"
    )


def presets_block() -> str:
    """A row a preset: its model, and what M0 to the last model took where a run is kept."""
    rows = []
    for name in sorted(presets.names(), key=lambda name: (name != "tiny", name)):
        base, kept = presets.load(name).model.base, summaries("psrlm", name)
        cells = ["–", "–", "–", f"no; `make plan PRESET={name}` estimates it"]
        if kept:
            spent = (f"{value:.1f}" for value in stage_costs(kept[0])["all"])
            count = len(kept[0].get("changed", {}))
            other = f", {count} of its settings changed" if count else ""
            cells = [*spent, f"seed {kept[0]['seed']}, {kept[0]['device']}{other}"]
        rows.append([name, base, *cells])
    header = ["preset", "starts from", "minutes", "M tokens generated", "M tokens judged",
              "measured"]  # fmt: skip
    return table(header, rows)


PLANS = {"paper-7b": "8xH100", "paper-72b": "32xH100"}  # the paper's presets, and devices for each


def plans_block() -> str:
    """What `make plan` prints for the paper's presets, on any machine and before any run."""
    if not summaries(MAIN):
        return NOT_RUN  # a plan rests on kept runs
    return "\n".join(_plan(name, on) for name, on in PLANS.items())


def _plan(name: str, on: str) -> str:
    """The whole path of a preset, on devices that need not be at hand."""
    run = RunDir(name, 0, Path("no runs"))  # answers paid for here are no matter of others
    preset = presets.load(name)
    said = plan.printed(preset, MAIN, run, results.run_stages(MAIN, preset.rounds), on)
    return f"```\n$ make plan PRESET={name} ON={on}\n{said}\n```\n"
