"""The same run with other settings, in a folder of its own.

What the settings do not touch is not made again: a stage that another run has made with the same
parameters, code and inputs is copied, manifest last, and the runner finds it up to date. A copy
rather than a link, because a stage that is made again must not write into another run.
"""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from psr_lib import manifest, stages
from psr_lib.presets import Preset
from psr_lib.records import PSRError
from psr_lib.run_dirs import Key, RunDir


def share(
    sources: Sequence[RunDir], target: RunDir, keys: Iterable[Key], preset: Preset
) -> list[Key]:
    """Copy to `target` each stage that it lacks and a source has made for these settings."""
    found = []
    for key in keys:
        if manifest.read(target.folder(key)) is None:
            source = next((run for run in sources if _current(run, key, preset)), None)
            if source:
                _copy(source, target, key)
                found.append(key)
    for run in sources:
        _lend(run, target)
    return found


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


def _copy(source: RunDir, target: RunDir, key: Key) -> None:
    old, new = source.folder(key), target.folder(key)
    made = manifest.read(old) or {"outputs": {}}
    for name in (*made["outputs"], manifest.NAME):  # which makes it complete
        _copy_file(old / name, new / name)
    if source.notebook(key).is_file():
        _copy_file(source.notebook(key), target.notebook(key))


def _copy_file(old: Path, new: Path) -> None:
    new.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(old, new)


def _lend(source: RunDir, target: RunDir) -> None:
    """What took long on the way to EFT, and answers that were paid for."""
    for old, new in ((source.making, target.making), (source.paid, target.paid)):
        if old.is_dir() and not new.exists():
            shutil.copytree(old, new)
