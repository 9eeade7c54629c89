"""The commands behind make: plan the stages, skip what is up to date, run the rest and say why.

    python -m psr_lib.runs iteration --preset tiny --n 2 --set "search.width=4"

Make only orders; what runs is decided here. Exit codes: 0 done, 1 a notebook failed, 2 the request
cannot be carried out, 130 interrupted.
"""

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from io import TextIOWrapper
from typing import Any, NoReturn

from psr_lib import (
    cards,
    integrity,
    leftovers,
    manifest,
    notebook_runner,
    presets,
    requirements,
    stages,
    upkeep,
)
from psr_lib.budgets import budget_lines
from psr_lib.locks import locked
from psr_lib.methods import BASE, DATA, EVALUATE, LAB, MAIN, PAPER, REFERENCE, REPORTS, STEPS
from psr_lib.notebook_runner import NotebookFailed
from psr_lib.records import PSRError
from psr_lib.request import Request, all_keys, several, whole
from psr_lib.run_dirs import Key, run_of
from psr_lib.stages import stage_state


class Parser(argparse.ArgumentParser):
    """Argument errors as one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        """Raise PSRError with argparse's message."""
        raise PSRError(f"{message}; see make help")


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command; errors are one line on stderr."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    for stream in (sys.stdout, sys.stderr):  # a locale without our letters shows their numbers
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        args = make_parser().parse_args(argv)
        _check_dry(args)
        _check_names(f"{manifest.root()} {vars(args)}")
        COMMANDS[args.command](args)
        sys.stdout.flush()
    except PSRError as error:
        return _fail(f"error: {error}", 2)
    except NotebookFailed as error:
        return _fail(f"failed: {error}", 1)
    except KeyboardInterrupt:
        return _fail("interrupted: complete stages are kept; the same command goes on there", 130)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # of the disk or the system, outside of any stage
        return _fail(f"error: {error}", 2)
    return 0


def _check_dry(args: argparse.Namespace) -> None:
    """Raise PSRError where a dry run is asked for and there is none: the real one would begin."""
    if getattr(args, "dry", False) and args.command != "iteration":
        raise PSRError(f"DRY=1 goes with make iteration; make {args.command} has no dry run")


def _check_names(names: str) -> None:
    """Raise PSRError where the locale cannot read the names of folders."""
    if any("\ud800" <= letter <= "\udfff" for letter in names):
        raise PSRError("a folder's name holds letters that this locale cannot read; set "
                       "PYTHONUTF8=1 (or LC_ALL=C.UTF-8) and run again")  # fmt: skip


def _fail(message: str, code: int) -> int:
    print(" ".join(message.split()), file=sys.stderr)
    return code


def _interrupt(*_: Any) -> NoReturn:
    logging.disable()  # what libraries say about the kernel that is now stopped helps nobody
    raise KeyboardInterrupt


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(prog="python -m psr_lib.runs", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    for name, function in COMMANDS.items():
        command = commands.add_parser(name, help=(function.__doc__ or "").split("\n")[0])
        if name == "help-notebook":
            command.add_argument("notebook", help="number or name, such as 03")
            continue
        _add_run_options(command)
    return parser


def _add_run_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--preset", default="tiny")
    command.add_argument("--method", default=MAIN)
    command.add_argument("--seed", default="0")
    command.add_argument("--methods", default="", help="several, for reproduce")
    command.add_argument("--seeds", default="", help="several, for reproduce")
    command.add_argument("--n", default="", help="round: 1 makes M1, 2 makes M2, ...")
    command.add_argument("--set", default="", dest="overrides", help="search.width=4,...")
    command.add_argument("--stage", default="", help="for build and clean-stage: which stage")
    command.add_argument("--item", default="", help="for why: table1/psrlm/M4/average")
    command.add_argument("--each", action="store_true", help="for status: a line a stage")
    command.add_argument("--on", default="", help="for plan: devices such as 8xH100")
    command.add_argument("--knob", default="", help="for ablate: a setting, as search.width")
    command.add_argument("--values", default="", help="for ablate: its values, as '2 4 6 8'")
    command.add_argument("--to", default="", help="for export: the folder to write")
    command.add_argument("--dry", action="store_true", help="for iteration: with stand-ins")
    command.add_argument("--runs-dir", default="runs")
    command.add_argument("--force", action="store_true", help="run the named stages again")


def build(request: Request, targets: Sequence[Key], extra: dict[str, Any] | None = None) -> int:
    """Run the targets and what they need, in order, skipping what is current; how many ran."""
    due = stages.in_order(targets)
    for key in due:  # every notebook is checked before the first one runs
        notebook_runner.check(stages.notebook_of(key), {**request.values(key), **(extra or {})})
    with locked(request.run, f"{request.preset.name} {targets[-1]}"):
        leftovers.sweep(request.run)
        ran = sum(
            _step(request, due[place:], key in targets, extra or {})
            for place, key in enumerate(due)
        )
        cards.refresh(request.run, request.method, request.preset.rounds)
    if not ran:
        print("nothing to do: everything is up to date")
    return ran


def _step(request: Request, due: Sequence[Key], target: bool, extra: dict[str, Any]) -> bool:
    """Bring the next stage up to date; whether it had to run.

    Before it runs it is seen whether this machine has what it and those after it need.
    """
    key = due[0]
    state = stage_state(request.run, key, request.preset)
    if state.word == "damaged" and not request.force:
        way_out = integrity.remedy(request.run, key)
        more = "" if "FORCE=1" in way_out else ", or with FORCE=1"
        raise PSRError(f"{key}: {state.reason}; {way_out}{more}")
    forced = request.force and target
    if state.word == "current" and not forced:
        notebook_runner.settle(request.run.notebook(key))
        print(f"{key}: up to date", flush=True)
        return False
    requirements.check(request.preset, due)
    if forced and key == Key(DATA):
        stages.make_anew(request.run)
    reason = state.reason or "forced"
    print(f"{key}: running ({reason})", flush=True)
    started = time.monotonic()
    _execute(request, key, extra)
    print(f"{key}: done in {time.monotonic() - started:.0f} s", flush=True)
    return True


def _execute(request: Request, key: Key, extra: dict[str, Any]) -> None:
    notebook, output = stages.notebook_of(key), request.run.notebook(key)
    notebook_runner.execute(notebook, output, {**request.values(key), **extra})
    if not (request.run.folder(key) / manifest.NAME).is_file():
        raise NotebookFailed(f"{notebook.name}: ended without stage.finish(), so it made nothing")


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


def judge(args: argparse.Namespace) -> None:
    """Test M[N] as a judge, and first those before it (notebook 07); without N the last one."""
    for request in several(args):
        last = request.preset.rounds
        n = request.round(args.n, low=0) if args.n else last
        build(request, [stages.make_key(LAB, request.method, n, last)])
        place = manifest.shown(request.run.lab(request.method, n))
        print(f"\n{place}: judge.csv, after a search ways.csv; figures in figures/")


def paper(args: argparse.Namespace) -> None:
    """Make every table and figure of the paper that the run, or SEEDS together, can give."""
    run = _with_paper(args).run
    place = manifest.shown(run.paper)
    print(f"tables and figures: {place}/paper.md, beside it tables/ and figures/")
    if mixed := sum(map(len, map(integrity.mixed, run.parts))):
        print(f"note: {mixed} stages read other files than are there now; make verify names them")


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


def help_notebook(args: argparse.Namespace) -> None:
    """Print a notebook's parameters with their comments."""
    folder = manifest.root() / "notebooks"
    found = sorted(folder.glob(f"{args.notebook.removesuffix('.ipynb')}*.ipynb"))
    if not found:
        known = [path.stem for path in folder.glob("*.ipynb")]
        raise PSRError(f"notebook {args.notebook!r} is unknown; {presets.suggest('', known)}")
    print(notebook_runner.help_text(found[0]))


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
    if kept := results.keep_map([together, *together.parts]):
        print(f"kept {manifest.shown(kept)}")


def plan(args: argparse.Namespace) -> None:
    """Print what the stages up to round N will cost, without N those of the whole path."""
    from psr_lib.plan import printed  # loads torch, and runs nothing

    request = Request(args)
    keys = stages.round_keys(request.method, request.round(args.n)) if args.n else all_keys(request)
    due = stages.in_order(keys)
    print(printed(request.preset, request.method, request.run, due, args.on))


def ablate(args: argparse.Namespace) -> None:
    """Run the preset with every one of VALUES for KNOB on dev problems; a table and a figure."""
    from psr_lib import ablation_tables, ablations  # load matplotlib; most commands do without

    grid, found = ablations.run(args, build)
    rows = ablation_tables.rows_of(grid, found)
    print(f"\n{ablation_tables.printed(grid, rows)}")
    print(f"figure: {manifest.shown(ablation_tables.write(grid, found, rows, args.runs_dir))}")
    for path in ablation_tables.keep(grid, found) if args.command == "keep-ablation" else ():
        print(f"kept {manifest.shown(path)}")


def export_model(args: argparse.Namespace) -> None:
    """Write M[N] as a folder that transformers, vllm serve and the hub accept."""
    from psr_lib.export import export, next_steps

    request = Request(args)
    folder = export(request.run, request.method, request.round(args.n), args.to)
    print(*next_steps(folder), sep="\n")


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "iteration": iteration,
    "reproduce": reproduce,
    "evaluate": evaluate,
    "judge": judge,
    "base": base,
    "data": data,
    "paper": paper,
    "report": write_report,
    "keep": keep,
    "ablate": ablate,
    "keep-ablation": ablate,
    "plan": plan,
    "export": export_model,
    "build": build_before,
    "help-notebook": help_notebook,
    **upkeep.COMMANDS,
}
