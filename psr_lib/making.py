"""Commands that make a run, or a part of it: iteration, reproduce, evaluate, judge, base, data."""

import argparse
from collections.abc import Callable

from psr_lib import integrity, manifest, stages
from psr_lib.budgets import budget_lines
from psr_lib.methods import BASE, DATA, EVALUATE, LAB, REFERENCE, REPORTS
from psr_lib.request import Request, all_keys, several, whole
from psr_lib.run_dirs import Key
from psr_lib.targets import build


def iteration(args: argparse.Namespace) -> None:
    """Build what is missing before round N, then run its stages; dry with stand-ins."""
    if args.dry:
        from psr_lib.dry_run import rehearse  # loads torch and transformers

        rehearse(args, build)
        return
    request = Request(args)
    build(request, stages.round_keys(request.method, request.round(args.n)))


def build_before(args: argparse.Namespace) -> None:
    """Build what a stage needs, for notebooks that are run by hand."""
    request = Request(args)
    n = whole("N", args.n or "0")
    key = stages.make_key(args.stage, request.method, n, request.preset.rounds)
    print(f"building what {key} needs", flush=True)
    build(request, stages.FIRST if key.stage in REPORTS else stages.needs(key))


def base(args: argparse.Namespace) -> None:
    """Train the base model again (notebook 00 with retrain=True)."""
    args.force = True
    build(Request(args), [Key(BASE)], {"retrain": True})


def data(args: argparse.Namespace) -> None:
    """Make the data of a run (notebook 01)."""
    request = Request(args)
    build(request, [stages.make_key(DATA, request.method, 0, request.preset.rounds)])


def reproduce(args: argparse.Namespace) -> None:
    """Run every round with its evaluation for all METHODS and SEEDS, then print the tables."""
    requests = several(args)
    for request in requests:
        build(request, all_keys(request))
    for request in requests:
        report(request)


def evaluate(args: argparse.Namespace) -> None:
    """Evaluate M[N], or without N every model that is there, and print the table."""
    request = Request(args)
    if request.method == REFERENCE:
        rounds = [0]
    elif args.n:
        rounds = [request.round(args.n, low=0)]
    else:
        made = range(1, request.preset.rounds + 1)
        rounds = [0, *(n for n in made if _has_model(request, n))]
    last = request.preset.rounds
    build(request, [stages.make_key(EVALUATE, request.method, n, last) for n in rounds])
    report(request)


def _has_model(request: Request, n: int) -> bool:
    return manifest.read(request.run.model(request.method, n)) is not None


def report(request: Request) -> None:
    """Print the accuracy table and where executed notebooks and figures lie."""
    from psr_lib import evaluation  # loads torch; the other commands do without

    run, method = request.run, request.method
    place = manifest.shown(run.path)
    print(f"\n{place} {method}\n{evaluation.accuracy_table(run, method)}")
    made = (manifest.read(run.ppd(method, n)) for n in range(2, request.preset.rounds + 1))
    for line in budget_lines(one for one in made if one):
        print(line)
    print(f"executed notebooks: {place}/base, data and {method}/M*, each in notebooks/")
    print("figures: figures/ beside each stage's results, as PNG, PDF and CSV")
    words = integrity.model_words(run, "", None)
    print(f"next: make report{words} (tables and figures on a page), or make lab to look inside")


def judge(args: argparse.Namespace) -> None:
    """Test M[N] as a judge, and first those before it (notebook 07); without N the last one."""
    for request in several(args):
        last = request.preset.rounds
        n = request.round(args.n, low=0) if args.n else last
        build(request, [stages.make_key(LAB, request.method, n, last)])
        place = manifest.shown(request.run.lab(request.method, n))
        print(f"\n{place}: judge.csv, after a search ways.csv; figures in figures/")


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "iteration": iteration,
    "reproduce": reproduce,
    "evaluate": evaluate,
    "judge": judge,
    "base": base,
    "data": data,
    "build": build_before,
}
