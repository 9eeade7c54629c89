"""What a killed process left in a run, and how much of it the next one can go on from."""

import re
import shutil
from pathlib import Path

from psr_lib import cards, manifest, notebook_runner
from psr_lib.methods import DATA, DPO, INIT
from psr_lib.run_dirs import Key, RunDir

HALF_WRITTEN = re.compile(r"\.part(-old)?\d+$")  # a file or folder on its way, by its process
LAUNCH = "launch"  # a training in several processes that is not finished, beside its model
JOURNAL = "*.part"  # finished searches of a stage that is not finished


def sweep(run: RunDir) -> None:
    """Remove what nobody can use: half-written files, and scratch of stages that are complete.

    A stage that was opened again and left before it wrote anything is complete; the searches that
    it had finished by then stay, as they are younger than its manifest. Only for who holds the run.
    """
    for path in sorted(run.path.rglob("*")):
        if HALF_WRITTEN.search(path.name):
            _remove(path)
    for before in list(run.path.rglob(manifest.BEFORE)):
        manifest.put_back(before.parent)
    for made in run.path.rglob(manifest.NAME):
        for path in (made.with_name(manifest.BEFORE), *_used_up(made)):
            _remove(path)


def _used_up(made: Path) -> list[Path]:
    """Journals from before a manifest was written; a younger one is of its stage running again."""
    journals = made.parent.glob(JOURNAL)
    return [path for path in journals if path.stat().st_mtime_ns <= made.stat().st_mtime_ns]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def work_kept(run: RunDir, key: Key) -> str:
    """What there is of a stage that is not complete, in words; '' if nothing."""
    folder = run.folder(key)
    for journal in sorted(folder.glob(JOURNAL)):
        with open(journal, "rb") as file:
            done = sum(line.endswith(b"\n") for line in file) - 1
        if done > 0:
            return f"{done} searches are kept, the same command goes on there"
    if key == Key(DATA) and any(run.making.glob("*/made_from.json")):
        return "what EFT is made with is kept, the same command goes on there"
    if updates := _trained(folder.parent / LAUNCH):
        return f"a checkpoint at update {updates} is kept, the same command goes on there"
    begun = folder.is_dir() and manifest.files_in(folder)
    if begun or notebook_runner.part_of(run.notebook(key)).is_file():
        return "cut short, it starts again"
    return ""


def _trained(launch: Path) -> int:
    """Updates of a training in several processes that was killed."""
    if not launch.is_dir():
        return 0
    from psr_lib.checkpoints import updates_kept

    return updates_kept(launch / "checkpoints")


def files_of(run: RunDir, key: Key) -> list[Path]:
    """Every file that belongs to one stage and to no other, its executed notebook last.

    A model's cards, which say what is in it, are among them.
    """
    folder, notebook = run.folder(key), run.notebook(key)
    own = [folder / name for name in manifest.files_in(folder)] if folder.is_dir() else []
    own += [folder / manifest.NAME, folder / manifest.BEFORE, *folder.glob("*.part*")]
    if key.stage in (INIT, DPO):
        beside = [folder.parent / name for name in ("adapter", LAUNCH)]
        own += [path for part in beside for path in part.rglob("*") if path.is_file()]
        own += [folder.parent / name for name in (cards.MODEL, cards.DATA)]
    own += [notebook, notebook_runner.part_of(notebook)]
    return [path for path in dict.fromkeys(own) if path.is_file()]


def remove(run: RunDir, key: Key) -> list[Path]:
    """Remove one stage's files, and folders that are empty then; returns the files."""
    gone = files_of(run, key)
    for path in gone:
        path.unlink()
    for folder in sorted({parent for path in gone for parent in path.parents}, reverse=True):
        if folder.is_relative_to(run.path) and folder != run.path and not any(folder.iterdir()):
            folder.rmdir()
    return gone
