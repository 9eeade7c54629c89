"""Runs that differ in one setting: make ablate KNOB=search.width VALUES="2 4 6 8".

Each value has a run of its own below `runs/ablations/<knob>/`, which shares what the setting does
not touch with the preset's run and with those of other values and settings (`variants`). Only the
last model is evaluated, on dev problems, as no choice of design may be made on test problems.
"""

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from psr_lib import lineage, manifest, presets, results, stages, variants
from psr_lib.integrity import check
from psr_lib.methods import EVALUATE
from psr_lib.records import PSRError
from psr_lib.request import Request
from psr_lib.run_dirs import Key, RunDir

FOLDER = "ablations"
Build = Callable[[Request, Sequence[Key]], Any]


@dataclass(frozen=True)
class Grid:
    """What is varied: a setting, its values as they were written, and the preset's own among them.

    `n`: the model that is evaluated; `own` is '' where the preset's value is not among them;
    `changed` what SET changes of the preset for all values.
    """

    preset: str
    method: str
    n: int
    knob: str
    values: tuple[str, ...]
    own: str
    split: str
    seeds: tuple[int, ...]
    changed: str = ""

    @property
    def base(self) -> str:
        """The value that the others are compared with: the preset's own, or the first."""
        return self.own or self.values[0]

    @property
    def title(self) -> str:
        """The setting, and what tells this grid from the one of psrlm and the preset as it is."""
        method = "" if self.method == "psrlm" else f", {self.method}"
        return f"{self.knob}{method}" + (f", with {self.changed}" if self.changed else "")


def run(args: argparse.Namespace, build: Build) -> tuple[Grid, list[dict[str, Any]]]:
    """Run every value for every seed; the grid, and a summary a run.

    Raises PSRError before anything runs where the setting or a value is wrong.
    """
    grid, requests = plan(args)
    for seed in grid.seeds:
        made = [RunDir(args.preset, seed, args.runs_dir), *_others(args, seed)]
        for value in grid.values:
            request, target = requests[value, seed], Key(EVALUATE, grid.method, grid.n)
            print(f"\n{grid.knob}={value}, seed {seed}", flush=True)
            variants.share(made, request.run, stages.in_order([target]), request.preset)
            build(request, [target])
            made.append(request.run)
    return grid, [summary(grid, value, requests[value, seed].run)
                  for seed in grid.seeds for value in grid.values]  # fmt: skip


def _others(args: argparse.Namespace, seed: int) -> list[RunDir]:
    """The runs of this preset and seed in every ablation so far, other settings' too."""
    home = manifest.root() / args.runs_dir / FOLDER
    found = sorted(home.glob(f"*/*/{args.preset}/seed{seed}"))
    return [RunDir(args.preset, seed, path.parents[1]) for path in found]


def plan(args: argparse.Namespace) -> tuple[Grid, dict[tuple[str, int], Request]]:
    """The grid, and a checked request for each value and seed."""
    values = tuple(presets.split_overrides(args.values))
    if not args.knob or len(values) < 2:
        raise PSRError('KNOB and two or more VALUES are needed: KNOB=search.width VALUES="2 4 6 8"')
    if len(set(map(file_name, values))) < len(values):
        raise PSRError(f"VALUES={args.values}: two of them have one name; write each once")
    seeds = tuple(args.seeds.replace(",", " ").split() or [args.seed])
    requests = {(value, seed): _request(args, value, seed) for value in values for seed in seeds}
    first = requests[values[0], seeds[0]]
    own = presets.load(args.preset, args.overrides)
    same = [v for v in values if _value(requests[v, seeds[0]].preset, args) == _value(own, args)]
    n = first.round(args.n, low=1) if args.n else first.preset.rounds
    grid = Grid(args.preset, first.method, n, args.knob, values, next(iter(same), ""),
                first.preset.data.split, tuple(map(int, seeds)),
                " ".join(presets.split_overrides(args.overrides)))  # fmt: skip
    return grid, {(value, int(seed)): request for (value, seed), request in requests.items()}


def _request(args: argparse.Namespace, value: str, seed: str) -> Request:
    """The run of a value; what SET says goes before the split, and the value before all."""
    changes = f"data.split=dev {args.overrides} {args.knob}={value}"
    folder = f"{args.runs_dir}/{FOLDER}/{args.knob}/{file_name(value)}"
    own = argparse.Namespace(**{**vars(args), "overrides": changes, "runs_dir": folder})
    return Request(own, seed=seed)


def file_name(value: str) -> str:
    """A value as a folder's name."""
    return re.sub(r"[^\w.+-]+", "_", value).strip("_")


def _value(preset: presets.Preset, args: argparse.Namespace) -> Any:
    return attrgetter(args.knob)(preset)


def summary(grid: Grid, value: str, run: RunDir) -> dict[str, Any]:
    """What is kept of a run: its last model's outcomes, and each stage's counts and origin."""
    found = results.gather(run, grid.method, grid.n, lambda path: check(run, path))
    assert found is not None
    models = [one for one in found["models"] if one["model"] == f"M{grid.n}"]
    kept = {name: found[name] for name in ("preset", "seed", "split", "git", "params_hash")}
    ends = [run.folder(key) for key in results.run_stages(grid.method, grid.n)]
    return {"value": value, "run": manifest.shown(run.path), **kept, "models": models,
            "stages": found["stages"],
            "provenance": lineage.brief(run, ends)}  # fmt: skip
