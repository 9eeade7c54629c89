"""Commands that look after a run: status, verify, why, clean-stage."""

import argparse
from collections.abc import Callable, Iterator

from psr_lib import integrity, leftovers, lineage, manifest, overview, stages
from psr_lib.integrity import Finding
from psr_lib.locks import locked
from psr_lib.methods import BASE, DATA, LAB, REPORTS, STAGES
from psr_lib.presets import suggest
from psr_lib.records import PSRError
from psr_lib.request import Request, all_keys, together, whole
from psr_lib.run_dirs import Key, RunDir, SeedsDir


def status(args: argparse.Namespace) -> None:
    """Print what a run holds of every model, or with --each a line a stage of one method.

    Of SEEDS one after the other, then the tables that they have in common.
    """
    for seed in args.seeds.replace(",", " ").split() or [args.seed]:
        print(*_status(args, Request(args, seed=seed)), sep="\n")
    if isinstance(run := together(args), SeedsDir):
        print(*overview.common(run, Request(args).preset), sep="\n")


def _status(args: argparse.Namespace, request: Request) -> list[str]:
    keys = stages.in_order([*all_keys(request), *_laboratories(request)])
    if args.each:
        return overview.lines_of(request.run, request.preset, keys)
    asked = args.methods.replace(",", " ").split() or [request.method]
    return overview.page(request.run, request.preset, asked) + [""] * bool(args.seeds)


def verify(args: argparse.Namespace) -> None:
    """Read every file of a run, or of SEEDS, and compare it with what its stage wrote."""
    run = _there(together(args))
    with locked(run, "verify"):
        for line in verified(run):
            print(line, flush=True)


def clean_stage(args: argparse.Namespace) -> None:
    """Remove one stage and say what is stale without it."""
    request, name = Request(args), stage_named(args.stage, args.n)
    n = whole("N", args.n or "0")
    key = stages.make_key(name, request.method, n, request.preset.rounds)
    with locked(_there(request.run), f"clean-stage {key}"):
        print(*clean(request.run, key), sep="\n")


def why(args: argparse.Namespace) -> None:
    """Print where a number of a table comes from, or the names of all."""
    from psr_lib import why  # loads torch

    run = together(args)
    print(*(why.explain(run, args.item) if args.item else why.listing(run)), sep="\n")


def _there(run: RunDir) -> RunDir:
    if gone := [part.path for part in run.parts if not part.path.is_dir()]:
        raise PSRError(f"{manifest.shown(gone[0])}: there is no such run; make reproduce makes it")
    return run


def _laboratories(request: Request) -> list[Key]:
    """The judge laboratory of each model that has one; it is no part of the whole path."""
    last = request.preset.rounds
    keys = [stages.make_key(LAB, request.method, n, last) for n in range(last + 1)]
    return [key for key in keys if (request.run.folder(key) / manifest.NAME).is_file()]


def stage_named(word: str, n: str) -> str:
    """A stage by its number or name, such as 03; raises PSRError where it, or N, is missing."""
    found = [name for name in STAGES if word and word in (name, name[:2], name[3:])]
    if not found:
        example = "make clean-stage STAGE=03 N=2"
        hint = suggest(word, STAGES) if word else f"write for example: {example}"
        raise PSRError(f"STAGE={word}: there is no such stage; {hint}")
    if not n and found[0] not in (BASE, DATA, *REPORTS):
        raise PSRError(f"N is missing: {found[0]} of which model? N=2 is M2's")
    return found[0]


def clean(run: RunDir, key: Key) -> Iterator[str]:
    """Remove one stage; lines that say what went, and what was made from it.

    Raises PSRError where there is nothing of it.
    """
    folder = run.folder(key).relative_to(run.path).as_posix()
    made = lineage.records(run, damaged=False) | {folder: {"inputs": {}}}
    gone = leftovers.remove(run, key)
    if not gone:
        raise PSRError(f"{key}: there is nothing in {manifest.shown(run.folder(key))}")
    after = [str(integrity.key_of(made[name])) for name in lineage.made_from(made, folder)]
    yield f"removed {key}: {len(gone)} files of {manifest.shown(run.folder(key))}"
    if key == Key(DATA) and run.making.is_dir():
        yield f"kept {manifest.shown(run.making)}, which the same settings use again"
    yield (f"stale until it is there again, byte for byte the same: {', '.join(after)}" if after
           else "nothing else was made from it")  # fmt: skip


def verified(run: RunDir) -> Iterator[str]:
    """A line a stage of a run (or of each of its seeds), its files read whole.

    Raises PSRError at the end where any is not as it was made.
    """
    bad = total = 0
    for part in dict.fromkeys((*run.parts, run)):
        for finding in integrity.audit(part):
            total, bad = total + 1, bad + bool(finding.wrong)
            yield _line(finding)
    if bad:
        raise PSRError(f"{bad} of {total} stages are not as they were made; each says what to do")
    yield f"{total} stages are as they were made"


def _line(finding: Finding) -> str:
    place = manifest.shown(finding.folder)
    return f"{place:<44} " + (
        finding.wrong or f"ok, {finding.files} files, {finding.bytes / 1e6:.1f} MB"
    )


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "status": status,
    "verify": verify,
    "why": why,
    "clean-stage": clean_stage,
}
