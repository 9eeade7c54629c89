"""What a command line asks for: a run with its preset and options, checked first."""

import argparse
from typing import Any

from psr_lib import presets, stages
from psr_lib.methods import BASE, DATA, EVALUATE, MAIN, REFERENCE
from psr_lib.records import PSRError
from psr_lib.run_dirs import Key, RunDir, run_of


class Request:
    """One run with its preset and options, checked before anything is written."""

    def __init__(self, args: argparse.Namespace, method: str = "", seed: str = "") -> None:
        self.overrides = " ".join(presets.split_overrides(args.overrides))
        self.preset = presets.load(args.preset, self.overrides)
        self.method = method or args.method
        self.run = RunDir(args.preset, whole("SEED", seed or args.seed), args.runs_dir)
        self.force = args.force
        stages.make_key(EVALUATE, self.method, 1, self.preset.rounds)
        presets.check_method(self.preset, self.method)

    def round(self, n: str, low: int = 1) -> int:
        """The round as a number from `low` to the preset's rounds; raises PSRError otherwise."""
        rounds = self.preset.rounds
        if not n:
            raise PSRError("N is missing; write for example: make iteration N=2")
        number = whole("N", n)
        if not low <= number <= rounds:
            raise PSRError(f"N={number}: preset {self.preset.name} has rounds {low} to {rounds}")
        return number

    def values(self, key: Key) -> dict[str, Any]:
        """The notebook's parameters for this stage."""
        values: dict[str, Any] = {"preset": self.preset.name, "method": key.method or MAIN}
        values |= {"iteration": key.n, "seed": self.run.seed}
        return {**values, "runs_dir": str(self.run.root), "overrides": self.overrides}


def whole(name: str, text: str) -> int:
    """A whole number of 0 or more from the command line; raises PSRError naming the variable."""
    if not text.isdecimal():
        raise PSRError(f"{name}={text}: expected a whole number of 0 or more")
    return int(text)


def several(args: argparse.Namespace) -> list[Request]:
    """A request for each of METHODS and SEEDS, all methods of a seed before the next seed."""
    methods = args.methods.replace(",", " ").split() or [args.method]
    seeds = args.seeds.replace(",", " ").split() or [args.seed]
    return [Request(args, method, seed) for seed in seeds for method in methods]


def all_keys(request: Request) -> list[Key]:
    """Every stage of a method, M0's evaluation included."""
    if request.method == REFERENCE:
        return [Key(EVALUATE, REFERENCE)]
    keys = [Key(BASE), Key(DATA), Key(EVALUATE)]
    for n in range(1, request.preset.rounds + 1):
        keys += stages.round_keys(request.method, n)
    return list(dict.fromkeys(keys))


def together(args: argparse.Namespace) -> RunDir:
    """The run of SEED, or of SEEDS together."""
    request = Request(args)
    return run_of(request.preset.name, request.run.seed, args.runs_dir, args.seeds)
