"""The commands behind make: what they are called with, and errors as one line.

    python -m psr_lib.runs iteration --preset tiny --n 2 --set "search.width=4"

Make only orders; what runs is decided in `targets`. Exit codes: 0 done, 1 a notebook failed, 2 the
request cannot be carried out, 130 interrupted.
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from typing import Any, NoReturn

from psr_lib import making, manifest, telling, upkeep
from psr_lib.methods import MAIN
from psr_lib.notebook_runner import NotebookFailed
from psr_lib.records import PSRError

COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    **making.COMMANDS,
    **telling.COMMANDS,
    **upkeep.COMMANDS,
}


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
