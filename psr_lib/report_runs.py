"""What the stages of a run left in their manifests, for its report: cost and provenance."""

from collections.abc import Callable, Iterable, Sequence
from textwrap import fill, indent
from typing import Any

import yaml

from psr_lib import manifest
from psr_lib.methods import BASE, DATA, DPO, EVALUATE, INIT, LAB, PAPER, SEARCH, STEPS
from psr_lib.run_dirs import Key, RunDir

Made = dict[str, Any]
NAMES = {BASE: "base model", DATA: "data", INIT: "M1 (SFT)", SEARCH: "search and judge",
         DPO: "step-wise DPO", EVALUATE: "evaluate", LAB: "judge laboratory",
         STEPS: "count steps", PAPER: "tables and figures"}  # fmt: skip
SHORT = 12  # signs of a hash that are shown


def manifests(run: RunDir) -> list[Made]:
    """The manifests of every complete stage of the run, or of each of its seeds, as they ran."""
    folders = {part.path for part in run.parts} | {run.path}
    paths = sorted(path for folder in folders for path in folder.rglob(manifest.NAME))
    found = [manifest.read(path.parent) for path in paths]
    return sorted((one for one in found if one), key=lambda one: one.get("started", ""))


def cost(made: Sequence[Made]) -> dict[str, Any]:
    """Minutes and million tokens, by method and kind of stage, and of all together."""
    groups: dict[tuple[str, str], list[float]] = {}
    for one in made:
        entry = groups.setdefault((one["method"] or "shared", NAMES[one["stage"]]), [0.0] * 3)
        for place, value in enumerate(_spent(one)):
            entry[place] += value
    order = sorted(groups, key=lambda key: (key[0] != "shared", key[0],
                   list(NAMES.values()).index(key[1])))  # fmt: skip
    rows = [[*key, *(f"{value:.2f}" for value in groups[key])] for key in order]
    total = [f"{sum(column):.2f}" for column in zip(*groups.values(), strict=True)]
    header = ["method", "stage", "minutes", "M tokens generated", "M tokens judged"]
    return {"header": header, "rows": [*rows, ["all", "", *total]]}


def _spent(one: Made) -> tuple[float, float, float]:
    tokens = one["tokens"]
    return one["wall_seconds"] / 60, tokens["generated"] / 1e6, tokens["judged"] / 1e6


def cost_tile(made: Sequence[Made]) -> dict[str, str]:
    """The whole cost in a line."""
    minutes, generated, judged = (sum(column) for column in zip(*map(_spent, made), strict=True))
    spent = f"{generated:.1f} M tokens generated, {judged:.1f} M judged"
    return {"what": "cost of all stages", "value": f"{minutes:.1f} minutes",
            "more": f"{spent}; {', '.join(devices(made))}"}  # fmt: skip


def devices(made: Sequence[Made]) -> list[str]:
    """What the stages ran on."""
    return _distinct(made, lambda one: one["device"])


def provenance(made: Sequence[Made]) -> dict[str, Any]:
    """What the run was made with: commits, versions, devices, data, base model, prompts."""
    params = [one["params"] for one in made]
    rows = {
        "stages": [f"{len(made)}, from {_day(made[0])} to {_day(made[-1])}"],
        "commits": _distinct(made, _commit),
        "run by hand": [_name(one) for one in made if one.get("by_hand")],
        "seeds": _distinct(params, lambda p: str(p["seed"]) if "seed" in p else ""),
        "base model": _distinct(params, lambda p: p.get("model", {}).get("base", "")),
        "its files": _distinct(made, _base_hash),
        "problems": _distinct(params, lambda p: _joined(p.get("data", {}), "source", "split")),
        "prompts": _distinct(params, _templates),
        "devices": devices(made),
        "versions": _distinct(made, lambda one: ", ".join(
            f"{name} {version}" for name, version in one["versions"].items())),
    }  # fmt: skip
    kept = [[name, "; ".join(values)] for name, values in rows.items() if values]
    return {"header": ["what", "this run"], "rows": kept}


def _distinct(items: Iterable[Any], read: Callable[[Any], str]) -> list[str]:
    return list(dict.fromkeys(value for item in items if (value := read(item))))


def _commit(one: Made) -> str:
    state = one["git"]
    changed = ", with changes that were not committed" if state["dirty"] else ""
    return (state["commit"] or "no commit")[:SHORT] + changed


def _day(one: Made) -> str:
    return one.get("started", "an unknown time").replace("T", " ").replace("Z", " UTC")


def _joined(section: Made, *names: str) -> str:
    return ", ".join(str(section[name]) for name in names if name in section)


def _base_hash(one: Made) -> str:
    base = one["params"].get("model", {}).get("base", "")
    return one["inputs"].get(f"repository:{base}", {}).get("hash", "")[:SHORT]


def _templates(params: Made) -> str:
    hashes = params.get("templates", {})
    shown = ", ".join(f"{role} {value[:SHORT]}" for role, value in hashes.items())
    return f"{params['prompts']}: {shown}" if hashes and "prompts" in params else ""


def _name(one: Made) -> str:
    return str(Key(one["stage"], one["method"], one["iteration"]))


def stage_rows(made: Sequence[Made]) -> dict[str, Any]:
    """A row a stage: when, how long, from which commit and with which parameters."""
    header = ["stage", "started", "minutes", "commit", "parameters", "device"]
    rows = [[_name(one), _day(one), f"{one['wall_seconds'] / 60:.2f}", _commit(one),
             one.get("params_hash", "")[:SHORT], one["device"]] for one in made]  # fmt: skip
    return {"header": header, "rows": rows}


def parameters(made: Sequence[Made]) -> list[dict[str, str]]:
    """The parameters of each stage of the paper's loop as YAML, equal ones once."""
    found: dict[str, list[str]] = {}
    for one in made:
        hidden = ("method", "iteration", "seed", "templates", "own_templates")
        values = {name: value for name, value in one["params"].items() if name not in hidden}
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
        if values:
            found.setdefault(text, []).append(_name(one))
    return [{"name": _first(names), "text": _heading(names) + text}
            for text, names in found.items()]  # fmt: skip


def _first(names: Sequence[str]) -> str:
    more = len(set(names)) - 1
    return f"{names[0]} and {more} more" if more else names[0]


def _heading(names: Sequence[str]) -> str:
    """The stages as comments of the YAML, where there are several."""
    whole = ", ".join(dict.fromkeys(names))
    return indent(fill(whole, 96), "# ") + "\n" if len(set(names)) > 1 else ""
