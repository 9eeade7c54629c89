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
from typing import Any, NoReturn

from psr_lib import manifest, notebook_runner, presets, stages
from psr_lib.budgets import budget_lines
from psr_lib.locks import locked
from psr_lib.methods import BASE, DATA, EVALUATE, LAB, MAIN, PAPER, REFERENCE, REPORTS, STEPS
from psr_lib.notebook_runner import NotebookFailed
from psr_lib.records import PSRError
from psr_lib.run_dirs import Key, RunDir, run_of
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
    try:
        args = make_parser().parse_args(argv)
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
    return 0


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
    command.add_argument("--stage", default="", help="for build: the stage to prepare")
    command.add_argument("--runs-dir", default="runs")
    command.add_argument("--force", action="store_true", help="run the named stages again")


class Request:
    """One run with its preset and options, checked before anything is written."""

    def __init__(self, args: argparse.Namespace, method: str = "", seed: str = "") -> None:
        self.overrides = " ".join(presets.split_overrides(args.overrides))
        self.preset = presets.load(args.preset, self.overrides)
        self.method = method or args.method
        self.run = RunDir(args.preset, whole("SEED", seed or args.seed), args.runs_dir)
        self.force = args.force
        stages.make_key(EVALUATE, self.method, 1, self.preset.rounds)

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
        values = {"preset": self.preset.name, "method": key.method or MAIN}
        values |= {"iteration": key.n, "seed": self.run.seed}
        return {**values, "runs_dir": str(self.run.root), "overrides": self.overrides}


def whole(name: str, text: str) -> int:
    """A whole number of 0 or more from the command line; raises PSRError naming the variable."""
    if not text.isdecimal():
        raise PSRError(f"{name}={text}: expected a whole number of 0 or more")
    return int(text)


def build(request: Request, targets: Sequence[Key], extra: dict[str, Any] | None = None) -> int:
    """Run the targets and what they need, in order, skipping what is current; how many ran."""
    plan = stages.in_order(targets)
    for key in plan:  # every notebook is checked before the first one runs
        notebook_runner.check(stages.notebook_of(key), {**request.values(key), **(extra or {})})
    with locked(request.run, f"{request.preset.name} {targets[-1]}"):
        ran = sum(_step(request, key, key in targets, extra or {}) for key in plan)
    if not ran:
        print("nothing to do: everything is up to date")
    return ran


def _step(request: Request, key: Key, target: bool, extra: dict[str, Any]) -> bool:
    """Bring one stage up to date; whether it had to run."""
    state = stage_state(request.run, key, request.preset)
    if state.word == "damaged" and not request.force:
        place = manifest.shown(request.run.folder(key))
        raise PSRError(f"{key}: {state.reason}; delete {place} or add FORCE=1 to make it again")
    forced = request.force and target
    if state.word == "current" and not forced:
        print(f"{key}: up to date", flush=True)
        return False
    if forced and key.stage == DATA:
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
    state = stage_state(request.run, key, request.preset)
    if state.word == "missing":
        raise NotebookFailed(f"{notebook.name}: ended without stage.finish(), so it made nothing")


def iteration(args: argparse.Namespace) -> None:
    """Build what is missing before round N, then run its stages."""
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
    place = manifest.shown(_with_paper(args).run.paper)
    print(f"tables and figures: {place}/paper.md, beside it tables/ and figures/")


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
    print(f"report: {manifest.shown(pages.write(request.run, request.preset))}")


def status(args: argparse.Namespace) -> None:
    """Print the state of every stage of a run, and why a stage would run."""
    request = Request(args)
    for key in stages.in_order([*all_keys(request), *_laboratories(request)]):
        state = stage_state(request.run, key, request.preset)
        print(f"{key!s:<38} {state.word:<8} {state.reason}".rstrip())


def _laboratories(request: Request) -> list[Key]:
    """The judge laboratory of each model that has one; it is no part of the whole path."""
    last = request.preset.rounds
    keys = [stages.make_key(LAB, request.method, n, last) for n in range(last + 1)]
    return [key for key in keys if (request.run.folder(key) / manifest.NAME).is_file()]


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
    from psr_lib import results

    seeds = args.seeds.replace(",", " ").split() or [args.seed]
    for method in args.methods.replace(",", " ").split() or [args.method]:
        for seed in seeds:
            request = Request(args, method, seed)
            build(request, [Key(STEPS)])
            path = results.keep(request.run, method, request.preset.rounds)
            print(f"kept {manifest.shown(path)}")
    together = run_of(args.preset, whole("SEED", seeds[0]), args.runs_dir, " ".join(seeds))
    if path := results.keep_map([together, *together.parts]):
        print(f"kept {manifest.shown(path)}")


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "iteration": iteration,
    "reproduce": reproduce,
    "evaluate": evaluate,
    "judge": judge,
    "base": base,
    "data": data,
    "paper": paper,
    "report": write_report,
    "status": status,
    "keep": keep,
    "build": build_before,
    "help-notebook": help_notebook,
}
