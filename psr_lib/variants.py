"""The same run with other settings, in a folder of its own.

What the settings do not touch is not made again: a stage that another run has made with the same
parameters, code and inputs is copied, manifest last, and the runner finds it up to date. A copy
rather than a link, because a stage that is made again must not write into another run.
"""

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from psr_lib import manifest, stages
from psr_lib.locks import locked
from psr_lib.presets import Preset
from psr_lib.records import PSRError, atomic, write_json, writing
from psr_lib.run_dirs import Key, RunDir


def share(
    sources: Sequence[RunDir], target: RunDir, keys: Iterable[Key], preset: Preset
) -> list[Key]:
    """Copy to `target` each stage that it lacks and a source has made for these settings.

    Raises PSRError where another process holds `target`. A source may be at work: a stage that it
    makes anew meanwhile is not taken.
    """
    with locked(target, "copying what another run has made"):
        found = [key for key in keys if _borrow(sources, target, key, preset)]
        for run in sources:
            _lend_paid(run, target)
            _lend_making(run, target)
    return found


def _borrow(sources: Sequence[RunDir], target: RunDir, key: Key, preset: Preset) -> bool:
    """Copy a stage that `target` lacks from the first run that has it; whether one had."""
    if manifest.read(target.folder(key)) is not None:
        return False
    return any(_current(run, key, preset) and _copy(run, target, key) for run in sources)


def _current(run: RunDir, key: Key, preset: Preset) -> bool:
    """Whether a run has made this stage with these settings; parameters, the quickest, first."""
    if not (run.folder(key) / manifest.NAME).is_file():
        return False
    try:
        made = manifest.read(run.folder(key)) or {}
        wanted = stages.params_hash(stages.parameters(preset, key, run.seed))
        same = made.get("params_hash") == wanted
        return same and stages.stage_state(run, key, preset).word == "current"
    except PSRError:
        return False


def _copy(source: RunDir, target: RunDir, key: Key) -> bool:
    """Copy a stage, its manifest last; whether the copy is what the manifest says."""
    old, new = source.folder(key), target.folder(key)
    made = manifest.read(old)
    try:
        for name in made["outputs"] if made else ():
            _copy_file(old / name, new / name)
        if source.notebook(key).is_file():
            _copy_file(source.notebook(key), target.notebook(key))
    except FileNotFoundError:  # the stage runs again there
        return False
    if made is None or manifest.damage(new, made):
        return False
    write_json(new / manifest.NAME, manifest.sealed(made))  # which makes it complete
    return True


def _copy_file(old: Path, new: Path) -> None:
    with atomic(new) as part:
        shutil.copyfile(old, part)


def _lend_paid(source: RunDir, target: RunDir) -> None:
    """Answers that were paid for: files that are only added to, so a copy is whole at any time."""
    for old in sorted(source.paid.glob("*.jsonl")):
        if not (target.paid / old.name).exists():
            _copy_file(old, target.paid / old.name)


def _lend_making(source: RunDir, target: RunDir) -> None:
    """What took long on the way to EFT, unless its run is at work and may be writing it."""
    if not source.making.is_dir() or target.making.exists():
        return
    try:
        with locked(source, "lending what EFT is made with"):
            _copy_folder(source.making, target.making)
    except PSRError as error:
        print(f"not borrowed: {error}", flush=True)


def _copy_folder(old: Path, new: Path) -> None:
    """All of a folder or nothing."""
    part = new.with_name(f"{new.name}.part{os.getpid()}")
    try:
        with writing(new):
            shutil.copytree(old, part)
            part.rename(new)
    finally:
        shutil.rmtree(part, ignore_errors=True)
