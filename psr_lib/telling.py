"""Commands that tell of runs: paper, report, keep, ablate, plan, export, help-notebook."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from psr_lib import integrity, manifest, notebook_runner, presets, stages
from psr_lib.locks import locked
from psr_lib.methods import PAPER, STEPS
from psr_lib.records import PSRError
from psr_lib.request import Request, all_keys, whole
from psr_lib.run_dirs import Key, RunDir, run_of
from psr_lib.targets import build


def paper(args: argparse.Namespace) -> None:
    """Make every table and figure of the paper that the run, or SEEDS together, can give."""
    run = _with_paper(args).run
    place = manifest.shown(run.paper)
    print(f"tables and figures: {place}/paper.md, beside it tables/ and figures/")
    _tell_mixed(run)


def _tell_mixed(run: RunDir) -> None:
    """Say which stages read something that was made anew since."""
    folders = [manifest.shown(one) for part in run.parts for one in integrity.mixed(part)]
    if folders:
        print(f"note: {integrity.told(folders)}")


def _with_paper(args: argparse.Namespace) -> Request:
    """The request for a run, or for SEEDS together, whose tables and figures are up to date."""
    seeds = args.seeds.replace(",", " ").split() or [args.seed]
    for seed in seeds:
        build(Request(args, seed=seed), [Key(STEPS)])
    request = Request(args, seed=seeds[0])
    together = " ".join(seeds)
    request.run = run_of(request.preset.name, request.run.seed, args.runs_dir, together)
    build(request, [Key(PAPER)], {"seeds": together})
    return request


def write_report(args: argparse.Namespace) -> None:
    """Make tables and figures, then one self-contained page of the run, or of SEEDS together."""
    from psr_lib import report as pages  # loads matplotlib; most commands do without

    request = _with_paper(args)
    with locked(request.run, "report"):
        path = pages.write(request.run, request.preset)
    print(f"report: {manifest.shown(path)}")
    _tell_mixed(request.run)


def keep(args: argparse.Namespace) -> None:
    """Store a finished run's summary in data/results, and log it if it used the test sets."""
    from psr_lib import kept_attacks, results

    seeds = args.seeds.replace(",", " ").split() or [args.seed]
    for method in args.methods.replace(",", " ").split() or [args.method]:
        for seed in seeds:
            request = Request(args, method, seed)
            build(request, [Key(STEPS)])
            checked = partial(integrity.check, request.run)
            with locked(request.run, f"keep {method}"):
                path = results.keep(request.run, method, request.preset.rounds, checked)
                for n in kept_attacks.measured(request.run, method, request.preset.rounds):
                    kept_attacks.keep(request.run, method, n)
            print(f"kept {manifest.shown(path)}")
    together = run_of(args.preset, whole("SEED", seeds[0]), args.runs_dir, " ".join(seeds))
    if kept := _keep_map([run for run in (together, *together.parts) if run.path.is_dir()]):
        print(f"kept {manifest.shown(kept)}")


def _keep_map(runs: Sequence[RunDir]) -> Path | None:
    """Keep Figure 2's points of the first of these runs that has them, held while it is read."""
    from psr_lib import results

    for run in runs:
        with locked(run, "keep figure 2"):
            if kept := results.keep_map([run]):
                return kept
    return None


def ablate(args: argparse.Namespace) -> None:
    """Run the preset with every one of VALUES for KNOB on dev problems; a table and a figure."""
    from psr_lib import ablation_tables, ablations  # load matplotlib; most commands do without

    grid, found = ablations.run(args, build)
    rows = ablation_tables.rows_of(grid, found)
    print(f"\n{ablation_tables.printed(grid, rows)}")
    print(f"figure: {manifest.shown(ablation_tables.write(grid, found, rows, args.runs_dir))}")
    for path in ablation_tables.keep(grid, found) if args.command == "keep-ablation" else ():
        print(f"kept {manifest.shown(path)}")


def plan(args: argparse.Namespace) -> None:
    """Print what the stages up to round N will cost, without N those of the whole path."""
    from psr_lib.plan import printed  # loads torch, and runs nothing

    request = Request(args)
    keys = stages.round_keys(request.method, request.round(args.n)) if args.n else all_keys(request)
    due = stages.in_order(keys)
    print(printed(request.preset, request.method, request.run, due, args.on))


def export_model(args: argparse.Namespace) -> None:
    """Write M[N] as a folder that transformers, vllm serve and the hub accept."""
    from psr_lib.export import export, next_steps

    request = Request(args)
    n = request.round(args.n)
    with locked(request.run, f"export M{n}"):
        folder = export(request.run, request.method, n, args.to)
    print(*next_steps(folder), sep="\n")


def help_notebook(args: argparse.Namespace) -> None:
    """Print a notebook's parameters with their comments."""
    folder = manifest.root() / "notebooks"
    found = sorted(folder.glob(f"{args.notebook.removesuffix('.ipynb')}*.ipynb"))
    if not found:
        known = [path.stem for path in folder.glob("*.ipynb")]
        raise PSRError(f"notebook {args.notebook!r} is unknown; {presets.suggest('', known)}")
    print(notebook_runner.help_text(found[0]))


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "paper": paper,
    "report": write_report,
    "keep": keep,
    "ablate": ablate,
    "keep-ablation": ablate,
    "plan": plan,
    "export": export_model,
    "help-notebook": help_notebook,
}
